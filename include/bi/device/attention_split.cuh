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
// folds them into one partial result; the leaves of an item that began in an earlier share stay apart, a partial each.
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

// Whether a block leaves so much for one item, `leaves` of `rows` packed rows, that it pays to keep partial results in the L2
// cache until they are folded: to write one to memory there takes as long as to read three. Of less most stay anyway.
BI_HD constexpr bool attention_stays(std::int64_t leaves, std::int64_t rows, std::int64_t head_dim) {
  return leaves * rows * head_dim >= 28 * 1024;
}

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
  std::int64_t left = 0;  // leaves of the share after the current run; may be below 0 if items stay whole
  attention_run run;

  // At leaf i of the list, which lies in `request`, whose first item's leaves begin at `first`. Whole: items stay whole, and
  // one that began before i is passed over; run.count == 0 then if none is left.
  template <class LeavesOf>
  BI_HD constexpr void start(std::int64_t i, std::int64_t end, std::int64_t request, std::int64_t first,
                             std::int64_t leaves, bool whole, std::int64_t heads, const LeavesOf& leaves_of) {
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

}  // namespace device
BI_NAMESPACE_END
