// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/schedule/attention.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bi/device/attention_rows.cuh"
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

}  // namespace

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
  CHECK(bi::schedule::to_string(decode) == "attention_schedule{row_warps=1, one_tile_each=1, blocks=2048}");
  const auto prefill = pick_attention_schedule(2, 8192, 4096, 4, 8, 4);
  CHECK(bi::schedule::to_string(prefill) == "attention_schedule{row_warps=4, one_tile_each=0, blocks=4112}");
  CHECK(decode != prefill);
  const std::int64_t large = (std::int64_t{1} << 31) - 1;
  CHECK(pick_attention_schedule(large, large, large, large, 1, 4).blocks == std::int64_t{1} << 30);
}
