// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <type_traits>

#include "bi/gemm.hpp"
#include "bi/kernel/gemm_mma.cuh"
#include "bi/kernel/gemm_wgmma.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/gemm.hpp"

// From a schedule to a launch of its kernel.

BI_NAMESPACE_BEGIN
namespace launch_detail {

template <class T, bool Gate, class Out, int BlockM, bool Kn>
status gemm_mma(const kernel::gemm_params<T, Out>& p, const schedule::gemm_schedule& s, cuda_stream stream) {
  using kernel_shape = kernel::gemm_mma_shape<BlockM>;
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = kernel_shape::threads;
  shape.shared_bytes = kernel_shape::shared_bytes;
  if (p.slices == 1) return launch("gemm", kernel::gemm_mma_kernel<T, Gate, Out, BlockM, Kn, false>, shape, p, stream);
  return launch("gemm", kernel::gemm_mma_kernel<T, Gate, Out, BlockM, Kn, true>, shape, p, stream);
}

static_assert(kernel::gemm_wgmma_max_stages == schedule::gemm_max_stages, "barriers for every legal schedule");

// Stages that fit into the shared memory of an SM, 228 KB, beside the KB that a thread block costs and its barriers.
template <class Shape, class Out>
constexpr int most_stages(int load_x, int cluster_k, bool boxes, int residents) {
  const int bytes = residents == 1 ? 226 * 1024 : 112 * 1024;
  int stages = 1;
  while (stages < kernel::gemm_wgmma_max_stages &&
         kernel::gemm_wgmma_shared_bytes<Shape, Out>(stages + 1, load_x, cluster_k, boxes) <= bytes) {
    ++stages;
  }
  return stages;
}

template <class T, bool Gate, class Out, class Shape, bool Kn>
status gemm_wgmma(const kernel::gemm_params<T, Out>& g, const schedule::gemm_schedule& s, bool b_is_constant,
                  cuda_stream stream) {
  kernel::gemm_wgmma_params<T, Out> p = {};
  p.p = g;
  p.load_x = Shape::weights_first ? s.block_n : s.block_m;
  p.cluster_x = Shape::weights_first ? s.cluster_n : s.cluster_m;
  p.cluster_y = Shape::weights_first ? s.cluster_m : s.cluster_n;
  p.cluster_k = s.cluster_k;
  const std::int64_t x_rows = Shape::weights_first ? g.n : g.m, y_rows = Shape::weights_first ? g.m : g.n;
  p.grid_x = static_cast<int>(schedule::ceil_div(x_rows, std::int64_t{p.load_x} * p.cluster_x));
  p.grid_y = static_cast<int>(schedule::ceil_div(y_rows, std::int64_t{Shape::block_y} * p.cluster_y));
  p.group = s.group < p.grid_x ? s.group : p.grid_x;  // more is the same, and overflows
  p.tiles = static_cast<int>(p.grid_x * p.grid_y * g.batch);
  p.weights_are_final = b_is_constant;
  p.weights_once = Shape::weights_first ? p.grid_y * p.cluster_y == 1 : p.grid_x * p.cluster_x == 1;
  const bool aligned =
      device::vector_aligned(g.d, g.ldd) && (g.batch == 1 || device::vector_aligned(g.d, g.d_batch_stride));
  if constexpr (Shape::weights_first) {
    p.store_by_copy = aligned && !Gate && sizeof(Out) == 2;
    const int even = Shape::blocks_y % s.cluster_k == 0 ? Shape::blocks_y / s.cluster_k : 1;
    p.box_y = 8 * even;  // of which every thread block has whole ones
  } else {
    p.store_by_copy = aligned;
  }
  p.stages = s.stages != 0 ? s.stages : most_stages<Shape, Out>(p.load_x, s.cluster_k, p.store_by_copy, s.residents);
  p.copies_after_trigger = p.stages;

  const int x_share = p.load_x / p.cluster_y, y_share = Shape::block_y / p.cluster_x;
  device::tensor_map& tokens = Shape::weights_first ? p.y : p.x;
  device::tensor_map& weights = Shape::weights_first ? p.x : p.y;
  const int tokens_box = Shape::weights_first ? y_share : x_share;
  const int weights_box = Shape::weights_first ? x_share : y_share;
  status st = encode_tensor_map("gemm", &tokens, element_of<T>, g.a, g.k, g.m, g.lda, g.batch, g.a_batch_stride, 64,
                                tokens_box);
  if (!st) return st;
  st = Kn ? encode_tensor_map("gemm", &weights, element_of<T>, g.b, g.n, g.k, g.ldb, g.batch, g.b_batch_stride, 64, 64)
          : encode_tensor_map("gemm", &weights, element_of<T>, g.b, g.k, g.n, g.ldb, g.batch, g.b_batch_stride, 64,
                              weights_box);
  if (!st) return st;
  if (p.store_by_copy) {
    int cols = p.load_x < 64 ? p.load_x : 64;
    if constexpr (!Shape::weights_first) cols = kernel::gemm_wgmma::box_columns<Shape, Gate, Out>(s.cluster_k > 1);
    st = encode_tensor_map("gemm", &p.d, element_of<Out>, g.d, Gate ? g.n / 2 : g.n, g.m, g.ldd, g.batch,
                           g.d_batch_stride, cols, Shape::weights_first ? p.box_y : 64);
    if (!st) return st;
  }

  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = Shape::threads;
  shape.shared_bytes = static_cast<std::size_t>(
      kernel::gemm_wgmma_shared_bytes<Shape, Out>(p.stages, p.load_x, p.cluster_k, p.store_by_copy));
  shape.cluster = static_cast<unsigned>(s.cluster_m * s.cluster_n * s.cluster_k);
  shape.programmatic = s.programmatic;
  return launch("gemm", kernel::gemm_wgmma_kernel<T, Gate, Out, Shape, Kn>, shape, p, stream);
}

template <int BlockM, int BlockN = 64>
using weights_first = kernel::gemm_wgmma_shape<true, BlockN / 64, 1, BlockM, 0>;
template <int BlockM, int BlockN, int Levels = 0>
using tokens_first = kernel::gemm_wgmma_shape<false, BlockM == 64 ? 1 : 2, BlockM == 256 ? 2 : 1, BlockN, Levels>;

// Calls f(shape) with the kernel's shape that a schedule names; false if there is none (schedule::gemm_is_legal).
template <bool Kn, class F>
bool with_gemm_shape(const schedule::gemm_schedule& s, int slices, F f) {
  const auto is = [&](int block_m, int block_n) { return s.block_m == block_m && s.block_n == block_n; };
  if (s.weights_first) {
    if (s.block_m == 8) return f(weights_first<8>{}), true;
    if (s.block_m == 32) return f(weights_first<32>{}), true;
    if (s.block_m == 128) return f(weights_first<128>{}), true;
    if constexpr (!Kn) {
      if (s.block_m == 16) return f(weights_first<16>{}), true;
      if (s.block_m == 64) return f(weights_first<64>{}), true;
      if (is(112, 128)) return f(weights_first<112, 128>{}), true;
      if (s.block_m == 96) return f(weights_first<96>{}), true;
    }
    return false;
  }
  if (slices > 1) {
    const int in_block = slices / s.cluster_k;
    if (is(128, 64)) return f(tokens_first<128, 64, 3>{}), true;
    if (in_block <= 2 && is(128, 128)) return f(tokens_first<128, 128, 1>{}), true;
    if constexpr (!Kn) {
      if (in_block <= 2 && is(128, 160)) return f(tokens_first<128, 160, 1>{}), true;
      if (in_block <= 4 && is(128, 96)) return f(tokens_first<128, 96, 2>{}), true;
    }
    if (in_block > 1) return false;
  }
  if (is(128, 128)) return f(tokens_first<128, 128, 1>{}), true;
  if (is(128, 256)) return f(tokens_first<128, 256>{}), true;
  if constexpr (!Kn) {
    if (is(64, 80)) return f(tokens_first<64, 80>{}), true;
    if (is(64, 96)) return f(tokens_first<64, 96>{}), true;
    if (is(64, 128)) return f(tokens_first<64, 128>{}), true;
    if (is(64, 160)) return f(tokens_first<64, 160>{}), true;
    if (is(64, 192)) return f(tokens_first<64, 192>{}), true;
    if (is(64, 256)) return f(tokens_first<64, 256>{}), true;
    if (is(128, 160)) return f(tokens_first<128, 160, 1>{}), true;
    if (is(128, 192)) return f(tokens_first<128, 192>{}), true;
    if (is(128, 224)) return f(tokens_first<128, 224>{}), true;
    if (is(256, 128)) return f(tokens_first<256, 128>{}), true;
  }
  return false;
}

template <class T, bool Gate, class Out, bool Kn>
status gemm_with(const kernel::gemm_params<T, Out>& p, const schedule::gemm_schedule& s, bool b_is_constant,
                 cuda_stream stream) {
  if (s.kernel == schedule::gemm_kernel::mma) {
    return s.block_m == 16 ? gemm_mma<T, Gate, Out, 16, Kn>(p, s, stream)
                           : gemm_mma<T, Gate, Out, 64, Kn>(p, s, stream);
  }
  status st;
  const bool found = with_gemm_shape<Kn>(s, p.slices, [&](auto shape) {
    st = gemm_wgmma<T, Gate, Out, decltype(shape), Kn>(p, s, b_is_constant, stream);
  });
  if (!found) {
    checker c("gemm");
    c.supported("schedule", s.block_m, false, "a schedule of bi/schedule/gemm.hpp");
    st = c.result();
  }
  return st;
}

// The current device. Whether the program has the wgmma kernels is asked of one of them: built for another target than
// sm_90a its body is empty, and has no static shared memory.
template <class T, bool Gate, class Out>
status find_gemm_device(schedule::gemm_device& d) {
  d.wgmma = false;
  int major = 0;
  status st = current_device_attribute("gemm", "cudaDeviceGetAttribute(MultiProcessorCount)",
                                       cudaDevAttrMultiProcessorCount, d.processors);
  if (!st) return st;
  st = current_device_attribute("gemm", "cudaDeviceGetAttribute(ComputeCapabilityMajor)",
                                cudaDevAttrComputeCapabilityMajor, major);
  if (!st || major != 9) return st;
  cudaFuncAttributes attributes = {};
  const auto kernel = kernel::gemm_wgmma_kernel<T, Gate, Out, weights_first<8>, false>;
  const cudaError_t code = runtime::get_kernel_attributes(&attributes, reinterpret_cast<const void*>(kernel));
  if (code != cudaSuccess) return cuda_status("gemm", "cudaFuncGetAttributes", code);
  d.wgmma = attributes.sharedSizeBytes > 0;
  return {};
}

}  // namespace launch_detail
BI_NAMESPACE_END
