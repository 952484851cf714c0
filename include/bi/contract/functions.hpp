// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"

// exp2, exp, log2, log, log1p, tanh, erf and the activations made of them, as sequences of rounding primitives: no
// table, no libm, no special function unit, so host and device agree in every bit. A NaN operand gives the NaN
// 0x7fffffff, subnormals are operands and results like any other. Bounds are in units in the last place of the exact
// result, over every float; tests/contract/functions_test.cpp checks them.

BI_NAMESPACE_BEGIN

namespace contract {

// For y >= +0.
BI_HD inline float with_sign_of(float y, float x) { return float_of(bits_of(y) | (bits_of(x) & 0x80000000u)); }

// Horner's rule, highest coefficient first: c0 x^k + ... + ck.
BI_HD inline float polynomial(float, float c) { return c; }
template <class... Coefficients>
BI_HD inline float polynomial(float x, float c0, float c1, Coefficients... rest) {
  return polynomial(x, fma_rn(c0, x, c1), rest...);
}

// x + 1.5 * 2^23 is x rounded to an integer n, ties to even, for |x| < 2^22; n is in the low bits.
inline constexpr float round_magic = 12582912.0f;
inline constexpr std::uint32_t round_magic_bits = 0x4b400000u;

// p * 2^n for p near 1 and -252 <= n <= 254: the first step is exact, so a subnormal result is rounded once.
// `shifted` is n + round_magic. With p = NaN, n is meaningless and harmless.
BI_HD inline float scale_by_power(float p, float shifted) {
  const std::uint32_t n = bits_of(shifted) - round_magic_bits;
  const std::uint32_t half = (n >> 1) | (n & 0x80000000u);
  return mul_rn(mul_rn(p, float_of((half + 127u) << 23)), float_of((n - half + 127u) << 23));
}

// x = 2^e (1 + f) with 1 + f in [2/3, 4/3), x positive and finite. Near 1, e is 0 and f exact.
struct BI_TYPE log_argument {
  float e;
  float f;
};
inline constexpr std::uint32_t log_split_bits = 0x3f2aaaabu;  // 2/3

BI_HD inline float log_exponent(std::uint32_t i) {  // i: an exponent difference, in place
  return sub_rn(float_of(round_magic_bits + static_cast<std::uint32_t>(static_cast<std::int32_t>(i) >> 23)),
                round_magic);
}

BI_HD inline log_argument split_log_argument(float x) {
  std::uint32_t u = bits_of(x);
  const bool subnormal = u < 0x00800000u;
  if (subnormal) u = bits_of(mul_rn(x, 0x1p23f));
  const std::uint32_t i = (u - log_split_bits) & 0xff800000u;
  const float e = log_exponent(i);
  return {subnormal ? sub_rn(e, 23.0f) : e, sub_rn(float_of(u - i), 1.0f)};
}

// (log(1 + f) - f) / f^2 on [-1/3, 1/3].
BI_HD inline float log_polynomial(float f) {
  return polynomial(f, -0x1.ff965ap-4f, 0x1.1ff520p-3f, -0x1.f6b674p-4f, 0x1.1e8250p-3f, -0x1.557e26p-3f,
                    0x1.99d58cp-3f, -0x1.ffff94p-3f, 0x1.5554fap-2f, -0.5f);
}

// e ln(2) + log(1 + f + rest). The first product is exact, and what the first sum rounds away is added again.
BI_HD inline float log_sum(float e, float f, float rest) {
  const float high = mul_rn(e, 0x1.62e4p-1f);
  const float sum = add_rn(high, f);
  const float lost = add_rn(sub_rn(f, sub_rn(sum, high)), rest);
  return add_rn(sum, fma_rn(mul_rn(f, f), log_polynomial(f), fma_rn(e, 0x1.7f7d1cp-20f, lost)));
}

// log and log2 of zero, negative numbers, infinities and NaN; every other x is ordinary.
BI_HD inline bool log_is_ordinary(float x) { return bits_of(x) - 1u < inf_bits - 1u; }
BI_HD inline float log_special(float x) {
  if ((bits_of(x) & 0x7fffffffu) == 0) return neg_inf_f32();
  return bits_of(x) == inf_bits ? inf_f32() : nan_f32();
}

}  // namespace contract

// Below 0.9 ulp (0.81 where the result is normal). exp2(n) is exact for integers n.
BI_HD inline float exp2(float x) {
  x = min_nan(max_nan(x, -160.0f), 128.0f);
  const float t = add_rn(x, contract::round_magic);
  const float r = sub_rn(x, sub_rn(t, contract::round_magic));
  const float p = contract::polynomial(r, 0x1.4c1416p-13f, 0x1.5fbfd0p-10f, 0x1.3b21c8p-7f, 0x1.c6ada8p-5f,
                                       0x1.ebfbe6p-3f, 0x1.62e432p-1f, 1.0f);
  return contract::scale_by_power(p, t);
}

// Below 0.9 ulp.
BI_HD inline float exp(float x) {
  x = min_nan(max_nan(x, -104.0f), 89.0f);
  const float t = fma_rn(x, 0x1.715476p+0f, contract::round_magic);
  const float n = sub_rn(t, contract::round_magic);
  float r = fma_rn(n, -0x1.62e430p-1f, x);  // exact
  r = fma_rn(n, 0x1.05c610p-29f, r);
  const float p = contract::polynomial(r, 0x1.6ab93ep-10f, 0x1.123d74p-7f, 0x1.55585ap-5f, 0x1.55548cp-3f,
                                       0x1.fffffcp-2f, 1.0f, 1.0f);
  return contract::scale_by_power(p, t);
}

// Below 1.2 ulp. Powers of two give exact results, 1 gives +0.
BI_HD inline float log2(float x) {
  if (!contract::log_is_ordinary(x)) return contract::log_special(x);
  const contract::log_argument a = contract::split_log_argument(x);
  // f log2(e) as high + low, then the rest of log(1 + f).
  const float high = mul_rn(a.f, 0x1.715476p+0f);
  float low = fma_rn(a.f, 0x1.715476p+0f, neg(high));
  low = fma_rn(a.f, 0x1.4ae0c0p-26f, low);
  low = fma_rn(mul_rn(mul_rn(a.f, a.f), contract::log_polynomial(a.f)), 0x1.715476p+0f, low);
  const float sum = add_rn(a.e, high);
  return add_rn(sum, add_rn(sub_rn(high, sub_rn(sum, a.e)), low));
}

// Below 0.9 ulp. log(1) is +0.
BI_HD inline float log(float x) {
  if (!contract::log_is_ordinary(x)) return contract::log_special(x);
  const contract::log_argument a = contract::split_log_argument(x);
  return contract::log_sum(a.e, a.f, 0.0f);
}

// log(1 + x), below 1 ulp. Zeros keep their sign, log1p(-1) is -Inf.
BI_HD inline float log1p(float x) {
  const std::uint32_t magnitude = bits_of(x) & 0x7fffffffu;
  if (magnitude < 0x33000000u) return x;  // below 2^-25, where x - x^2 / 2 rounds to x
  const float u = add_rn(1.0f, x);
  if (!contract::log_is_ordinary(u)) return contract::log_special(u);
  // x and 1 are scaled by 2^-e one by one, so that what 1 + x rounds away is kept.
  const std::uint32_t i = (bits_of(u) - contract::log_split_bits) & 0xff800000u;
  const float scaled = float_of(bits_of(x) - i);
  const float rest = fma_rn(0.25f, float_of(0x40800000u - i), -1.0f);
  const float f = add_rn(scaled, rest);
  const float lost = sub_rn(scaled, sub_rn(f, rest));
  return contract::log_sum(contract::log_exponent(i), f, fma_rn(neg(f), lost, lost));
}

// Below 1.6 ulp. Odd, and 1 from 9.02 on.
BI_HD inline float tanh(float x) {
  if (is_nan(x)) return nan_f32();
  const float a = abs(x);
  float y;
  if (bits_of(a) < 0x3f0ccccdu) {  // 0.55
    const float s = mul_rn(a, a);
    const float p =
        contract::polynomial(s, -0x1.99219ep-8f, 0x1.58e518p-6f, -0x1.b91e7ep-5f, 0x1.110ceep-3f, -0x1.55554ap-2f);
    y = fma_rn(mul_rn(p, s), a, a);
  } else {
    y = sub_rn(1.0f, div_rn(2.0f, add_rn(exp(add_rn(a, a)), 1.0f)));
  }
  return contract::with_sign_of(y, x);
}

// Below 1.1 ulp. Odd, and 1 from 3.92 on.
BI_HD inline float erf(float x) {
  if (is_nan(x)) return nan_f32();
  const float a = abs(x);
  float y;
  if (bits_of(a) < 0x3f6e147bu) {  // 0.93
    const float p = contract::polynomial(mul_rn(a, a), 0x1.4f6760p-14f, -0x1.a60a2ep-11f, 0x1.544a1ap-8f,
                                         -0x1.b8011ap-6f, 0x1.ce2d64p-4f, -0x1.812740p-2f, 0x1.06eba8p-3f);
    y = fma_rn(p, a, a);
  } else {
    const float c = min_nan(a, 4.0f);  // erf(4) rounds to 1
    const float p = contract::polynomial(c, -0x1.c0c292p-13f, 0x1.a56410p-9f, -0x1.770772p-6f, 0x1.af2704p-4f,
                                         0x1.457ce0p-1f, 0x1.073288p-3f);
    y = sub_rn(1.0f, exp(neg(fma_rn(p, c, c))));  // 1 - erfc(c)
  }
  return contract::with_sign_of(y, x);
}

// x / (1 + exp(-x)), below 2.5 ulp for x >= -87; below -88.73, where exp(-x) is Inf, the result is -0. silu(-Inf) is
// -Inf / Inf, a NaN.
BI_HD inline float silu(float x) { return div_rn(x, add_rn(1.0f, exp(neg(x)))); }

// x (1 + erf(x / sqrt(2))) / 2. The error is below 1.6 ulp of x; where the sum cancels (x < -1) it grows relative to
// the result, which is -0 below -5.55. gelu(-Inf) is NaN.
BI_HD inline float gelu(float x) { return mul_rn(x, mul_rn(0.5f, add_rn(1.0f, erf(mul_rn(x, 0x1.6a09e6p-1f))))); }

// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, with the same bound; -0 below -5.16.
BI_HD inline float gelu_tanh(float x) {
  const float inner = fma_rn(0x1.6e4e26p-5f, mul_rn(mul_rn(x, x), x), x);
  return mul_rn(x, mul_rn(0.5f, add_rn(1.0f, tanh(mul_rn(inner, 0x1.988454p-1f)))));
}

BI_NAMESPACE_END
