// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/sample.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/softmax.hpp"
#include "bi/sample.hpp"

// sample and verify on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

namespace sample_detail {

struct drawn {
  std::int32_t token = -1;
  std::uint32_t flags = sample_ok;
};

// x: the row's logits, widened; scaled in place. `ranks` is scratch.
template <class Contract>
drawn draw(float* x, std::int64_t vocab, const sample_params& p, std::vector<std::uint64_t>& ranks) {
  drawn out;
  for (std::int64_t i = 0; i < vocab; ++i) {
    if (is_nan(x[i])) out.flags |= sample_saw_nan;
  }
  if (!Contract::valid(p.temperature, p.top_p, p.min_p)) {
    out.flags |= sample_bad_params;
    return out;
  }
  const bool greedy = Contract::greedy(p.temperature);
  const float inverse = greedy ? 1.0f : Contract::inverse(p.temperature);
  // Candidates, best first where more than the best is asked for.
  ranks.clear();
  std::uint64_t first = 0;
  for (std::int64_t i = 0; i < vocab; ++i) {
    x[i] = Contract::scaled(x[i], inverse);
    const std::uint64_t rank = contract::candidate_rank(contract::ordered_key(x[i]), static_cast<std::int32_t>(i));
    first = std::max(first, rank);
    if (!greedy && rank >= contract::lowest_rank) ranks.push_back(rank);
  }
  if (first < contract::lowest_rank) {
    out.flags |= sample_no_candidate;
    return out;
  }
  const std::int32_t best = contract::rank_id(first);
  if (greedy) {
    out.token = best;
    return out;
  }
  const float max = x[best];
  const bool top_k = p.top_k > 0 && static_cast<std::size_t>(p.top_k) < ranks.size();
  const bool top_p = less(p.top_p, 1.0f);
  if (top_k || top_p) std::sort(ranks.begin(), ranks.end(), std::greater<std::uint64_t>());
  if (top_k) ranks.resize(static_cast<std::size_t>(p.top_k));
  if (top_p) {
    const auto weight = [&](std::uint64_t rank) { return Contract::top_p_weight(x[contract::rank_id(rank)], max); };
    std::uint64_t total = 0, before = 0;
    for (const std::uint64_t rank : ranks) total += weight(rank);
    const std::uint64_t target = Contract::top_p_target(p.top_p, total);
    std::size_t kept = 0;
    for (; kept < ranks.size() && before < target; ++kept) before += weight(ranks[kept]);
    ranks.resize(kept);
  }
  const std::uint64_t key = contract::sample_key(p.seed, p.sample_index, p.branch);
  const bool min_p = greater(p.min_p, 0.0f);
  std::uint64_t winner = 0;
  for (const std::uint64_t rank : ranks) {
    const std::int32_t id = contract::rank_id(rank);
    if (min_p && !Contract::min_p_keeps(x[id], max, p.min_p)) continue;
    const float score = add_rn(x[id], contract::gumbel_noise(key, p.ordinal, id));
    winner = std::max(winner, contract::candidate_rank(contract::ordered_key(score), id));
  }
  out.token = contract::rank_id(winner);
  return out;
}

template <class Contract, class T>
void run(const sample_args<T>& a, int threads) {
  const std::int64_t stride = a.logits_stride == 0 ? a.vocab : a.logits_stride;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t blocks = contract::row_blocks(a.vocab);
    std::vector<float> x = row_detail::floats(a.vocab), largest = row_detail::floats(blocks),
                       terms = row_detail::floats(blocks);
    std::vector<std::uint64_t> ranks;
    for (std::int64_t r = begin; r < end; ++r) {
      row_detail::widen(a.logits + r * stride, a.vocab, x.data());
      row_detail::log_sum s{};
      if (a.logprob != nullptr) {
        s = row_detail::log_sum_of<contract::softmax_draft>(x.data(), a.vocab, largest.data(), terms.data());
      }
      const drawn d = draw<Contract>(x.data(), a.vocab, a.params[r], ranks);
      a.token[r] = d.token;
      if (a.flags != nullptr) a.flags[r] = d.flags;
      if (a.logprob == nullptr) continue;
      using form = contract::softmax_draft::log_softmax_form;
      a.logprob[r] = d.token < 0 ? nan_f32() : form::value(to_f32(a.logits[r * stride + d.token]), s.m, form::row(s.l));
    }
  };
  parallel_for(a.rows, threads, rows, row_detail::grain(a.vocab));
}

}  // namespace sample_detail

template <class Contract = contract::sample_draft, class T>
status sample(const sample_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  sample_detail::run<Contract>(a, threads);
  return {};
}

template <class Contract = contract::sample_draft, class T>
status verify(const verify_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  for (std::int64_t i = 0; a.requests > 0 && i <= a.requests; ++i) {
    const std::int64_t low = i == 0 ? 0 : a.start[i - 1];
    if (a.start[i] >= low && a.start[i] <= a.sample.rows) continue;
    return checker("verify")
        .fail(error::index_out_of_range, "start", a.start[i], "rows + 1", a.sample.rows + 1, i)
        .result();
  }
  sample_detail::run<Contract>(a.sample, threads);
  for (std::int64_t i = 0; i < a.requests; ++i) {
    std::int64_t row = a.start[i];
    while (row < a.start[i + 1] && a.draft[row] >= 0 && a.draft[row] == a.sample.token[row]) ++row;
    a.accepted[i] = static_cast<std::int32_t>(row - a.start[i]);
  }
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
