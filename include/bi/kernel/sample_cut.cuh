// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/kernel/sample_bins.cuh"
#include "bi/kernel/sample_pass.cuh"
#include "bi/kernel/sample_settle.cuh"

// Top-k, top-p and min-p. A first pass counts the row's values in bins, which tells about where the border is: what is
// surely above it, and the few tokens about it. A second pass lists those few, draws from the ones above, and adds up
// the weights of all, exactly, which top-p asks for; then the sums prove that the border is among the few, or the slow
// way is taken. A small top-k takes one pass, which lists what may be kept by a sample of the row. Counts and sums are of
// integers, so no order changes them, and where the bins lie changes no bit.

BI_NAMESPACE_BEGIN
namespace kernel {

// The next thing to do for a row that is cut.
enum class cut_step { second_pass, slow_way, done };
struct cut_result {
  cut_step next;
  unsigned work;      // of the second pass
  unsigned exchange;  // its state
};

// What min-p alone leaves.
BI_D inline sample_cuts row_cuts(const sample_plan& plan, float max) {
  sample_cuts cuts = {neg_inf_f32(), -1, neg_inf_f32(), max, plan.min_p};
  if (greater(plan.min_p, 0.0f)) {
    cuts.floor = device::min_p_floor(max, plan.min_p, [](float x) { return bi::log(x); });
  }
  return cuts;
}

// Which tokens the second pass draws from, and which it lists; `cuts` has what min-p says. By one thread.
BI_D inline void set_second_pass(sample_memory& m, sample_cuts cuts, float low, float high, float draw_above) {
  cuts.value = draw_above, cuts.id = -1;
  cuts.floor = max_num(cuts.floor, draw_above);
  m.cut.cuts = cuts;
  m.cut.low = low, m.cut.high = high;
}

// After the first pass. `margin`: how many bins the estimate may be off.
template <class Contract>
BI_D __noinline__ cut_result plan_second_pass(const sample_plan& plan, sample_memory& m, sample_found& now,
                                              device::cluster_exchange exchange, float most, float margin) {
  const int thread = static_cast<int>(threadIdx.x), blocks = exchange.blocks();
  const bool border = needs_border(plan) && !plan.lists;
  const float listed_from = m.cut.low;
  keep_most(most, m, now);
  __syncthreads();
  const std::uint64_t own_largest = m.cut.largest, own_nan = now.nan;
  const device::message* all;
  if (border) {
    all = share_bins(m, exchange, own_largest, own_nan, pack_counts(m));
  } else {
    all = exchange.tell(own_largest, own_nan);
  }
  std::uint64_t largest = 0, nan = 0;
#pragma unroll 1
  for (int b = 0; b < blocks; ++b) {
    largest = all[2 * b].a > largest ? all[2 * b].a : largest;
    nan |= all[2 * b].b;
  }
  if (nan == 0 && largest <= contract::lowest_key) return {cut_step::done, 0, exchange.state()};  // no candidate
  const float max = float_of_key(static_cast<std::uint32_t>(largest));
  const sample_cuts cuts = row_cuts(plan, max);
  // What is far below the largest need not be listed, be it among the first.
  const bool lists_all = !greater(listed_from, max_num(sub_rn(max, far_below), least_candidate()));
  if (thread == 0) set_second_pass(m, cuts, listed_from, inf_f32(), neg_inf_f32());
  if (nan != 0 || !is_finite(max)) {
    __syncthreads();
    return {cut_step::slow_way, 0, exchange.state()};
  }
  if (!border) {
    __syncthreads();
    const unsigned of_list = list_border | (lists_all ? list_every : 0u);
    return {cut_step::second_pass, plan.lists ? of_list : draw_tokens, exchange.state()};
  }

  const cut_rule rule = {static_cast<std::uint64_t>(plan.top_k), plan.top_p, max};
  const device::value_bins bins = m.cut.bins;
  const bool of_bins = rule.k == 0;
  // For top-p, tokens of the first bins are weighed one by one: an estimate would be off by more than others weigh.
  two_sums ahead = {};
  if (of_bins && m.cut.outliers > 0) {
    two_sums mine = {};
#pragma unroll 1
    for (std::uint32_t i = threadIdx.x; i < m.cut.outliers && i < sample_most_outliers; i += sample_threads) {
      mine.a += rule.weight<Contract>(m.outliers[i]), ++mine.b;
    }
    (void)device::sums_before(mine, m.scan, ahead);
  }
  std::uint32_t count[counts_each] = {};
  for_share(m, exchange, [&](const device::message& some) {
#pragma unroll
    for (int i = 0; i < counts_each; ++i) {
      count[i] +=
          static_cast<std::uint32_t>((i < counts_each / 2 ? some.a : some.b) >> (16 * (i % (counts_each / 2)))) &
          0xffffu;
    }
  });
  // Weights at the middle of bins, each of which is a constant part of that before it.
  const int first_bin = counts_each * (bin_share(exchange).first + thread);
  const int first_bins = m.cut.first_bins;
  const auto is_ahead = [&](int i) { return of_bins && first_bin + i < first_bins; };
  const float middle = edge_of(bins, add_rn(float_from_int(first_bin), 0.5f));
  const float first_weight = of_bins ? bi::exp(min_nan(sub_rn(middle, max), 0.0f)) : 1.0f;
  const float ratio = of_bins ? bi::exp(mul_rn(bins.step(), -static_cast<float>(sample_fine))) : 1.0f;
  const auto to_integer = [&](float x) { return uint64_from_float_rz(of_bins ? mul_rn(x, 0x1p44f) : x); };
  float weights = 0.0f, weight = first_weight;
  std::uint32_t candidates = 0;
#pragma unroll
  for (int i = 0; i < counts_each; ++i) {
    if (is_ahead(i)) count[i] = 0;
    weights = fma_rn(float_from_uint(count[i]), weight, weights);
    weight = mul_rn(weight, ratio);
    candidates += count[i];
  }
  std::uint64_t target = 0;
  two_sums total;
  const bool found = find_border<Contract>(
      {to_integer(weights), candidates}, ahead, rule, target, total, m, &exchange, [&](const two_sums& before) {
        // The same sum again, up to the border.
        const bin_share share(exchange);
        float sum = 0.0f, w = first_weight;
        two_sums above = before;
#pragma unroll 1
        for (int i = 0; i < counts_each; ++i) {
          std::uint32_t here = 0;
#pragma unroll 1
          for (int b = 0; b < blocks; ++b) {
            here += reinterpret_cast<const std::uint16_t*>(&m.inbox[b * share.most + thread])[i];
          }
          if (is_ahead(i)) here = 0;
          sum = fma_rn(float_from_uint(here), w, sum);
          w = mul_rn(w, ratio);
          const std::uint64_t through = before.a + to_integer(sum);
          m.cut.border_bin = static_cast<std::uint32_t>(first_bin + i);
          m.cut.border_above = above.a, m.cut.border_weight = through - above.a;
          above.a = through, above.b += here;
          m.cut.border_count = above.b;
          if (target <= through) break;
        }
      });
  constexpr std::uint64_t most_listed = sample_most_listed - 16;
  float low = least_candidate(), high = inf_f32();
  const bool both = rule.k != 0 && less(plan.top_p, 1.0f);
  bool all_kept = false, listed = true, hopeless = false;
  unsigned work = 0;
  if (total.b <= most_listed) {
    work = list_every;
  } else if (target > total.a) {  // of top-k: there are fewer candidates
    hopeless = total.a >= most_counted;
    all_kept = true;
    listed = false;
  } else {
    const float slack = bin_slack(bins), last = float_from_int(sample_counts - 1);
    float above_bin = 0.0f, last_bin = float_from_int(first_bins - 1);
    std::uint64_t tokens = ahead.b;
    if (found) {
      above_bin = last_bin = float_from_int(static_cast<int>(m.cut.border_bin));
      tokens = m.cut.border_count;
      if (of_bins) {
        const auto share = [](std::uint64_t x) { return float_from_int64(static_cast<std::int64_t>(x >> 1)); };
        const float at = div_rn(share(target - m.cut.border_above), max_num(share(m.cut.border_weight), 1.0f));
        const auto whole = [](float x) { return sub_rn(add_rn(sub_rn(x, 0.5f), 0x1p23f), 0x1p23f); };  // down, about
        above_bin = max_num(whole(add_rn(above_bin, sub_rn(at, margin))), 0.0f);
        last_bin = max_num(whole(add_rn(last_bin, add_rn(at, margin))), last_bin);
      }
    }
    if (found && rule.k != 0 && less(add_rn(edge_of(bins, last_bin), slack), sub_rn(max, far_below))) {
      // Those at the border neither win nor weigh anything: it doesn't matter which of them are kept.
      low = sub_rn(max, far_below);
      work |= list_every;
      tokens = m.cut.border_above;
    } else if (less(last_bin, last)) {  // what is in the last bin may be anything
      low = sub_rn(edge_of(bins, add_rn(last_bin, 1.0f)), slack);
    }
    listed = tokens <= most_listed;
    if (!listed && greater(above_bin, 0.0f)) high = add_rn(edge_of(bins, above_bin), slack);
  }
  if (hopeless || (both && !listed)) {
    __syncthreads();
    return {cut_step::slow_way, 0, exchange.state()};
  }
  if (!all_kept || listed) work |= list_border;
  if (!listed && !m.once.settles) work |= draw_tokens;
  if (!listed && rule.k != 0 && !all_kept) work |= count_sure;
  if (rule.k == 0) work |= add_weights;
  if (thread == 0) set_second_pass(m, cuts, low, high, all_kept ? neg_inf_f32() : high);
  __syncthreads();
  return {cut_step::second_pass, work, exchange.state()};
}

// After the second pass: settles the border, in the first block. All threads of the cluster.
template <class Contract>
BI_D __noinline__ cut_result settle_row(const sample_plan& plan, sample_memory& m, sample_found& now,
                                        device::cluster_exchange exchange, const second_result r, unsigned work) {
  if ((work & list_border) == 0) return {cut_step::done, 0, exchange.state()};
  const int thread = static_cast<int>(threadIdx.x), blocks = exchange.blocks(), rank = exchange.rank();
  const cut_rule rule = {static_cast<std::uint64_t>(plan.top_k), plan.top_p, m.cut.cuts.max};
  std::uint64_t* const list = listed_ranks(m);
  __syncthreads();
  const int mine = static_cast<int>(m.cut.listed);
  if (thread == 0 && mine % 2 != 0 && mine < sample_most_listed) list[mine] = 0;  // no rank: pairs are whole
  std::uint64_t of_list = 0;
  if ((work & add_weights) != 0) {
#pragma unroll 1
    for (int i = thread; i < mine && i < sample_most_listed; i += sample_threads) {
      of_list += rule.template weight<Contract>(float_of_key(rank_value(list[i])));
    }
  }
  two_sums sums, more;
  (void)device::sums_before({r.total, (work & add_weights) != 0 ? r.above : r.sure}, m.scan, sums);
  (void)device::sums_before({of_list, 0}, m.scan, more);
  const device::message* const all = exchange.tell(sums.a, sums.b, more.a, static_cast<std::uint64_t>(mine));
  std::uint64_t total = 0, above = 0, among = 0;
  int listed = 0, pairs = 0, begin = 0, own = 0;
  bool fits = true;
#pragma unroll 1
  for (int b = 0; b < blocks; ++b) {
    const int length = static_cast<int>(all[2 * b + 1].b);
    total += all[2 * b].a, above += all[2 * b].b, among += all[2 * b + 1].a;
    fits = fits && length <= sample_most_listed;
    if (b == rank) begin = pairs, own = (length + 1) / 2;
    listed += length, pairs += (length + 1) / 2;
  }
  if (!fits || pairs > sample_most_listed / 2) return {cut_step::slow_way, 0, exchange.state()};
  std::uint64_t target;
  if (rule.k != 0) {
    target = rule.k;
    among = static_cast<std::uint64_t>(listed);
    if (target <= above || (target > above + among && (work & list_every) == 0))
      return {cut_step::slow_way, 0, exchange.state()};
  } else {
    target = Contract::top_p_target(plan.top_p, total);
    if (target <= above || target > above + among) return {cut_step::slow_way, 0, exchange.state()};
  }

  // The first block's are where they are, and the others' come after them.
  if (rank != 0) {
    device::message* const list_pairs = listed_pairs(m);
    for (int i = thread; i < own; i += sample_threads) {
      exchange.collect(&list_pairs[begin + i], list_pairs[i].a, list_pairs[i].b);
    }
    return {cut_step::done, 0, exchange.state()};
  }
  if (thread == 0) exchange.expect_collected(pairs - own);
  exchange.wait_collected();
  // A list that a sample of the row made goes from the value that it told to the row's largest.
  rank_list ranks = {list, 2 * pairs};
  rank_digits within = {0, short_rank(rule.max, 0)};
  if (plan.lists && greater(m.cut.low, least_candidate())) within.low = short_rank(m.cut.low, sample_id_mask);
  std::uint64_t last = last_in_list<Contract>(m, ranks, rule, target - above, 0, within);
  if (plan.lists && last != 0) ranks = gather_kept(m, ranks, last);
  if (rule.k != 0 && less(plan.top_p, 1.0f)) {
    within.low = plan.lists ? last : 0;
    last = last_in_list<Contract>(m, ranks, {0, plan.top_p, rule.max}, 0, last, within);
  }
  if (thread == 0) {
    m.cut.cuts.value = neg_inf_f32(), m.cut.cuts.id = -1;
    if (last != 0) m.cut.cuts.value = float_of_key(rank_value(last)), m.cut.cuts.id = short_rank_id(last);
  }
  __syncthreads();
#pragma unroll 1
  for (int i = thread; !m.once.settles && i < ranks.count; i += sample_threads) {
    const std::uint64_t rank_here = ranks.rank[i];
    if (rank_here == 0) continue;
    draw_token<Contract>(plan.words, &m.cut.cuts, now, short_rank_id(rank_here), float_of_key(rank_value(rank_here)));
  }
  return {cut_step::done, 0, exchange.state()};
}

// Where the bins don't help: m.cut.cuts by exact selection, and a draw that begins anew. All threads of the cluster; ends
// with a barrier. Returns the exchange's state.
template <class Contract, class T>
BI_D __noinline__ unsigned cut_slowly(const device::row_part<T> part, const sample_plan& plan, sample_memory& m,
                                      sample_found& now, device::cluster_exchange exchange) {
  std::uint32_t largest = 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < part.count; i += sample_threads) {
    const std::uint32_t key = contract::ordered_key(scaled_max<Contract>(to_f32(part.x[i]), plan.inverse));
    largest = key > largest ? key : largest;
  }
  const std::uint64_t of_block = largest_of_block(largest, m);
  const device::message* const all = exchange.tell(of_block, 0);
#pragma unroll 1
  for (int b = 0; b < exchange.blocks(); ++b) {
    largest = all[2 * b].a > largest ? static_cast<std::uint32_t>(all[2 * b].a) : largest;
  }
  const float max = float_of_key(largest);
  std::uint64_t last = 0;
  if (plan.top_k != 0) {
    const cut_rule rule = {static_cast<std::uint64_t>(plan.top_k), 1.0f, max};
    const rank_found found = last_in_row<Contract>(part, plan.inverse, rule, last, m, exchange);
    last = found.last;
    exchange.go_on_at(found.exchange);
  }
  if (less(plan.top_p, 1.0f)) {
    const rank_found found = last_in_row<Contract>(part, plan.inverse, {0, plan.top_p, max}, last, m, exchange);
    last = found.last;
    exchange.go_on_at(found.exchange);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    sample_cuts cuts = row_cuts(plan, max);
    if (last != 0) cuts.value = float_of_key(rank_value(last)), cuts.id = short_rank_id(last);
    cuts.floor = max_num(cuts.floor, cuts.value);
    m.cut.cuts = cuts;
    now.clear_draw();
  }
  __syncthreads();
  return exchange.state();
}

}  // namespace kernel
BI_NAMESPACE_END
