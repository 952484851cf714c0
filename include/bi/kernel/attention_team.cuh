// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// What becomes of the results of attention_leaves.cuh where an item was cut: the team's blocks fold them in leaf order, while
// they are at the item. A leaf's partial result goes to the workspace; owners, each for some of the rows, look now and then
// for what all have left there, and fold it. Nobody ever waits for a block that might not run yet: whoever of the team is
// through last folds what is missing, nearly always nothing. If there are two blocks, and the one is through when the other
// begins, the other one goes on with what the first has folded.
//
// Warps have columns: those of a warp that adds up V are folded by one of the warps that copy, which have time. What they ask
// of memory takes as long as a leaf under load, so they look at it when they are at the next one.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int attention_reset_threads = 256;

// Before attention_leaves.cuh: nothing is done, nobody is through.
template <class T>
BI_KERNEL __launch_bounds__(attention_reset_threads) void attention_reset_kernel(
    [[maybe_unused]] const attention_split_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900  // no launcher asks others for it
  device::launch_dependents();              // they wait for the end of this kernel
  device::wait_for_dependencies();
  constexpr int warps = attention_team_record::warps;
  for (int i = static_cast<int>(threadIdx.x); i < p.teams.blocks * warps; i += attention_reset_threads) {
    attention_team_record& r = p.teams.records[i / warps];
    r.done[0][i % warps] = r.done[1][i % warps] = r.through[i % warps] = 0;
  }
#endif
}

// Where a warp's columns of partial results lie.
template <int HeadDim>
struct attention_team_places_of_warp {
  static constexpr int width = attention_leaves_shape<HeadDim>::columns, warps = attention_team_record::warps;
  static_assert(attention_leaves_shape<HeadDim>::value_warps == warps &&
                attention_leaves_shape<HeadDim>::copy_warps == warps);
  const attention_team_partials& teams;
  int warp;

  BI_D float* o(std::int64_t place, int row) const {
    return teams.o + (place * teams.rows + row) * HeadDim + warp * width;
  }
  BI_D float2* ml(std::int64_t place, int row) const { return teams.ml + (place * teams.rows + row) * warps + warp; }
  BI_D std::int64_t folded(const device::attention_team& team, std::int32_t member) const {
    return teams.places.folded(team.block + member, member == 0);
  }
  BI_D std::int32_t* done(const device::attention_team& team, std::int32_t member) const {
    return &teams.records[team.block + member].done[member == 0 ? 0 : 1][warp];
  }
  BI_D std::int32_t* folded_leaves(const device::attention_team& team, std::int32_t member) const {
    return &teams.records[team.block + member].folded[member == 0 ? 0 : 1][warp];
  }
  BI_D std::int32_t* through(const device::attention_team& team) const {
    return &teams.records[team.block].through[warp];
  }
};
inline constexpr std::int32_t attention_went_on = -1;  // done: the rows are written

// Of a warp that copies: what it has asked for, and the rows that it folds as it goes. The block has some for each warp.
template <int HeadDim>
struct attention_team_memory {
  static constexpr int width = attention_leaves_shape<HeadDim>::columns, most_asked = 32, most_rows = 16;
  alignas(128) float x[most_asked][width];
  float o[most_rows][width];
  float2 ml[most_rows];
  device::mbarrier landed;
  std::int32_t first, step, rows, shift;  // the rows; first < 0: none. Each has 2^shift of x
  std::int32_t folded;                    // partial results of the item that they have
  std::int32_t asked;                     // of a row, on their way
  std::uint32_t there, alone;             // x[i], each a bit: those that are, and those that nothing is folded into
  std::int32_t parity;                    // of landed
  // Of attention_teams_memory::runs: one that the warp has come to, the one that it was at before that, and the last one before;
  // -1: none.
  std::int32_t noted, at, before;
};
// Behind attention_leaves_memory.
template <int HeadDim>
struct attention_teams_memory {
  static constexpr int warps = attention_team_record::warps;
  attention_team_memory<HeadDim> of_warp[warps];
  device::attention_walk walks[warps];  // of warps that copy, at the runs that they are at
  device::attention_team teams[warps];  // of those runs
  std::int32_t goes_on[warps];   // whether a warp that adds up V does, with what the other block of the team has folded
  attention_leaves_run runs[2];  // of teams: that of the item that begins in the block's share, and the other one

  BI_D void init(int thread) {
    if (thread >= warps) return;
    device::mbarrier_init(&of_warp[thread].landed, 32);
    of_warp[thread].first = -1;
    of_warp[thread].parity = 0;
    of_warp[thread].noted = of_warp[thread].at = of_warp[thread].before = -1;
  }
};
template <class Contract, int HeadDim>
inline constexpr int attention_teams_ring_at = (attention_leaves_ring_at<Contract, HeadDim> +
                                                static_cast<int>(sizeof(attention_teams_memory<HeadDim>)) + 127) /
                                               128 * 128;
template <class Contract, int HeadDim>
constexpr int attention_teams_bytes(int slots) {
  return attention_teams_ring_at<Contract, HeadDim> + 2 * slots * attention_leaves_shape<HeadDim>::slot_values * 2;
}

// Of a warp that adds up V.
template <class Contract, class T, int HeadDim>
class attention_team_results {
  using shape = attention_leaves_shape<HeadDim>;
  static constexpr int width = shape::columns;
  static constexpr bool apart = attention_leaves_apart<Contract>;

 public:
  BI_D attention_team_results(const attention_split_params<T>& p, std::int32_t* goes_on, int warp)
      : p_(p), at_{p.teams, warp}, goes_on_(goes_on[warp]) {}

  // Whether the run's leaves are folded as they come; otherwise each is given away.
  BI_D bool folds(const attention_leaves_run& of) const {
    const device::attention_team& team = of.team;
    if (!apart || team.members == 1) return true;
    return team.is_in_turn() && (of.member() == 1 || goes_on_ != 0);
  }
  // Before the first leaf. o, l and m then have what another block has folded, if this one goes on with it.
  template <int Values>
  BI_D void start(const attention_leaves_run& of, int lane, float (&m)[2], float (&l)[2], float (&o)[Values]) {
    const device::attention_team& team = of.team;
    bool goes_on = apart && team.members > 1 && team.is_in_turn() && of.member() == 0;
    if (goes_on) {
      const std::int32_t done = device::load_flag(at_.done(team, 1));
      device::fence_gpu();
      goes_on = __all_sync(device::full_warp, done == team.last) != 0;
    }
    __syncwarp();  // all have left the run before
    if (lane == 0) goes_on_ = goes_on ? 1 : 0;
    __syncwarp();
    if (!goes_on) return;
    const std::int64_t place = at_.folded(team, 1);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = 8 * h + lane / 4;
      if (row >= of.rows.rows) continue;
      const float2 ml = device::load_l2(at_.ml(place, row));
      m[h] = ml.x, l[h] = ml.y;
      const float* const from = at_.o(place, row) + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < width / 8; ++j) {
        const float2 x = device::load_l2(reinterpret_cast<const float2*>(from + 8 * j));
        o[4 * j + 2 * h] = x.x, o[4 * j + 2 * h + 1] = x.y;
      }
    }
  }

  template <class Value>
  BI_D void leaf(const attention_leaves_run& of, int i, int row, int, int lane, float m, float l,
                 const Value& o) const {
    give(p_.teams.places.leaf(blockIdx.x, of.member() == 0, i), row, lane, m, l, o);
  }
  template <class Value>
  BI_D void folded(const attention_leaves_run& of, int row, int column, int lane, float m, float l,
                   const Value& o) const {
    if (of.team.members == 1 || goes_on_ != 0) {
      attention_write<Contract, shape::blocks>(p_.a, of.rows, of.walk.run.head, row, column, lane, m, l, o);
    } else {
      give(p_.teams.places.folded(blockIdx.x, of.member() == 0), row, lane, m, l, o);
    }
  }

  // Says that so many leaves of the run have been given away, or folded: what all lanes have written before is there.
  BI_D void tell_done(const attention_leaves_run& of, std::int32_t leaves, int lane) const {
    if (of.team.members == 1) return;
    __syncwarp();
    device::fence_gpu();
    if (lane == 0) device::store_flag(at_.done(of.team, of.member()), goes_on_ != 0 ? attention_went_on : leaves);
  }

 private:
  // A thread's columns of a row, 8 j + 2 t + e from the warp's first on.
  template <class Value>
  BI_D void give(std::int64_t place, int row, int lane, float m, float l, const Value& o) const {
    if (lane % 4 == 0) *at_.ml(place, row) = make_float2(m, l);
    float* const to = at_.o(place, row) + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < width / 8; ++j) *reinterpret_cast<float2*>(to + 8 * j) = make_float2(o(2 * j), o(2 * j + 1));
  }

  const attention_split_params<T>& p_;
  const attention_team_places_of_warp<HeadDim> at_;
  std::int32_t& goes_on_;
};

}  // namespace kernel
BI_NAMESPACE_END
