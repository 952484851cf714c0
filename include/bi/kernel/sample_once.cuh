// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/kernel/sample_bins.cuh"
#include "bi/kernel/sample_border.cuh"
#include "bi/kernel/sample_cut.cuh"
#include "bi/kernel/sample_row.cuh"

// One pass for top-p, and for a top-k that is not small. While values are counted, tokens are listed that score at
// least as much as the best of those so far that are probably kept: few, as of tokens in any order. Then the counts tell
// which tokens are surely kept and which surely aren't. If the best of the list that is surely kept scores no less than
// any token that others were measured by, and more than those of which nothing is known, it is the row's token, and no
// weight has to be added up. That fails where the best token lies within a bin or two of the border, some times in
// 10,000 for smooth logits. Then the row is read again: to tell whether that one token is kept, by sums that are good
// enough nearly always, or, as all rows are without this, to settle the border.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int sample_most_doubtful = 4;  // in a row whose tokens are told one after another
inline constexpr int sample_once_bins = 1;      // of sample_counts, whose values are listed for top-p
inline constexpr int counts_of_thread = device::value_bin_count / sample_threads;

// Not min-p alone, which needs no counts otherwise, nor a top-k of 16-bit values, many of which are equal at its border.
template <class T>
BI_D bool may_take_once(const sample_plan& plan) {
  if (plan.lists) return false;
  return plan.top_k == 0 ? less(plan.top_p, 1.0f) : sizeof(T) == 4 && !less(plan.top_p, 1.0f);
}
BI_D inline bool has_room(const once_state& once) {
  return __any_sync(device::full_warp,
                    *const_cast<const volatile std::uint32_t*>(&once.listed) <= sample_most_hopeful) != 0;
}

// Of all weights, or of all tokens for top-k: the share of those that are taken for kept before it is known.
BI_D inline float hopeful_share(const sample_plan& plan, int vocab) {
  if (plan.top_k != 0) return div_rn(mul_rn(0.5f, float_from_int(plan.top_k)), float_from_int(vocab));
  return less(plan.top_p, 1.0f) ? mul_rn(0.5f, max_num(plan.top_p, 0.0f)) : 0.5f;
}

// What a thread's counters weigh, each value as the largest of its bin. `skip`: without the first sample_once_bins.
BI_D inline float weigh_counts(const sample_memory& m, const device::value_bins& bins, bool of_counts, bool skip) {
  const int thread = static_cast<int>(threadIdx.x);
  const float ratio = of_counts ? 1.0f : bi::exp(neg(bins.step()));
  const float ratio2 = mul_rn(ratio, ratio), ratio4 = mul_rn(ratio2, ratio2);
  const float first = of_counts ? 1.0f : bins.weight(float_from_int(counts_of_thread * thread));
  float weight = first, sum = 0.0f;
  for (int i = thread % counts_each; i > 0; --i) weight = mul_rn(weight, ratio4);
  for_counts(m, [&](int i, const uint4& c) {
    weight = i == 0 ? first : weight;
    float four = fma_rn(float_from_uint(c.w), ratio, float_from_uint(c.z));
    four = fma_rn(four, ratio, float_from_uint(c.y));
    four = fma_rn(four, ratio, float_from_uint(c.x));
    if (skip && i == 0 && thread == 0) four = 0.0f;
    sum = fma_rn(four, weight, sum);
    weight = mul_rn(weight, ratio4);
  });
  return sum;
}

// The sum of `mine`, none negative, over the threads before this one; `total`: over all. Ends with a barrier.
BI_D inline float float_sums_before(float mine, float (&scratch)[sample_warps], float& total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  float through = mine;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const float other = __shfl_up_sync(device::full_warp, through, d);
    if (lane >= d) through = add_rn(through, other);
  }
  if (lane == 31) scratch[warp] = through;
  __syncthreads();
  const float before_in_warp = __shfl_up_sync(device::full_warp, through, 1);  // not a difference, which cancels
  float before = lane == 0 ? 0.0f : before_in_warp, ahead = 0.0f;
  total = 0.0f;
#pragma unroll
  for (int w = 0; w < sample_warps; ++w) {
    if (w < warp) ahead = add_rn(ahead, scratch[w]);
    total = add_rn(total, scratch[w]);
  }
  __syncthreads();
  return add_rn(ahead, before);
}

// From which value on tokens are probably kept, by the bins so far. All threads; ends with a barrier.
BI_D __noinline__ void raise_hope(sample_memory& m, const sample_plan& plan, int vocab, float most) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool of_counts = plan.top_k != 0;
  const std::uint32_t key = __reduce_max_sync(device::full_warp, contract::ordered_key(most));
  if (thread % 32 == 0) atomicMax(&m.cut.largest, key);  // integer atomic
  __syncthreads();
  const device::value_bins bins = m.cut.bins;
  const float largest = float_of_key(m.cut.largest);
  float mine = weigh_counts(m, bins, of_counts, false), total;
  if (thread == 0 && !of_counts && m.counts[0] != 0) {  // these may be far above their bin
    const float more = sub_rn(bi::exp(min_nan(max_num(sub_rn(largest, bins.top), 0.0f), 60.0f)), 1.0f);
    mine = fma_rn(float_from_uint(m.counts[0]), more, mine);
  }
  const float before = float_sums_before(mine, m.once.warp, total), goal = mul_rn(hopeful_share(plan, vocab), total);
  if (!greater(before, goal) && less(goal, add_rn(before, mine))) {
    // What is in the last bin may be anything.
    float from = neg_inf_f32();
    if (thread < sample_threads - 1) from = bins.edge(float_from_int(counts_of_thread * (thread + 1)));
    // Half as far below the largest so far as min-p allows: the row's largest may be above that.
    if (greater(plan.min_p, 0.0f)) from = max_num(from, fma_rn(0.5f, min_nan(bi::log(plan.min_p), 0.0f), largest));
    m.once.from = from;
  }
  __syncthreads();
}

// What a row takes after its one pass: nothing; a second one that tells whether the best doubtful token is kept; or one
// that settles the border.
enum class once_step { done, one_token, second_pass };
struct once_result {
  once_step next;
  unsigned exchange;  // its state
};

// Counts of a group's bins, or of two groups', of all blocks, lie in m.bins.
BI_D inline int group_messages(int width) { return width * 2 / 16; }
BI_D inline device::message* counts_of_group(sample_memory& m) { return reinterpret_cast<device::message*>(&m.bins); }
static_assert(sizeof(device::weight_bins<sample_bins>) >= device::most_in_cluster * 16 * sizeof(device::message),
              "fits");

// Of the `width` bins from `first` on, with the border: the first bin whose tokens are not surely kept, and the first whose
// tokens are surely dropped. All threads; ends with a barrier.
BI_D inline void settle_group(sample_memory& m, const device::border_bounds& bounds, const device::value_bins& bins,
                              int first, int width, int blocks) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, each = width / 32;
  const int messages = group_messages(width);
  const bool of_counts = greater(bounds.k, 0.0f);
  float* const counts = m.once.group;  // what was there has been sent
  static_assert(device::value_bin_count / (sample_groups / 2) <= sample_groups, "fits");
  bool full = false;
  if (thread < width) {
    std::uint32_t sum = 0;
#pragma unroll 4
    for (int b = 0; b < blocks; ++b) {
      const std::uint32_t c = reinterpret_cast<const std::uint16_t*>(counts_of_group(m) + b * messages)[thread];
      full = full || c == most_counted;
      sum += c;
    }
    // The first bins of a row of top-p are ahead of all others.
    counts[thread] = !of_counts && first + thread < sample_once_bins * sample_fine ? 0.0f : float_from_uint(sum);
  }
  full = __syncthreads_or(full ? 1 : 0) != 0;
  if (thread < 32) {
    const auto weight = [&](int i) { return of_counts ? 1.0f : bins.weight(float_from_int(first + lane * each + i)); };
    float mine = 0.0f;
    for (int i = 0; i < each; ++i) mine = fma_rn(counts[lane * each + i], weight(i), mine);
    float through = mine;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const float other = __shfl_up_sync(device::full_warp, through, d);
      if (lane >= d) through = add_rn(through, other);
    }
    const float in_warp = __shfl_up_sync(device::full_warp, through, 1);
    float before = add_rn(m.once.before, lane == 0 ? 0.0f : in_warp);
    int keep = first + width, drop = first + width;
    for (int i = 0; i < each; ++i) {
      const int bin = first + lane * each + i;
      const float n = counts[lane * each + i], w = weight(i);
      if (greater(n, 0.0f) && bin < keep && !bounds.keeps(fma_rn(sub_rn(n, 1.0f), w, before))) keep = bin;
      if (bin < drop && bounds.drops(before)) drop = bin;
      before = fma_rn(n, w, before);
    }
    keep = __reduce_min_sync(device::full_warp, keep), drop = __reduce_min_sync(device::full_warp, drop);
    if (full) keep = first, drop = first + width;
    if (lane == 0) m.once.keep = keep, m.once.drop = drop;
  }
  __syncthreads();
}

// After the pass: the row's token in m.now of the first block, if it is certain; otherwise all is ready for
// plan_second_pass. All threads of the cluster.
template <class Contract>
BI_D __noinline__ once_result settle_once(const sample_plan& plan, int vocab, sample_memory& m, sample_found& now,
                                          device::cluster_exchange exchange, float most) {
  const int thread = static_cast<int>(threadIdx.x), blocks = exchange.blocks(), rank = exchange.rank();
  once_state& once = m.once;
  const bool border = needs_border(plan), of_counts = plan.top_k != 0;
  const device::value_bins bins = m.cut.bins;
  const int groups = blocks <= 8 ? sample_groups : sample_groups / 2, threads_of_group = sample_threads / groups;
  const int group_share = groups / 4, outlier_share = sample_outlier_messages / blocks;  // messages
  keep_most(most, m, now);
  __syncthreads();  // all is counted and listed
  if (border) {
    float mine = weigh_counts(m, bins, of_counts, !of_counts);
    for (int d = 1; d < threads_of_group; d *= 2) mine = add_rn(mine, __shfl_xor_sync(device::full_warp, mine, d));
    if (thread % threads_of_group == 0) once.group[thread / threads_of_group] = mine;
  }
  if (thread == 0) once.keep = groups, once.drop = groups, once.doubtfuls = 0;
  __syncthreads();

  const int outliers = static_cast<int>(m.cut.outliers);
  // What all blocks need to know of each: the largest value, groups of bins, and the outliers.
  const bool fits = once.listed <= sample_most_hopeful && outliers <= 4 * outlier_share;
  const std::uint64_t seen = now.nan | (fits ? 0u : 2u) | (outliers != 0 ? 4u : 0u);
  device::message* const of_outliers = m.inbox + sample_bin_messages;
  const device::message* all;
  if (border) {
    if (thread == 0) exchange.expect(blocks * (group_share + outlier_share + 2));
    exchange.tell_all(m.cut.largest, seen, 0, 0);
    all = exchange.places();
    const auto send = [&](device::message* to, int share, auto value) {
      const int block = thread / share, i = thread - block * share;
      if (block >= blocks) return;
      const auto pair = [&](int at) {
        return bits_of(value(at)) | static_cast<std::uint64_t>(bits_of(value(at + 1))) << 32;
      };
      exchange.send(to + rank * share + i, block, pair(4 * i), pair(4 * i + 2));
    };
    send(m.inbox, group_share, [&](int i) { return once.group[i]; });
    send(of_outliers, outlier_share, [&](int i) { return i < outliers ? m.outliers[i] : neg_inf_f32(); });
    exchange.wait();
  } else {
    all = exchange.tell(m.cut.largest, seen);
  }
  std::uint64_t largest = 0, seen_by_any = 0;
#pragma unroll 1
  for (int b = 0; b < blocks; ++b) {
    largest = all[2 * b].a > largest ? all[2 * b].a : largest;
    seen_by_any |= all[2 * b].b;
  }
  const float max = float_of_key(static_cast<std::uint32_t>(largest));
  bool possible = (seen_by_any & 3u) == 0 && largest > contract::lowest_key && is_finite(max);

  // The border, to a bin or two.
  int keep = device::value_bin_count, drop = device::value_bin_count;  // bins below keep are, those from drop on aren't
  device::border_bounds bounds = {};
  const float* const x = reinterpret_cast<const float*>(of_outliers);
  float* const weight = m.lane;
  const int slots_each = outlier_share * 4, slots = (seen_by_any & 4u) != 0 ? blocks * slots_each : 0;
  if (border && possible) {
    float mine = 0.0f, ahead = 0.0f, total;
    if (thread < groups) {
#pragma unroll 1
      for (int b = 0; b < blocks; ++b) {
        mine = add_rn(mine, reinterpret_cast<const float*>(m.inbox + b * group_share)[thread]);
      }
    }
    const float before = float_sums_before(mine, once.warp, total);
    if (slots > 0) {
      float w = 0.0f;
      if (thread < slots && greater(x[thread], neg_inf_f32())) {
        w = mul_rn(float_from_int64(static_cast<std::int64_t>(token_weight<Contract>(x[thread], max))), 0x1p-44f);
      }
      weight[thread] = w;
      (void)float_sums_before(w, once.warp, ahead);
    }
    float last = 0.0f;
    if (!of_counts) {
#pragma unroll 1
      for (int b = 0; b < blocks; ++b) {
        last = add_rn(last, reinterpret_cast<const float*>(m.inbox + b * group_share)[groups - 1]);
      }
    }
    bounds = of_counts ? device::border_bounds::top_k(plan.top_k)
                       : device::border_bounds::top_p(plan.top_p, bins, max, vocab, ahead, total, last);
    // A sum that reaches k to the token is the last that is kept.
    if (thread < groups) {
      const float through = add_rn(before, mine);
      const bool kept = bounds.keeps(of_counts ? sub_rn(through, 1.0f) : through);
      if (!kept) atomicMin(&once.keep, thread);                 // integer atomic
      if (bounds.drops(before)) atomicMin(&once.drop, thread);  // integer atomic
    }
    __syncthreads();
    const int first = once.keep, end = once.drop, width = device::value_bin_count / groups;
    const int span = (end - first) * width;  // about a border between groups, two
    keep = first * width, drop = end * width;
    if (thread == first) once.before = before;
    if (first + 1 == end || (first + 2 == end && groups == sample_groups)) {
      // All blocks find the same, and go this way together.
      const int messages = group_messages(span);
      if (thread == 0) exchange.expect(blocks * messages);
      const int block = thread / messages, i = thread - block * messages;
      if (block < blocks) {
        std::uint64_t half[2] = {};
        for (int j = 0; j < 8; ++j) {
          const std::uint32_t c = m.counts[keep + 8 * i + j];
          half[j / 4] |= static_cast<std::uint64_t>(c < most_counted ? c : most_counted) << (16 * (j % 4));
        }
        exchange.send(counts_of_group(m) + rank * messages + i, block, half[0], half[1]);
      }
      exchange.wait();
      __syncthreads();
      settle_group(m, bounds, bins, keep, span, blocks);
      keep = once.keep, drop = once.drop;
    }
  }

  // Of the list: the best that is surely kept, and the best of which nothing is known.
  std::uint64_t sure = 0, unsure = 0;
  float unsure_x = 0.0f;
#pragma unroll 1
  for (int i = thread; possible && i < static_cast<int>(once.listed); i += sample_threads) {
    const float value = once.x[i];
    const int bin = bins.bin(value);
    bool kept = bin < keep, dropped = bin >= drop;
    if (border && !of_counts && bin < sample_once_bins * sample_fine) {
      float above = 0.0f, equals = 0.0f, below = 0.0f;
#pragma unroll 1
      for (int j = 0; j < slots; ++j) {
        if (!greater(x[j], neg_inf_f32())) {  // no more of this block
          j += slots_each - 1 - j % slots_each;
        } else if (greater(x[j], value)) {
          above = add_rn(above, weight[j]);
        } else if (less(x[j], value)) {
          below = add_rn(below, weight[j]);
        } else {
          equals = add_rn(equals, weight[j]);
        }
      }
      const float own =
          mul_rn(float_from_int64(static_cast<std::int64_t>(token_weight<Contract>(value, max))), 0x1p-44f);
      const float more = equal(equals, own) ? 0.0f : equals;
      kept = bounds.keeps_of(add_rn(above, more), add_rn(add_rn(below, own), bounds.from_below(bounds.low)));
      dropped = bounds.drops_of(above, add_rn(add_rn(below, equals), bounds.from_above(bounds.all)));
    }
    if (dropped || (greater(plan.min_p, 0.0f) && !Contract::min_p_keeps(value, max, plan.min_p))) continue;
    const std::uint64_t r = once.rank[i];
    if (kept) {
      sure = r > sure ? r : sure;
    } else {
      atomicAdd(&once.doubtfuls, 1u);  // integer atomic
      if (r > unsure) unsure = r, unsure_x = value;
    }
  }
  const std::uint64_t own_unsure = unsure;
  unsure = largest_of_block(unsure, m);
  if (unsure != 0 && unsure == own_unsure) once.doubtful_x = unsure_x;
  sure = largest_of_block(sure, m);
  bool listed = false, one = false;
  std::uint64_t bar = 0;
  if (possible) {
    __syncthreads();
    all = exchange.tell(sure, unsure, now.bar,
                        bits_of(once.doubtful_x) | static_cast<std::uint64_t>(once.doubtfuls) << 32);
    std::uint32_t doubtfuls = 0;
    unsure = 0;
#pragma unroll 1
    for (int b = 0; b < blocks; ++b) {
      sure = all[2 * b].a > sure ? all[2 * b].a : sure;
      const std::uint64_t of_block = all[2 * b + 1].b;
      if (all[2 * b].b > unsure) unsure = all[2 * b].b, unsure_x = float_of(static_cast<std::uint32_t>(of_block));
      doubtfuls += static_cast<std::uint32_t>(of_block >> 32);
      bar = all[2 * b + 1].a > bar ? all[2 * b + 1].a : bar;
    }
    listed = contract::rank_key(sure > unsure ? sure : unsure) >= bar;
    possible = sure > unsure && listed;
    one = listed && doubtfuls <= sample_most_doubtful;
  }
  if (possible) {
    if (thread == 0 && rank == 0) now.best = sure;
    return {once_step::done, exchange.state()};
  }
  __syncthreads();
  if (thread == 0) {
    now.clear_draw();
    once.settles = listed, once.bar = static_cast<std::uint32_t>(bar);
    once.sure = sure, once.doubtful = unsure, once.doubtful_x = unsure_x, once.max = max;
  }
  __syncthreads();
  return {one ? once_step::one_token : once_step::second_pass, exchange.state()};
}

// After the second pass: settles the border and, if what is kept was all that the list of the first pass lacked, takes
// the best of it. All threads of the cluster.
template <class Contract>
BI_D __noinline__ cut_result settle_cuts(const sample_plan& plan, sample_memory& m, sample_found& now,
                                         device::cluster_exchange exchange, const second_result r, unsigned work) {
  const cut_result border = settle_row<Contract>(plan, m, now, exchange, r, work);
  if (!m.once.settles || border.next != cut_step::done) return border;
  exchange.go_on_at(border.exchange);
  const int thread = static_cast<int>(threadIdx.x);
  const once_state& once = m.once;
  sample_cuts cuts = m.cut.cuts;
  const device::message* all =
      exchange.tell(bits_of(cuts.value) | static_cast<std::uint64_t>(static_cast<std::uint32_t>(cuts.id)) << 32, 0);
  cuts.value = float_of(static_cast<std::uint32_t>(all[0].a)), cuts.id = static_cast<std::int32_t>(all[0].a >> 32);
  std::uint64_t best = 0;
#pragma unroll 1
  for (int i = thread; i < static_cast<int>(once.listed); i += sample_threads) {
    const std::uint64_t rank = once.rank[i];
    if (rank > best && cuts.keeps<Contract>(once.x[i], contract::rank_id(rank))) best = rank;
  }
  best = largest_of_block(best, m);
  all = exchange.tell(best, 0);
#pragma unroll 1
  for (int b = 0; b < exchange.blocks(); ++b) best = all[2 * b].a > best ? all[2 * b].a : best;
  if (contract::rank_key(best) < once.bar) return {cut_step::slow_way, 0, exchange.state()};
  if (thread == 0 && exchange.rank() == 0) now.best = best;
  return {cut_step::done, 0, exchange.state()};
}

}  // namespace kernel
BI_NAMESPACE_END
