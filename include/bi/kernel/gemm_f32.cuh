// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/gemm_f32.hpp"

// D = A B^T in fp32 at any stride. An output is one thread's: an fma chain in ascending k for each slice of
// the contract, slices added left to right. Tiles of 16 k divide a slice.

BI_NAMESPACE_BEGIN
namespace kernel {

struct gemm_f32_params {
  const float* a;
  const float* b;
  float* d;
  std::int64_t a_row_stride, a_col_stride, b_row_stride, b_col_stride, d_row_stride;
  std::int64_t m, n, k;
};

inline constexpr int gemm_f32_tile = 16;

template <class Contract, int Tile>
BI_KERNEL __launch_bounds__(Tile* Tile) void gemm_f32_kernel(const gemm_f32_params p) {
  constexpr std::int64_t slice = Contract::slice;
  static_assert(slice % Tile == 0, "a tile lies inside one slice");
  __shared__ float a_tile[Tile][Tile + 1], b_tile[Tile][Tile + 1];  // + 1: columns on different banks
  const int x = static_cast<int>(threadIdx.x) % Tile, y = static_cast<int>(threadIdx.x) / Tile;
  const std::int64_t tiles_n = (p.n + Tile - 1) / Tile, tiles = (p.m + Tile - 1) / Tile * tiles_n;
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::int64_t row = tile / tiles_n * Tile, col = tile % tiles_n * Tile;
    float sum = 0.0f, acc = 0.0f;
    for (std::int64_t k = 0; k < p.k; k += Tile) {
      const bool in_k = k + x < p.k;
      a_tile[y][x] = in_k && row + y < p.m ? p.a[(row + y) * p.a_row_stride + (k + x) * p.a_col_stride] : 0.0f;
      b_tile[y][x] = in_k && col + y < p.n ? p.b[(col + y) * p.b_row_stride + (k + x) * p.b_col_stride] : 0.0f;
      __syncthreads();
      // What lies beyond k is left out: fma(0, 0, -0) would be +0.
      const int count = p.k - k < Tile ? static_cast<int>(p.k - k) : Tile;
      for (int i = 0; i < count; ++i) acc = fma_rn(a_tile[y][i], b_tile[x][i], acc);
      __syncthreads();
      if ((k + Tile) % slice == 0 || k + Tile >= p.k) {
        sum = k < slice ? acc : add_rn(sum, acc);
        acc = 0.0f;
      }
    }
    if (row + y < p.m && col + x < p.n) p.d[(row + y) * p.d_row_stride + col + x] = sum;
  }
}

}  // namespace kernel
BI_NAMESPACE_END
