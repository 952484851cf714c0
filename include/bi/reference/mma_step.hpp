// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/dtype.hpp"

// One step of Hopper's tensor core on the CPU: d = c + sum of a[k] b[k] over 16 k, as mma.sync.m16n8k16 and wgmma k16
// with fp32 accumulators compute it for each output element (bf16 and fp16). This is the definition, in integers, short
// and for every operand. bi/reference/mma.hpp runs chains of steps fast.

BI_NAMESPACE_BEGIN
namespace reference {

namespace mma_detail {

template <class T>
struct format;
template <>
struct format<bf16> {
  static constexpr int fraction = 7, min_exponent = -126, exponent_mask = 0xff;
};
template <>
struct format<fp16> {
  static constexpr int fraction = 10, min_exponent = -14, exponent_mask = 0x1f;
};

// A finite number is significand * 2^(exponent - fraction bits of its format). A subnormal keeps the format's smallest
// exponent and is not normalised.
struct number {
  enum { zero, finite, infinite, nan } kind;
  bool negative;
  std::int64_t significand;
  int exponent;
};

inline number unpack(std::uint32_t magnitude, bool negative, int fraction, int min_exponent, int exponent_mask) {
  const int e = static_cast<int>(magnitude >> fraction);
  const std::int64_t f = magnitude & ((1u << fraction) - 1);
  if (e == exponent_mask) return {f != 0 ? number::nan : number::infinite, negative, 0, 0};
  if (e == 0) return {f != 0 ? number::finite : number::zero, negative, f, min_exponent};
  return {number::finite, negative, f + (std::int64_t{1} << fraction), e - 1 + min_exponent};
}
template <class T>
number unpack(T x) {
  using f = format<T>;
  return unpack(x.bits & 0x7fffu, (x.bits >> 15) != 0, f::fraction, f::min_exponent, f::exponent_mask);
}
inline number unpack(float x) { return unpack(bits_of(x) & 0x7fffffffu, (bits_of(x) >> 31) != 0, 23, -126, 0xff); }

// The product is exact and not renormalised: its significand has twice the fraction bits and is below 4.
inline number multiply(const number& a, const number& b) {
  const bool negative = a.negative != b.negative;
  if (a.kind == number::nan || b.kind == number::nan) return {number::nan, negative, 0, 0};
  if (a.kind == number::infinite || b.kind == number::infinite) {
    const bool invalid = a.kind == number::zero || b.kind == number::zero;
    return {invalid ? number::nan : number::infinite, negative, 0, 0};
  }
  if (a.kind == number::zero || b.kind == number::zero) return {number::zero, negative, 0, 0};
  return {number::finite, negative, a.significand * b.significand, a.exponent + b.exponent};
}

// sum * 2^unit toward zero to fp32. Zero and what underflows to it are +0; 2^128 and beyond is Inf.
inline float round_toward_zero(std::int64_t sum, int unit) {
  const std::uint32_t sign = sum < 0 ? 0x80000000u : 0u;
  const std::uint64_t magnitude = sum < 0 ? 0 - static_cast<std::uint64_t>(sum) : static_cast<std::uint64_t>(sum);
  if (magnitude == 0) return 0.0f;
  const int top = 63 - __builtin_clzll(magnitude);  // the value lies in [2^(top + unit), 2^(top + unit + 1))
  if (top + unit > 127) return float_of(sign | inf_bits);
  const int exponent = top + unit < -126 ? -126 : top + unit;
  const int shift = exponent - 23 - unit;  // to units of the result's last place
  const std::uint64_t kept = shift > 63 ? 0 : shift > 0 ? magnitude >> shift : magnitude << -shift;
  if (kept == 0) return 0.0f;
  // A normal number's leading bit of `kept` adds 1 to the exponent field.
  return float_of(sign | ((static_cast<std::uint32_t>(exponent + 126) << 23) + static_cast<std::uint32_t>(kept)));
}

}  // namespace mma_detail

// One k16 step. NaN is 0x7fffffff.
template <class T>
float mma_step_exact(float c, const T* a, const T* b) {
  using mma_detail::number;
  constexpr int min_unit_exponent = -133;  // the hardware's largest exponent is at least this
  constexpr int kept_fraction = 25;
  struct {
    number value;
    int fraction;
  } terms[17];
  for (int k = 0; k < 16; ++k) {
    terms[k] = {mma_detail::multiply(mma_detail::unpack(a[k]), mma_detail::unpack(b[k])),
                2 * mma_detail::format<T>::fraction};
  }
  terms[16] = {mma_detail::unpack(c), 23};

  bool nan = false, inf = false, negative_inf = false;
  int largest = min_unit_exponent;
  for (const auto& t : terms) {
    nan |= t.value.kind == number::nan;
    inf |= t.value.kind == number::infinite && !t.value.negative;
    negative_inf |= t.value.kind == number::infinite && t.value.negative;
    if (t.value.kind == number::finite && t.value.exponent > largest) largest = t.value.exponent;
  }
  if (nan || (inf && negative_inf)) return nan_f32();
  if (inf) return inf_f32();
  if (negative_inf) return neg_inf_f32();

  // Every term is cut toward zero to a multiple of 2^(largest - 25); the sum of those is exact.
  std::int64_t sum = 0;
  for (const auto& t : terms) {
    if (t.value.kind != number::finite) continue;
    const int shift = kept_fraction - t.fraction - (largest - t.value.exponent);
    const std::int64_t s = t.value.significand;
    const std::int64_t cut = shift >= 0 ? s << shift : shift > -64 ? s >> -shift : 0;
    sum += t.value.negative ? -cut : cut;
  }
  return mma_detail::round_toward_zero(sum, largest - kept_fraction);
}

}  // namespace reference
BI_NAMESPACE_END
