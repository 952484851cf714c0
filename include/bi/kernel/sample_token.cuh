// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/rounding.cuh"
#include "bi/device/value_bins.hpp"
#include "bi/kernel/sample_once.cuh"
#include "bi/kernel/sample_row.cuh"

// A row of which the first pass left one question: whether the token that scores most is kept. Two sums answer it, of what
// comes before the token and of the rest, for top-p nearly always though each weight is off by some ten-thousandths.

BI_NAMESPACE_BEGIN
namespace kernel {

// Of a thread's tokens: what those before the doubtful one and those after it weigh, or for top-k how many they are.
struct token_sums {
  float before = 0.0f, after = 0.0f;
};
template <class T>
BI_D void add_token_sums(const slot_view<T>& v, float inverse, bool of_counts, const once_state& once, token_sums& s) {
  constexpr float log2e = 0x1.715476p+0f;
  const float x = once.doubtful_x, from = mul_rn(once.max, -log2e);
  const auto weight = [&](float y) { return of_counts ? 1.0f : device::exp2_about(fma_rn(y, log2e, from)); };
  float before = 0.0f, after = 0.0f;
  unsigned equals = 0;
#pragma unroll
  for (int i = 0; i < v.values; ++i) {
    const float here = mul_rn(v.value(i), inverse), w = weight(here);
    before = add_rn(before, greater(here, x) ? w : 0.0f);
    after = add_rn(after, less(here, x) ? w : 0.0f);
    equals |= less(here, x) || greater(here, x) ? 0u : 1u << i;
  }
  // Few: by their ids.
#pragma unroll 1
  for (; equals != 0; equals &= equals - 1) {
    const bool first = v.part->first + v.place(__ffs(static_cast<int>(equals)) - 1) < contract::rank_id(once.doubtful);
    before = add_rn(before, first ? weight(x) : 0.0f);
    after = add_rn(after, first ? 0.0f : weight(x));
  }
  s.before = add_rn(s.before, before), s.after = add_rn(s.after, after);
}

// With the sums of all threads of the cluster: the row's token, if they are enough to tell.
template <class Contract>
BI_D __noinline__ once_result settle_token(const sample_plan& plan, int vocab, sample_memory& m, sample_found& now,
                                           device::cluster_exchange exchange, const token_sums mine) {
  once_state& once = m.once;
  float before, after;
  (void)float_sums_before(mine.before, once.warp, before);
  (void)float_sums_before(mine.after, once.warp, after);
  const device::message* const all = exchange.tell(bits_of(before), bits_of(after));
  before = after = 0.0f;
#pragma unroll 1
  for (int b = 0; b < exchange.blocks(); ++b) {
    before = add_rn(before, float_of(static_cast<std::uint32_t>(all[2 * b].a)));
    after = add_rn(after, float_of(static_cast<std::uint32_t>(all[2 * b].b)));
  }
  const bool of_counts = plan.top_k != 0;
  const auto bounds = device::token_bounds::top_p(plan.top_p, once.max, vocab);
  const bool kept = of_counts ? less(before, float_from_int(plan.top_k)) : bounds.keeps(before, after);
  const bool dropped = of_counts ? !kept : bounds.drops(before, after);
  std::uint64_t best = 0;
  if (kept) best = once.doubtful;
  if (dropped && contract::rank_key(once.sure) >= once.bar) best = once.sure;
  if (best != 0 && threadIdx.x == 0 && exchange.rank() == 0) now.best = best;
  return {best != 0 ? once_step::done : once_step::second_pass, exchange.state()};
}

}  // namespace kernel
BI_NAMESPACE_END
