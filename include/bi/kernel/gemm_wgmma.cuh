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
#include "bi/device/ptx/wgmma.cuh"
#include "bi/device/tensor_map.hpp"
#include "bi/kernel/gemm_mma.cuh"

// D = epilogue(A B^T) on Hopper: one warp copies tiles into a ring in shared memory, warpgroups multiply them. As in
// bi/kernel/gemm_mma.cuh an output depends on its row of A, its column of B and the slices: k16 steps ascend inside a
// slice, slices combine as a balanced tree. Tiles, clusters, rings and the order of tiles are schedule.
//
// The tensor core multiplies X Y^T, X in blocks of 64 rows. X are the tokens (A) when there are many of them; with few,
// X are the weights, and Y the tokens, padded to 8 or more with zeros.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int gemm_wgmma_max_stages = 16;

// Consumers: warpgroups, each with Fragments blocks of 64 rows of X and BlockY rows of Y. Levels: with 2^Levels slices in
// one thread block, the subtrees that wait for their neighbour.
template <bool WeightsFirst, int Consumers, int Fragments, int BlockY, int Levels>
struct gemm_wgmma_shape {
  static constexpr bool weights_first = WeightsFirst;
  static constexpr int consumers = Consumers, fragments = Fragments, block_y = BlockY, levels = Levels;
  static constexpr int consumer_x = 64 * Fragments, block_x = consumer_x * Consumers;
  // Many accumulators, or subtrees that wait, need more registers than an even share: consumers take some from the
  // copying warpgroup.
  static constexpr bool moves_registers = Consumers == 2 && Fragments * BlockY / 2 * (Levels + 1) >= 128;
  static constexpr int consumer_threads = 128 * Consumers;
  static constexpr int threads = consumer_threads + 128;
  static constexpr int staging_stride = 68;  // floats of a token: 64 weights and a shift of 4 banks
  static constexpr int store_boxes = 2;      // of 64 rows and 128 bytes, a consumer's
  // Where results wait for their way out: fp32 [token][weight] with weights first, boxes of outputs with tokens first.
  // (Partial results of tokens first, for the other blocks of a cluster, lie in the ring.)
  static constexpr int staging_bytes =
      WeightsFirst ? Consumers * BlockY * staging_stride * 4 : Consumers * store_boxes * 64 * 128;
  static constexpr int partial_bytes = block_x * BlockY * 4;
  // Two thread blocks an SM, if their rings leave room: one may be of the next kernel, and fill its ring early.
  static constexpr int min_blocks = WeightsFirst && Consumers == 1 ? 2 : 1;
  static_assert(Levels == 0 || !WeightsFirst, "with weights first, slices go to other thread blocks");
};

// Bytes of shared memory. The tensor core reads 64 rows of X even if a stage has fewer: those of the last stage must be
// memory too.
template <class Shape>
constexpr int gemm_wgmma_shared_bytes(int stages, int load_x, int cluster_k) {
  const int ring = stages * (load_x + Shape::block_y) * 128;
  const int tail = load_x < Shape::block_x ? (Shape::block_x - load_x) * 128 : 0;
  const int bytes = ring + (Shape::staging_bytes > tail ? Shape::staging_bytes : tail);
  return 1024 + (!Shape::weights_first && cluster_k > 1 && bytes < Shape::partial_bytes ? Shape::partial_bytes : bytes);
}

template <class T, class Out>
struct gemm_wgmma_params {
  device::tensor_map x, y, d;
  gemm_params<T, Out> p;
  int load_x;                // rows of X in a tile: Shape::block_x, or fewer, of which the rest is not computed
  int cluster_x, cluster_y;  // thread blocks that share tiles of Y, of X
  int cluster_k;             // thread blocks that share the slices of a tile
  int grid_x, grid_y;        // tiles, in units of clusters
  int group;                 // tiles of X that are walked together before the next tile of Y
  int tiles;                 // grid_x grid_y batch
  int stages;
  bool store_by_copy;      // boxes of D leave through the copy engine
  bool weights_are_final;  // the weights may be read before the kernels that this one depends on are over
  bool weights_once;       // no other tile reads them again
};

namespace gemm_wgmma {

struct tile {
  int x, y, entry;  // first row of X, first row of Y
};

template <class Shape, class T, class Out>
BI_D tile find_tile(const gemm_wgmma_params<T, Out>& p, int index, int rank_x, int rank_y) {
  const int entry = index / (p.grid_x * p.grid_y), rest = index % (p.grid_x * p.grid_y);
  const int first = rest / (p.group * p.grid_y) * p.group, in_group = rest % (p.group * p.grid_y);
  const int width = p.grid_x - first < p.group ? p.grid_x - first : p.group;
  const int x = first + in_group % width, y = in_group / width;
  return {(x * p.cluster_x + rank_x) * p.load_x, (y * p.cluster_y + rank_y) * Shape::block_y, entry};
}

// The slices of a thread block: a subtree. Ends are in tiles of k.
struct slice_list {
  int first, count, begin, end;
};
template <class T, class Out>
BI_D int slice_end_tile(const gemm_wgmma_params<T, Out>& p, int slice) {
  return static_cast<int>((contract::slice_end(p.p.k, p.p.slices, slice) + 63) / 64);
}
template <class T, class Out>
BI_D slice_list find_slices(const gemm_wgmma_params<T, Out>& p, int rank) {
  const int count = p.p.slices / p.cluster_k, first = p.cluster_k == 1 ? 0 : rank * count;
  return {first, count, first == 0 ? 0 : slice_end_tile(p, first - 1), slice_end_tile(p, first + count - 1)};
}

// The ring's stages in turn; parity is that of the phase to wait for in a full barrier.
struct place {
  int stage = 0, parity = 0;
  BI_D void next(int stages) {
    ++stage;
    if (stage == stages) stage = 0, parity ^= 1;
  }
};

// One thread's work: copies every other tile of an operand into the ring, or this thread block's share of it, for all
// `blocks` of the cluster that read the same. (One thread for all of them would take longer than the tensor core.)
struct operand {
  const device::tensor_map* map;
  std::uint32_t target;    // of stage 0
  int stage_bytes, bytes;  // of a stage, of this operand in it
  int rows;                // of the share
  std::uint16_t blocks;
  std::uint64_t policy;
  bool has_waited;  // for this kernel's dependencies
};
template <class Shape, bool IsX, bool Transposed, bool Multicast, class T, class Out>
BI_D void copy_operand(const gemm_wgmma_params<T, Out>& p, const operand& o, device::mbarrier* full,
                       device::mbarrier* empty, device::mbarrier* partials_read, int rank_x, int rank_y, slice_list ks,
                       int first_tile, int tile_step, bool even) {
  const std::uint32_t full0 = device::shared_address(full), empty0 = device::shared_address(empty);
  place at;
  int partials_parity = 0;
  bool mine = even;
  // The next kernel may start when half of the copies are made: its first weights then fill the gap at this one's end.
  // Not before the kernels that this one depends on are over: those weights may be theirs.
  int until_half = ((p.tiles - first_tile + tile_step - 1) / tile_step * (ks.end - ks.begin) + 1) / 2;
  for (int index = first_tile; index < p.tiles; index += tile_step) {
    if (!Shape::weights_first && p.cluster_k > 1 && index != first_tile) {  // the ring holds the last tile's partials
      device::mbarrier_wait_cluster(partials_read, partials_parity);
      partials_parity ^= 1;
    }
    const tile t = find_tile<Shape>(p, index, rank_x, rank_y);
    const int row = IsX ? t.x + rank_y * o.rows : t.y + rank_x * o.rows;
    for (int k = ks.begin; k < ks.end; ++k, at.next(p.stages), mine = !mine) {
      if (--until_half == 0 && o.has_waited) device::launch_dependents();
      if (!mine) continue;
      const std::uint32_t target = o.target + static_cast<std::uint32_t>(at.stage * o.stage_bytes);
      const std::uint32_t barrier = full0 + static_cast<std::uint32_t>(at.stage * 8);
      device::mbarrier_wait(empty0 + static_cast<std::uint32_t>(at.stage * 8), at.parity ^ 1);
      device::mbarrier_arrive_expect(barrier, o.bytes);
#pragma unroll 1
      for (int r = 0; r < (Transposed ? o.rows : 1); r += 64) {  // blocks of 64 along m or n
        const std::uint32_t to = target + static_cast<std::uint32_t>(r * 128);
        const int x = Transposed ? row + r : k * 64, y = Transposed ? k * 64 : row;
        if constexpr (Multicast) {
          device::tma_load_3d_multicast(to, o.map, barrier, x, y, t.entry, o.blocks, o.policy);
        } else {
          device::tma_load_3d(to, o.map, barrier, x, y, t.entry, o.policy);
        }
      }
    }
    // A tile may have no copies for this thread: the others must not be two tiles ahead of it, or it misses a phase.
    if (!Shape::weights_first && p.cluster_k > 1) {
      device::mbarrier_arrive_remote(device::shared_address(partials_read));
    }
  }
  // No block of a cluster ends while others have to tell it that they are done with a stage.
  if (p.cluster_x * p.cluster_y > 1) {
    for (int s = 0; s < p.stages; ++s, at.next(p.stages)) {
      device::mbarrier_wait(empty0 + static_cast<std::uint32_t>(at.stage * 8), at.parity ^ 1);
    }
  }
}

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

// The roots of Count outputs of one thread: Width floats each at `from` of the Ranks blocks of the cluster, `step` bytes
// apart. All loads are under way before the first sum.
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

template <class T, class Epilogue, class Out, class Shape, bool Kn>
BI_KERNEL __launch_bounds__(Shape::threads, Shape::min_blocks) void gemm_wgmma_kernel(
    const __grid_constant__ gemm_wgmma_params<T, Out> p) {
#if BI_WGMMA_CODE
  using namespace gemm_wgmma;
  constexpr bool x_transposed = Kn && Shape::weights_first, y_transposed = Kn && !Shape::weights_first;
  extern __shared__ unsigned char dynamic_shared[];
  // In static memory, so that its size tells the host that this code is there (bi/gemm.cuh).
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

      // Tells the cluster that this warp's partial results are there, and waits for those of all; then that they are read.
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
