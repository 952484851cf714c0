// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/bi.cuh"
#include "kernels.hpp"
#include "weights.hpp"

// bi's kernels that backend_gpu.cpp launches, each instantiated once, and two of the example's own.

namespace c = bi::contract;
using bi::bf16;

BI_INSTANTIATE_ACTIVATION(bf16, c::activation_draft);
BI_INSTANTIATE_EMBEDDING(bf16);
BI_INSTANTIATE_RMS_NORM(bf16, c::rms_norm_draft);
BI_INSTANTIATE_KV_APPEND(bf16, c::rms_norm_draft, c::rope_draft);
BI_INSTANTIATE_GEMM(bi::gemm<bf16>);
BI_INSTANTIATE_GEMM(bi::gemm<bf16, bi::epilogue::silu_gate>);
BI_INSTANTIATE_GEMM(bi::gemm<bf16, bi::epilogue::none, float>);
BI_INSTANTIATE_ATTENTION(bi::attention<bf16, 64>);
BI_INSTANTIATE_ATTENTION(bi::attention<bf16, 128>);
BI_INSTANTIATE_SAMPLE(float, c::sample_draft);
BI_INSTANTIATE_SOFTMAX(float, float, c::softmax_draft);
BI_INSTANTIATE_DIGEST_ROWS(c::digest_words_draft);
BI_INSTANTIATE_DIGEST_KV(bf16, c::digest_words_draft);

namespace engine {
namespace {

struct random_weights_params {
  bf16* out;
  std::int64_t count;
  std::uint64_t seed, tensor;
  float scale;
};
__global__ void random_weights_kernel(random_weights_params p) {
  const std::int64_t threads = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.count; i += threads) {
    p.out[i] = random_weight(p.seed, p.tensor, static_cast<std::uint64_t>(i), p.scale);
  }
}

__global__ void pick_kernel(pick_args a) {
  const std::int64_t r = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r < a.rows) a.out[r] = a.data[r * a.cols + a.column[r]];
}

bi::launch_shape shape_of(std::int64_t threads, std::int64_t most_blocks) {
  bi::launch_shape s;
  s.block.x = 256;
  const std::int64_t blocks = (threads + 255) / 256;
  s.grid.x = static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks);
  return s;
}

}  // namespace

bi::status launch_random_weights(bf16* out, std::int64_t count, std::uint64_t seed, std::uint64_t tensor, float scale,
                                 bi::cuda_stream stream) {
  const random_weights_params p = {out, count, seed, tensor, scale};
  return bi::launch("random_weights", random_weights_kernel, shape_of(count, 132 * 8), p, stream);
}
bi::status launch_pick(const pick_args& a, bi::cuda_stream stream) {
  return bi::launch("pick", pick_kernel, shape_of(a.rows, 1 << 20), a, stream);
}

}  // namespace engine
