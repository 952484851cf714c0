// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/exp2_grid.hpp"

#include <cmath>
#include <cstdint>
#include <iterator>

#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace {

// What is added to 3072 for the exponent n + k / 4096.
float exponent(int n, int k) { return bi::float_from_int(n * 4096 + k + 3072 * 4096); }
std::uint32_t power(int n, int k) { return bi::bits_of(bi::exp2_grid(bi::mul_rn(exponent(n, k), 0x1p-12f))); }

}  // namespace

TEST_CASE("exp2_grid: powers of two are exact", "[functions]") {
  const bi::reference::fp_environment environment;
  for (int n = -126; n <= 127; ++n) REQUIRE(power(n, 0) == static_cast<std::uint32_t>(n + 127) << 23);
}

TEST_CASE("exp2_grid: every multiple of 2^-12 has its mantissa", "[functions]") {
  const bi::reference::fp_environment environment;
  long wrong = 0;
  for (int n = -126; n <= 127; ++n) {
    for (int k = 0; k < 4096; ++k) {
      const int less = n < 0 ? bi::contract::exp2_mantissas_less[k] - '0' : 0;
      const std::uint32_t mantissa = bi::contract::exp2_mantissas[k] - static_cast<std::uint32_t>(less);
      const std::uint32_t expected = static_cast<std::uint32_t>(n + 127) << 23 | mantissa;
      wrong += power(n, k) != expected;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("exp2_grid: the tables are increasing and within 2 ulp", "[functions]") {
  static_assert(sizeof bi::contract::exp2_mantissas_less == 4097, "a digit for each mantissa");
  const bi::reference::fp_environment environment;
  for (const int n : {0, -1}) {
    double worst = 0;
    for (int k = 0; k < 4096; ++k) {
      const std::uint32_t m = power(n, k) & 0x7fffffu;
      if (k > 0) REQUIRE(m > (power(n, k - 1) & 0x7fffffu));
      worst = std::fmax(worst, std::fabs(std::ldexp(1.0 + std::ldexp(m, -23), 23) - std::exp2(23 + k / 4096.0)));
    }
    INFO("largest error in ulp: " << worst);
    CHECK(worst < 2.0);
    CHECK(worst > 0.5);
  }
}

TEST_CASE("exp2_grid: beyond the exponents of normal floats", "[functions]") {
  const bi::reference::fp_environment environment;
  CHECK(power(-127, 4095) == 0);
  CHECK(power(-150, 7) == 0);
  CHECK(power(-1024, 1) == 0);
  CHECK(power(128, 0) == bi::inf_bits);
  CHECK(power(1023, 4095) == bi::inf_bits);
  const auto at = [](float t) { return bi::bits_of(bi::exp2_grid(t)); };
  for (const float t : {0.0f, -0.0f, 1.0f, 2047.99f, -5.0f, -0x1p100f, 0x1p-149f, bi::neg_inf_f32()}) CHECK(at(t) == 0);
  for (const float t : {4096.0f, 0x1p27f, 0x1.fffffep127f, bi::inf_f32()}) CHECK(at(t) == bi::inf_bits);
  for (const std::uint32_t u : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    CHECK(at(bi::float_of(u)) == bi::nan_bits);
  }
}

TEST_CASE("exp2_grid: what is added to 3072 is rounded to a multiple of 2^-12", "[functions]") {
  const bi::reference::fp_environment environment;
  test::generator g(3);
  int ties = 0;
  for (int i = 0; i < 100000; ++i) {
    // Multiples of 2^-13 and what lies beside them: half of them are ties.
    const auto eighth = static_cast<int>(g.between(-126 * 8192, 127 * 8192));
    const float x = bi::mul_rn(bi::float_from_int(eighth), 0x1p-13f);
    const bool tie = eighth % 2 != 0;
    const int down = (eighth - (tie ? 1 : 0)) / 2, even = tie && down % 2 != 0 ? down + 1 : down;
    ties += tie ? 1 : 0;
    REQUIRE(bi::bits_of(bi::exp2_grid(bi::add_rn(3072.0f, x))) == power(0, even));
  }
  CHECK(ties > 40000);
}
