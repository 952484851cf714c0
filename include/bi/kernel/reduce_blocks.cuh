// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/held.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/reduce.cuh"

// As bi/kernel/reduce.cuh, but a warp folds one block of 8192 elements of a row. Where rows have more, the blocks'
// results are rows again, for the next launch.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T, class Out>
struct reduce_blocks_params {
  const T* x;
  Out* out;  // of block b of row r: out[r * out_stride + b]
  std::int64_t x_stride, out_stride;
  std::int64_t cols;      // of x
  std::int64_t row_cols;  // of the row that the results are of
  device::flat_items blocks;
  bool aligned;  // every row of x starts at a multiple of 16 bytes
};

inline constexpr int reduce_held =
    contract::row_lanes / 32;  // lanes of the tree that a thread has, a vector each at once

// fold(j, v, i, n): vector [i, i + n) of a block of `length` elements for the thread's lane j, in the order of the
// tree. While 8 vectors are folded the next 8 are on their way.
template <class T, class Fold>
BI_D void for_block_vectors(const T* x, int length, bool aligned, Fold fold) {
  constexpr int width = device::vector_size, round = contract::row_lanes * width;
  const int at = static_cast<int>(threadIdx.x % 32) * width, full = aligned ? length / round * round : 0;
  device::held_vector<T> v[2][reduce_held];
  const auto load = [&](int begin, device::held_vector<T>(&to)[reduce_held]) {
#pragma unroll
    for (int j = 0; j < reduce_held; ++j) to[j].load_once(x + begin + at + j * 32 * width);
  };
  if (full > 0) load(0, v[0]);
#pragma unroll
  for (int r = 0; r < contract::row_block / round; ++r) {
    const int begin = r * round;
    if (begin >= full) break;
    if (begin + round < full) load(begin + round, v[1 - r % 2]);
#pragma unroll
    for (int j = 0; j < reduce_held; ++j) {
      float f[width];
#pragma unroll
      for (int e = 0; e < width; ++e) f[e] = v[r % 2][j][e];
      fold(j, f, begin + at + j * 32 * width, width);
    }
  }
#pragma unroll 1
  for (int begin = full; begin < length; begin += round) {
#pragma unroll
    for (int j = 0; j < reduce_held; ++j) {
      const int i = begin + at + j * 32 * width, n = length - i < width ? length - i : width;
      if (n <= 0) continue;
      float f[width];
      device::load_vector_f32(x + i, n, aligned, f);
      fold(j, f, i, n);
    }
  }
}

// Last: the results are the rows', finished and rounded.
template <class Form, class T, class Out, bool Last>
BI_KERNEL __launch_bounds__(128) void reduce_blocks_kernel(const reduce_blocks_params<T, Out> p) {
  using step = typename Form::step;
  device::begin_dependent();
  device::for_items<32>(p.blocks, [&](device::flat_item item) {
    const T* x = p.x + item.row * p.x_stride + item.index * contract::row_block;
    float lane[reduce_held];
#pragma unroll
    for (int j = 0; j < reduce_held; ++j) lane[j] = Form::start();
    for_block_vectors(x, contract::block_length(p.cols, item.index), p.aligned,
                      [&](int j, const float(&v)[device::vector_size], int, int n) {
#pragma unroll
                        for (int e = 0; e < device::vector_size; ++e) {
                          if (e < n) lane[j] = step{}(lane[j], v[e]);
                        }
                      });
    // A lane that has no vector holds the start value, which changes nothing: of sums that begin at +0 none is -0. Both
    // sides of a combination may come first.
    float r = contract::combine_held(lane, 0, contract::row_lanes, step{});
#pragma unroll
    for (int d = 16; d > 0; d /= 2) r = step{}(r, __shfl_xor_sync(device::full_warp, r, d));
    if (threadIdx.x % 32 != 0) return;
    if constexpr (Last) {
      p.out[item.row * p.out_stride + item.index] = cvt_rn<Out>(Form::finish(r, p.row_cols));
    } else {
      p.out[item.row * p.out_stride + item.index] = r;
    }
  });
}

template <class T>
struct arg_blocks_params {
  const T* x;
  contract::arg_value* out;  // of block b of row r: out[r * blocks.in_row + b]
  std::int64_t x_stride;
  std::int64_t cols;
  device::flat_items blocks;
  bool aligned;  // every row of x starts at a multiple of 16 bytes
};

template <class Step, class T>
BI_KERNEL __launch_bounds__(128) void arg_blocks_kernel(const arg_blocks_params<T> p) {
  device::begin_dependent();
  device::for_items<32>(p.blocks, [&](device::flat_item item) {
    const std::int64_t begin = item.index * contract::row_block;
    const T* x = p.x + item.row * p.x_stride + begin;
    contract::arg_value best{0.0f, -1};
    for_block_vectors(x, contract::block_length(p.cols, item.index), p.aligned,
                      [&](int, const float(&v)[device::vector_size], int i, int n) {
                        // Few vectors hold a better value than those before; they are read again, one by one.
                        bool better = best.index < 0;
#pragma unroll
                        for (int e = 0; e < device::vector_size; ++e) {
                          better = better || (e < n && (Step::first(v[e], best.value) || is_nan(v[e])));
                        }
                        if (!better) return;
#pragma unroll 1
                        for (int e = 0; e < n; ++e) {
                          best = contract::better_arg<Step>(best, {to_f32(x[i + e]), begin + i + e});
                        }
                      });
    best = best_of_warp<Step>(best);
    if (threadIdx.x % 32 == 0) p.out[item.row * p.blocks.in_row + item.index] = best;
  });
}

struct arg_results_params {
  const contract::arg_value* x;  // [rows, results]
  std::int64_t* index;
  std::int64_t rows, results;
};

// The best of each row's results, a thread block a row.
template <class Step>
BI_KERNEL __launch_bounds__(256) void arg_results_kernel(const arg_results_params p) {
  __shared__ arg_scratch<256> scratch;
  device::begin_dependent();
  const device::row_group<256> group(static_cast<int>(threadIdx.x), nullptr);
  for (std::int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    contract::arg_value best{0.0f, -1};
    for (std::int64_t i = threadIdx.x; i < p.results; i += 256) {
      best = contract::better_arg<Step>(best, p.x[row * p.results + i]);
    }
    best = best_of_group<Step>(group, best, scratch);
    if (threadIdx.x == 0) p.index[row] = best.index;
  }
}

}  // namespace kernel
BI_NAMESPACE_END
