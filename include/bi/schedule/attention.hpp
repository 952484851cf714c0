// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

enum class attention_kernel : std::uint8_t {
  mma,    // bi/kernel/attention_mma.cuh: every shape, alignment and architecture from sm_80
  split,  // requests of one tile of rows, sm_90; needs the workspace. One row warp: bi/kernel/attention_leaves.cuh up to
          // head_dim 128; otherwise attention_split.cuh
  prefill,  // bi/kernel/attention_prefill.cuh: aligned, sm_90a, head_dim 64 and 128; 8 row warps
};

// How the rows of attention are spread over the GPU. No field changes a bit.
struct attention_schedule {
  int row_warps = 4;  // groups of 16 packed rows in a thread block: 1 or, at head_dim 256, 2, else 4; prefill: 8
  bool one_tile_each = false;  // a tile holds all rows of a request and KV head
  // Thread blocks; mma, prefill: tiles are dealt out round after round, split: leaves in equal shares.
  std::int64_t blocks = 0;
  attention_kernel kernel = attention_kernel::mma;
  int stages = 0;  // split: tiles of the ring in shared memory, 2..8, of one row warp 4..8; 0: as many as pay
  // split, one row warp: thread blocks of a cluster, 2, 4, 8 or 16, each cluster with one item of at most twice as many
  // leaves (bi/kernel/attention_clusters.cuh); 0: no clusters.
  int cluster = 0;
  bool whole_items = false;  // split, without clusters: no item is cut, so shares may differ by an item
  // split, one row warp, with clusters: so many of the blocks stand beside them, and the clusters have one long item each, as long
  // as there are any (bi/kernel/attention_relay.cuh); 0: all blocks are in clusters. least_leaves: of a block, on average, from which
  // they do.
  int singles = 0, least_leaves = 0;
  // split, one row warp, without clusters: blocks take whole items from a queue (bi/kernel/attention_queue.cuh).
  bool queued = false;

  friend constexpr bool operator==(const attention_schedule& a, const attention_schedule& b) {
    return a.row_warps == b.row_warps && a.one_tile_each == b.one_tile_each && a.blocks == b.blocks &&
           a.kernel == b.kernel && a.stages == b.stages && a.cluster == b.cluster && a.whole_items == b.whole_items &&
           a.singles == b.singles && a.least_leaves == b.least_leaves && a.queued == b.queued;
  }
  friend constexpr bool operator!=(const attention_schedule& a, const attention_schedule& b) { return !(a == b); }
};

inline std::string to_string(const attention_schedule& s) {
  char text[200];
  std::snprintf(
      text, sizeof text,
      "attention_schedule{%s, row_warps=%d, one_tile_each=%d, stages=%d, cluster=%d, whole_items=%d, singles=%d, "
      "least_leaves=%d, queued=%d, blocks=%lld}",
      s.kernel == attention_kernel::mma     ? "mma"
      : s.kernel == attention_kernel::split ? "split"
                                            : "prefill",
      s.row_warps, s.one_tile_each ? 1 : 0, s.stages, s.cluster, s.whole_items ? 1 : 0, s.singles, s.least_leaves,
      s.queued ? 1 : 0, static_cast<long long>(s.blocks));
  return text;
}

// The split schedule never has more blocks than this, on any device: the workspace is sized without one.
inline constexpr std::int64_t attention_split_most_blocks = 256;

// As many of the blocks as can have whole items each, or as parts of one item each, as long as no more than a sixteenth of
// them stays idle: with equal views no item is cut then, or each alike, and what is cut goes through memory. Fewer blocks
// than all read as fast.
constexpr std::int64_t attention_even_blocks(std::int64_t blocks, std::int64_t items) {
  if (blocks < 1 || items < 1) return blocks;
  std::int64_t even = 0;
  if (items < blocks) {
    even = blocks / items * items;
  } else {
    const std::int64_t each = (items + blocks - 1) / blocks;
    even = items % each == 0 ? items / each : 0;
  }
  return even >= blocks - blocks / 16 ? even : blocks;
}

// The thread blocks of a cluster of which each item has one, for views of at most so many leaves: one for each leaf, or for
// two of them. 0: more leaves, or more clusters than run at once. Of those that need whole processors an H100's 132 run 66
// of 2, 30 of 4, 15 of 8 and 7 of 16.
constexpr int attention_cluster_blocks(std::int64_t blocks, std::int64_t items, std::int64_t leaves) {
  int most = 0;
  if (leaves < 2) return most;
  for (int cluster = 2; cluster <= 16 && items * cluster <= blocks - blocks / 8; cluster *= 2) {
    if (leaves <= 2 * cluster) most = cluster;
    if (leaves <= cluster) break;
  }
  return most;
}

// Whether items may be so many, and so long, that a queue pays for the kernel that makes it.
constexpr bool attention_may_queue(std::int64_t blocks, std::int64_t items, std::int64_t leaves) {
  return items >= 2 * blocks && items * leaves >= 32 * blocks;
}

// The blocks of a cluster for each of a few long items, of which so many blocks could run at once if clusters could lie anywhere;
// 0: none. Of shorter items, or fewer packed rows, partial results are too few for memory to feel them.
constexpr int attention_relay_cluster(std::int64_t blocks, std::int64_t items, std::int64_t leaves, std::int64_t rows) {
  if (items < 1 || items * leaves < 20 * blocks || items * leaves * rows < 180 * blocks) return 0;
  for (int cluster = 2; cluster <= 8; cluster *= 2) {
    const std::int64_t all = items * cluster;
    if (all >= blocks - blocks / 16 && all <= blocks + blocks / 16) return cluster;
  }
  return 0;
}
// With so many clusters of that size at once: the schedule, if it is one that pays for items of equal lengths. The others, on the
// blocks that are left over, take no longer then.
constexpr bool make_attention_relay(attention_schedule& s, std::int64_t blocks, std::int64_t items, int cluster,
                                    std::int64_t clusters_at_once) {
  const std::int64_t clusters = items < clusters_at_once ? items : clusters_at_once;
  const std::int64_t singles = blocks - clusters * cluster;
  if (clusters < 1 || singles < 1 || singles > clusters * cluster) return false;
  if ((items - clusters) * blocks > items * singles) return false;
  s.cluster = cluster;
  s.whole_items = false;
  s.blocks = blocks;
  s.singles = static_cast<int>(singles);
  // Of fewer, equal shares take no longer; of more, but fewer than the limits say, they do, in the same two launches.
  s.least_leaves = 7;
  return true;
}

// `group`: query heads of a KV head. `split_blocks`: thread blocks that run at once under the split schedule; 0: it has no
// code here, or no workspace. `leaves`: of one view, at most. `prefill_blocks`: as split_blocks, of the prefill schedule.
// `has_clusters`: whether there is code for those.
constexpr attention_schedule pick_attention_schedule(std::int64_t requests, std::int64_t rows, std::int64_t max_q_len,
                                                     std::int64_t group, std::int64_t heads_kv, int most_row_warps,
                                                     std::int64_t split_blocks = 0, std::int64_t leaves = 1,
                                                     std::int64_t prefill_blocks = 0, bool has_clusters = false) {
  attention_schedule s;
  const std::int64_t packed = max_q_len * group;  // of a request, at most
  s.row_warps = packed <= 16 ? 1 : most_row_warps;
  if (packed > 16 * most_row_warps && prefill_blocks > 0) {
    s.kernel = attention_kernel::prefill;
    s.row_warps = 8;
    const std::int64_t items = (rows * group / 128 + requests) * heads_kv;
    s.blocks = items < prefill_blocks ? items : prefill_blocks;
    return s;
  }
  const int tile_rows = 16 * s.row_warps;
  s.one_tile_each = packed <= tile_rows;
  const std::int64_t items = (s.one_tile_each ? requests : rows * group / tile_rows + requests) * heads_kv;
  constexpr std::int64_t most = std::int64_t{1} << 30;  // below the limit of gridDim.x
  s.blocks = items < most ? items : most;
  if (!s.one_tile_each || split_blocks < 1) return s;
  s.kernel = attention_kernel::split;
  if (has_clusters && s.row_warps == 1) s.cluster = attention_cluster_blocks(split_blocks, items, leaves);
  if (s.cluster != 0) {
    s.blocks = items * s.cluster;
    return s;
  }
  const std::int64_t limit = attention_even_blocks(
      split_blocks < attention_split_most_blocks ? split_blocks : attention_split_most_blocks, items);
  s.blocks = s.blocks < limit && s.blocks * leaves < limit ? s.blocks * leaves : limit;
  // Where each block can have as many items, and those are short: if views differ, some leaves more in some shares take less
  // time than a fold.
  s.whole_items = leaves <= 4 && items % s.blocks == 0;
  return s;
}

// Where the split schedule's partial results lie in the workspace: records of what was cut, then the places.
struct attention_split_space {
  std::int64_t places_a_block = 0;
  std::int64_t records = 0;  // bytes, before the first place
  std::int64_t ml = 0;       // bytes, before the rows themselves
  std::int64_t bytes = 0;
};

// `most_leaves`: of one item; `most_total`: of a call, all heads together; `rows`: packed, of an item. `records`: at least one
// of each block.
constexpr attention_split_space attention_split_carve(std::int64_t blocks, std::int64_t most_leaves,
                                                      std::int64_t most_total, std::int64_t rows, std::int64_t head_dim,
                                                      std::int64_t record_bytes, std::int64_t records = 0) {
  const auto aligned = [](std::int64_t bytes) { return (bytes + 255) / 256 * 256; };
  attention_split_space s;
  // A block folds one item's first leaves, and leaves apart at most its share of an item that began before.
  const std::int64_t share = most_total / blocks + (most_total % blocks != 0 ? 1 : 0);
  const std::int64_t apart = share < most_leaves - 1 ? share : most_leaves - 1;
  s.places_a_block = 1 + (apart > 1 ? apart : 1);
  const std::int64_t places = blocks * s.places_a_block;
  s.records = aligned((records > blocks ? records : blocks) * record_bytes);
  s.ml = aligned(places * rows * 8);
  s.bytes = s.records + s.ml + places * rows * head_dim * 4;
  return s;
}

// Enough for every number of blocks up to attention_split_most_blocks.
constexpr std::int64_t attention_split_bytes(std::int64_t most_leaves, std::int64_t most_total, std::int64_t rows,
                                             std::int64_t head_dim, std::int64_t record_bytes) {
  constexpr std::int64_t blocks = attention_split_most_blocks;
  const std::int64_t apart = most_leaves - 1 > 1 ? most_leaves - 1 : 1;
  // blocks * (1 + ceil(total / blocks)) is no more than this, and grows with blocks where `apart` decides.
  const std::int64_t by_total = most_total + 2 * blocks, by_item = blocks * (1 + apart);
  const std::int64_t places = by_total < by_item ? by_total : by_item;
  return blocks * record_bytes + places * rows * (head_dim * 4 + 8) + 2 * 256;
}

}  // namespace schedule
BI_NAMESPACE_END
