// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/row.cuh"
#include "bi/kernel/sample_row.cuh"

// The largest x + noise of the tokens that the cuts leave. Random words take some 40 instructions for four tokens,
// noise some 80 for one; so noise is computed only where device::noise_bound doesn't show that the token stays below a
// score that the thread block has found. After the first few thousand tokens hardly any is left: of n equal ones, the
// n-th wins with probability 1 / n.

BI_NAMESPACE_BEGIN
namespace kernel {

// Token `id`, whose scaled logit is x, for certain. `cuts` is null where there are none. Rare, so it is not inlined, and
// takes what it can from shared memory.
template <class Contract>
BI_D __noinline__ void draw_token(const device::row_words& words, const sample_cuts* cuts, sample_found& now, int id,
                                  float x) {
  const auto w = words(static_cast<std::uint32_t>(id) / 4);
  const std::uint32_t low = id % 2 == 0 ? w.word[0] : w.word[1], high = id % 2 == 0 ? w.word[2] : w.word[3];
  const std::uint32_t word = id % 4 < 2 ? low : high;
  if (less(add_rn(x, device::noise_bound(word)), now.bar_now())) return;
  if (cuts != nullptr && !cuts->template keeps<Contract>(x, id)) return;
  const std::uint32_t score = contract::ordered_key(add_rn(x, contract::gumbel_noise(word)));
  atomicMax(&now.bar, score);  // integer atomic
  // integer atomic
  atomicMax(reinterpret_cast<unsigned long long*>(&now.best),
            static_cast<unsigned long long>(contract::candidate_rank(score, id)));
}

// The same of a row of which it is not known yet what is kept: lists the token, unless one that is probably kept scores
// more.
template <class Contract>
BI_D __noinline__ void hope_token(const device::row_words& words, once_state& once, sample_found& now, int id,
                                  float x) {
  const auto w = words(static_cast<std::uint32_t>(id) / 4);
  const std::uint32_t low = id % 2 == 0 ? w.word[0] : w.word[1], high = id % 2 == 0 ? w.word[2] : w.word[3];
  const std::uint32_t word = id % 4 < 2 ? low : high;
  const float bar = now.bar_now();
  if (less(add_rn(x, device::noise_bound(word)), bar)) return;
  const float score = add_rn(x, contract::gumbel_noise(word));
  if (less(score, bar)) return;
  const std::uint32_t key = contract::ordered_key(score);
  const std::uint32_t place = atomicAdd(&once.listed, 1u);  // integer atomic: the list's order is free
  if (place < sample_most_hopeful) {
    once.rank[place] = contract::candidate_rank(key, id);
    once.x[place] = x;
  }
  if (!less(x, once.from)) atomicMax(&now.bar, key);  // integer atomic
}

// `Once`: of such a row.
template <class Contract, class T, bool Once = false>
struct slot_draw {
  using view = slot_view<T>;
  static constexpr int quads = view::quads;

  const sample_plan& plan;  // in shared memory, as the others
  const sample_cuts* cuts;  // null: none
  sample_found& now;
  once_state& once;
  device::row_words words;
  float inverse, floor;

  BI_D slot_draw(const sample_plan& p, const sample_cuts* c, sample_found& found, once_state& o)
      : plan(p),
        cuts(c),
        now(found),
        once(o),
        words(p.words.in_warp()),
        inverse(p.inverse),
        floor(c != nullptr ? c->floor : neg_inf_f32()) {}

  // What the threads of a warp have of a piece. `first`: it is the first piece; then all threads of the block.
  BI_D void take(const view& v, bool first) {
    const float bar = now.bar_now();
    float most[quads], largest = neg_inf_f32();
#pragma unroll
    for (int q = 0; q < quads; ++q) {
      most[q] = quad_largest(v, q);
      largest = max_nan(largest, most[q]);
    }
    // A NaN is not less than anything: its quad is examined.
    const bool any = first || !(less(largest, floor) || less(add_rn(largest, device::most_noise), bar));
    if (!__any_sync(device::full_warp, any)) return;
#pragma unroll
    for (int q = 0; q < quads; ++q) most[q] = bound(v, q);
    examine_best(v, first, bar, most);
  }
  // No token of a quad scores more.
  BI_D float bound(const view& v, int q) const {
    const auto w = words(static_cast<std::uint32_t>(v.part->first + v.place(4 * q)) / 4);
    const std::uint32_t a = w.word[0] < w.word[1] ? w.word[0] : w.word[1];
    const std::uint32_t b = w.word[2] < w.word[3] ? w.word[2] : w.word[3];
    return add_rn(quad_largest(v, q), device::noise_bound(a < b ? a : b));
  }
  // The rest of take(), with the quads' bounds and the bar.
  BI_D void examine_best(const view& v, bool first, float bar, const float (&most)[quads]) {
    float best = neg_inf_f32();
#pragma unroll
    for (int q = 0; q < quads; ++q) best = max_nan(best, most[q]);
    // At first there is no bar yet: the tokens that promise most make one.
    float limit = first ? promise(v, most) : bar;
    unsigned done = 0;
#pragma unroll 1
    for (bool last = !first;; last = true) {
      if (__any_sync(device::full_warp, !less(best, limit))) {
        const unsigned left = not_below(v, most, limit) & ~done;
        done |= left;
        examine(v, left);
      }
      if (last) break;
      __syncthreads();
      limit = now.bar_now();
    }
  }

 private:
  BI_D float quad_largest(const view& v, int q) const {
    float x = mul_rn(v.value(4 * q), inverse);
#pragma unroll
    for (int e = 1; e < 4; ++e) x = max_nan(x, mul_rn(v.value(4 * q + e), inverse));
    return x;
  }
  BI_D unsigned not_below(const view& v, const float (&most)[quads], float limit) const {
    unsigned which = 0;
#pragma unroll
    for (int q = 0; q < quads; ++q) which |= less(most[q], limit) || less(quad_largest(v, q), floor) ? 0u : 1u << q;
    return which;
  }

  // A little less than the most that any of the block's tokens promises: far enough for one of those above it to keep
  // its promise more often than not, and for few to be above.
  BI_D float promise(const view& v, const float (&most)[quads]) {
    float mine = neg_inf_f32();
    const float least = Once ? once.from : floor;
#pragma unroll
    for (int q = 0; q < quads; ++q) mine = less(quad_largest(v, q), least) ? mine : max_num(mine, most[q]);
    const std::uint32_t of_warp = __reduce_max_sync(device::full_warp, contract::ordered_key(mine));
    if (threadIdx.x % 32 == 0) atomicMax(&now.seed, of_warp);  // integer atomic
    __syncthreads();
    return max_num(sub_rn(float_of_key(now.seed), 2.0f), now.bar_now());
  }

  // Some quads of the threads of a warp, one token a thread.
  BI_D void examine(const view& v, unsigned left) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    while (true) {
      const unsigned who = __ballot_sync(device::full_warp, left != 0);
      if (who == 0) break;
      const int mine = left != 0 ? v.place(4 * (__ffs(static_cast<int>(left)) - 1)) : 0;
      // Four threads take the quad of the n-th thread that has one.
      unsigned rest = who;
#pragma unroll
      for (int n = 0; n < 7; ++n) rest = n < lane / 4 ? rest & (rest - 1) : rest;
      const int from = rest != 0 ? __ffs(static_cast<int>(rest)) - 1 : 0;
      const int i = __shfl_sync(device::full_warp, mine, from) + lane % 4;
      if (rest != 0 && i < v.part->count) {
        const float logit = v.logit(i);
        if (is_nan(logit)) now.nan = 1;
        const float x = Contract::scaled(logit, inverse);
        if constexpr (Once) {
          hope_token<Contract>(plan.words, once, now, v.part->first + i, x);
        } else {
          draw_token<Contract>(plan.words, cuts, now, v.part->first + i, x);
        }
      }
      if (__popc(who & ((1u << lane) - 1)) < 8) left &= left - 1;
    }
  }
};

}  // namespace kernel
BI_NAMESPACE_END
