// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/contract/gemm_gate.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/ldmatrix.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/ptx/wgmma.cuh"
#include "bi/device/vector.cuh"
#include "bi/kernel/gemm_mma.cuh"
#include "bi/kernel/gemm_wgmma_tiles.cuh"

// The ways out of bi/kernel/gemm_wgmma.cuh. A thread has, of each block of 8 rows of Y, the four values that a wgmma
// leaves it.

BI_NAMESPACE_BEGIN
namespace kernel {
namespace gemm_wgmma {

// threadIdx.x, read where it is used: what the way out computes from it would else be computed before the first tile, and
// take registers while products run.
BI_D inline int thread_now() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread & 1023;  // so that the compiler knows that it isn't negative
}

// The blocks of 8 rows of Y whose results a thread block writes.
struct block_range {
  int begin, end;
};

// Of a cluster of Ranks blocks along k, which share the slices of a tile, each gets the partial results of its share of
// Y from all others and combines them; its share of acc are then roots. `received` and `arrived` lie in every one of the
// blocks.
template <int Ranks, class Shape, int Values>
BI_D block_range combine_partials(float (&acc)[Values], float4* received, device::mbarrier* arrived, int parity,
                                  int rank, int rank_xy, int cluster_xy, int thread) {
  constexpr int blocks = Shape::blocks_y, unit = Shape::share_unit, threads = Shape::consumer_threads;
  constexpr int units = blocks / unit, most = gemm_wgmma_share(Shape::form(), Ranks);
  const auto first_of = [](int r) { return (r * units + Ranks - 1) / Ranks * unit; };
  const block_range mine = {first_of(rank), first_of(rank + 1)};
  if (thread == 0) {
    device::mbarrier_arrive_expect(device::shared_address(arrived),
                                   (mine.end - mine.begin) * (Ranks - 1) * threads * 16);
  }
  std::uint32_t to[Ranks], barrier[Ranks];
#pragma unroll
  for (int r = 0; r < Ranks; ++r) {
    const int slot = rank < r ? rank : rank - 1;
    const int block = r * cluster_xy + rank_xy;
    to[r] = device::cluster_address(received + slot * most * threads + thread, block);
    barrier[r] = device::cluster_address(arrived, block);
  }
#pragma unroll
  for (int j = 0; j < blocks; ++j) {
    const int owner = j / unit * Ranks / units;
    if (owner == rank) continue;
    device::store_cluster(to[owner] + static_cast<std::uint32_t>((j - first_of(owner)) * threads * 16), acc[4 * j],
                          acc[4 * j + 1], acc[4 * j + 2], acc[4 * j + 3], barrier[owner]);
  }
  device::mbarrier_wait_cluster(arrived, parity);
#pragma unroll
  for (int j = 0; j < blocks; ++j) {
    const int owner = j / unit * Ranks / units;
    if (owner != rank) continue;
    float4 part[Ranks];
#pragma unroll
    for (int r = 0; r < Ranks; ++r) {
      part[r] = make_float4(acc[4 * j], acc[4 * j + 1], acc[4 * j + 2], acc[4 * j + 3]);
      if (r != owner) part[r] = received[((r < owner ? r : r - 1) * most + j - first_of(owner)) * threads + thread];
    }
    const auto root = [&](float float4::*value) {
      float slices[Ranks];
#pragma unroll
      for (int r = 0; r < Ranks; ++r) slices[r] = part[r].*value;
      return contract::combine_slices<Ranks>(slices);
    };
    acc[4 * j] = root(&float4::x), acc[4 * j + 1] = root(&float4::y);
    acc[4 * j + 2] = root(&float4::z), acc[4 * j + 3] = root(&float4::w);
  }
  return mine;
}

// Alpha and the bias, before the rounding.
template <bool WeightsFirst, class T, class Out, int Values>
BI_D void apply_bias(const gemm_params<T, Out>& p, float (&acc)[Values], int x0, int y0) {
  const int thread = thread_now(), lane = thread % 32;
  if (bits_of(p.alpha) != bits_of(1.0f)) {
#pragma unroll
    for (int i = 0; i < Values; ++i) acc[i] = mul_rn(acc[i], p.alpha);
  }
  if (p.bias == nullptr) return;
  const int col0 = WeightsFirst ? x0 + thread % 128 / 32 * 16 + lane / 4 : y0 + 2 * (lane % 4);
  const int last = static_cast<int>(p.n) - 1;
  // What it is beyond the last column is never stored.
  const auto bias = [&](int i) { return to_f32(p.bias[col0 + i < last ? col0 + i : last]); };
  if constexpr (WeightsFirst) {
    const float upper = bias(0), lower = bias(8);
#pragma unroll
    for (int i = 0; i < Values; ++i) acc[i] = add_rn(acc[i], i % 4 < 2 ? upper : lower);
  } else {
#pragma unroll
    for (int j = 0; j < Values / 4; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float b = bias(8 * j + e);
        acc[4 * j + e] = add_rn(acc[4 * j + e], b);
        acc[4 * j + 2 + e] = add_rn(acc[4 * j + 2 + e], b);
      }
      if (j % 8 == 7) device::hold_loads();  // all at once would take more registers than there are
    }
  }
}

// Adds the residual to rounded outputs in shared memory: `rows` rows of `chunks` chunks of 16 bytes, at most MostChunks,
// where(row, chunk) each, from (row0, col0) of D on. By Threads threads.
template <int MostChunks, int Threads, class T, class Out, class Where>
BI_D void add_residual(const gemm_params<T, Out>& p, int row0, int col0, int entry, int rows, int chunks, int thread,
                       Where where) {
  constexpr int values = 16 / static_cast<int>(sizeof(Out));
  const T* residual = p.residual + entry * p.residual_batch_stride + row0 * p.ldr + col0;
  const int rest_rows = static_cast<int>(p.m) - row0, rest_cols = static_cast<int>(p.n) - col0;
  if (rows > rest_rows) rows = rest_rows;
  const int cols = rest_cols < chunks * values ? rest_cols : chunks * values;
  if (rows <= 0 || cols <= 0) return;
  int whole = 0;  // chunks that are one load
  if constexpr (sizeof(Out) == 2) {
    if (p.residual_aligned) whole = cols / values;
#pragma unroll 2
    for (int i = thread; i < rows * MostChunks; i += Threads) {
      const int row = i / MostChunks, chunk = i % MostChunks;
      if (chunk >= whole) continue;
      const auto r = *reinterpret_cast<const device::packed_words*>(residual + row * p.ldr + chunk * values);
      auto* at = reinterpret_cast<device::packed_words*>(where(row, chunk));
      device::packed_words sum = *at;
      const auto add = [](std::uint32_t value, std::uint32_t with) {
        const Out v{static_cast<std::uint16_t>(value)};
        return contract::gemm_add_residual(v, T{static_cast<std::uint16_t>(with)}).bits;
      };
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const std::uint32_t upper = add(sum.word[w] >> 16, r.word[w] >> 16);
        sum.word[w] = add(sum.word[w], r.word[w]) | upper << 16;
      }
      *at = sum;
    }
  }
  const int done = whole * values, left = cols - done;
#pragma unroll 1
  for (int i = thread; i < rows * left; i += Threads) {
    const int row = i / left, col = done + i % left;
    Out* at = reinterpret_cast<Out*>(where(row, col / values)) + col % values;
    *at = contract::gemm_add_residual(*at, residual[row * p.ldr + col]);
  }
}

// ---- tokens first

// A chunk of 16 bytes of a row of a box, under the swizzle of rows of 128, 64 or 32 bytes; no other has one.
template <int RowBytes>
BI_D unsigned char* box_chunk(unsigned char* box, int row, int chunk) {
  constexpr int shift = RowBytes == 128 ? 0 : RowBytes == 64 ? 1 : 2, mask = RowBytes / 16 - 1;
  return box + row * RowBytes + (chunk ^ (row >> shift & mask)) * 16;
}

// Writes a box: a warp's 16 rows of `Columns` columns of D, from v, a wgmma's four values for each 8 of the product's.
template <int Columns, bool Gate, class Out>
BI_D void put_box(unsigned char* box, const float* v, int lane) {
  constexpr int row_bytes = Columns * static_cast<int>(sizeof(Out)), blocks = Columns * (Gate ? 2 : 1) / 8;
  const int row = lane / 4;
  if constexpr (Gate) {  // 8 columns of the product make 4 of D
#pragma unroll
    for (int c = 0; c < blocks; ++c, v += 4) {
      const int bytes = (4 * c + lane % 4) * static_cast<int>(sizeof(Out));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        *reinterpret_cast<Out*>(box_chunk<row_bytes>(box, row + 8 * h, bytes / 16) + bytes % 16) =
            contract::gemm_silu_gate(cvt_rn<Out>(v[2 * h]), cvt_rn<Out>(v[2 * h + 1]));
      }
    }
  } else if constexpr (sizeof(Out) == 2) {
    static_assert(blocks % 2 == 0, "two blocks of 8 columns at once");
#pragma unroll
    for (int c = 0; c < blocks; c += 2, v += 8) {
      std::uint32_t r[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        r[i] = cvt_rn<Out>(v[2 * i]).bits | static_cast<std::uint32_t>(cvt_rn<Out>(v[2 * i + 1]).bits) << 16;
      }
      device::stmatrix_x4(box_chunk<row_bytes>(box, lane % 16, c + lane / 16), r[0], r[1], r[2], r[3]);
    }
  } else {
#pragma unroll
    for (int c = 0; c < blocks; ++c, v += 4) {
      const int chunk = 2 * c + lane % 4 / 2, half = lane % 2 * 8;
      *reinterpret_cast<float2*>(box_chunk<row_bytes>(box, row, chunk) + half) = make_float2(v[0], v[1]);
      *reinterpret_cast<float2*>(box_chunk<row_bytes>(box, row + 8, chunk) + half) = make_float2(v[2], v[3]);
    }
  }
}

// From a box to rows of D that are not aligned.
template <int Columns, bool Gate, class T, class Out>
BI_D void copy_box(const gemm_params<T, Out>& p, unsigned char* box, int row0, int col0, int entry, int lane) {
  constexpr int row_bytes = Columns * static_cast<int>(sizeof(Out)), values = 16 / static_cast<int>(sizeof(Out));
  Out* d = p.d + entry * p.d_batch_stride + row0 * p.ldd + col0;
  const int rows = static_cast<int>(p.m) - row0, cols = static_cast<int>(p.n) / (Gate ? 2 : 1) - col0;
#pragma unroll 1
  for (int i = lane; i < 16 * Columns; i += 32) {
    const int r = i / Columns, c = i % Columns;
    if (r >= rows || c >= cols) continue;
    d[r * p.ldd + c] = reinterpret_cast<const Out*>(box_chunk<row_bytes>(box, r, c / values))[c % values];
  }
}

// A warp's 16 rows of a tile, or of the share that a block of a cluster along k has, through its part of shared memory and
// the copy engine. No warp waits for another.
template <class Shape, bool Gate, class T, class Out, int Values>
BI_D void store_boxes(const gemm_wgmma_params<T, Out>& p, unsigned char* boxes, const float (&acc)[Values], int row0,
                      int col0, int entry, block_range blocks) {
  constexpr int columns = gemm_wgmma_box_columns<Out>(Shape::block_y, Gate), wide = columns * (Gate ? 2 : 1);
  constexpr int together = gemm_wgmma_pass_columns<Out>(Shape::block_y, Gate) / columns;
  static_assert(together * columns <= gemm_wgmma_pass_columns<Out>(Shape::block_y, false), "room for the boxes");
  static_assert(Shape::share_unit * 8 % wide == 0, "a unit is boxes");
  constexpr int row_bytes = columns * static_cast<int>(sizeof(Out)), box_bytes = 16 * row_bytes;
  constexpr int values = wide / 2;  // of a thread, in a box
  const int lane = thread_now() % 32, all = blocks.end * 8 / wide;
#pragma unroll 1
  for (int begin = blocks.begin * 8 / wide; begin < all; begin += together) {
    const int end = begin + together < all ? begin + together : all;
    if (lane == 0) device::tma_store_wait_read<0>();  // of what was there
    __syncwarp();
#pragma unroll
    for (int b = 0; b < Values / values; ++b) {  // code for each, as registers have no index
      if (b >= begin && b < end) {
        put_box<columns, Gate, Out>(boxes + (b - begin) * box_bytes, acc + b * values, lane);
      }
    }
    const int col = col0 / (Gate ? 2 : 1) + begin * columns;  // of D
    if (!Gate && p.p.residual != nullptr) {
      __syncwarp();
      constexpr int chunks = row_bytes / 16;
      add_residual<together * chunks, 32>(
          p.p, row0, col, entry, 16, (end - begin) * chunks, lane, [&](int row, int chunk) {
            return box_chunk<row_bytes>(boxes + chunk / chunks * box_bytes, row, chunk % chunks);
          });
    }
    if (p.store_by_copy) device::fence_proxy_async();
    __syncwarp();
    if (p.store_by_copy) {
      if (lane == 0) {
#pragma unroll 1
        for (int b = 0; b < end - begin; ++b) {
          device::tma_store_3d(&p.d, boxes + b * box_bytes, col + b * columns, row0, entry);
        }
        device::tma_store_commit();
      }
    } else {
#pragma unroll 1
      for (int b = 0; b < end - begin; ++b) {
        copy_box<columns, Gate>(p.p, boxes + b * box_bytes, row0, col + b * columns, entry, lane);
      }
    }
  }
}

// ---- weights first

// Rows of load_x weights, 64 with two consumers, turned round on their way into shared memory; from there by the copy
// engine.
template <class Shape, class T, class Out, int Values>
BI_D void store_turned_boxes(const gemm_wgmma_params<T, Out>& p, unsigned char* staging, const float (&acc)[Values],
                             int col0, int row0, int entry, int consumer, block_range blocks) {
  const int thread = thread_now() % 128, warp = thread / 32, lane = thread % 32;
  const int width = p.load_x < 64 ? p.load_x : 64, row_bytes = width * 2;
  staging += consumer * (Shape::block_y * 64 * 2);
  col0 += 64 * consumer;
  // The swizzle of rows of 128, 64 and 32 bytes; no other has one. Tokens 8 apart have the same.
  const int shift = row_bytes == 128 ? 0 : row_bytes == 64 ? 1 : 2;
  const int mask = row_bytes == 128 ? 7 : row_bytes == 64 ? 3 : row_bytes == 32 ? 1 : 0;
  if (thread == 0) device::tma_store_wait_read<0>();
  device::named_barrier(1 + consumer, 128);
  const int here = width - 16 * warp;  // weights of this warp
  const int chunk = (2 * warp + (here > 8 ? lane / 8 % 2 : 0)) ^ (lane % 8 >> shift & mask);
  unsigned char* mine = staging + lane % 8 * row_bytes + chunk * 16;
#pragma unroll
  for (int j = 0; j < Values / 4; ++j) {
    if (j < blocks.begin || j >= blocks.end || here <= 0) continue;
    std::uint32_t r[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const Out v0 = cvt_rn<Out>(acc[4 * j + 2 * h]), v1 = cvt_rn<Out>(acc[4 * j + 2 * h + 1]);
      r[h] = v0.bits | static_cast<std::uint32_t>(v1.bits) << 16;
    }
    // A warp that has 8 weights writes them twice.
    device::stmatrix_x2_trans(mine + j * (8 * row_bytes), r[0], here > 8 ? r[1] : r[0]);
  }
  if (p.p.residual != nullptr) {
    device::named_barrier(1 + consumer, 128);
    const int first = 8 * blocks.begin;
    add_residual<8, 128>(p.p, row0 + first, col0, entry, 8 * (blocks.end - blocks.begin), width / 8, thread,
                         [&](int r, int chunk) {
                           const int token = first + r;
                           return staging + token * row_bytes + (chunk ^ (token >> shift & mask)) * 16;
                         });
  }
  if (!p.store_by_copy) {  // rows of D that are not aligned
    device::named_barrier(1 + consumer, 128);
    const int first = 8 * blocks.begin, last = 8 * blocks.end, m = static_cast<int>(p.p.m) - row0;
    const int rows = (last < m ? last : m) - first, n = static_cast<int>(p.p.n) - col0, cols = width < n ? width : n;
    Out* d = p.p.d + entry * p.p.d_batch_stride + (row0 + first) * p.p.ldd + col0;
#pragma unroll 2
    for (int i = thread; i < rows * 64; i += 128) {
      const int row = i / 64, col = i % 64, token = first + row;
      if (col >= cols) continue;
      const unsigned char* from = staging + token * row_bytes + (col / 8 ^ (token >> shift & mask)) * 16;
      d[row * p.p.ldd + col] = reinterpret_cast<const Out*>(from)[col % 8];
    }
    return;
  }
  device::fence_proxy_async();
  device::named_barrier(1 + consumer, 128);
  if (thread == 0) {
    for (int y = 8 * blocks.begin; y < 8 * blocks.end && row0 + y < p.p.m; y += p.box_y) {
      device::tma_store_3d(&p.d, staging + y * row_bytes, col0, row0 + y, entry);
    }
    device::tma_store_commit();
  }
}

// Turned round through shared memory in fp32: a warp then has 64 neighbouring columns of a row of D.
template <class Shape, bool Gate, class T, class Out, int Values>
BI_D void store_turned_rows(const gemm_wgmma_params<T, Out>& p, float* staging, const float (&acc)[Values], int col0,
                            int row0, int entry, int consumer, block_range blocks) {
  constexpr int stride = gemm_wgmma_staging_stride;
  staging += consumer * (Shape::block_y * stride);
  col0 += 64 * consumer;
  const int thread = thread_now() % 128, warp = thread / 32, lane = thread % 32;
  device::named_barrier(1 + consumer, 128);
#pragma unroll
  for (int j = 0; j < Values / 4; ++j) {
    if (j < blocks.begin || j >= blocks.end) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      staging[(8 * j + 2 * (lane % 4) + i % 2) * stride + 16 * warp + lane / 4 + 8 * (i / 2)] = acc[4 * j + i];
    }
  }
  device::named_barrier(1 + consumer, 128);
  const std::int64_t rest = p.p.m - row0;
  const int end = rest < 8 * blocks.end ? static_cast<int>(rest) : 8 * blocks.end;
  const int col = col0 + 2 * lane;
  if (2 * lane >= p.load_x - 64 * consumer) return;
  for (int i = 8 * blocks.begin + warp; i < end; i += 16) {
    float2 v[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int token = i + 4 * c < Shape::block_y ? i + 4 * c : i;
      v[c] = *reinterpret_cast<const float2*>(staging + token * stride + 2 * lane);
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (i + 4 * c >= end) continue;
      gemm_write_pair<Gate>(p.p, gemm_find_row(p.p, entry, row0 + i + 4 * c), col, cvt_rn<Out>(v[c].x),
                            cvt_rn<Out>(v[c].y));
    }
  }
}

}  // namespace gemm_wgmma
}  // namespace kernel
BI_NAMESPACE_END
