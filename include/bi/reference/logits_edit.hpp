// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/logits_edit.hpp"
#include "bi/logits_edit.hpp"
#include "bi/reference/parallel.hpp"

// logits_edit on the CPU: step after step over whole rows.

BI_NAMESPACE_BEGIN
namespace reference {

namespace logits_edit_detail {

struct scratch {
  std::vector<contract::edited_logit> logit;
  std::vector<std::uint32_t> drafts;  // how often each token is one of the row's drafts
};

inline bool has_bit(const std::uint32_t* words, std::int64_t id) { return (words[id / 32] >> (id % 32) & 1) != 0; }

template <class Contract, class T, class Out>
void penalise(const logits_edit_args<T, Out>& a, const logits_edit_params& row, scratch& s) {
  const auto in_vocab = [&](std::int64_t id) { return id >= 0 && id < a.vocab; };
  std::fill(s.drafts.begin(), s.drafts.end(), 0u);
  for (std::int64_t d = row.draft_begin; d < row.draft_end; ++d) {
    if (in_vocab(a.draft[d])) ++s.drafts[static_cast<std::size_t>(a.draft[d])];
  }
  const token_counts& t = a.counts;
  const std::int32_t* const count = t.count + row.slot * count_stride(t);
  const std::uint32_t* const output = t.output + row.slot * bits_stride(t);
  const std::uint32_t* const prompt = t.prompt == nullptr ? nullptr : t.prompt + row.slot * bits_stride(t);
  for (std::int64_t i = 0; i < a.vocab; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const std::uint32_t n = Contract::times_put_out(has_bit(output, i), count[i], s.drafts[at]);
    Contract::penalise(s.logit[at], row, prompt != nullptr && has_bit(prompt, i), n);
  }
}

template <class Contract, class T, class Out>
void edit_row(const logits_edit_args<T, Out>& a, std::int64_t r, scratch& s) {
  const T* const x = a.logits + r * (a.logits_stride == 0 ? a.vocab : a.logits_stride);
  Out* const out = a.out + r * (a.out_stride == 0 ? a.vocab : a.out_stride);
  const logits_edit_params& row = a.params[r];
  if (!Contract::valid(row, {a.counts.slots, a.masks, a.biases, a.drafts})) {
    std::fill_n(out, a.vocab, Contract::template invalid<Out>());
    return;
  }
  for (std::int64_t i = 0; i < a.vocab; ++i) s.logit[static_cast<std::size_t>(i)] = {to_f32(x[i])};
  if (row.slot >= 0) penalise<Contract>(a, row, s);
  for (std::int64_t b = row.bias_begin; b < row.bias_end; ++b) {
    const std::int64_t id = a.bias_id[b];
    if (id >= 0 && id < a.vocab) Contract::add_bias(s.logit[static_cast<std::size_t>(id)], a.bias[b]);
  }
  const std::int64_t mask_stride = a.mask_stride == 0 ? contract::token_words(a.vocab) : a.mask_stride;
  const std::int32_t* const mask = row.mask < 0 ? nullptr : a.mask + row.mask * mask_stride;
  for (std::int64_t i = 0; i < a.vocab; ++i) {
    const contract::edited_logit& l = s.logit[static_cast<std::size_t>(i)];
    if (mask != nullptr && (static_cast<std::uint32_t>(mask[i / 32]) >> (i % 32) & 1) == 0) {
      out[i] = Contract::template masked<Out>();
    } else {
      out[i] = l.edited ? cvt_rn<Out>(l.x) : Contract::template kept<Out>(x[i]);
    }
  }
}

}  // namespace logits_edit_detail

template <class Contract = contract::logits_edit_draft, class T, class Out>
status logits_edit(const logits_edit_args<T, Out>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    logits_edit_detail::scratch s;
    s.logit.resize(static_cast<std::size_t>(a.vocab));
    s.drafts.resize(static_cast<std::size_t>(a.vocab));
    for (std::int64_t r = begin; r < end; ++r) logits_edit_detail::edit_row<Contract>(a, r, s);
  };
  parallel_for(a.rows, threads, rows, 16384 / a.vocab + 1);
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
