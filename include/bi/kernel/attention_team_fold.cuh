// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cp_async.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"
#include "bi/kernel/attention_team.cuh"

// How the warps of attention_leaves.cuh that copy fold what teams have left: attention_team.cuh.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class Contract, class T, int HeadDim>
class attention_team_fold {
  using memory_type = attention_team_memory<HeadDim>;
  static constexpr int width = memory_type::width, most_asked = memory_type::most_asked;
  static constexpr bool apart = attention_leaves_apart<Contract>;
  static_assert(most_asked == 32, "a lane has what follows for one of them");

 public:
  BI_D attention_team_fold(const attention_split_params<T>& p, memory_type& memory, int warp, int lane)
      : p_(p), memory_(memory), at_{p.teams, warp}, lane_(lane) {}

  // At a run of a team; the block folds as it goes in one of its runs at most.
  BI_D void start(const attention_leaves_run& of) {
    const device::attention_team& team = of.team;
    std::int32_t q = -1;
    if (apart && !team.is_in_turn() && team.members <= device::attention_team::most_members) {
      q = team.number_of(of.member());
    }
    take_rows(of, q < of.rows.rows ? q : -1, team.owners(), 0);
  }
  // Once a leaf: folds what was asked for, and asks for what has come since. At the end, when the block has copied all that it
  // has to, of each run of a team: what is left. is_own: it was the last to start.
  BI_D void go_on(const attention_leaves_run& of, bool at_end, bool is_own) {
    const device::attention_team& team = of.team;
    const std::int32_t entries = apart ? team.leaves : team.members;
    if (at_end ? !wait_for_own(of) : memory_.first < 0) return;
    if (!is_own) take_rows(of, -1, 1, 0);
    int mode = at_end ? at_last : as_it_comes, vain = 0;
#pragma unroll 1
    for (int row = 0;;) {
      if (memory_.first >= 0) {
        take();
        if (mode == as_it_comes || (memory_.folded < entries && vain <= attempts)) {
          if (mode == at_last) look(team);
          device::fence_gpu();
          ask(of, mode == for_others ? entries : ready(team));
          if (mode == as_it_comes) {
            look(team);
            return;
          }
          // The others are about to be through, too: what they then do at once nobody has to do for them.
          vain = memory_.asked == 0 ? vain + 1 : 0;
          continue;
        }
        give_rows(of, entries);
      }
      if (mode == at_last) {
        if (!is_last(of)) return;
        mode = for_others;
      }
      // The rows whose owners have not folded all leaves.
      do {
        if (row == of.rows.rows) return;
      } while (!resume(of, row++, entries));
    }
  }

 private:
  static constexpr int attempts = 50;  // of which nothing comes
  enum { as_it_comes, at_last, for_others };

  // For what the block's own warps give away or fold in a run; they do not wait for this one. False: they have written the rows.
  BI_D bool wait_for_own(const attention_leaves_run& of) const {
    std::int32_t done;
    do done = device::load_flag(at_.done(of.team, of.member()));
    while (done != of.walk.run.count && done != attention_went_on);
    device::fence_gpu();
    return __any_sync(device::full_warp, done == attention_went_on) == 0;
  }

  // Rows from `first` on, each `step` after the one before, which have so many partial results; lanes are dealt out to them
  // evenly. first < 0: none.
  BI_D void take_rows(const attention_leaves_run& of, int first, int step, std::int32_t folded) {
    __syncwarp();  // all have left the ones before
    const int rows = first < 0 ? 0 : (of.rows.rows - first + step - 1) / step;
    int shift = 5;
    while (most_asked >> shift < rows) --shift;
    if (lane_ == 0) {
      memory_.first = first, memory_.step = step, memory_.rows = rows, memory_.shift = shift;
      memory_.folded = folded, memory_.asked = 0;
    }
    for (int r = 0; r < rows; ++r) {
      if (lane_ == r) memory_.ml[r] = make_float2(neg_inf_f32(), -0.0f);
      if (lane_ < width) memory_.o[r][lane_] = -0.0f;
    }
    seen_ = 0;
    __syncwarp();
  }

  BI_D std::int64_t place_of(const device::attention_team& team, std::int32_t entry) const {
    if (!apart) return at_.folded(team, entry);
    std::int32_t i = 0;
    const std::int32_t member = team.find(entry, i);
    return p_.teams.places.leaf(team.block + member, member == 0, i);
  }

  // Lane i looks what member i has done.
  BI_D void look(const device::attention_team& team) {
    seen_ = lane_ < team.members ? device::load_flag(at_.done(team, lane_)) : 0;
  }
  // Up to which leaf all are there.
  BI_D std::int32_t ready(const device::attention_team& team) const {
    std::int32_t missing = team.leaves;
    if (lane_ < team.members && seen_ < team.count(lane_)) missing = team.leaf(lane_, seen_);
    return __reduce_min_sync(device::full_warp, missing);
  }

  // Asks for the partial results that follow, `to` at most.
  BI_D void ask(const attention_leaves_run& of, std::int32_t to) {
    const int shift = memory_.shift, each = 1 << shift;
    const std::int32_t folded = memory_.folded, most = to - folded < each ? to - folded : each,
                       asked = most > 0 ? most : 0;
    // Lane i has what follows for x[i], of row i / each.
    const int row = memory_.first + (lane_ >> shift) * memory_.step, i = lane_ & (each - 1);
    const std::int32_t entry = folded + i;
    bool has = row < of.rows.rows && i < asked, alone = true;
    if (has) {
      const contract::attention_range seen = attention_row_range<Contract>(p_.a, of.rows, of.len, row);
      has = seen.lo < seen.see;
      alone = entry == 0;
      if (apart) {
        const std::int64_t begin = Contract::first_leaf(seen.lo) - of.item.first_leaf,
                           end = Contract::end_leaf(seen.see) - of.item.first_leaf;
        has = has && begin <= entry && entry < end;
        alone = entry == begin;
      }
    }
    const std::uint32_t there = __ballot_sync(device::full_warp, has),
                        nothing = __ballot_sync(device::full_warp, !has || alone);
    __syncwarp();  // all have read what is written now
    if (lane_ == 0) memory_.asked = asked, memory_.there = there, memory_.alone = nothing;
    __syncwarp();
    if (asked == 0) return;
    const std::int64_t place = place_of(of.team, has ? entry : folded);
    ml_ = make_float2(neg_inf_f32(), -0.0f);
    if (has) ml_ = device::load_l2(at_.ml(place, row));
    const auto own = reinterpret_cast<unsigned long long>(at_.o(place, has ? row : 0));
    constexpr int chunks = width * 4 / 16, at_once = 32 / chunks;
#pragma unroll 1
    for (int j = lane_ / chunks; j < most_asked; j += at_once) {
      const auto* const from = reinterpret_cast<const float*>(__shfl_sync(device::full_warp, own, j));
      if ((there >> j & 1) != 0) device::cp_async_16(&memory_.x[j][lane_ % chunks * 4], from + lane_ % chunks * 4, 16);
    }
    device::mbarrier_arrive_copied(&memory_.landed);
  }

  // Folds what was asked for.
  BI_D void take() {
    const std::int32_t asked = memory_.asked;
    if (asked == 0) return;
    const int shift = memory_.shift, each = 1 << shift, r = lane_ >> shift, i = lane_ & (each - 1), rows = memory_.rows;
    const std::uint32_t there = memory_.there;
    const float2 state = memory_.ml[r < rows ? r : 0];
    float to = ml_.x;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const float below = __shfl_up_sync(device::full_warp, to, d);
      if (i >= d) to = max_nan(below, to);
    }
    float before = state.x;
    const float below = __shfl_up_sync(device::full_warp, to, 1);
    if (i > 0) before = max_nan(before, below);
    // Factors of 1 leave a value as it is that is folded into -0, and another one that -0 is folded into.
    const contract::attention_fold f = Contract::fold(before, ml_.x);
    const bool alone = (memory_.alone >> lane_ & 1) != 0;
    const float a = alone ? 1.0f : f.a, b = alone ? 1.0f : f.b, more = mul_rn(ml_.y, b);
    const float m = max_nan(state.x, __shfl_sync(device::full_warp, to, lane_ | (each - 1)));
    float l = state.y;
#pragma unroll 1
    for (int j = 0; j < asked; ++j) {
      const int from = lane_ - i + j;
      l = fma_rn(l, __shfl_sync(device::full_warp, a, from), __shfl_sync(device::full_warp, more, from));
    }
    device::mbarrier_wait(device::shared_address(&memory_.landed), memory_.parity);
    const int column = lane_ < width ? lane_ : 0;
#pragma unroll 1
    for (int n = 0; n < rows; ++n) {
      float o = memory_.o[n][column];
#pragma unroll 4
      for (int j = 0; j < asked; ++j) {
        const int from = (n << shift) + j;
        const float x = (there >> from & 1) != 0 ? memory_.x[from][column] : -0.0f;
        o = fma_rn(o, __shfl_sync(device::full_warp, a, from), mul_rn(x, __shfl_sync(device::full_warp, b, from)));
      }
      if (lane_ < width) memory_.o[n][lane_] = o;
    }
    __syncwarp();  // all have read what is written now
    if (i == 0 && r < rows) memory_.ml[r] = make_float2(m, l);
    if (lane_ == 0) memory_.folded += asked, memory_.asked = 0, memory_.parity ^= 1;
    __syncwarp();
  }

  // Rows that all leaves are folded into are written, others are left to whoever is through last.
  BI_D void give_rows(const attention_leaves_run& of, std::int32_t entries) const {
    const std::int64_t state = at_.folded(of.team, of.member());
#pragma unroll 1
    for (int r = 0; r < memory_.rows; ++r) {
      const int row = memory_.first + r * memory_.step;
      const float2 ml = memory_.ml[r];
      const float o = memory_.o[r][lane_ < width ? lane_ : 0];
      if (memory_.folded == entries) {
        write_row(of, row, ml.x, ml.y, o);
      } else {
        if (lane_ < width) at_.o(state, row)[lane_] = o;
        if (lane_ == 0) *at_.ml(state, row) = ml;
      }
    }
  }

  // Whether all others of the team are through; what this one has folded they find.
  BI_D bool is_last(const attention_leaves_run& of) const {
    const device::attention_team& team = of.team;
    const std::int32_t member = of.member();
    std::int32_t through = 0;
    __syncwarp();  // all have written
    if (lane_ == 0) {
      const bool gave = apart && team.is_in_turn() && member == 1;  // all that it has
      *at_.folded_leaves(team, member) = gave                 ? static_cast<std::int32_t>(of.walk.run.count)
                                         : memory_.first >= 0 ? memory_.folded
                                                              : 0;
      through = device::add_acquire_release(at_.through(team), 1);
    }
    through = __shfl_sync(device::full_warp, through, 0);
    __syncwarp();
    return through + 1 == team.members;
  }
  // When all are through: takes a row as its owner has left it, if that is not all.
  BI_D bool resume(const attention_leaves_run& of, int row, std::int32_t entries) {
    const device::attention_team& team = of.team;
    const std::int32_t whose = apart ? team.owner(row % team.owners()) : 0;
    const std::int32_t from = apart ? device::load_l2(at_.folded_leaves(team, whose)) : 0;
    if (from == entries) return false;
    take_rows(of, row, of.rows.rows, from);
    // Of leaves that the row does not see, what is left is no -0.
    const contract::attention_range seen = attention_row_range<Contract>(p_.a, of.rows, of.len, row);
    if (from == 0 || Contract::first_leaf(seen.lo) - of.item.first_leaf >= from) return true;
    const std::int64_t state = at_.folded(team, whose);
    if (lane_ == 0) memory_.ml[0] = device::load_l2(at_.ml(state, row));
    if (lane_ < width) memory_.o[0][lane_] = device::load_l2_in_order(at_.o(state, row) + lane_);
    __syncwarp();
    return true;
  }

  BI_D void write_row(const attention_leaves_run& of, int row, float m, float l, float o) const {
    const contract::attention_range seen = attention_row_range<Contract>(p_.a, of.rows, of.len, row);
    if (seen.lo >= seen.see) l = o = 0.0f;
    const std::int64_t token = of.rows.first_row + of.rows.token(row),
                       head = of.walk.run.head * of.rows.group + of.rows.head(row);
    if (p_.a.lse != nullptr && at_.warp == 0 && lane_ == 0) {
      p_.a.lse[token * p_.a.lse_token_stride + head] = Contract::lse(m, l);
    }
    if (lane_ < width) {
      p_.a.out[token * p_.a.out_token_stride + head * p_.a.out_head_stride + at_.warp * width + lane_] =
          Contract::template finish<T>(o, l, Contract::inverse(l));
    }
  }

  const attention_split_params<T>& p_;
  memory_type& memory_;
  const attention_team_places_of_warp<HeadDim> at_;
  const int lane_;
  std::int32_t seen_ = 0;  // what member `lane` of the team had done
  float2 ml_;              // lane i: m and l of x[i]
};

}  // namespace kernel
BI_NAMESPACE_END
