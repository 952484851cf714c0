// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/row.cuh"
#include "bi/device/row_ring.cuh"
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
  if (atomicMax(&now.bar, score) > score) return;  // integer atomic
  // integer atomic; of 64 bits, a loop
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
    const float limit = first ? promise(v, most) : bar;
    examine_above(
        *v.part, best, limit, first, [&](float x) { return not_below(v, most, x); },
        [&](int q) { return v.place(4 * q); }, [&](int i) { return v.logit(i); });
  }
  // Quads that which(limit) names, none of whose bounds is more than `best`. `first`: by all threads of the block, and once
  // more by the bar that they have then. place(n): of quad n in the part; logit_at(place).
  template <class Which, class Place, class Logit>
  BI_D void examine_above(const device::row_part<T>& part, float best, float limit, bool first, Which which,
                          Place place, Logit logit_at) {
    unsigned done = 0;
#pragma unroll 1
    for (bool last = !first;; last = true) {
      if (__any_sync(device::full_warp, !less(best, limit))) {
        const unsigned left = which(limit) & ~done;
        done |= left;
        examine(part, left, place, logit_at);
      }
      if (last) break;
      __syncthreads();
      limit = now.bar_now();
    }
  }

  // The same, token by token: noise is rarely the most where the logit is.
  BI_D float close_bound(const view& v, int q) const {
    const auto w = words(static_cast<std::uint32_t>(v.part->first + v.place(4 * q)) / 4);
    float most = neg_inf_f32();
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      most = max_nan(most, add_rn(mul_rn(v.value(4 * q + e), inverse), device::noise_bound(w.word[e])));
    }
    return most;
  }

  // A little less than the most that any of the block's tokens promises: far enough for one of those above it to keep
  // its promise more often than not, and for few to be above. `mine`: the most that this thread's promise.
  BI_D float limit_by(float mine) const {
    const std::uint32_t of_warp = __reduce_max_sync(device::full_warp, contract::ordered_key(mine));
    if (threadIdx.x % 32 == 0) atomicMax(&now.seed, of_warp);  // integer atomic
    __syncthreads();
    return max_num(sub_rn(float_of_key(now.seed), 2.0f), now.bar_now());
  }

  // Some quads of the threads of a warp, one token a thread.
  template <class Place, class Logit>
  BI_D void examine(const device::row_part<T>& part, unsigned left, Place place, Logit logit_at) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    while (true) {
      const unsigned who = __ballot_sync(device::full_warp, left != 0);
      if (who == 0) break;
      const int mine = left != 0 ? place(__ffs(static_cast<int>(left)) - 1) : 0;
      // Four threads take the quad of the n-th thread that has one.
      unsigned rest = who;
#pragma unroll
      for (int n = 0; n < 7; ++n) rest = n < lane / 4 ? rest & (rest - 1) : rest;
      const int from = rest != 0 ? __ffs(static_cast<int>(rest)) - 1 : 0;
      const int i = __shfl_sync(device::full_warp, mine, from) + lane % 4;
      if (rest != 0 && i < part.count) {
        const float logit = logit_at(i);
        if (is_nan(logit)) now.nan = 1;
        const float x = Contract::scaled(logit, inverse);
        if constexpr (Once) {
          hope_token<Contract>(plan.words, once, now, part.first + i, x);
        } else {
          draw_token<Contract>(plan.words, cuts, now, part.first + i, x);
        }
      }
      if (__popc(who & ((1u << lane) - 1)) < 8) left &= left - 1;
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

  BI_D float promise(const view& v, const float (&most)[quads]) {
    float mine = neg_inf_f32();
    const float least = Once ? once.from : floor;
#pragma unroll
    for (int q = 0; q < quads; ++q) mine = less(quad_largest(v, q), least) ? mine : max_num(mine, most[q]);
    return limit_by(mine);
  }
};

// Whether draw_all() is for parts of so many logits: the ring has all pieces of one at once, and the row has a cluster,
// as few rows have, for it draws where slot_draw need not: in pieces whose logits are all far below the first one's.
template <class T>
BI_HD constexpr bool draws_all(int part, int slots, int cluster) {
  constexpr int slot_elements = device::row_ring<T>::slot_elements;
  const int pieces = part / slot_elements + (part % slot_elements != 0 ? 1 : 0);
  return pieces * slot_view<T>::quads <= 32 && (slots == 0 || (cluster > 1 && pieces <= slots));
}
// A draw with no cuts from all of a part, for the plan and to the result of `half`; the caller ends the ring's steps. A
// turn of tokens that are examined takes longer than the bounds of a piece, so the bounds of all pieces come first, and
// then the tokens, in one turn nearly always. Not inlined, which would cost other rows registers.
template <class Contract, class T>
BI_D __noinline__ void draw_all(const device::row_part<T>& part, const device::row_ring<T> ring, sample_memory& m,
                                int half) {
  using view = slot_view<T>;
  constexpr int slot_elements = device::row_ring<T>::slot_elements;
  // Half a piece at a time.
  constexpr int words = slot_words / 2, step = words * sample_threads * view::width, each = view::quads / 2;
  const int thread = static_cast<int>(threadIdx.x), warp_first = thread / 32 * 32 * view::width;
  static_assert(32 * sample_threads * sizeof(float) <= sizeof m.counts, "room for the bounds of 32 quads a thread");
  float* const bounds = reinterpret_cast<float*>(m.counts) + thread;
  sample_found& now = m.now[half];
  slot_draw<Contract, T> draw(m.plan[half], nullptr, now, m.once);
  view v;
  v.part = &part;
  v.copied = ring.copies() ? ring.copied() : 0;
  const auto go_to = [&](int begin) {
    const int piece = begin / slot_elements;
    v.begin = begin;
    v.slot = ring.copies() ? ring.wait(piece) + (begin - piece * slot_elements) : nullptr;
  };
  float best = neg_inf_f32(), promised = neg_inf_f32();
  int count = 0;  // quads
#pragma unroll 1
  for (int begin = 0; begin + warp_first < part.count; begin += step) {
    go_to(begin);
    v.template load<words>();
#pragma unroll
    for (int q = 0; q < each; ++q) {
      const float most = draw.close_bound(v, q);
      bounds[(count + q) * sample_threads] = most;
      best = max_nan(best, most);  // a NaN is not less than anything: its quad is examined
      promised = max_num(promised, most);
    }
    count += each;
  }
  const auto which = [&](float limit) {
    unsigned left = 0;
#pragma unroll 1
    for (int at = 0; at < count; at += each) {
#pragma unroll
      for (int q = 0; q < each; ++q) left |= less(bounds[(at + q) * sample_threads], limit) ? 0u : 1u << (at + q);
    }
    return left;
  };
  const auto place = [&](int quad) {
    v.begin = quad / each * step;
    return v.place(4 * (quad % each));
  };
  const auto logit = [&](int i) {
    go_to(i / step * step);
    return v.logit(i);
  };
  draw.examine_above(part, best, draw.limit_by(promised), true, which, place, logit);
}

}  // namespace kernel
BI_NAMESPACE_END
