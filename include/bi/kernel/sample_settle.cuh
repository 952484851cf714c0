// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/row.cuh"
#include "bi/kernel/sample_border.cuh"
#include "bi/kernel/sample_row.cuh"

// The exact end of top-k and top-p: a radix selection by rank, over a short list or over whole rows.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int digit_bits = 9;
static_assert(1 << digit_bits == sample_bins, "one bin a digit");

// Ranks from low to high, cut into bins from the largest down.
struct rank_digits {
  std::uint64_t low, high;

  BI_D int shift() const {
    const int bits = 64 - __clzll(static_cast<long long>(high - low));
    return bits > digit_bits ? bits - digit_bits : 0;
  }
  BI_D bool has(std::uint64_t rank) const { return rank >= low && rank <= high; }
  BI_D std::uint32_t bin(std::uint64_t rank) const { return static_cast<std::uint32_t>((high - rank) >> shift()); }
  BI_D rank_digits of_bin(std::uint32_t b) const {
    const std::uint64_t wide = (std::uint64_t{1} << shift()) - 1,
                        top = high - (static_cast<std::uint64_t>(b) << shift());
    return {top - low > wide ? top - wide : low, top};
  }
};

// Of the ranks at the border, at most 32 in m.few and 0 after them, and the weight of those before them: the last that is
// kept. Warp 0.
template <class Contract>
BI_D void settle_few(sample_memory& m, const cut_rule& rule, std::uint64_t target) {
  const int lane = static_cast<int>(threadIdx.x), count = static_cast<int>(m.cut.few);
  const std::uint64_t mine = lane < count ? m.few[lane] : 0;
  const std::uint64_t weight = mine != 0 ? rule.template weight<Contract>(float_of_key(rank_value(mine))) : 0;
  std::uint64_t before = 0;
#pragma unroll 1
  for (int first = 0; first < count; first += 8) {
#pragma unroll
    for (int i = first; i < first + 8; ++i) {
      const std::uint64_t w = __shfl_sync(device::full_warp, static_cast<unsigned long long>(weight), i);
      before += m.few[i] > mine ? w : 0;
    }
  }
  std::uint64_t last = mine != 0 && before < target ? mine : ~std::uint64_t{0};
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    const std::uint64_t other = __shfl_xor_sync(device::full_warp, static_cast<unsigned long long>(last), d);
    last = other < last ? other : last;
  }
  if (lane == 0) m.cut.last = last;
}

// Weights into bins in shared memory, of one block: of the ranks that for_ranks(fn) calls fn with, those of `digits`.
template <class Contract, class ForRanks>
BI_D void fill_bins(sample_memory& m, const cut_rule& rule, const rank_digits& digits, ForRanks for_ranks) {
  device::clear_bins<sample_threads>(m.bins);
  for_ranks([&](std::uint64_t r) {
    if (!digits.has(r)) return;
    if (rule.k != 0) {
      device::count_in_bin(m.bins, digits.bin(r));
    } else if (const std::uint64_t w = rule.template weight<Contract>(float_of_key(rank_value(r))); w != 0) {
      device::add_to_bin(m.bins, digits.bin(r), w);
    }
  });
  __syncthreads();
}

// Two bins are a thread's.
static_assert(sample_bins == 2 * sample_threads, "two each");
BI_D inline void set_border(sample_memory& m, int first_bin, std::uint64_t before, std::uint64_t first,
                            std::uint64_t second, std::uint64_t target) {
  const bool in_first = target - before <= first;
  m.cut.border_bin = static_cast<std::uint32_t>(first_bin + (in_first ? 0 : 1));
  m.cut.border_above = in_first ? before : before + first;
  m.cut.border_weight = in_first ? first : second;
  m.cut.border_count = 0;
}

// Ranks in shared memory, and 0 for what is none.
struct rank_list {
  const std::uint64_t* rank;
  int count;
};

// The last listed rank that is kept: those before it weigh less than the target, of which 0 is first set to what the
// rule makes of all ranks from at_least on; at_least, if all are kept. `within`: where those are, if its low isn't 0;
// otherwise that is looked up. All threads of a block.
template <class Contract>
BI_D __noinline__ std::uint64_t last_in_list(sample_memory& m, const rank_list list, const cut_rule rule,
                                             std::uint64_t target, std::uint64_t at_least, const rank_digits within) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto for_ranks = [&](auto fn) {
#pragma unroll 1
    for (int i = thread; i < list.count; i += sample_threads) fn(list.rank[i]);
  };
  rank_digits digits = {at_least > 0 ? at_least : 1, ~std::uint64_t{0}};
  bool known = within.low != 0;
  if (known) digits = within;
#pragma unroll 1
  while (true) {
    if (!known) {
      std::uint64_t high = 0, low = 0;
      for_ranks([&](std::uint64_t r) {
        if (digits.has(r)) high = r > high ? r : high, low = ~r > low ? ~r : low;
      });
      digits.high = largest_of_block(high, m);
      digits.low = ~largest_of_block(low, m);
      if (digits.low > digits.high) return at_least;  // there is none
    }
    known = false;
    fill_bins<Contract>(m, rule, digits, for_ranks);
    if (thread < 32) m.few[thread] = 0;
    if (thread == 0) m.cut.few = 0;
    const std::uint64_t first = m.bins.weight(2 * thread), second = m.bins.weight(2 * thread + 1);
    two_sums ahead = {}, total;
    const bool found = find_border<Contract>(
        {first + second, 0}, ahead, rule, target, total, m, nullptr,
        [&](const two_sums& before) { set_border(m, 2 * thread, before.a, first, second, target); });
    if (!found) return at_least;
    target -= m.cut.border_above;
    const bool exact = digits.shift() == 0;
    digits = digits.of_bin(m.cut.border_bin);
    if (exact) return digits.high;
    for_ranks([&](std::uint64_t r) {
      if (!digits.has(r)) return;
      const std::uint32_t place = atomicAdd(&m.cut.few, 1u);  // integer atomic: the list's order is free
      if (place < 32) m.few[place] = r;
    });
    __syncthreads();
    if (m.cut.few <= 32) break;
  }
  if (thread < 32) settle_few<Contract>(m, rule, target);
  __syncthreads();
  return m.cut.last;
}

// The listed ranks from `last` on, no more than are kept of a top-k that lists, side by side: what then goes over them
// finds one in every place. All threads of a block; ends with a barrier.
static_assert(sizeof(sample_memory::outliers) >= sample_most_top_k_list * sizeof(std::uint64_t),
              "room for what is kept");
BI_D inline rank_list gather_kept(sample_memory& m, const rank_list list, std::uint64_t last) {
  auto* const kept = reinterpret_cast<std::uint64_t*>(m.outliers);
  if (threadIdx.x == 0) m.cut.few = 0;
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < list.count; i += sample_threads) {
    if (list.rank[i] >= last)
      kept[atomicAdd(&m.cut.few, 1u)] = list.rank[i];  // integer atomic: the list's order is free
  }
  __syncthreads();
  return {kept, static_cast<int>(m.cut.few)};
}

// The same of a row in global memory, by all threads of a cluster; slow, and for every row.
struct rank_found {
  std::uint64_t last;
  unsigned exchange;  // its state
};
template <class Contract, class T>
BI_D __noinline__ rank_found last_in_row(const device::row_part<T> part, float inverse, const cut_rule rule,
                                         std::uint64_t at_least, sample_memory& m, device::cluster_exchange exchange) {
  const int thread = static_cast<int>(threadIdx.x);
  const std::uint64_t lowest = static_cast<std::uint64_t>(contract::lowest_key + 1) << sample_id_bits;
  rank_digits digits = {at_least > lowest ? at_least : lowest, (std::uint64_t{1} << (32 + sample_id_bits)) - 1};
  std::uint64_t target = 0;
#pragma unroll 1
  while (true) {
    __syncthreads();
    fill_bins<Contract>(m, rule, digits, [&](auto fn) {
#pragma unroll 1
      for (int i = thread; i < part.count; i += sample_threads) {
        fn(short_rank(scaled_max<Contract>(to_f32(part.x[i]), inverse), part.first + i));
      }
    });
    share_bins(m, exchange, 0, 0, {m.bins.weight(2 * thread), m.bins.weight(2 * thread + 1)});
    std::uint64_t first = 0, second = 0;
    for_share(m, exchange, [&](const device::message& two) { first += two.a, second += two.b; });
    two_sums ahead = {}, total;
    const int first_bin = 2 * (bin_share(exchange).first + thread);
    const bool found = find_border<Contract>(
        {first + second, 0}, ahead, rule, target, total, m, &exchange,
        [&](const two_sums& before) { set_border(m, first_bin, before.a, first, second, target); });
    if (!found) return {at_least, exchange.state()};
    target -= m.cut.border_above;
    const bool exact = digits.shift() == 0;
    digits = digits.of_bin(m.cut.border_bin);
    if (exact) return {digits.high, exchange.state()};
  }
}

}  // namespace kernel
BI_NAMESPACE_END
