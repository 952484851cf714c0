// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/device/tensor_map.hpp"
#include "bi/kernel/gemm_mma.cuh"

// The work of bi/kernel/gemm_wgmma.cuh: its parameters, which tile and which slices are whose, and their way into
// shared memory.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int gemm_wgmma_max_stages = 16;

// What the host has to know of a kernel's shape.
struct gemm_wgmma_form {
  bool weights_first;
  int consumers, block_x, block_y, threads;
};

// With tokens first: columns of the product of which a block of a cluster along k combines and writes all or none. Where
// there is no such cluster, all.
BI_HD constexpr int gemm_wgmma_unit_columns(int block_y) {
  return block_y % 32 != 0 || block_y > 160 ? block_y : block_y == 128 ? 64 : 32;
}

// Consumers: warpgroups, each with 64 rows of X and BlockY rows of Y. Levels: with 2^Levels slices in one thread block, the
// subtrees that wait for their neighbour.
template <bool WeightsFirst, int Consumers, int BlockY, int Levels>
struct gemm_wgmma_shape {
  static constexpr bool weights_first = WeightsFirst;
  static constexpr int consumers = Consumers, block_x = 64 * Consumers, block_y = BlockY, levels = Levels;
  // Many accumulators, or subtrees that wait, need more registers than an even share: consumers take some from the
  // copying warpgroup.
  static constexpr bool moves_registers = Consumers == 2 && BlockY / 2 * (Levels + 1) >= 96;
  static constexpr int consumer_threads = 128 * Consumers;
  static constexpr int threads = consumer_threads + 128;
  static constexpr int blocks_y = BlockY / 8;  // blocks of 8 rows of Y, of which a thread has 4 values each
  // What a block of a cluster along k combines and writes is a number of these, in blocks of 8: 8 tokens, or some columns.
  static constexpr int share_unit = WeightsFirst ? 1 : gemm_wgmma_unit_columns(BlockY) / 8;
  // Thread blocks that may share the slices of a tile. (Each number is one more version of how they combine them.)
  static constexpr int max_cluster_k = WeightsFirst                        ? (Consumers == 1 ? (BlockY <= 32 ? 8 : 4)
                                                                              : BlockY <= 88 ? 4
                                                                                             : 1)
                                       : BlockY <= 160 && BlockY % 32 == 0 ? 2
                                                                           : 1;
  BI_HD static constexpr gemm_wgmma_form form() { return {WeightsFirst, Consumers, block_x, BlockY, threads}; }
};

// With weights first: floats of a token in shared memory, 64 weights and a shift of 4 banks.
inline constexpr int gemm_wgmma_staging_stride = 68;

// Two thread blocks an SM, if their rings leave room: one may be of the next kernel, and fill its ring early. (A gate
// takes registers of its own.)
template <class Shape, bool Gate>
inline constexpr int gemm_wgmma_min_blocks = Shape::consumers == 1 && Shape::block_y <= (Gate ? 96 : 128) ? 2 : 1;
// The largest share of a tile that a block of a cluster along k combines and writes, in blocks of 8 rows of Y.
BI_HD constexpr int gemm_wgmma_share(const gemm_wgmma_form& f, int cluster_k) {
  const int unit = f.weights_first ? 1 : gemm_wgmma_unit_columns(f.block_y) / 8;
  return (f.block_y / 8 / unit + cluster_k - 1) / cluster_k * unit;
}
// With tokens first: columns of a box of outputs, at most 128 bytes. As many as divide a unit's.
template <class Out>
BI_HD constexpr int gemm_wgmma_box_columns(int block_y, bool gate) {
  int columns = 128 / static_cast<int>(sizeof(Out));
  while (gemm_wgmma_unit_columns(block_y) / (gate ? 2 : 1) % columns != 0) columns /= 2;
  return columns;
}
// With tokens first: columns of D that are in shared memory at once. More than 384 bytes of a row, or 256 of fp32, would
// cost stages.
template <class Out>
BI_HD constexpr int gemm_wgmma_pass_columns(int block_y, bool gate) {
  const int columns = gemm_wgmma_box_columns<Out>(block_y, gate), boxes = block_y / (gate ? 2 : 1) / columns;
  const int most = (sizeof(Out) == 2 ? 192 : 64) / columns, passes = (boxes + most - 1) / most;
  return (boxes + passes - 1) / passes * columns;
}
// With weights first: whether results leave as boxes of outputs, else as rows of fp32 that are turned round.
template <class Out>
BI_HD constexpr bool gemm_wgmma_has_boxes(bool gate) {
  return !gate && sizeof(Out) == 2;
}
// Where results wait for their way out: boxes of outputs, else, with weights first, fp32 [token][weight].
template <class Out>
BI_HD constexpr int gemm_wgmma_staging_bytes(const gemm_wgmma_form& f, int load_x, int cluster_k, bool gate) {
  constexpr int out = static_cast<int>(sizeof(Out));
  if (f.weights_first) {
    return gemm_wgmma_has_boxes<Out>(gate) ? f.block_y * load_x * out
                                           : f.consumers * f.block_y * gemm_wgmma_staging_stride * 4;
  }
  const int pass = gemm_wgmma_pass_columns<Out>(f.block_y, false), share = gemm_wgmma_share(f, cluster_k) * 8;
  return f.consumers * 64 * out * (pass < share ? pass : share);
}
// The tensor core reads 64 rows of X even if a stage has fewer: those of the last stage must be memory too.
template <class Out>
BI_HD constexpr int gemm_wgmma_after_ring(const gemm_wgmma_form& f, int load_x, int cluster_k, bool gate) {
  const int tail = (f.block_x - load_x) * 128;
  const int staging = gemm_wgmma_staging_bytes<Out>(f, load_x, cluster_k, gate);
  return staging > tail ? staging : tail;
}
// Bytes of shared memory, from any address. A block of a cluster along k gets its share from all others.
template <class Out>
constexpr int gemm_wgmma_shared_bytes(const gemm_wgmma_form& f, int stages, int load_x, int cluster_k, bool gate) {
  return 1024 + stages * (load_x + f.block_y) * 128 + gemm_wgmma_after_ring<Out>(f, load_x, cluster_k, gate) +
         (cluster_k - 1) * gemm_wgmma_share(f, cluster_k) * f.consumers * 128 * 16;
}

template <class T, class Out>
struct gemm_wgmma_params {
  device::tensor_map x, y, d;
  gemm_params<T, Out> p;
  int load_x;                // rows of X in a tile: Shape::block_x, or fewer, of which the rest is not computed
  int cluster_x, cluster_y;  // thread blocks that share tiles of Y, of X
  int share_x, share_y;      // rows of them that each of those copies,
  int copy_x, copy_y;        // so many at once
  int bytes_x, bytes_y;      // of a tile in the ring, and of the last one
  int last_bytes_x, last_bytes_y;
  int cluster_k;                             // thread blocks that share the slices of a tile,
  int slices_in_block;                       // so many each
  int grid_x, grid_y;                        // tiles, in units of clusters
  int group;                                 // tiles of X that are walked together before the next tile of Y
  int tiles;                                 // grid_x grid_y batch
  int slice_tile[contract::max_slices + 1];  // the first tile of k of each slice, and the end
  int stages;
  int copies_after_trigger;  // tiles of k that are still to be copied when the next kernel may start
  int box_y;                 // with weights first: rows of Y in a box of D
  bool store_by_copy;        // boxes of D leave through the copy engine
  bool weights_are_final;    // the weights may be read before the kernels that this one depends on are over
  bool weights_once;         // no later tile reads them again
};

namespace gemm_wgmma {

template <int Value>
struct constant {
  static constexpr int value = Value;
};

struct tile {
  int x, y, entry;  // first row of X, first row of Y
};

// a / b of numbers that aren't negative: less code than with a sign.
BI_HD inline int quotient(int a, int b) {
  return static_cast<int>(static_cast<unsigned>(a) / static_cast<unsigned>(b));
}

template <class Shape, class T, class Out>
BI_HD tile find_tile(const gemm_wgmma_params<T, Out>& p, int index, int rank_x, int rank_y) {
  int x = index, y = 0, entry = 0;
  if (p.grid_y > 1 || index >= p.grid_x) {  // else one tile of Y, as with few tokens, for which divisions are dear
    entry = quotient(index, p.grid_x * p.grid_y);
    const int rest = index - entry * (p.grid_x * p.grid_y);
    const int first = quotient(rest, p.group * p.grid_y) * p.group, in_group = rest - first * p.grid_y;
    const int width = p.grid_x - first < p.group ? p.grid_x - first : p.group;
    y = quotient(in_group, width);
    x = first + in_group - y * width;
  }
  return {(x * p.cluster_x + rank_x) * p.load_x, (y * p.cluster_y + rank_y) * Shape::block_y, entry};
}

// The first row of a block's share of a tile. Shares are equal: where they are more than the tile, the last ones overlap,
// and the same bytes are written twice.
BI_HD constexpr int share_begin(int tile, int share, int index) {
  return index * share < tile - share ? index * share : tile - share;
}

// The slices of a thread block: a subtree. Ends are in tiles of k.
struct slice_list {
  int first, count, begin, end;
};
template <class T, class Out>
BI_HD slice_list find_slices(const gemm_wgmma_params<T, Out>& p, int rank) {
  const int first = rank * p.slices_in_block;
  return {first, p.slices_in_block, p.slice_tile[first], p.slice_tile[first + p.slices_in_block]};
}

// Asks for the weights of one tile of k, with a warp.
template <class Shape, class T, class Out>
BI_D void prefetch_weights(const gemm_wgmma_params<T, Out>& p, const tile& t, int k, int lane) {
  const int rows = Shape::weights_first ? p.load_x : Shape::block_y, first = Shape::weights_first ? t.x : t.y;
  if (std::int64_t{k} * 64 >= p.p.k) return;
  const T* b = p.p.b + t.entry * p.p.b_batch_stride + k * 64;
  const int rest = static_cast<int>(p.p.n) - first, end = rest < rows ? first + rest : first + rows;
#pragma unroll 1
  for (int row = first + lane; row < end; row += 32) device::prefetch_l2(b + row * p.p.ldb);
}

// One thread's work: copies every other tile of an operand into the ring, or this thread block's share of it, for all
// `blocks` of the cluster that read the same. (One thread for all of them would take longer than the tensor core.) Copies
// of rows beyond the last are left out: filling rows up with zeros takes the copy engine twice as long as reading them
// (28 us instead of 18 at M = 192, N = K = 4096 with tiles of 128), and what comes of them is never stored.
struct operand {
  const device::tensor_map* map;
  std::uint32_t target;  // of stage 0
  int stage_bytes;
  int limit, tile;         // rows of the matrix, of a tile
  int bytes, last_bytes;   // of a tile in the ring, and of the last one
  int first, share, copy;  // of the share: its first row, its rows, rows at once
  std::uint16_t blocks;
  std::uint64_t policy;
  bool is_x, transposed, multicast;
  bool has_waited;  // for this kernel's dependencies
};
template <class Shape, class T, class Out>
BI_D void copy_operand(const gemm_wgmma_params<T, Out>& p, const operand& o, const device::mbarrier* full,
                       const device::mbarrier* empty, int rank_x, int rank_y, slice_list ks, const tile& first,
                       int first_tile, int tile_step, bool even) {
  const std::uint32_t full0 = device::shared_address(full), empty0 = device::shared_address(empty);
  device::ring_place at;
  bool mine = even;
  // The next kernel may start when few copies are left: its first weights then fill the gap at this one's end.
  // Not before the kernels that this one depends on are over: those weights may be theirs.
  const int rounds = quotient(p.tiles - first_tile + tile_step - 1, tile_step);
  const int tiles_of_k = rounds * (ks.end - ks.begin);
  int until_trigger = tiles_of_k > p.copies_after_trigger ? tiles_of_k - p.copies_after_trigger : 1;
  for (int index = first_tile; index < p.tiles; index += tile_step) {
    const tile t = index == first_tile ? first : find_tile<Shape>(p, index, rank_x, rank_y);
    const int tile_row = o.is_x ? t.x : t.y, row = tile_row + o.first;
    // Rows that are there: of the tile, and of the share.
    const int rest = o.limit - tile_row, bytes = rest >= o.tile ? o.bytes : rest > 0 ? o.last_bytes : 0;
    const int rows = rest - o.first < o.share ? rest - o.first : o.share;
    for (int k = ks.begin; k < ks.end; ++k, at.next(p.stages), mine = !mine) {
      if (--until_trigger == 0 && o.has_waited) device::launch_dependents();
      if (!mine) continue;
      const std::uint32_t target = o.target + static_cast<std::uint32_t>(at.slot * o.stage_bytes);
      const std::uint32_t barrier = full0 + static_cast<std::uint32_t>(at.slot * 8);
      device::mbarrier_wait(empty0 + static_cast<std::uint32_t>(at.slot * 8), at.parity ^ 1);
      device::mbarrier_arrive_expect(barrier, bytes);
#pragma unroll 1
      for (int r = 0; r < rows; r += o.copy) {
        const int x = o.transposed ? row + r : k * 64, y = o.transposed ? k * 64 : row + r;
        const std::uint32_t to = target + static_cast<std::uint32_t>(r * 128);
        if (o.multicast) {
          device::tma_load_3d_multicast(to, o.map, barrier, x, y, t.entry, o.blocks, o.policy);
        } else {
          device::tma_load_3d(to, o.map, barrier, x, y, t.entry, o.policy);
        }
      }
    }
  }
  // No block of a cluster ends while others have to tell it that they are done with a stage.
  if (p.cluster_x * p.cluster_y > 1) {
    for (int s = 0; s < p.stages; ++s, at.next(p.stages)) {
      device::mbarrier_wait(empty0 + static_cast<std::uint32_t>(at.slot * 8), at.parity ^ 1);
    }
  }
}

}  // namespace gemm_wgmma
}  // namespace kernel
BI_NAMESPACE_END
