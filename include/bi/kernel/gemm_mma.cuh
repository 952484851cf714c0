// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/contract/gemm_gate.hpp"
#include "bi/device/mma_tile.cuh"

// D = epilogue(A B^T) by mma.sync, any shape and alignment. An output depends on its row of A, its column of B and the
// slices: k16 steps ascend inside a slice, slices combine as a balanced tree (bi/contract/gemm.hpp). Tiles of 64 k never
// cross a slice, since slices are whole 64s.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T, class Out>
struct gemm_params {
  const T* a;
  const T* b;
  const T* bias;      // may be null
  const T* residual;  // may be null
  Out* d;
  std::int64_t lda, ldb, ldr, ldd;
  std::int64_t a_batch_stride, b_batch_stride, residual_batch_stride, d_batch_stride;
  std::int64_t m, n, k, batch;
  int slices;
  float alpha;
  bool kn;                    // B is [k, n]
  bool a_aligned, b_aligned;  // rows start at multiples of 16 bytes
  bool residual_aligned;      // as above
  bool d_pairs;               // rows of D start at multiples of two elements
};

// A row of D, and of the residual. `inside`: it is one.
template <class T, class Out>
struct gemm_row {
  Out* d;
  const T* residual;
  bool inside;
};
template <class T, class Out>
BI_D gemm_row<T, Out> gemm_find_row(const gemm_params<T, Out>& p, std::int64_t entry, std::int64_t row) {
  const T* residual = p.residual;
  if (residual != nullptr) residual += entry * p.residual_batch_stride + row * p.ldr;
  return {p.d + entry * p.d_batch_stride + row * p.ldd, residual, row < p.m};
}

// Writes (row, col) and (row, col + 1), col even, or, with a gate, what they make. y0 and y1 are rounded, and have their
// bias already.
template <bool Gate, class T, class Out>
BI_D void gemm_write_pair(const gemm_params<T, Out>& p, const gemm_row<T, Out>& r, std::int64_t col, Out y0, Out y1) {
  if (!r.inside || col >= p.n) return;
  if (r.residual != nullptr) {
    y0 = contract::gemm_add_residual(y0, r.residual[col]);
    if (col + 1 < p.n) y1 = contract::gemm_add_residual(y1, r.residual[col + 1]);
  }
  if constexpr (Gate) {  // n is even
    r.d[col / 2] = contract::gemm_silu_gate(y0, y1);
  } else if (col + 1 == p.n || !p.d_pairs) {
    r.d[col] = y0;
    if (col + 1 < p.n) r.d[col + 1] = y1;
  } else if constexpr (sizeof(Out) == 2) {
    *reinterpret_cast<std::uint32_t*>(r.d + col) = y0.bits | static_cast<std::uint32_t>(y1.bits) << 16;
  } else {
    *reinterpret_cast<float2*>(r.d + col) = make_float2(y0, y1);
  }
}

// The same from the roots.
template <bool Gate, class T, class Out>
BI_D void gemm_store_pair(const gemm_params<T, Out>& p, const gemm_row<T, Out>& r, std::int64_t col, float v0,
                          float v1) {
  if (!r.inside || col >= p.n) return;
  const auto value = [&](std::int64_t c, float v) {
    return p.bias != nullptr ? contract::gemm_output<Out>(v, p.alpha, p.bias[c])
                             : contract::gemm_output<Out>(v, p.alpha);
  };
  gemm_write_pair<Gate>(p, r, col, value(col, v0), col + 1 < p.n ? value(col + 1, v1) : Out{});
}

template <int BlockM>
struct gemm_mma_shape {
  static_assert(BlockM == 16 || BlockM == 64, "tiles of 16 or 64 rows");
  static constexpr int block_m = BlockM, block_n = 64, depth = device::tile_width;
  static constexpr int warps = BlockM == 16 ? 4 : 8, threads = 32 * warps, stages = 3;
  static constexpr int warps_n = BlockM == 16 ? 4 : 2;  // warps side by side along n
  static constexpr int warp_m = BlockM / (warps / warps_n), warp_n = block_n / warps_n;
  static constexpr int fragments_m = warp_m / 16, fragments_n = warp_n / 8;
  static constexpr int stage_values = (block_m + block_n) * depth;
  static constexpr int shared_bytes = stages * stage_values * 2;
};

// acc += A tile x B tile, the tile's k16 steps in ascending order.
template <class Shape, bool Kn, class T>
BI_D void gemm_mma_tile(float (&acc)[Shape::fragments_m][Shape::fragments_n][4], T* a_tile, T* b_tile, int steps,
                        int warp, int lane) {
  const int row = warp / Shape::warps_n * Shape::warp_m, col = warp % Shape::warps_n * Shape::warp_n;
#pragma unroll
  for (int step = 0; step < Shape::depth / 16; ++step) {
    if (step >= steps) break;
    std::uint32_t a[Shape::fragments_m][4], b[Shape::fragments_n / 2][2][2];
#pragma unroll
    for (int i = 0; i < Shape::fragments_m; ++i) device::load_a_fragment(a[i], a_tile, row + 16 * i, step, lane);
#pragma unroll
    for (int j = 0; j < Shape::fragments_n / 2; ++j) {
      if constexpr (Kn) {
        device::load_b_fragments_transposed(b[j], b_tile, col + 16 * j, step, lane);
      } else {
        device::load_b_fragments(b[j], b_tile, col + 16 * j, step, lane);
      }
    }
#pragma unroll
    for (int i = 0; i < Shape::fragments_m; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::fragments_n; ++j) device::mma_m16n8k16<T>(acc[i][j], a[i], b[j / 2][j % 2]);
    }
  }
}

// Adds the finished slice in acc to the balanced tree, as a binary counter does: saved[l] is the root of a subtree of
// 2^l slices that waits for its right neighbour. After the last slice acc is the root.
template <int Levels, int Values>
BI_D void gemm_push_slice(float (&acc)[Values], float (&saved)[Levels][Values], int slice, int slices) {
  bool done = false;
#pragma unroll
  for (int level = 0; level < Levels; ++level) {
    if (done) continue;
    if ((slice >> level & 1) == 0) {
      // A copy of the root would cost registers that nothing reads.
      if (slice + 1 < slices) {
#pragma unroll
        for (int i = 0; i < Values; ++i) saved[level][i] = acc[i];
      }
      done = true;
    } else {
#pragma unroll
      for (int i = 0; i < Values; ++i) acc[i] = add_rn(saved[level][i], acc[i]);
    }
  }
}

// Gate: columns 2j and 2j + 1 are a gate and its value, and make one of D.
template <class T, bool Gate, class Out, int BlockM>
// One block an SM is enough for the bound: aiming at more, ptxas spills.
BI_KERNEL __launch_bounds__(gemm_mma_shape<BlockM>::threads, 1) void gemm_mma_kernel(const gemm_params<T, Out> p) {
  using shape = gemm_mma_shape<BlockM>;
  constexpr int values = shape::fragments_m * shape::fragments_n * 4;
  extern __shared__ __align__(128) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const std::int64_t tiles_m = (p.m + shape::block_m - 1) / shape::block_m;
  const std::int64_t tiles_n = (p.n + shape::block_n - 1) / shape::block_n;
  const std::int64_t tiles = tiles_m * tiles_n * p.batch;
  const std::int64_t depth_tiles = (p.k + shape::depth - 1) / shape::depth;

  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    // Neighbouring blocks share a tile of B.
    const std::int64_t row = tile % tiles_m * shape::block_m, col = tile / tiles_m % tiles_n * shape::block_n;
    const std::int64_t entry = tile / tiles_m / tiles_n;
    const T* a = p.a + entry * p.a_batch_stride;
    const T* b = p.b + entry * p.b_batch_stride;

    const auto a_stage = [&](std::int64_t t) {
      return reinterpret_cast<T*>(shared) + static_cast<int>(t % shape::stages) * shape::stage_values;
    };
    const auto load = [&](std::int64_t t) {
      if (t < depth_tiles) {
        T* a_tile = a_stage(t);
        T* b_tile = a_tile + shape::block_m * shape::depth;
        const std::int64_t k = t * shape::depth;
        device::load_tile<shape::block_m, shape::threads>(a_tile, a, p.lda, row, p.m, k, p.k, p.a_aligned, thread);
        static_assert(shape::block_n == shape::depth, "a tile of B is as large either way");
        device::load_tile<shape::block_n, shape::threads>(b_tile, b, p.ldb, p.kn ? k : col, p.kn ? p.k : p.n,
                                                          p.kn ? col : k, p.kn ? p.n : p.k, p.b_aligned, thread);
      }
      device::cp_async_commit();  // also when empty: the count of groups is the count of tiles
    };

    float acc[values] = {};
    float saved[3][values];
    auto& fragments = reinterpret_cast<float(&)[shape::fragments_m][shape::fragments_n][4]>(acc);
#pragma unroll 1
    for (int t = 0; t < shape::stages - 1; ++t) load(t);
    std::int64_t t = 0;
    for (int slice = 0; slice < p.slices; ++slice) {
      const std::int64_t end = (contract::slice_end(p.k, p.slices, slice) + shape::depth - 1) / shape::depth;
      for (; t < end; ++t) {
        device::cp_async_wait<shape::stages - 2>();
        __syncthreads();
        load(t + shape::stages - 1);
        const std::int64_t rest = p.k - t * shape::depth;
        const int steps = rest >= shape::depth ? shape::depth / 16 : static_cast<int>((rest + 15) / 16);
        T* a_tile = a_stage(t);
        T* b_tile = a_tile + shape::block_m * shape::depth;
        if (p.kn) {
          gemm_mma_tile<shape, true>(fragments, a_tile, b_tile, steps, warp, lane);
        } else {
          gemm_mma_tile<shape, false>(fragments, a_tile, b_tile, steps, warp, lane);
        }
      }
      gemm_push_slice(acc, saved, slice, p.slices);
      if (slice + 1 < p.slices) {
#pragma unroll
        for (int i = 0; i < values; ++i) acc[i] = 0.0f;
      }
    }
    device::cp_async_wait<0>();
    __syncthreads();  // the next tile's loads overwrite what a slower warp still reads

    const std::int64_t warp_row = row + warp / shape::warps_n * shape::warp_m + lane / 4;
    const std::int64_t warp_col = col + warp % shape::warps_n * shape::warp_n + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < shape::fragments_m; ++i) {
      const auto upper = gemm_find_row(p, entry, warp_row + 16 * i);
      const auto lower = gemm_find_row(p, entry, warp_row + 16 * i + 8);
#pragma unroll
      for (int j = 0; j < shape::fragments_n; ++j) {
        const float(&c)[4] = fragments[i][j];
        gemm_store_pair<Gate>(p, upper, warp_col + 8 * j, c[0], c[1]);
        gemm_store_pair<Gate>(p, lower, warp_col + 8 * j, c[2], c[3]);
      }
    }
  }
}

}  // namespace kernel
BI_NAMESPACE_END
