// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/store.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_fold_list.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Folds what attention_leaves.cuh or attention_split.cuh left in the workspace, for the items that were cut: the first part,
// which is folded already, then leaf after leaf. A team of warps has 32 columns of a row, a thread a column; each warp has a
// section of 32 partial results, and asks for all of them at once. Factors come from a scan of the maxima, which is exact,
// a partial result's by one thread. All that is left for the warps' turns is an fma a partial result, the team's sections one
// after the other.
//
// What was cut the kernel before says in its records. Nearly always they are there long before that kernel ends, or are those
// of the call before. So a block reads them ahead of its wait and works out where its partial results lie. After the wait it
// asks for those at once, and for the records again; if they say otherwise, it begins anew.

BI_NAMESPACE_BEGIN
namespace kernel {

// The thread's column of a row, as its block's unit has it.
template <class Contract, class T, int HeadDim, class Threads = attention_fold_block>
class attention_fold_row {
  static constexpr int section = attention_fold_section, group = 4;  // what is read 16 bytes at a time
  static constexpr int slices = HeadDim / attention_fold_columns;

 public:
  BI_D attention_fold_row(const attention_fold_params<T>& p, attention_fold_memory& memory) : p_(p), memory_(memory) {}

  // Works out what the thread has to do, and where the first partial results lie.
  BI_D void aim() {
    const device::attention_cut& cut = memory_.cuts[memory_.found[0]];
    const std::int64_t parts = attention_fold_parts<Contract>(cut, p_.blocks);
    team_ = attention_fold_team(parts, p_.one_each);
    turn_ = warp_ % team_;
    const int pair = memory_.found[1] * (attention_fold_warps / team_) + warp_ / team_;
    const int row = pair / slices;
    const int column = pair % slices * attention_fold_columns;
    first_ = end_ = 0;
    const device::attention_row_tile rows =
        device::attention_request_rows(p_.a.batch, cut.request, cut.first_row, cut.end_row);
    T* out = nullptr;
    float* lse = nullptr;
    if (row < rows.rows) {
      const std::int64_t token = rows.first_row + rows.token(row),
                         head = std::int64_t{cut.head} * rows.group + rows.head(row);
      if (p_.a.lse != nullptr && column == 0) lse = p_.a.lse + token * p_.a.lse_token_stride + head;
      out = p_.a.out + token * p_.a.out_token_stride + head * p_.a.out_head_stride + column;
      find_parts(cut, rows, row, static_cast<int>(parts));
    }
    if (lane_ == 0) {
      memory_.row[warp_] = row;
      memory_.column[warp_] = column;
      memory_.sections[warp_] = (static_cast<int>(parts) + section - 1) / section;
      memory_.out[warp_] = out;
      memory_.lse[warp_] = lse;
      memory_.stays[warp_] =
          device::attention_stays(device::attention_divide(cut.total, p_.blocks), rows.rows, HeadDim);
    }
    __syncwarp();
    m_ = neg_inf_f32();
  }

  // Where the warp's partial results of a round lie, as rows of all places.
  BI_D void find_section(int round) {
    const device::attention_cut& cut = memory_.cuts[memory_.found[0]];
    const attention_partials& partials = p_.partials;
    begin_ = first_ + (round * team_ + turn_) * section;
    count_ = end_ - begin_ < section ? end_ - begin_ : section;
    const std::int64_t i = begin_ + lane_;
    std::int64_t of = 0;  // where there is none, anything that can be read
    if (lane_ < count_) {
      const device::attention_shares shares(cut.total, p_.blocks);
      of = partials.places.folded(cut.block);
      if (!attention_leaves_apart<Contract> && i > 0) {
        of = partials.places.leaf(cut.block + i, 0);
      } else if (i > 0) {
        const std::int64_t leaf = cut.first + i - 1, owner = shares.block_of(leaf);
        of = partials.places.leaf(owner, leaf - shares.begin(owner));
      }
      if (of < 0 || of >= partials.places.folded(p_.blocks)) of = 0;  // what a wrong guess may say
    }
    memory_.at[warp_][lane_] =
        static_cast<std::uint32_t>(of * partials.rows + (lane_ < count_ ? memory_.row[warp_] : 0));
    __syncwarp();
  }

  // Asks for the warp's section of a round.
  BI_D void start() {
    const attention_partials& partials = p_.partials;
    ml_ = make_float2(neg_inf_f32(), -0.0f);
    if (lane_ < count_) ml_ = device::load_l2(reinterpret_cast<const float2*>(partials.ml) + memory_.at[warp_][lane_]);
    __syncwarp();  // that load is the first whose answer is needed
    const float* const from = device::opaque(partials.o + memory_.column[warp_] + lane_);
    const auto load = [&](std::uint32_t row) { return device::load_l2_in_order(from + std::int64_t{row} * HeadDim); };
#pragma unroll
    for (int i = 0; i < section; i += group) {
      const uint4 at = *reinterpret_cast<const uint4*>(&memory_.at[warp_][i]);
      const auto take = [&](int j, std::uint32_t row) {
        o_[j] = -0.0f;
        if (j < count_) o_[j] = load(row);
      };
      take(i, at.x), take(i + 1, at.y), take(i + 2, at.z), take(i + 3, at.w);
    }
  }

  // Folds what start() asked for, and writes the row if that was the last. Says whether there are more rounds.
  BI_D bool fold(int round) {
    make_factors();
    if (memory_.stays[warp_]) drop();
    const int sections = memory_.sections[warp_] - round * team_;
    for (int turn = 0; turn < team_ && turn < sections; ++turn) {
      if (turn == turn_) take_turn();
      if (turn + 1 < team_ && turn + 1 < sections) Threads::meet();
    }
    return sections > team_;
  }

 private:
  // Of `parts` partial results, 0 the folded part, i > 0 leaf i - 1 after it, those of leaves that the row sees.
  BI_D void find_parts(const device::attention_cut& cut, const device::attention_row_tile& rows, int row, int parts) {
    const std::int64_t len = cut.len > 0 ? cut.len : 0;
    const contract::attention_range seen =
        Contract::visible(p_.a.causal, len, rows.q_len, rows.token(row), p_.a.window);
    if (seen.lo >= seen.see) return;
    if constexpr (attention_leaves_apart<Contract>) {
      const std::int64_t before =
          device::make_attention_item<Contract>(rows, cut.len, p_.a.causal, p_.a.window).first_leaf + cut.count - 1;
      const std::int64_t first = Contract::first_leaf(seen.lo) - before, end = Contract::end_leaf(seen.see) - before;
      first_ = first < 0 ? 0 : static_cast<int>(first);
      end_ = end < 1 ? 1 : static_cast<int>(end);
    } else {
      end_ = parts;
    }
  }

  // Factors of 1 leave a value as it is that is folded into -0, and another one that -0 is folded into.
  BI_D void make_factors() {
    float to = ml_.x;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const float below = __shfl_up_sync(device::full_warp, to, d);
      if (lane_ >= d) to = max_nan(below, to);
    }
    if (lane_ == 31) memory_.tops[warp_] = to;
    if (team_ > 1) Threads::meet();
    __syncwarp();
    float before = m_;
#pragma unroll
    for (int w = 0; w < attention_fold_warps; ++w) {
      const float top = memory_.tops[warp_ - turn_ + (w < team_ ? w : 0)];
      before = w < turn_ ? max_nan(before, top) : before;
      m_ = max_nan(m_, top);
    }
    const float below = __shfl_up_sync(device::full_warp, to, 1);
    if (lane_ > 0) before = max_nan(before, below);
    const contract::attention_fold f = Contract::fold(before, ml_.x);
    const bool alone = lane_ >= count_ || begin_ + lane_ == first_;
    const float own = alone ? 1.0f : f.b;
    memory_.a[warp_][lane_] = alone ? 1.0f : f.a;
    memory_.b[warp_][lane_] = own;
    memory_.l[warp_][lane_] = mul_rn(ml_.y, own);
    __syncwarp();
    // The contract's fold_value in two steps: these products wait for no other partial result.
#pragma unroll
    for (int i = 0; i < section; i += group) {
      const float4 b = *reinterpret_cast<const float4*>(&memory_.b[warp_][i]);
      o_[i] = mul_rn(o_[i], b.x), o_[i + 1] = mul_rn(o_[i + 1], b.y);
      o_[i + 2] = mul_rn(o_[i + 2], b.z), o_[i + 3] = mul_rn(o_[i + 3], b.w);
    }
  }

  // What the section has read nobody reads again, and it need not go to memory. A line is a warp's columns of a row.
  BI_D void drop() const {
    static_assert(attention_fold_columns * sizeof(float) == 128, "columns fill a line");
    if (lane_ >= count_) return;
    device::discard_line(p_.partials.o + std::int64_t{memory_.at[warp_][lane_]} * HeadDim + memory_.column[warp_]);
  }

  BI_D void take_turn() {
    const bool sees_nothing = first_ >= end_;
    if (count_ <= 0 && !(sees_nothing && turn_ == 0)) return;
    float2& folded = memory_.folded[warp_ - turn_][lane_];
    float o = -0.0f, l = -0.0f;
    if (begin_ > first_) o = folded.x, l = folded.y;
#pragma unroll
    for (int i = 0; i < section; i += group) {
      const float4 a = *reinterpret_cast<const float4*>(&memory_.a[warp_][i]);
      const float4 more = *reinterpret_cast<const float4*>(&memory_.l[warp_][i]);
      o = fma_rn(o, a.x, o_[i]), l = fma_rn(l, a.x, more.x);
      o = fma_rn(o, a.y, o_[i + 1]), l = fma_rn(l, a.y, more.y);
      o = fma_rn(o, a.z, o_[i + 2]), l = fma_rn(l, a.z, more.z);
      o = fma_rn(o, a.w, o_[i + 3]), l = fma_rn(l, a.w, more.w);
    }
    folded = make_float2(o, l);
    T* const out = static_cast<T*>(memory_.out[warp_]);
    if (begin_ + count_ < end_ || out == nullptr) return;
    if (sees_nothing) l = o = 0.0f;
    if (memory_.lse[warp_] != nullptr && lane_ == 0) *memory_.lse[warp_] = Contract::lse(m_, l);
    out[lane_] = Contract::template finish<T>(o, l, Contract::inverse(l));
  }

  const attention_fold_params<T>& p_;
  attention_fold_memory& memory_;
  const int warp_ = Threads::thread() / 32, lane_ = Threads::thread() % 32;
  int team_ = 1, turn_ = 0;    // warps of the team, and which of them the thread's is
  int first_ = 0, end_ = 0;    // the row's partial results
  int begin_ = 0, count_ = 0;  // of the warp's section; no more if count_ <= 0
  float m_ = 0.0f;             // the largest of the rounds so far
  float2 ml_;                  // the thread's of the section
  float o_[section];           // the column's of the section
};

// What there is of units first, after(first), and so on; where Threads take units one after the other, the first one is after(first),
// too, which is known after the wait only, and first < 0. wait() waits for those who leave partial results, and says whether there is
// anything to do then.
template <class Contract, class T, int HeadDim, class Threads = attention_fold_block, class After, class Wait>
BI_D void attention_fold_units(const attention_fold_params<T>& p, attention_fold_memory& memory, int first,
                               const After& after, const Wait& wait) {
  attention_fold_list<Contract, T, HeadDim, Threads> list(p, memory);
  attention_fold_row<Contract, T, HeadDim, Threads> row(p, memory);
  enum { guess, anew, sure } records = guess;
  int unit = first, round = 0;
  for (;;) {
    if (records != sure) list.read();
    if (Threads::takes && unit < 0) {
      if (!wait()) return;
      unit = after(unit);
      records = Threads::any(!list.is_same()) ? anew : sure;
      continue;
    }
    bool has = true;
    if (round == 0) {
      has = list.find(unit);
      if (has) row.aim();
    }
    if (has) row.find_section(round);
    if (records == guess && !wait()) return;
    if (has) row.start();
    if (records == guess && Threads::any(!list.is_same())) {
      records = anew;
      continue;
    }
    records = sure;
    if (!has) return;
    const bool more = row.fold(round);
    if (!more && p.one_each) return;  // the next call's kernel waits
    round = more ? round + 1 : 0;
    Threads::meet();  // all have left what memory says of the round
    if (!more) unit = after(unit);
  }
}

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_fold_threads,
                            3) void attention_fold_kernel([[maybe_unused]] const attention_fold_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900  // no launcher asks others for it
  __shared__ __align__(16) unsigned char shared[sizeof(attention_fold_memory)];
  device::launch_dependents();  // the next call's kernel waits for the end of this one
  attention_fold_units<Contract, T, HeadDim>(
      p, *reinterpret_cast<attention_fold_memory*>(shared), static_cast<int>(blockIdx.x),
      [](int unit) { return unit + static_cast<int>(gridDim.x); },
      [] {
        device::wait_for_dependencies();
        return true;
      });
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
