// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/trig.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "bi/contract/id.hpp"
#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace c = bi::contract;

namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

struct table {
  std::vector<float> cos, sin;
  explicit table(int64_t entries) : cos(test::poisoned<float>(entries)), sin(test::poisoned<float>(entries)) {}
};

table made(double theta, int64_t dim, int64_t positions, double magnitude = 1) {
  table t(positions * dim / 2);
  REQUIRE(bool(bi::make_rope_table(theta, dim, positions, t.cos.data(), t.sin.data(), magnitude)));
  return t;
}
template <class Real>
table made_from(const std::vector<Real>& frequencies, int64_t positions, double magnitude = 1) {
  const auto columns = static_cast<int64_t>(frequencies.size());
  table t(positions * columns);
  REQUIRE(bool(bi::make_rope_table_from_frequencies(frequencies.data(), 2 * columns, positions, t.cos.data(),
                                                    t.sin.data(), magnitude)));
  return t;
}

uint64_t digest(const table& t) {
  uint64_t h = 0;
  for (const auto* v : {&t.cos, &t.sin}) {
    for (const float x : *v) h = bi::mix64(h ^ bi::bits_of(x)) + 1;
  }
  return h;
}

// One entry at any position, by the parts that the table is made of.
c::sine_cosine entry(double theta, uint64_t dim, uint64_t i, uint64_t position) {
  const c::uint128 log = c::log2_fixed(theta);
  return c::sine_cosine_of(c::turns_of_power(log / dim * (2 * i) + log % dim * (2 * i) / dim) * position,
                           c::unpack(1.0));
}

long double ulp(long double y) {
  const int e = std::fabs(y) < 0x1p-126L ? -126 : std::ilogb(y);
  return std::ldexp(1.0L, e - 23);
}

}  // namespace

// Correctly rounded values, computed with 80 decimal digits.
TEST_CASE("trig: known entries, up to the last position", "[trig]") {
  const bi::reference::fp_environment environment;
  struct known {
    double theta;
    uint64_t dim, i, position;
    uint32_t cos, sin;
  };
  constexpr known all[] = {
      {10000, 128, 0, 0, 0x3f800000, 0x00000000},        {10000, 128, 0, 1, 0x3f0a5140, 0x3f576aa4},
      {10000, 128, 0, 1048576, 0x3f719d6d, 0x3ea93666},  {10000, 128, 0, 2147483647, 0xbf30579a, 0xbf399422},
      {10000, 128, 1, 355, 0x3f658828, 0xbee2b9c1},      {10000, 128, 63, 1048577, 0xbe0b4ebf, 0x3f7d9eb6},
      {500000, 128, 31, 131071, 0x3e5f8ea2, 0x3f79d320}, {500000, 128, 63, 7, 0x3f800000, 0x37902a9f},
      {1000000, 64, 5, 1000003, 0x3f7e395f, 0xbdf0d01f}, {1000000, 96, 47, 2147483647, 0x3e1cd5db, 0xbf7cfac6},
      {1.5, 2, 0, 710, 0x3f800000, 0x387cde82},          {8000000, 256, 127, 4194303, 0x3f543499, 0x3f0f31f4},
  };
  for (const known& k : all) {
    INFO("theta " << k.theta << ", column " << k.i << " of " << k.dim / 2 << ", position " << k.position);
    const c::sine_cosine v = entry(k.theta, k.dim, k.i, k.position);
    CHECK(bi::bits_of(v.cosine) == k.cos);
    CHECK(bi::bits_of(v.sine) == k.sin);
  }
}

TEST_CASE("trig: known entries of given frequencies, near quarter turns too", "[trig]") {
  const bi::reference::fp_environment environment;
  struct known {
    double frequency;
    uint64_t position;
    uint32_t cos, sin;
  };
  constexpr known all[] = {
      {0x1.921fb54442d18p+0, 1, 0x248d3132, 0x3f800000},  // the double next to pi / 2
      {0x1.921fb54442d18p+0, 2, 0xbf800000, 0x250d3132},
      {0x1.921fb54442d18p+1, 1, 0xbf800000, 0x250d3132},
      {0x1.921fb54442d18p+31, 3, 0x3f800000, 0xb4d3c9ca},
      {0x1.fffffffffffffp+31, 2147483647, 0xbea7478c, 0xbf71f383},
      {0x1.123456789abcdp-40, 12345, 0x3f800000, 0x324e9b77},
      {0x1p-70, 1, 0x3f800000, 0x1c800000},
      {0x1p-100, 1, 0x3f800000, 0x0d800000},
      {0, 77, 0x3f800000, 0x00000000},
      {0x1p-1074, 2147483647, 0x3f800000, 0x00000000},
  };
  for (const known& k : all) {
    INFO("frequency " << k.frequency << ", position " << k.position);
    const c::sine_cosine v = c::sine_cosine_of(c::turns_of_radians(k.frequency) * k.position, c::unpack(1.0));
    CHECK(bi::bits_of(v.cosine) == k.cos);
    CHECK(bi::bits_of(v.sine) == k.sin);
  }
}

// long double keeps 11 bits more than a double, so the tolerance past half an ulp is the oracle's own error.
TEST_CASE("trig: within half an ulp of the true values", "[trig]") {
  const bi::reference::fp_environment environment;
  test::generator g(11);
  long double worst = 0;
  long wrong = 0;
  for (int n = 0; n < 60000; ++n) {
    constexpr double thetas[] = {10000, 500000, 1000000, 8000000, 150000};
    const double theta = thetas[g.below(5)];
    const uint64_t dim = n % 3 == 0 ? 128 : 2 * static_cast<uint64_t>(g.between(1, 128));
    const auto i = static_cast<uint64_t>(g.below(static_cast<int64_t>(dim / 2)));
    const uint64_t position = g.next() >> (44 + g.below(19));  // below 2^20
    const c::sine_cosine v = entry(theta, dim, i, position);
    const long double angle =
        static_cast<long double>(position) *
        std::pow(static_cast<long double>(theta), -static_cast<long double>(2 * i) / static_cast<long double>(dim));
    const long double slack = angle * 0x1p-60L + 0x1p-62L;
    for (const auto& [got, want] : {std::pair{v.cosine, std::cos(angle)}, std::pair{v.sine, std::sin(angle)}}) {
      const long double error = std::fabs(static_cast<long double>(got) - want);
      if (error > ulp(want) / 2 + slack) ++wrong;
      worst = std::max(worst, error / ulp(want));
    }
  }
  REQUIRE(wrong == 0);
  REQUIRE(worst > 0.499L);
}

TEST_CASE("trig: pinned tables", "[trig]") {
  const bi::reference::fp_environment environment;
  CHECK(digest(made(10000, 128, 2048)) == 0x2d22ef66d1ed40d0u);
  CHECK(digest(made(500000, 64, 4096)) == 0xff4a834b0423f107u);
  CHECK(digest(made(1000000, 96, 1000, 1.2079441541679836)) == 0x1a7e897546c72772u);
  std::vector<double> halves;
  std::vector<float> floats;
  for (int i = 0; i < 40; ++i) {
    halves.push_back(std::ldexp(1.0 + i / 64.0, -i));
    floats.push_back(static_cast<float>(halves.back()));
  }
  CHECK(digest(made_from(halves, 3000)) == 0x582e67519b9d0622u);
  // These frequencies are floats, so it is the same table.
  CHECK(digest(made_from(floats, 3000)) == digest(made_from(halves, 3000)));
  // The control: one position off is another digest.
  floats[3] = bi::float_of(bi::bits_of(floats[3]) + 1);
  CHECK(digest(made_from(floats, 3000)) != digest(made_from(halves, 3000)));
}

TEST_CASE("trig: an entry doesn't depend on the table's size", "[trig]") {
  const table large = made(10000, 64, 1500), small = made(10000, 64, 100);
  REQUIRE(test::difference(small.cos.data(), large.cos.data(), 100 * 32).empty());
  REQUIRE(test::difference(small.sin.data(), large.sin.data(), 100 * 32).empty());
  for (const uint64_t p : {0u, 1u, 777u, 1499u}) {
    for (uint64_t i = 0; i < 32; ++i) {
      const c::sine_cosine v = entry(10000, 64, i, p);
      REQUIRE(bi::bits_of(v.cosine) == bi::bits_of(large.cos[p * 32 + i]));
      REQUIRE(bi::bits_of(v.sine) == bi::bits_of(large.sin[p * 32 + i]));
    }
  }
}

TEST_CASE("trig: the magnitude multiplies before the one rounding, powers of two are exact", "[trig]") {
  const table plain = made(10000, 32, 200), twice = made(10000, 32, 200, 2), least = made(10000, 32, 200, 0x1p-32);
  for (std::size_t i = 0; i < plain.cos.size(); ++i) {
    REQUIRE(bi::bits_of(twice.cos[i]) == bi::bits_of(bi::mul_rn(plain.cos[i], 2.0f)));
    REQUIRE(bi::bits_of(twice.sin[i]) == bi::bits_of(bi::mul_rn(plain.sin[i], 2.0f)));
    REQUIRE(bi::bits_of(least.cos[i]) == bi::bits_of(bi::mul_rn(plain.cos[i], 0x1p-32f)));
  }
}

TEST_CASE("trig: rounding to float agrees with the hardware's", "[trig]") {
  const bi::reference::fp_environment environment;
  test::generator g(12);
  for (int n = 0; n < 100000; ++n) {
    uint64_t m = g.next() >> (11 + g.below(50));
    if (n % 4 == 0) m &= ~uint64_t{0} << g.below(40);  // ties
    const int e = static_cast<int>(g.between(-220, 60));
    const bool negative = (g.next() & 1) != 0;
    if (m == 0) continue;
    const double exact = std::ldexp(static_cast<double>(m), e);
    const float want = static_cast<float>(negative ? -exact : exact);
    const float got = c::round_to_float(negative, c::uint128{m} << 50, e - 50);
    INFO(m << " * 2^" << e);
    REQUIRE(bi::bits_of(got) == bi::bits_of(want));
  }
}

TEST_CASE("trig: arguments", "[trig]") {
  std::vector<float> cos = test::poisoned<float>(64), sin = test::poisoned<float>(64);
  const std::vector<float> untouched = test::poisoned<float>(64);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const auto fails = [&](const bi::status& st, bi::error code, const char* argument) {
    INFO(bi::describe(st));
    CHECK(st.code == code);
    CHECK(std::string(st.argument) == argument);
    CHECK(test::difference(cos, untouched).empty());
    CHECK(test::difference(sin, untouched).empty());
  };
  const auto make = [&](double theta, int64_t dim, int64_t positions, double magnitude = 1) {
    return bi::make_rope_table(theta, dim, positions, cos.data(), sin.data(), magnitude);
  };
  fails(make(10000, -2, 4), bi::error::too_small, "rotary_dim");
  fails(make(10000, 7, 4), bi::error::not_multiple, "rotary_dim");
  fails(make(10000, 65538, 4), bi::error::too_large, "rotary_dim");
  fails(make(10000, 8, -1), bi::error::too_small, "positions");
  fails(make(10000, 8, (int64_t{1} << 31) + 1), bi::error::too_large, "positions");
  for (const double theta : {0.0, 0.999, -10000.0, 0x1p64, nan, infinity}) {
    fails(make(theta, 8, 4), bi::error::not_valid, "theta");
  }
  for (const double magnitude : {0.0, -1.0, 0x1p-33, 0x1p32, nan, infinity}) {
    fails(make(10000, 8, 4, magnitude), bi::error::not_valid, "magnitude");
  }
  fails(bi::make_rope_table(10000, 8, 4, nullptr, sin.data()), bi::error::null_pointer, "cos");
  fails(bi::make_rope_table(10000, 8, 4, cos.data(), nullptr), bi::error::null_pointer, "sin");
  fails(bi::make_rope_table(10000, 8, 4, cos.data(), cos.data() + 15), bi::error::overlap, "sin");

  const auto from = [&](std::vector<double> f) {
    return bi::make_rope_table_from_frequencies(f.data(), 2 * static_cast<int64_t>(f.size()), 4, cos.data(),
                                                sin.data());
  };
  for (const double bad : {-1.0, 0x1p32, nan, infinity, -infinity}) {
    const bi::status st = from({1, 0.5, bad, 0.25});
    fails(st, bi::error::not_valid, "frequencies");
    CHECK(st.position == 2);
  }
  const float* none = nullptr;
  fails(bi::make_rope_table_from_frequencies(none, 8, 4, cos.data(), sin.data()), bi::error::null_pointer,
        "frequencies");

  // Nothing to do is no error.
  CHECK(bool(make(10000, 0, 4)));
  CHECK(bool(make(10000, 8, 0)));
  CHECK(bool(bi::make_rope_table(10000, 0, 4, nullptr, nullptr)));
  CHECK(test::difference(cos, untouched).empty());
  CHECK(bool(make(1, 8, 4)));
  CHECK(bool(from({0.0, -0.0, 0x1.fffffffffffffp31})));
}
