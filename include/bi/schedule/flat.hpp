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

}  // namespace schedule
BI_NAMESPACE_END
