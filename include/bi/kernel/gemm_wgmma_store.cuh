// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/ldmatrix.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/kernel/gemm_mma.cuh"
#include "bi/kernel/gemm_wgmma_tiles.cuh"

// The ways out of bi/kernel/gemm_wgmma.cuh.

BI_NAMESPACE_BEGIN
namespace kernel {
namespace gemm_wgmma {

// The way out with tokens first: through shared memory and the copy engine, in boxes of 64 rows and 64 or 32 columns.
template <class Shape, class Epilogue>
inline constexpr int product_columns = Epilogue::has_gate ? 2 : 1;  // of a column of D
template <class Shape, class Epilogue>
inline constexpr int box_columns = Shape::block_y / product_columns<Shape, Epilogue> % 64 == 0 ? 64 : 32;
template <class Shape, class Epilogue, class Out>
inline constexpr bool has_boxes =
    !Shape::weights_first && sizeof(Out) == 2 && Shape::block_y / product_columns<Shape, Epilogue> % 32 == 0;

// The 16 bytes of a row of a box: the swizzle of rows of 128 or 64 bytes.
template <int Columns>
BI_D unsigned char* box_chunk(unsigned char* box, int row, int chunk) {
  return Columns == 64 ? box + row * 128 + (chunk ^ (row & 7)) * 16 : box + row * 64 + (chunk ^ (row >> 1 & 3)) * 16;
}

template <class Shape, class Epilogue, class T, class Out, int Values>
BI_D void store_boxes(const gemm_wgmma_params<T, Out>& p, unsigned char* staging, const float (&acc)[Values], int row0,
                      int col0, int entry, int consumer, int& box) {
  constexpr int columns = box_columns<Shape, Epilogue>, product = product_columns<Shape, Epilogue>;
  const int thread = static_cast<int>(threadIdx.x) % 128, warp = thread / 32, lane = thread % 32;
  const gemm_row<T, Out> row[2] = {gemm_find_row<Epilogue>(p.p, entry, row0 + 16 * warp + lane / 4),
                                   gemm_find_row<Epilogue>(p.p, entry, row0 + 16 * warp + lane / 4 + 8)};
  const auto value = [&](int h, int col, float v) {
    // What lies outside D is not written; its bias and residual are not there to be read.
    if ((Epilogue::has_bias || Epilogue::has_residual) && (!row[h].inside || col >= p.p.n)) return Out{};
    return gemm_value<Epilogue>(p.p, row[h], col, v);
  };
#pragma unroll
  for (int b = 0; b < Shape::block_y / product / columns; ++b) {
    unsigned char* target = staging + box * (64 * 128);
    if (thread == 0) device::tma_store_wait_read<Shape::store_boxes - 1>();
    device::named_barrier(1 + consumer, 128);
#pragma unroll
    for (int c = 0; c < columns / 16; ++c) {
      std::uint32_t r[4];  // rows 0..7 and 8..15 of 8 columns, then of the next 8
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int h = q % 2;
        Out v[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if constexpr (Epilogue::has_gate) {
            // The thread's gates of two blocks of 8 columns of the product: columns lane % 4 and 4 + lane % 4 of D's 8.
            const int j = b * columns / 4 + c * 4 + q / 2 * 2 + e, col = col0 + 8 * j + 2 * (lane % 4);
            v[e] =
                contract::gemm_silu_gate(value(h, col, acc[4 * j + 2 * h]), value(h, col + 1, acc[4 * j + 2 * h + 1]));
          } else {
            const int j = b * columns / 8 + c * 2 + q / 2, col = col0 + 8 * j + 2 * (lane % 4);
            v[e] = value(h, col + e, acc[4 * j + 2 * h + e]);
          }
        }
        r[q] = v[0].bits | static_cast<std::uint32_t>(v[1].bits) << 16;
      }
      if constexpr (Epilogue::has_gate) {
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          auto* to = reinterpret_cast<std::uint16_t*>(
              box_chunk<columns>(target, 16 * warp + lane / 4 + 8 * (q % 2), 2 * c + q / 2));
          to[lane % 4] = static_cast<std::uint16_t>(r[q]);
          to[4 + lane % 4] = static_cast<std::uint16_t>(r[q] >> 16);
        }
      } else {
        device::stmatrix_x4(box_chunk<columns>(target, 16 * warp + lane % 16, 2 * c + lane / 16), r[0], r[1], r[2],
                            r[3]);
      }
    }
    if (p.store_by_copy) {
      device::fence_proxy_async();
      device::named_barrier(1 + consumer, 128);
      if (thread == 0) {
        device::tma_store_3d(&p.d, target, col0 / product + columns * b, row0, entry);
        device::tma_store_commit();
      }
    } else {  // D's rows are not aligned
      device::named_barrier(1 + consumer, 128);
#pragma unroll 1
      for (int i = thread; i < 64 * columns; i += 128) {
        const int r = i / columns, c = i % columns;
        const std::int64_t row = row0 + r, col = col0 / product + columns * b + c;
        if (row >= p.p.m || col >= p.p.n / product) continue;
        p.p.d[entry * p.p.d_batch_stride + row * p.p.ldd + col] =
            reinterpret_cast<const Out*>(box_chunk<columns>(target, r, c / 8))[c % 8];
      }
    }
    box = (box + 1) % Shape::store_boxes;
  }
}

// The roots of Count outputs of one thread: Width floats each at `from` of the Ranks blocks of the cluster, `step`
// bytes apart. All loads are under way before the first sum.
template <int Ranks, int Count, int Width>
BI_D void combine_ranks(float (&root)[Count][Width], const float* from, int step) {
  float part[Count][Ranks][Width];
#pragma unroll
  for (int r = 0; r < Ranks; ++r) {
    const std::uint32_t address = device::cluster_address(from, r);
#pragma unroll
    for (int i = 0; i < Count; ++i) device::load_cluster(part[i][r], address + static_cast<std::uint32_t>(i * step));
  }
#pragma unroll
  for (int i = 0; i < Count; ++i) {
#pragma unroll
    for (int w = 0; w < Width; ++w) {
      float slices[Ranks];
#pragma unroll
      for (int r = 0; r < Ranks; ++r) slices[r] = part[i][r][w];
      root[i][w] = contract::combine_slices<Ranks>(slices);
    }
  }
}
// Calls f(ranks) with 2, 4 or 8 as a type.
template <int N>
struct ranks {
  static constexpr int value = N;
};
template <class F>
BI_D void with_ranks(int cluster_k, F f) {
  if (cluster_k == 2) {
    f(ranks<2>{});
  } else if (cluster_k == 4) {
    f(ranks<4>{});
  } else {
    f(ranks<8>{});
  }
}

}  // namespace gemm_wgmma
}  // namespace kernel
BI_NAMESPACE_END
