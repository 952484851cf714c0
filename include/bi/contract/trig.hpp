// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/status.hpp"

// Tables for rotary position embedding, made on the host by integer arithmetic: libm's sine, cosine and power differ
// between systems. An angle is held as a fraction of a turn in 128 bits, so its reduction is the wrap of the integer,
// and position * frequency is exact to 2^-88 of a turn at every position below 2^31. An entry differs from the
// correctly rounded true value only where that lies within about 2^-30 ulp of a tie.

BI_NAMESPACE_BEGIN

namespace contract {

__extension__ using uint128 = unsigned __int128;

constexpr uint128 wide(std::uint64_t high, std::uint64_t low) { return uint128{high} << 64 | low; }
constexpr std::uint64_t high_half(uint128 x) { return static_cast<std::uint64_t>(x >> 64); }
constexpr std::uint64_t low_half(uint128 x) { return static_cast<std::uint64_t>(x); }
constexpr std::uint64_t mul_high(std::uint64_t a, std::uint64_t b) { return high_half(uint128{a} * b); }

// The upper 128 bits of the 256-bit product.
constexpr uint128 mul_high(uint128 a, uint128 b) {
  const uint128 middle = uint128{high_half(a)} * low_half(b) + mul_high(low_half(a), low_half(b));
  const uint128 other = uint128{low_half(a)} * high_half(b) + low_half(middle);
  return uint128{high_half(a)} * high_half(b) + high_half(middle) + high_half(other);
}

constexpr int leading_zeros(uint128 x) {
  return high_half(x) != 0 ? __builtin_clzll(high_half(x)) : 64 + __builtin_clzll(low_half(x));
}

// A finite, positive number as mantissa * 2^exponent.
struct BI_TYPE binary_number {
  std::uint64_t mantissa;
  int exponent;
};

inline std::uint64_t double_bits(double x) {
  std::uint64_t u;
  std::memcpy(&u, &x, sizeof u);
  asm("" : "+r"(u));
  return u;
}
inline bool is_number(double x) { return (double_bits(x) & 0x7fffffffffffffffu) < 0x7ff0000000000000u; }
inline bool is_number(float x) { return is_finite(x); }
inline bool is_negative(double x) { return (double_bits(x) >> 63) != 0 && double_bits(x) << 1 != 0; }
inline bool is_negative(float x) { return (bits_of(x) >> 31) != 0 && bits_of(x) << 1 != 0; }

inline binary_number unpack(double x) {
  const std::uint64_t u = double_bits(x) & 0x7fffffffffffffffu, fraction = u & 0xfffffffffffffu;
  const int e = static_cast<int>(u >> 52);
  return e == 0 ? binary_number{fraction, -1074} : binary_number{fraction | 0x10000000000000u, e - 1075};
}
inline binary_number unpack(float x) {
  const std::uint32_t u = bits_of(x) & 0x7fffffffu, fraction = u & 0x7fffffu;
  const int e = static_cast<int>(u >> 23);
  return e == 0 ? binary_number{fraction, -149} : binary_number{fraction | 0x800000u, e - 150};
}

// x >= 2^low and x < 2^high, by its bits.
template <class Real>
bool lies_between(Real x, int low, int high) {
  if (!is_number(x) || is_negative(x)) return false;
  const binary_number b = unpack(x);
  if (b.mantissa == 0) return false;
  const int e = 63 - __builtin_clzll(b.mantissa) + b.exponent;
  return e >= low && e < high;
}

// magnitude * 2^exponent rounded to nearest even.
inline float round_to_float(bool negative, uint128 magnitude, int exponent) {
  const std::uint32_t sign = negative ? 0x80000000u : 0u;
  if (magnitude == 0) return float_of(0);
  const int zeros = leading_zeros(magnitude), e = 127 - zeros + exponent;  // 2^e <= value
  const int drop = 104 + (e < -126 ? -126 - e : 0);
  if (drop > 128) return float_of(sign);
  magnitude <<= zeros;
  const uint128 kept = drop == 128 ? 0 : magnitude >> drop;
  const uint128 rest = drop == 128 ? magnitude : magnitude << (128 - drop);
  const uint128 half = uint128{1} << 127;
  const std::uint32_t up = rest > half || (rest == half && (kept & 1u) != 0) ? 1u : 0u;
  // A kept leading bit adds 1 to the exponent field, and so does a carry.
  const std::uint32_t field = e < -126 ? 0u : static_cast<std::uint32_t>(e + 126) << 23;
  return float_of(sign | (field + static_cast<std::uint32_t>(kept) + up));
}

inline constexpr uint128 ln2_fixed = wide(0xb17217f7d1cf79abu, 0xc9e3b39803f2f6afu);             // 128 fraction bits
inline constexpr uint128 quarter_pi_fixed = wide(0xc90fdaa22168c234u, 0xc4c6628b80dc1cd1u);      // 128
inline constexpr uint128 inverse_two_pi_fixed = wide(0x28be60db9391054au, 0x7f09d5f47d4d3770u);  // 128, then 64 more:
inline constexpr std::uint64_t inverse_two_pi_tail = 0x36d8a5664f10e410u;

// log2(x) for 1 <= x < 2^64, 120 fraction bits: each squaring of the significand gives one bit.
inline uint128 log2_fixed(double x) {
  const binary_number b = unpack(x);
  const int zeros = __builtin_clzll(b.mantissa);
  uint128 result = static_cast<uint128>(63 - zeros + b.exponent) << 120;
  uint128 m = uint128{b.mantissa << zeros} << 64;  // [1, 2), 127 fraction bits
  for (int bit = 119; bit >= 0; --bit) {
    m = mul_high(m, m);  // [1, 4), 126 fraction bits
    if ((m >> 127) != 0) {
      result |= uint128{1} << bit;
    } else {
      m <<= 1;
    }
  }
  return result;
}

// 2^-y / (2 pi), 128 fraction bits, for y with 120.
inline uint128 turns_of_power(uint128 y) {
  constexpr uint128 one = uint128{1} << 120;
  int n = static_cast<int>(y >> 120);
  uint128 g = y & (one - 1);
  if (g != 0) {  // 2^-y = 2^-n * 2^g with 0 <= g < 1, so that every term of the series is positive
    g = one - g;
    ++n;
  }
  const uint128 z = mul_high(g << 8, ln2_fixed);
  uint128 term = uint128{1} << 126, sum = term;
  for (unsigned k = 1; term != 0; ++k) {
    term = mul_high(term, z) / k;
    sum += term;
  }
  return mul_high(sum, inverse_two_pi_fixed) << 2 >> n;
}

// x / (2 pi) mod 1, 128 fraction bits, for 0 <= x < 2^32.
template <class Real>
uint128 turns_of_radians(Real x) {
  const binary_number b = unpack(x);
  // mantissa / (2 pi) with 192 fraction bits in three words, wrapped at 2^64.
  const uint128 w0 = uint128{b.mantissa} * inverse_two_pi_tail;
  const uint128 w1 = uint128{b.mantissa} * low_half(inverse_two_pi_fixed) + high_half(w0);
  const uint128 w2 = uint128{b.mantissa} * high_half(inverse_two_pi_fixed) + high_half(w1);
  const std::uint64_t whole = high_half(w2);
  const uint128 upper = wide(low_half(w2), low_half(w1));
  const std::uint64_t lower = low_half(w0);
  const int e = b.exponent;
  if (e == 0) return upper;
  if (e > 0) return upper << e | lower >> (64 - e);
  if (e > -128) return upper >> -e | uint128{whole} << (128 + e);
  return e > -192 ? uint128{whole >> (-e - 128)} : uint128{0};
}

struct BI_TYPE sine_cosine {
  float sine;
  float cosine;
};

// Sine and cosine of t / 2^128 turns, times scale, rounded once.
inline sine_cosine sine_cosine_of(uint128 t, binary_number scale) {
  const uint128 quadrant = (t + (uint128{1} << 125)) >> 126;
  const uint128 z = t - (quadrant << 126);  // [-1/8, 1/8] turn in two's complement
  const bool negative = (z >> 127) != 0;
  const uint128 radians = mul_high((negative ? uint128{0} - z : z) << 2, quarter_pi_fixed) << 1;
  const std::uint64_t x = high_half(radians), x2 = mul_high(x, x);

  // Taylor series in Horner's form; 1 / k! with 64 fraction bits.
  constexpr std::uint64_t even[] = {0xd73fau,         0xc9cba54u,        0x8f76c77fcu,       0x49f93edde28u,
                                    0x1a01a01a01a02u, 0x5b05b05b05b05bu, 0xaaaaaaaaaaaaaabu, 0x8000000000000000u};
  constexpr std::uint64_t odd[] = {0xca96u,         0xd73f9fu,        0xb092309du,        0x6b99159fd5u,
                                   0x2e3bc74aad8eu, 0xd00d00d00d00du, 0x222222222222222u, 0x2aaaaaaaaaaaaaabu};
  std::uint64_t c = even[0], s = odd[0];
  for (int k = 1; k < 8; ++k) {
    c = even[k] - mul_high(x2, c);
    s = odd[k] - mul_high(x2, s);
  }
  const std::uint64_t cosine = (std::uint64_t{1} << 63) - mul_high(x2, c) / 2;       // 63 fraction bits
  const std::uint64_t sine_over_x = (std::uint64_t{1} << 63) - mul_high(x2, s) / 2;  // 63
  // The sine keeps its relative accuracy near 0: x is normalised first.
  const int zeros = radians != 0 ? leading_zeros(radians) : 0;
  const std::uint64_t sine = mul_high(high_half(radians << zeros), sine_over_x);  // 63 + zeros fraction bits

  const auto value = [&](bool minus, std::uint64_t m, int fraction) {
    return round_to_float(minus, uint128{m} * scale.mantissa, scale.exponent - fraction);
  };
  const bool swap = (quadrant & 1u) != 0, half = (quadrant & 2u) != 0;
  if (!swap) return {value(negative != half, sine, 63 + zeros), value(half, cosine, 63)};
  return {value(half, cosine, 63), value(negative == half, sine, 63 + zeros)};
}

inline status check_rope_table_sizes(const char* operation, std::int64_t rotary_dim, std::int64_t positions,
                                     const float* cos, const float* sin, double magnitude) {
  status st;
  st.operation = operation;
  const auto fail = [&](error code, const char* argument, std::int64_t value, std::int64_t bound,
                        const char* relation = nullptr) {
    if (st.code != error::none) return;
    st.code = code;
    st.argument = argument;
    st.value = value;
    st.bound = bound;
    st.relation = relation;
  };
  constexpr std::int64_t most_dims = 65536, most_positions = std::int64_t{1} << 31;
  if (rotary_dim < 0) fail(error::too_small, "rotary_dim", rotary_dim, 0);
  if (rotary_dim > most_dims) fail(error::too_large, "rotary_dim", rotary_dim, most_dims);
  if (rotary_dim % 2 != 0) fail(error::not_multiple, "rotary_dim", rotary_dim, 2);
  if (positions < 0) fail(error::too_small, "positions", positions, 0);
  if (positions > most_positions) fail(error::too_large, "positions", positions, most_positions);
  if (!lies_between(magnitude, -32, 32)) {
    fail(error::not_valid, "magnitude", 0, 0, "at least 2^-32 and below 2^32");
    st.real = magnitude;
  }
  if (st.code != error::none || rotary_dim == 0 || positions == 0) return st;
  if (cos == nullptr) fail(error::null_pointer, "cos", 0, 0);
  if (sin == nullptr) fail(error::null_pointer, "sin", 0, 0);
  const auto c = reinterpret_cast<std::uintptr_t>(cos), s = reinterpret_cast<std::uintptr_t>(sin);
  const auto bytes = static_cast<std::uintptr_t>(positions * (rotary_dim / 2)) * sizeof(float);
  if (c < s + bytes && s < c + bytes) fail(error::overlap, "sin", 0, 0, "cos");
  return st;
}

// Column i: frequency(i) turns a position.
template <class Frequency>
void fill_rope_table(std::int64_t columns, std::int64_t positions, float* cos, float* sin, double magnitude,
                     Frequency&& turns) {
  const binary_number scale = unpack(magnitude);
  for (std::int64_t i = 0; i < columns; ++i) {
    const uint128 step = turns(i);
    uint128 angle = 0;
    for (std::int64_t p = 0; p < positions; ++p, angle += step) {
      const sine_cosine v = sine_cosine_of(angle, scale);
      cos[p * columns + i] = v.cosine;
      sin[p * columns + i] = v.sine;
    }
  }
}

}  // namespace contract

// cos[p, i] = magnitude * cos(p * theta^(-2i / rotary_dim)) and sin likewise, both [positions, rotary_dim / 2],
// rounded once from the true values: no fp32 frequency or angle is formed in between. 1 <= theta < 2^64.
inline status make_rope_table(double theta, std::int64_t rotary_dim, std::int64_t positions, float* cos, float* sin,
                              double magnitude = 1) {
  namespace k = contract;
  status st = k::check_rope_table_sizes("make_rope_table", rotary_dim, positions, cos, sin, magnitude);
  if (st.code == error::none && !k::lies_between(theta, 0, 64)) {
    st.code = error::not_valid;
    st.argument = "theta";
    st.relation = "at least 1 and below 2^64";
    st.real = theta;
  }
  if (st.code != error::none || rotary_dim == 0 || positions == 0) return st;
  const auto d = static_cast<std::uint64_t>(rotary_dim);
  const k::uint128 log = k::log2_fixed(theta);
  k::fill_rope_table(rotary_dim / 2, positions, cos, sin, magnitude, [&](std::int64_t i) {
    const std::uint64_t numerator = 2 * static_cast<std::uint64_t>(i);
    return k::turns_of_power(log / d * numerator + log % d * numerator / d);
  });
  return st;
}

// The same with the caller's frequencies in radians a position, [rotary_dim / 2], each taken as the exact number that
// it is: for scaled tables (YaRN, Llama 3). 0 <= frequency < 2^32.
template <class Real>
status make_rope_table_from_frequencies(const Real* frequencies, std::int64_t rotary_dim, std::int64_t positions,
                                        float* cos, float* sin, double magnitude = 1) {
  namespace k = contract;
  status st = k::check_rope_table_sizes("make_rope_table_from_frequencies", rotary_dim, positions, cos, sin, magnitude);
  if (st.code != error::none || rotary_dim == 0 || positions == 0) return st;
  const std::int64_t columns = rotary_dim / 2;
  st.argument = "frequencies";
  if (frequencies == nullptr) {
    st.code = error::null_pointer;
    return st;
  }
  for (std::int64_t i = 0; i < columns; ++i) {
    if (k::is_number(frequencies[i]) && k::unpack(frequencies[i]).mantissa == 0) continue;
    if (k::lies_between(frequencies[i], -2000, 32)) continue;
    st.code = error::not_valid;
    st.relation = "at least 0 and below 2^32";
    st.position = i;
    st.real = static_cast<double>(frequencies[i]);
    return st;
  }
  st.argument = nullptr;
  k::fill_rope_table(columns, positions, cos, sin, magnitude,
                     [&](std::int64_t i) { return k::turns_of_radians(frequencies[i]); });
  return st;
}

BI_NAMESPACE_END
