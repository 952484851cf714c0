// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/philox.hpp"
#include "bi/contract/sample.hpp"

// The random words of a row's tokens, contract::sample_words, for many quads of one row: what depends on the row alone
// is computed once. Of the counter only one word of four differs between quads, and it takes Philox three rounds to
// spread it.

BI_NAMESPACE_BEGIN
namespace device {

class row_words {
 public:
  row_words() = default;
  BI_HD row_words(std::uint64_t key, std::uint32_t ordinal) {
    std::uint32_t key0 = low(key), key1 = high(key);
    const auto next_keys = [&] { key0 += 0x9E3779B9u, key1 += 0xBB67AE85u; };
    constexpr std::uint64_t purpose = multiplier1 * static_cast<std::uint32_t>(contract::random_purpose::gumbel);
    // Round 1: the quad is in the first word of four only.
    first_ = high(purpose) ^ key0;
    std::uint32_t word2 = high(multiplier0 * ordinal) ^ key1, word3 = low(multiplier0 * ordinal);
    // Round 2: in the last two.
    next_keys();
    second_ = word3 ^ key1;
    const std::uint32_t word0 = high(multiplier1 * word2) ^ low(purpose) ^ key0, word1 = low(multiplier1 * word2);
    // Round 3: in all but the last.
    next_keys();
    third_[0] = word1 ^ key0;
    third_[1] = high(multiplier0 * word0) ^ key1;
    word3 = low(multiplier0 * word0);
    // Round 4.
    next_keys();
    fourth_[0] = key0;
    fourth_[1] = word3 ^ key1;
    for (int r = 0; r < rest; ++r) {
      next_keys();
      key_[r] = key0;
    }
    last_key1_ = key1;
  }

  // The same for all threads of a warp, which have the same. The compiler knows that a reduction over the warp is equal
  // in all threads: it then takes a register that they share, and isn't computed anew.
  BI_HD row_words in_warp() const {
    row_words r;
    r.first_ = equal_in_warp(first_), r.second_ = equal_in_warp(second_);
    for (int i = 0; i < 2; ++i) r.third_[i] = equal_in_warp(third_[i]), r.fourth_[i] = equal_in_warp(fourth_[i]);
    for (int i = 0; i < rest; ++i) r.key_[i] = equal_in_warp(key_[i]);
    r.last_key1_ = equal_in_warp(last_key1_);
    return r;
  }

  BI_HD contract::philox_block operator()(std::uint32_t quad) const {
    std::uint64_t p0 = multiplier0 * (quad ^ first_);
    std::uint64_t p1 = multiplier1 * (high(p0) ^ second_);
    std::uint32_t c0 = high(p1) ^ third_[0], c1 = low(p1), c2 = low(p0) ^ third_[1], c3;
    p0 = multiplier0 * c0, p1 = multiplier1 * c2;
    c0 = high(p1) ^ c1 ^ fourth_[0], c1 = low(p1), c2 = high(p0) ^ fourth_[1], c3 = low(p0);
    for (int r = 0; r < rest; ++r) {
      p0 = multiplier0 * c0, p1 = multiplier1 * c2;
      c0 = high(p1) ^ c1 ^ key_[r], c1 = low(p1);
      c2 = high(p0) ^ c3 ^ (last_key1_ - static_cast<std::uint32_t>(rest - 1 - r) * 0xBB67AE85u), c3 = low(p0);
    }
    return {{c0, c1, c2, c3}};
  }

 private:
  static constexpr std::uint64_t multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
  static constexpr int rest = 6;  // rounds in which every word depends on the quad

  BI_HD static constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  BI_HD static constexpr std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
  BI_HD static std::uint32_t equal_in_warp(std::uint32_t x) {
#if BI_DEVICE_CODE
    return __reduce_max_sync(0xffffffffu, x);
#else
    return x;
#endif
  }

  std::uint32_t first_, second_, third_[2], fourth_[2], key_[rest];
  std::uint32_t last_key1_;  // those before it are an addition away: registers are dearer
};

}  // namespace device
BI_NAMESPACE_END
