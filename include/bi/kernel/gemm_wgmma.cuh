// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/ptx/wgmma.cuh"
#include "bi/kernel/gemm_mma.cuh"
#include "bi/kernel/gemm_wgmma_store.cuh"
#include "bi/kernel/gemm_wgmma_tiles.cuh"

// D = epilogue(A B^T) on Hopper: four warps copy tiles into a ring in shared memory, warpgroups multiply them. As in
// bi/kernel/gemm_mma.cuh an output depends on its row of A, its column of B and the slices: k16 steps ascend inside a
// slice, slices combine as a balanced tree. Tiles, clusters, rings and the order of tiles are schedule.
//
// The tensor core multiplies X Y^T, X in blocks of 64 rows. X are the tokens (A) when there are many of them; with few,
// X are the weights, and Y the tokens, padded to 8 or more with zeros.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T, bool Gate, class Out, class Shape, bool Kn>
BI_KERNEL __launch_bounds__(Shape::threads, gemm_wgmma_min_blocks<Shape, Gate>) void gemm_wgmma_kernel(
    const __grid_constant__ gemm_wgmma_params<T, Out> p) {
#if BI_WGMMA_CODE
  using namespace gemm_wgmma;
  constexpr bool x_transposed = Kn && Shape::weights_first, y_transposed = Kn && !Shape::weights_first;
  extern __shared__ unsigned char dynamic_shared[];
  // In static memory, so that its size tells the host that this code is there (bi/launch_gemm.cuh).
  __shared__ device::mbarrier full[gemm_wgmma_max_stages], empty[2 * gemm_wgmma_max_stages], partials_here,
      partials_read;
  unsigned char* ring = dynamic_shared + (1024 - device::shared_address(dynamic_shared) % 1024) % 1024;
  const int x_bytes = p.load_x * 128, stage_bytes = x_bytes + Shape::block_y * 128;
  unsigned char* staging = ring + p.stages * stage_bytes;
  auto* received =
      reinterpret_cast<float4*>(staging + gemm_wgmma_after_ring<Out>(Shape::form(), p.load_x, p.cluster_k, Gate));

  const std::uint32_t ring_address = device::shared_address(ring);

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int warp = __shfl_sync(0xffffffffu, thread / 32, 0);  // so that the compiler knows it for uniform
  // Blocks of a cluster that share tiles are neighbours, then come those with other slices of the same.
  const int cluster_xy = p.cluster_x * p.cluster_y, cluster = cluster_xy * p.cluster_k;
  int rank = 0, rank_k = 0, rank_x = 0, rank_y = 0;
  int first_tile = static_cast<int>(blockIdx.x), tile_step = static_cast<int>(gridDim.x);
  if (cluster > 1) {
    rank = device::cluster_rank();
    rank_k = quotient(rank, cluster_xy);
    rank_y = quotient(rank - rank_k * cluster_xy, p.cluster_x);
    rank_x = rank - rank_k * cluster_xy - rank_y * p.cluster_x;
    first_tile = quotient(first_tile, cluster), tile_step = quotient(tile_step, cluster);
  }
  const int rank_xy = rank_y * p.cluster_x + rank_x;
  const slice_list ks = find_slices(p, rank_k);

  if (device::elect_one()) {
    if (warp == 0) device::prefetch_tensor_map(&p.x);
    if (warp == 1) device::prefetch_tensor_map(&p.y);
    constexpr int warps = Shape::threads / 32;
#pragma unroll 1
    for (int s = warp; s < p.stages; s += warps) {
      device::mbarrier_init(&full[s], 2);  // the copiers of X and of Y
      // Every consumer warp of every thread block that this one's copies reach: of X, of Y.
      device::mbarrier_init(&empty[s], 4 * Shape::consumers * p.cluster_y);
      device::mbarrier_init(&empty[gemm_wgmma_max_stages + s], 4 * Shape::consumers * p.cluster_x);
    }
    if (warp == warps - 1) {
      device::mbarrier_init(&partials_here, 1);
      device::mbarrier_init(&partials_read, 4 * Shape::consumers * p.cluster_k);
    }
    device::mbarrier_init_fence();
  }
  __syncwarp();
  device::cluster_arrive();  // a block that has no cluster is one of its own
  // Meanwhile: the first tile, whose divisions take a while. The warps that copy weights ask for their first lines, before
  // descriptors and barriers are there.
  const tile first = find_tile<Shape>(p, first_tile, rank_x, rank_y);
  if (!Kn && p.weights_are_final && first_tile < p.tiles && warp >= Shape::consumer_threads / 32 && warp % 2 == 0) {
    prefetch_weights<Shape>(p, first, ks.begin + warp / 2 % 2, lane);
  }
  device::cluster_wait();

  if (warp >= Shape::consumer_threads / 32) {
    if constexpr (Shape::moves_registers) device::give_registers<40>();
    // Two warps copy the weights, which may be there before this kernel's dependencies are over, two the tokens.
    const int copier = warp - Shape::consumer_threads / 32;
    const bool is_weights = copier % 2 == 0, even = copier < 2;
    const bool is_x = is_weights == Shape::weights_first;
    if (device::elect_one()) {
      operand o;
      o.has_waited = !is_weights || !p.weights_are_final;
      if (o.has_waited) device::wait_for_dependencies();
      o.map = is_x ? &p.x : &p.y;
      o.policy = is_weights && p.weights_once ? device::policy_evict_first() : device::policy_evict_last();
      o.stage_bytes = stage_bytes;
      o.blocks = 0;
      // Blocks with the same tile of X differ in rank_y; each copies a share of it for all of them.
      const int shares = is_x ? p.cluster_y : p.cluster_x;
#pragma unroll 1
      for (int i = 0; i < shares; ++i) {
        const int in_xy = is_x ? i * p.cluster_x + rank_x : rank_y * p.cluster_x + i;
        o.blocks |= static_cast<std::uint16_t>(1 << (rank_k * cluster_xy + in_xy));
      }
      o.limit = static_cast<int>(is_weights ? p.p.n : p.p.m);
      o.tile = is_x ? p.load_x : Shape::block_y;
      o.bytes = is_x ? p.bytes_x : p.bytes_y;
      o.last_bytes = is_x ? p.last_bytes_x : p.last_bytes_y;
      o.share = is_x ? p.share_x : p.share_y;
      o.first = share_begin(o.tile, o.share, is_x ? rank_y : rank_x);
      o.copy = is_x ? p.copy_x : p.copy_y;
      o.target = ring_address + static_cast<std::uint32_t>((is_x ? 0 : x_bytes) + o.first * 128);
      o.is_x = is_x;
      o.transposed = is_x ? x_transposed : y_transposed;
      o.multicast = shares > 1;
      // A copy that no other block waits for waits for no other. (A block alone frees both operands at once.)
      const device::mbarrier* freed = is_x || cluster_xy == 1 ? empty : empty + gemm_wgmma_max_stages;
      copy_operand<Shape>(p, o, full, freed, rank_x, rank_y, ks, first, first_tile, tile_step, even);
    }
    __syncwarp();
  } else {
    if constexpr (Shape::moves_registers) device::take_registers<232>();
    device::wait_for_dependencies();  // before anything is written, and before residuals are read
    const int consumer = warp / 4;
    device::ring_place at;
    int partials_parity = 0;
    // A stage is free for X of the blocks with this one's X, which lanes 0..7 tell, and for Y of those with its Y: 8..15.
    const int told = lane % 8, operand = lane / 8;
    const int told_y = quotient(told, p.cluster_x), told_x = told - told_y * p.cluster_x;
    const bool releases =
        cluster_xy == 1 ? lane == 0
                        : told < cluster_xy && operand < 2 && (operand == 0 ? told_x == rank_x : told_y == rank_y);
    const std::uint32_t release_address =
        device::cluster_address(empty + (releases ? operand * gemm_wgmma_max_stages : 0),
                                cluster_xy > 1 && releases ? rank_k * cluster_xy + told : rank);
    const std::uint32_t full_address = device::shared_address(full);
    const auto release = [&](int stage) {
      if (releases) device::mbarrier_arrive_remote(release_address + static_cast<std::uint32_t>(stage * 8));
    };
    const std::uint64_t x0 =
        device::wgmma_operand(ring_address + static_cast<std::uint32_t>(consumer * 64 * 128), 64 * 128);
    const std::uint64_t y0 = device::wgmma_operand(ring_address + static_cast<std::uint32_t>(x_bytes), 64 * 128);
    for (int index = first_tile; index < p.tiles; index += tile_step) {
      const tile t = index == first_tile ? first : find_tile<Shape>(p, index, rank_x, rank_y);
      constexpr int values = Shape::block_y / 2;
      float acc[values];
      float saved[Shape::levels > 0 ? Shape::levels : 1][Shape::levels > 0 ? values : 1];
      int k = ks.begin;
      for (int slice = 0; slice < (Shape::levels > 0 ? ks.count : 1); ++slice) {
        const int end = Shape::levels > 0 ? p.slice_tile[ks.first + slice + 1] : ks.end;
        if (k >= end) {  // an empty slice is +0
#pragma unroll
          for (int i = 0; i < values; ++i) acc[i] = 0.0f;
        }
        int last = -1;  // the stage whose products are under way
        for (; k < end; ++k) {
          device::mbarrier_wait(full_address + static_cast<std::uint32_t>(at.slot * 8), at.parity);
          // Addresses in a description count 16 bytes; a stage's stay below its 14 bits.
          const auto offset = static_cast<std::uint64_t>(at.slot * (stage_bytes / 16));
          device::wgmma_hold(acc);
          device::wgmma_fence();
          device::wgmma_m64k64<T, Shape::block_y, x_transposed, y_transposed>(acc, x0 + offset, y0 + offset, last >= 0);
          device::wgmma_commit();
          if (last >= 0) {
            device::wgmma_wait<1>();
            release(last);
          }
          last = at.slot;
          at.next(p.stages);
        }
        device::wgmma_wait<0>();
        if (last >= 0) release(last);
        device::wgmma_hold(acc);
        if constexpr (Shape::levels > 0) gemm_push_slice(acc, saved, slice, ks.count);
      }

      block_range blocks = {0, Shape::blocks_y};
      if constexpr (Shape::max_cluster_k > 1) {
        if (p.cluster_k > 1) {
          // The others have read the last tile's.
          if (index != first_tile) device::mbarrier_wait_cluster(&partials_read, partials_parity ^ 1);
          const auto combine = [&](auto ranks) {
            blocks = combine_partials<decltype(ranks)::value, Shape>(acc, received, &partials_here, partials_parity,
                                                                     rank_k, rank_xy, cluster_xy, thread);
          };
          if constexpr (Shape::max_cluster_k == 2) {
            combine(constant<2>{});
          } else if (p.cluster_k == 2) {
            combine(constant<2>{});
          } else if (Shape::max_cluster_k == 4 || p.cluster_k == 4) {
            combine(constant<4>{});
          } else if constexpr (Shape::max_cluster_k > 4) {
            combine(constant<8>{});
          }
          // Only where another tile follows: no block of a cluster ends while others have to tell it something.
          if (index + tile_step < p.tiles) {
            __syncwarp();
            if (lane < p.cluster_k) {
              device::mbarrier_arrive_remote(device::cluster_address(&partials_read, lane * cluster_xy + rank_xy));
            }
          }
          partials_parity ^= 1;
        }
      }
      apply_bias<Shape::weights_first>(p.p, acc, t.x + 64 * consumer, t.y);

      if constexpr (Shape::weights_first) {
        if constexpr (gemm_wgmma_has_boxes<Out>(Gate)) {
          store_turned_boxes<Shape>(p, staging, acc, t.x, t.y, t.entry, consumer, blocks);
        } else {
          store_turned_rows<Shape, Gate>(p, reinterpret_cast<float*>(staging), acc, t.x, t.y, t.entry, consumer,
                                         blocks);
        }
      } else {
        const int row0 = t.x + 16 * warp;
        unsigned char* boxes = staging + warp * (gemm_wgmma_staging_bytes<Out>(Shape::form(), 0, p.cluster_k, Gate) /
                                                 (4 * Shape::consumers));
        store_boxes<Shape, Gate>(p, boxes, acc, row0, t.y, t.entry, blocks);
      }
    }
    if (lane == 0) device::tma_store_wait_read<0>();
  }
#else
  __trap();
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
