// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/attention_split.cuh"

// How many long items of any lengths are worked off: those of the longest requests are dealt out by leaves, as in attention_split.cuh;
// then blocks take whole items from a queue, the longest first. Processors that memory answers sooner take more of them, and what is
// whole is not folded. As many requests are dealt out as make the rest come out even, often none.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int attention_queue_requests = 256;

// Requests whose items are dealt out: those with more leaves than the last one of them, or as many and no larger a number.
struct attention_dealt_requests {
  std::int32_t leaves = 0x7fffffff, request = -1;

  // What an item counts in the list of leaves.
  BI_HD constexpr std::int64_t dealt(std::int64_t of, std::int64_t item_leaves) const {
    return item_leaves > leaves || (item_leaves == leaves && of <= request) ? item_leaves : 0;
  }
};
struct attention_all_requests {
  BI_HD constexpr std::int64_t dealt(std::int64_t, std::int64_t item_leaves) const { return item_leaves; }
};

// In the workspace, before the requests in the order of their lengths. Item i is a head of request i / heads of that order.
struct attention_queue {
  std::int32_t items = 0;
  std::int32_t first = 0;  // that is whole; those before are dealt out
  attention_dealt_requests dealt;
  std::int32_t taken = 0;  // by blocks that had a whole one before
};

struct attention_queue_item {
  std::int32_t request = -1, head = 0;  // -1: there is none
};

// What it costs to deal out the first `dealt` of so many requests, in leaves times blocks above those that there are. sorted[r]:
// leaves of an item of request r of the order; before[r]: of one item of each before it, also of r == requests. A block that has more
// than others is not slow by as much: memory has less to do at the end. To fold costs as much time as some leaves, and to write partial
// results as much as to read a part of what was dealt out.
BI_HD constexpr std::int64_t attention_queue_cost(std::int64_t dealt, std::int64_t requests, std::int64_t heads,
                                                  std::int64_t blocks, const std::int64_t* sorted,
                                                  const std::int64_t* before) {
  constexpr std::int64_t fold = 2, softened = 4, written = 16, rounds = 16;
  const std::int64_t first = dealt * heads, items = requests * heads;
  const auto total_before = [&](std::int64_t item) {
    const std::int64_t r = item / heads;
    return before[r] * heads + (item > r * heads ? (item - r * heads) * sorted[r] : 0);
  };
  const std::int64_t total = total_before(items), base = total_before(first);
  std::int64_t most = total;
  // Some block has k + 1 of k * blocks + 1 whole items.
  for (std::int64_t k = 0; k < rounds && first + k * blocks < items; ++k) {
    const std::int64_t least = base + (k + 1) * sorted[(first + k * blocks) / heads] * blocks;
    most = least > most ? least : most;
  }
  // When all have as many, they are about even, and some take one more.
  const std::int64_t last = first + (items - first) / blocks * blocks;
  if (last < items) {
    const std::int64_t one_more = total_before(last) + sorted[last / heads] * blocks;
    most = one_more > most ? one_more : most;
  }
  return (most - total) / softened + base / written + (dealt > 0 ? fold * blocks : 0);
}

}  // namespace device
BI_NAMESPACE_END
