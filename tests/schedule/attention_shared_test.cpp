// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/schedule/attention_shared.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bi/kernel/attention_shared_list.cuh"
#include "support/catch.hpp"
#include "support/data.hpp"

// The list of bi/kernel/attention_shared_list.cuh: whatever the grid, its blocks walk every leaf once.

namespace {

constexpr int tile_rows = 128, leaf_tiles = 4;
using walk = bi::kernel::attention_shared_walk<tile_rows, leaf_tiles>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct request {
  std::int32_t tiles;   // of keys
  std::int32_t shared;  // leaves
};
struct group {
  std::vector<std::int32_t> members, rows;
  std::int32_t depth;  // leaves
};

// What the kernel makes of arrays, made here of plain lists.
struct list {
  std::vector<request> requests;
  std::vector<group> groups;
  std::vector<std::int32_t> memory;

  bi::kernel::attention_shared_tables fill() {
    const auto n = static_cast<std::int32_t>(requests.size()), g = static_cast<std::int32_t>(groups.size());
    memory.assign(at(bi::kernel::attention_shared_tables::bytes(n, g) / 4), -1);
    const bi::kernel::attention_shared_tables t = {memory.data(), n, g};
    std::int32_t leaves = 0, own = 0, place = 0, weight = 0;
    for (std::int32_t r = 0; r < n; ++r) {
      const request& x = requests[at(r)];
      leaves += (x.tiles + leaf_tiles - 1) / leaf_tiles;
      own += x.tiles - x.shared * leaf_tiles;
      t.leaves()[r] = leaves;
      t.own()[r] = own;
      t.shared()[r] = x.shared;
    }
    for (std::int32_t i = 0; i < g; ++i) {
      const group& x = groups[at(i)];
      std::int32_t rows = 0;
      t.start()[i] = place;
      for (std::size_t m = 0; m < x.members.size(); ++m) {
        rows += x.rows[m];
        t.member()[place] = x.members[m];
        t.rows()[place++] = rows;
      }
      weight += walk::group_weight(rows, x.depth);
      t.depth()[i] = x.depth;
      t.weight()[i] = weight;
    }
    t.start()[g] = place;
    return t;
  }
};

void check_walk(list l, std::int32_t heads, std::int32_t blocks) {
  const bi::kernel::attention_shared_tables t = l.fill();
  INFO(l.requests.size() << " requests, " << l.groups.size() << " groups, " << heads << " heads, " << blocks
                         << " blocks");
  std::vector<std::vector<int>> of_group, of_request;
  for (std::size_t g = 0; g < l.groups.size(); ++g) {
    const std::int64_t tiles = walk::tiles(t.group_rows(static_cast<std::int32_t>(g)));
    of_group.emplace_back(at(tiles * heads * l.groups[g].depth));
  }
  for (std::size_t r = 0; r < l.requests.size(); ++r) {
    const std::int64_t left = t.request_leaves(static_cast<std::int32_t>(r)) - l.requests[r].shared;
    of_request.emplace_back(at(left * heads));
  }
  std::int64_t most = 0;
  for (std::int32_t block = 0; block < blocks; ++block) {
    walk w(t, heads, block, blocks);
    std::int64_t weight = 0;
    for (;;) {
      const bi::kernel::attention_shared_run run = w.next();
      if (run.count == 0) break;
      REQUIRE((run.count > 0 && run.head >= 0 && run.head < heads));
      if (run.group >= 0) {
        const auto g = at(run.group);
        const std::int64_t depth = l.groups[g].depth, tiles = walk::tiles(t.group_rows(run.group));
        REQUIRE((run.tile < tiles && run.first + run.count <= depth));
        REQUIRE(run.request == l.groups[g].members[at(t.find_member(run.group, 0) - t.start()[run.group])]);
        for (std::int64_t i = 0; i < run.count; ++i) {
          ++of_group[g][at((run.head * tiles + run.tile) * depth + run.first + i)];
        }
        weight += run.count * leaf_tiles;
      } else {
        const std::int64_t left = t.request_leaves(run.request) - l.requests[at(run.request)].shared;
        REQUIRE(run.first + run.count <= left);
        for (std::int64_t i = 0; i < run.count; ++i) ++of_request[at(run.request)][at(run.head * left + run.first + i)];
        weight += (run.count - 1) * leaf_tiles;
      }
    }
    most = std::max(most, weight);
  }
  for (const auto& all : of_group) REQUIRE(std::all_of(all.begin(), all.end(), [](int n) { return n == 1; }));
  for (const auto& all : of_request) REQUIRE(std::all_of(all.begin(), all.end(), [](int n) { return n == 1; }));
  // No block has more than its share and the rest of a leaf.
  REQUIRE(most <= t.total(heads) / blocks + 1 + leaf_tiles);
}

list random_list(test::generator& g) {
  list l;
  for (std::int64_t n = g.between(1, 40); n > 0; --n) {
    l.requests.push_back({static_cast<std::int32_t>(g.chance(20) ? 0 : g.between(1, 60)), 0});
  }
  std::vector<std::int32_t> ids(l.requests.size());
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i);
  for (std::size_t i = ids.size(); i-- > 1;) std::swap(ids[i], ids[at(g.below(static_cast<std::int64_t>(i) + 1))]);
  std::size_t next = 0;
  for (std::int64_t n = g.between(0, 5); n > 0; --n) {
    group x;
    x.depth = static_cast<std::int32_t>(g.between(0, 14));
    const std::int64_t rows = g.between(1, 64);
    for (std::int64_t m = g.between(0, 20); m > 0 && next < ids.size(); --m) {
      const std::int32_t id = ids[next++];
      request& r = l.requests[at(id)];
      const bool takes_part = x.depth > 0 && r.tiles >= x.depth * leaf_tiles;
      if (takes_part) r.shared = x.depth;
      x.members.push_back(takes_part ? id : 0);
      x.rows.push_back(takes_part ? static_cast<std::int32_t>(rows) : 0);
    }
    if (std::all_of(x.rows.begin(), x.rows.end(), [](std::int32_t r) { return r == 0; })) x.depth = 0;
    l.groups.push_back(x);
  }
  return l;
}

}  // namespace

TEST_CASE("attention sharing: every grid walks each leaf once", "[schedule][attention]") {
  test::generator g(61);
  for (int i = 0; i < 60; ++i) {
    const list l = random_list(g);
    for (const std::int32_t heads : {1, 3, 8}) {
      for (const std::int32_t blocks : {1, 2, 7, 66, 132, 1000}) check_walk(l, heads, blocks);
    }
  }
  // 32 requests of four rows that share 64 leaves and have one and a half of their own.
  list l;
  group all;
  all.depth = 64;
  for (std::int32_t r = 0; r < 32; ++r) {
    l.requests.push_back({64 * leaf_tiles + 6, 64});
    all.members.push_back(r);
    all.rows.push_back(4);
  }
  l.groups.push_back(all);
  for (const std::int32_t blocks : {1, 131, 132, 264}) check_walk(l, 8, blocks);
}

TEST_CASE("attention sharing: the workspace holds what its limits allow", "[schedule][attention]") {
  constexpr auto s = bi::schedule::attention_shared_carve(3, 100, 4, 128);
  static_assert(s.count == 400 && s.ml == 256 && s.o == 256 + 3328 && s.bytes == s.o + 400 * 512);
  constexpr auto most = bi::schedule::attention_shared_carve(3, std::int64_t{1} << 40, 64, 128);
  static_assert(most.count < (std::int64_t{1} << 32) - 1);
  for (const std::int64_t requests : {1, 63, 64, 65, 1000, 1 << 20}) {
    for (const std::int64_t total : {1, 3, 1000, 1 << 20}) {
      for (const std::int64_t rows : {1, 4, 64, 128}) {
        const auto x = bi::schedule::attention_shared_carve(requests, total, rows, 64);
        REQUIRE(x.count == total * rows);
        REQUIRE((x.ml % 256 == 0 && x.o % 256 == 0));
        REQUIRE((x.ml >= requests * 4 && x.o >= x.ml + x.count * 8 && x.bytes >= x.o + x.count * 64 * 4));
      }
    }
  }
  constexpr bi::schedule::attention_shared_schedule a = {7}, b = {8};
  static_assert(a == a && a != b);
  CHECK(to_string(a) == "attention_shared_schedule{blocks=7}");
}
