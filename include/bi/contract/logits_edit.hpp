// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"
#include "bi/dtype.hpp"

// What becomes of one logit before a token is drawn from its row; bi/contract/sample.hpp goes on from there. A row's
// result depends on its logits, its parameters, the counts of its slot, its drafts, its bias list and its mask.
//
// x is the logit, widened to fp32. n is how often the token was put out: its count in the row's slot, if that is
// positive and the token's output bit is set, plus one for each of the row's drafts that is this token. In this order:
//
//   repetition  x = greater(x, 0) ? div(x, r) : mul(x, r)   n > 0 or the token's prompt bit is set, and r is not 1
//   frequency   x = sub(x, mul(frequency, cvt(n)))          n > 0, and frequency is not 0
//   presence    x = sub(x, presence)                        n > 0, and presence is not 0
//   bias        x = add(x, value)                           for each entry of the row's list with this id, in order
//   mask        x = -Inf                                    the row has a mask and the token's bit is 0
//   result      cvt(x)
//
// A step whose condition is not met is left out: it would change -0 and NaN. A logit for which all are left out keeps
// its bits, or is widened exactly where the result is of another type. -0 is not greater than 0. NaN stays NaN but
// under the mask; infinities follow IEEE, so a bias of +Inf on -Inf is NaN, which sample() takes for -Inf.
//
// The penalties are those of vLLM and, for repetition, Hugging Face transformers, operation by operation in fp32. Their
// division stays one: only tokens that have occurred are divided, so a product with the reciprocal would save nothing.
//
// A row whose parameters are not valid has NaN everywhere, so that sample() reports it.

BI_NAMESPACE_BEGIN
namespace contract {

// ---- sets of tokens, a bit each: bit id % 32 of word id / 32

inline constexpr int token_word_bits = 32;

BI_HD constexpr std::int64_t token_words(std::int64_t vocab) { return (vocab + token_word_bits - 1) / token_word_bits; }

// How long the tables are that a row's parameters point into.
struct BI_TYPE logits_edit_limits {
  std::int64_t slots = 0, masks = 0, biases = 0, drafts = 0;
};

struct BI_TYPE edited_logit {
  float x;
  bool edited = false;  // whether a step was taken
};

struct BI_TYPE logits_edit_draft {
  static constexpr const char* name = "logits_edit_draft";
  static constexpr std::uint64_t id() { return contract_id(name, token_word_bits); }

  BI_HD static constexpr bool valid_range(std::int64_t begin, std::int64_t end, std::int64_t size) {
    return 0 <= begin && begin <= end && end <= size;
  }
  // Penalties and drafts are not looked at without a slot. Row: logits_edit_params.
  template <class Row>
  BI_HD static bool valid(const Row& row, const logits_edit_limits& limits) {
    if (row.mask >= limits.masks || !valid_range(row.bias_begin, row.bias_end, limits.biases)) return false;
    if (row.slot < 0) return true;
    return row.slot < limits.slots && valid_range(row.draft_begin, row.draft_end, limits.drafts) &&
           is_finite(row.repetition) && !less(row.repetition, 0x1p-126f) && is_finite(row.frequency) &&
           is_finite(row.presence);
  }
  template <class Row>
  BI_HD static bool repeats(const Row& row) {
    return row.slot >= 0 && !equal(row.repetition, 1.0f);
  }
  template <class Row>
  BI_HD static bool subtracts(const Row& row) {
    return row.slot >= 0 && !(equal(row.frequency, 0.0f) && equal(row.presence, 0.0f));
  }

  // n: `count` is the table's.
  BI_HD static constexpr std::uint32_t times_put_out(bool output_bit, std::int32_t count, std::uint32_t drafts) {
    return (output_bit && count > 0 ? static_cast<std::uint32_t>(count) : 0u) + drafts;
  }

  // Repetition, frequency and presence, of a row with a slot.
  template <class Row>
  BI_HD static void penalise(edited_logit& l, const Row& row, bool prompt_bit, std::uint32_t n) {
    if ((prompt_bit || n > 0) && !equal(row.repetition, 1.0f)) {
      l.x = greater(l.x, 0.0f) ? div_rn(l.x, row.repetition) : mul_rn(l.x, row.repetition);
      l.edited = true;
    }
    if (n > 0 && !equal(row.frequency, 0.0f)) {
      l.x = sub_rn(l.x, mul_rn(row.frequency, float_from_uint(n)));
      l.edited = true;
    }
    if (n > 0 && !equal(row.presence, 0.0f)) {
      l.x = sub_rn(l.x, row.presence);
      l.edited = true;
    }
  }
  BI_HD static void add_bias(edited_logit& l, float value) {
    l.x = add_rn(l.x, value);
    l.edited = true;
  }

  // Of a logit for which no step was taken. Out is T or float.
  template <class Out, class T>
  BI_HD static Out kept(T logit) {
    if constexpr (std::is_same_v<T, Out>) {
      return logit;
    } else {
      static_assert(std::is_same_v<Out, float>, "the result has the logits' type or is fp32");
      return to_f32(logit);
    }
  }
  template <class Out>
  BI_HD static Out masked() {
    return cvt_rn<Out>(neg_inf_f32());
  }
  template <class Out>
  BI_HD static Out invalid() {
    return cvt_rn<Out>(nan_f32());
  }
};

}  // namespace contract
BI_NAMESPACE_END
