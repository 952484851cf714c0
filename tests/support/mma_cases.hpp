// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "bi/contract/id.hpp"
#include "bi/reference/mma_step.hpp"
#include "support/data.hpp"

// Operands for tensor-core steps, the same wherever they are drawn: tests/golden/record_mma.cu feeds them to a GPU, the
// CPU test draws them again and compares.
namespace test {

enum class mma_category {
  normal,
  uniform,         // exponents over a moderate range
  wide,            // exponents over a range wider than the kept fraction
  cancelling,      // pairs of products that cancel, some but for a last bit
  c_dominates,     // the accumulator far above, equal or opposite to the sum of products
  edge,            // powers of two and significands of all ones
  sparse,          // most factors zero, of both signs
  subnormal,       // subnormal operands and accumulators
  tiny,            // products around the smallest unit that the hardware keeps
  huge,            // products and results at and beyond the top of fp32
  zeros,           // nothing but zeros and small integers
  zero_times_big,  // the largest factors meet zeros
  nonfinite,
};
inline constexpr int mma_categories = 13;

template <class T>
struct mma_tile {
  T a[16][16];
  T b[8][16];
  float c[16][8];
};

// Random sign and significand, exponent uniform in [low, high]; subnormal where the format ends.
template <class T>
T with_magnitude(generator& g, std::int64_t low, std::int64_t high) {
  using f = format_of<T>;
  constexpr int fraction = f::fraction, bias = (1 << (f::exponent - 1)) - 1;
  std::int64_t e = g.between(low, high);
  if (e > bias) e = bias;
  std::uint32_t m = g.chance(15) ? 0 : static_cast<std::uint32_t>(g.next()) & ((1u << fraction) - 1);
  const std::uint32_t sign = static_cast<std::uint32_t>(g.next() & 1) << (fraction + f::exponent);
  if (e >= 1 - bias) return from_bits<T>(sign | static_cast<std::uint32_t>(e + bias) << fraction | m);
  const std::int64_t shift = 1 - bias - e;
  m = shift > 31 ? 0 : ((1u << fraction) | m) >> shift;
  return from_bits<T>(sign | m);
}

template <class T>
T signed_zero(generator& g) {
  return from_bits<T>(static_cast<std::uint32_t>(g.next() & 1) << (sizeof(T) * 8 - 1));
}

namespace mma_case_detail {

template <class T>
T operand(generator& g, mma_category category, bool is_a, int i, int k) {
  constexpr bool narrow = format_of<T>::exponent == 5;  // fp16
  constexpr int fraction = format_of<T>::fraction;
  constexpr int low = narrow ? -14 : -40, high = narrow ? 15 : 40;
  const auto subnormal = [&] { return with_magnitude<T>(g, narrow ? -24 : -133, narrow ? -15 : -127); };
  const auto one = [&](int scale) { return bi::cvt_rn<T>(bi::float_from_int((g.next() & 1) != 0 ? scale : -scale)); };
  switch (category) {
    case mma_category::uniform:
      return with_magnitude<T>(g, -8, 8);
    case mma_category::wide:
      return with_magnitude<T>(g, low, high);
    case mma_category::edge: {
      T x = with_magnitude<T>(g, -14, 1);
      if (g.chance(30)) {
        x.bits = static_cast<std::uint16_t>(x.bits >> fraction << fraction);
      } else if (g.chance(40)) {
        x.bits = static_cast<std::uint16_t>(x.bits | ((1u << fraction) - 1));
      }
      return x;
    }
    case mma_category::sparse:
      return g.chance(60) ? signed_zero<T>(g) : with_magnitude<T>(g, -10, 10);
    case mma_category::subnormal:
      if (narrow) return g.chance(50) ? subnormal() : with_magnitude<T>(g, -14, -8);
      if (!is_a) return with_magnitude<T>(g, 100, 127);
      return g.chance(50) ? subnormal() : with_magnitude<T>(g, -126, -120);
    case mma_category::tiny:
      if (!narrow) return with_magnitude<T>(g, i % 4 == 3 ? -85 : -77 - i % 4, i % 4 == 3 ? -70 : -71 - i % 4);
      if (i % 4 == 3) return is_a ? signed_zero<T>(g) : with_magnitude<T>(g, high - 1, high);
      return subnormal();
    case mma_category::huge:
      return narrow ? with_magnitude<T>(g, high - 2, high) : with_magnitude<T>(g, 56, i % 3 == 0 ? 68 : 63);
    case mma_category::zeros:
      if (i % 4 == 0) return signed_zero<T>(g);
      if (i % 4 == 1) return from_bits<T>(is_a ? 0x8000u : 0u);
      if (i % 4 == 2) return g.chance(90) ? signed_zero<T>(g) : one(1);
      return one(g.chance(50) ? 1 : 2);
    case mma_category::zero_times_big: {
      const int small = narrow ? -14 : -70;
      if (!is_a)
        return k % 4 < 2 ? with_magnitude<T>(g, narrow ? 14 : 90, 127) : with_magnitude<T>(g, small, small + 10);
      const bool zero = k % 4 == i % 4 || (k % 4 < 2 && i % 8 < 6);
      return zero ? signed_zero<T>(g) : with_magnitude<T>(g, small, small + (narrow ? 3 : 10));
    }
    case mma_category::nonfinite: {
      if (!g.chance(8)) return bi::cvt_rn<T>(g.normal());
      const std::uint32_t infinity = ((1u << format_of<T>::exponent) - 1) << fraction;
      const std::uint32_t sign = static_cast<std::uint32_t>(g.next() & 1) << 15;
      const std::uint32_t pick[] = {infinity | 1u, 0u, infinity, infinity};
      return from_bits<T>(sign | pick[g.below(4)]);
    }
    default:  // normal, cancelling, c_dominates
      return bi::cvt_rn<T>(g.normal());
  }
}

// dot() is the step's result from c = 0.
template <class T, class Dot>
float accumulator(generator& g, mma_category category, int i, int j, const Dot& dot) {
  constexpr bool narrow = format_of<T>::exponent == 5;
  const auto c = [&](std::int64_t low, std::int64_t high) { return with_magnitude<float>(g, low, high); };
  const auto around = [&](std::int64_t low, std::int64_t high) {
    const std::int64_t e = static_cast<std::int64_t>((bi::bits_of(dot()) >> 23) & 0xff) - 127;
    return c(e + low, e + high);
  };
  switch (category) {
    case mma_category::normal:
      return bi::mul_rn(g.normal(), 4.0f);
    case mma_category::uniform:
      return c(-16, 16);
    case mma_category::wide:
      return c(narrow ? -32 : -84, narrow ? 34 : 84);
    case mma_category::cancelling:
    case mma_category::edge:
      return g.chance(30) ? 0.0f : c(-30, 4);
    case mma_category::c_dominates:
      switch ((i + j) % 4) {
        case 0:
          return around(0, 28);
        case 1:
          return bi::neg(dot());
        case 2:
          return bi::float_of(bi::bits_of(bi::neg(dot())) ^ static_cast<std::uint32_t>(g.below(4)));
        default:
          return around(-30, 0);
      }
    case mma_category::sparse:
      return g.chance(50) ? signed_zero<float>(g) : c(-20, 20);
    case mma_category::subnormal:
      return g.chance(40) ? signed_zero<float>(g) : c(narrow ? -60 : -40, narrow ? 0 : 8);
    case mma_category::tiny:
      if (j % 4 < 2) return 0.0f;
      return j % 4 == 2 ? c(-149, -127) : c(-149, -120);
    case mma_category::huge:
      if (!narrow) return g.chance(30) ? 0.0f : c(118, 127);
      return g.chance(50) ? bi::float_of(0x7f7fffffu | static_cast<std::uint32_t>(g.next() & 1) << 31) : c(20, 127);
    case mma_category::zeros:
      if (g.chance(10)) return dot();
      if (g.chance(10)) return bi::neg(dot());
      return bi::float_of(j % 2 != 0 ? 0x80000000u : 0u);
    case mma_category::zero_times_big:
      return g.chance(70) ? 0.0f : c(narrow ? -30 : -130, narrow ? -8 : -100);
    default: {  // nonfinite
      const float x = g.normal();
      if (!g.chance(5)) return x;
      const std::uint32_t pick[] = {bi::inf_bits, bi::inf_bits | 0x80000000u, bi::inf_bits | 1u, 0xffc01234u};
      return bi::float_of(pick[g.below(4)]);
    }
  }
}

}  // namespace mma_case_detail

// Tile number `index`, of category index % 13.
template <class T>
mma_tile<T> make_mma_tile(std::int64_t index) {
  const auto category = static_cast<mma_category>(index % mma_categories);
  generator g(static_cast<std::uint64_t>(index) * 2 + (format_of<T>::exponent == 5 ? 1 : 0));
  mma_tile<T> t;
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) t.a[i][k] = mma_case_detail::operand<T>(g, category, true, i, k);
  }
  for (int j = 0; j < 8; ++j) {
    for (int k = 0; k < 16; ++k) t.b[j][k] = mma_case_detail::operand<T>(g, category, false, j, k);
  }
  if (category == mma_category::cancelling) {
    for (int k = 0; k < 16; k += 2) {
      for (int i = 0; i < 16; ++i) t.a[i][k + 1] = t.a[i][k];
      for (int j = 0; j < 8; ++j) t.b[j][k + 1] = T{static_cast<std::uint16_t>(t.b[j][k].bits ^ 0x8000u)};
    }
    for (int i = 0; i < 16; ++i) {
      for (int times = 0; times < i % 4; ++times) t.a[i][g.below(16)].bits ^= 1;
    }
  }
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      const auto dot = [&] { return bi::reference::mma_step_exact(0.0f, t.a[i], t.b[j]); };
      t.c[i][j] = mma_case_detail::accumulator<T>(g, category, i, j, dot);
    }
  }
  return t;
}

// Operands of chains of 16 steps from +0: a [64][256], b [8][256], outputs [64][8].
inline constexpr int mma_chain_rows = 64, mma_chain_columns = 8, mma_chain_depth = 256;
template <class T>
struct mma_chain_case {
  std::vector<T> a, b;
};
template <class T>
mma_chain_case<T> make_mma_chain(std::int64_t index) {
  const values kind = finite_values[index % 5];
  const auto seed = static_cast<std::uint64_t>(index) * 2 + 1000;
  return {random_vector<T>(mma_chain_rows * mma_chain_depth, kind, seed),
          random_vector<T>(mma_chain_columns * mma_chain_depth, kind, seed + 1)};
}

// Order-free digest of 32-bit and narrower words, each with its place.
class word_digest {
 public:
  void add(std::uint32_t bits) { sum_ += bi::mix64(bits + ++count_ * 0x9E3779B97F4A7C15u); }
  template <class T>
  void add(const T* x, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, x + i, sizeof(T));
      add(bits);
    }
  }
  std::uint64_t value() const { return sum_; }

 private:
  std::uint64_t sum_ = 0, count_ = 0;
};

inline constexpr std::int64_t recorded_tiles = mma_categories * 320;
inline constexpr std::int64_t recorded_chains = 60;

}  // namespace test
