// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/sample.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace bi::contract;
using draft = sample_draft;

TEST_CASE("sample: keys", "[contract][sample]") {
  STATIC_REQUIRE(sample_key(0, 0, 0) == 0x238275bc38fcbe91u);
  STATIC_REQUIRE(sample_key(1234567890123u, 7, 0) == 0x7788a4bed3821ab7u);
  STATIC_REQUIRE(branch_path(0, 0) == 0xe220a8397b1dcdafu);
  STATIC_REQUIRE(branch_path(branch_path(0, 2), 0) == 0xee2751b92135351cu);
  STATIC_REQUIRE(sample_key(~std::uint64_t{0}, 0xffffffffu, branch_path(branch_path(0, 2), 0)) == 0x23de091b1cf8ce26u);

  // Seeds, sample indices and branches are small numbers and alike; all their keys differ.
  std::set<std::uint64_t> keys;
  std::size_t count = 0;
  std::vector<std::uint64_t> branches = {0};
  for (std::uint64_t i = 0; i < 6; ++i) {
    branches.push_back(branch_path(0, i));
    for (std::uint64_t j = 0; j < 6; ++j) branches.push_back(branch_path(branch_path(0, i), j));
  }
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    for (std::uint32_t sample = 0; sample < 20; ++sample) {
      for (const std::uint64_t branch : branches) {
        keys.insert(sample_key(seed, sample, branch));
        ++count;
      }
    }
  }
  REQUIRE(keys.size() == count);
  REQUIRE(std::set<std::uint64_t>(branches.begin(), branches.end()).size() == branches.size());
}

TEST_CASE("sample: golden words", "[contract][sample]") {
  constexpr std::uint64_t key = sample_key(1234567890123u, 7, 0);
  const struct {
    std::uint32_t ordinal, quad, word[4];
  } golden[] = {
      {0, 0, {0x4a0d550du, 0xe5b39f5eu, 0xddd6ea03u, 0x14edd4d8u}},
      {1, 0, {0x37d5c0d2u, 0x929fea92u, 0xab4ae3e3u, 0x033dc112u}},
      {0, 1, {0xcfba7bfau, 0xb7076979u, 0x28b5a2b4u, 0x8c770d47u}},
      {99, 37983, {0x010a1c32u, 0xbe132b4eu, 0x46747510u, 0xd4984b22u}},
  };
  for (const auto& g : golden) {
    const philox_block r = sample_words(key, g.ordinal, g.quad);
    for (std::uint32_t i = 0; i < 4; ++i) {
      REQUIRE(r.word[i] == g.word[i]);
      const auto id = static_cast<std::int32_t>(4 * g.quad + i);
      REQUIRE(bi::bits_of(gumbel_noise(key, g.ordinal, id)) == bi::bits_of(gumbel_noise(g.word[i])));
    }
  }
}

TEST_CASE("sample: noise is finite, falls with the word, and is accurate", "[contract][sample]") {
  const bi::reference::fp_environment environment;
  const auto check_word = [](std::uint32_t word, double& worst) {
    const float g = gumbel_noise(word);
    REQUIRE(bi::is_finite(g));
    REQUIRE(!bi::less(g, -2.9f));
    REQUIRE(!bi::greater(g, 22.9f));
    if (word > 0xf0000000u) return;  // v is near 1, where fp32 is coarse; such tokens are not drawn
    const double exact = -std::log(-std::log1p(-(word + 0.5) * 0x1p-32));
    worst = std::max(worst, std::fabs(static_cast<double>(g) - exact));
  };
  double worst = 0;
  test::generator g(5);
  for (int i = 0; i < 200000; ++i) check_word(static_cast<std::uint32_t>(g.next() >> g.between(32, 60)), worst);
  for (std::uint32_t i = 0; i < 2000; ++i) {
    check_word(i, worst);
    check_word(~i, worst);
  }
  INFO("largest error " << worst);
  REQUIRE(worst < 2e-6);

  // More word, less noise.
  std::uint32_t previous = 0;
  for (int i = 0; i < 5000; ++i) {
    const std::uint32_t word = previous + 1 + static_cast<std::uint32_t>(g.below(800000));
    if (word < previous) break;
    REQUIRE(!bi::less(gumbel_noise(previous), gumbel_noise(word)));
    previous = word;
  }
  // Words that would round to v = 1 stop just below.
  REQUIRE(bi::bits_of(gumbel_noise(0xffffffffu)) == bi::bits_of(gumbel_noise(0xffffff7fu)));
  REQUIRE(bi::bits_of(gumbel_noise(0xffffff80u)) == bi::bits_of(gumbel_noise(0xffffff7fu)));
}

TEST_CASE("sample: keys are in the order of the floats", "[contract][sample]") {
  const bi::reference::fp_environment environment;
  REQUIRE(ordered_key(0.0f) == ordered_key(-0.0f));
  REQUIRE(ordered_key(bi::nan_f32()) == ordered_key(bi::neg_inf_f32()));
  REQUIRE(ordered_key(bi::float_of(0xffc00001u)) == lowest_key);
  REQUIRE(ordered_key(bi::neg_inf_f32()) == lowest_key);
  REQUIRE(ordered_key(bi::inf_f32()) == 0xff800000u);
  std::vector<float> x;
  for (const test::values kind : test::all_values) {
    for (const float v : test::random_vector<float>(300, kind, 6)) {
      if (!bi::is_nan(v)) x.push_back(v);
    }
  }
  for (const std::uint32_t b : {0u, 0x80000000u, 1u, 0x80000001u, 0x7f7fffffu, 0xff7fffffu, 0x7f800000u, 0xff800000u}) {
    x.push_back(bi::float_of(b));
  }
  std::size_t wrong = 0;
  for (const float a : x) {
    for (const float b : x) {
      wrong += (ordered_key(a) < ordered_key(b)) != bi::less(a, b);
      wrong += (ordered_key(a) == ordered_key(b)) != bi::equal(a, b);
    }
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("sample: a rank holds value and id, the lower id first", "[contract][sample]") {
  REQUIRE(candidate_rank(7, 3) > candidate_rank(7, 4));
  REQUIRE(candidate_rank(8, 1000000) > candidate_rank(7, 0));
  for (const std::int32_t id : {0, 1, 151935, 1048574}) {
    REQUIRE(rank_id(candidate_rank(0x80000001u, id)) == id);
    REQUIRE(rank_key(candidate_rank(0x80000001u, id)) == 0x80000001u);
  }
  // Every number is a candidate, -Inf is none.
  REQUIRE(candidate_rank(ordered_key(bi::float_of(0xff7fffffu)), 1048574) >= lowest_rank);
  REQUIRE(candidate_rank(ordered_key(bi::neg_inf_f32()), 0) < lowest_rank);
}

TEST_CASE("sample: the top-p target is exact", "[contract][sample]") {
  const bi::reference::fp_environment environment;
  test::generator g(7);
  const auto expected = [](float top_p, std::uint64_t total) -> std::uint64_t {
    // top_p * 2^149 is an integer of up to 150 bits; long division by 2^149 one bit at a time.
    std::uint64_t quotient = 0, rest = 0;  // rest: whether any bit below the point is set
    int exponent = 0;
    const auto m = static_cast<std::uint64_t>(std::ldexp(std::frexp(static_cast<double>(top_p), &exponent), 24));
    unsigned __int128 product = static_cast<unsigned __int128>(m) * total;
    for (int shift = 24 - exponent; shift > 0; --shift) {
      rest |= static_cast<std::uint64_t>(product & 1);
      product >>= 1;
    }
    quotient = static_cast<std::uint64_t>(product) + rest;
    return std::max<std::uint64_t>(quotient, 1);
  };
  const auto compare = [&](float top_p, std::uint64_t total) {
    INFO("top_p bits " << bi::bits_of(top_p) << ", total " << total);
    REQUIRE(draft::top_p_target(top_p, total) == expected(top_p, total));
    REQUIRE(draft::top_p_target(top_p, total) <= total);
  };
  constexpr std::uint64_t largest = (std::uint64_t{1} << 44) * static_cast<std::uint64_t>(sample_max_vocab);
  for (int i = 0; i < 50000; ++i) {
    const std::uint64_t total = (std::uint64_t{1} << 44) + g.next() % (largest - (std::uint64_t{1} << 44) + 1);
    compare(bi::float_of(static_cast<std::uint32_t>(g.between(0x3e000000, 0x3f7fffff))), total);
    compare(bi::float_of(static_cast<std::uint32_t>(g.between(1, 0x3f7fffff))), total);
    compare(bi::float_of(static_cast<std::uint32_t>(g.between(1, 0x7fffff))), total);
  }
  for (const std::uint32_t b : {1u, 0x7fffffu, 0x800000u, 0x3f000000u, 0x3f7fffffu}) {
    compare(bi::float_of(b), largest);
    compare(bi::float_of(b), std::uint64_t{1} << 44);
  }
  REQUIRE(draft::top_p_target(0.5f, 10) == 5);
  REQUIRE(draft::top_p_target(0.5f, 11) == 6);
  for (const float off : {1.0f, 1.5f, bi::inf_f32()}) REQUIRE(draft::top_p_target(off, largest) == ~std::uint64_t{0});
  for (const float one : {0.0f, -0.0f, -1.0f, bi::neg_inf_f32()}) REQUIRE(draft::top_p_target(one, largest) == 1);
}

TEST_CASE("sample: weights", "[contract][sample]") {
  const bi::reference::fp_environment environment;
  const float inf = bi::inf_f32();
  REQUIRE(draft::top_p_weight(3.0f, 3.0f) == std::uint64_t{1} << 44);
  REQUIRE(draft::top_p_weight(-0.0f, 0.0f) == std::uint64_t{1} << 44);
  REQUIRE(draft::top_p_weight(inf, inf) == std::uint64_t{1} << 44);
  REQUIRE(draft::top_p_weight(1e30f, inf) == 0);
  REQUIRE(draft::top_p_weight(0.0f, 100.0f) == 0);
  const auto half = static_cast<double>(draft::top_p_weight(0.0f, 0.69314718f));
  REQUIRE(std::fabs(half / 0x1p43 - 1) < 1e-6);
  REQUIRE(draft::min_p_keeps(2.0f, 2.0f, 5.0f));  // the largest always stays
  REQUIRE(draft::min_p_keeps(inf, inf, 1.0f));
  REQUIRE(!draft::min_p_keeps(1e30f, inf, 0x1p-140f));
  REQUIRE(draft::min_p_keeps(0.0f, 1.0f, 0.3678f));
  REQUIRE(!draft::min_p_keeps(0.0f, 1.0f, 0.3679f));
  // The largest vocabulary's weights add up in 64 bits, one more's would not.
  STATIC_REQUIRE(~std::uint64_t{0} / (std::uint64_t{1} << 44) == static_cast<std::uint64_t>(sample_max_vocab));
}

TEST_CASE("sample: parameters", "[contract][sample]") {
  const bi::reference::fp_environment environment;
  const float nan = bi::nan_f32(), inf = bi::inf_f32();
  REQUIRE(draft::valid(0.0f, 1.0f, 0.0f));
  REQUIRE(draft::valid(-0.0f, 2.0f, -1.0f));
  REQUIRE(draft::valid(0x1p-126f, 0.5f, 0.5f));
  REQUIRE(draft::valid(0x1.fffffep127f, inf, inf));
  REQUIRE(!draft::valid(0x1p-127f, 1.0f, 0.0f));
  REQUIRE(!draft::valid(-1.0f, 1.0f, 0.0f));
  REQUIRE(!draft::valid(inf, 1.0f, 0.0f));
  REQUIRE(!draft::valid(nan, 1.0f, 0.0f));
  REQUIRE(!draft::valid(1.0f, nan, 0.0f));
  REQUIRE(!draft::valid(1.0f, 1.0f, nan));
  for (const float t : {0x1p-126f, 0.7f, 1.0f, 0x1.fffffep127f}) {
    REQUIRE(bi::is_finite(draft::inverse(t)));
    REQUIRE(bi::greater(draft::inverse(t), 0.0f));
  }
  REQUIRE(bi::bits_of(draft::scaled(3.5f, draft::inverse(1.0f))) == bi::bits_of(3.5f));
  REQUIRE(bi::bits_of(draft::scaled(nan, 1.0f)) == bi::bits_of(bi::neg_inf_f32()));
}
