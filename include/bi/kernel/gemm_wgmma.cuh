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

template <class T, class Epilogue, class Out, class Shape, bool Kn>
BI_KERNEL __launch_bounds__(Shape::threads, Shape::min_blocks) void gemm_wgmma_kernel(
    const __grid_constant__ gemm_wgmma_params<T, Out> p) {
#if BI_WGMMA_CODE
  using namespace gemm_wgmma;
  constexpr bool x_transposed = Kn && Shape::weights_first, y_transposed = Kn && !Shape::weights_first;
  extern __shared__ unsigned char dynamic_shared[];
  // In static memory, so that its size tells the host that this code is there (bi/launch_gemm.cuh).
  __shared__ device::mbarrier full[gemm_wgmma_max_stages], empty[gemm_wgmma_max_stages], partials_ready, partials_read;
  unsigned char* ring = dynamic_shared + (1024 - device::shared_address(dynamic_shared) % 1024) % 1024;
  const int x_bytes = p.load_x * 128, stage_bytes = x_bytes + Shape::block_y * 128;
  unsigned char* staging = ring + p.stages * stage_bytes;

  const std::uint32_t ring_address = device::shared_address(ring);

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int warp = __shfl_sync(0xffffffffu, thread / 32, 0);  // so that the compiler knows it for uniform
  const int cluster_xy = p.cluster_x * p.cluster_y, cluster = cluster_xy * p.cluster_k;
  const int rank = cluster == 1 ? 0 : device::cluster_rank();
  const int rank_x = rank % p.cluster_x, rank_y = p.cluster_k == 1 ? rank / p.cluster_x : 0;
  const int first_tile = static_cast<int>(blockIdx.x) / cluster, tile_step = static_cast<int>(gridDim.x) / cluster;
  const slice_list ks = find_slices(p, rank);

  if (device::elect_one()) {
    if (warp == 0) device::prefetch_tensor_map(&p.x);
    if (warp == 1) device::prefetch_tensor_map(&p.y);
    constexpr int warps = Shape::threads / 32;
    for (int s = warp; s < p.stages; s += warps) {
      device::mbarrier_init(&full[s], 2);  // the copiers of X and of Y
      // Every consumer warp of every thread block that this one's copies reach.
      device::mbarrier_init(&empty[s], 4 * Shape::consumers * (p.cluster_x + p.cluster_y - 1));
    }
    if (warp == warps - 1) {
      device::mbarrier_init(&partials_ready, 4 * Shape::consumers * p.cluster_k);
      // With tokens first, also this block's copiers, which wait for it.
      device::mbarrier_init(&partials_read, 4 * Shape::consumers * p.cluster_k + (Shape::weights_first ? 0 : 4));
    }
    device::mbarrier_init_fence();
  }
  __syncwarp();
  if (cluster > 1) {
    device::cluster_arrive();
    device::cluster_wait();
  } else {
    __syncthreads();
  }

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
      o.bytes = is_x ? x_bytes : Shape::block_y * 128;
      o.blocks = 0;
      // Blocks with the same tile of X differ in rank_y; each copies a share of it for all of them.
      if (is_x) {
        o.rows = p.load_x / p.cluster_y;
        for (int i = 0; i < p.cluster_y; ++i) o.blocks |= static_cast<std::uint16_t>(1 << (i * p.cluster_x + rank_x));
        o.target = ring_address + static_cast<std::uint32_t>(rank_y * o.rows * 128);
      } else {
        o.rows = Shape::block_y / p.cluster_x;
        for (int i = 0; i < p.cluster_x; ++i) o.blocks |= static_cast<std::uint16_t>(1 << (rank_y * p.cluster_x + i));
        o.target = ring_address + static_cast<std::uint32_t>(x_bytes + rank_x * o.rows * 128);
      }
      const bool multicast = is_x ? p.cluster_y > 1 : p.cluster_x > 1;
      if (is_x) {
        if (multicast) {
          copy_operand<Shape, true, x_transposed, true>(p, o, full, empty, &partials_read, rank_x, rank_y, ks,
                                                        first_tile, tile_step, even);
        } else {
          copy_operand<Shape, true, x_transposed, false>(p, o, full, empty, &partials_read, rank_x, rank_y, ks,
                                                         first_tile, tile_step, even);
        }
      } else {
        if (multicast) {
          copy_operand<Shape, false, y_transposed, true>(p, o, full, empty, &partials_read, rank_x, rank_y, ks,
                                                         first_tile, tile_step, even);
        } else {
          copy_operand<Shape, false, y_transposed, false>(p, o, full, empty, &partials_read, rank_x, rank_y, ks,
                                                          first_tile, tile_step, even);
        }
      }
    }
    __syncwarp();
  } else {
    if constexpr (Shape::moves_registers) device::take_registers<232>();
    device::wait_for_dependencies();  // before anything is written, and before residuals are read
    const int consumer = warp / 4, rows = lane / 4, pair = 2 * (lane % 4);
    place at;
    int box = 0, partials_parity = 0;
    bool partials_used = false;
    // Lane i tells block i of the cluster that a stage is free, if that block copies into this one's ring.
    const bool releases = lane < cluster_xy && (lane % p.cluster_x == rank_x || lane / p.cluster_x == rank_y);
    const std::uint32_t release_address = device::cluster_address(empty, cluster_xy > 1 && releases ? lane : rank);
    const std::uint32_t full_address = device::shared_address(full);
    const auto release = [&](int stage) {
      if (releases) device::mbarrier_arrive_remote(release_address + static_cast<std::uint32_t>(stage * 8));
    };
    const std::uint64_t x0 =
        device::wgmma_operand(ring_address + static_cast<std::uint32_t>(consumer * Shape::consumer_x * 128), 64 * 128);
    const std::uint64_t y0 = device::wgmma_operand(ring_address + static_cast<std::uint32_t>(x_bytes), 64 * 128);
    for (int index = first_tile; index < p.tiles; index += tile_step) {
      const tile t = find_tile<Shape>(p, index, rank_x, rank_y);
      constexpr int values = Shape::block_y / 2;
      float acc[Shape::fragments][values];
      float saved[Shape::fragments][Shape::levels > 0 ? Shape::levels : 1][Shape::levels > 0 ? values : 1];
      int k = ks.begin;
      for (int slice = 0; slice < (Shape::levels > 0 ? ks.count : 1); ++slice) {
        const int end = Shape::levels > 0 ? slice_end_tile(p, ks.first + slice) : ks.end;
        if (k >= end) {  // an empty slice is +0
#pragma unroll
          for (int f = 0; f < Shape::fragments; ++f) {
#pragma unroll
            for (int i = 0; i < values; ++i) acc[f][i] = 0.0f;
          }
        }
        int last = -1;  // the stage whose products are under way
        for (; k < end; ++k) {
          device::mbarrier_wait(full_address + static_cast<std::uint32_t>(at.stage * 8), at.parity);
          // Addresses in a description count 16 bytes; a stage's stay below its 14 bits.
          const auto offset = static_cast<std::uint64_t>(at.stage * (stage_bytes / 16));
          const std::uint64_t x_operand = x0 + offset, y_operand = y0 + offset;
#pragma unroll
          for (int f = 0; f < Shape::fragments; ++f) device::wgmma_hold(acc[f]);
          device::wgmma_fence();
#pragma unroll
          for (int step = 0; step < 4; ++step) {
#pragma unroll
            for (int f = 0; f < Shape::fragments; ++f) {
              device::wgmma_m64k16<T, Shape::block_y, x_transposed, y_transposed>(
                  acc[f], x_operand + (f * 64 * 128 + step * (x_transposed ? 2048 : 32)) / 16,
                  y_operand + step * (y_transposed ? 2048 : 32) / 16, step > 0 || last >= 0);
            }
          }
          device::wgmma_commit();
          if (last >= 0) {
            device::wgmma_wait<1>();
            release(last);
          }
          last = at.stage;
          at.next(p.stages);
        }
        device::wgmma_wait<0>();
        if (last >= 0) release(last);
#pragma unroll
        for (int f = 0; f < Shape::fragments; ++f) device::wgmma_hold(acc[f]);
        if constexpr (Shape::levels > 0) {
#pragma unroll
          for (int f = 0; f < Shape::fragments; ++f) gemm_push_slice(acc[f], saved[f], slice, ks.count);
        }
      }

      // Tells the cluster that this warp's partial results are there, and waits for those of all; then that they are
      // read.
      const auto partials_are_written = [&] {
        __syncwarp();
        if (lane < p.cluster_k) device::mbarrier_arrive_release_remote(device::cluster_address(&partials_ready, lane));
        device::mbarrier_wait_cluster(&partials_ready, partials_parity);
      };
      const auto partials_are_read = [&] {
        __syncwarp();
        if (lane < p.cluster_k) device::mbarrier_arrive_release_remote(device::cluster_address(&partials_read, lane));
        partials_used = true;
        partials_parity ^= 1;
      };
      if (p.cluster_k > 1 && partials_used) device::mbarrier_wait_cluster(&partials_read, partials_parity ^ 1);

      if constexpr (!Shape::weights_first) {
        const int row0 = t.x + consumer * Shape::consumer_x;
        if (p.cluster_k > 1) {
          if constexpr (Shape::levels > 0) {
            // Blocks of 8 columns, 4 values of a thread. Each thread block does the sums of some of them.
            constexpr int blocks = values / 4;
            float* mine = reinterpret_cast<float*>(ring) + thread * 4;
            constexpr int step = Shape::consumer_threads * 4;
            device::named_barrier(1, Shape::consumer_threads);  // the other warpgroup reads the ring no more
#pragma unroll
            for (int j = 0; j < blocks; ++j) {
              *reinterpret_cast<float4*>(mine + j * step) =
                  make_float4(acc[0][4 * j], acc[0][4 * j + 1], acc[0][4 * j + 2], acc[0][4 * j + 3]);
            }
            partials_are_written();
            static_assert(Shape::fragments == 1, "one block of 64 rows of X");
            const auto upper = gemm_find_row<Epilogue>(p.p, t.entry, row0 + warp % 4 * 16 + rows);
            const auto lower = gemm_find_row<Epilogue>(p.p, t.entry, row0 + warp % 4 * 16 + rows + 8);
            with_ranks(p.cluster_k, [&](auto ranks) {
              constexpr int count = 8 / decltype(ranks)::value > 1 ? 8 / decltype(ranks)::value : 1;
              const int end = blocks * (rank + 1) / decltype(ranks)::value;
              for (int b = blocks * rank / decltype(ranks)::value; b < end; b += count) {
                float root[count][4];
                const int first = b + count <= blocks ? b : blocks - count;
                combine_ranks<decltype(ranks)::value>(root, mine + first * step, step * 4);
#pragma unroll
                for (int i = 0; i < count; ++i) {
                  const int block = first + i;
                  if (block < b || block >= end) continue;
                  gemm_store_pair<Epilogue>(p.p, upper, t.y + 8 * block + pair, root[i][0], root[i][1]);
                  gemm_store_pair<Epilogue>(p.p, lower, t.y + 8 * block + pair, root[i][2], root[i][3]);
                }
              }
            });
            device::fence_proxy_async();  // the copies to come follow these reads
            partials_are_read();
          }
        } else {
#pragma unroll
          for (int f = 0; f < Shape::fragments; ++f) {
            if constexpr (has_boxes<Shape, Epilogue, Out>) {
              store_boxes<Shape, Epilogue>(p, staging + consumer * (Shape::store_boxes * 64 * 128), acc[f],
                                           row0 + 64 * f, t.y, t.entry, consumer, box);
            } else {
              const auto upper = gemm_find_row<Epilogue>(p.p, t.entry, row0 + 64 * f + warp % 4 * 16 + rows);
              const auto lower = gemm_find_row<Epilogue>(p.p, t.entry, row0 + 64 * f + warp % 4 * 16 + rows + 8);
#pragma unroll
              for (int j = 0; j < values / 4; ++j) {
                const int col = t.y + 8 * j + pair;
                gemm_store_pair<Epilogue>(p.p, upper, col, acc[f][4 * j], acc[f][4 * j + 1]);
                gemm_store_pair<Epilogue>(p.p, lower, col, acc[f][4 * j + 2], acc[f][4 * j + 3]);
              }
            }
          }
        }
      } else {
        // Turned round through shared memory: a warp then has 64 neighbouring columns of a row of D.
        static_assert(Shape::fragments == 1, "one block of 64 weights");
        constexpr int stride = Shape::staging_stride;
        float* mine = reinterpret_cast<float*>(staging) + consumer * Shape::block_y * stride;
        if (p.cluster_k == 1) device::named_barrier(1 + consumer, 128);
#pragma unroll
        for (int j = 0; j < values / 4; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            mine[(8 * j + pair + i % 2) * stride + warp % 4 * 16 + rows + 8 * (i / 2)] = acc[0][4 * j + i];
          }
        }
        const int tokens = p.p.m - t.y < Shape::block_y ? static_cast<int>(p.p.m - t.y) : Shape::block_y;
        const bool has_weights = 2 * lane < p.load_x - consumer * 64;
        const int col = t.x + consumer * 64 + 2 * lane;
        if (p.cluster_k == 1) {
          device::named_barrier(1 + consumer, 128);
          for (int i = warp % 4; i < tokens; i += 16) {
            float2 v[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              const int token = i + 4 * c < Shape::block_y ? i + 4 * c : i;
              v[c] = *reinterpret_cast<const float2*>(mine + token * stride + 2 * lane);
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              if (has_weights && i + 4 * c < tokens) {
                gemm_store_pair<Epilogue>(p.p, gemm_find_row<Epilogue>(p.p, t.entry, t.y + i + 4 * c), col, v[c].x,
                                          v[c].y);
              }
            }
          }
        } else {
          partials_are_written();
          // Each warp of each thread block of the cluster does the sums of a run of tokens.
          const int run = (tokens - 1) / (4 * p.cluster_k) + 1, begin = (rank * 4 + warp % 4) * run;
          const int end = begin + run < tokens ? begin + run : tokens;
          with_ranks(p.cluster_k, [&](auto ranks) {
            constexpr int count = Shape::block_y >= 8 * decltype(ranks)::value ? 2 : 1;
            for (int i = begin; i < end; i += count) {
              float root[count][2];
              const int first = i + count <= Shape::block_y ? i : Shape::block_y - count;
              combine_ranks<decltype(ranks)::value>(root, mine + first * stride + 2 * lane, stride * 4);
#pragma unroll
              for (int c = 0; c < count; ++c) {
                if (has_weights && first + c >= i && first + c < end) {
                  gemm_store_pair<Epilogue>(p.p, gemm_find_row<Epilogue>(p.p, t.entry, t.y + first + c), col,
                                            root[c][0], root[c][1]);
                }
              }
            }
          });
          partials_are_read();
        }
      }
    }
    if (!Shape::weights_first && thread % 128 == 0) device::tma_store_wait_read<0>();
    // No block of a cluster ends while others read its memory or arrive at its barriers.
    if (partials_used) device::mbarrier_wait_cluster(&partials_read, partials_parity ^ 1);
  }
#else
  __trap();
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
