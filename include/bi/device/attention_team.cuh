// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/attention_split.cuh"

// How the blocks that have leaves of one item may deal them out anew, so that partial results come in about the order in
// which they fold.

BI_NAMESPACE_BEGIN
namespace device {

// The blocks whose shares have leaves of an item that was cut, in the order of their shares. The first one's share ends with
// them, the last one's begins with them. Time counts in leaves of a share, so at most times some of the members are at the
// item, and they take its leaves in turns: those of one time in a row, of an earlier time first.
struct attention_team {
  std::int64_t block = 0;              // member 0
  std::int32_t members = 1;            // 1: the item was not cut
  std::int32_t leaves = 0;             // the item's
  std::int32_t first = 0, before = 0;  // member 0's leaves, and those of its share before them
  std::int32_t last = 0;               // the last member's
  std::int32_t each = 0, more = 0;     // of the members between, of which the first `more` have one more

  BI_HD constexpr std::int32_t count(std::int32_t member) const {
    return member == 0 ? first : member == members - 1 ? last : each + (member <= more ? 1 : 0);
  }
  // Leaf i of the member's, as the item counts.
  BI_HD constexpr std::int32_t leaf(std::int32_t member, std::int32_t i) const {
    const std::int32_t time = member == 0 ? before + i : i, all = of_between(time);
    const std::int32_t turn = member == 0 ? all + (time < last ? 1 : 0) : member == members - 1 ? all : member - 1;
    return until(time) + turn;
  }
  // Whose leaf j of the item is, and which of the member's. `time` is not after the leaf's, and becomes it.
  BI_HD constexpr std::int32_t find(std::int32_t j, std::int32_t& time, std::int32_t& i) const {
    while (until(time + 1) <= j) ++time;
    const std::int32_t turn = j - until(time), all = of_between(time);
    i = time;
    if (turn < all) return 1 + turn;
    if (turn == all && time < last) return members - 1;
    i = time - before;
    return 0;
  }

 private:
  BI_HD constexpr static std::int32_t clamp(std::int32_t x, std::int32_t most) {
    return x < 0 ? 0 : x < most ? x : most;
  }
  BI_HD constexpr std::int32_t between() const { return members - 2; }
  // Members between that are at the item at a time, and leaves that all members have until then.
  BI_HD constexpr std::int32_t of_between(std::int32_t time) const {
    return time < each ? between() : time == each ? more : 0;
  }
  BI_HD constexpr std::int32_t until(std::int32_t time) const {
    return between() * clamp(time, each) + (time > each ? more : 0) + clamp(time, last) + clamp(time - before, first);
  }
};

// Of the item whose leaves are [begin, begin + leaves) of the list.
BI_HD constexpr attention_team make_attention_team(const attention_shares& shares, std::int64_t begin,
                                                   std::int64_t leaves) {
  attention_team t;
  const std::int64_t end = begin + leaves;
  const std::int64_t block = shares.block_of(begin), last = shares.block_of(end - 1);
  const auto narrow = [](std::int64_t x) { return static_cast<std::int32_t>(x); };
  t.block = block;
  t.leaves = narrow(leaves);
  if (last == block) return t;
  t.members = narrow(last - block + 1);
  t.first = narrow(shares.begin(block + 1) - begin);
  t.before = narrow(begin - shares.begin(block));
  t.last = narrow(end - shares.begin(last));
  t.each = narrow(shares.each);
  const std::int64_t more = shares.more - block - 1;
  t.more = more < 0 ? 0 : more < last - block - 1 ? narrow(more) : t.members - 2;
  return t;
}

// Of rows that are folded while they are made: the least rows a warp, a power of two, with which so many warps have all rows of
// all items.
BI_HD constexpr int attention_follow_rows(std::int64_t items, std::int64_t rows, std::int64_t warps) {
  int each = 1;
  while (each < rows && items * ((rows + each - 1) / each) > warps) each *= 2;
  return each;
}

// Where the blocks of teams leave partial results, one for each leaf. A block has runs of two teams at most: the one whose
// item begins in its share, and the one whose item began before.
struct attention_team_places {
  std::int64_t a_block;  // places a block has

  BI_HD constexpr std::int64_t leaf(std::int64_t block, bool begins, std::int64_t i) const {
    // Only lengths over the limits ask for more places than there are; they share some.
    const std::int64_t at = begins ? a_block - 1 - i : i;
    return block * a_block + (at < 0 ? 0 : at < a_block ? at : a_block - 1);
  }
};

}  // namespace device
BI_NAMESPACE_END
