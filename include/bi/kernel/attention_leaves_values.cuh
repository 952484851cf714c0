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
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_scores.cuh"
#include "bi/kernel/attention_share.cuh"

// The warps of attention_leaves.cuh and attention_clusters.cuh that add up V.

BI_NAMESPACE_BEGIN
namespace kernel {

// The sums of V by the weights: 16 rows and some columns. Results: where the sums of a leaf, or of leaves folded, go, and
// which of the two a run has.
template <class Contract, class T, int HeadDim, class Results,
          class Memory = attention_leaves_memory<Contract, HeadDim>>
class attention_leaves_values : attention_leaves_walker<Contract, T, typename Memory::run_type,
                                                        attention_leaves_shape<HeadDim>::value_threads, 2> {
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = Memory;
  using base = attention_leaves_walker<Contract, T, typename Memory::run_type, shape::value_threads, 2>;
  using tile_view = typename base::tile_view;
  static constexpr int tile = base::tile, tiles = memory_type::tiles;
  using base::lane_, base::warp_, base::p_, base::row, base::run, base::lo_, base::see_;

 public:
  BI_D attention_leaves_values(const attention_split_params<T>& p, memory_type& memory, T* ring, int slots,
                               const Results& results)
      : base(p.a, memory.value_run, static_cast<int>(threadIdx.x) - shape::score_threads),
        results_(results),
        memory_(memory),
        ring_(ring),
        slots_(slots) {}

  template <class List = attention_list>
  BI_D void walk(const device::attention_walk& walk, const List& list) {
    base::begin(walk, list);
    do {
      results_.begin(run());
      walk_leaves();
    } while (base::next());
  }

  // The part of a cluster's item that the block has.
  template <class Share>
  BI_D void walk_item(const Share& share, attention_lengths& guess) {
    base::begin(
        share, guess, [] {}, [] {});
    results_.begin(run());
    if (run().walk.run.count > 0) walk_leaves();
  }

 private:
  BI_D void walk_leaves() {
    device::attention_reset(state_);
#pragma unroll
    for (int i = 0; i < 4 * shape::blocks; ++i) o_[i] = 0.0f;
    for (int i = 0; i < run().walk.run.count; ++i) walk_leaf(i);
    if (results_.folds(run())) finish();
    results_.end(run());
  }

  BI_D int column() const { return warp_ * shape::columns; }

  BI_D void walk_leaf(int i) {
    // What follows from it is made anew in each leaf: kept, it takes more registers than there are.
    lane_ = device::opaque(lane_);
    const std::int64_t leaf = base::leaf(i);
    const auto first = static_cast<std::int32_t>(leaf) * Contract::leaf;
    device::mbarrier_wait(device::shared_address(&memory_.weights_full[turn_.place]), turn_.parity);
    if (base::sees_all(first)) {
      walk_tiles<true>(first, {0, tiles});
    } else {
      walk_tiles<false>(first, make_attention_leaf_tiles<Contract>(run().item, leaf));
    }
    device::mbarrier_arrive(&memory_.weights_empty[turn_.place], 1);
    turn_.advance();
    if (results_.folds(run())) {
      device::attention_close_leaf<Contract, 1>(state_, lo_, see_, o_, first, lane_);
    } else {
      results_.before_leaf(run(), i);
      device::attention_give_leaf<Contract>(state_, lane_, [&](int h, float m, float l, const auto& o) {
        if (row(h) < run().rows.rows) results_.leaf(run(), i, row(h), column(), lane_, m, l, o);
      });
      results_.after_leaf(run(), i);
    }
  }

  // The tiles of a leaf that begins at `first`. Whole: the warp's rows see all of it.
  template <bool Whole>
  BI_D void walk_tiles(std::int32_t first, const attention_leaf_tiles& present) {
    const auto& weights = memory_.weights[turn_.place];
#pragma unroll
    for (int h = 0; h < 2; ++h) state_.leaf_m[h] = weights.m[row(h)];
#pragma unroll 1  // the kernel's code should fit the instruction cache
    for (int t = present.begin; t < present.end; ++t) {
      add_tile<Whole>(t, base::template view<Whole>(first + t * tile));
      at_ = at_.after(1, slots_);
    }
  }

  // l += the weights' sum, o += P V of tile t, the warp's columns.
  template <bool Whole>
  BI_D void add_tile(int t, const tile_view& seen) {
    const auto& weights = memory_.weights[turn_.place];
    const bool sees[2] = {seen.sees(0), seen.sees(1)};
    float rescale[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      rescale[h] = weights.rescale[t][row(h)];
      const auto& sums = weights.sums[t];
      const float sum = Contract::lane_sum(sums[0][row(h)][lane_ % 4], sums[1][row(h)][lane_ % 4]);
      if (sees[h]) state_.leaf_l[h] = Contract::accumulate(state_.leaf_l[h], rescale[h], sum);
    }
    device::attention_rescale(state_, rescale);
    std::uint32_t p[tile / 16][4];
#pragma unroll
    for (int step = 0; step < tile / 16; ++step) {
      const uint4 x = *reinterpret_cast<const uint4*>(weights.p[t][step][lane_]);
      p[step][0] = x.x, p[step][1] = x.y, p[step][2] = x.z, p[step][3] = x.w;
    }
    T* values =
        device::tile_part<tile>(ring_ + (slots_ + at_.slot) * shape::slot_values, column() / device::tile_width);
    const int first = column() % device::tile_width / 8;
    device::mbarrier_wait(device::shared_address(&memory_.full[1][at_.slot]), at_.parity);
    if constexpr (Whole) {
      device::attention_add_values<false>(state_.leaf_o, p, values, sees, lane_, first);
    } else {
      // Whether a key that is loaded is one that one of the thread's rows does not see.
      const std::int32_t all = run().item.see - run().item.lo;
      const bool hidden = !(seen.whole || (all == see_[0] - lo_[0] && all == see_[1] - lo_[1]));
      const bool masked = __any_sync(device::full_warp, hidden) &&
                          device::attention_nonfinite_keys<shape::columns>(values, lane_, first) != 0;
      if (masked) {
        device::attention_add_masked_values(state_.leaf_o, p, values, seen.begin, seen.end, lane_, first);
      } else {
        device::attention_add_values<true>(state_.leaf_o, p, values, sees, lane_, first);
      }
    }
    device::mbarrier_arrive(&memory_.empty[1][at_.slot], 1);
  }

  BI_D void finish() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (row(h) < run().rows.rows) {
        results_.folded(run(), row(h), column(), lane_, state_.m[h], state_.l[h],
                        [&](int i) { return o_[i / 2 * 4 + 2 * h + i % 2]; });
      }
    }
  }

  const Results results_;
  memory_type& memory_;
  T* const ring_;
  const int slots_;
  device::ring_place at_;
  attention_leaves_turn turn_;
  device::attention_state<shape::blocks> state_;
  float o_[4 * shape::blocks];  // of the closed leaves
};

}  // namespace kernel
BI_NAMESPACE_END
