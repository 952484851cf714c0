// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace contract {

struct BI_TYPE philox_block {
  std::uint32_t word[4];
};

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): a bijection of 128-bit counters for each 64-bit key.
BI_HD constexpr philox_block philox4x32_10(philox_block counter, std::uint32_t key0, std::uint32_t key1) {
  std::uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<std::uint32_t>(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

namespace philox_detail {
constexpr bool gives(philox_block counter, std::uint32_t key0, std::uint32_t key1, philox_block expected) {
  const philox_block r = philox4x32_10(counter, key0, key1);
  for (int i = 0; i < 4; ++i) {
    if (r.word[i] != expected.word[i]) return false;
  }
  return true;
}
constexpr std::uint32_t ones = 0xffffffffu;
// Known answers of the Random123 distribution: zeros, ones, digits of pi.
static_assert(gives({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}}), "Philox4x32-10");
static_assert(gives({{ones, ones, ones, ones}}, ones, ones, {{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}}),
              "Philox4x32-10");
static_assert(gives({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0xa4093822u, 0x299f31d0u,
                    {{0xd16cfe09u, 0x94fdcceb, 0x5001e420u, 0x24126ea1u}}),
              "Philox4x32-10");
}  // namespace philox_detail

}  // namespace contract
BI_NAMESPACE_END
