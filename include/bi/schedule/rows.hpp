// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How an operation over rows is spread over the GPU. Free in every respect: no field changes a bit.
struct row_schedule {
  int threads_per_row = 256;  // 32: one warp a row; 256: one thread block a row
  int rows_per_block = 1;     // 4 with one warp a row, else 1
  std::int64_t blocks = 0;    // thread blocks; rows are dealt out round after round

  friend constexpr bool operator==(const row_schedule& a, const row_schedule& b) {
    return a.threads_per_row == b.threads_per_row && a.rows_per_block == b.rows_per_block && a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const row_schedule& a, const row_schedule& b) { return !(a == b); }
};

inline std::string to_string(const row_schedule& s) {
  char text[128];
  std::snprintf(text, sizeof text, "row_schedule{threads_per_row=%d, rows_per_block=%d, blocks=%lld}",
                s.threads_per_row, s.rows_per_block, static_cast<long long>(s.blocks));
  return text;
}

// Enough thread blocks to fill any GPU of today several times; more rows are dealt out in rounds.
inline constexpr std::int64_t max_row_blocks = 132 * 32;

// Short rows take a warp each, long ones a thread block.
constexpr row_schedule pick_row_schedule(std::int64_t rows, std::int64_t cols) {
  row_schedule s;
  if (cols <= 1024) {
    s.threads_per_row = 32;
    s.rows_per_block = 4;
  }
  const std::int64_t blocks = rows / s.rows_per_block + (rows % s.rows_per_block != 0 ? 1 : 0);
  s.blocks = blocks < max_row_blocks ? blocks : max_row_blocks;
  return s;
}

// How an operation is spread that gives each row a whole thread block of its own size. No field changes a bit.
struct block_schedule {
  std::int64_t blocks = 0;  // thread blocks; rows are dealt out round after round

  friend constexpr bool operator==(const block_schedule& a, const block_schedule& b) { return a.blocks == b.blocks; }
  friend constexpr bool operator!=(const block_schedule& a, const block_schedule& b) { return !(a == b); }
};

inline std::string to_string(const block_schedule& s) {
  return "block_schedule{blocks=" + std::to_string(s.blocks) + "}";
}

constexpr block_schedule pick_block_schedule(std::int64_t rows) {
  return {rows < max_row_blocks ? rows : max_row_blocks};
}

}  // namespace schedule
BI_NAMESPACE_END
