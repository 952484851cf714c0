// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"

// Bins of a row's values, and what counts in them prove of the border of top-k and of top-p.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int value_bin_count = 8192;

// Bins of equal width, from the largest value down. The first and the last have what is beyond them, too.
struct value_bins {
  float top, range;

  BI_HD float scale() const { return div_rn(-1.0f, range); }
  BI_HD float offset() const { return mul_rn(neg(top), scale()); }
  // Never smaller for a smaller value. Places are rounded to quarters of a bin.
  BI_HD int bin(float x) const {
    const float part = min_nan(max_num(fma_rn(x, scale(), offset()), 0.0f), 1.0f);
    return static_cast<int>((bits_of(fma_rn(part, 4.0f * (value_bin_count - 1), 0x1p23f)) & 0x7fffffu) >> 2);
  }
  // The largest value of a bin, but for slack().
  BI_HD float edge(float bin) const {
    return fma_rn(range, mul_rn(sub_rn(0.125f, bin), 1.0f / (value_bin_count - 1)), top);
  }
  BI_HD float step() const { return mul_rn(range, 1.0f / (value_bin_count - 1)); }
  // Roundings of scale, offset, places and edges, in all less than 8 of an operand's last places.
  BI_HD float slack() const { return mul_rn(0x1p-19f, max_num(abs(top), range)); }
  // exp(the largest value of a bin - top).
  BI_HD float weight(float bin) const { return bi::exp(mul_rn(step(), sub_rn(0.125f, bin))); }
};

// Sums of counts times weight(bin): from above, and times `down` / `up` from below. For top-k each weighs 1. Where a
// token has at most a certain sum before it, it is surely kept; from a certain sum on, surely dropped.
struct border_bounds {
  float k;         // above 0: top-k
  float p, rest;   // top_p, and 1 - top_p
  float up, down;  // the largest value weighs 1 in the products
  float lost;      // that weights lose as they are cut to integers, at most
  float ahead;     // the weight of tokens that come before all bins
  float all, low;  // the sum of all bins, and one that leaves out those of which nothing is known from below
  float gap;       // that differences of sums may be off

  // Weighs each token by itself as well as it is known: relative errors of sums stay below 2^-17.
  static constexpr float margin = 0x1p-17f;

  BI_HD static border_bounds top_k(int k) {
    border_bounds b = {};
    b.k = float_from_int(k);
    return b;
  }
  // `sum`: of all bins; `last`: of the last ones.
  BI_HD static border_bounds top_p(float top_p, const value_bins& bins, float max, int vocab, float ahead, float sum,
                                   float last) {
    border_bounds b = {};
    b.p = top_p, b.rest = sub_rn(1.0f, top_p);
    // 1 - off <= exp(-off), below 1. Of values so large that bins say nothing of weights all is NaN, which proves nothing.
    const float off = add_rn(0x1p-15f, add_rn(bins.slack(), bins.slack()));
    const float unit = less(off, 0.5f) ? bi::exp(sub_rn(bins.top, max)) : nan_f32();
    b.up = div_rn(unit, sub_rn(1.0f, off));
    b.down = mul_rn(mul_rn(unit, bi::exp(neg(bins.step()))), sub_rn(1.0f, off));
    b.lost = mul_rn(float_from_int(vocab), 0x1p-44f);
    b.ahead = ahead;
    b.gap = mul_rn(margin, sum);
    b.all = sum, b.low = sub_rn(sub_rn(sum, last), b.gap);
    return b;
  }

  // A token before which there are at most `ahead` and `before`.
  BI_HD bool keeps(float before) const {
    if (greater(k, 0.0f)) return less(before, k);
    return keeps_of(fma_rn(before, up, ahead), from_below(sub_rn(low, before)));
  }
  // One before which there are at least those.
  BI_HD bool drops(float before) const {
    if (greater(k, 0.0f)) return !less(before, k);
    return drops_of(sub_rn(fma_rn(before, down, ahead), lost), from_above(sub_rn(all, before)));
  }
  // Of sums of weights: those before a token, and of it and those after it. False where one is NaN.
  BI_HD bool keeps_of(float before, float after) const {
    return less_equal(before, 0.0f) || less(mul_rn(rest, before), mul_rn(mul_rn(p, after), 1.0f - margin));
  }
  BI_HD bool drops_of(float before, float after) const {
    return greater(before, 0.0f) && less_equal(mul_rn(mul_rn(p, after), 1.0f + margin), mul_rn(rest, before));
  }
  BI_HD float from_below(float sum) const { return max_num(sub_rn(mul_rn(sum, down), lost), 0.0f); }
  BI_HD float from_above(float sum) const { return max_nan(mul_rn(add_rn(sum, gap), up), 0.0f); }
};

// Of one token: what those before it and those after it, itself among these, weigh together, where each weighs
// exp2_about((x - max) log2(e)) and is part of 64 additions and one for each 8192 tokens.
struct token_bounds {
  border_bounds border;
  float near, lost;

  BI_HD static token_bounds top_p(float top_p, float max, int vocab) {
    token_bounds b = {};
    b.border.p = top_p, b.border.rest = sub_rn(1.0f, top_p);
    // Exponents down to -46, below which nothing counts, are off by 3 units in the last place, and by one of max log2(e).
    const float sums = fma_rn(0x1p-13f, float_from_int(vocab), 64.0f);
    const float off = fma_rn(sums, 0x1p-24f, fma_rn(0x1p-23f, abs(max), 0x1p-17f));
    // Of values so large that their differences say nothing of weights NaN, which proves nothing.
    b.near = less(off, 0.5f) ? sub_rn(1.0f, off) : nan_f32();
    // As weights are cut to integers.
    b.lost = mul_rn(float_from_int(vocab), 0x1p-43f);
    return b;
  }
  BI_HD bool keeps(float before, float after) const {
    return border.keeps_of(div_rn(add_rn(before, lost), near), max_num(sub_rn(mul_rn(after, near), lost), 0.0f));
  }
  BI_HD bool drops(float before, float after) const {
    return border.drops_of(sub_rn(mul_rn(before, near), lost), div_rn(add_rn(after, lost), near));
  }
};

}  // namespace device
BI_NAMESPACE_END
