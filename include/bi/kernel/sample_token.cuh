// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/bulk.cuh"
#include "bi/device/ptx/rounding.cuh"
#include "bi/device/value_bins.hpp"
#include "bi/kernel/sample_once.cuh"
#include "bi/kernel/sample_row.cuh"

// A row of which the first pass left a question: whether the token that scores most is kept. Two sums answer it, of what
// comes before the token and of the rest, for top-p nearly always though each weight is off by some ten-thousandths.

BI_NAMESPACE_BEGIN
namespace kernel {

// Of a thread's tokens: what those before the doubtful one and those after it weigh, or for top-k how many they are.
struct token_sums {
  float before = 0.0f, after = 0.0f;
};

// The part once more, from global memory, which is faster than a ring where few thread blocks are left.
template <bool OfCounts, class T>
BI_D __noinline__ token_sums sum_part(const device::row_part<T> part, float inverse, const once_state& once) {
  constexpr float log2e = 0x1.715476p+0f;
  constexpr int width = device::row_part<T>::width, words = 32 / width, step = sample_threads * width;
  const int thread = static_cast<int>(threadIdx.x);
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  // By the copy engine: the threads' own loads would wait behind as many prefetches.
  const int all = part.count / width, share = (all + 31) / 32, first = share * thread;
  if (part.aligned && thread < 32 && first < all) {
    device::prefetch_bulk(part.x + first * width, 16 * (all - first < share ? all - first : share));
  }
#endif
  const float x = once.doubtful_x, from = mul_rn(once.max, -log2e);
  const int id = contract::rank_id(once.doubtful) - part.first;
  const auto weight = [&](float y) { return OfCounts ? 1.0f : device::exp2_about(fma_rn(y, log2e, from)); };
  token_sums s;
  unsigned equals_before = 0, equals_after = 0;  // which weigh the same
#pragma unroll 1
  for (int at = thread * width; at < part.count; at += words * step) {
    device::packed_words word[words];
    if (part.aligned && at + (words - 1) * step + width <= part.count) {
#pragma unroll
      for (int i = 0; i < words; ++i) {
        device::packed_words& w = word[i];
        device::load_global_16_once(part.x + at + i * step, w.word[0], w.word[1], w.word[2], w.word[3]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < words; ++i) word[i] = slot_view<T>::load_slowly(part, at + i * step);
    }
    token_sums here;
    unsigned equals = 0;
#pragma unroll
    for (int i = 0; i < words * width; i += 4) {
      float y[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        y[e] = mul_rn(part.element(word[(i + e) / width], (i + e) % width), inverse);
        device::add_by_order(y[e], x, weight(y[e]), here.before, here.after);
      }
      equals |= device::any_equals(y[0], y[1], y[2], y[3], x);
    }
    s.before = add_rn(s.before, here.before), s.after = add_rn(s.after, here.after);
    if (equals == 0) continue;
    unsigned which = 0;
#pragma unroll
    for (int i = 0; i < words * width; ++i) {
      const float y = mul_rn(part.element(word[i / width], i % width), inverse);
      which |= less(y, x) || greater(y, x) ? 0u : 1u << i;
    }
#pragma unroll 1
    for (; which != 0; which &= which - 1) {
      const int i = __ffs(static_cast<int>(which)) - 1;
      const bool first = at + i / width * step + i % width < id;
      equals_before += first ? 1u : 0u, equals_after += first ? 0u : 1u;
    }
  }
  s.before = fma_rn(float_from_uint(equals_before), weight(x), s.before);
  s.after = fma_rn(float_from_uint(equals_after), weight(x), s.after);
  return s;
}

// With the sums of all threads of the cluster: the row's token, if they are enough to tell; or the next one in doubt.
template <class Contract>
BI_D __noinline__ once_result settle_token(const sample_plan& plan, int vocab, sample_memory& m, sample_found& now,
                                           device::cluster_exchange exchange, const token_sums mine) {
  once_state& once = m.once;
  float before, after;
  (void)float_sums_before(mine.before, once.warp, before);
  (void)float_sums_before(mine.after, once.warp, after);
  const device::message* all = exchange.tell(bits_of(before), bits_of(after));
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
  std::uint64_t best = kept ? once.doubtful : 0;
  if (dropped) {
    // It's the best of those before it in the order, if that is known to be kept; otherwise that is in doubt now.
    std::uint64_t next = 0;
    float next_x = 0.0f;
    const float x = once.doubtful_x;
    const std::uint64_t last = once.doubtful;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(once.listed); i += sample_threads) {
      const std::uint64_t r = once.rank[i];
      const float value = once.x[i];
      if (r <= next || r >= last || less(value, x)) continue;
      if (equal(value, x) && contract::rank_id(r) > contract::rank_id(last)) continue;
      if (greater(plan.min_p, 0.0f) && !Contract::min_p_keeps(value, once.max, plan.min_p)) continue;
      next = r, next_x = value;
    }
    const std::uint64_t of_block = largest_of_block(next, m);
    if (next != 0 && next == of_block) once.doubtful_x = next_x;
    __syncthreads();
    all = exchange.tell(of_block, bits_of(once.doubtful_x));
    next = 0;
#pragma unroll 1
    for (int b = 0; b < exchange.blocks(); ++b) {
      if (all[2 * b].a > next) next = all[2 * b].a, next_x = float_of(static_cast<std::uint32_t>(all[2 * b].b));
    }
    if (contract::rank_key(next) >= once.bar) {
      if (next == once.sure) {
        best = next;
      } else {
        __syncthreads();
        if (threadIdx.x == 0) once.doubtful = next, once.doubtful_x = next_x;
        __syncthreads();
        return {once_step::one_token, exchange.state()};
      }
    }
  }
  if (best != 0 && threadIdx.x == 0 && exchange.rank() == 0) now.best = best;
  return {best != 0 ? once_step::done : once_step::second_pass, exchange.state()};
}

// A token after the other, until one is known to be the row's.
template <class Contract, class T>
BI_D __noinline__ once_result settle_tokens(const device::row_part<T> part, const sample_plan& plan, int vocab,
                                            sample_memory& m, sample_found& now, device::cluster_exchange exchange) {
#pragma unroll 1
  while (true) {
    const token_sums sums =
        plan.top_k != 0 ? sum_part<true>(part, plan.inverse, m.once) : sum_part<false>(part, plan.inverse, m.once);
    const once_result r = settle_token<Contract>(plan, vocab, m, now, exchange, sums);
    exchange.go_on_at(r.exchange);
    if (r.next != once_step::one_token) return r;
  }
}

}  // namespace kernel
BI_NAMESPACE_END
