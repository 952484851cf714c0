// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Which rows of attention a thread block has. The query tokens of a request, times the query heads of one KV head, are
// packed into tiles: packed row r is token r / group, head r % group. How many tiles there are only the device knows;
// the host knows a bound.

BI_NAMESPACE_BEGIN
namespace device {

// Requests lie one after another in the batch's rows; request i has rows [first(i), first(i + 1)).
struct attention_batch {
  const std::int32_t* q_start = nullptr;  // null: a row each
  std::int64_t requests = 0;
  std::int64_t rows = 0;        // of the arrays; rows beyond are never touched, whatever q_start says
  std::int64_t group = 1;       // query heads of a KV head
  std::int32_t tile_rows = 16;  // packed rows of a tile
  bool one_tile_each = false;   // no request has more than tile_rows packed rows

  BI_HD constexpr std::int64_t first(std::int64_t request) const {
    return q_start != nullptr ? q_start[request] : request;
  }

  // Request i owns the slots from slot(i) to slot(i + 1), at least as many as its tiles: from a to b packed rows of the
  // batch there are at most b / tile_rows - a / tile_rows + 1 of them.
  BI_HD constexpr std::int64_t slot(std::int64_t request) const {
    return one_tile_each ? request : first(request) * group / tile_rows + request;
  }
  // A bound of every slot, from what the host knows.
  BI_HD constexpr std::int64_t slots() const { return one_tile_each ? requests : rows * group / tile_rows + requests; }
};

struct attention_row_tile {
  std::int64_t request = 0;
  std::int64_t first_row = 0;    // the request's, in the batch
  std::int64_t q_len = 0;        // the request's
  std::int64_t first_token = 0;  // of the request: that of packed row 0 of this tile
  std::uint32_t first_head = 0;  // of the group
  std::uint32_t group = 1;
  std::int32_t rows = 0;  // packed rows that exist; 0: nothing to do

  BI_HD constexpr std::int64_t token(int row) const {
    return first_token + (first_head + static_cast<std::uint32_t>(row)) / group;
  }
  BI_HD constexpr std::int64_t head(int row) const { return (first_head + static_cast<std::uint32_t>(row)) % group; }
};

// The tile of slot s, 0 <= s < slots(): the last request whose slots begin at or before s has it, or nobody.
BI_HD constexpr attention_row_tile find_attention_row_tile(const attention_batch& b, std::int64_t s) {
  std::int64_t low = 0, high = b.requests;  // slot(low) <= s < slot(high)
  if (b.one_tile_each) {
    low = s;
  } else {
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      (b.slot(middle) <= s ? low : high) = middle;
    }
  }
  attention_row_tile t;
  t.request = low;
  t.first_row = b.first(low);
  t.q_len = b.first(low + 1) - t.first_row;
  t.group = static_cast<std::uint32_t>(b.group);
  if (t.first_row < 0) return t;
  const std::int64_t in_arrays = t.q_len < b.rows - t.first_row ? t.q_len : b.rows - t.first_row;
  const std::int64_t packed = (s - b.slot(low)) * b.tile_rows, rest = in_arrays * b.group - packed;
  if (rest <= 0) return t;
  t.rows = rest < b.tile_rows ? static_cast<std::int32_t>(rest) : b.tile_rows;
  t.first_token = packed / b.group;
  t.first_head = static_cast<std::uint32_t>(packed % b.group);
  return t;
}

}  // namespace device
BI_NAMESPACE_END
