// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/schedule/sample.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bi/contract/functions.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/contract/sample.hpp"
#include "bi/device/noise_bound.hpp"
#include "bi/device/row_words.hpp"
#include "bi/device/value_bins.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// What a kernel may leave out because it can't win is schedule: none of it may be a token that wins.

using bi::contract::gumbel_noise;
using bi::device::noise_bound;

TEST_CASE("sample schedules: parts are whole vectors or blocks of the row tree, and cover the row",
          "[schedule][sample]") {
  using namespace bi::schedule;
  STATIC_REQUIRE(sample_block == bi::contract::row_block);
  for (std::int64_t vocab = 1; vocab <= bi::contract::sample_max_vocab; vocab += vocab < 100000 ? 997 : 50021) {
    for (const std::int64_t rows : {1, 7, 32, 64, 100, 256, 5000}) {
      const auto s = pick_sample_schedule(rows, vocab, 4, true);
      INFO(rows << " rows, vocab " << vocab << ": " << to_string(s));
      REQUIRE(s.cluster <= 16);
      REQUIRE((s.cluster <= 8 || rows <= 4));
      REQUIRE(s.blocks <= rows);
      for (const bool folds : {false, true}) {
        const std::int64_t part = sample_part(s, vocab, folds);
        REQUIRE(part % (folds ? sample_block : 8) == 0);
        REQUIRE(part * s.cluster >= vocab);
      }
      REQUIRE((s.cluster == 1 || vocab >= s.cluster * sample_least_part));
      const auto other = pick_sample_schedule(rows, vocab, 4, false);
      REQUIRE((other.cluster == 1 && other.slots == 0 && !other.programmatic && other.once));
    }
  }
  CHECK(pick_sample_schedule(1, 151936, 4, true) == sample_schedule{16, sample_slots, 1, true, true});
  CHECK(pick_sample_schedule(64, 151936, 4, true) == sample_schedule{2, sample_slots, 64, true, true});
  CHECK(pick_sample_schedule(256, 151936, 4, true) == sample_schedule{1, sample_slots, 256, true, true});
  CHECK(pick_sample_schedule((std::int64_t{1} << 62), 151936, 2, true).blocks == 264);
  CHECK(pick_sample_schedule(0, 5, 2, true).blocks == 0);
}

// For all 2^32 words, and in the noise of a GPU, it was checked once: this takes every 4099th and those about each
// power of two, where the line touches the logarithm.
TEST_CASE("noise_bound: no word's noise is above it, nor that of a larger word", "[schedule][sample]") {
  float before = noise_bound(0);
  std::uint64_t word = 0, count = 0;
  double slack = 1e9;
  const auto check = [&](std::uint32_t w) {
    const float bound = noise_bound(w), noise = gumbel_noise(w);
    ++count;
    if (noise > bound) FAIL("word " << w << ": noise " << noise << ", bound " << bound);
    if (w > 64) slack = std::min(slack, static_cast<double>(bound) - noise);
    return bound;
  };
  for (; word < std::uint64_t{1} << 32; word += 4099) {
    const float bound = check(static_cast<std::uint32_t>(word));
    if (bound > before) FAIL("word " << word << ": the bound rises");
    before = bound;
  }
  for (int bit = 0; bit <= 32; ++bit) {
    const std::uint64_t power = std::uint64_t{1} << bit;
    for (std::int64_t d = -2000; d <= 2000; ++d) {
      const std::int64_t w = static_cast<std::int64_t>(power) + d;
      if (w < 0 || w >= std::int64_t{1} << 32) continue;
      const float bound = check(static_cast<std::uint32_t>(w));
      if (w > 0) REQUIRE(bound <= noise_bound(static_cast<std::uint32_t>(w - 1)));
    }
  }
  CHECK(count > 1000000);
  CHECK(slack > 0.0009);  // of which 2^-10 was put there
  CHECK(slack < 0.0011);
  CHECK(noise_bound(0xffffffffu) > 0.0f);  // so a sum with it is never less than the smallest finite logit
  CHECK(gumbel_noise(0) < bi::device::most_noise);
}

TEST_CASE("noise_bound: a sum that stays below a score proves that the token's does", "[schedule][sample]") {
  test::generator g(11);
  const float extremes[] = {0.0f,   -0.0f,  1e30f,         -1e30f,         0x1p-149f,       -0x1p-149f,
                            3e38f,  -3e38f, bi::inf_f32(), -bi::inf_f32(), 0x1.fffffep127f, -0x1.fffffep127f,
                            100.0f, 1e-20f, 16777216.0f,   -16777216.0f};
  std::int64_t decided = 0;
  for (int i = 0; i < 2000000; ++i) {
    const auto w = static_cast<std::uint32_t>(g.next()) >> (g.next() % 32);
    const float x = i % 4 == 0 ? extremes[g.below(16)] : bi::float_of(static_cast<std::uint32_t>(g.next()));
    if (bi::is_nan(x)) continue;
    const float score = bi::add_rn(x, gumbel_noise(w));
    const float most = bi::add_rn(x, noise_bound(w));
    if (bi::less(most, score)) FAIL("x " << x << ", word " << w);
    if (bi::less(bi::add_rn(x, bi::device::most_noise), score)) FAIL("x " << x << ", word " << w);
    // A bar one step above the token's best possible sum refuses it, and may.
    const float bar = std::nextafter(most, bi::inf_f32());
    decided += bi::less(most, bar) ? 1 : 0;
  }
  CHECK(decided > 1000000);
}

TEST_CASE("min_p_floor: min-p keeps nothing below it", "[schedule][sample]") {
  using draft = bi::contract::sample_draft;
  const auto log = [](float x) { return bi::log(x); };
  std::int64_t dropped = 0;
  for (const float max :
       {0.0f, 1.0f, -1.0f, 37.25f, -88.0f, 4095.0f, 1e5f, -1e5f, 1e20f, 3e38f, 1e-40f, bi::inf_f32()}) {
    for (const float min_p : {0x1p-149f, 1e-44f, 1e-38f, 1e-36f, 1e-30f, 1e-6f, 0.01f, 0.1f, 0.5f, 0.999f, 1.0f, 1.5f,
                              2.0f, 3e38f, bi::inf_f32()}) {
      const float floor = bi::device::min_p_floor(max, min_p, log);
      INFO("max " << max << ", min_p " << min_p << ", floor " << floor);
      REQUIRE(!bi::less(max, floor));
      float x = floor;
      for (int i = 0; i < 4000 && bi::is_finite(x); ++i) {
        x = std::nextafter(x, -bi::inf_f32());
        REQUIRE(!draft::min_p_keeps(x, max, min_p));
        ++dropped;
      }
      for (float d = 0.001f; d < 200.0f; d *= 1.07f) {
        const float below = bi::sub_rn(floor, d);
        if (bi::less(below, floor)) REQUIRE(!draft::min_p_keeps(below, max, min_p));
      }
    }
  }
  CHECK(dropped > 100000);
}

TEST_CASE("row_words: the words of any quad of a row", "[schedule][sample]") {
  test::generator g(12);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t key = g.next() * 0x9E3779B97F4A7C15u;
    const auto ordinal = static_cast<std::uint32_t>(i % 3 == 0 ? static_cast<std::uint64_t>(i) : g.next() >> 7);
    const bi::device::row_words words(key, ordinal);
    const auto quad = static_cast<std::uint32_t>(i % 2 == 0 ? static_cast<std::uint64_t>(i) : g.next() >> 11);
    const auto got = words(quad), expected = bi::contract::sample_words(key, ordinal, quad);
    for (int e = 0; e < 4; ++e) REQUIRE(got.word[e] == expected.word[e]);
  }
}

TEST_CASE("value_bins: bins are in the order of values, and lie between their edges", "[schedule][sample]") {
  test::generator g(13);
  for (const bi::device::value_bins bins : {bi::device::value_bins{8.0f, 16.0f}, bi::device::value_bins{-3e4f, 40.0f},
                                            bi::device::value_bins{1e-3f, 1e-5f}, bi::device::value_bins{0.0f, 1.0f}}) {
    std::vector<float> x = {bins.top, bi::sub_rn(bins.top, bins.range), -1e30f, 1e30f, 0.0f, -0.0f};
    for (int i = 0; i < 200000; ++i) x.push_back(bi::fma_rn(bins.range, bi::neg(0.3f * g.normal_24()), bins.top));
    std::sort(x.begin(), x.end(), [](float a, float b) { return bi::less(b, a); });
    int before = 0;
    for (const float v : x) {
      const int bin = bins.bin(v);
      INFO("top " << bins.top << ", range " << bins.range << ", value " << v << ", bin " << bin);
      REQUIRE((bin >= before && bin < bi::device::value_bin_count));
      before = bin;
      const float edge = bins.edge(bi::float_from_int(bin)), next = bins.edge(bi::float_from_int(bin + 1));
      if (bin > 0) REQUIRE(!bi::greater(v, bi::add_rn(edge, bins.slack())));
      if (bin < bi::device::value_bin_count - 1) REQUIRE(!bi::less(v, bi::sub_rn(next, bins.slack())));
    }
    CHECK(bins.bin(0.0f) == bins.bin(-0.0f));
  }
}

namespace {

// Of a row, its values in order: all tokens, and those that bounds over bins keep or drop for sure. p: of top-p, if k is
// 0. Sums are off by what a kernel's may be. The first bins' tokens are ahead of all others, and nothing is asked of them.
struct settled {
  std::int64_t all = 0, sure = 0;
};
settled settle(const std::vector<float>& x, const bi::device::value_bins& bins, float p, int k, test::generator& g) {
  using draft = bi::contract::sample_draft;
  using bi::device::border_bounds;
  constexpr int count = bi::device::value_bin_count, first_bins = 4, last_bins = 64;
  const float max = x[0];
  std::vector<int> in_bin(count);
  std::uint64_t total = 0;
  float ahead = 0.0f;
  double sum = 0, last = 0;
  const auto off = [&](double here) {
    return static_cast<float>(here * (1 + static_cast<double>(g.below(3) - 1) * 0x1p-20));
  };
  for (const float v : x) {
    const std::uint64_t w = draft::top_p_weight(v, max);
    const int bin = bins.bin(v);
    total += w;
    ++in_bin[static_cast<std::size_t>(bin)];
    if (k == 0 && bin < first_bins) {
      in_bin[static_cast<std::size_t>(bin)] = 0;
      ahead = bi::add_rn(ahead, bi::mul_rn(bi::float_from_int64(static_cast<std::int64_t>(w)), 0x1p-44f));
    }
  }
  const auto weight = [&](int b) { return k != 0 ? 1.0f : bins.weight(bi::float_from_int(b)); };
  const auto n_of = [&](int b) { return bi::float_from_int(in_bin[static_cast<std::size_t>(b)]); };
  for (int b = 0; b < count; ++b) {
    sum += static_cast<double>(n_of(b)) * weight(b);
    if (b >= count - last_bins) last += static_cast<double>(n_of(b)) * weight(b);
  }
  const border_bounds bounds =
      k != 0 ? border_bounds::top_k(k)
             : border_bounds::top_p(p, bins, max, static_cast<int>(x.size()), ahead, off(sum), off(last));
  const std::uint64_t target = draft::top_p_target(p, total);
  std::uint64_t before = 0;  // of the order
  double sums = 0;           // of the bins before this one
  std::size_t at = 0;
  settled result;
  for (int b = 0; b < count; ++b) {
    if (at == x.size() || bins.bin(x[at]) != b) continue;
    const float n = n_of(b), to = k != 0 ? static_cast<float>(sums) : off(sums);
    const bool kept = bounds.keeps(bi::fma_rn(bi::sub_rn(n, 1.0f), weight(b), to)), dropped = bounds.drops(to);
    for (; at < x.size() && bins.bin(x[at]) == b; ++at) {
      const bool in = k != 0 ? at < static_cast<std::size_t>(k) : before < target;
      before += draft::top_p_weight(x[at], max);
      if (k == 0 && b < first_bins) continue;
      if ((kept && !in) || (dropped && in)) FAIL("p " << p << ", k " << k << ", bin " << b << ", token " << at);
      ++result.all;
      result.sure += kept || dropped ? 1 : 0;
    }
    sums += static_cast<double>(n) * weight(b);
  }
  return result;
}

}  // namespace

TEST_CASE("border_bounds: what is surely kept is kept, and what is surely dropped is not", "[schedule][sample]") {
  test::generator g(14);
  settled sum;
  for (int round = 0; round < 60; ++round) {
    const int vocab = round % 3 == 0 ? 40 : round % 3 == 1 ? 3000 : 30000;
    std::vector<float> x;
    for (int i = 0; i < vocab; ++i) {
      float v = (round % 4 == 3 ? 0.05f : 2.0f) * g.normal_24();
      if (round % 5 == 4 && i % 977 == 0) v += 9.0f;
      if (round % 7 == 6) v = bi::float_from_int(static_cast<int>(4.0f * v)) * 0.25f;
      x.push_back(v);
    }
    std::sort(x.begin(), x.end(), [](float a, float b) { return bi::less(b, a); });
    const bi::device::value_bins bins = {round % 2 == 0 ? 8.0f : 5.0f, round % 2 == 0 ? 20.0f : 11.0f};
    for (const float p : {0.9f, 0.5f, 0.999f, 0.999999f, 1e-9f, 0.0f, -1.0f}) {
      for (const int k : {0, 1, 7, vocab / 2, vocab - 1}) {
        if (k != 0 && p != 0.9f) continue;
        INFO("round " << round);
        const settled here = settle(x, bins, p, k, g);
        sum.all += here.all, sum.sure += here.sure;
      }
    }
  }
  CHECK(sum.all > 1000000);
  CHECK(static_cast<double>(sum.sure) > 0.97 * static_cast<double>(sum.all));
}

// Of values so large that bins are wider than what decides, nothing is sure but what top-k counts. A value far above the
// others is not the largest only: several are equal to it, and a small p cuts among them.
TEST_CASE("border_bounds: of large values nothing wrong is sure", "[schedule][sample]") {
  test::generator g(15);
  std::int64_t small = 0, large = 0;
  for (int exponent = -20; exponent <= 126; exponent += exponent > 10 && exponent < 40 ? 1 : 4) {
    const float factor = bi::float_of(static_cast<std::uint32_t>(127 + exponent) << 23);
    for (const float shift : {0.0f, 3.0f, -2.0f}) {
      std::vector<float> x;
      for (int i = 0; i < 600; ++i) {
        const float z = bi::float_from_int(static_cast<int>(8.0f * g.normal_24())) * 0.125f + shift;
        x.push_back(bi::mul_rn(bi::mul_rn(z, 0.2f), factor));
      }
      std::sort(x.begin(), x.end(), [](float a, float b) { return bi::less(b, a); });
      x.insert(x.begin(), 2, x[0]);  // three at least
      // As a kernel chooses them.
      bi::device::value_bins bins = {};
      const float range = bi::min_nan(bi::sub_rn(x.front(), x.back()), 64.0f);
      bins.range = bi::max_num(bi::mul_rn(1.25f, range), bi::max_num(bi::mul_rn(bi::abs(x.front()), 0x1p-10f), 1e-30f));
      bins.top = bi::fma_rn(0.2f, bins.range, x.front());
      for (const float p : {0.9f, 0.5f, 0.3f, 1e-12f, 0.0f, -bi::inf_f32()}) {
        INFO("exponent " << exponent << ", shift " << shift);
        const settled here = settle(x, bins, p, 0, g);
        (exponent < 8 ? small : large) += here.sure;
      }
      settle(x, bins, 1.0f, 7, g);
    }
  }
  CHECK(small > 50000);
  CHECK(large > 5000);
}

// Of sums that are off as much as a GPU's may be: the weights by their exponents' roundings, and the additions.
TEST_CASE("token_bounds: one token that is surely kept is kept, and one that surely is not is dropped",
          "[schedule][sample]") {
  using draft = bi::contract::sample_draft;
  test::generator g(16);
  std::int64_t all = 0, sure = 0;
  for (int round = 0; round < 240; ++round) {
    std::vector<float> x;
    const float factor = bi::float_of(static_cast<std::uint32_t>(127 - 3 + round % 30) << 23);
    for (int i = 0; i < (round % 3 == 0 ? 5 : 900); ++i) {
      const float z =
          round % 2 == 0 ? g.normal_24() : bi::float_from_int(static_cast<int>(4.0f * g.normal_24())) * 0.25f;
      x.push_back(bi::mul_rn(bi::add_rn(z, round % 7 == 0 ? 30.0f : 0.0f), factor));
    }
    std::sort(x.begin(), x.end(), [](float a, float b) { return bi::less(b, a); });
    const float max = x[0];
    std::uint64_t total = 0;
    double weights = 0;
    for (const float v : x) {
      total += draft::top_p_weight(v, max);
      weights += std::exp(static_cast<double>(v) - max);
    }
    for (const float p : {0.9f, 0.5f, 0.999999f, 1e-12f, 0.0f, -1.0f}) {
      const auto bounds = bi::device::token_bounds::top_p(p, max, static_cast<int>(x.size()));
      const std::uint64_t target = draft::top_p_target(p, total);
      std::uint64_t above = 0;
      double before = 0;
      for (const float v : x) {
        // max log2(e) is rounded, then each exponent, and then as many sums as a GPU adds.
        const double off = 0x1.8p-18 + 64 * 0x1p-24 + 0x1p-24 * std::abs(static_cast<double>(max));
        const auto about = [&](double sum) {
          return static_cast<float>(sum * (1 + static_cast<double>(g.below(3) - 1) * off));
        };
        const float here = about(before), rest = about(weights - before);
        const bool kept = bounds.keeps(here, rest), in = above < target;
        const bool dropped = bounds.drops(here, rest);
        if ((kept && !in) || (dropped && in)) FAIL("round " << round << ", p " << p << ", before " << before);
        ++all, sure += kept || dropped ? 1 : 0;
        above += draft::top_p_weight(v, max);
        before += std::exp(static_cast<double>(v) - max);
      }
    }
  }
  CHECK(all > 500000);
  CHECK(sure > all / 3);
}
