// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How the rows of attention are spread over the GPU. No field changes a bit.
struct attention_schedule {
  int row_warps = 4;           // groups of 16 packed rows in a thread block: 1 or, at head_dim 256, 2, else 4
  bool one_tile_each = false;  // a tile holds all rows of a request and KV head
  std::int64_t blocks = 0;     // thread blocks; tiles are dealt out round after round

  friend constexpr bool operator==(const attention_schedule& a, const attention_schedule& b) {
    return a.row_warps == b.row_warps && a.one_tile_each == b.one_tile_each && a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const attention_schedule& a, const attention_schedule& b) { return !(a == b); }
};

inline std::string to_string(const attention_schedule& s) {
  char text[128];
  std::snprintf(text, sizeof text, "attention_schedule{row_warps=%d, one_tile_each=%d, blocks=%lld}", s.row_warps,
                s.one_tile_each ? 1 : 0, static_cast<long long>(s.blocks));
  return text;
}

// The generic mma.sync schedule: every shape, alignment and architecture from sm_80. `group`: query heads of a KV head.
constexpr attention_schedule pick_attention_schedule(std::int64_t requests, std::int64_t rows, std::int64_t max_q_len,
                                                     std::int64_t group, std::int64_t heads_kv, int most_row_warps) {
  attention_schedule s;
  const std::int64_t packed = max_q_len * group;  // of a request, at most
  s.row_warps = packed <= 16 ? 1 : most_row_warps;
  const int tile_rows = 16 * s.row_warps;
  s.one_tile_each = packed <= tile_rows;
  const std::int64_t items = (s.one_tile_each ? requests : rows * group / tile_rows + requests) * heads_kv;
  constexpr std::int64_t most = std::int64_t{1} << 30;  // below the limit of gridDim.x
  s.blocks = items < most ? items : most;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
