// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/reference/mma.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/mma_cases.hpp"

namespace {

using bi::bf16;
using bi::bits_of;
using bi::float_of;
using bi::fp16;
namespace reference = bi::reference;

template <class T>
const char* type_name() {
  return bi::dtype_traits<T>::name;
}

// ---- the step, written another way: every term on one fixed grid of 2^-320 as a wide two's complement integer

class grid {
 public:
  // += or -= significand * 2^exponent, cut toward zero to a multiple of 2^unit.
  void add(bool negative, std::uint64_t significand, int exponent, int unit) {
    std::uint64_t wide[limbs] = {};
    for (int b = 0; b < 64; ++b) {
      const int place = exponent + b;
      if ((significand >> b & 1) != 0 && place >= unit)
        wide[(place + base) / 64] |= std::uint64_t{1} << (place + base) % 64;
    }
    std::uint64_t carry = negative ? 1 : 0;
    for (int i = 0; i < limbs; ++i) {
      const std::uint64_t x = negative ? ~wide[i] : wide[i];
      const std::uint64_t s = limb_[i] + x, t = s + carry;
      carry = static_cast<std::uint64_t>(s < x) + static_cast<std::uint64_t>(t < s);
      limb_[i] = t;
    }
  }

  std::uint32_t toward_zero() const {
    grid magnitude = *this;
    const bool negative = limb_[limbs - 1] >> 63 != 0;
    if (negative) {
      std::uint64_t carry = 1;
      for (std::uint64_t& x : magnitude.limb_) {
        x = ~x + carry;
        carry = carry != 0 && x == 0 ? 1 : 0;
      }
    }
    int top = limbs * 64 - 1;
    while (top >= 0 && !magnitude.bit(top)) --top;
    if (top < 0) return 0;
    const std::uint32_t sign = negative ? 0x80000000u : 0;
    const int exponent = top - base;
    if (exponent >= 128) return sign | 0x7f800000u;
    const int last = std::max(exponent - 23, -149);
    std::uint32_t kept = 0;
    for (int p = top; p >= last + base; --p) kept = kept << 1 | (magnitude.bit(p) ? 1u : 0u);
    if (kept == 0) return 0;
    return exponent < -126 ? sign | kept : sign | static_cast<std::uint32_t>(exponent + 127) << 23 | (kept & 0x7fffffu);
  }

 private:
  static constexpr int limbs = 11, base = 320;
  bool bit(int p) const { return (limb_[p / 64] >> p % 64 & 1) != 0; }
  std::uint64_t limb_[limbs] = {};
};

struct decoded {
  bool negative, zero, infinite, nan;
  std::uint64_t significand;
  int exponent, fraction;  // |value| = significand * 2^(exponent - fraction)
};
decoded decode(std::uint32_t bits, int exponent_bits, int fraction) {
  const std::uint32_t field = bits >> fraction & ((1u << exponent_bits) - 1), rest = bits & ((1u << fraction) - 1);
  const bool special = field == (1u << exponent_bits) - 1;
  const std::uint32_t implicit = field != 0 ? 1u << fraction : 0;
  return {(bits >> (fraction + exponent_bits) & 1) != 0,
          field == 0 && rest == 0,
          special && rest == 0,
          special && rest != 0,
          rest | implicit,
          std::max(static_cast<int>(field), 1) - (1 << (exponent_bits - 1)) + 1,
          fraction};
}
template <class T>
decoded decode(T x) {
  return decode(x.bits, test::format_of<T>::exponent, test::format_of<T>::fraction);
}

template <class T>
std::uint32_t independent_step(float c, const T* a, const T* b) {
  const decoded accumulator = decode(bits_of(c), 8, 23);
  bool nan = accumulator.nan, up = accumulator.infinite && !accumulator.negative,
       down = accumulator.infinite && accumulator.negative;
  int top = accumulator.zero ? -133 : std::max(-133, accumulator.exponent);
  for (int k = 0; k < 16; ++k) {
    const decoded x = decode(a[k]), y = decode(b[k]);
    nan = nan || x.nan || y.nan || (x.infinite && y.zero) || (x.zero && y.infinite);
    if (x.infinite || y.infinite) (x.negative == y.negative ? up : down) = true;
    if (!x.zero && !y.zero) top = std::max(top, x.exponent + y.exponent);
  }
  if (nan || (up && down)) return 0x7fffffffu;
  if (up || down) return up ? 0x7f800000u : 0xff800000u;
  grid sum;
  sum.add(accumulator.negative, accumulator.significand, accumulator.exponent - 23, top - 25);
  for (int k = 0; k < 16; ++k) {
    const decoded x = decode(a[k]), y = decode(b[k]);
    sum.add(x.negative != y.negative, x.significand * y.significand, x.exponent + y.exponent - 2 * x.fraction,
            top - 25);
  }
  return sum.toward_zero();
}

template <class T>
std::string hex(const T* x) {
  std::string out;
  for (int k = 0; k < 16; ++k) {
    char text[8];
    std::snprintf(text, sizeof text, " %04x", x[k].bits);
    out += text;
  }
  return out;
}

// Counts differing results; reports the first in full.
class comparison {
 public:
  template <class T>
  void add(std::uint32_t got, std::uint32_t expected, float c, const T* a, const T* b) {
    ++count_;
    if (got == expected || differing_++ != 0) return;
    char text[64];
    std::snprintf(text, sizeof text, "0x%08x, expected 0x%08x, c 0x%08x", got, expected, bits_of(c));
    first_ = std::string(type_name<T>()) + " " + text + " a" + hex(a) + " b" + hex(b);
  }
  void add(float got, float expected) {
    ++count_;
    if (bits_of(got) == bits_of(expected) || differing_++ != 0) return;
    char text[64];
    std::snprintf(text, sizeof text, "result %lld: 0x%08x, expected 0x%08x", static_cast<long long>(count_ - 1),
                  bits_of(got), bits_of(expected));
    first_ = text;
  }
  void demand_equal() const {
    INFO(differing_ << " of " << count_ << " differ, first: " << first_);
    CHECK(differing_ == 0);
    CHECK(count_ > 0);
  }
  std::int64_t differing() const { return differing_; }

 private:
  std::int64_t count_ = 0, differing_ = 0;
  std::string first_;
};

template <class T>
void exact_equals_independent() {
  const reference::fp_environment environment;
  comparison result;
  for (std::int64_t t = 0; t < test::mma_categories * 30; ++t) {
    const auto tile = test::make_mma_tile<T>(t + 100000);
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        const float d = reference::mma_step_exact(tile.c[i][j], tile.a[i], tile.b[j]);
        result.add(bits_of(d), independent_step(tile.c[i][j], tile.a[i], tile.b[j]), tile.c[i][j], tile.a[i],
                   tile.b[j]);
      }
    }
  }
  result.demand_equal();
}

TEST_CASE("mma_step_exact equals an evaluation on a wide fixed-point grid", "[mma]") {
  exact_equals_independent<bf16>();
  exact_equals_independent<fp16>();
}

bf16 b16(float x) { return bi::cvt_rn<bf16>(x); }

std::uint32_t step_of(float c, std::vector<float> a, std::vector<float> b) {
  bf16 x[16] = {}, y[16] = {};
  for (std::size_t k = 0; k < a.size(); ++k) x[k] = b16(a[k]);
  for (std::size_t k = 0; k < b.size(); ++k) y[k] = b16(b[k]);
  return bits_of(reference::mma_step_exact(c, x, y));
}

TEST_CASE("a step's rules one by one", "[mma]") {
  const reference::fp_environment environment;
  const auto bits = [](float x) { return bits_of(x); };
  // 25 bits below the largest exponent are kept, what is cut is cut toward zero.
  CHECK(step_of(0x1p0f, {0x1p-12f}, {0x1p-13f}) == bits(0x1p0f));
  CHECK(step_of(0.0f, {0x1p0f, -0x1p-12f}, {1.0f, 0x1p-13f}) == bits(0x1.fffffep-1f));
  CHECK(step_of(0.0f, {0x1p0f, -0x1p-13f}, {1.0f, 0x1p-13f}) == bits(0x1p0f));
  // Two halves of a last place count together: terms are summed before the result is rounded.
  CHECK(step_of(0.0f, {0x1p0f, 0x1p-12f, 0x1p-12f}, {1.0f, 0x1p-12f, 0x1p-12f}) == bits(0x1.000002p0f));
  // Toward zero, never to nearest.
  CHECK(step_of(0x1.fffffep0f, {0x1.8p-12f}, {0x1p-12f}) == bits(0x1.fffffep0f));
  // Products are not renormalised: 1.5 * 1.5 has the exponent of 1.
  CHECK(step_of(0.0f, {1.5f, 0x1p-12f}, {1.5f, 0x1p-13f}) == bits(2.25f));
  CHECK(step_of(-2.25f, {1.5f, 0x1p-12f}, {1.5f, 0x1p-12f}) == bits(0x1p-24f));
  // A zero factor takes no part in the largest exponent, however large the other.
  CHECK(step_of(0x1p-60f, {0.0f}, {0x1p127f}) == bits(0x1p-60f));
  // -0 appears nowhere.
  CHECK(step_of(-0.0f, {-0.0f}, {1.0f}) == 0);
  CHECK(step_of(-1.0f, {1.0f}, {1.0f}) == 0);
  // Beyond fp32: a product may pass through, a result may not.
  CHECK(step_of(0.0f, {0x1p127f, -0x1p127f}, {2.0f, 2.0f}) == 0);
  CHECK(step_of(0.0f, {0x1p127f}, {-2.0f}) == 0xff800000u);
  // Subnormals: results are kept, the unit is never finer than 2^-158.
  CHECK(step_of(float_of(1), {}, {}) == 1);
  CHECK(step_of(0.0f, {0x1p-100f}, {0x1p-49f}) == 1);
  CHECK(step_of(0.0f, {0x1p-100f}, {-0x1p-50f}) == 0);
  // NaN, Inf * 0 and Inf - Inf.
  const float inf = bi::inf_f32();
  CHECK(step_of(0.0f, {inf}, {0.0f}) == 0x7fffffffu);
  CHECK(step_of(-inf, {inf}, {1.0f}) == 0x7fffffffu);
  CHECK(step_of(float_of(0xffc00001u), {1.0f}, {1.0f}) == 0x7fffffffu);
  CHECK(step_of(0x1p127f, {-inf}, {2.0f}) == 0xff800000u);
}

// ---- packing

template <class T>
void packing_is_exact() {
  const reference::fp_environment environment;
  std::int64_t wrong = 0;
  for (int first = 0; first < 65536; first += 16) {
    const auto element = [&](std::int64_t i) { return T{static_cast<std::uint16_t>(first + i)}; };
    reference::mma_row_block row;
    reference::mma_panel_block panel;
    reference::mma_pack_row<T>(&row, 16, element);
    reference::mma_pack_panel<T>(&panel, 16, 32, [&](std::int64_t i, int j) { return element((i + j) % 16); });
    for (int k = 0; k < 16; ++k) {
      const T x = element(k);
      const decoded d = decode(x);
      const bool special = d.infinite || d.nan;
      const auto fits = [&](float value, int exponent) {
        if (d.nan ? !bi::is_nan(value) : bits_of(value) != bits_of(bi::to_f32(x))) return false;
        return special ? exponent > 1000 : d.zero ? exponent < -1000 : exponent == d.exponent + 127;
      };
      if (!fits(row.value[k], row.exponent[k])) ++wrong;
      for (int j = 0; j < 32; ++j) {
        const int i = (k - j + 32) % 16;
        if (!fits(panel.value[i][j], panel.exponent[i][j % 16][j / 16])) ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("packing keeps every value and its exponent", "[mma]") {
  packing_is_exact<bf16>();
  packing_is_exact<fp16>();
}

TEST_CASE("packing fills the tail with zeros", "[mma]") {
  const auto one = [](auto...) { return b16(1.0f); };
  reference::mma_row_block row[2];
  reference::mma_panel_block panel[2];
  reference::mma_pack_row<bf16>(row, 19, one);
  reference::mma_pack_panel<bf16>(panel, 19, 5, one);
  CHECK(reference::mma_steps(0) == 0);
  CHECK(reference::mma_steps(16) == 1);
  CHECK(reference::mma_steps(17) == 2);
  for (int k = 0; k < 16; ++k) {
    CHECK((bits_of(row[1].value[k]) != 0) == (k < 3));
    for (int j = 0; j < 32; ++j) CHECK((bits_of(panel[1].value[k][j]) != 0) == (k < 3 && j < 5));
  }
}

// ---- chains

// A random chain of `steps` steps: each from a tile of its own category, or all of one.
template <class T>
struct chain_data {
  std::vector<T> a, b;  // [steps][16], [32][steps][16]
  std::vector<float> c;
  std::int64_t steps;

  chain_data(std::int64_t steps_, int only_category, std::uint64_t seed) : steps(steps_) {
    test::generator g(seed);
    a.resize(static_cast<std::size_t>(steps * 16));
    b.resize(static_cast<std::size_t>(32 * steps * 16));
    for (std::int64_t s = 0; s < steps; ++s) {
      const std::int64_t category = only_category >= 0 ? only_category : g.below(test::mma_categories);
      std::int64_t first = 0;
      for (int j = 0; j < 32; ++j) {
        if (j % 8 == 0) first = g.below(100000) * test::mma_categories + category;
        const auto tile = test::make_mma_tile<T>(first);
        if (j == 0) std::copy(tile.a[s % 16], tile.a[s % 16] + 16, a.begin() + s * 16);
        std::copy(tile.b[j % 8], tile.b[j % 8] + 16, b.begin() + (j * steps + s) * 16);
        if (s == 0) c.push_back(tile.c[0][j % 8]);
      }
    }
  }

  std::vector<float> exact() const {
    std::vector<float> d = c;
    for (int j = 0; j < 32; ++j) {
      for (std::int64_t s = 0; s < steps; ++s) {
        float& x = d[static_cast<std::size_t>(j)];
        x = reference::mma_step_exact(x, a.data() + s * 16, b.data() + (j * steps + s) * 16);
      }
    }
    return d;
  }
  std::vector<float> fast(bool widest) const {
    std::vector<reference::mma_row_block> row(static_cast<std::size_t>(steps));
    std::vector<reference::mma_panel_block> panel(static_cast<std::size_t>(steps));
    reference::mma_pack_row<T>(row.data(), steps * 16, [&](std::int64_t i) { return a[static_cast<std::size_t>(i)]; });
    reference::mma_pack_panel<T>(panel.data(), steps * 16, 32, [&](std::int64_t i, int j) {
      return b[static_cast<std::size_t>(j * steps * 16 + i)];
    });
    std::vector<float> d = c;
    reference::mma_chain<T>(d.data(), row.data(), panel.data(), steps, widest);
    return d;
  }
};

// Every tile as 16 rows of single steps.
template <class T>
void single_steps(bool widest) {
  comparison result;
  for (std::int64_t t = 0; t < test::mma_categories * 100; ++t) {
    const auto tile = test::make_mma_tile<T>(t);
    reference::mma_row_block row;
    reference::mma_panel_block panel;
    // The tile's columns stand at both ends of the panel.
    reference::mma_pack_panel<T>(&panel, 16, 32, [&](std::int64_t k, int j) { return tile.b[j % 8][k]; });
    for (int i = 0; i < 16; ++i) {
      reference::mma_pack_row<T>(&row, 16, [&](std::int64_t k) { return tile.a[i][k]; });
      float c[32];
      for (int j = 0; j < 32; ++j) c[j] = tile.c[(i + j / 8) % 16][j % 8];
      float d[32];
      std::copy(c, c + 32, d);
      reference::mma_chain<T>(d, &row, &panel, 1, widest);
      for (int j = 0; j < 32; j += 1) {
        if (j / 8 == 1 || j / 8 == 2) continue;
        const float e = reference::mma_step_exact(c[j], tile.a[i], tile.b[j % 8]);
        result.add(bits_of(d[j]), bits_of(e), c[j], tile.a[i], tile.b[j % 8]);
      }
    }
  }
  result.demand_equal();
}

TEST_CASE("mma_chain equals mma_step_exact: single steps of every kind", "[mma]") {
  const reference::fp_environment environment;
  for (const bool widest : {false, true}) {
    single_steps<bf16>(widest);
    single_steps<fp16>(widest);
  }
}

template <class T>
void whole_chains() {
  const reference::fp_environment environment;
  comparison result;
  for (int only = -1; only < test::mma_categories; ++only) {
    for (const std::int64_t steps : {1, 2, 15, 16, 17, 40}) {
      const chain_data<T> data(steps, only, static_cast<std::uint64_t>(steps * 100 + only));
      const std::vector<float> e = data.exact(), narrow = data.fast(false), wide = data.fast(true);
      for (std::size_t j = 0; j < 32; ++j) {
        result.add(narrow[j], e[j]);
        result.add(wide[j], e[j]);
      }
    }
  }
  result.demand_equal();
}

TEST_CASE("mma_chain equals mma_step_exact: chains that mix everything", "[mma]") {
  whole_chains<bf16>();
  whole_chains<fp16>();
}

template <class T>
void long_finite_chains() {
  const reference::fp_environment environment;
  comparison result;
  constexpr std::int64_t k = 1024;
  for (const auto kind : test::finite_values) {
    const auto a = test::random_vector<T>(k, kind, 1);
    const auto b = test::random_vector<T>(32 * k, kind, 2);
    std::vector<reference::mma_row_block> row(k / 16);
    std::vector<reference::mma_panel_block> panel(k / 16);
    reference::mma_pack_row<T>(row.data(), k, [&](std::int64_t i) { return a[static_cast<std::size_t>(i)]; });
    reference::mma_pack_panel<T>(panel.data(), k, 32,
                                 [&](std::int64_t i, int j) { return b[static_cast<std::size_t>(j * k + i)]; });
    float d[32] = {};
    reference::mma_chain<T>(d, row.data(), panel.data(), k / 16);
    for (int j = 0; j < 32; ++j) {
      float e = 0.0f;
      for (std::int64_t i = 0; i < k; i += 16) e = reference::mma_step_exact(e, a.data() + i, b.data() + j * k + i);
      result.add(d[j], e);
    }
  }
  result.demand_equal();
}

TEST_CASE("mma_chain equals mma_step_exact: long finite chains", "[mma]") {
  long_finite_chains<bf16>();
  long_finite_chains<fp16>();
}

TEST_CASE("a column's result depends on that column alone", "[mma]") {
  const reference::fp_environment environment;
  for (int category = -1; category < test::mma_categories; ++category) {
    const chain_data<bf16> data(20, category, 77);
    chain_data<bf16> other = data;
    // The neighbours change places and become hostile.
    for (int j = 0; j < 32; ++j) {
      const int from = (j * 5 + 3) % 32;
      for (std::size_t i = 0; i < 320; ++i) {
        other.b[static_cast<std::size_t>(j) * 320 + i] = data.b[static_cast<std::size_t>(from) * 320 + i];
        if (j % 2 == 1) other.b[static_cast<std::size_t>(j) * 320 + i] = bf16{0x7fff};
      }
      other.c[static_cast<std::size_t>(j)] = data.c[static_cast<std::size_t>(from)];
    }
    const std::vector<float> d = data.fast(true), e = other.fast(true);
    for (int j = 0; j < 32; j += 2) {
      CHECK(bits_of(e[static_cast<std::size_t>(j)]) == bits_of(d[static_cast<std::size_t>((j * 5 + 3) % 32)]));
    }
  }
}

TEST_CASE("order inside a step is free, order of steps is not", "[mma]") {
  const reference::fp_environment environment;
  const chain_data<bf16> data(8, static_cast<int>(test::mma_category::wide), 5);
  chain_data<bf16> inside = data, across = data;
  for (int s = 0; s < 8; ++s) {
    for (int k = 0; k < 16; ++k) {
      const auto to = static_cast<std::size_t>(s * 16 + k);
      const auto shuffled = static_cast<std::size_t>(s * 16 + (k * 7 + 3) % 16);
      const auto reversed = static_cast<std::size_t>((7 - s) * 16 + k);
      inside.a[to] = data.a[shuffled];
      across.a[to] = data.a[reversed];
      for (std::size_t j = 0; j < 32; ++j) {
        inside.b[j * 128 + to] = data.b[j * 128 + shuffled];
        across.b[j * 128 + to] = data.b[j * 128 + reversed];
      }
    }
  }
  const std::vector<float> d = data.fast(true);
  CHECK(test::difference(inside.fast(true), d) == "");
  CHECK(test::difference(across.fast(true), d) != "");  // the control: another order of steps is seen
}

TEST_CASE("two steps of half the depth are another function", "[mma]") {
  const reference::fp_environment environment;
  int differing = 0;
  for (std::int64_t t = 0; t < 40; ++t) {
    const auto tile = test::make_mma_tile<bf16>(t * test::mma_categories);
    for (int i = 0; i < 16; ++i) {
      bf16 low[16] = {}, high[16] = {};
      std::copy(tile.a[i], tile.a[i] + 8, low);
      std::copy(tile.a[i] + 8, tile.a[i] + 16, high + 8);
      const float c = tile.c[i][0];
      const float once = reference::mma_step_exact(c, tile.a[i], tile.b[0]);
      const float twice = reference::mma_step_exact(reference::mma_step_exact(c, low, tile.b[0]), high, tile.b[0]);
      differing += bits_of(once) != bits_of(twice) ? 1 : 0;
    }
  }
  CHECK(differing > 5);
}

// ---- what a GPU returned

template <class T>
void parse(const std::string& hex_text, T (&out)[16]) {
  REQUIRE(hex_text.size() == 64);
  for (std::size_t k = 0; k < 16; ++k)
    out[k].bits = static_cast<std::uint16_t>(std::stoul(hex_text.substr(k * 4, 4), nullptr, 16));
}

template <class T>
void recorded_step(std::istringstream& line, comparison& exact, comparison& fast) {
  std::string c_text, a_text, b_text, d_text;
  line >> c_text >> a_text >> b_text >> d_text;
  T a[16], b[16];
  parse(a_text, a);
  parse(b_text, b);
  const float c = float_of(static_cast<std::uint32_t>(std::stoul(c_text, nullptr, 16)));
  const auto d = static_cast<std::uint32_t>(std::stoul(d_text, nullptr, 16));
  exact.add(bits_of(reference::mma_step_exact(c, a, b)), d, c, a, b);
  reference::mma_row_block row;
  reference::mma_panel_block panel;
  reference::mma_pack_row<T>(&row, 16, [&](std::int64_t i) { return a[i]; });
  reference::mma_pack_panel<T>(&panel, 16, 1, [&](std::int64_t i, int) { return b[i]; });
  float x[32] = {c};
  reference::mma_chain<T>(x, &row, &panel, 1);
  fast.add(bits_of(x[0]), d, c, a, b);
}

template <class T>
void recorded_tiles(std::int64_t count, const std::string& inputs, const std::string& outputs) {
  test::word_digest in, out;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto t = test::make_mma_tile<T>(i);
    in.add(&t.a[0][0], 256);
    in.add(&t.b[0][0], 128);
    in.add(&t.c[0][0], 128);
    for (int o = 0; o < 128; ++o) {
      out.add(bits_of(reference::mma_step_exact(t.c[o / 8][o % 8], t.a[o / 8], t.b[o % 8])));
    }
  }
  CHECK(in.value() == std::stoull(inputs, nullptr, 16));
  CHECK(out.value() == std::stoull(outputs, nullptr, 16));
}

template <class T>
void recorded_chains(std::int64_t count, const std::string& inputs, const std::string& outputs) {
  constexpr int depth = test::mma_chain_depth, steps = depth / 16;
  test::word_digest in, out;
  std::vector<T> all_b;
  std::vector<reference::mma_row_block> row(steps);
  std::vector<reference::mma_panel_block> panel(steps);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto data = test::make_mma_chain<T>(i);
    in.add(data.a.data(), static_cast<std::int64_t>(data.a.size()));
    all_b.insert(all_b.end(), data.b.begin(), data.b.end());
    reference::mma_pack_panel<T>(panel.data(), depth, test::mma_chain_columns, [&](std::int64_t k, int j) {
      return data.b[static_cast<std::size_t>(j * depth + k)];
    });
    for (std::int64_t r = 0; r < test::mma_chain_rows; ++r) {
      reference::mma_pack_row<T>(row.data(), depth,
                                 [&](std::int64_t k) { return data.a[static_cast<std::size_t>(r * depth + k)]; });
      float d[32] = {};
      reference::mma_chain<T>(d, row.data(), panel.data(), steps);
      out.add(d, test::mma_chain_columns);
    }
  }
  in.add(all_b.data(), static_cast<std::int64_t>(all_b.size()));
  CHECK(in.value() == std::stoull(inputs, nullptr, 16));
  CHECK(out.value() == std::stoull(outputs, nullptr, 16));
}

TEST_CASE("the model returns what a Hopper GPU returned", "[mma][golden]") {
  const reference::fp_environment environment;
  std::ifstream file(BI_TEST_DIR "/golden/mma_hopper.txt");
  INFO("tests/golden/mma_hopper.txt, written by tests/golden/record_mma.cu");
  REQUIRE(file.good());
  comparison exact, fast;
  int digests = 0;
  for (std::string text; std::getline(file, text);) {
    if (text.empty() || text[0] == '#') continue;
    std::istringstream line(text);
    std::string what, type;
    line >> what >> type;
    REQUIRE((type == "bf16" || type == "fp16"));
    INFO(what << " " << type);
    if (what == "step") {
      type == "bf16" ? recorded_step<bf16>(line, exact, fast) : recorded_step<fp16>(line, exact, fast);
      continue;
    }
    std::int64_t count = 0;
    std::string inputs, outputs;
    line >> count >> inputs >> outputs;
    REQUIRE(outputs.size() == 16);
    ++digests;
    if (what == "tiles") {
      CHECK(count >= 800);
      type == "bf16" ? recorded_tiles<bf16>(count, inputs, outputs) : recorded_tiles<fp16>(count, inputs, outputs);
    } else {
      REQUIRE((what == "chains_mma" || what == "chains_wgmma"));
      type == "bf16" ? recorded_chains<bf16>(count, inputs, outputs) : recorded_chains<fp16>(count, inputs, outputs);
    }
  }
  exact.demand_equal();
  fast.demand_equal();
  CHECK(digests == 6);
}

}  // namespace
