// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/kernel/sample_row.cuh"

// Where, in bins that are ordered from the largest value down, the running sum of a weight reaches a target. What runs
// once a row is kept short: its time is that of fetching it.

BI_NAMESPACE_BEGIN
namespace kernel {

// Called by all threads of a block; each gets the largest of all. Ends with a barrier.
BI_D inline __noinline__ std::uint64_t largest_of_block(std::uint64_t value, sample_memory& m) {
  return device::block_reduce(value, m.reduce, device::integer_max{});
}
template <class Contract>
BI_D __noinline__ std::uint64_t token_weight(float x, float max) {
  return Contract::top_p_weight(x, max);
}
template <class Contract>
BI_D __noinline__ std::uint64_t weight_target(float top_p, std::uint64_t total) {
  return Contract::top_p_target(top_p, total);
}

// What candidates weigh, and what the weights before one must stay below to keep it.
struct cut_rule {
  std::uint64_t k;  // 0: top-p
  float top_p, max;

  template <class Contract>
  BI_D std::uint64_t target(std::uint64_t total) const {
    return k != 0 ? k : weight_target<Contract>(top_p, total);
  }
  template <class Contract>
  BI_D std::uint64_t weight(float x) const {
    return k != 0 ? 1 : token_weight<Contract>(x, max);
  }
};

// The bins of all blocks are cut evenly among them: in messages.
struct bin_share {
  int most, first, count;  // of each block but the last; of this one

  BI_D explicit bin_share(const device::cluster_exchange& exchange) {
    most = (sample_bin_messages + exchange.blocks() - 1) / exchange.blocks();
    first = most * exchange.rank();
    const int rest = sample_bin_messages - first;
    count = rest < 0 ? 0 : rest < most ? rest : most;
  }
};

// Sends all bins of this block, one message of them, to those that add them up, and two messages to all blocks: a round.
// Returns the places of the two. After a barrier since the bins were filled. The messages of this block's share, of one
// block after another, are then in m.inbox, for one thread each: for_share(fn) calls fn with them.
BI_D inline const device::message* share_bins(sample_memory& m, device::cluster_exchange& exchange, std::uint64_t a,
                                              std::uint64_t b, const device::message& bins) {
  const bin_share share(exchange);
  const int thread = static_cast<int>(threadIdx.x), to = thread / share.most;
  const device::message* const all = exchange.places();
  if (thread == 0) exchange.expect(exchange.blocks() * (share.count + 2));
  exchange.tell_all(a, b, 0, 0);
  exchange.send(&m.inbox[exchange.rank() * share.most + (thread - to * share.most)], to, bins.a, bins.b);
  exchange.wait();
  return all;
}
template <class Fn>
BI_D void for_share(const sample_memory& m, const device::cluster_exchange& exchange, Fn fn) {
  const bin_share share(exchange);
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int b = 0; b < exchange.blocks() && thread < share.count; ++b) fn(m.inbox[b * share.most + thread]);
}

// Sums over bins: a, of weights; b, of candidates.
using device::two_sums;

// `mine`: over the thread's bins, which follow those of the thread before. Where the running sum of weights, `ahead`
// before the first bin of all, reaches the target, one thread calls walk(before), with the sums before its bins, to set
// m.cut's border; then the function is true. A target of 0 is first set to what the rule makes of the total. `ahead`
// becomes that of all blocks, `total` all of it. Ends with a barrier.
template <class Contract, class Walk>
BI_D bool find_border(const two_sums& mine, two_sums& ahead, const cut_rule& rule, std::uint64_t& target,
                      two_sums& total, sample_memory& m, device::cluster_exchange* exchange, Walk walk) {
  two_sums sum, before = device::sums_before(mine, m.scan, sum);
  total = {ahead.a + sum.a, ahead.b + sum.b};
  const bool cluster = exchange != nullptr && exchange->blocks() > 1;
  if (cluster) {
    const device::message* const all = exchange->tell(sum.a, sum.b, ahead.a, ahead.b);
    total = ahead = {};
#pragma unroll 1
    for (int b = 0; b < exchange->blocks(); ++b) {
      const two_sums bins = {all[2 * b].a, all[2 * b].b}, first = {all[2 * b + 1].a, all[2 * b + 1].b};
      total.add(bins);
      total.add(first);
      ahead.add(first);
      if (b < exchange->rank()) before.add(bins);
    }
  }
  before.add(ahead);
  if (target == 0) target = rule.template target<Contract>(total.a);
  if (target > total.a || target <= ahead.a) return false;
  const bool here = before.a < target && target - before.a <= mine.a;
  if (here) walk(before);
  if (threadIdx.x == 0) m.cut.border_found = 0;
  __syncthreads();
  if (here) m.cut.border_found = 1;
  __syncthreads();
  if (cluster) {
    const device::message* const all =
        exchange->tell(m.cut.border_bin | static_cast<std::uint64_t>(m.cut.border_found) << 32, m.cut.border_above,
                       m.cut.border_weight, m.cut.border_count);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < exchange->blocks() && all[2 * thread].a >> 32 != 0) {
      m.cut.border_bin = static_cast<std::uint32_t>(all[2 * thread].a);
      m.cut.border_above = all[2 * thread].b, m.cut.border_weight = all[2 * thread + 1].a;
      m.cut.border_count = all[2 * thread + 1].b;
    }
    __syncthreads();
  }
  return true;
}

}  // namespace kernel
BI_NAMESPACE_END
