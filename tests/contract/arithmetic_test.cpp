// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/arithmetic.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "bi/dtype.hpp"
#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace {

__extension__ using uint128 = unsigned __int128;
__extension__ using int128 = __int128;
using std::uint32_t;
using std::uint64_t;

// ---- the model: floats as integers, exact sums and products, one rounding at the end

struct exact {  // (-1)^negative * m * 2^e; the last bit of m may stand for everything below it
  bool negative;
  uint128 m;
  int e;
};

bool nan_bits(uint32_t u) { return (u << 1) > 0xff000000u; }
bool inf_bits(uint32_t u) { return (u << 1) == 0xff000000u; }
bool zero_bits(uint32_t u) { return (u << 1) == 0; }
constexpr uint32_t the_nan = 0x7fffffffu, the_inf = 0x7f800000u, sign_bit = 0x80000000u;

exact open(uint32_t u) {
  const uint32_t field = (u >> 23) & 255u, fraction = u & 0x7fffffu;
  return {(u >> 31) != 0, field == 0 ? fraction : fraction | 0x800000u,
          field == 0 ? -149 : static_cast<int>(field) - 150};
}

int width(uint128 m) {
  int n = 0;
  for (; m != 0; m >>= 1) ++n;
  return n;
}

exact shifted_to(exact x, int bits) {
  const int by = bits - width(x.m);
  return {x.negative, x.m << by, x.e - by};
}

uint32_t rounded(const exact& x) {
  const uint32_t sign = x.negative ? sign_bit : 0u;
  if (x.m == 0) return sign;
  const int unit = std::max(x.e + width(x.m) - 24, -149), drop = unit - x.e;  // the result counts 2^unit
  uint128 q = 0;
  if (drop <= 0) {
    q = x.m << -drop;
  } else if (drop < 128) {
    q = x.m >> drop;
    const uint128 rest = x.m - (q << drop), half = uint128{1} << (drop - 1);
    if (rest > half || (rest == half && (q & 1u) != 0)) ++q;
  }
  int e = unit;
  if (q == uint128{1} << 24) {
    q >>= 1;
    ++e;
  }
  if (e > 104) return sign | the_inf;
  const auto low = static_cast<uint32_t>(q);
  return low < 0x800000u ? sign | low : sign | (static_cast<uint32_t>(e + 150) << 23) | (low & 0x7fffffu);
}

uint32_t rounded_sum(exact x, exact y) {  // neither is zero
  x = shifted_to(x, 120);
  y = shifted_to(y, 120);
  if (x.e < y.e) std::swap(x, y);
  const int by = x.e - y.e;
  const uint128 low = by >= 120 ? 0 : y.m >> by;
  y.m = low | ((by >= 120 || (low << by) != y.m) ? 1u : 0u);
  const int128 sum = (x.negative ? -static_cast<int128>(x.m) : static_cast<int128>(x.m)) +
                     (y.negative ? -static_cast<int128>(y.m) : static_cast<int128>(y.m));
  if (sum == 0) return 0;
  return rounded({sum < 0, static_cast<uint128>(sum < 0 ? -sum : sum), x.e});
}

uint32_t model_add(uint32_t a, uint32_t b) {
  if (nan_bits(a) || nan_bits(b)) return the_nan;
  if (inf_bits(a)) return inf_bits(b) && a != b ? the_nan : a;
  if (inf_bits(b)) return b;
  if (zero_bits(a)) return zero_bits(b) ? a & b : b;
  return zero_bits(b) ? a : rounded_sum(open(a), open(b));
}
uint32_t model_fma(uint32_t a, uint32_t b, uint32_t c) {
  if (nan_bits(a) || nan_bits(b) || nan_bits(c)) return the_nan;
  const uint32_t sign = (a ^ b) & sign_bit;
  if (inf_bits(a) || inf_bits(b)) {
    if (zero_bits(a) || zero_bits(b) || (inf_bits(c) && (c ^ sign) >> 31 != 0)) return the_nan;
    return sign | the_inf;
  }
  if (inf_bits(c)) return c;
  if (zero_bits(a) || zero_bits(b)) return zero_bits(c) ? sign & c : c;
  const exact x = open(a), y = open(b), product{x.negative != y.negative, x.m * y.m, x.e + y.e};
  return zero_bits(c) ? rounded(product) : rounded_sum(product, open(c));
}
uint32_t model_mul(uint32_t a, uint32_t b) {  // the zero added has the product's sign
  return model_fma(a, b, (a ^ b) & sign_bit);
}
uint32_t model_div(uint32_t a, uint32_t b) {
  if (nan_bits(a) || nan_bits(b)) return the_nan;
  const uint32_t sign = (a ^ b) & sign_bit;
  if (inf_bits(a)) return inf_bits(b) ? the_nan : sign | the_inf;
  if (inf_bits(b)) return sign;
  if (zero_bits(b)) return zero_bits(a) ? the_nan : sign | the_inf;
  if (zero_bits(a)) return sign;
  const exact x = shifted_to(open(a), 100), y = open(b);
  return rounded({sign != 0, (x.m / y.m) << 1 | (x.m % y.m != 0 ? 1u : 0u), x.e - y.e - 1});
}
uint32_t model_sqrt(uint32_t a) {
  if (zero_bits(a)) return a;
  if (nan_bits(a) || a >> 31 != 0) return the_nan;
  if (inf_bits(a)) return a;
  exact x = shifted_to(open(a), 100);
  if (x.e % 2 != 0) x = {false, x.m << 1, x.e - 1};
  uint128 root = 0;
  for (int bit = 60; bit >= 0; --bit) {
    const uint128 next = root | uint128{1} << bit;
    if (next * next <= x.m) root = next;
  }
  return rounded({false, root << 1 | (root * root != x.m ? 1u : 0u), x.e / 2 - 1});
}

// The order of all numbers, -0 below +0.
std::int64_t rank(uint32_t u) {
  const std::int64_t m = u & 0x7fffffffu;
  return u >> 31 != 0 ? -m - 1 : m;
}

// ---- operands

std::vector<uint32_t> edges() {
  std::vector<uint32_t> v = {0x00000000u, 0x00000001u, 0x00000002u, 0x00000003u, 0x003fffffu, 0x00400000u, 0x007fffffu,
                             0x00800000u, 0x00800001u, 0x00ffffffu, 0x01000000u, 0x0c000000u, 0x33000000u, 0x33800000u,
                             0x33800001u, 0x34000000u, 0x3effffffu, 0x3f000000u, 0x3f7fffffu, 0x3f800000u, 0x3f800001u,
                             0x3fffffffu, 0x40000000u, 0x40400000u, 0x4b7fffffu, 0x4b800000u, 0x4b800001u, 0x73000000u,
                             0x7e800000u, 0x7f000000u, 0x7f7fffffu, 0x7f800000u, 0x7f800001u, 0x7fc00000u, 0x7fffffffu};
  const std::size_t n = v.size();
  for (std::size_t i = 0; i < n; ++i) v.push_back(v[i] | sign_bit);
  return v;
}

// Bits at random, near values (sums that cancel), and values whose product is near a third.
struct operands {
  uint32_t a, b, c;
};
operands draw(test::generator& g) {
  const auto bits = [&] { return static_cast<uint32_t>(g.next()); };
  operands o{bits(), bits(), bits()};
  switch (g.below(4)) {
    case 0:
      break;
    case 1:  // exponents near each other
      o.b = (o.a & 0x7f800000u) + (o.b & 0x81ffffffu);
      o.c = (o.a & 0x7f800000u) + (o.c & 0x81ffffffu);
      break;
    case 2:  // c near -a b
      o.a = (o.a & 0x80ffffffu) + 0x3f000000u;
      o.b = (o.b & 0x80ffffffu) + 0x3f000000u;
      o.c = (model_mul(o.a, o.b) ^ sign_bit) + static_cast<uint32_t>(g.below(3)) - 1u;
      break;
    default:  // products and quotients among the subnormals
      o.a = (o.a & 0x80ffffffu) + 0x1f000000u;
      o.b = (o.b & 0x80ffffffu) + 0x1f000000u + static_cast<uint32_t>(g.below(4) << 24);
      o.c = o.c & 0x80ffffffu;
      break;
  }
  return o;
}

class failures {  // Catch's macros are too slow to call a million times
 public:
  void expect(const char* what, uint32_t got, uint32_t want, uint32_t a, uint32_t b = 0, uint32_t c = 0) {
    if (got == want) return;
    if (count_++ > 0) return;
    char text[160];
    std::snprintf(text, sizeof text, "%s(%08x, %08x, %08x) = %08x, expected %08x", what, a, b, c, got, want);
    first_ = text;
  }
  void require() const {
    INFO(first_ << "; " << count_ << " wrong");
    REQUIRE(count_ == 0);
  }

 private:
  long count_ = 0;
  std::string first_;
};

void check_pair(failures& f, uint32_t a, uint32_t b) {
  const float x = bi::float_of(a), y = bi::float_of(b);
  f.expect("add", bi::bits_of(bi::add_rn(x, y)), model_add(a, b), a, b);
  f.expect("sub", bi::bits_of(bi::sub_rn(x, y)), model_add(a, nan_bits(b) ? b : b ^ sign_bit), a, b);
  f.expect("mul", bi::bits_of(bi::mul_rn(x, y)), model_mul(a, b), a, b);
  f.expect("div", bi::bits_of(bi::div_rn(x, y)), model_div(a, b), a, b);

  const bool ordered = !nan_bits(a) && !nan_bits(b), both_zero = zero_bits(a) && zero_bits(b);
  const bool below = ordered && !both_zero && rank(a) < rank(b), above = ordered && !both_zero && rank(b) < rank(a);
  f.expect("less", bi::less(x, y), below, a, b);
  f.expect("greater", bi::greater(x, y), above, a, b);
  f.expect("equal", bi::equal(x, y), ordered && (both_zero || a == b), a, b);
  f.expect("less_equal", bi::less_equal(x, y), ordered && (below || both_zero || a == b), a, b);
  const uint32_t high = rank(a) < rank(b) ? b : a, low = rank(a) < rank(b) ? a : b;
  f.expect("max_nan", bi::bits_of(bi::max_nan(x, y)), ordered ? high : the_nan, a, b);
  f.expect("min_nan", bi::bits_of(bi::min_nan(x, y)), ordered ? low : the_nan, a, b);
  const uint32_t other = nan_bits(a) ? (nan_bits(b) ? the_nan : b) : a;
  f.expect("max_num", bi::bits_of(bi::max_num(x, y)), ordered ? high : other, a, b);
}

void check_one(failures& f, uint32_t a) {
  const float x = bi::float_of(a);
  f.expect("bits", bi::bits_of(x), a, a);
  f.expect("sqrt", bi::bits_of(bi::sqrt_rn(x)), model_sqrt(a), a);
  f.expect("rsqrt", bi::bits_of(bi::rsqrt_rn(x)), model_div(0x3f800000u, model_sqrt(a)), a);
  f.expect("neg", bi::bits_of(bi::neg(x)), a ^ sign_bit, a);
  f.expect("abs", bi::bits_of(bi::abs(x)), a & ~sign_bit, a);
  f.expect("is_nan", bi::is_nan(x), nan_bits(a), a);
  f.expect("is_inf", bi::is_inf(x), inf_bits(a), a);
  f.expect("is_finite", bi::is_finite(x), !nan_bits(a) && !inf_bits(a), a);
  f.expect("canonical_nan", bi::bits_of(bi::canonical_nan(x)), nan_bits(a) ? the_nan : a, a);
}

// ---- 16-bit formats: every code's magnitude as a double, Inf standing at the next power of two

template <class T>
double magnitude(int code) {
  constexpr int fraction = test::format_of<T>::fraction, bias = (1 << (test::format_of<T>::exponent - 1)) - 1;
  const int e = code >> fraction, m = code & ((1 << fraction) - 1);
  return e == 0 ? std::ldexp(m, 1 - bias - fraction) : std::ldexp(m + (1 << fraction), e - bias - fraction);
}
template <class T>
constexpr int inf_code = ((1 << test::format_of<T>::exponent) - 1) << test::format_of<T>::fraction;

template <class T>
uint32_t nearest(uint32_t u, const std::vector<double>& table) {
  const uint32_t sign = (u >> 16) & 0x8000u;
  if (nan_bits(u)) return 0x7fffu;
  if (inf_bits(u)) return sign | static_cast<uint32_t>(inf_code<T>);
  const exact x = open(u);
  const double v = std::ldexp(static_cast<double>(static_cast<uint32_t>(x.m)), x.e);
  const auto above = static_cast<std::size_t>(std::upper_bound(table.begin(), table.end(), v) - table.begin());
  if (above == table.size()) return sign | static_cast<uint32_t>(inf_code<T>);
  const std::size_t below = above - 1;
  const double to_above = table[above] - v, to_below = v - table[below];  // exact
  const bool up = to_above < to_below || (to_above == to_below && (above & 1u) == 0);
  return sign | static_cast<uint32_t>(up ? above : below);
}

template <class T>
void check_format() {
  const bi::reference::fp_environment environment;
  std::vector<double> table;
  for (int code = 0; code <= inf_code<T>; ++code) table.push_back(magnitude<T>(code));

  failures f;
  const auto narrow = [&](uint32_t u) {
    f.expect("narrow", bi::cvt_rn<T>(bi::float_of(u)).bits, nearest<T>(u, table), u);
  };
  for (uint32_t code = 0; code < 65536; ++code) {
    const T x{static_cast<std::uint16_t>(code)};
    const uint32_t wide = bi::bits_of(bi::to_f32(x)), sign = (code & 0x8000u) << 16, m = code & 0x7fffu;
    const auto inf = static_cast<uint32_t>(inf_code<T>);
    f.expect("is_nan", bi::is_nan(x), m > inf, code);
    f.expect("is_finite", bi::is_finite(x), m < inf, code);
    if (m > inf) {
      f.expect("NaN stays NaN", nan_bits(wide), 1, code);
      f.expect("narrow", bi::cvt_rn<T>(bi::float_of(wide)).bits, 0x7fffu, code);
      continue;
    }
    f.expect("back", bi::cvt_rn<T>(bi::float_of(wide)).bits, code, code);
    if (m == inf) {
      f.expect("widen", wide, sign | the_inf, code);
      continue;
    }
    const exact w = open(wide);
    const double value = std::ldexp(static_cast<double>(static_cast<uint32_t>(w.m)), w.e);
    f.expect("widen", value == table[m] && (wide & sign_bit) == sign, 1, code);
    // The tie above this code, and its neighbours. Inf begins at the tie above the largest number.
    const double middle = (table[m] + table[m + 1]) / 2;
    if (middle < 0x1p128) {
      uint32_t u = 0;
      const auto tie = static_cast<float>(middle);  // exact
      std::memcpy(&u, &tie, sizeof u);
      for (const uint32_t near : {u - 1, u, u + 1}) narrow(near | sign);
    }
  }
  for (const uint32_t u : edges()) narrow(u);
  test::generator g(3);
  for (int i = 0; i < 200000; ++i) {
    auto u = static_cast<uint32_t>(g.next());
    if (i % 2 == 0) u = (u & 0x8fffffffu) + 0x30000000u;
    narrow(u);
  }
  f.require();
}

}  // namespace

TEST_CASE("one operand: all edges and random floats", "[arithmetic]") {
  const bi::reference::fp_environment environment;
  failures f;
  for (const uint32_t a : edges()) check_one(f, a);
  test::generator g(1);
  for (int i = 0; i < 100000; ++i) check_one(f, static_cast<uint32_t>(g.next()));
  f.require();
}

TEST_CASE("two operands: all pairs of edges and random pairs", "[arithmetic]") {
  const bi::reference::fp_environment environment;
  failures f;
  const std::vector<uint32_t> e = edges();
  for (const uint32_t a : e) {
    for (const uint32_t b : e) check_pair(f, a, b);
  }
  test::generator g(2);
  for (int i = 0; i < 200000; ++i) {
    const operands o = draw(g);
    check_pair(f, o.a, o.b);
  }
  f.require();
}

TEST_CASE("fma: edges, random and cancelling operands", "[arithmetic]") {
  const bi::reference::fp_environment environment;
  failures f;
  long one_rounding = 0;
  const auto check = [&](const operands& o) {
    const float a = bi::float_of(o.a), b = bi::float_of(o.b), c = bi::float_of(o.c);
    const uint32_t got = bi::bits_of(bi::fma_rn(a, b, c));
    f.expect("fma", got, model_fma(o.a, o.b, o.c), o.a, o.b, o.c);
    if (got != bi::bits_of(bi::add_rn(bi::mul_rn(a, b), c))) ++one_rounding;
  };
  const std::vector<uint32_t> e = edges();
  for (const uint32_t a : e) {
    for (const uint32_t b : e) {
      for (std::size_t i = b % 5; i < e.size(); i += 5) check({a, b, e[i]});
    }
  }
  test::generator g(4);
  for (int i = 0; i < 200000; ++i) check(draw(g));
  f.require();
  // The control: with two roundings thousands of these results are others.
  REQUIRE(one_rounding > 10000);
}

TEST_CASE("the model of rounding is right about results known by hand", "[arithmetic]") {
  REQUIRE(model_add(0x3f800000u, 0x33800000u) == 0x3f800000u);               // 1 + 2^-24: a tie, to even
  REQUIRE(model_add(0x3f800001u, 0x33800000u) == 0x3f800002u);               // the other tie
  REQUIRE(model_add(0x3f800000u, 0x33800001u) == 0x3f800001u);               // just above
  REQUIRE(model_add(0x3f800000u, 0xbf800000u) == 0u);                        // 1 - 1 = +0
  REQUIRE(model_mul(0x00800000u, 0x3f000000u) == 0x00400000u);               // 2^-126 / 2 is subnormal
  REQUIRE(model_mul(0x00000001u, 0x3f000000u) == 0u);                        // half the least subnormal: to even
  REQUIRE(model_mul(0x80000001u, 0x3f000001u) == 0x80000001u);               // a little more than half
  REQUIRE(model_mul(0x7f7fffffu, 0x3f800001u) == the_inf);                   // overflow
  REQUIRE(model_div(0x3f800000u, 0x40400000u) == 0x3eaaaaabu);               // 1 / 3
  REQUIRE(model_sqrt(0x40000000u) == 0x3fb504f3u);                           // sqrt(2)
  REQUIRE(model_fma(0x3f800001u, 0x3f800001u, 0xbf800002u) == 0x28800000u);  // 2^-46
}

TEST_CASE("integers to float and back", "[arithmetic]") {
  const bi::reference::fp_environment environment;
  failures f;
  std::vector<uint64_t> values = {0,
                                  1,
                                  2,
                                  0x7fffff,
                                  0xffffff,
                                  0x1000000,
                                  0x1000001,
                                  0x1000002,
                                  0x1000003,
                                  0x7fffffbf,
                                  0x7fffffc0,
                                  0x7fffffff,
                                  0x80000000,
                                  0xfffffeff,
                                  0xffffff7f,
                                  0xffffff80,
                                  0xffffffff,
                                  uint64_t{1} << 40,
                                  ~uint64_t{0} >> 1,
                                  uint64_t{1} << 63,
                                  (uint64_t{1} << 62) + (uint64_t{1} << 38)};
  test::generator g(5);
  for (int i = 0; i < 100000; ++i) values.push_back(g.next() >> g.below(64));
  for (const uint64_t v : values) {
    const auto u = static_cast<uint32_t>(v);
    const auto i = static_cast<std::int32_t>(u);
    const auto l = static_cast<std::int64_t>(v);
    const uint32_t magnitude32 = i < 0 ? 0u - u : u;
    f.expect("float_from_uint", bi::bits_of(bi::float_from_uint(u)), rounded({false, u, 0}), u);
    f.expect("float_from_int", bi::bits_of(bi::float_from_int(i)), rounded({i < 0, magnitude32, 0}), u);
    f.expect("float_from_int64", bi::bits_of(bi::float_from_int64(l)), rounded({l < 0, l < 0 ? uint64_t{0} - v : v, 0}),
             u);
  }

  std::vector<uint32_t> floats = edges();
  for (uint32_t e = 120; e < 195; ++e) {
    for (const uint32_t m : {0u, 1u, 0x400000u, 0x7fffffu, 0x2aaaaau}) floats.push_back(e << 23 | m);
  }
  for (const uint32_t u : floats) {
    uint64_t want = 0;
    if (!nan_bits(u) && u >> 31 == 0) {
      const exact x = open(u);
      want = inf_bits(u) || x.e > 40 ? ~uint64_t{0}
             : x.e >= 0              ? static_cast<uint64_t>(x.m << x.e)
             : x.e > -64             ? static_cast<uint64_t>(x.m >> -x.e)
                                     : 0;
    }
    const uint64_t got = bi::uint64_from_float_rz(bi::float_of(u));
    f.expect("uint64_from_float_rz, upper half", static_cast<uint32_t>(got >> 32), static_cast<uint32_t>(want >> 32),
             u);
    f.expect("uint64_from_float_rz, lower half", static_cast<uint32_t>(got), static_cast<uint32_t>(want), u);
  }
  f.require();
}

TEST_CASE("bf16: every code, every tie", "[arithmetic]") { check_format<bi::bf16>(); }
TEST_CASE("fp16: every code, every tie", "[arithmetic]") { check_format<bi::fp16>(); }

TEST_CASE("float narrows to itself", "[arithmetic]") {
  for (const uint32_t u : edges()) REQUIRE(bi::bits_of(bi::cvt_rn<float>(bi::to_f32(bi::float_of(u)))) == u);
}

TEST_CASE("tests of 16-bit codes are constant expressions", "[arithmetic]") {
  static_assert(bi::is_nan(bi::bf16{0x7f81}) && !bi::is_nan(bi::bf16{0xff80}) && !bi::is_finite(bi::bf16{0xff80}));
  static_assert(bi::is_nan(bi::fp16{0xfc01}) && !bi::is_nan(bi::fp16{0x7c00}) && bi::is_finite(bi::fp16{0xfbff}));
  SUCCEED();
}
