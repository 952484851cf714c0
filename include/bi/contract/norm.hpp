// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"
#include "bi/contract/row_tree.hpp"

BI_NAMESPACE_BEGIN
namespace contract {

// What the norms add to the row tree. x is an element widened to fp32, n the number of columns.

// 1 / sqrt(v / n + eps), v being a sum of squares: four roundings.
BI_HD inline float norm_scale(float v, std::int64_t n, float eps) {
  return rsqrt_rn(add_rn(div_rn(v, float_from_int64(n)), eps));
}

// ---- rms_norm: ss = row tree of fma(x, x, acc), lanes and blocks combined by add; r = norm_scale(ss, n, eps).
// The three forms differ in value(). A row whose squares overflow has ss = Inf and r = 0: its finite elements give
// zeros, its infinite ones NaN. A NaN makes the whole row NaN. A row of zeros with eps = 0 gives NaN (0 times Inf).

// y = cvt(mul(mul(x, r), w)).
struct BI_TYPE rms_norm_draft {
  static constexpr const char* name = "rms_norm_draft";
  static constexpr std::uint64_t id() { return contract_id(name, row_vector, row_lanes, row_block); }

  template <class T>
  BI_HD static T value(float x, float r, float w) {
    return cvt_rn<T>(mul_rn(mul_rn(x, r), w));
  }
};

// y = cvt(mul(cvt(mul(x, r)), w)): rounded to T before the weight, as Hugging Face's Llama and Qwen models do it.
struct BI_TYPE rms_norm_hf_draft {
  static constexpr const char* name = "rms_norm_hf_draft";
  static constexpr std::uint64_t id() { return contract_id(name, row_vector, row_lanes, row_block); }

  template <class T>
  BI_HD static T value(float x, float r, float w) {
    return cvt_rn<T>(mul_rn(to_f32(cvt_rn<T>(mul_rn(x, r))), w));
  }
};

// y = cvt(mul(mul(x, r), add(1, w))): the stored weight is the distance from 1, as in Gemma's models.
struct BI_TYPE rms_norm_one_plus_draft {
  static constexpr const char* name = "rms_norm_one_plus_draft";
  static constexpr std::uint64_t id() { return contract_id(name, row_vector, row_lanes, row_block); }

  template <class T>
  BI_HD static T value(float x, float r, float w) {
    return cvt_rn<T>(mul_rn(mul_rn(x, r), add_rn(1.0f, w)));
  }
};

// ---- layer_norm: sum = row tree of add; mean = div(sum, n); v = row tree of fma(d, d, acc) with d = sub(x, mean),
// lanes and blocks combined by add; r = norm_scale(v, n, eps); y = cvt(add(mul(mul(d, r), w), b)). A step whose weight or
// bias is absent is skipped (adding +0 would turn -0 into +0). A NaN or an infinity makes the whole row NaN.

struct BI_TYPE centred_square_step {
  float mean;
  BI_HD float operator()(float acc, float x) const {
    const float d = sub_rn(x, mean);
    return fma_rn(d, d, acc);
  }
};

struct BI_TYPE layer_norm_draft {
  static constexpr const char* name = "layer_norm_draft";
  static constexpr std::uint64_t id() { return contract_id(name, row_vector, row_lanes, row_block); }

  BI_HD static float mean(float sum, std::int64_t n) { return div_rn(sum, float_from_int64(n)); }

  // w and b are ignored where has_w and has_b are false.
  template <class T>
  BI_HD static T value(float x, float mean, float r, bool has_w, float w, bool has_b, float b) {
    float y = mul_rn(sub_rn(x, mean), r);
    if (has_w) y = mul_rn(y, w);
    if (has_b) y = add_rn(y, b);
    return cvt_rn<T>(y);
  }
};

}  // namespace contract
BI_NAMESPACE_END
