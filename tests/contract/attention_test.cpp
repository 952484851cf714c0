// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/contract/attention.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace {

using order = bi::contract::attention_order;
using bf16_contract = bi::contract::attention_v1<bi::bf16>;
using fp16_contract = bi::contract::attention_v1<bi::fp16>;
using bf16_cap = bi::contract::attention_soft_cap_v1<bi::bf16>;
using fp16_cap = bi::contract::attention_soft_cap_v1<bi::fp16>;
using test::generator;

const float plus_inf = bi::inf_f32(), minus_inf = bi::neg_inf_f32(), not_number = bi::nan_f32();

bool same(float a, float b) { return bi::bits_of(a) == bi::bits_of(b); }

// Ordinary and hostile values of a maximum or an exponent.
std::vector<float> exponents(int count, std::uint64_t seed) {
  generator g(seed);
  std::vector<float> out = {0.0f,  -0.0f,   plus_inf,  minus_inf,       not_number, 8.0f,
                            -8.0f, 0x1p27f, -0x1p100f, 0x1.fffffep127f, 0x1p-149f};
  for (int i = 0; i < count; ++i) out.push_back(bi::mul_rn(g.normal(), 10.0f));
  return out;
}

}  // namespace

static_assert(bf16_contract::tile == 64 && bf16_contract::leaf == 256);
static_assert(order::first_leaf(255) == 0 && order::first_leaf(256) == 1);
static_assert(order::end_leaf(0) == 0 && order::end_leaf(256) == 1 && order::end_leaf(257) == 2);

TEST_CASE("attention contracts have names and ids of their own", "[contract][attention]") {
  CHECK(std::string(bf16_contract::name) == "attention_bf16_v1");
  CHECK(std::string(fp16_contract::name) == "attention_fp16_v1");
  CHECK(std::string(bf16_cap::name) == "attention_soft_cap_bf16_v1");
  CHECK(std::string(fp16_cap::name) == "attention_soft_cap_fp16_v1");
  const std::uint64_t ids[] = {bf16_contract::id(), fp16_contract::id(), bf16_cap::id(), fp16_cap::id()};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) CHECK(ids[i] != ids[j]);
  }
}

TEST_CASE("attention: which view indices a row sees", "[contract][attention]") {
  const auto range = [](bool causal, std::int64_t len, std::int64_t q_len, std::int64_t i, std::int64_t window) {
    const bi::contract::attention_range r = order::visible(causal, len, q_len, i, window);
    return std::array<std::int64_t, 2>{r.lo, r.see};
  };
  using pair = std::array<std::int64_t, 2>;
  CHECK(range(true, 10, 1, 0, 0) == pair{0, 10});  // decode
  CHECK(range(true, 10, 10, 0, 0) == pair{0, 1});  // prefill
  CHECK(range(true, 10, 10, 9, 0) == pair{0, 10});
  CHECK(range(true, 10, 4, 1, 0) == pair{0, 8});  // a chunk
  CHECK(range(true, 3, 5, 0, 0) == pair{0, 0});   // more rows than tokens
  CHECK(range(true, 3, 5, 2, 0) == pair{0, 1});
  CHECK(range(true, 0, 1, 0, 7) == pair{0, 0});  // padding
  CHECK(range(false, 10, 4, 1, 0) == pair{0, 10});
  CHECK(range(true, 10, 4, 1, 8) == pair{0, 8});
  CHECK(range(true, 10, 4, 1, 7) == pair{1, 8});
  CHECK(range(true, 10, 4, 1, 1) == pair{7, 8});
  CHECK(range(false, 10, 4, 1, 3) == pair{7, 10});
  CHECK(range(true, 0x7fffffff, 1, 0, 4096) == pair{0x7fffffff - 4096, 0x7fffffff});
}

TEST_CASE("attention: the four lanes of a tile hold each key once", "[contract][attention]") {
  std::array<int, 64> count{};
  for (int lane = 0; lane < 4; ++lane) {
    for (int w = 0; w < 4; ++w) {
      for (int h = 0; h < 2; ++h) {
        for (int e = 0; e < 2; ++e) {
          const int key = order::key(lane, w, h, e);
          ++count[static_cast<std::size_t>(key)];
          // The columns of a quad's thread in the accumulators of mma.m16n8k16 and of wgmma.
          CHECK(key % 8 / 2 == lane);
        }
      }
    }
  }
  for (const int c : count) CHECK(c == 1);
}

TEST_CASE("attention: a lane sums its 16 weights in the contract's order", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  generator g(7);
  int in_order_differs = 0;
  for (int round = 0; round < 500; ++round) {
    float p[16];
    for (float& x : p) x = bi::exp2(bi::mul_rn(g.normal(), 3.0f));
    // By halving: element 4 w + 2 h + e loses h, then the bits of w, then e.
    float t[16];
    std::memcpy(t, p, sizeof t);
    for (int i = 0; i < 16; i += 4) {
      for (int e = 0; e < 2; ++e) t[i + e] = bi::add_rn(t[i + e], t[i + 2 + e]);
    }
    for (const int distance : {4, 8}) {
      for (int i = 0; i < 16; i += 2 * distance) {
        for (int e = 0; e < 2; ++e) t[i + e] = bi::add_rn(t[i + e], t[i + distance + e]);
      }
    }
    const float expected = bi::add_rn(t[0], t[1]);
    REQUIRE(same(order::lane_sum(p), expected));
    float in_order = p[0];
    for (int i = 1; i < 16; ++i) in_order = bi::add_rn(in_order, p[i]);
    in_order_differs += same(in_order, expected) ? 0 : 1;
  }
  CHECK(in_order_differs > 100);  // so the comparison above can fail
}

namespace {
bi::contract::attention_scale by(float c) { return {c, 0.0f, 0.0f}; }

// A maximum as the state has it.
float on_grid(float t) { return bi::sub_rn(3072.0f, bi::sub_rn(3072.0f, t)); }
}  // namespace

TEST_CASE("attention: maxima are multiples of 2^-12, or what 3072 less their shift is", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  generator g(5);
  int moved = 0;
  for (int i = 0; i < 2000; ++i) {
    const float t = bi::mul_rn(g.normal(), 300.0f), m = order::advance(minus_inf, t).m;
    if (!bi::less(bi::abs(t), 1024.0f)) continue;
    const float steps = bi::mul_rn(m, 4096.0f);
    REQUIRE(same(bi::float_from_int(static_cast<std::int32_t>(steps)), steps));
    REQUIRE(std::fabs(static_cast<double>(m) - static_cast<double>(t)) <= 0x1p-13);
    REQUIRE(same(bi::sub_rn(3072.0f, order::shift(m)), m));  // nothing is lost on the way to a weight
    moved += same(m, t) ? 0 : 1;
  }
  CHECK(moved > 1000);
  for (const float t : {5000.3f, -5000.3f, 123456.7f, -123456.7f, 0x1.8p25f}) {
    const float m = order::advance(minus_inf, t).m;
    CHECK(same(bi::sub_rn(3072.0f, order::shift(m)), m));
    CHECK(std::fabs(static_cast<double>(m) / static_cast<double>(t) - 1) < 0x1p-22);
  }
}

TEST_CASE("attention: the lagging maximum", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  const auto advance = [](float m, float t) { return order::advance(m, t); };

  SECTION("the first tile's maximum is taken, whatever it is") {
    for (const float t : exponents(200, 1)) {
      const auto a = advance(minus_inf, t);
      CHECK(same(a.m, on_grid(t)));
      if (same(t, minus_inf)) {
        CHECK(same(a.rescale, 1.0f));
        CHECK(same(a.shift, 3072.0f));
      } else if (bi::is_nan(t)) {
        CHECK(bi::is_nan(a.rescale));
      } else {
        CHECK(same(a.rescale, 0.0f));
        CHECK(same(a.shift, bi::sub_rn(3072.0f, a.m)));
      }
    }
  }
  SECTION("it moves only when exceeded by more than 8") {
    CHECK(same(advance(1.0f, 9.0f).m, 1.0f));
    CHECK(same(advance(1.0f, 9.0f).rescale, 1.0f));
    CHECK(same(advance(1.0f, 0x1.200002p+3f).m, 9.0f));  // taken, then rounded
    CHECK(same(advance(1.0f, 0x1.200002p+3f).rescale, 0x1p-8f));
    CHECK(same(advance(1.0f, 10.0f).rescale, 0x1p-9f));
    CHECK(same(advance(1.0f, -1000.0f).m, 1.0f));
  }
  SECTION("NaN stays, +Inf stays unless NaN comes") {
    for (const float t : exponents(20, 2)) {
      CHECK(same(advance(not_number, t).m, not_number));
      CHECK(same(advance(t, not_number).m, not_number));
      CHECK(same(advance(plus_inf, t).m, bi::is_nan(t) ? not_number : plus_inf));
    }
  }
  SECTION("the text's form, which asks whether the maximum moved, does the same to l and o") {
    for (const float m : exponents(60, 3)) {
      for (const float t : exponents(60, 4)) {
        float moved = bi::greater(t, bi::add_rn(m, 8.0f)) ? on_grid(t) : m;
        if (bi::is_nan(t)) moved = not_number;
        const float base = same(moved, minus_inf) ? 0.0f : moved;
        const float a = bi::equal(moved, m) ? 1.0f : order::power(bi::sub_rn(m, base));
        const auto got = advance(m, t);
        REQUIRE(same(got.m, moved));
        REQUIRE(same(got.shift, bi::sub_rn(3072.0f, base)));
        // Where m is NaN, so are l and o: then the factor is of no account.
        if (!bi::is_nan(m)) REQUIRE(same(got.rescale, a));
      }
    }
  }
}

TEST_CASE("attention: weights", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  generator g(11);
  double worst = 0;
  for (int i = 0; i < 2000; ++i) {
    const float c = bi::exp2(bi::mul_rn(g.normal(), 2.0f)), s = bi::mul_rn(g.normal(), 30.0f);
    const float m = on_grid(bi::mul_rn(bi::add_rn(s, bi::abs(g.normal())), c));
    const double exact = static_cast<double>(s) * static_cast<double>(c) - static_cast<double>(m);
    const double p = static_cast<double>(order::weight(s, by(c), order::shift(m)));
    if (exact < -120) {
      REQUIRE(p <= 0x1p-119);
      continue;
    }
    // Half a step of the grid, and the function's two units in the last place.
    const double error = std::fabs(p / std::exp2(exact) - 1);
    worst = std::fmax(worst, error);
    REQUIRE(error < 0x1.62e43p-14 + 0x1p-21);
    // A score may exceed the lagging maximum by 8.
    const float lagging = on_grid(bi::sub_rn(bi::mul_rn(s, c), 8.0f));
    REQUIRE(bi::less(order::weight(s, by(c), order::shift(lagging)), 0x1.01p8f));
    // However large the maximum is, its own weight is 1.
    for (const float far : {20000.0f, -20000.0f}) {
      const float big = on_grid(bi::add_rn(m, far));
      REQUIRE(same(order::weight(big, by(1.0f), order::shift(big)), 1.0f));
    }
  }
  CHECK(worst > 0x1p-14);
  CHECK(same(order::weight(minus_inf, by(1.0f), order::shift(3.0f)), 0.0f));       // visible and -Inf
  CHECK(same(order::weight(minus_inf, by(1.0f), order::shift(minus_inf)), 0.0f));  // the whole tile is -Inf
  CHECK(same(order::weight(-130.0f, by(1.0f), order::shift(0.0f)), 0.0f));
  CHECK(same(order::weight(-126.0f, by(1.0f), order::shift(0.0f)), 0x1p-126f));
  CHECK(same(order::weight(5.0f, by(1.0f), order::shift(plus_inf)), 0.0f));
  CHECK(same(order::weight(plus_inf, by(1.0f), order::shift(plus_inf)), not_number));  // Inf - Inf
  CHECK(same(order::weight(not_number, by(1.0f), order::shift(0.0f)), not_number));
  CHECK(same(order::weight(5.0f, by(1.0f), order::shift(not_number)), not_number));
}

TEST_CASE("attention: closing a leaf tells what the weights hid", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  CHECK(same(order::close(3.0f, 1.0f, 2.0f, 4.0f, 8.0f), 15.0f));
  // (1 + 2^-24) + (1 + 2^-24) = 2, not 2 + 2^-22 as in another order.
  CHECK(same(order::close(0.0f, 1.0f, 0x1p-24f, 1.0f, 0x1p-24f), 2.0f));
  CHECK(same(order::close(minus_inf, 1.0f, 2.0f, 4.0f, 8.0f), 0.0f));
  CHECK(same(order::close(plus_inf, 1.0f, 2.0f, 4.0f, 8.0f), not_number));
  CHECK(same(order::close(not_number, 1.0f, 2.0f, 4.0f, 8.0f), not_number));
  CHECK(same(order::close_o(minus_inf, not_number), 0.0f));
  CHECK(same(order::close_o(1.0f, -5.0f), -5.0f));
}

TEST_CASE("attention: folding", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  struct partial {
    float m, l, o;
  };
  const auto fold = [](partial a, partial b) {
    const auto f = order::fold(a.m, b.m);
    return partial{f.m, order::fold_value(f, a.l, b.l), order::fold_value(f, a.o, b.o)};
  };
  const auto equal = [](partial a, partial b) { return same(a.m, b.m) && same(a.l, b.l) && same(a.o, b.o); };
  const partial empty{minus_inf, 0.0f, 0.0f};
  generator g(13);
  int swapped_differs = 0, regrouped_differs = 0;
  for (int i = 0; i < 500; ++i) {
    const auto draw = [&] { return partial{bi::mul_rn(g.normal(), 5.0f), bi::exp2(g.normal()), g.normal()}; };
    const partial a = draw(), b = draw(), c = draw();
    REQUIRE(equal(fold(empty, a), a));
    REQUIRE(equal(fold(a, empty), a));
    const partial ab = fold(a, b), ba = fold(b, a);
    const auto f = order::fold(a.m, b.m);
    REQUIRE(same(ab.l, bi::fma_rn(a.l, f.a, bi::mul_rn(b.l, f.b))));  // the left one last: one dependent fma a fold
    REQUIRE(same(ab.o, bi::fma_rn(a.o, f.a, bi::mul_rn(b.o, f.b))));
    swapped_differs += equal(ab, ba) ? 0 : 1;
    regrouped_differs += equal(fold(ab, c), fold(a, fold(b, c))) ? 0 : 1;
  }
  CHECK(swapped_differs + regrouped_differs > 100);  // order counts, so it has to be pinned
  CHECK(equal(fold(empty, empty), empty));
  for (const float bad : {plus_inf, not_number}) {
    const partial left = fold({bad, not_number, 1.0f}, {0.0f, 1.0f, 1.0f}),
                  right = fold({0.0f, 1.0f, 1.0f}, {bad, not_number, 1.0f});
    for (const partial& p : {left, right}) {
      CHECK(same(p.m, bad));
      CHECK(bi::is_nan(p.l));
      CHECK(same(order::finish<float>(p.o, p.l, order::inverse(p.l)), not_number));
      CHECK(same(order::lse(p.m, p.l), not_number));
    }
  }
}

TEST_CASE("attention: the end of a row", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  CHECK(same(order::finish<float>(3.0f, 4.0f, order::inverse(4.0f)), 0.75f));
  CHECK(order::finish<bi::bf16>(1.0f, 3.0f, order::inverse(3.0f)).bits == 0x3eab);
  CHECK(order::finish<bi::fp16>(1.0f, 3.0f, order::inverse(3.0f)).bits == 0x3555);
  CHECK(order::finish<bi::bf16>(not_number, 0.0f, order::inverse(0.0f)).bits == 0);
  CHECK(order::finish<bi::bf16>(1.0f, not_number, order::inverse(not_number)).bits == bi::nan_bits16);
  CHECK(same(order::lse(3.0f, 1.0f), bi::mul_rn(3.0f, 0x1.62e430p-1f)));
  CHECK(same(order::lse(minus_inf, 0.0f), minus_inf));
}

TEST_CASE("attention: what scores are multiplied with", "[contract][attention]") {
  const bi::reference::fp_environment environment;
  const auto plain = bf16_contract::prepare(0.125f, 0.0f);
  CHECK(same(plain.w, 0x1.715476p-3f));
  CHECK(bf16_contract::is_valid(plain));
  CHECK(bf16_contract::is_valid(bf16_contract::prepare(0x1p-149f, 0.0f)));
  CHECK_FALSE(bf16_contract::is_valid(bf16_contract::prepare(0x1.fffffep127f, 0.0f)));
  CHECK(same(bf16_contract::score(-7.0f, plain), -7.0f));

  const auto capped = bf16_cap::prepare(0.125f, 50.0f);
  CHECK(same(capped.w, 0x1.715476p+0f));
  CHECK(same(capped.inner, bi::div_rn(0.125f, 50.0f)));
  CHECK(bf16_cap::is_valid(capped));
  CHECK_FALSE(bf16_cap::is_valid(bf16_cap::prepare(1.0f, 0x1p-149f)));
  CHECK_FALSE(bf16_cap::is_valid(bf16_cap::prepare(0x1p-100f, 0x1p100f)));
  CHECK(same(bf16_cap::score(plus_inf, capped), 50.0f));
  CHECK(same(bf16_cap::score(minus_inf, capped), -50.0f));
  CHECK(same(bf16_cap::score(not_number, capped), not_number));
  CHECK(same(bf16_cap::score(80.0f, capped), bi::mul_rn(50.0f, bi::tanh(bi::mul_rn(80.0f, capped.inner)))));
}
