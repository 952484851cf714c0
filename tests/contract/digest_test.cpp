// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/digest.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"

using namespace bi::contract;
using bytes = std::vector<unsigned char>;

namespace {

std::uint64_t digest(const bytes& b) { return digest_length_term(b.size()) + digest_terms(b.data(), b.size()); }

bytes pattern(std::size_t n) {
  bytes b(n);
  for (std::size_t i = 0; i < n; ++i) b[i] = static_cast<unsigned char>(i * 7 + 3);
  return b;
}

bytes random_bytes(std::size_t n, std::uint64_t seed) {
  test::generator g(seed);
  bytes b(n);
  for (auto& x : b) x = static_cast<unsigned char>(g.next());
  return b;
}

constexpr request_digest state(std::uint64_t low, std::uint64_t high) { return {low, high}; }

}  // namespace

TEST_CASE("digest: golden values of byte strings", "[contract][digest]") {
  const struct {
    std::size_t bytes;
    std::uint64_t digest;
  } golden[] = {
      {0, 0},
      {1, 0xf548148a7aaab925u},
      {7, 0xdc4d4b9a26de28f1u},
      {8, 0xf0d5d835e4b1f3c5u},
      {9, 0x2fff07590d753bc8u},
      {16, 0x92f39184555c4fa0u},
      {255, 0xc237dc34d2d2b895u},
      {256, 0x816026d40f1e5a6cu},
      {1000, 0xb2b28edda82c4c99u},
  };
  for (const auto& g : golden) REQUIRE(digest(pattern(g.bytes)) == g.digest);
  constexpr std::uint64_t word = 0x0123456789abcdefu, period = std::uint64_t{1} << 32;
  REQUIRE(digest_term(word, 0) == 0xce406f666f85faa9u);
  REQUIRE(digest_term(word, 1) == 0x59fb05a6fbb0c9cau);
  REQUIRE(digest_term(word, 2) == 0x96ec903d390c437du);
  REQUIRE(digest_term(word, 3) == 0x2ac5ca975e2ceca5u);
  REQUIRE(digest_term(word, period - 3) == 0xca1c1f26f2079222u);
  REQUIRE(digest_term(word, period - 1) == 0x8b6bb6f3c94e4629u);
  REQUIRE(digest_term(word, period) == digest_term(word, 0));
  // A seed some words on, and a sum that goes on.
  REQUIRE(digest_seed(1000) == digest_seed(3) + 997 * digest_word_step);
  REQUIRE(digest_add(~std::uint64_t{4}, 0x89abcdefu, 0x01234567u, digest_key_of(digest_seed(5))) ==
          digest_term(word, 5) - 5);
}

TEST_CASE("digest: parts add up in any order", "[contract][digest]") {
  test::generator g(2);
  for (int round = 0; round < 200; ++round) {
    const auto n = static_cast<std::size_t>(g.below(2000));
    const bytes b = random_bytes(n, g.next());
    // Cut at whole words, summed from last to first.
    std::vector<std::size_t> cuts = {0, n};
    for (int i = 0; i < 5; ++i)
      cuts.push_back(static_cast<std::size_t>(g.below(static_cast<std::int64_t>(n / 8) + 1)) * 8);
    std::sort(cuts.begin(), cuts.end());
    std::uint64_t sum = 0;
    for (std::size_t i = cuts.size() - 1; i > 0; --i) {
      sum += digest_terms(b.data() + cuts[i - 1], cuts[i] - cuts[i - 1], cuts[i - 1] / 8);
    }
    REQUIRE(sum + digest_length_term(n) == digest(b));
    // Word by word, as 32 threads would: thread t takes words t, t + 32, ...
    std::uint64_t strided = digest_length_term(n);
    for (std::size_t t = 0; t < 32; ++t) {
      for (std::size_t w = t; w < digest_words(n); w += 32) {
        const std::size_t rest = n - 8 * w;
        strided += digest_term(digest_word(b.data() + 8 * w, rest < 8 ? static_cast<int>(rest) : 8), w);
      }
    }
    REQUIRE(strided == digest(b));
    // The index takes part: the same parts at another place are another digest.
    if (n >= 16) REQUIRE(digest_terms(b.data(), n, 1) != digest_terms(b.data(), n, 0));
  }
}

TEST_CASE("digest: every bit, the order and the length show", "[contract][digest]") {
  const bytes b = random_bytes(83, 3);
  const std::uint64_t base = digest(b);
  std::set<std::uint64_t> seen = {base};
  for (std::size_t bit = 0; bit < 8 * b.size(); ++bit) {
    bytes c = b;
    c[bit / 8] = static_cast<unsigned char>(c[bit / 8] ^ 1 << bit % 8);
    seen.insert(digest(c));
  }
  REQUIRE(seen.size() == 8 * b.size() + 1);
  bytes swapped = b;
  std::swap_ranges(swapped.begin(), swapped.begin() + 8, swapped.begin() + 40);
  REQUIRE(digest(swapped) != base);
  bytes longer = b;
  longer.push_back(0);  // fills up the last word's zeros
  REQUIRE(digest(longer) != base);
  longer.resize(88 + 8, 0);
  REQUIRE(digest(longer) != base);
  std::set<std::uint64_t> zeros;
  for (std::size_t n = 0; n < 100; ++n) zeros.insert(digest(bytes(n, 0)));
  REQUIRE(zeros.size() == 100);
}

TEST_CASE("digest: whatever becomes of half a word shows", "[contract][digest]") {
  test::generator g(5);
  // Those that leave a factor of 2^32, and a product that is a power of two, among them.
  const std::uint32_t factors[] = {0, 1, 2, 0x80000000u, 0x80000001u, 0xffffffffu};
  const std::uint32_t changes[] = {1, 2, 0x8000u, 0x10000u, 0x40000000u, 0x80000000u, 0xffff0000u, 0xffffffffu};
  for (std::uint64_t index = 0; index < 64; ++index) {
    const digest_key key = digest_key_of(digest_seed(static_cast<std::uint32_t>(index)));
    const auto word = [&](std::uint32_t low, std::uint32_t high) {
      return (low - key.low) | static_cast<std::uint64_t>(high - key.high) << 32;
    };
    const auto show = [&](std::uint32_t low, std::uint32_t high, std::uint32_t change) {
      const std::uint64_t term = digest_term(word(low, high), index);
      REQUIRE(digest_term(word(low + change, high), index) != term);
      REQUIRE(digest_term(word(low, high + change), index) != term);
    };
    for (const std::uint32_t low : factors) {
      for (const std::uint32_t high : factors) {
        for (const std::uint32_t change : changes) show(low, high, change);
        for (int i = 0; i < 8; ++i) show(low, high, static_cast<std::uint32_t>(g.next()) | 1);
      }
    }
    for (int i = 0; i < 200; ++i) {
      show(static_cast<std::uint32_t>(g.next()), static_cast<std::uint32_t>(g.next()),
           static_cast<std::uint32_t>(g.next()) | 1);
    }
  }
}

TEST_CASE("digest: exchanges and pairs of flips show, whatever the words are", "[contract][digest]") {
  constexpr std::size_t count = 64;
  using words = std::array<std::uint64_t, count>;
  const auto sum = [](const words& w) {
    std::uint64_t s = 0;
    for (std::size_t i = 0; i < count; ++i) s += digest_term(w[i], i);
    return s;
  };
  const auto turned = [](std::uint64_t w) { return w << 32 | w >> 32; };
  test::generator g(6);
  words random, constant, zeros{}, two{}, counted;
  for (auto& w : random) w = g.next();
  constant.fill(0x3f803f803f803f80u);
  for (auto& w : two) w = g.next() % 2 == 0 ? 0xff80ff80ff80ff80u : 0x3f80bf803f80bf80u;
  for (std::size_t i = 0; i < count; ++i) counted[i] = i;
  for (const words& base : {random, constant, zeros, two, counted}) {
    const std::uint64_t expected = sum(base);
    for (std::size_t i = 0; i < count; ++i) {
      words w = base;
      w[i] = turned(w[i]);
      REQUIRE((w[i] == base[i] || sum(w) != expected));
      for (std::size_t j = 0; j < i; ++j) {
        w = base;
        std::swap(w[i], w[j]);
        REQUIRE((w == base || sum(w) != expected));
        w[i] = turned(w[i]), w[j] = turned(w[j]);
        REQUIRE((w == base || sum(w) != expected));
        for (int bit = 15; bit < 64; bit += 16) {  // signs of 16-bit elements
          for (int other = 15; other < 64; other += 16) {
            w = base;
            w[i] ^= std::uint64_t{1} << bit, w[j] ^= std::uint64_t{1} << other;
            REQUIRE(sum(w) != expected);
          }
        }
      }
    }
    // Blocks of words, as heads or tokens are, with each other.
    for (std::size_t size = 1; size <= count / 2; size *= 2) {
      for (std::size_t i = 0; i + 2 * size <= count; i += size) {
        words w = base;
        std::swap_ranges(w.begin() + static_cast<std::ptrdiff_t>(i), w.begin() + static_cast<std::ptrdiff_t>(i + size),
                         w.begin() + static_cast<std::ptrdiff_t>(i + size));
        REQUIRE((w == base || sum(w) != expected));
      }
    }
    for (std::size_t by = 1; by < count; ++by) {
      words w = base;
      std::rotate(w.begin(), w.begin() + static_cast<std::ptrdiff_t>(by), w.end());
      REQUIRE((w == base || sum(w) != expected));
    }
  }
  // What sums of words by place don't see: two exchanges of opposite words over the same distance.
  const std::uint64_t values[][2] = {{0, 1},
                                     {7, 9},
                                     {0, 0x8000000000000000u},
                                     {0x3f80bf803f80bf80u, 0xbf803f80bf803f80u},
                                     {0x3f803f803f803f80u, 0xbf80bf80bf80bf80u},
                                     {0, 0xff80ff80ff80ff80u}};
  for (const auto& [u, v] : values) {
    for (std::size_t apart = 1; apart < 16; ++apart) {
      for (std::size_t i = 0; i + apart < count; ++i) {
        for (std::size_t j = i + apart + 1; j + apart < count; ++j) {
          words w = constant;
          w[i] = w[j + apart] = u, w[j] = w[i + apart] = v;
          const std::uint64_t before = sum(w);
          std::swap(w[i], w[i + apart]);
          std::swap(w[j], w[j + apart]);
          REQUIRE(sum(w) != before);
        }
      }
    }
  }
}

TEST_CASE("digest: changes at the corners of parallelograms and cubes show", "[contract][digest]") {
  // A token's words, a head's and a word are steps of an index; faults repeat over them. Each corner changes from one value to
  // the other or back, as its parity says.
  const std::uint64_t values[][2] = {{0, 1},
                                     {7, 9},
                                     {0, 0x8000u},
                                     {0, 0x80000000u},
                                     {0, 0x800000000000u},
                                     {0, 0x8000000000000000u},
                                     {0, 0x3f803f803f803f80u},
                                     {0, 0xff80ff80ff80ff80u},
                                     {0x3f80bf803f80bf80u, 0xbf803f80bf803f80u},
                                     {0x3f803f803f803f80u, 0xbf80bf80bf80bf80u},
                                     {0x3f803f803f803f80u, 0x3f813f803f803f80u},
                                     {0x3f803f803f803f80u, 0x3f803f803f813f80u}};
  const std::uint64_t steps[] = {1, 2, 3, 4, 8, 16, 31, 32, 64, 128, 256, 512, 1024, 4096, 65536};
  test::generator g(8);
  const auto change = [](std::uint64_t from, std::uint64_t to, std::uint64_t index) {
    return digest_term(to, index) - digest_term(from, index);
  };
  std::int64_t missed_corners = 0, missed_rows = 0, missed_cubes = 0;
  for (int round = 0; round < 400000; ++round) {
    const auto& pair = values[g.below(std::size(values))];
    const std::uint64_t u = pair[0], v = pair[1];
    const auto index = static_cast<std::uint64_t>(g.below(1 << 24));
    const std::uint64_t step[] = {steps[g.below(std::size(steps))], steps[g.below(std::size(steps))],
                                  steps[g.below(std::size(steps))]};
    const auto corners = [&](int dimensions) {
      std::uint64_t sum = 0;
      for (int corner = 0; corner < 1 << dimensions; ++corner) {
        std::uint64_t at = index;
        bool back = false;
        for (int d = 0; d < dimensions; ++d) {
          if ((corner >> d & 1) == 0) continue;
          at += step[d];
          back = !back;
        }
        sum += back ? change(v, u, at) : change(u, v, at);
      }
      return sum;
    };
    if (step[0] != step[1]) missed_corners += corners(2) == 0 ? 1 : 0;
    if (step[0] != step[1] && step[0] != step[2] && step[1] != step[2]) missed_cubes += corners(3) == 0 ? 1 : 0;
    // Four in a row, the middle two back: what differences of differences don't see.
    const std::uint64_t d = step[0];
    const std::uint64_t row =
        change(u, v, index) + change(v, u, index + d) + change(v, u, index + 2 * d) + change(u, v, index + 3 * d);
    missed_rows += row == 0 ? 1 : 0;
  }
  REQUIRE(missed_corners == 0);
  REQUIRE(missed_rows == 0);
  REQUIRE(missed_cubes == 0);
}

TEST_CASE("digest: alignment does not show", "[contract][digest]") {
  const bytes b = random_bytes(100, 4);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    bytes c(shift, 0xee);
    c.insert(c.end(), b.begin(), b.end());
    REQUIRE(digest_length_term(b.size()) + digest_terms(c.data() + shift, b.size()) == digest(b));
  }
}

TEST_CASE("digest: tokens start at whole words", "[contract][digest]") {
  REQUIRE(kv_token_bytes(8, 128, 2) == 4096);
  REQUIRE(kv_token_word(3, 4096) == 3 * 512);
  REQUIRE(kv_token_bytes(1, 1, 2) == 4);
  REQUIRE(kv_token_word(3, 4) == 3);
  REQUIRE(digest_words(0) == 0);
  REQUIRE(digest_words(1) == 1);
  REQUIRE(digest_words(8) == 1);
  REQUIRE(digest_words(9) == 2);
}

TEST_CASE("digest: golden values of a request", "[contract][digest]") {
  constexpr request_digest d0 = digest_start(0x123456789abcdefu);
  STATIC_REQUIRE(d0 == state(0x3b3c4b8c900db093u, 0x4f2af462e2f78fa1u));
  constexpr request_digest d1 = digest_token(d0, 42, 0xfeedfaceu);
  STATIC_REQUIRE(d1 == state(0x7d85b3bcad734a6du, 0xe84c4f93badd925du));
  const request_digest branch[2] = {digest_token(digest_fork(d1, 0), 7, 11), digest_token(digest_fork(d1, 1), -1, 12)};
  REQUIRE(branch[0] == state(0x4d0c30e436e8ae6bu, 0xd94dec5c31c6c1fdu));
  REQUIRE(branch[1] == state(0x8b2c4eb9bfe138c2u, 0xcf8bcf69431f3e94u));
  const std::int64_t length[2] = {5, 9};
  REQUIRE(digest_merge(d1, branch, length, 2, 77) == state(0xaf0701ba419f1513u, 0xb1306504ee44a3ddu));
}

TEST_CASE("digest: whatever a request did differently shows", "[contract][digest]") {
  const auto run = [](std::uint64_t header, std::int32_t token, std::uint64_t row, bool swap, std::int64_t length,
                      std::int64_t position, std::uint64_t fork) {
    request_digest d = digest_token(digest_token(digest_start(header), 5, 50), token, row);
    request_digest b[2] = {digest_token(digest_fork(d, 0), 1, 10), digest_token(digest_fork(d, fork), 2, 20)};
    if (swap) std::swap(b[0], b[1]);
    const std::int64_t lengths[2] = {length, 3};
    return digest_merge(d, b, lengths, 2, position);
  };
  const request_digest results[] = {
      run(1, 6, 60, false, 3, 9, 1),  run(2, 6, 60, false, 3, 9, 1), run(1, 7, 60, false, 3, 9, 1),
      run(1, 6, 61, false, 3, 9, 1),  run(1, 6, 60, true, 3, 9, 1),  run(1, 6, 60, false, 4, 9, 1),
      run(1, 6, 60, false, 3, 10, 1), run(1, 6, 60, false, 3, 9, 2),
  };
  for (const auto& a : results) {
    REQUIRE(std::count(std::begin(results), std::end(results), a) == 1);
    for (const auto& b : results) {  // each half alone tells them apart
      if (&a != &b) REQUIRE((a.low != b.low && a.high != b.high));
    }
  }
  const request_digest d = digest_start(1);
  REQUIRE(digest_token(digest_token(d, 1, 10), 2, 20) != digest_token(digest_token(d, 2, 20), 1, 10));
  REQUIRE(digest_fork(d, 3) != absorb(absorb(d, request_event::token, 3), 0));
  REQUIRE(digest_merge(d, nullptr, nullptr, 0, 0) != d);
}

TEST_CASE("digest: the contract has a name and an id", "[contract][digest]") {
  REQUIRE(digest_words_draft::id() ==
          bi::contract_id("digest_words_draft", digest_step, digest_word_step, digest_flip));
}
