// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/attention_rows.cuh"

// How the leaves of short requests are dealt out. An item is a request and a KV head; its packed rows fit one tile. The
// list of all items' leaves, requests first, then heads, then leaves, is cut into equal shares of consecutive leaves, one a
// thread block. Only lengths decide, so every block finds its share by itself, and a replayed graph follows the lengths.
//
// A share may begin and end inside an item. Leaves fold from left to right, so a block that has an item's first leaves
// folds them into one partial result; the leaves of an item that began in an earlier share stay apart, a partial each. Or
// the blocks that have some of an item's leaves deal them out anew, in turns (attention_team).
//
// Or items stay whole: each belongs to the share that its first leaf lies in.

BI_NAMESPACE_BEGIN
namespace device {

// The packed rows of a request, all of them in one tile; none if there are none. It has rows [first, end) of the batch.
BI_HD constexpr attention_row_tile attention_request_rows(const attention_batch& b, std::int64_t request,
                                                          std::int64_t first, std::int64_t end) {
  attention_row_tile t;
  t.request = request;
  t.first_row = first;
  t.q_len = end - first;
  t.group = static_cast<std::uint32_t>(b.group);
  if (t.first_row < 0) return t;
  const std::int64_t in_arrays = t.q_len < b.rows - t.first_row ? t.q_len : b.rows - t.first_row;
  if (in_arrays <= 0) return t;
  t.rows = in_arrays < b.tile_rows && in_arrays * b.group < b.tile_rows ? static_cast<std::int32_t>(in_arrays * b.group)
                                                                        : b.tile_rows;
  return t;
}

BI_HD constexpr attention_row_tile attention_request_rows(const attention_batch& b, std::int64_t request) {
  return attention_request_rows(b, request, b.first(request), b.first(request + 1));
}

// What an item's rows see together, and its leaves. An item with rows counts at least one leaf: somebody has to write the
// results of rows that see nothing.
struct attention_item {
  std::int32_t lo = 0, see = 0;  // no row sees an index outside; neither end decreases from row to row
  std::int64_t first_leaf = 0;
  std::int64_t leaves = 0;  // 0: no rows
};

template <class Contract>
BI_HD attention_item make_attention_item(const attention_row_tile& rows, std::int64_t len, bool causal,
                                         std::int64_t window) {
  attention_item item;
  if (rows.rows == 0) return item;
  if (len < 0) len = 0;
  item.lo = static_cast<std::int32_t>(Contract::visible(causal, len, rows.q_len, 0, window).lo);
  item.see =
      static_cast<std::int32_t>(Contract::visible(causal, len, rows.q_len, rows.token(rows.rows - 1), window).see);
  item.first_leaf = Contract::first_leaf(item.lo);
  item.leaves = item.lo < item.see ? Contract::end_leaf(item.see) - item.first_leaf : 1;
  return item;
}

// a / b of what is nearly always below 2^32: the long way takes a fold's threads longer than their sums.
BI_HD constexpr std::int64_t attention_divide(std::int64_t a, std::int64_t b) {
  const bool is_short = ((a | b) >> 32) == 0;
  return is_short ? static_cast<std::int64_t>(static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b)) : a / b;
}

// The shares of `total` leaves: block b has [begin(b), begin(b + 1)). With fewer leaves than blocks the first blocks have one
// each: neighbours run on different processors.
struct attention_shares {
  std::int64_t total, each, more;  // `more` shares have a leaf more than `each`

  BI_HD constexpr attention_shares(std::int64_t leaves, std::int64_t blocks)
      : total(leaves), each(attention_divide(leaves, blocks)), more(leaves - each * blocks) {}

  BI_HD constexpr std::int64_t begin(std::int64_t block) const { return block * each + (block < more ? block : more); }
  // Whose share has leaf i.
  BI_HD constexpr std::int64_t block_of(std::int64_t i) const {
    const std::int64_t first = more * (each + 1);  // of the shares without a leaf more
    const bool among = i < first;
    return (among ? 0 : more) + attention_divide(among ? i : i - first, among ? each + 1 : each);
  }
};

// Where a block leaves partial results: place 0 is for the item that its share ends in, the others for single leaves of the
// item that it begins in.
struct attention_places {
  std::int64_t a_block;  // places a block has

  BI_HD constexpr std::int64_t folded(std::int64_t block) const { return block * a_block; }
  BI_HD constexpr std::int64_t leaf(std::int64_t block, std::int64_t i) const {
    // Only lengths over the limits ask for more places than there are; they share the last.
    return block * a_block + (i + 1 < a_block ? i + 1 : a_block - 1);
  }
};

// Consecutive leaves of one item in one share.
struct attention_run {
  std::int64_t request = 0, head = 0;
  std::int64_t begin = 0, count = 0;  // of the item's leaves
  std::int64_t leaves = 0;            // the item's

  BI_HD constexpr bool is_whole() const { return count == leaves; }
  BI_HD constexpr bool is_first() const { return begin == 0; }
};

// Walks a share. `leaves_of(request)` is how many leaves each of a request's items has.
struct attention_walk {
  std::int64_t left = 0;   // leaves of the share after the current run; may be below 0 if items stay whole
  std::int64_t at = 0;     // leaf of the list that the current run begins at, unless items stay whole
  std::int64_t total = 0;  // leaves of the list
  attention_run run;

  // At leaf i of the list, which lies in `request`, whose first item's leaves begin at `first`. Whole: items stay whole, and
  // one that began before i is passed over; run.count == 0 then if none is left.
  template <class LeavesOf>
  BI_HD constexpr void start(std::int64_t i, std::int64_t end, std::int64_t request, std::int64_t first,
                             std::int64_t leaves, bool whole, std::int64_t heads, const LeavesOf& leaves_of) {
    at = i;
    run.request = request;
    run.leaves = leaves;
    run.head = attention_divide(i - first, leaves);
    run.begin = i - first - run.head * leaves;
    const bool begun = whole && run.begin > 0;
    take(end - i, whole && !begun);
    if (!begun) return;
    run.count = 0;
    if (more()) next(heads, leaves_of, whole);
  }
  BI_HD constexpr bool more() const { return left > 0; }
  template <class LeavesOf>
  BI_HD constexpr void next(std::int64_t heads, const LeavesOf& leaves_of, bool whole) {
    at += run.count;
    if (++run.head == heads) {
      run.head = 0;
      do run.leaves = leaves_of(++run.request);
      while (run.leaves == 0);
    }
    run.begin = 0;
    take(left, whole);
  }

 private:
  BI_HD constexpr void take(std::int64_t most, bool all) {
    const std::int64_t rest = run.leaves - run.begin;
    run.count = all || rest < most ? rest : most;
    left = most - run.count;
  }
};

// What a block says of an item that begins in its share and goes on in others' shares. Read 16 bytes at a time.
struct alignas(16) attention_cut {
  std::int32_t request = -1;  // -1: there is no such item
  std::int32_t head = 0, block = 0;
  std::int32_t count = 0;                   // leaves of the item in this block, folded into one
  std::int32_t leaves = 0;                  // the item's
  std::int32_t first_row = 0, end_row = 0;  // the request's rows of the batch
  std::int32_t len = 0;                     // of its view
  std::int64_t first = 0;                   // leaf of the list: the item's first that this block doesn't have
  std::int64_t total = 0;                   // leaves of the list
};

// Of a run in a block whose share ends at leaf `end` of `total`; the request has the rows [first_row, end_row) and len tokens.
BI_HD constexpr attention_cut make_attention_cut(const attention_run& last, std::int64_t block, std::int64_t end,
                                                 std::int64_t total, std::int64_t first_row, std::int64_t end_row,
                                                 std::int64_t len) {
  const auto narrow = [](std::int64_t x) { return static_cast<std::int32_t>(x); };
  attention_cut cut;
  if (!last.is_first() || last.is_whole() || last.count <= 0) return cut;
  cut.request = narrow(last.request);
  cut.head = narrow(last.head);
  cut.block = narrow(block);
  cut.count = narrow(last.count);
  cut.leaves = narrow(last.leaves);
  cut.first_row = narrow(first_row);
  cut.end_row = narrow(end_row);
  cut.len = narrow(len);
  cut.first = end;
  cut.total = total;
  return cut;
}

// The blocks that have leaves of an item that was cut, in the order of their shares. The first one's share ends with them,
// the last one's begins with them. Time counts in leaves of a share, so at most times some of the members are at the item,
// and they take its leaves in turns: those of one time in a row, of an earlier time first. So leaves that are folded one
// after another are made one after another, and a partial result is read soon after it was written.
struct attention_team {
  std::int64_t block = 0;              // member 0
  std::int32_t members = 1;            // 1: the item was not cut, or its leaves are not dealt out anew
  std::int32_t leaves = 0;             // the item's
  std::int32_t first = 0, before = 0;  // member 0's leaves, and those of its share before them
  std::int32_t last = 0;               // the last member's
  std::int32_t each = 0, more = 0;     // of the members between, of which the first `more` have one more

  BI_HD constexpr std::int32_t between() const { return members - 2; }
  BI_HD constexpr std::int32_t count(std::int32_t member) const {
    return member == 0 ? first : member == members - 1 ? last : each + (member <= more ? 1 : 0);
  }
  // Leaf i of the member's, as the item counts.
  BI_HD constexpr std::int32_t leaf(std::int32_t member, std::int32_t i) const {
    const std::int32_t time = member == 0 ? before + i : i, all = of_between(time);
    const std::int32_t turn = member == 0 ? all + (time < last ? 1 : 0) : member == members - 1 ? all : member - 1;
    return until(time) + turn;
  }
  // Whose leaf j of the item is, and which of the member's.
  BI_HD constexpr std::int32_t find(std::int32_t j, std::int32_t& i) const {
    std::int32_t time = 0;
    for (std::int32_t beyond = each + 2; beyond - time > 1;) {
      const std::int32_t middle = (time + beyond) / 2;
      const bool is_later = until(middle) <= j;
      time = is_later ? middle : time;
      beyond = is_later ? beyond : middle;
    }
    const std::int32_t turn = j - until(time), all = of_between(time);
    i = time;
    if (turn < all) return 1 + turn;
    if (turn == all && time < last) return members - 1;
    i = time - before;
    return 0;
  }
  // Member 1 is through with the item when member 0 begins: its leaves are the first ones.
  BI_HD constexpr bool is_in_turn() const { return members == 2 && before >= last; }

  // Who folds what has come: those who are at the item until its end, each some of the rows. In turn: member 1, who has the
  // first leaves.
  static constexpr std::int32_t most_members = 32;  // of a team that folds as it goes
  BI_HD constexpr std::int32_t owners() const {
    if (members > most_members) return 1;
    return members == 2 ? 1 : between() + (is_owner_first() ? 1 : 0);
  }
  // Owner q as a member, and the other way round; -1: none.
  BI_HD constexpr std::int32_t owner(std::int32_t q) const {
    if (members == 2) return is_in_turn() ? 1 : 0;
    return q < between() ? 1 + q : 0;
  }
  BI_HD constexpr std::int32_t number_of(std::int32_t member) const {
    if (members > most_members || members == 2) return member == owner(0) ? 0 : -1;
    if (member == 0) return is_owner_first() ? between() : -1;
    return member <= between() ? member - 1 : -1;
  }

 private:
  BI_HD constexpr bool is_owner_first() const { return before <= first; }
  BI_HD constexpr static std::int32_t clamp(std::int32_t x, std::int32_t most) {
    return x < 0 ? 0 : x < most ? x : most;
  }
  // Members between that are at the item at a time, and leaves that all members have until then.
  BI_HD constexpr std::int32_t of_between(std::int32_t time) const {
    return time < each ? between() : time == each ? more : 0;
  }
  BI_HD constexpr std::int32_t until(std::int32_t time) const {
    return between() * clamp(time, each) + (time > each ? more : 0) + clamp(time, last) + clamp(time - before, first);
  }
};

// Of the run that walk is at.
BI_HD constexpr attention_team make_attention_team(const attention_walk& walk, std::int64_t blocks) {
  attention_team t;
  if (walk.run.is_whole()) return t;
  const attention_shares shares(walk.total, blocks);
  const std::int64_t begin = walk.at - walk.run.begin, end = begin + walk.run.leaves;
  const std::int64_t last = shares.block_of(end - 1);
  const auto narrow = [](std::int64_t x) { return static_cast<std::int32_t>(x); };
  t.block = shares.block_of(begin);
  t.members = narrow(last - t.block + 1);
  t.leaves = narrow(walk.run.leaves);
  t.first = narrow(shares.begin(t.block + 1) - begin);
  t.before = narrow(begin - shares.begin(t.block));
  t.last = narrow(end - shares.begin(last));
  t.each = narrow(shares.each);
  const std::int64_t more = shares.more - t.block - 1;
  t.more = more < 0 ? 0 : more < t.between() ? narrow(more) : t.between();
  return t;
}

// Where the blocks of teams leave partial results. A block has runs of two teams: the one whose item begins in its share,
// and the one whose item began before, or one of them. Each run has a place for what is folded, and one for each leaf.
struct attention_team_places {
  std::int64_t a_block;  // places a block has, three at least

  BI_HD constexpr std::int64_t folded(std::int64_t block, bool begins) const {
    return block * a_block + (begins ? 0 : 1);
  }
  // Only lengths over the limits ask for more places than there are; they share some.
  BI_HD constexpr std::int64_t leaf(std::int64_t block, bool begins, std::int64_t i) const {
    const std::int64_t at = begins ? a_block - 1 - i : 2 + i;
    return block * a_block + (at < 2 ? 2 : at < a_block ? at : a_block - 1);
  }
};

}  // namespace device
BI_NAMESPACE_END
