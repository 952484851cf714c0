// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/row.cuh"

// How many of a request's draft tokens are those that sample drew. A request depends on its own rows. The draws are
// there already, each made as if it stood alone, so this is a search for the first row that differs: a warp a request.

BI_NAMESPACE_BEGIN
namespace kernel {

struct verify_params {
  const std::int32_t* token;  // [rows], drawn
  const std::int32_t* draft;  // [rows]
  const std::int32_t* start;  // [requests + 1]
  std::int32_t* accepted;     // [requests]
  std::int64_t rows, requests;
};

// 0 for a request that `start` puts outside the rows, of which nothing is read.
BI_D inline std::int64_t accepted_drafts(const verify_params& p, std::int64_t request, int lane) {
  const std::int64_t begin = p.start[request], end = p.start[request + 1];
  if (begin < 0 || end > p.rows) return 0;
  std::int64_t row = begin;
  for (; row < end; row += 32) {
    const std::int64_t mine = row + lane;
    const bool kept = mine < end && p.draft[mine] >= 0 && p.draft[mine] == p.token[mine];
    const unsigned refused = __ballot_sync(device::full_warp, !kept);
    if (refused != 0) return row - begin + (__ffs(static_cast<int>(refused)) - 1);
  }
  return row - begin;  // whole rounds of 32, or none
}

template <class Contract>
BI_KERNEL __launch_bounds__(256) void verify_kernel(const verify_params p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  device::for_items<32>({p.requests, 1}, [&](device::flat_item item) {
    const std::int64_t count = accepted_drafts(p, item.row, lane);
    if (lane == 0) p.accepted[item.row] = static_cast<std::int32_t>(count);
  });
}

}  // namespace kernel
BI_NAMESPACE_END
