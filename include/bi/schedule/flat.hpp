// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How independent items are spread over the GPU: a thread each, dealt out round after round. No field changes a bit.
struct flat_schedule {
  int threads = 256;        // of a thread block: a multiple of 32, at most 256
  std::int64_t blocks = 0;  // 0: nothing to do

  friend constexpr bool operator==(const flat_schedule& a, const flat_schedule& b) {
    return a.threads == b.threads && a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const flat_schedule& a, const flat_schedule& b) { return !(a == b); }
};

inline std::string to_string(const flat_schedule& s) {
  char text[96];
  std::snprintf(text, sizeof text, "flat_schedule{threads=%d, blocks=%lld}", s.threads,
                static_cast<long long>(s.blocks));
  return text;
}

// Items that take `width` threads each: 1, or 32 for a warp.
constexpr flat_schedule pick_flat_schedule(std::int64_t items, int width = 1) {
  constexpr std::int64_t most = 132 * 32;  // fills any GPU of today several times
  flat_schedule s;
  const std::int64_t in_block = s.threads / width;
  const std::int64_t blocks = items / in_block + (items % in_block != 0 ? 1 : 0);
  s.blocks = blocks < most ? blocks : most;
  return s;
}

// Items that all threads of a block share, `threads` of them at once if there were so many: in equal rounds of at most
// 256 while there is a block for each item, and with more items in blocks of 64 or 96, whichever leaves fewer threads
// idle, in a grid that fills an H100 once. Small blocks wait for each other less: 81 us where blocks of 192 take 84 and
// of 256 take 98 (8192 tokens of kv_append).
constexpr flat_schedule pick_shared_schedule(std::int64_t items, std::int64_t threads) {
  constexpr std::int64_t processors = 132, resident = 768;
  const std::int64_t wanted = threads < 1 ? 1 : threads;
  flat_schedule s;
  if (items > processors * (resident / 64)) {
    const std::int64_t by_64 = (wanted + 63) / 64 * 64, by_96 = (wanted + 95) / 96 * 96;
    s.threads = by_96 < by_64 ? 96 : 64;
  } else {
    const std::int64_t rounds = wanted > 256 ? (wanted + 255) / 256 : 1, in_round = (wanted + rounds - 1) / rounds;
    s.threads = static_cast<int>(in_round + 31) / 32 * 32;
  }
  const std::int64_t most = processors * (resident / s.threads);
  s.blocks = items < most ? items : most;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
