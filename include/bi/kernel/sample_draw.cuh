// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/kernel/sample_row.cuh"

// The largest x + noise of the tokens that the cuts leave. Random words take some 45 instructions for four tokens,
// noise some 80 for one; so noise is computed only where device::noise_bound doesn't show that the token stays below a
// score that the thread block has found. After the first few thousand tokens hardly any is left: of n equal ones, the
// n-th wins with probability 1 / n.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class Contract, class T>
struct part_draw {
  const device::row_part<T>& part;
  sample_memory& memory;
  float floor;  // of memory.cuts
  float bar;    // a token whose score stays below it isn't drawn
  std::uint64_t best = 0;

  BI_D bool kept(float x, std::int32_t id) const {
    const sample_cuts& cuts = memory.cuts;
    return cuts.bound.keeps(x, id) && (!greater(cuts.min_p, 0.0f) || Contract::min_p_keeps(x, cuts.max, cuts.min_p));
  }

  // Tokens i .. i + 3 of the part, for certain.
  BI_D void examine(int i) {
    // Volatile: it is rare, and what it takes is kept from the registers.
    const auto* const key = reinterpret_cast<const volatile std::uint32_t*>(&memory.plan.key);
    const std::uint32_t low = key[0], high = key[1];
    const auto words = contract::sample_words(static_cast<std::uint64_t>(high) << 32 | low, memory.plan.ordinal,
                                              static_cast<std::uint32_t>(part.first + i) / 4);
    const float inverse = memory.plan.inverse;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (i + e >= part.count) continue;
      const float logit = to_f32(part.x[i + e]);
      if (is_nan(logit)) memory.nan = 1;
      const float x = Contract::scaled(logit, inverse);
      const std::int32_t id = part.first + i + e;
      if (less(add_rn(x, device::noise_bound(words.word[e])), bar) || !kept(x, id)) continue;
      const std::uint32_t score = contract::ordered_key(add_rn(x, contract::gumbel_noise(words.word[e])));
      const std::uint64_t rank = contract::candidate_rank(score, id);
      best = best < rank ? rank : best;
      atomicMax(&memory.bar, score);  // integer atomic
      bar = max_num(bar, float_of_key(score));
    }
  }

  // All threads of the block; memory.bar and memory.seed are those of a block that has found nothing, with a barrier
  // since.
  BI_D void run() {
    constexpr int width = device::row_part<T>::width, quads = 4, held = quads * 4 / width;
    constexpr int step = sample_threads * width;
    const int thread = static_cast<int>(threadIdx.x);
    const float inverse = memory.plan.inverse;
    const device::row_words words_of(memory.plan.key, memory.plan.ordinal);
    for (int base = thread * width, round = 0; round * held * step < part.count; ++round, base += held * step) {
      device::packed_words words[held];
      part.template load_words<sample_threads, false>(base, no_logit<T>(), words);
      bar = shared_bar();
      float most[quads];  // no token of the quad scores more
#pragma unroll
      for (int q = 0; q < quads; ++q) {
        const int i = at(base, q);
        float x = 0.0f;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float product = mul_rn(part.element(words[q * 4 / width], q * 4 % width + e), inverse);
          x = e == 0 ? product : max_nan(x, product);
        }
        // A NaN is not less than anything: its quad is examined.
        most[q] = neg_inf_f32();
        if (less(x, floor) || less(add_rn(x, device::most_noise), bar)) continue;
        const auto w = words_of(static_cast<std::uint32_t>(part.first + i) / 4);
        const std::uint32_t a = w.word[0] < w.word[1] ? w.word[0] : w.word[1];
        const std::uint32_t b = w.word[2] < w.word[3] ? w.word[2] : w.word[3];
        most[q] = add_rn(x, device::noise_bound(a < b ? a : b));
      }
      // In the first round there is no bar yet: some tokens that promise most make one.
      float limit = round == 0 ? promise(most) : bar;
#pragma unroll 1
      for (bool last = round != 0;; last = true) {
#pragma unroll 1
        for (unsigned left = not_below(most, limit); left != 0; left &= left - 1) {
          examine(at(base, __ffs(static_cast<int>(left)) - 1));
        }
        if (last) break;
        __syncthreads();
        limit = bar = shared_bar();
      }
    }
  }

 private:
  // Where quad q of the words from `base` on begins.
  BI_D static int at(int base, int q) {
    constexpr int in_word = device::row_part<T>::width / 4;
    return base + q / in_word * sample_threads * device::row_part<T>::width + q % in_word * 4;
  }
  template <int Quads>
  BI_D static unsigned not_below(const float (&most)[Quads], float limit) {
    unsigned which = 0;
#pragma unroll
    for (int q = 0; q < Quads; ++q) which |= less(most[q], limit) ? 0u : 1u << q;
    return which;
  }

  BI_D float shared_bar() const {
    return max_num(bar, float_of_key(*const_cast<const volatile std::uint32_t*>(&memory.bar)));
  }

  // Of all that the block's tokens promise, the most, or a little less: the bound is off by less than 0.07, so tokens
  // of one or few threads are not below.
  template <int Quads>
  BI_D float promise(const float (&most)[Quads]) {
    float mine = most[0];
#pragma unroll
    for (int q = 1; q < Quads; ++q) mine = max_num(mine, most[q]);
    const std::uint32_t of_warp = __reduce_max_sync(0xffffffffu, contract::ordered_key(mine));
    if (threadIdx.x % 32 == 0) atomicMax(&memory.seed, of_warp);  // integer atomic
    __syncthreads();
    return max_num(sub_rn(float_of_key(memory.seed), 0.07f), bar);
  }
};

// The part's best rank, for the calling thread. Sets memory.nan if there is a NaN among the tokens that it has to look
// at, and without cuts that is any. Every score is finite or +Inf, so the bar starts at the least finite value.
template <class Contract, class T>
BI_D std::uint64_t draw_part(const device::row_part<T>& part, sample_memory& memory) {
  const float least = float_of(0xff7fffffu);
  if (threadIdx.x == 0) memory.bar = memory.seed = contract::ordered_key(least);
  __syncthreads();
  part_draw<Contract, T> draw = {part, memory, memory.cuts.floor, least};
  draw.run();
  return draw.best;
}

}  // namespace kernel
BI_NAMESPACE_END
