// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/dtype.hpp"

// Rounding primitives: the only floating-point operations that contract code uses.
//
// Each rounds to nearest even, keeps subnormals and returns the NaN 0x7fffffff (0x7fff for bf16 and fp16). On the
// device they are inline PTX with explicit .rn and no .ftz: the intrinsics (__fadd_rn ...) turn into .ftz forms under a
// user's --use_fast_math, PTX does not. On the host they are forms that -ffast-math, -ffp-contract and -march=native
// can't fuse, fold or approximate; they assume the default floating-point environment, which every reference entry
// point establishes (bi/reference/fp_env.hpp). Comparisons, min, max, negation and conversions are primitives too,
// since fast-math flags change those as well.

BI_NAMESPACE_BEGIN

// ---- bits

// The host forms hide the integer: under -ffinite-math-only clang takes a float argument or result to be no NaN and no
// infinity, and may fold a test of its bits, or a value built from bits, by that.
BI_HD inline std::uint32_t bits_of(float x) {
#if BI_DEVICE_CODE
  return __float_as_uint(x);
#else
  std::uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  asm("" : "+r"(u));
  return u;
#endif
}

BI_HD inline float float_of(std::uint32_t u) {
#if BI_DEVICE_CODE
  return __uint_as_float(u);
#else
  asm("" : "+r"(u));
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
#endif
}

inline constexpr std::uint32_t nan_bits = 0x7fffffffu;
inline constexpr std::uint32_t inf_bits = 0x7f800000u;
inline constexpr std::uint16_t nan_bits16 = 0x7fffu;

BI_HD inline float nan_f32() { return float_of(nan_bits); }
BI_HD inline float inf_f32() { return float_of(inf_bits); }
BI_HD inline float neg_inf_f32() { return float_of(inf_bits | 0x80000000u); }

// Tests look at bits: x != x folds to false under -ffast-math.
BI_HD inline bool is_nan(float x) { return (bits_of(x) & 0x7fffffffu) > inf_bits; }
BI_HD inline bool is_inf(float x) { return (bits_of(x) & 0x7fffffffu) == inf_bits; }
BI_HD inline bool is_finite(float x) { return (bits_of(x) & 0x7fffffffu) < inf_bits; }
BI_HD constexpr bool is_nan(bf16 x) { return (x.bits & 0x7fffu) > 0x7f80u; }
BI_HD constexpr bool is_nan(fp16 x) { return (x.bits & 0x7fffu) > 0x7c00u; }
BI_HD constexpr bool is_finite(bf16 x) { return (x.bits & 0x7fffu) < 0x7f80u; }
BI_HD constexpr bool is_finite(fp16 x) { return (x.bits & 0x7fffu) < 0x7c00u; }

BI_HD inline float canonical_nan(float x) { return is_nan(x) ? nan_f32() : x; }

// Sign operations touch the sign bit only, NaN included.
BI_HD inline float neg(float x) { return float_of(bits_of(x) ^ 0x80000000u); }
BI_HD inline float abs(float x) { return float_of(bits_of(x) & 0x7fffffffu); }

// ---- add, sub, mul, fma, div, sqrt

BI_HD inline float add_rn(float a, float b) {
#if BI_DEVICE_CODE
  float r;
  asm("add.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  BI_FP_BARRIER(a);
  BI_FP_BARRIER(b);
  float r = a + b;
  BI_FP_BARRIER(r);
  return canonical_nan(r);
#endif
}

BI_HD inline float sub_rn(float a, float b) {
#if BI_DEVICE_CODE
  float r;
  asm("sub.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  BI_FP_BARRIER(a);
  BI_FP_BARRIER(b);
  float r = a - b;
  BI_FP_BARRIER(r);
  return canonical_nan(r);
#endif
}

BI_HD inline float mul_rn(float a, float b) {
#if BI_DEVICE_CODE
  float r;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  BI_FP_BARRIER(a);
  BI_FP_BARRIER(b);
  float r = a * b;
  BI_FP_BARRIER(r);
  return canonical_nan(r);
#endif
}

BI_HD inline float fma_rn(float a, float b, float c) {
#if BI_DEVICE_CODE
  float r;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
#else
  BI_FP_BARRIER(a);
  BI_FP_BARRIER(b);
  BI_FP_BARRIER(c);
  float r = __builtin_fmaf(a, b, c);
  BI_FP_BARRIER(r);
  return canonical_nan(r);
#endif
}

// Division and square root are scalar instructions on the host: -ffast-math -march=native replaces vectorised ones by
// a reciprocal estimate and a Newton step, which is not correctly rounded.
BI_HD inline float div_rn(float a, float b) {
#if BI_DEVICE_CODE
  float r;
  asm("div.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
#if defined(__AVX__)
  asm("vdivss {%1, %0, %0|%0, %0, %1}" : "+x"(a) : "x"(b));
#elif defined(__x86_64__)
  asm("divss {%1, %0|%0, %1}" : "+x"(a) : "x"(b));
#else
  asm("fdiv %s0, %s0, %s1" : "+w"(a) : "w"(b));
#endif
  return canonical_nan(a);
#endif
}

BI_HD inline float sqrt_rn(float a) {
#if BI_DEVICE_CODE
  float r;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
#else
#if defined(__AVX__)
  asm("vsqrtss %0, %0, %0" : "+x"(a));
#elif defined(__x86_64__)
  asm("sqrtss %0, %0" : "+x"(a));
#else
  asm("fsqrt %s0, %s0" : "+w"(a));
#endif
  return canonical_nan(a);
#endif
}

// 1 / sqrt(x) with two roundings, as every norm contract uses it.
BI_HD inline float rsqrt_rn(float x) { return div_rn(1.0f, sqrt_rn(x)); }

// ---- comparisons and selection (false when an operand is NaN)

BI_HD inline bool less(float a, float b) {
#if BI_DEVICE_CODE
  int r;
  asm("{ .reg .pred p; setp.lt.f32 p, %1, %2; selp.s32 %0, 1, 0, p; }" : "=r"(r) : "f"(a), "f"(b));
  return r != 0;
#else
  if (is_nan(a) || is_nan(b)) return false;
  // Sign-magnitude to two's complement order; both zeros map to 0.
  const auto key = [](float x) {
    const std::uint32_t u = bits_of(x);
    const std::int32_t m = static_cast<std::int32_t>(u & 0x7fffffffu);
    return (u >> 31) != 0 ? -m : m;
  };
  return key(a) < key(b);
#endif
}
BI_HD inline bool greater(float a, float b) { return less(b, a); }
BI_HD inline bool less_equal(float a, float b) {
#if BI_DEVICE_CODE
  int r;
  asm("{ .reg .pred p; setp.le.f32 p, %1, %2; selp.s32 %0, 1, 0, p; }" : "=r"(r) : "f"(a), "f"(b));
  return r != 0;
#else
  return !is_nan(a) && !is_nan(b) && !less(b, a);
#endif
}
BI_HD inline bool equal(float a, float b) {  // -0 == +0
  return !is_nan(a) && !is_nan(b) && !less(a, b) && !less(b, a);
}

// NaN wins, and +0 > -0: associative and commutative, so the order of a maximum is free.
BI_HD inline float max_nan(float a, float b) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 800
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  if (is_nan(a) || is_nan(b)) return nan_f32();
  if (less(a, b)) return b;
  if (less(b, a)) return a;
  return float_of(bits_of(a) & bits_of(b));  // equal: +0 if either zero is positive
#endif
}
BI_HD inline float min_nan(float a, float b) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 800
  float r;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  if (is_nan(a) || is_nan(b)) return nan_f32();
  if (less(a, b)) return a;
  if (less(b, a)) return b;
  return float_of(bits_of(a) | bits_of(b));  // equal: -0 if either zero is negative
#endif
}

// Here NaN loses: with one NaN operand the result is the other one.
BI_HD inline float max_num(float a, float b) {
#if BI_DEVICE_CODE
  float r;
  asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  if (is_nan(a)) return canonical_nan(b);
  return is_nan(b) ? a : max_nan(a, b);
#endif
}

// ---- integers

BI_HD inline float float_from_int(std::int32_t x) {
#if BI_DEVICE_CODE
  float r;
  asm("cvt.rn.f32.s32 %0, %1;" : "=f"(r) : "r"(x));
  return r;
#else
  float r = static_cast<float>(x);
  BI_FP_BARRIER(r);
  return r;
#endif
}
BI_HD inline float float_from_uint(std::uint32_t x) {
#if BI_DEVICE_CODE
  float r;
  asm("cvt.rn.f32.u32 %0, %1;" : "=f"(r) : "r"(x));
  return r;
#else
  float r = static_cast<float>(x);
  BI_FP_BARRIER(r);
  return r;
#endif
}

// Row lengths as divisors: rounded once from 64 bits.
BI_HD inline float float_from_int64(std::int64_t x) {
#if BI_DEVICE_CODE
  float r;
  asm("cvt.rn.f32.s64 %0, %1;" : "=f"(r) : "l"(x));
  return r;
#else
  float r = static_cast<float>(x);
  BI_FP_BARRIER(r);
  return r;
#endif
}

// Toward zero, for 0 <= x < 2^64; NaN and negative values give 0, larger values the largest integer.
BI_HD inline std::uint64_t uint64_from_float_rz(float x) {
  const std::uint32_t u = bits_of(x);
  if ((u >> 31) != 0 || is_nan(x)) return 0;
  const int e = static_cast<int>(u >> 23) - 127;
  if (e < 0) return 0;
  if (e > 63) return ~std::uint64_t{0};
  const std::uint64_t m = (u & 0x7fffffu) | 0x800000u;
  return e >= 23 ? m << (e - 23) : m >> (23 - e);
}

// ---- storage types: exact widening, one rounding when narrowing

BI_HD inline float to_f32(float x) { return x; }
BI_HD inline float to_f32(bf16 x) { return float_of(static_cast<std::uint32_t>(x.bits) << 16); }
BI_HD inline float to_f32(fp16 x) {
#if BI_DEVICE_CODE
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
  return r;
#else
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  const std::uint32_t e = (x.bits >> 10) & 31u, m = x.bits & 1023u;
  if (e == 31) return float_of(m != 0 ? nan_bits : sign | inf_bits);
  if (e != 0) return float_of(sign | ((e + 112) << 23) | (m << 13));
  if (m == 0) return float_of(sign);
  const int lead = 31 - __builtin_clz(m);  // subnormal: m * 2^-24
  return float_of(sign | (static_cast<std::uint32_t>(lead + 103) << 23) | ((m << (23 - lead)) & 0x7fffffu));
#endif
}

template <class T>
BI_HD T cvt_rn(float x);

template <>
BI_HD inline float cvt_rn<float>(float x) {
  return x;
}

template <>
BI_HD inline bf16 cvt_rn<bf16>(float x) {
#if BI_DEVICE_CODE
  bf16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
  return r;
#else
  const std::uint32_t u = bits_of(x);
  if (is_nan(x)) return bf16{nan_bits16};
  return bf16{static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
#endif
}

template <>
BI_HD inline fp16 cvt_rn<fp16>(float x) {
#if BI_DEVICE_CODE
  fp16 r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
  return r;
#else
  if (is_nan(x)) return fp16{nan_bits16};
  const std::uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (a >= 0x477ff000u) return fp16{static_cast<std::uint16_t>(sign | 0x7c00u)};  // >= 65520 rounds to Inf
  std::uint32_t m, shift;
  if (a >= 0x38800000u) {  // normal: rebias, then drop 13 bits
    m = a - 0x38000000u;
    shift = 13;
  } else {  // subnormal: count units of 2^-24
    const std::uint32_t e = a >> 23;
    if (e < 102) return fp16{static_cast<std::uint16_t>(sign)};
    m = (a & 0x7fffffu) | 0x800000u;
    shift = 126 - e;
  }
  const std::uint32_t q = m >> shift, rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
  const std::uint32_t up = (rest > half || (rest == half && (q & 1u) != 0)) ? 1u : 0u;
  return fp16{static_cast<std::uint16_t>(sign | (q + up))};
#endif
}

BI_NAMESPACE_END
