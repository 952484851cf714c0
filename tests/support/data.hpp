// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"
#include "bi/dtype.hpp"

// Random data for tests: the same on every machine and under every flag, so digests of results can be recorded.
namespace test {

// SplitMix64.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(bi::mix64(seed ^ 0x5851F42D4C957F2Du)) {}
  std::uint64_t next() { return bi::mix64(state_ += 0x9E3779B97F4A7C15u); }
  // In [0, n), n >= 1.
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(n)); }
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }
  bool chance(int percent) { return below(100) < percent; }
  // Near normal: the sum of 12 uniform integers, so exact and free of libm; mean 0, deviation 1.
  float normal() { return sum_of_uniforms<20>(); }
  // With all 24 bits of a significand: normal()'s multiples of 2^-20 add up exactly in fp32, so their sums don't tell
  // one order from another.
  float normal_24() { return sum_of_uniforms<40>(); }

 private:
  template <int Bits>
  float sum_of_uniforms() {
    std::int64_t sum = 0;
    for (int i = 0; i < 12; ++i) sum += static_cast<std::int64_t>(next() >> (64 - Bits));
    constexpr std::int64_t one = std::int64_t{1} << Bits;
    return bi::div_rn(bi::float_from_int64(sum - 6 * (one - 1)), bi::float_from_int64(one));
  }

  std::uint64_t state_;
};

enum class values {
  normal,      // near normal, deviation 1
  wide,        // random sign and significand, exponents over a wide range
  subnormal,   // subnormals, zeros of both signs and the smallest normals
  cancelling,  // pairs that cancel but for the last bits
  hostile,     // normal values among huge ones, infinities, NaNs, zeros of both signs, subnormals
  ties,        // few different values: equal maxima, halves that round to even
};
inline constexpr values all_values[] = {values::normal,     values::wide,    values::subnormal,
                                        values::cancelling, values::hostile, values::ties};
inline constexpr values finite_values[] = {values::normal, values::wide, values::subnormal, values::cancelling,
                                           values::ties};

template <class T>
T from_bits(std::uint32_t bits) {
  if constexpr (sizeof(T) == 4) {
    return bi::float_of(bits);
  } else {
    return T{static_cast<std::uint16_t>(bits)};
  }
}

template <class T>
struct format_of {  // exponent bits and fraction bits
  static constexpr int fraction = sizeof(T) == 4 ? 23 : 7;
  static constexpr int exponent = 8;
};
template <>
struct format_of<bi::fp16> {
  static constexpr int fraction = 10;
  static constexpr int exponent = 5;
};

// Element i of a vector drawn from `kind`; `previous` is element i - 1.
template <class T>
T draw(generator& g, values kind, T previous, std::int64_t i) {
  using f = format_of<T>;
  constexpr int fraction = f::fraction, exponents = 1 << f::exponent, bias = exponents / 2 - 1;
  constexpr std::uint32_t sign = 1u << (fraction + f::exponent);
  const auto random_fraction = [&] { return static_cast<std::uint32_t>(g.next()) & ((1u << fraction) - 1); };
  const auto random_sign = [&] { return (g.next() & 1) != 0 ? sign : 0u; };
  const auto with_exponent = [&](std::int64_t e) {
    return random_sign() | static_cast<std::uint32_t>(e) << fraction | random_fraction();
  };
  const auto normal = [&] { return sizeof(T) == 4 ? g.normal_24() : g.normal(); };
  switch (kind) {
    case values::normal:
      return bi::cvt_rn<T>(normal());
    case values::wide: {
      const int reach = f::exponent == 5 ? 10 : 24;
      return from_bits<T>(with_exponent(g.between(bias - reach, bias + reach)));
    }
    case values::subnormal:
      if (g.chance(20)) return from_bits<T>(random_sign());
      return from_bits<T>(with_exponent(g.chance(70) ? 0 : g.between(1, 3)));
    case values::cancelling:
      if (i % 2 == 1 && g.chance(90)) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &previous, sizeof(T));
        return from_bits<T>((bits ^ sign) ^ (g.chance(50) ? 1u : 0u));
      }
      return bi::cvt_rn<T>(bi::mul_rn(normal(), 64.0f));
    case values::hostile: {
      const std::int64_t pick = g.below(64);
      if (pick == 0) return from_bits<T>(random_sign() | (exponents - 1u) << fraction);  // infinity
      if (pick == 1) return from_bits<T>(random_sign() | (exponents - 1u) << fraction | 1u | random_fraction());  // NaN
      if (pick == 2) return from_bits<T>(random_sign());
      if (pick == 3) return from_bits<T>(with_exponent(0));
      if (pick == 4) return from_bits<T>(with_exponent(exponents - 2));
      return bi::cvt_rn<T>(normal());
    }
    default:  // ties
      return bi::cvt_rn<T>(bi::mul_rn(bi::float_from_int64(g.between(-6, 6)), 0.5f));
  }
}

// Those drawn last are kept: tests compute the same rows by the reference and under many schedules, and drawing takes longer
// than either.
template <class T>
std::vector<T> random_vector(std::int64_t n, values kind, std::uint64_t seed) {
  constexpr std::size_t most_bytes = std::size_t{1} << 27;
  thread_local std::map<std::tuple<std::int64_t, values, std::uint64_t>, std::vector<T>> drawn;
  thread_local std::size_t bytes = 0;
  const auto key = std::make_tuple(n, kind, seed);
  if (const auto known = drawn.find(key); known != drawn.end()) return known->second;
  generator g(seed * 31 + static_cast<std::uint64_t>(kind));
  std::vector<T> out(static_cast<std::size_t>(n));
  T previous{};
  for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = previous = draw<T>(g, kind, previous, i);
  const std::size_t size = out.size() * sizeof(T);
  if (size > most_bytes / 4) return out;
  if (bytes + size > most_bytes) drawn.clear(), bytes = 0;
  bytes += size;
  drawn.emplace(key, out);
  return out;
}

// Makes pairs of the tokens [first, end), from both ends inwards: equal keys, values of opposite sign; one in the middle
// gets values of 0. What attention finds over all of them is rounding alone, so two orders hardly give the same bits.
template <class T>
void pair_tokens(std::vector<T>& k, std::vector<T>& v, std::int64_t width, std::int64_t first, std::int64_t end) {
  const auto at = [&](std::int64_t token, std::int64_t i) { return static_cast<std::size_t>(token * width + i); };
  for (std::int64_t a = first, b = end - 1; a <= b; ++a, --b) {
    for (std::int64_t i = 0; i < width; ++i) {
      k[at(b, i)] = k[at(a, i)];
      v[at(b, i)] = a == b ? T{} : T{static_cast<std::uint16_t>(v[at(a, i)].bits ^ 0x8000u)};
    }
  }
}

// Outputs start as this, so an element that is not written shows.
inline constexpr unsigned char poison_byte = 0xA5;
template <class T>
std::vector<T> poisoned(std::int64_t n) {
  std::vector<T> out(static_cast<std::size_t>(n));
  if (n > 0) std::memset(static_cast<void*>(out.data()), poison_byte, out.size() * sizeof(T));
  return out;
}

// Empty if the bytes are equal, else where and how they differ first, in hex.
template <class T>
std::string difference(const T* a, const T* b, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    if (std::memcmp(a + i, b + i, sizeof(T)) == 0) continue;
    unsigned long long x = 0, y = 0;
    std::memcpy(&x, a + i, sizeof(T) < 8 ? sizeof(T) : 8);
    std::memcpy(&y, b + i, sizeof(T) < 8 ? sizeof(T) : 8);
    char text[128];
    std::snprintf(text, sizeof text, "element %lld of %lld: 0x%llx, expected 0x%llx", static_cast<long long>(i),
                  static_cast<long long>(n), x, y);
    return text;
  }
  return {};
}
template <class T>
std::string difference(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return "sizes differ";
  return difference(a.data(), b.data(), static_cast<std::int64_t>(a.size()));
}

}  // namespace test
