// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How the leaves of requests that share the beginnings of their views are spread over the GPU
// (bi/kernel/attention_shared.cuh). No field changes a bit.
struct attention_shared_schedule {
  std::int64_t blocks = 0;  // thread blocks

  friend constexpr bool operator==(const attention_shared_schedule& a, const attention_shared_schedule& b) {
    return a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const attention_shared_schedule& a, const attention_shared_schedule& b) {
    return !(a == b);
  }
};

inline std::string to_string(const attention_shared_schedule& s) {
  char text[64];
  std::snprintf(text, sizeof text, "attention_shared_schedule{blocks=%lld}", static_cast<long long>(s.blocks));
  return text;
}

// Where the partial results lie in the workspace: the leaves before each request, m and l, o.
struct attention_shared_space {
  std::int64_t ml = 0, o = 0;  // bytes before them
  std::int64_t bytes = 0;
  std::int64_t count = 0;  // partial results
};

// `total`: leaves of a call at most, all heads together; `rows`: packed, of a request.
constexpr attention_shared_space attention_shared_carve(std::int64_t requests, std::int64_t total, std::int64_t rows,
                                                        std::int64_t head_dim) {
  const auto aligned = [](std::int64_t bytes) { return (bytes + 255) / 256 * 256; };
  constexpr std::int64_t most = (std::int64_t{1} << 32) - 2;  // numbers have 32 bits
  attention_shared_space s;
  s.count = total < most / rows ? total * rows : most;
  s.ml = aligned(requests * 4);
  s.o = s.ml + aligned(s.count * 8);
  s.bytes = s.o + s.count * head_dim * 4;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
