// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/digest.hpp"

#include <algorithm>
#include <cstdint>
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
      {1, 0x739d2b01eb0c95d2u},
      {7, 0xf83aabdd78a6d46au},
      {8, 0x96d6ccd9f2e08fc3u},
      {9, 0xcdb26691be567782u},
      {16, 0x14429786ea08c6a1u},
      {255, 0x4fa5cbb8206f9888u},
      {256, 0xed89489257ac4235u},
      {1000, 0x68edb45d0de9ebcbu},
  };
  for (const auto& g : golden) REQUIRE(digest(pattern(g.bytes)) == g.digest);
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
  REQUIRE(digest_draft::id() == bi::contract_id("digest_draft", digest_step));
}
