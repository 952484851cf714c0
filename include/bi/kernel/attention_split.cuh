// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_softmax.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"
#include "bi/kernel/attention_split_source.cuh"

// Attention of requests with few rows over long views. The leaves of all requests and heads are dealt out evenly
// (bi/device/attention_split.cuh); what a block can't finish by itself it leaves in the workspace for attention_fold.cuh. A
// row's tree is the one that attention_mma.cuh walks: leaves fold in order there, here or in the other kernel.
//
// A block streams the tiles of its share through a ring in shared memory, from one item to the next without a pause: two
// warps copy, the others compute. Those that have the same 16 rows compute the same scores and weights, and each has a part
// of V's columns: the keys of a tile can't be shared out without two more barriers a tile, and the tensor cores have the time.
//
// A tile goes through three iterations of the copiers: they look its tokens up, write down where they lie, start the
// copies. So nothing waits for a page table.

BI_NAMESPACE_BEGIN
namespace kernel {

// What a warp has of a run: 16 rows and some columns.
template <class Contract, class T, int HeadDim, int RowWarps>
class attention_split_rows {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  static constexpr int tile = device::key_tile, leaf_tiles = Contract::leaf / tile;
  static_assert(tile == Contract::tile && Contract::leaf % tile == 0, "the kernel's tiles are the contract's");

 public:
  BI_D attention_split_rows(const attention_split_params<T>& p, float* shared_o) : p_(p), shared_o_(shared_o) {}

  BI_D void begin(const attention_split_run& r) {
    const place at;
    device::attention_reset(state_);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const contract::attention_range seen = attention_row_range<Contract>(p_.a, r.rows, at.row + 8 * h + at.lane / 4);
      state_.lo[h] = static_cast<std::int32_t>(seen.lo);
      state_.see[h] = static_cast<std::int32_t>(seen.see);
    }
  }

  // Tile t of the run; a row takes part if it sees some of it.
  BI_D void walk_tile(const attention_split_run& r, int t, T* q, T* k, T* v) {
    const place at;
    if (at.row >= r.rows.rows) return;
    const int lane = at.lane;
    const contract::attention_scale scale = Contract::prepare(p_.a.scale, p_.a.soft_cap);
    const auto in_tile = [&](std::int32_t index) {
      const int j = index - t * tile;
      return j < 0 ? 0 : j < tile ? j : tile;
    };
    const int begin[2] = {in_tile(state_.lo[0]), in_tile(state_.lo[1])};
    const int end[2] = {in_tile(state_.see[0]), in_tile(state_.see[1])};
    const bool sees[2] = {begin[0] < end[0], begin[1] < end[1]};
    if (__any_sync(device::full_warp, sees[0] || sees[1])) {
      float s[tile / 8][4], rescale[2];
      std::uint32_t weights[tile / 16][4];
      device::attention_scores<shape::rows, HeadDim>(s, q, at.row, k, lane);
      // Not end[h] == tile: ptxas 13.0 takes the comparison of a clamped value with its upper bound for true.
      const std::int32_t tile_begin = t * tile, tile_last = tile_begin + (tile - 1);
      const bool whole = state_.lo[0] <= tile_begin && state_.lo[1] <= tile_begin && state_.see[0] > tile_last &&
                         state_.see[1] > tile_last;
      if (__all_sync(device::full_warp, whole)) {
        device::attention_weigh<Contract, false>(state_, s, rescale, scale, begin, end, lane);
      } else {
        device::attention_weigh<Contract, true>(state_, s, rescale, scale, begin, end, lane);
      }
      device::attention_rescale(state_, rescale);
      device::attention_pack_weights<T>(weights, s);

      T* values = device::tile_part<tile>(v, at.column / device::tile_width);
      const int first = at.column % device::tile_width / 8;
      // Whether a key that is loaded is one that one of the thread's rows does not see.
      bool hidden = false;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        hidden = hidden || (sees[h] && (begin[h] > in_tile(r.lo) || end[h] < in_tile(r.see)));
      }
      const bool masked = __any_sync(device::full_warp, hidden) &&
                          device::attention_nonfinite_keys<shape::columns>(values, lane, first) != 0;
      if (masked) {
        device::attention_add_masked_values(state_.leaf_o, weights, values, begin, end, lane, first);
      } else if (__all_sync(device::full_warp, sees[0] && sees[1])) {
        device::attention_add_values<false>(state_.leaf_o, weights, values, sees, lane, first);
      } else {
        device::attention_add_values<true>(state_.leaf_o, weights, values, sees, lane, first);
      }
    }
    if (t % leaf_tiles != leaf_tiles - 1 && t != r.end_tile - 1) return;
    if (r.walk.run.is_first()) {
      const std::int32_t leaf = t / leaf_tiles * Contract::leaf;
      device::attention_close_leaf<Contract, shape::compute_threads>(state_, state_.lo, state_.see,
                                                                     shared_o_ + at.thread, leaf, lane);
    } else {
      const std::int64_t leaf = t / leaf_tiles - r.first_tile / leaf_tiles;
      const std::int64_t to = p_.partials.places.leaf(blockIdx.x, leaf);
      device::attention_give_leaf<Contract>(
          state_, lane, [&](int h, float m, float l, const auto& o) { give(r, to, at, h, m, l, o); });
    }
  }

  BI_D void finish(const attention_split_run& r) {
    const place at;
    if (at.row >= r.rows.rows || !r.walk.run.is_first()) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const auto o = [&](int i) {
        const int value = i / 2 * 4 + 2 * h + i % 2;
        return shared_o_[value * shape::compute_threads + at.thread];
      };
      if (r.walk.run.is_whole()) {
        write(r, at, h, state_.m[h], state_.l[h], o);
      } else {
        give(r, p_.partials.places.folded(blockIdx.x), at, h, state_.m[h], state_.l[h], o);
      }
    }
  }

 private:
  // Where the thread stands. Made when needed: kept, it and what follows from it take registers from the loop.
  struct place {
    int thread = device::opaque(static_cast<int>(threadIdx.x)), lane = thread % 32;
    int row = thread / 32 / shape::column_warps * 16;
    int column = thread / 32 % shape::column_warps * shape::columns;
  };

  // o(2 j + e): the value of the thread's column 8 j + e.
  template <class Value>
  BI_D void give(const attention_split_run& r, std::int64_t to, const place& at, int h, float m, float l,
                 const Value& o) const {
    const int row = at.row + 8 * h + at.lane / 4;
    if (row >= r.rows.rows) return;
    attention_give<HeadDim, shape::blocks>(p_.partials, to, row, at.column, at.lane, m, l, o);
  }

  template <class Value>
  BI_D void write(const attention_split_run& r, const place& at, int h, float m, float l, const Value& o) const {
    const int row = at.row + 8 * h + at.lane / 4;
    if (row >= r.rows.rows) return;
    attention_write<Contract, shape::blocks>(p_.a, r.rows, r.walk.run.head, row, at.column, at.lane, m, l, o);
  }

  const attention_split_params<T>& p_;
  float* const shared_o_;
  device::attention_state<shape::blocks> state_;
};

enum attention_split_order : std::int32_t { attention_split_wait, attention_split_tile, attention_split_end };

// All threads meet here once an iteration.
template <int Threads>
BI_D void attention_split_meet() {
  __syncwarp();  // the barrier counts whole warps
  device::named_barrier(1, Threads);
}

// The copiers. They know which tile and run the others have in hand, as they give the orders.
template <class Contract, class T, int HeadDim, int RowWarps>
BI_D void attention_split_copy(const attention_split_params<T>& p, attention_split_memory<T, HeadDim, RowWarps>& memory,
                               T* ring, const device::attention_walk& walk) {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  attention_split_source<Contract, T, HeadDim, RowWarps> source(p.a, memory, ring, p.stages, walk);
  int run = 0, tiles = 0, t = -1;
  for (int parity = 0;; parity ^= 1) {
    attention_split_order order = attention_split_wait;
    if (source.issued() - tiles >= p.stages - 1 || !source.more(run)) {
      order = source.issued() == tiles ? attention_split_end : attention_split_tile;
      attention_wait_copies(source.issued() - tiles - 1);
    }
    if (threadIdx.x == shape::compute_threads) memory.orders[parity] = order;
    attention_split_meet<shape::threads>();  // the next tile is there, and everyone is done with the last one
    if (order == attention_split_end) return;
    source.step(run);
    if (order == attention_split_wait) continue;
    const attention_split_run& r = memory.runs[run % 2];
    if (t < 0) t = r.first_tile;
    ++tiles;
    if (++t == r.end_tile) {
      ++run;
      t = -1;
    }
  }
}

template <class Contract, class T, int HeadDim, int RowWarps>
BI_D void attention_split_compute(const attention_split_params<T>& p,
                                  attention_split_memory<T, HeadDim, RowWarps>& memory, T* ring) {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  attention_split_rows<Contract, T, HeadDim, RowWarps> rows(p, memory.o);
  int run = 0, stage = 0, t = -1;
  for (int parity = 0;; parity ^= 1) {
    attention_split_meet<shape::threads>();
    const std::int32_t order = memory.orders[parity];
    if (order == attention_split_end) return;
    if (order == attention_split_wait) continue;
    const attention_split_run& r = memory.runs[run % 2];
    if (t < 0) {
      t = r.first_tile;
      rows.begin(r);
    }
    T* k = ring + stage * 2 * shape::tile_values;
    rows.walk_tile(r, t, memory.q[run % 2], k, k + shape::tile_values);
    stage = stage + 1 == p.stages ? 0 : stage + 1;
    if (++t == r.end_tile) {
      rows.finish(r);
      if (threadIdx.x == 0) {
        attention_tell_cut(p.partials, p.a.heads_kv, r.walk, r.rows, p.a.len[r.rows.request], memory.share.end,
                           memory.share.total);
      }
      ++run;
      t = -1;
    }
  }
}

template <class Contract, class T, int HeadDim, int RowWarps>
BI_KERNEL __launch_bounds__(attention_split_shape<HeadDim, RowWarps>::threads,
                            1) void attention_split_kernel(const attention_split_params<T> p) {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_split_memory<T, HeadDim, RowWarps>*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_split_ring_at<T, HeadDim, RowWarps>);
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  device::launch_dependents();  // the blocks that fold take little and wait for the end of this kernel
#endif
  device::attention_walk walk;
  attention_share_start<Contract>(p.a, memory.share, walk);
  const int thread = static_cast<int>(threadIdx.x);
  if (walk.run.count == 0) {
    if (thread == 0 && !p.partials.by_item) p.partials.cuts[blockIdx.x].request = -1;
    return;
  }
  if (thread >= shape::compute_threads) {
    attention_split_copy<Contract, T, HeadDim, RowWarps>(p, memory, ring, walk);
  } else {
    attention_split_compute<Contract, T, HeadDim, RowWarps>(p, memory, ring);
  }
}

}  // namespace kernel
BI_NAMESPACE_END
