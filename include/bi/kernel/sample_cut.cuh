// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/kernel/sample_row.cuh"

// Top-k and top-p: the first candidates before which weights add up to less than a target. A radix selection over what
// the blocks of the cluster hold. Its first digit is the distance below the row's largest value, in equal steps, so
// that values spread over all bins; what falls into the bin of the border is then few enough for one block to finish.
// If it isn't, because values are equal or very close, the digits after it are those of the rank.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class Contract>
BI_D void add_weight(sample_memory& m, const cut_rule& rule, std::uint32_t bin, float x) {
  if (rule.k != 0) {
    device::count_in_bin(m.bins, bin);
  } else if (const std::uint64_t w = Contract::top_p_weight(x, rule.max); w != 0) {
    device::add_to_bin(m.bins, bin, w);
  }
}

// In which bin the running sum reaches the target, over the bins of this block or of all, and the weight of those
// before it: m.border_bin and m.border_above. A target of 0 is first set to that of the sum of all. False if that sum
// is less. After a barrier since the last add; ends with one.
template <class Contract>
BI_D bool find_border(sample_memory& m, device::cluster_exchange& exchange, bool all) {
  const int thread = static_cast<int>(threadIdx.x), blocks = all ? exchange.blocks() : 1;
  const int share = ((sample_bins + blocks - 1) / blocks + 1) & ~1;  // bins of each block, an even number
  const int begin = blocks > 1 ? share * exchange.rank() : 0;
  const int held = sample_bins - begin < share ? sample_bins - begin : share;
  std::uint64_t weight[2] = {};
  if (blocks > 1) {
    if (thread == 0) exchange.expect(blocks * held * 8);
    const int to = 2 * thread / share, place = 2 * thread - to * share;
    exchange.send(&m.share[(exchange.rank() * share + place) / 2], to, m.bins.weight(2 * thread),
                  m.bins.weight(2 * thread + 1));
    exchange.wait();
#pragma unroll 1
    for (int b = 0; b < blocks && 2 * thread < held; ++b) {
      const device::message two = m.share[b * share / 2 + thread];
      weight[0] += two.a, weight[1] += two.b;
    }
  } else {
    weight[0] = m.bins.weight(2 * thread), weight[1] = m.bins.weight(2 * thread + 1);
  }
  static_assert(2 * sample_threads == sample_bins, "two bins a thread");
  std::uint64_t total = 0, above = device::sum_before(weight[0] + weight[1], m.scan, total);
  std::uint64_t before = 0, mine = total;
  if (blocks > 1) {
    const device::message* totals = exchange.tell(total, 0);
    total = 0;
#pragma unroll 1
    for (int b = 0; b < blocks; ++b) {
      before += b < exchange.rank() ? totals[b].a : 0;
      total += totals[b].a;
    }
  }
  std::uint64_t target = m.cut.target;
  if (target == 0) target = m.cut.rule.template target<Contract>(total);
  if (target > total) return false;
  above += before;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (above < target && target - above <= weight[i]) {
      m.border_bin = static_cast<std::uint32_t>(begin + 2 * thread + i);
      m.border_above = above;
    }
    above += weight[i];
  }
  __syncthreads();
  if (blocks > 1) {
    const bool is_mine = before < target && target - before <= mine;
    const device::message* found = exchange.tell(m.border_above, is_mine ? m.border_bin : ~std::uint64_t{0});
    if (thread < blocks && found[thread].b != ~std::uint64_t{0}) {
      m.border_bin = static_cast<std::uint32_t>(found[thread].b);
      m.border_above = found[thread].a;
    }
  }
  if (thread == 0) m.cut.target = target;
  __syncthreads();
  return true;
}

// The border's candidates, at most sample_bins of them, from the lists of all blocks to the first one. The number of
// pairs that it gets, 0 if there are too many; the second of a pair may be 0, which is no rank.
BI_D inline int gather_border(sample_memory& m, device::cluster_exchange& exchange) {
  const int mine = static_cast<int>(m.listed), rank = exchange.rank(), thread = static_cast<int>(threadIdx.x);
  const device::message* lengths = exchange.tell(static_cast<std::uint64_t>(mine), 0);
  int begin = 0, pairs = 0;
#pragma unroll 1
  for (int b = 0; b < exchange.blocks(); ++b) {
    const int length = static_cast<int>(lengths[b].a + 1) / 2;
    begin += b < rank ? length : 0;
    pairs += length;
  }
  if (pairs > sample_bins / 2) return 0;
  if (rank == 0 && thread == 0) exchange.expect_collected(pairs * static_cast<int>(sizeof(device::message)));
  if (2 * thread < mine) {
    exchange.collect(&m.gathered[begin + thread], m.list[2 * thread],
                     2 * thread + 1 < mine ? m.list[2 * thread + 1] : 0);
  }
  if (rank == 0) exchange.wait_collected();
  return pairs;
}

// Of the candidates that m.cut.bound keeps, in descending order: keeps those before which the weights add up to less
// than the rule's target. Sets m.cut.bound to the new bound. The last one that is kept has a weight. After a barrier
// since m.cut was set, its target to 0; ends with one.
template <class Contract, class T>
BI_D void cut(const device::row_part<T>& part, float inverse, sample_memory& m, device::cluster_exchange& exchange) {
  constexpr int width = device::row_part<T>::width, digit_bits = 10;
  static_assert(1 << digit_bits == sample_bins, "one bin a digit");
  const int thread = static_cast<int>(threadIdx.x);
  const auto for_candidates = [&](auto fn) {  // fn(x, id)
    const sample_bound bound = m.cut.bound;
    part.template for_words<sample_threads, 1, false>(no_logit<T>(), [&](int i, const device::packed_words& w) {
#pragma unroll
      for (int e = 0; e < width; ++e) {
        const float x = scaled_max<Contract>(part.element(w, e), inverse);
        if (bound.keeps(x, part.first + i + e)) fn(x, part.first + i + e);
      }
    });
  };

  device::clear_bins<sample_threads>(m.bins);
  {
    const linear_digits digits = m.cut.digits;
    const cut_rule rule = m.cut.rule;
    for_candidates([&](float x, std::int32_t) { add_weight<Contract>(m, rule, digits(x), x); });
  }
  if (thread == 0) m.listed = 0;
  __syncthreads();

  int pairs = 0, shift = 0;
  bool first = true, all = true;
  while (true) {
    if (!find_border<Contract>(m, exchange, all)) return;
    if (first) {
      const linear_digits digits = m.cut.digits;
      const std::uint32_t bin = m.border_bin;
      for_candidates([&](float x, std::int32_t id) {  // the list takes the bins' place
        if (digits(x) != bin) return;
        const std::uint32_t place = atomicAdd(&m.listed, 1u);  // integer atomic: the list's order is free
        if (place < sample_bins) m.list[place] = short_rank(x, id);
      });
      if (thread == 0) {
        m.cut.bin = bin;
        m.cut.target -= m.border_above;
        m.cut.low = 0, m.cut.high = ~std::uint64_t{0};
      }
      __syncthreads();
      pairs = gather_border(m, exchange);
      all = pairs == 0;
      if (!all && exchange.rank() != 0) break;  // the first block does the rest
    } else {
      if (thread == 0) {
        const std::uint64_t wide = (std::uint64_t{1} << shift) - 1;
        m.cut.target -= m.border_above;
        m.cut.high -= static_cast<std::uint64_t>(m.border_bin) << shift;
        if (m.cut.high - m.cut.low > wide) m.cut.low = m.cut.high - wide;
      }
      __syncthreads();
      if (shift == 0) break;
    }
    const auto for_entries = [&](auto fn) {  // fn(rank), of the border
      if (!all) {
        if (thread >= pairs) return;
        const device::message two = m.gathered[thread];
        fn(two.a);
        if (two.b != 0) fn(two.b);
        return;
      }
      // Too many, which is rare: the code is short.
      const sample_bound bound = m.cut.bound;
      const linear_digits digits = m.cut.digits;
      const std::uint32_t bin = m.cut.bin;
#pragma unroll 1
      for (int i = thread; i < part.count; i += sample_threads) {
        const float x = scaled_max<Contract>(to_f32(part.x[i]), inverse);
        const std::int32_t id = part.first + i;
        if (bound.keeps(x, id) && digits(x) == bin) fn(short_rank(x, id));
      }
    };
    if (first) {
      first = false;
      std::uint64_t low = ~std::uint64_t{0}, high = 0;
      for_entries([&](std::uint64_t r) { low = r < low ? r : low, high = r > high ? r : high; });
      high = device::block_reduce(high, m.reduce, device::integer_max{});
      low = device::block_reduce(~low, m.reduce, device::integer_max{});
      if (all) {
        const device::message* ends = exchange.tell(high, low);
#pragma unroll 1
        for (int b = 0; b < exchange.blocks(); ++b) {
          high = ends[b].a > high ? ends[b].a : high;
          low = ends[b].b > low ? ends[b].b : low;
        }
      }
      if (thread == 0) m.cut.low = ~low, m.cut.high = high;
    }
    device::clear_bins<sample_threads>(m.bins);
    {
      const std::uint64_t low = m.cut.low, high = m.cut.high;
      const cut_rule rule = m.cut.rule;
      const int bits = 64 - __clzll(static_cast<long long>(high - low));
      shift = bits > digit_bits ? bits - digit_bits : 0;
      for_entries([&](std::uint64_t r) {
        if (r < low || r > high) return;
        add_weight<Contract>(m, rule, static_cast<std::uint32_t>((high - r) >> shift),
                             float_of_key(static_cast<std::uint32_t>(r >> sample_id_bits)));
      });
    }
    __syncthreads();
  }
  const std::uint64_t last = all ? m.cut.high : exchange.tell(m.cut.high, 0)[0].a;
  __syncthreads();
  if (thread == 0) m.cut.bound = bound_of(last);
  __syncthreads();
}

}  // namespace kernel
BI_NAMESPACE_END
