// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"
#include "bi/contract/id.hpp"
#include "bi/contract/philox.hpp"

// How one token is drawn from one row of logits. Nothing here knows which row of which batch it is.
//
//   x_i      = mul(logit_i, div(1, temperature)); a NaN logit counts as -Inf
//   candidate: x_i > -Inf; in the order (x descending, id ascending), +0 and -0 being equal
//   top-k    keeps the first k candidates
//   top-p    keeps, of those, each before which the weights add up to less than top_p times their total, exactly. The
//            weights are 64-bit integers, so neither sum has an order. The first is always kept
//   min-p    keeps, of those, each whose exp(x - largest x) is at least min_p, and those that equal the largest
//   token    the largest add(x_i, noise_i) of what is left, ties to the lowest id
//
// temperature 0 takes the largest logit, ties to the lowest id, whatever the other parameters; they must be valid all
// the same. An x that overflows is an infinity like any other. Noise is finite, so +Inf beats every number and the
// lowest id of several is drawn.

BI_NAMESPACE_BEGIN
namespace contract {

// The largest vocabulary whose top-p weights, at most 2^44 each, add up in 64 bits.
inline constexpr std::int64_t sample_max_vocab = (std::int64_t{1} << 20) - 1;

// ---- noise

enum class random_purpose : std::uint32_t { gumbel = 1 };

BI_HD constexpr std::uint64_t sample_key(std::uint64_t seed, std::uint32_t sample_index, std::uint64_t branch) {
  constexpr std::uint64_t step = 0x9E3779B97F4A7C15u;
  const std::uint64_t h = mix64(mix64(seed + step) + sample_index + step);
  return mix64(h + branch + step);
}

// The branch value of branch `index` of a plain request (parent 0) or of a branch.
BI_HD constexpr std::uint64_t branch_path(std::uint64_t parent, std::uint64_t index) {
  return mix64(parent + (index + 1) * 0x9E3779B97F4A7C15u);
}

// The random words of tokens 4 quad .. 4 quad + 3. `ordinal` is that of the token to be drawn.
BI_HD constexpr philox_block sample_words(std::uint64_t key, std::uint32_t ordinal, std::uint32_t quad) {
  return philox4x32_10({{ordinal, quad, static_cast<std::uint32_t>(random_purpose::gumbel), 0}},
                       static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32));
}

// A Gumbel variable: v uniform in (0, 1), E = -log1p(-v) exponential, -log(E). The large values that decide a draw come
// from small v, where fp32 is dense; -log(-log(v)) would take them from v near 1. Words that would round to v = 1 give
// the largest v below it: noise lies within (-2.9, 22.9).
BI_HD inline float gumbel_noise(std::uint32_t word) {
  const std::uint32_t r = word < 0xffffff7fu ? word : 0xffffff7fu;
  const float v = mul_rn(add_rn(float_from_uint(r), 0.5f), 0x1p-32f);
  return neg(bi::log(neg(bi::log1p(neg(v)))));
}
BI_HD inline float gumbel_noise(std::uint64_t key, std::uint32_t ordinal, std::int32_t id) {
  const auto u = static_cast<std::uint32_t>(id);
  return gumbel_noise(sample_words(key, ordinal, u / 4).word[u % 4]);
}

// ---- order

// Integers in the order of the floats: -0 with +0, NaN with -Inf. Never 0.
BI_HD inline std::uint32_t ordered_key(float x) {
  std::uint32_t u = bits_of(x);
  if (is_nan(x)) u = inf_bits | 0x80000000u;
  if (u == 0x80000000u) u = 0;
  return (u >> 31) != 0 ? ~u : u | 0x80000000u;
}
inline constexpr std::uint32_t lowest_key = 0x007fffffu;  // of -Inf

// A candidate's place in the order (x descending, id ascending): the largest rank comes first. Since ranks are
// distinct, "the first n" is "rank >= that of the n-th": top-k and top-p are lower bounds of the rank.
BI_HD constexpr std::uint64_t candidate_rank(std::uint32_t key, std::int32_t id) {
  return static_cast<std::uint64_t>(key) << 32 | (0xffffffffu - static_cast<std::uint32_t>(id));
}
BI_HD constexpr std::int32_t rank_id(std::uint64_t rank) {
  return static_cast<std::int32_t>(0xffffffffu - static_cast<std::uint32_t>(rank));
}
BI_HD constexpr std::uint32_t rank_key(std::uint64_t rank) { return static_cast<std::uint32_t>(rank >> 32); }
inline constexpr std::uint64_t lowest_rank = std::uint64_t{lowest_key + 1} << 32;  // at most any candidate's

struct BI_TYPE sample_draft {
  static constexpr const char* name = "sample_draft";
  static constexpr std::uint64_t id() { return contract_id(name, sample_max_vocab, random_purpose::gumbel); }

  // Temperature 0, or normal and finite, so that its reciprocal is finite and not 0. No NaN anywhere.
  BI_HD static bool valid(float temperature, float top_p, float min_p) {
    const bool normal = is_finite(temperature) && !less(temperature, 0x1p-126f);
    return (normal || equal(temperature, 0.0f)) && !is_nan(top_p) && !is_nan(min_p);
  }
  BI_HD static bool greedy(float temperature) { return equal(temperature, 0.0f); }
  BI_HD static float inverse(float temperature) { return div_rn(1.0f, temperature); }
  BI_HD static float scaled(float logit, float inverse) {
    return is_nan(logit) ? neg_inf_f32() : mul_rn(logit, inverse);
  }

  // x - max, max being the largest scaled value of the row; 0 where they are equal, infinities included.
  BI_HD static float below_max(float x, float max) { return equal(x, max) ? 0.0f : sub_rn(x, max); }

  // 2^44 for the largest value.
  BI_HD static std::uint64_t top_p_weight(float x, float max) {
    return uint64_from_float_rz(mul_rn(bi::exp(below_max(x, max)), 0x1p44f));
  }

  // A candidate is kept if and only if the weights before it add up to less than this: ceil(top_p * total), exactly, at
  // least 1; for top_p >= 1 more than any sum.
  BI_HD static std::uint64_t top_p_target(float top_p, std::uint64_t total) {
    if (!less(top_p, 1.0f)) return ~std::uint64_t{0};
    if (!greater(top_p, 0.0f)) return 1;
    // top_p = m * 2^-shift, 24 <= shift <= 149; the product fits 88 bits.
    const std::uint32_t u = bits_of(top_p), exponent = u >> 23;
    const std::uint64_t m = exponent == 0 ? u : (u & 0x7fffffu) | 0x800000u;
    const std::uint32_t shift = exponent == 0 ? 149 : 150 - exponent;
    const std::uint64_t lower = m * (total & 0xffffffffu), upper = m * (total >> 32);
    const std::uint64_t low = lower + (upper << 32);
    const std::uint64_t high = (upper >> 32) + (low < lower ? 1 : 0);
    std::uint64_t floor = 0, rest = low | high;
    if (shift < 64) {
      floor = high << (64 - shift) | low >> shift;
      rest = low & ((std::uint64_t{1} << shift) - 1);
    } else if (shift < 88) {
      floor = high >> (shift - 64);
      rest = low | (high & ((std::uint64_t{1} << (shift - 64)) - 1));
    }
    const std::uint64_t ceil = floor + (rest != 0 ? 1 : 0);
    return ceil != 0 ? ceil : 1;
  }

  BI_HD static bool min_p_keeps(float x, float max, float min_p) {
    return equal(x, max) || !less(bi::exp(below_max(x, max)), min_p);
  }
};

}  // namespace contract
BI_NAMESPACE_END
