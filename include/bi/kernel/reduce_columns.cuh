// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/device/flat.cuh"
#include "bi/dtype.hpp"
#include "bi/kernel/reduce.cuh"

// As bi/kernel/reduce.cuh over a dimension that is not the last: x is [outer, cols, inner], and element k of the row
// (o, c) is x[o, k, c]. A thread block folds one block of 8192 elements of 32 neighbouring rows, so a warp reads 32
// elements that lie side by side. Where rows have more blocks, their results are [outer, blocks, inner] for the next
// launch.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T, class Out>
struct reduce_columns_params {
  const T* x;
  Out* out;               // [outer, blocks, inner]
  std::int64_t x_stride;  // from one element of a row to the next
  std::int64_t cols;      // of x
  std::int64_t row_cols;  // of the row that the results are of
  std::int64_t outer, blocks, inner;
};

inline constexpr int columns_wide = 32;
BI_HD constexpr std::int64_t column_tiles(std::int64_t inner) {
  return inner / columns_wide + (inner % columns_wide != 0 ? 1 : 0);
}

// Last: the results are the rows', finished and rounded.
template <class Form, class T, class Out, bool Last>
BI_KERNEL __launch_bounds__(256) void reduce_columns_kernel(const reduce_columns_params<T, Out> p) {
  using step = typename Form::step;
  constexpr int warps = 8, held = contract::row_lanes / warps, width = contract::row_vector;
  constexpr int each = contract::row_block / contract::row_lanes / width;  // vectors of a lane
  constexpr int round = contract::row_lanes * width;
  // Only the last few are other threads'. A lane without a vector holds the start value, which changes nothing.
  __shared__ float lanes[contract::row_lanes][columns_wide];
  const int warp = static_cast<int>(threadIdx.x / 32), in_warp = static_cast<int>(threadIdx.x % 32);
  const std::int64_t tiles = column_tiles(p.inner), count = p.outer * p.blocks * tiles;
  for (std::int64_t item = blockIdx.x; item < count; item += gridDim.x) {
    const device::flat_item row = device::split({0, tiles}, item);  // of outer * blocks, and a tile
    const device::flat_item at = device::split({0, p.blocks}, row.row);
    const std::int64_t c = row.index * columns_wide + in_warp;
    const bool inside = c < p.inner;
    const int length = contract::block_length(p.cols, at.index), active = contract::active_lanes(length);
    const T* x = p.x + (at.row * p.cols + at.index * contract::row_block) * p.x_stride + c;
    // Warp w has lanes w, w + 8, ...
#pragma unroll 1
    for (int lane = warp; lane < active; lane += warps) {
      float acc = Form::start();
      if (inside) {
        const int first = lane * width;
        const T* from = x + first * p.x_stride;
        float v[each][width];
#pragma unroll
        for (int k = 0; k < each; ++k) {
#pragma unroll
          for (int e = 0; e < width; ++e) {
            if (first + k * round + e < length) v[k][e] = to_f32(from[(k * round + e) * p.x_stride]);
          }
        }
#pragma unroll
        for (int k = 0; k < each; ++k) {
#pragma unroll
          for (int e = 0; e < width; ++e) {
            if (first + k * round + e < length) acc = step{}(acc, v[k][e]);
          }
        }
      }
      lanes[lane][in_warp] = acc;
    }
    float mine[held];
#pragma unroll
    for (int j = 0; j < held; ++j) {
      mine[j] = warp + j * warps < active ? lanes[warp + j * warps][in_warp] : Form::start();
    }
    const float of_warp = contract::combine_held(mine, warp, contract::row_lanes, step{});
    __syncthreads();  // nobody reads lanes of the block itself any more
    lanes[warp][in_warp] = of_warp;
    __syncthreads();
    if (warp == 0 && inside) {
      float left[warps];
#pragma unroll
      for (int w = 0; w < warps; ++w) left[w] = lanes[w][in_warp];
#pragma unroll
      for (int half = warps / 2; half > 0; half /= 2) {
#pragma unroll
        for (int w = 0; w < half; ++w) left[w] = step{}(left[w], left[w + half]);
      }
      Out* out = p.out + row.row * p.inner + c;
      if constexpr (Last) {
        *out = cvt_rn<Out>(Form::finish(left[0], p.row_cols));
      } else {
        *out = left[0];
      }
    }
    __syncthreads();  // the next item writes the lanes again
  }
}

template <class T>
struct arg_columns_params {
  const T* x;
  std::int64_t* index;    // [outer, inner]
  std::int64_t x_stride;  // from one element of a row to the next
  std::int64_t outer, cols, inner;
};

// 32 neighbouring rows a thread block: warp w has elements w, w + 8, ... of each, a lane a row.
template <class Step, class T>
BI_KERNEL __launch_bounds__(256) void arg_columns_kernel(const arg_columns_params<T> p) {
  constexpr int warps = 8, ahead = 8;  // loads under way
  __shared__ contract::arg_value best_of[warps][columns_wide];
  const int warp = static_cast<int>(threadIdx.x / 32), in_warp = static_cast<int>(threadIdx.x % 32);
  const std::int64_t tiles = column_tiles(p.inner);
  for (std::int64_t item = blockIdx.x; item < p.outer * tiles; item += gridDim.x) {
    const device::flat_item at = device::split({0, tiles}, item);
    const std::int64_t c = at.index * columns_wide + in_warp;
    const T* x = p.x + at.row * p.cols * p.x_stride + c;
    contract::arg_value best{0.0f, -1};
    for (std::int64_t first = warp; c < p.inner && first < p.cols; first += ahead * warps) {
      float v[ahead];
#pragma unroll
      for (int k = 0; k < ahead; ++k) {
        if (first + k * warps < p.cols) v[k] = to_f32(x[(first + k * warps) * p.x_stride]);
      }
#pragma unroll
      for (int k = 0; k < ahead; ++k) {
        if (first + k * warps < p.cols) best = contract::better_arg<Step>(best, {v[k], first + k * warps});
      }
    }
    best_of[warp][in_warp] = best;
    __syncthreads();
    if (warp == 0 && c < p.inner) {
#pragma unroll
      for (int w = 1; w < warps; ++w) best = contract::better_arg<Step>(best, best_of[w][in_warp]);
      p.index[at.row * p.inner + c] = best.index;
    }
    __syncthreads();  // the next item's bests take their place
  }
}

}  // namespace kernel
BI_NAMESPACE_END
