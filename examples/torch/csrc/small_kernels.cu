// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "small_kernels.hpp"

#include <cuda_runtime_api.h>

#include "bi/runtime.hpp"

namespace bi_torch {

namespace {

constexpr int threads = 256;

template <class Args>
BI_KERNEL __launch_bounds__(threads) void items_kernel(const Args p) {
  const std::int64_t count = items(p), step = static_cast<std::int64_t>(gridDim.x) * threads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x; i < count; i += step) item(p, i);
}

}  // namespace

template <class Args>
bi::status run_items(const Args& args, bi::cuda_stream stream) {
  const std::int64_t count = items(args);
  if (count <= 0) return {};
  const std::int64_t blocks = (count - 1) / threads + 1, most = 132 * 32;
  bi::launch_shape shape;
  shape.grid.x = static_cast<unsigned>(blocks < most ? blocks : most);
  shape.block.x = threads;
  return bi::launch("bi_torch", items_kernel<Args>, shape, args, stream);
}

bi::status set_device(int index) { return bi::cuda_status("bi_torch", "cudaSetDevice", cudaSetDevice(index)); }

#define BI_TORCH_INSTANTIATE(...) template bi::status run_items(const __VA_ARGS__&, bi::cuda_stream)
BI_TORCH_INSTANTIATE(scale_add_args<bi::bf16>);
BI_TORCH_INSTANTIATE(scale_add_args<bi::fp16>);
BI_TORCH_INSTANTIATE(scale_add_args<float>);
BI_TORCH_INSTANTIATE(fill_ones_args<bi::bf16>);
BI_TORCH_INSTANTIATE(fill_ones_args<bi::fp16>);
BI_TORCH_INSTANTIATE(fill_ones_args<float>);
BI_TORCH_INSTANTIATE(batch_views_args);
BI_TORCH_INSTANTIATE(pack_params_args);

}  // namespace bi_torch
