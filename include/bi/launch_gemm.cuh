// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <type_traits>

#include "bi/contract/gemm.hpp"
#include "bi/gemm.hpp"
#include "bi/kernel/gemm_mma.cuh"
#include "bi/kernel/gemm_wgmma.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/gemm.hpp"

// From a schedule to a launch of its kernel.

BI_NAMESPACE_BEGIN
namespace launch_detail {

template <class T, bool Gate, class Out, int BlockM>
status gemm_mma(const kernel::gemm_params<T, Out>& p, const schedule::gemm_schedule& s, cuda_stream stream) {
  using kernel_shape = kernel::gemm_mma_shape<BlockM>;
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = kernel_shape::threads;
  shape.shared_bytes = kernel_shape::shared_bytes;
  return launch("gemm", kernel::gemm_mma_kernel<T, Gate, Out, BlockM>, shape, p, stream);
}

static_assert(kernel::gemm_wgmma_max_stages == schedule::gemm_max_stages, "barriers for every legal schedule");

// A kernel and what its launch has to know of it: with types in place of these numbers, each kernel would cost a launcher
// of its own.
template <class T, class Out>
struct gemm_wgmma_code {
  void (*kernel)(kernel::gemm_wgmma_params<T, Out>);
  kernel::gemm_wgmma_form form;
  bool gate, kn;
};

// Stages that fit into the shared memory of an SM, 228 KB, beside the KB that a thread block costs and its barriers.
template <class Out>
int most_stages(const kernel::gemm_wgmma_form& f, int load_x, int cluster_k, bool gate, int residents) {
  const int bytes = residents == 1 ? 226 * 1024 : 112 * 1024;
  int stages = 1;
  while (stages < kernel::gemm_wgmma_max_stages &&
         kernel::gemm_wgmma_shared_bytes<Out>(f, stages + 1, load_x, cluster_k, gate) <= bytes) {
    ++stages;
  }
  return stages;
}

template <class T, class Out>
status gemm_wgmma(const gemm_wgmma_code<T, Out>& code, const kernel::gemm_params<T, Out>& g,
                  const schedule::gemm_schedule& s, bool b_is_constant, cuda_stream stream) {
  const kernel::gemm_wgmma_form& f = code.form;
  kernel::gemm_wgmma_params<T, Out> p = {};
  p.p = g;
  p.load_x = f.weights_first ? s.block_n : s.block_m;
  p.cluster_x = f.weights_first ? s.cluster_n : s.cluster_m;
  p.cluster_y = f.weights_first ? s.cluster_m : s.cluster_n;
  p.cluster_k = s.cluster_k;
  p.slices_in_block = g.slices / s.cluster_k;
  for (int i = 0; i <= g.slices; ++i) {
    p.slice_tile[i] = static_cast<int>(schedule::ceil_div(contract::slice_begin(g.k, g.slices, i), 64));
  }
  const std::int64_t x_rows = f.weights_first ? g.n : g.m, y_rows = f.weights_first ? g.m : g.n;
  p.grid_x = static_cast<int>(schedule::ceil_div(x_rows, std::int64_t{p.load_x} * p.cluster_x));
  p.grid_y = static_cast<int>(schedule::ceil_div(y_rows, std::int64_t{f.block_y} * p.cluster_y));
  p.group = s.group < p.grid_x ? s.group : p.grid_x;  // more is the same, and overflows
  p.tiles = static_cast<int>(p.grid_x * p.grid_y * g.batch);
  p.weights_are_final = b_is_constant;
  // Weights that one round of tiles reads are let go too, which leaves the L2 cache to tokens. (Measured with 128 weights.)
  const std::int64_t cluster = std::int64_t{p.cluster_x} * p.cluster_y * p.cluster_k;
  const bool one_round =
      f.weights_first && p.load_x == 128 && g.m <= 1024 && std::int64_t{p.group} * p.grid_y * cluster <= s.blocks;
  p.weights_once = one_round || (f.weights_first ? p.grid_y * p.cluster_y == 1 : p.grid_x * p.cluster_x == 1);
  p.store_by_copy =
      device::vector_aligned(g.d, g.ldd) && (g.batch == 1 || device::vector_aligned(g.d, g.d_batch_stride));
  if (f.weights_first) {
    p.store_by_copy = p.store_by_copy && kernel::gemm_wgmma_has_boxes<Out>(code.gate);
    const int blocks_y = f.block_y / 8, even = blocks_y % s.cluster_k == 0 ? blocks_y / s.cluster_k : 1;
    p.box_y = 8 * even;  // of which every thread block has whole ones
  }
  p.stages = s.stages != 0 ? s.stages : most_stages<Out>(f, p.load_x, s.cluster_k, code.gate, s.residents);
  p.copies_after_trigger = p.stages;

  const auto share = [](int rows, int blocks) {  // whole groups of 8 rows, which is what the swizzle repeats after
    return static_cast<int>(schedule::ceil_div(rows, 8 * blocks)) * 8;
  };
  p.share_x = share(p.load_x, p.cluster_y), p.share_y = share(f.block_y, p.cluster_x);
  // Rows of one copy: the whole share, or less where the last tile would be filled up with many rows of zeros.
  const auto rows_at_once = [](int rows, int tile, std::int64_t limit) {
    if (limit % tile == 0 || tile - limit % tile < 32) return rows;
    for (int n = 32; n > 8; n -= 8) {
      if (rows % n == 0) return n;
    }
    return 8;
  };
  p.copy_x = rows_at_once(p.share_x, p.load_x, x_rows), p.copy_y = rows_at_once(p.share_y, f.block_y, y_rows);
  if (code.kn) (f.weights_first ? p.copy_x : p.copy_y) = 64;
  // Of the first `rows` rows of a tile.
  const auto copied_bytes = [](int rows, int tile, int share, int shares, int copy) {
    int bytes = 0;
    for (int i = 0; i < shares; ++i) {
      const int first = kernel::gemm_wgmma::share_begin(tile, share, i),
                here = rows - first < share ? rows - first : share;
      if (here > 0) bytes += (here + copy - 1) / copy * copy * 128;
    }
    return bytes;
  };
  p.bytes_x = copied_bytes(p.load_x, p.load_x, p.share_x, p.cluster_y, p.copy_x);
  p.bytes_y = copied_bytes(f.block_y, f.block_y, p.share_y, p.cluster_x, p.copy_y);
  p.last_bytes_x = copied_bytes(static_cast<int>(x_rows % p.load_x), p.load_x, p.share_x, p.cluster_y, p.copy_x);
  p.last_bytes_y = copied_bytes(static_cast<int>(y_rows % f.block_y), f.block_y, p.share_y, p.cluster_x, p.copy_y);
  device::tensor_map& tokens = f.weights_first ? p.y : p.x;
  device::tensor_map& weights = f.weights_first ? p.x : p.y;
  const int tokens_box = f.weights_first ? p.copy_y : p.copy_x;
  const int weights_box = f.weights_first ? p.copy_x : p.copy_y;
  status st = encode_tensor_map("gemm", &tokens, element_of<T>, g.a, g.k, g.m, g.lda, g.batch, g.a_batch_stride, 64,
                                tokens_box);
  if (!st) return st;
  st = code.kn
           ? encode_tensor_map("gemm", &weights, element_of<T>, g.b, g.n, g.k, g.ldb, g.batch, g.b_batch_stride, 64, 64)
           : encode_tensor_map("gemm", &weights, element_of<T>, g.b, g.k, g.n, g.ldb, g.batch, g.b_batch_stride, 64,
                               weights_box);
  if (!st) return st;
  if (p.store_by_copy) {
    const int cols =
        f.weights_first ? (p.load_x < 64 ? p.load_x : 64) : kernel::gemm_wgmma_box_columns<Out>(f.block_y, code.gate);
    st = encode_tensor_map("gemm", &p.d, element_of<Out>, g.d, code.gate ? g.n / 2 : g.n, g.m, g.ldd, g.batch,
                           g.d_batch_stride, cols, f.weights_first ? p.box_y : 16);
    if (!st) return st;
  }

  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = static_cast<unsigned>(f.threads);
  shape.shared_bytes =
      static_cast<std::size_t>(kernel::gemm_wgmma_shared_bytes<Out>(f, p.stages, p.load_x, p.cluster_k, code.gate));
  shape.cluster = static_cast<unsigned>(s.cluster_m * s.cluster_n * s.cluster_k);
  shape.programmatic = s.programmatic;
  return launch("gemm", code.kernel, shape, p, stream);
}

template <int BlockM, int BlockN = 64, int Levels = 0>
using weights_first = kernel::gemm_wgmma_shape<true, BlockN / 64, BlockM, Levels>;
template <int BlockM, int BlockN, int Levels = 0>
using tokens_first = kernel::gemm_wgmma_shape<false, BlockM / 64, BlockN, Levels>;

// Calls f(shape) with the kernel's shape that a schedule names; false if there is none (schedule::gemm_is_legal).
template <bool Kn, class F>
bool with_gemm_shape(const schedule::gemm_schedule& s, int slices, F f) {
  const int in_block = slices / s.cluster_k;
  const auto take = [&](bool may, auto shape) {
    using shape_type = decltype(shape);
    if (!may || (s.weights_first ? s.block_m : s.block_n) != shape_type::block_y) return false;
    if (s.cluster_k > shape_type::max_cluster_k || in_block > 1 << shape_type::levels) return false;
    f(shape);
    return true;
  };
  if (s.weights_first) {
    const bool narrow = s.block_n <= 64, wide = s.block_n == 128;
    if (take(narrow, weights_first<8>{}) || take(narrow, weights_first<32>{}) || take(narrow, weights_first<64>{}) ||
        take(wide, weights_first<192, 128, 1>{})) {
      return true;
    }
    if constexpr (!Kn) {
      return take(narrow, weights_first<16>{}) || take(narrow, weights_first<96>{}) ||
             take(narrow, weights_first<128>{}) || take(wide, weights_first<88, 128, 1>{}) ||
             take(wide, weights_first<104, 128, 1>{}) || take(wide, weights_first<128, 128, 2>{}) ||
             take(wide, weights_first<136, 128>{}) || take(wide, weights_first<160, 128>{});
    }
    return false;
  }
  const bool low = s.block_m == 64, tall = s.block_m == 128;
  if (take(tall, tokens_first<128, 64, 3>{}) || take(tall, tokens_first<128, 128, 1>{}) ||
      take(tall, tokens_first<128, 192>{}) || take(tall, tokens_first<128, 256>{})) {
    return true;
  }
  if constexpr (!Kn) {
    return take(low, tokens_first<64, 96>{}) || take(low, tokens_first<64, 128>{}) ||
           take(tall, tokens_first<128, 80, 1>{}) || take(tall, tokens_first<128, 96, 2>{}) ||
           take(tall, tokens_first<128, 112>{}) || take(tall, tokens_first<128, 160, 1>{}) ||
           take(tall, tokens_first<128, 224>{});
  }
  return false;
}

template <class T, bool Gate, class Out, bool Kn>
status gemm_with(const kernel::gemm_params<T, Out>& p, const schedule::gemm_schedule& s, bool b_is_constant,
                 cuda_stream stream) {
  if (s.kernel == schedule::gemm_kernel::mma) {
    return s.block_m == 16 ? gemm_mma<T, Gate, Out, 16>(p, s, stream) : gemm_mma<T, Gate, Out, 64>(p, s, stream);
  }
  gemm_wgmma_code<T, Out> code = {};
  const bool found = with_gemm_shape<Kn>(s, p.slices, [&](auto shape) {
    using shape_type = decltype(shape);
    code = {kernel::gemm_wgmma_kernel<T, Gate, Out, shape_type, Kn>, shape_type::form(), Gate, Kn};
  });
  if (found) return gemm_wgmma(code, p, s, b_is_constant, stream);
  checker c("gemm");
  c.supported("schedule", s.block_m, false, "a schedule of bi/schedule/gemm.hpp");
  return c.result();
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
  st = find_kernel_attributes("gemm", kernel::gemm_wgmma_kernel<T, Gate, Out, weights_first<8>, false>, attributes);
  d.wgmma = attributes.sharedSizeBytes > 0;
  return st;
}

}  // namespace launch_detail
BI_NAMESPACE_END
