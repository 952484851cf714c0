// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/philox.hpp"

#include <array>
#include <cstdint>
#include <set>

#include "support/catch.hpp"
#include "support/data.hpp"

using bi::contract::philox4x32_10;
using bi::contract::philox_block;

namespace {

using words = std::array<std::uint32_t, 4>;

words run(words c, std::uint32_t key0, std::uint32_t key1) {
  const philox_block r = philox4x32_10({{c[0], c[1], c[2], c[3]}}, key0, key1);
  return {r.word[0], r.word[1], r.word[2], r.word[3]};
}

// Written from the paper in the other direction: round keys first, words in an array, products by halves.
words independent(words c, std::uint32_t key0, std::uint32_t key1, int rounds) {
  const auto high = [](std::uint32_t a, std::uint32_t b) {
    const std::uint32_t al = a & 0xffff, ah = a >> 16, bl = b & 0xffff, bh = b >> 16;
    const std::uint32_t mid = (al * bl >> 16) + (ah * bl & 0xffff) + (al * bh & 0xffff);
    return ah * bh + (ah * bl >> 16) + (al * bh >> 16) + (mid >> 16);
  };
  for (int r = 0; r < rounds; ++r) {
    const auto n = static_cast<std::uint32_t>(r);
    const std::uint32_t k0 = key0 + n * 0x9E3779B9u, k1 = key1 + n * 0xBB67AE85u;
    const std::uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u;
    c = {high(m1, c[2]) ^ c[1] ^ k0, m1 * c[2], high(m0, c[0]) ^ c[3] ^ k1, m0 * c[0]};
  }
  return c;
}

}  // namespace

TEST_CASE("philox: known answers", "[contract][philox]") {
  constexpr std::uint32_t ones = 0xffffffffu;
  REQUIRE(run({0, 0, 0, 0}, 0, 0) == words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  REQUIRE(run({ones, ones, ones, ones}, ones, ones) == words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  REQUIRE(run({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0xa4093822u, 0x299f31d0u) ==
          words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("philox: equals another writing of it", "[contract][philox]") {
  test::generator g(1);
  for (int i = 0; i < 20000; ++i) {
    const auto word = [&] { return static_cast<std::uint32_t>(g.next()); };
    const words c = {word(), word(), word(), word()};
    const std::uint32_t key0 = word(), key1 = word();
    REQUIRE(run(c, key0, key1) == independent(c, key0, key1, 10));
    REQUIRE(run(c, key0, key1) != independent(c, key0, key1, 9));  // the comparison can fail
  }
}

TEST_CASE("philox: counters and keys that differ in one bit have unrelated words", "[contract][philox]") {
  const words base = run({1, 2, 3, 4}, 5, 6);
  std::set<words> seen = {base};
  for (unsigned bit = 0; bit < 192; ++bit) {
    words c = {1, 2, 3, 4};
    std::uint32_t key[2] = {5, 6};
    if (bit < 128) {
      c[bit / 32] ^= 1u << bit % 32;
    } else {
      key[bit / 32 - 4] ^= 1u << bit % 32;
    }
    const words other = run(c, key[0], key[1]);
    int changed = 0;
    for (std::size_t w = 0; w < 4; ++w) changed += __builtin_popcount(other[w] ^ base[w]);
    REQUIRE(changed > 36);  // of 128, half expected, deviation 5.7
    REQUIRE(changed < 92);
    seen.insert(other);
  }
  REQUIRE(seen.size() == 193);
}
