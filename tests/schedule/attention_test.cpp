// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/schedule/attention.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "bi/contract/attention.hpp"
#include "bi/device/attention_queue.cuh"
#include "bi/device/attention_relay.cuh"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/manifest.hpp"

namespace {

using bi::device::attention_batch;
using bi::device::attention_row_tile;
using bi::device::find_attention_row_tile;

struct batch_case {
  std::vector<std::int32_t> q_len;
  std::int64_t group, spare_rows;
  int most_row_warps;
  bool with_q_start;
};

void check_slots(const attention_batch& b, const std::vector<std::int32_t>& q_start,
                 const std::vector<std::int32_t>& q_len) {
  INFO("tiles of " << b.tile_rows << ", one each " << b.one_tile_each << ", group " << b.group);
  std::vector<int> count(static_cast<std::size_t>(b.rows * b.group));
  for (std::int64_t slot = 0; slot < b.slots(); ++slot) {
    const attention_row_tile t = find_attention_row_tile(b, slot);
    REQUIRE((t.rows >= 0 && t.rows <= b.tile_rows));
    if (t.rows == 0) continue;
    const auto request = static_cast<std::size_t>(t.request);
    REQUIRE(t.first_row == q_start[request]);
    REQUIRE(t.q_len == q_len[request]);
    bool inside = true;
    for (int r = 0; r < t.rows && inside; ++r) {
      inside = t.token(r) >= 0 && t.token(r) < t.q_len && t.head(r) >= 0 && t.head(r) < b.group;
      if (inside) ++count[static_cast<std::size_t>((t.first_row + t.token(r)) * b.group + t.head(r))];
    }
    REQUIRE(inside);
  }
  const auto end = count.begin() + q_start.back() * b.group;
  REQUIRE(std::all_of(count.begin(), end, [](int n) { return n == 1; }));
  REQUIRE(std::all_of(end, count.end(), [](int n) { return n == 0; }));
}

// Walks every slot of the grid, under the schedule that is picked and those that tests force; each row and head of each
// request must come up once.
void check_partition(const batch_case& c) {
  std::vector<std::int32_t> q_start = {0};
  std::int64_t most = 1;
  for (const std::int32_t n : c.q_len) {
    q_start.push_back(q_start.back() + n);
    most = std::max<std::int64_t>(most, n);
  }
  const auto requests = static_cast<std::int64_t>(c.q_len.size());
  const std::int64_t used = q_start.back(), rows = used + c.spare_rows, heads_kv = 3;
  attention_batch b;
  b.q_start = c.with_q_start ? q_start.data() : nullptr;
  b.requests = requests;
  b.rows = rows;
  b.group = c.group;
  const auto with = [&](const bi::schedule::attention_schedule& s) {
    b.tile_rows = 16 * s.row_warps;
    b.one_tile_each = s.one_tile_each;
    return b;
  };
  const auto picked = bi::schedule::pick_attention_schedule(requests, rows, most, c.group, heads_kv, c.most_row_warps);
  REQUIRE(picked.blocks == with(picked).slots() * heads_kv);
  check_slots(with(picked), q_start, c.q_len);
  for (const auto& s : test::attention_schedules(c.most_row_warps == 2 ? 256 : 128, most * c.group)) {
    if (s.blocks == 1) check_slots(with(s), q_start, c.q_len);  // slots don't depend on the number of thread blocks
  }
}

// ---- the split schedule: the walk of every block, as its kernel makes it, and what the kernel after it looks for

using order = bi::contract::attention_order;
using namespace bi::device;

struct split_case {
  std::vector<std::int32_t> len, q_start;
  std::int64_t group, heads_kv, window;
  bool causal;
};

void check_split(const split_case& c, std::int64_t blocks) {
  const auto requests = static_cast<std::int64_t>(c.len.size());
  attention_batch b;
  b.q_start = c.q_start.data();
  b.requests = requests;
  b.rows = c.q_start.back();
  b.group = c.group;
  b.tile_rows = 64;
  std::int64_t most_leaves = 1, total = 0;
  std::vector<std::int64_t> leaves, first;
  for (std::int64_t r = 0; r < requests; ++r) {
    const auto rows = attention_request_rows(b, r);
    const auto item = make_attention_item<order>(rows, c.len[static_cast<std::size_t>(r)], c.causal, c.window);
    leaves.push_back(item.leaves);
    first.push_back(total);
    total += item.leaves * c.heads_kv;
    most_leaves = std::max(most_leaves, item.leaves);
  }
  const auto leaves_of = [&](std::int64_t r) { return leaves[static_cast<std::size_t>(r)]; };
  const attention_shares shares(total, blocks);
  const auto space = bi::schedule::attention_split_carve(blocks, most_leaves, total, 4, 128, sizeof(attention_cut));
  REQUIRE(space.bytes <= static_cast<std::int64_t>(
                             bi::schedule::attention_split_bytes(most_leaves, total, 4, 128, sizeof(attention_cut))));
  const attention_places places = {space.places_a_block};
  std::vector<std::int64_t> of_place(static_cast<std::size_t>(blocks * places.a_block), -1);  // leaf of the list
  std::vector<int> seen(static_cast<std::size_t>(total));
  std::vector<attention_cut> cuts;
  std::int64_t whole = 0;
  REQUIRE((shares.begin(0) == 0 && shares.begin(blocks) == total));
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t begin = shares.begin(block), end = shares.begin(block + 1);
    cuts.push_back({});
    if (begin == end) continue;
    REQUIRE((shares.block_of(begin) == block && shares.block_of(end - 1) == block));
    std::int64_t request = 0;
    while (request + 1 < requests && first[static_cast<std::size_t>(request) + 1] <= begin) ++request;
    while (leaves_of(request) == 0) --request;
    attention_walk walk;
    walk.start(begin, end, request, first[static_cast<std::size_t>(request)], leaves_of(request), false, c.heads_kv,
               leaves_of);
    std::int64_t at = begin;
    for (;; walk.next(c.heads_kv, leaves_of, false)) {
      const attention_run& run = walk.run;
      REQUIRE((run.count > 0 && run.begin + run.count <= run.leaves && run.head < c.heads_kv));
      REQUIRE(at == first[static_cast<std::size_t>(run.request)] + run.head * run.leaves + run.begin);
      for (std::int64_t i = 0; i < run.count; ++i) {
        ++seen[static_cast<std::size_t>(at + i)];
        if (run.is_first()) continue;
        const std::int64_t place = places.leaf(block, i);
        REQUIRE((place < (block + 1) * places.a_block && of_place[static_cast<std::size_t>(place)] == -1));
        of_place[static_cast<std::size_t>(place)] = at + i;
      }
      whole += run.is_whole() ? 1 : 0;
      at += run.count;
      const auto r = static_cast<std::size_t>(run.request);
      cuts.back() = make_attention_cut(run, block, end, total, c.q_start[r], c.q_start[r + 1], c.len[r]);
      REQUIRE((cuts.back().request < 0 || cuts.back().block == block));
      if (cuts.back().request >= 0) {
        auto& folded = of_place[static_cast<std::size_t>(places.folded(block))];
        REQUIRE(folded == -1);
        folded = at - run.count;
      }
      if (!walk.more()) break;
    }
    REQUIRE(at == end);
  }
  REQUIRE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
  // Every item is whole in one block or folded from its first leaf to its last.
  for (std::int64_t block = 0; block < blocks; ++block) {
    const attention_cut& cut = cuts[static_cast<std::size_t>(block)];
    if (cut.request < 0) continue;
    ++whole;
    const std::int64_t begin = first[static_cast<std::size_t>(cut.request)] + cut.head * leaves_of(cut.request);
    REQUIRE(of_place[static_cast<std::size_t>(places.folded(block))] == begin);
    REQUIRE((cut.first == begin + cut.count && cut.leaves == leaves_of(cut.request)));
    for (std::int64_t leaf = cut.first; leaf < begin + leaves_of(cut.request); ++leaf) {
      const std::int64_t owner = shares.block_of(leaf);
      REQUIRE(of_place[static_cast<std::size_t>(places.leaf(owner, leaf - shares.begin(owner)))] == leaf);
    }
  }
  std::int64_t items = 0;
  for (const std::int64_t n : leaves) items += n > 0 ? c.heads_kv : 0;
  REQUIRE(whole == items);

  // The same list where items stay whole: each in the share that its first leaf lies in.
  std::int64_t at = 0;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t begin = shares.begin(block), end = shares.begin(block + 1);
    if (begin == end) continue;
    std::int64_t request = 0;
    while (request + 1 < requests && first[static_cast<std::size_t>(request) + 1] <= begin) ++request;
    while (leaves_of(request) == 0) --request;
    attention_walk walk;
    walk.start(begin, end, request, first[static_cast<std::size_t>(request)], leaves_of(request), true, c.heads_kv,
               leaves_of);
    while (walk.run.count > 0) {
      REQUIRE((at >= begin && at < end && walk.run.is_whole()));
      REQUIRE(at == first[static_cast<std::size_t>(walk.run.request)] + walk.run.head * walk.run.leaves);
      at += walk.run.count;
      if (!walk.more()) break;
      walk.next(c.heads_kv, leaves_of, true);
    }
  }
  REQUIRE(at == total);
}

}  // namespace

TEST_CASE("attention: every leaf is dealt to one block, and found again", "[schedule][attention]") {
  test::generator g(2);
  for (int i = 0; i < 400; ++i) {
    split_case c;
    c.group = g.between(1, 8);
    c.heads_kv = g.between(1, 8);
    c.window = g.chance(30) ? g.between(1, 3000) : 0;
    c.causal = g.chance(80);
    c.q_start = {0};
    const std::int64_t requests = g.between(1, 60);
    for (std::int64_t r = 0; r < requests; ++r) {
      const std::int64_t len = g.chance(20) ? 0 : g.chance(70) ? g.between(1, 1200) : g.between(1, 70000);
      c.len.push_back(static_cast<std::int32_t>(len));
      c.q_start.push_back(c.q_start.back() + static_cast<std::int32_t>(g.chance(15) ? 0 : g.between(1, 8)));
    }
    for (const std::int64_t blocks : {1, 2, 7, 66, 131, 132, 255, 256}) check_split(c, blocks);
  }
}

// Of some requests in the order of their lengths, how many are dealt out.
struct sorted_requests {
  std::vector<std::int64_t> leaves, before = {0};

  explicit sorted_requests(std::vector<std::int64_t> of) : leaves(std::move(of)) {
    std::sort(leaves.begin(), leaves.end(), [](std::int64_t a, std::int64_t b) { return a > b; });
    for (const std::int64_t n : leaves) before.push_back(before.back() + n);
  }
  std::int64_t cost(std::int64_t dealt, std::int64_t heads, std::int64_t blocks) const {
    return attention_queue_cost(dealt, static_cast<std::int64_t>(leaves.size()), heads, blocks, leaves.data(),
                                before.data());
  }
  std::int64_t dealt(std::int64_t heads, std::int64_t blocks) const {
    std::int64_t best = 0;
    for (std::int64_t n = 1; n <= static_cast<std::int64_t>(leaves.size()); ++n) {
      if (cost(n, heads, blocks) < cost(best, heads, blocks)) best = n;
    }
    return best;
  }
  // Leaves of the block that has most, if whoever is through first takes the next item.
  double longest_block(std::int64_t dealt, std::int64_t heads, std::int64_t blocks) const {
    std::vector<std::int64_t> ends(static_cast<std::size_t>(blocks));
    for (std::size_t r = static_cast<std::size_t>(dealt); r < leaves.size(); ++r) {
      for (std::int64_t h = 0; h < heads; ++h) *std::min_element(ends.begin(), ends.end()) += leaves[r];
    }
    return static_cast<double>(before[static_cast<std::size_t>(dealt)] * heads) / static_cast<double>(blocks) +
           static_cast<double>(*std::max_element(ends.begin(), ends.end()));
  }
};

TEST_CASE("attention: as many requests are dealt out as make the others come out about even", "[schedule][attention]") {
  test::generator g(6);
  for (int i = 0; i < 200; ++i) {
    const std::int64_t blocks = g.between(1, 140), heads = g.between(1, 8), longest = g.between(1, 64);
    const bool equal = g.chance(30);
    std::vector<std::int64_t> leaves;
    for (std::int64_t r = g.between(1, 100); r > 0; --r) leaves.push_back(equal ? longest : g.between(1, longest));
    if (!equal && g.chance(30)) leaves[0] = 500;
    const sorted_requests all(leaves);
    const auto requests = static_cast<std::int64_t>(leaves.size());
    for (std::int64_t n = 0; n <= requests; ++n) REQUIRE(all.cost(n, heads, blocks) >= (n > 0 ? 2 * blocks : 0));
    const std::int64_t best = all.dealt(heads, blocks);
    INFO("case " << i << ": " << requests << " of " << all.leaves[0] << ", " << heads << " heads, " << blocks
                 << " blocks, dealt " << best);
    // What is above the mean counts a quarter, and may cost as much as a fold.
    const double mean = static_cast<double>(all.before.back() * heads) / static_cast<double>(blocks);
    REQUIRE(all.longest_block(best, heads, blocks) <= 1.25 * mean + 10);
    if (equal && heads * requests % blocks == 0) REQUIRE((best == 0 && all.cost(0, heads, blocks) == 0));
  }
  std::vector<std::int64_t> skewed(64, 4);
  skewed[0] = 256;
  CHECK(sorted_requests(skewed).dealt(8, 132) == 1);
  CHECK(sorted_requests(std::vector<std::int64_t>(50, 64)).dealt(8, 132) == 1);  // three rounds of what is left
  CHECK(sorted_requests(std::vector<std::int64_t>(64, 16)).dealt(8, 132) == 0);
  CHECK(sorted_requests({256}).dealt(8, 132) == 1);
  // Three rounds, about even, and a few items more.
  std::vector<std::int64_t> uneven;
  for (std::int64_t r = 0; r < 50; ++r) uneven.push_back(128 - r);
  CHECK(sorted_requests(uneven).dealt(8, 132) > 0);

  using bi::schedule::attention_may_queue;
  CHECK((attention_may_queue(132, 512, 16) && attention_may_queue(132, 264, 16)));
  CHECK_FALSE(attention_may_queue(132, 263, 1000));  // too few for all to have two
  CHECK_FALSE(attention_may_queue(132, 512, 8));     // too short
}

TEST_CASE("attention: a few long items have a cluster each, and blocks beside them the rest", "[schedule][attention]") {
  using bi::schedule::attention_relay_cluster;
  using bi::schedule::make_attention_relay;
  // As an H100 has them: 66 clusters of 2, 30 of 4, 15 of 8.
  const auto relay = [](std::int64_t items, std::int64_t leaves, std::int64_t rows) {
    bi::schedule::attention_schedule s;
    const int cluster = attention_relay_cluster(132, items, leaves, rows);
    const std::int64_t at_once = cluster == 2 ? 66 : cluster == 4 ? 30 : 15;
    if (cluster == 0 || !make_attention_relay(s, 132, items, cluster, at_once)) return 0;
    const attention_relay_shape shape = {static_cast<std::int32_t>((s.blocks - s.singles) / s.cluster), s.cluster,
                                         s.singles, s.least_leaves};
    CHECK((s.blocks == 132 && shape.blocks() == 132 && shape.clusters <= at_once && shape.clusters <= items));
    CHECK(shape.pays(leaves, (items - shape.clusters) * leaves, items * leaves));
    CHECK_FALSE(shape.pays(8, (items - shape.clusters) * 8, items * 8));
    CHECK_FALSE(shape.pays(leaves, (items - shape.clusters) * leaves, leaves + (items - 1) * leaves / 2));
    return shape.clusters;
  };
  CHECK(relay(32, 256, 8) == 30);
  CHECK(relay(33, 256, 8) == 30);
  CHECK(relay(31, 256, 8) == 30);
  CHECK(relay(30, 256, 8) == 0);  // 120 of 132 blocks
  CHECK(relay(16, 256, 16) == 15);
  CHECK(relay(64, 256, 8) == 64);
  CHECK(relay(66, 256, 8) == 0);  // no block is left over
  CHECK(relay(32, 90, 8) == 0);   // too few partial results
  CHECK(relay(32, 100, 16) == 30);
  CHECK(relay(32, 80, 16) == 0);  // too few leaves
  CHECK(relay(20, 2000, 16) == 0);
  CHECK(relay(8, 2000, 16) == 0);  // clusters of 16 leave too many processors alone
  CHECK(relay(0, 2000, 16) == 0);
  test::generator g(3);
  for (int i = 0; i < 20000; ++i) {
    const attention_relay_shape shape = {static_cast<std::int32_t>(g.between(1, 40)),
                                         static_cast<std::int32_t>(1 << g.between(1, 4)),
                                         static_cast<std::int32_t>(g.between(0, 40))};
    const std::int64_t longest = g.between(1, 500), items = g.between(1, shape.clusters + 5);
    std::int64_t total = longest, rest = 0;
    for (std::int64_t item = 1; item < items; ++item) {
      const std::int64_t leaves = g.between(g.chance(50) ? longest - longest / 8 : 1, longest);
      total += leaves;
      rest += item >= shape.clusters ? leaves : 0;
    }
    const std::int64_t equal = (total + shape.blocks() - 1) / shape.blocks();
    // Of other lengths as many blocks share all leaves as have room for them.
    const std::int64_t places = g.between(equal + 1, equal + 3), sharing = shape.sharing(total, places);
    REQUIRE((sharing == shape.blocks() || sharing == shape.in_clusters()));
    REQUIRE((total + sharing - 1) / sharing < places);
    if (equal >= attention_relay_shape::few) REQUIRE(sharing == shape.blocks());
    if (!shape.pays(longest, rest, total)) continue;
    REQUIRE((longest + shape.cluster - 1) / shape.cluster <= equal + equal / 16 + 1);
    if (rest > 0) REQUIRE((shape.singles > 0 && (rest + shape.singles - 1) / shape.singles <= equal));
  }
}

TEST_CASE("attention: every row and head has one place in the grid", "[schedule][attention]") {
  test::generator g(1);
  for (int i = 0; i < 600; ++i) {
    batch_case c;
    c.with_q_start = g.chance(80);
    const std::int64_t requests = g.between(1, 30), most = g.chance(50) ? 3 : 200;
    for (std::int64_t r = 0; r < requests; ++r) {
      c.q_len.push_back(c.with_q_start ? static_cast<std::int32_t>(g.below(most + 1)) : 1);
    }
    c.group = g.chance(20) ? g.between(10, 100) : g.between(1, 9);
    c.spare_rows = c.with_q_start && g.chance(30) ? g.between(1, 50) : 0;
    c.most_row_warps = g.chance(50) ? 4 : static_cast<int>(g.between(1, 2));
    check_partition(c);
  }
  check_partition({std::vector<std::int32_t>(1000, 1), 4, 0, 4, true});
  check_partition({std::vector<std::int32_t>(500, 0), 4, 0, 4, true});
  check_partition({{0, 0, 5000, 0}, 7, 100, 4, true});
}

TEST_CASE("attention: rows that q_start puts outside the batch have no place", "[schedule][attention]") {
  const std::int32_t q_start[] = {0, 40, 70};
  attention_batch b;
  b.q_start = q_start;
  b.requests = 2;
  b.rows = 50;
  b.group = 2;
  std::int64_t rows = 0;
  for (std::int64_t slot = 0; slot < b.slots(); ++slot) {
    const attention_row_tile t = find_attention_row_tile(b, slot);
    for (int r = 0; r < t.rows; ++r) REQUIRE(t.first_row + t.token(r) < 50);
    rows += t.rows;
  }
  CHECK(rows == 100);
}

TEST_CASE("attention: the schedule", "[schedule][attention]") {
  using bi::schedule::pick_attention_schedule;
  const auto decode = pick_attention_schedule(256, 256, 1, 4, 8, 4);
  CHECK(
      bi::schedule::to_string(decode) ==
      "attention_schedule{mma, row_warps=1, one_tile_each=1, stages=0, cluster=0, whole_items=0, singles=0, least_leaves=0, queued=0, blocks=2048}");
  const auto prefill = pick_attention_schedule(2, 8192, 4096, 4, 8, 4);
  CHECK(
      bi::schedule::to_string(prefill) ==
      "attention_schedule{mma, row_warps=4, one_tile_each=0, stages=0, cluster=0, whole_items=0, singles=0, least_leaves=0, queued=0, blocks=4112}");
  CHECK(decode != prefill);
  const std::int64_t large = (std::int64_t{1} << 31) - 1;
  CHECK(pick_attention_schedule(large, large, large, large, 1, 4).blocks == std::int64_t{1} << 30);
  CHECK(
      bi::schedule::to_string(pick_attention_schedule(256, 256, 1, 4, 8, 4, 264, 16)) ==
      "attention_schedule{split, row_warps=1, one_tile_each=1, stages=0, cluster=0, whole_items=0, singles=0, least_leaves=0, queued=0, blocks=256}");
  CHECK(pick_attention_schedule(1, 1, 1, 4, 8, 4, 264, 4).blocks == 32);
  CHECK(pick_attention_schedule(large, large, 1, 4, 8, 4, 264, large).blocks == 256);
  CHECK(pick_attention_schedule(2, 2, 1, 4, 8, 4, 1000, 10000).blocks == 256);
  // 8 items in 16 parts each, 32 in 4, 512 in fours; what can't be dealt out evenly takes all blocks.
  CHECK(pick_attention_schedule(1, 1, 1, 4, 8, 4, 132, 256).blocks == 128);
  CHECK(pick_attention_schedule(4, 4, 1, 4, 8, 4, 132, 256).blocks == 128);
  CHECK(pick_attention_schedule(64, 64, 1, 4, 8, 4, 132, 256).blocks == 128);
  CHECK(pick_attention_schedule(6, 6, 1, 4, 8, 4, 132, 256).blocks == 132);
  CHECK(pick_attention_schedule(1, 1, 1, 4, 2, 4, 132, 256).blocks == 132);
  for (std::int64_t blocks = 1; blocks <= 264; ++blocks) {
    for (std::int64_t items = 1; items <= 2000; ++items) {
      const std::int64_t even = bi::schedule::attention_even_blocks(blocks, items);
      REQUIRE((even >= blocks - blocks / 16 && even <= blocks));
      if (even != blocks) REQUIRE((items < even ? even % items == 0 : items % even == 0));
    }
  }
  // Short items stay whole where each block can have as many.
  const auto whole = [](std::int64_t requests, std::int64_t heads_kv, std::int64_t leaves) {
    return pick_attention_schedule(requests, requests, 1, 4, heads_kv, 4, 132, leaves).whole_items;
  };
  CHECK(whole(64, 2, 4));
  CHECK(whole(64, 8, 4));
  CHECK(!whole(64, 8, 5));
  CHECK(whole(65, 2, 4));
  CHECK(!whole(67, 2, 4));
  CHECK(!whole(4, 8, 4));
  // A cluster for each item where all run at once.
  const auto cluster = [](std::int64_t requests, std::int64_t heads_kv, std::int64_t leaves, bool has = true) {
    const auto s = pick_attention_schedule(requests, requests, 1, 4, heads_kv, 4, 132, leaves, 0, has);
    CHECK((s.cluster == 0 || s.blocks == requests * heads_kv * s.cluster));
    return s.cluster;
  };
  CHECK(cluster(1, 8, 4) == 4);
  CHECK(cluster(1, 8, 4, false) == 0);
  CHECK(cluster(1, 2, 1) == 0);
  CHECK(cluster(1, 2, 2) == 2);
  CHECK(cluster(1, 2, 5) == 8);
  CHECK(cluster(1, 2, 16) == 16);
  CHECK(cluster(1, 2, 32) == 16);
  CHECK(cluster(1, 2, 33) == 0);
  CHECK(cluster(1, 8, 16) == 8);
  CHECK(cluster(1, 8, 17) == 0);
  CHECK(cluster(4, 8, 4) == 2);
  CHECK(cluster(4, 8, 5) == 0);
  CHECK(cluster(16, 8, 4) == 0);
  CHECK(pick_attention_schedule(1, 1, 17, 1, 8, 4, 132, 4, 0, true).cluster == 0);
  CHECK(pick_attention_schedule(4, 64, 16, 4, 8, 4, 132, 16).kernel == bi::schedule::attention_kernel::split);
  CHECK(pick_attention_schedule(4, 64, 17, 4, 8, 4, 132, 16).kernel == bi::schedule::attention_kernel::mma);
}
