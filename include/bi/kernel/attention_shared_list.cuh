// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// How work is dealt out where requests share the beginnings of their views. The list: first the groups' leaves, each for
// the packed rows of all members together, in tiles of rows; then what is left of each request's view. Every task is a
// leaf of a row tile and a KV head and weighs as much as it has tiles of keys. Blocks get equal stretches of the list, and
// each task belongs to the block in whose stretch it begins. Only the device's arrays decide.

BI_NAMESPACE_BEGIN
namespace kernel {

// Requests that share leading tokens: see attention_sharing in bi/attention.hpp.
struct attention_shared_groups {
  const std::int32_t *start, *member, *shared;
  std::int32_t count;
};

// What a block knows of requests and groups, in memory of its own.
struct attention_shared_tables {
  std::int32_t* memory;
  std::int32_t requests, groups;

  BI_HD static constexpr std::int64_t bytes(std::int64_t requests, std::int64_t groups) {
    return 4 * (5 * requests + 3 * groups + 1);
  }
  // By request: the leaves of the views up to its own, one head; the weights of what is left to it, likewise; the leaves
  // that its group has of it.
  BI_HD constexpr std::int32_t* leaves() const { return memory; }
  BI_HD constexpr std::int32_t* own() const { return memory + requests; }
  BI_HD constexpr std::int32_t* shared() const { return memory + 2 * requests; }
  // By place in the list of members: the request; the packed rows of the group's members up to it.
  BI_HD constexpr std::int32_t* member() const { return memory + 3 * requests; }
  BI_HD constexpr std::int32_t* rows() const { return memory + 4 * requests; }
  // By group: its first place; the leaves it has; the weights of the groups up to it, one head.
  BI_HD constexpr std::int32_t* start() const { return memory + 5 * requests; }
  BI_HD constexpr std::int32_t* depth() const { return start() + groups + 1; }
  BI_HD constexpr std::int32_t* weight() const { return depth() + groups; }

  BI_HD static constexpr std::int32_t below(const std::int32_t* sums, std::int32_t i) {
    return i > 0 ? sums[i - 1] : 0;
  }
  BI_HD constexpr std::int32_t group_rows(std::int32_t g) const {
    return start()[g] < start()[g + 1] ? rows()[start()[g + 1] - 1] : 0;
  }
  BI_HD constexpr std::int32_t request_leaves(std::int32_t r) const { return leaves()[r] - below(leaves(), r); }
  BI_HD constexpr std::int32_t group_total(std::int32_t heads) const {
    return groups > 0 ? weight()[groups - 1] * heads : 0;
  }
  BI_HD constexpr std::int32_t total(std::int32_t heads) const {
    return group_total(heads) + (requests > 0 ? own()[requests - 1] * heads : 0);
  }
  // The place of packed row `row` of group g, which has it.
  BI_HD constexpr std::int32_t find_member(std::int32_t g, std::int32_t row) const {
    std::int32_t low = start()[g], high = start()[g + 1] - 1;
    while (low < high) {
      const std::int32_t middle = low + (high - low) / 2;
      if (rows()[middle] <= row) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Leaves of one row tile and KV head, one after another in one block.
struct attention_shared_run {
  std::int32_t group = -1;   // or -1: what is left of `request`
  std::int32_t request = 0;  // whose view leads to the tokens
  std::int32_t tile = 0;     // of the group's packed rows
  std::int32_t head = 0;
  std::int32_t first = 0, count = 0;  // of the view's leaves, or of those that are left to the request; 0: the end
};

// Walks a block's share. TileRows: packed rows of a row tile; LeafTiles: tiles of keys of a leaf.
template <int TileRows, int LeafTiles>
class attention_shared_walk {
 public:
  // Where a group has more than one tile of rows, each walks so many leaves before the next one does, and finds them in
  // the L2 cache.
  static constexpr int chunk = 2;

  BI_HD static constexpr std::int32_t tiles(std::int32_t rows) { return (rows + TileRows - 1) / TileRows; }
  BI_HD static constexpr std::int32_t group_weight(std::int32_t rows, std::int32_t leaves) {
    return tiles(rows) * leaves * LeafTiles;
  }

  BI_HD constexpr attention_shared_walk(const attention_shared_tables& t, std::int32_t heads, std::int32_t block,
                                        std::int32_t blocks)
      : t_(t), heads_(heads), groups_end_(t.group_total(heads)) {
    const std::int32_t total = t.total(heads);
    at_ = begin(total, block, blocks);
    end_ = begin(total, block + 1, blocks);
    request_ = find(t.own(), t.requests, at_ - groups_end_);
    group_ = find(t.weight(), t.groups, at_);
  }

  BI_HD constexpr attention_shared_run next() {
    attention_shared_run run;
    while (at_ < end_ && run.count == 0) {
      if (at_ < groups_end_) {
        take_shared(run);
      } else {
        take_own(run);
      }
    }
    return run;
  }

 private:
  BI_HD static constexpr std::int32_t begin(std::int32_t total, std::int32_t block, std::int32_t blocks) {
    const std::int32_t each = divide(total, blocks), more = total - each * blocks;
    return each * block + (block < more ? block : more);
  }
  // Of what is not negative.
  BI_HD static constexpr std::int32_t divide(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b));
  }
  // The first entry of the sums, times heads, above x; some entry if none is.
  BI_HD constexpr std::int32_t find(const std::int32_t* sums, std::int32_t count, std::int32_t x) const {
    std::int32_t low = 0, high = count > 0 ? count - 1 : 0;
    while (low < high) {
      const std::int32_t middle = low + (high - low) / 2;
      if (sums[middle] * heads_ <= x) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  BI_HD static constexpr std::int32_t round_up(std::int32_t x, std::int32_t by) { return divide(x + by - 1, by); }
  // Leaves from `first` on that begin in the share, of `most`.
  BI_HD constexpr std::int32_t fitting(std::int32_t first, std::int32_t most) const {
    const std::int32_t n = round_up(end_ - first, LeafTiles);
    return n < most ? n : most;
  }

  BI_HD constexpr void take_shared(attention_shared_run& run) {
    while (t_.weight()[group_] * heads_ <= at_) ++group_;
    const std::int32_t rows = t_.group_rows(group_), depth = t_.depth()[group_], row_tiles = tiles(rows);
    const std::int32_t first = t_.below(t_.weight(), group_) * heads_;
    const std::int32_t of_head = row_tiles * depth;
    const std::int32_t task = round_up(at_ - first, LeafTiles), at = first + task * LeafTiles;
    if (task >= of_head * heads_ || at >= end_) {
      at_ = task >= of_head * heads_ ? t_.weight()[group_] * heads_ : end_;
      return;
    }
    const std::int32_t head = divide(task, of_head);
    const std::int32_t in_head = task - head * of_head;
    const std::int32_t width = row_tiles == 1 ? depth : chunk, chunks = in_head / (width * row_tiles);
    const std::int32_t rest = in_head - chunks * width * row_tiles, left = depth - chunks * width;
    const std::int32_t here = left < width ? left : width;
    run.group = group_;
    run.request = t_.member()[t_.find_member(group_, 0)];
    run.tile = rest / here;
    run.head = head;
    run.first = chunks * width + rest - run.tile * here;
    run.count = fitting(at, here - (rest - run.tile * here));
    at_ = at + run.count * LeafTiles;
  }

  BI_HD constexpr void take_own(attention_shared_run& run) {
    while (t_.own()[request_] * heads_ <= at_ - groups_end_) ++request_;
    const std::int32_t first = groups_end_ + t_.below(t_.own(), request_) * heads_;
    const std::int32_t weight = t_.own()[request_] - t_.below(t_.own(), request_);
    const std::int32_t head = divide(at_ - first, weight), head_at = first + head * weight;
    const std::int32_t leaf = round_up(at_ - head_at, LeafTiles), at = head_at + leaf * LeafTiles;
    const std::int32_t leaves = t_.request_leaves(request_) - t_.shared()[request_];
    if (leaf >= leaves || at >= end_) {
      at_ = leaf >= leaves ? head_at + weight : end_;
      return;
    }
    run.request = request_;
    run.head = head;
    run.first = leaf;
    run.count = fitting(at, leaves - leaf);
    at_ = leaf + run.count == leaves ? head_at + weight : at + run.count * LeafTiles;
  }

  const attention_shared_tables t_;
  const std::int32_t heads_, groups_end_;
  std::int32_t at_ = 0, end_ = 0;
  std::int32_t request_ = 0, group_ = 0;
};

}  // namespace kernel
BI_NAMESPACE_END
