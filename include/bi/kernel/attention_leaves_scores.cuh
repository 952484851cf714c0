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
#include "bi/kernel/attention_share.cuh"

// The warps of attention_leaves.cuh and attention_clusters.cuh that make scores and weights.

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
template <class Contract, class T, int HeadDim, class Memory = attention_leaves_memory<Contract, HeadDim>>
class attention_leaves_scores : attention_leaves_walker<Contract, T, typename Memory::run_type,
                                                        attention_leaves_shape<HeadDim>::score_threads, 1> {
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = Memory;
  using base = attention_leaves_walker<Contract, T, typename Memory::run_type, shape::score_threads, 1>;
  using tile_view = typename base::tile_view;
  static constexpr int tile = base::tile, tiles = memory_type::tiles;
  static_assert(shape::score_warps == 2 * tiles, "half a tile of the leaf for each warp");
  static_assert(shape::steps <= shape::score_warps, "a step of q for each warp");
  using base::lane_, base::warp_, base::p_, base::row, base::run, base::meet;

 public:
  BI_D attention_leaves_scores(const attention_split_params<T>& p, memory_type& memory, T* ring, int slots)
      : base(p.a, memory.score_run, static_cast<int>(threadIdx.x)),
        memory_(memory),
        ring_(ring),
        slots_(slots),
        scale_(Contract::prepare(p.a.scale, p.a.soft_cap)) {}

  // tell(): once, by one thread, of each run.
  template <class List = attention_list, class Tell>
  BI_D void walk(const device::attention_walk& walk, const List& list, const Tell& tell) {
    base::begin(walk, list);
    ask_q(aim_q(walk.run, run().rows));
    do {
      store_q();
      meet();
      if (threadIdx.x == 0) tell(run());
      // Under load an answer of memory takes longer than this group may wait for q.
      if (run().walk.more()) {
        device::attention_walk next = run().walk;
        attention_share_next<Contract>(p_, next, run().requests());
        ask_q(aim_q(next.run, next.run.request == run().walk.run.request
                                  ? run().rows
                                  : device::attention_request_rows(p_.batch, next.run.request)));
      }
      walk_leaves();
    } while (next());
  }

  // The part of a cluster's item that the block has.
  template <class Share>
  BI_D void walk_item(const Share& share, attention_lengths& guess) {
    q_source from;
    base::begin(
        share, guess, [&] { from = aim_q(run().walk.run, run().rows); }, [&] { ask_q(from); });
    if (run().walk.run.count == 0) return;
    store_q();
    meet();
    walk_leaves();
  }

 private:
  BI_D bool next() {
    const bool asked = !Memory::run_type::has_queue || run().walk.more();
    if (!base::next()) return false;
    if (!asked) ask_q(aim_q(run().walk.run, run().rows));
    return true;
  }
  BI_D int own_tile() const { return warp_ / 2; }
  BI_D int own_half() const { return warp_ % 2; }

  BI_D void walk_leaves() {
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
  }

  // The warp's step of a run's q, straight into fragments: every value is read once. Aligned rows are a case of their own:
  // whatever might put halves together would wait for them here.
  struct q_source {
    const T* row[2];
    bool exists[2];
  };
  BI_D q_source aim_q(const device::attention_run& of, const device::attention_row_tile& rows) const {
    const T* const q = p_.q + rows.first_row * p_.q_token_stride + of.head * rows.group * p_.q_head_stride;
    q_source from;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      from.exists[h] = row(h) < rows.rows;
      from.row[h] = q + warp_ * 16 + lane_ % 4 * 2;
      if (from.exists[h]) {
        from.row[h] += rows.token(row(h)) * p_.q_token_stride + rows.head(row(h)) * p_.q_head_stride;
      }
    }
    return from;
  }
  BI_D void ask_q(const q_source& from) {
    const auto each = [&](const auto& load) {
#pragma unroll
      for (int j = 0; j < 4; ++j) q_[j] = from.exists[j % 2] ? load(from.row[j % 2] + 8 * (j / 2)) : 0;
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

  memory_type& memory_;
  T* const ring_;
  const int slots_;
  const contract::attention_scale scale_;
  std::uint32_t q_[4];  // of the next run
  device::ring_place at_;
  attention_leaves_turn turn_;
};

}  // namespace kernel
BI_NAMESPACE_END
