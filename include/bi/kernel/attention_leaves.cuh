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
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_source.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Attention of requests of at most 16 packed rows over long views: decode. The leaves of all requests and heads are dealt
// out evenly (bi/device/attention_split.cuh); what a block can't finish by itself attention_fold.cuh folds.
//
// Three groups of warps walk a block's share, each at its own pace. One copies tiles of K and V into rings, as far ahead as
// there is room. One makes scores of a leaf's K, half a tile a warp, and weights of them. One adds up V by the weights of the
// leaf before, some of the columns a warp, and folds.

BI_NAMESPACE_BEGIN
namespace kernel {

// Of leaf n since the start: which of the two places of its weights, and the parity of their barriers' phase.
struct attention_leaves_turn {
  int place = 0, parity = 0;

  BI_D void advance() {
    place ^= 1;
    if (place == 0) parity ^= 1;
  }
};

// Scores and weights: 16 rows, half a tile.
template <class Contract, class T, int HeadDim>
class attention_leaves_scores
    : attention_leaves_walker<Contract, T, attention_leaves_shape<HeadDim>::score_threads, 1> {
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = attention_leaves_memory<Contract, HeadDim>;
  using base = attention_leaves_walker<Contract, T, shape::score_threads, 1>;
  using tile_view = typename base::tile_view;
  static constexpr int tile = base::tile, tiles = memory_type::tiles;
  static_assert(shape::score_warps == 2 * tiles, "half a tile of the leaf for each warp");
  static_assert(shape::steps <= shape::score_warps, "a step of q for each warp");
  using base::lane_, base::warp_, base::p_, base::row, base::run, base::meet;

 public:
  BI_D attention_leaves_scores(const attention_split_params<T>& p, memory_type& memory, T* ring, int slots)
      : base(p.a, memory.score_run, static_cast<int>(threadIdx.x)),
        partials_(p.partials),
        memory_(memory),
        ring_(ring),
        slots_(slots),
        scale_(Contract::prepare(p.a.scale, p.a.soft_cap)) {}

  BI_D void walk(const device::attention_walk& walk) {
    base::begin(walk);
    load_q(walk.run, run().rows);
    do {
      store_q();
      meet();
      if (threadIdx.x == 0) {
        attention_tell_cut(partials_, p_.heads_kv, run().walk.run, memory_.share.end, memory_.share.total);
      }
      // Under load an answer of memory takes longer than this group may wait for q.
      if (run().walk.more()) {
        device::attention_walk next = run().walk;
        attention_share_next<Contract>(p_, next);
        load_q(next.run, next.run.request == run().walk.run.request
                             ? run().rows
                             : device::attention_request_rows(p_.batch, next.run.request));
      }
      for (int i = 0; i < run().walk.run.count; ++i) {
        lane_ = device::opaque(lane_);  // see attention_leaves_values
        const std::int64_t leaf = base::leaf(i);
        const auto first = static_cast<std::int32_t>(leaf) * Contract::leaf;
        if (base::sees_all(first)) {
          walk_leaf<true>(first, {0, tiles});
        } else {
          walk_leaf<false>(first, make_attention_leaf_tiles<Contract>(run().item, leaf));
        }
      }
    } while (base::next());
  }

 private:
  BI_D int own_tile() const { return warp_ / 2; }
  BI_D int own_half() const { return warp_ % 2; }

  // The warp's step of a run's q, straight into fragments: every value is read once. Aligned rows are a case of their own:
  // whatever might put halves together would wait for them here.
  BI_D void load_q(const device::attention_run& of, const device::attention_row_tile& rows) {
    const T* const q = p_.q + rows.first_row * p_.q_token_stride + of.head * rows.group * p_.q_head_stride;
    const T* from[2];
    bool exists[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      exists[h] = row(h) < rows.rows;
      from[h] = q + warp_ * 16 + lane_ % 4 * 2;
      if (exists[h]) from[h] += rows.token(row(h)) * p_.q_token_stride + rows.head(row(h)) * p_.q_head_stride;
    }
    const auto each = [&](const auto& load) {
#pragma unroll
      for (int j = 0; j < 4; ++j) q_[j] = exists[j % 2] ? load(from[j % 2] + 8 * (j / 2)) : 0;
    };
    if (warp_ >= shape::steps) return;
    if (p_.q_aligned) {
      each([](const T* two) { return *reinterpret_cast<const std::uint32_t*>(two); });
    } else {
      each([](const T* two) { return two[0].bits | static_cast<std::uint32_t>(two[1].bits) << 16; });
    }
  }
  BI_D void store_q() {
    if (warp_ >= shape::steps) return;
    *reinterpret_cast<uint4*>(memory_.q[warp_][lane_]) = make_uint4(q_[0], q_[1], q_[2], q_[3]);
  }

  template <bool Whole>
  BI_D void walk_leaf(std::int32_t first, const attention_leaf_tiles& present) {
    float s[tile / 16][4], shift[2];
    const bool has_tile = Whole || (present.begin <= own_tile() && own_tile() < present.end);
    const tile_view own = base::template view<Whole>(first + own_tile() * tile);
    if (has_tile) score<Whole>(s, own, at_.after(own_tile() - present.begin, slots_));
    meet();
    follow_maxima<Whole>(first, shift);
    if (has_tile) weigh<Whole>(s, own, shift);
    device::mbarrier_arrive(&memory_.weights_full[turn_.place], 1);
    turn_.advance();
    at_ = at_.after(present.count(), slots_);
  }

  template <bool Whole>
  BI_D void score(float (&s)[tile / 16][4], const tile_view& own, const device::ring_place& at) {
    device::mbarrier_wait(device::shared_address(&memory_.full[0][at.slot]), at.parity);
    device::attention_scores_of<HeadDim>(s, ring_ + at.slot * shape::slot_values, own_half() * tile / 2, lane_,
                                         [&](std::uint32_t(&a)[4], int step) {
                                           const uint4 x = *reinterpret_cast<const uint4*>(memory_.q[step][lane_]);
                                           a[0] = x.x, a[1] = x.y, a[2] = x.z, a[3] = x.w;
                                         });
    device::mbarrier_arrive(&memory_.empty[0][at.slot], 1);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float largest =
          device::attention_tile_max<Contract, !Whole>(s, h, scale_, own.begin[h], own.end[h], lane_, own_half());
      if (lane_ % 4 == 0) memory_.largest[turn_.place][own_tile()][own_half()][row(h)] = largest;
    }
  }

  // The chain of the leaf's maxima, through the tiles that a row sees. One warp writes what comes of it.
  template <bool Whole>
  BI_D void follow_maxima(std::int32_t first, float (&shift)[2]) {
    auto& weights = memory_.weights[turn_.place];
    device::mbarrier_wait(device::shared_address(&memory_.weights_empty[turn_.place]), turn_.parity ^ 1);
    const bool writes = warp_ == shape::score_warps - 1 && lane_ % 4 == 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float m = neg_inf_f32();
      shift[h] = 0.0f;
#pragma unroll
      for (int t = 0; t < tiles; ++t) {
        contract::attention_advance next = {m, 0.0f, 1.0f};
        if (base::template view<Whole>(first + t * tile).sees(h)) {
          const float(&largest)[2][16] = memory_.largest[turn_.place][t];
          next = Contract::advance(m, max_nan(largest[0][row(h)], largest[1][row(h)]));
        }
        m = next.m;
        if (t == own_tile()) shift[h] = next.shift;
        if (writes) weights.rescale[t][row(h)] = next.rescale;
      }
      if (writes) weights.m[row(h)] = m;
    }
  }

  template <bool Whole>
  BI_D void weigh(float (&s)[tile / 16][4], const tile_view& own, const float (&shift)[2]) {
    auto& weights = memory_.weights[turn_.place];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float p[tile / 8];
      device::attention_tile_weights<Contract, !Whole>(p, s, h, scale_, shift[h], own.begin[h], own.end[h], lane_,
                                                       own_half());
      weights.sums[own_tile()][own_half()][row(h)][lane_ % 4] = Contract::half_lane_sum(p);
    }
    std::uint32_t packed[tile / 32][4];
    device::attention_pack_weights<T>(packed, s);
#pragma unroll
    for (int step = 0; step < tile / 32; ++step) {
      *reinterpret_cast<uint4*>(weights.p[own_tile()][own_half() * (tile / 32) + step][lane_]) =
          make_uint4(packed[step][0], packed[step][1], packed[step][2], packed[step][3]);
    }
  }

  const attention_partials& partials_;
  memory_type& memory_;
  T* const ring_;
  const int slots_;
  const contract::attention_scale scale_;
  std::uint32_t q_[4];  // of the next run
  device::ring_place at_;
  attention_leaves_turn turn_;
};

// The sums of V by the weights: 16 rows and some columns.
template <class Contract, class T, int HeadDim>
class attention_leaves_values
    : attention_leaves_walker<Contract, T, attention_leaves_shape<HeadDim>::value_threads, 2> {
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = attention_leaves_memory<Contract, HeadDim>;
  using base = attention_leaves_walker<Contract, T, shape::value_threads, 2>;
  using tile_view = typename base::tile_view;
  static constexpr int tile = base::tile, tiles = memory_type::tiles;
  using base::lane_, base::warp_, base::p_, base::row, base::run, base::lo_, base::see_;

 public:
  BI_D attention_leaves_values(const attention_split_params<T>& p, memory_type& memory, T* ring, int slots)
      : base(p.a, memory.value_run, static_cast<int>(threadIdx.x) - shape::score_threads),
        partials_(p.partials),
        memory_(memory),
        ring_(ring),
        slots_(slots) {}

  BI_D void walk(const device::attention_walk& walk) {
    base::begin(walk);
    do {
      device::attention_reset(state_);
#pragma unroll
      for (int i = 0; i < 4 * shape::blocks; ++i) o_[i] = 0.0f;
      for (int i = 0; i < run().walk.run.count; ++i) walk_leaf(i);
      finish();
    } while (base::next());
  }

 private:
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
    if (!attention_leaves_apart<Contract> || run().walk.run.is_first()) {
      device::attention_close_leaf<Contract, 1>(state_, lo_, see_, o_, first, lane_);
    } else {
      const std::int64_t place = partials_.places.leaf(blockIdx.x, i);
      device::attention_give_leaf<Contract>(state_, lane_,
                                            [&](int h, float m, float l, const auto& o) { give(place, h, m, l, o); });
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
    const attention_leaves_run& r = run();
    if (attention_leaves_apart<Contract> && !r.walk.run.is_first()) return;
    const std::int64_t place =
        r.walk.run.is_first() ? partials_.places.folded(blockIdx.x) : partials_.places.leaf(blockIdx.x, 0);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const auto o = [&](int i) { return o_[i / 2 * 4 + 2 * h + i % 2]; };
      if (!r.walk.run.is_whole()) {
        give(place, h, state_.m[h], state_.l[h], o);
      } else if (row(h) < r.rows.rows) {
        attention_write<Contract, shape::blocks>(p_, r.rows, r.walk.run.head, row(h), column(), lane_, state_.m[h],
                                                 state_.l[h], o);
      }
    }
  }

  template <class Value>
  BI_D void give(std::int64_t place, int h, float m, float l, const Value& o) const {
    if (row(h) < run().rows.rows) {
      attention_give<HeadDim, shape::blocks>(partials_, place, row(h), column(), lane_, m, l, o);
    }
  }

  const attention_partials& partials_;
  memory_type& memory_;
  T* const ring_;
  const int slots_;
  device::ring_place at_;
  attention_leaves_turn turn_;
  device::attention_state<shape::blocks> state_;
  float o_[4 * shape::blocks];  // of the closed leaves
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_leaves_shape<HeadDim>::threads,
                            1) void attention_leaves_kernel([[maybe_unused]] const attention_split_params<T> p) {
#if BI_WGMMA_CODE  // for sm_90a: elsewhere registers cannot move, and the warps that add up V would spill
  using shape = attention_leaves_shape<HeadDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_leaves_memory<Contract, HeadDim>*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_leaves_ring_at<Contract, HeadDim>);
  const int thread = static_cast<int>(threadIdx.x), slots = p.stages;
  device::launch_dependents();  // whoever folds waits for the end of this kernel
  // Every thread that read or wrote arrives: one for its warp would do, but racecheck would not see it.
  if (thread < slots) {
    device::mbarrier_init(&memory.full[0][thread], 32);
    device::mbarrier_init(&memory.full[1][thread], 32);
    device::mbarrier_init(&memory.empty[0][thread], 2 * 32);  // a warp for each half of a tile
    device::mbarrier_init(&memory.empty[1][thread], shape::value_threads);
  } else if (thread < slots + 2) {
    device::mbarrier_init(&memory.weights_full[thread - slots], shape::score_threads);
    device::mbarrier_init(&memory.weights_empty[thread - slots], shape::value_threads);
  }
  const bool copies = thread >= shape::score_threads + shape::value_threads;
  if (copies) attention_leaves_prefetch(p.a, thread - shape::score_threads - shape::value_threads, shape::copy_warps);
  __syncthreads();
  device::attention_walk walk;
  const bool alone = attention_leaves_guess(p.a);
  if (!(copies && alone)) {
    device::wait_for_dependencies();
    attention_share_start<Contract>(p.a, memory.share, walk);
    if (walk.run.count == 0) {
      if (thread == 0 && !p.partials.by_item) p.partials.cuts[blockIdx.x].request = -1;
      return;
    }
  }
  if (thread < shape::score_threads) {
    attention_leaves_scores<Contract, T, HeadDim>(p, memory, ring, slots).walk(walk);
  } else if (!copies) {
    attention_leaves_move_registers<152>();
    attention_leaves_values<Contract, T, HeadDim>(p, memory, ring, slots).walk(walk);
  } else {
    attention_leaves_move_registers<104>();
    attention_leaves_source<Contract, T, HeadDim>(p.a, memory, ring, slots, walk).copy_all(alone);
  }
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
