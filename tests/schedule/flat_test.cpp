// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/schedule/flat.hpp"

#include "runtime/stub/cuda_runtime_api.h"
// The kernels' words come first.
#include <cstdint>

#include "bi/device/flat.cuh"
#include "bi/schedule/logits_edit.hpp"
#include "bi/schedule/rows.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace bi::schedule;

namespace {

// Whether a grid has no more thread blocks than items need, and no fewer than it may have.
bool is_tight(std::int64_t blocks, std::int64_t items, std::int64_t in_block, std::int64_t most) {
  if (items <= 0) return blocks == 0;
  if (blocks == most) return items > (most - 1) * in_block;
  return blocks < most && (blocks - 1) * in_block < items && items <= blocks * in_block;
}

}  // namespace

TEST_CASE("flat schedules: as many thread blocks as items need", "[schedule]") {
  test::generator g(5);
  const auto check = [](std::int64_t items) {
    for (const int width : {1, 32}) {
      const auto s = pick_flat_schedule(items, width);
      INFO(to_string(s) << ", items " << items << ", width " << width);
      REQUIRE(is_tight(s.blocks, items, s.threads / width, 132 * 32));
    }
    for (const int held : {0, 1, 8}) {
      for (const int rows : {1, 4}) {
        row_schedule s;
        s.held = held;
        s.rows_per_block = rows;
        for (s.cluster = 1; s.cluster <= 16; s.cluster += 5) {
          const std::int64_t blocks = blocks_for_rows(items, s);
          REQUIRE(blocks % s.cluster == 0);
          REQUIRE(is_tight(blocks / s.cluster, items, rows, held > 0 ? max_held_row_blocks : max_row_blocks));
        }
      }
    }
  };
  for (std::int64_t items = 0; items <= 70000; ++items) check(items);
  for (int i = 0; i < 10000; ++i) check(static_cast<std::int64_t>(g.next() >> (1 + g.below(62))));
}

TEST_CASE("flat schedules: vectors of rows, each element once", "[schedule]") {
  for (std::int64_t cols = 1; cols <= 1024; ++cols) {
    const bi::device::flat_items items = {3, bi::device::vectors_of(cols)};
    std::int64_t row = 0, next = 0;  // what comes next, element after element
    for (std::int64_t i = 0; i < items.count(); ++i) {
      const auto at = bi::device::split(items, i);
      REQUIRE((at.row == row && at.index * 8 == next));
      next += bi::device::vector_length(cols, at.index);
      REQUIRE(next <= cols);
      if (next == cols) ++row, next = 0;
    }
    REQUIRE((row == 3 && next == 0));
  }
  // Beyond 2^31 and 2^32 items.
  const std::int64_t wide = (std::int64_t{1} << 33) + 5;
  const auto at = bi::device::split(bi::device::flat_items{7, wide}, 5 * wide + wide - 1);
  CHECK((at.row == 5 && at.index == wide - 1));
}

TEST_CASE("flat schedules: spans of a vocabulary, parts of a digest", "[schedule]") {
  for (const int words : {1, 4}) {
    for (std::int64_t vocab = 1; vocab <= 300000; vocab += vocab < 70000 ? 1 : 1009) {
      const std::int64_t spans = logits_edit_spans(vocab, words);
      REQUIRE((spans * 8192 * words >= vocab && (spans - 1) * 8192 * words < vocab));
    }
  }
  for (const std::int64_t rows : {1, 2, 7, 132, 133, 1056, 1057, 100000}) {
    for (std::int64_t vocab = 1; vocab <= 300000; vocab += 4999) {
      for (const bool in_place : {false, true}) {
        const auto s = pick_logits_edit_schedule(rows, vocab, in_place);
        REQUIRE((in_place || s.words == 1));
        REQUIRE(is_tight(s.blocks, rows * logits_edit_spans(vocab, s.words), 1, std::int64_t{1} << 20));
      }
      const auto d = pick_digest_schedule(rows, vocab, true);
      REQUIRE((d.parts >= 1 && d.parts <= 256 && (d.parts & (d.parts - 1)) == 0));
      REQUIRE((d.parts == 1 || vocab / d.parts >= 4096));  // a vector of 16 bytes for each thread
      REQUIRE(is_tight(d.blocks, rows * d.parts, 1, max_row_blocks));
    }
  }
  CHECK(pick_logits_edit_schedule(std::int64_t{1} << 50, std::int64_t{1} << 31, true).blocks == 1 << 20);
}

TEST_CASE("shared schedules: whole warps, as many as have room and work", "[schedule]") {
  for (const std::int64_t items : {1, 7, 132, 133, 500, 1320, 1321, 2112, 2113, 4224, 70000, 1 << 30}) {
    for (std::int64_t threads = 0; threads <= 2000; ++threads) {
      const auto s = pick_shared_schedule(items, threads, true);
      INFO(to_string(s) << ", items " << items << ", threads " << threads);
      REQUIRE((s.threads % 32 == 0 && s.threads >= 32 && s.threads <= 512 && s.parts == 1 && s.programmatic));
      REQUIRE(s.blocks == (items < 1 << 20 ? items : 1 << 20));
      REQUIRE(s.threads <= (threads < 1 ? 1 : threads) + 63);  // no more than a warp without work
      const std::int64_t rounds = (threads + s.threads - 1) / s.threads;
      if (items > 132 && s.threads > (threads > 128 ? 64 : 32)) {  // otherwise it has what it gets at least
        REQUIRE(items <= 132 * (32 / (s.threads / 32)));
        REQUIRE((rounds <= 1 || rounds * (s.threads - 64) < threads));  // equal rounds, with a warp more
      }
    }
  }
  // 8 heads of q and one of k and v: one round, while there is room; then three of a warp, not two of unequal ones.
  CHECK(pick_shared_schedule(132, 80, true) == shared_schedule{128, 132, 1, true});
  CHECK(pick_shared_schedule(1320, 80, true) == shared_schedule{96, 1320, 1, true});
  CHECK(pick_shared_schedule(1321, 80, true) == shared_schedule{32, 1321, 1, true});
  CHECK(pick_shared_schedule(2112, 64, true) == shared_schedule{64, 2112, 1, true});
  CHECK(pick_shared_schedule(2113, 64, false) == shared_schedule{32, 2113, 1, false});
  // A processor has no part of a thread block: of ten warps it runs three, so 400 would take two turns.
  CHECK(pick_shared_schedule(396, 640, true) == shared_schedule{320, 396, 1, true});
  CHECK(pick_shared_schedule(400, 640, true) == shared_schedule{224, 400, 1, true});
  CHECK(pick_shared_schedule(700, 384, true) == shared_schedule{160, 700, 1, true});
  CHECK(pick_shared_schedule(800, 384, true) == shared_schedule{128, 800, 1, true});
  // Four of six warps, and one of the next launch; four of seven.
  CHECK(pick_shared_schedule(512, 384, true) == shared_schedule{224, 512, 1, true});
  CHECK(pick_shared_schedule(256, 640, true) == shared_schedule{352, 256, 1, true});
  CHECK(pick_shared_schedule(1200, 64, true) == shared_schedule{96, 1200, 1, true});
}

TEST_CASE("shared schedules: a warp more leaves no room for the next launch", "[schedule]") {
  int more = 0;
  for (int warps = 1; warps <= 16; ++warps) {
    for (std::int64_t blocks = 1; blocks <= 5000; ++blocks) {
      for (const int parts : {1, 3}) {
        const shared_schedule s = {32 * warps, blocks, parts, true}, filled = fill_processors(s);
        const std::int64_t all = blocks * parts;
        REQUIRE((filled.blocks == blocks && filled.parts == parts && filled.programmatic));
        if (filled.threads == s.threads) continue;
        ++more;
        INFO(to_string(s));
        REQUIRE((filled.threads == s.threads + 32 && filled.threads <= 512));
        REQUIRE(all <= 132 * (32 / (warps + 1)));     // all at once
        REQUIRE(all > 132 * (32 / (warps + 1) - 1));  // and each processor has as many as it has room for
        REQUIRE(fill_processors(filled).threads == filled.threads);
      }
    }
  }
  CHECK(more > 500);
  CHECK(fill_processors({256, 384, 1, true}) == shared_schedule{288, 384, 1, true});
  CHECK(fill_processors({256, 128, 3, true}) == shared_schedule{288, 128, 3, true});
  CHECK(fill_processors({256, 397, 1, true}) == shared_schedule{256, 397, 1, true});
  CHECK(fill_processors({256, 264, 1, true}) == shared_schedule{256, 264, 1, true});
  CHECK(fill_processors({32, 4000, 1, true}) == shared_schedule{32, 4000, 1, true});
}

TEST_CASE("divided schedules: a thread for each piece, and room for all of them", "[schedule]") {
  int picked = 0;
  for (const std::int64_t items : {0, 1, 7, 64, 132, 176, 177, 700, 1056, 1057, 4224, 4225, 1 << 30}) {
    for (const std::int64_t first : {1, 2, 32, 33, 256, 480, 512, 513, 1 << 25}) {
      for (const std::int64_t rest : {0, 1, 64, 65, 512, 1024, 8192, 1 << 25}) {
        for (const bool hopper : {false, true}) {
          const auto s = pick_divided_schedule(items, first, rest, hopper);
          INFO(to_string(s) << ", items " << items << ", first " << first << ", rest " << rest);
          REQUIRE((s.blocks == 0 || s.blocks == items));
          if (s.blocks == 0) continue;
          ++picked;
          REQUIRE((s.threads % 32 == 0 && s.threads <= 512 && s.programmatic == hopper));
          REQUIRE(first <= s.threads);
          REQUIRE(rest <= std::int64_t{s.parts - 1} * s.threads);
          REQUIRE(items * s.parts * s.threads <= 32 * 132 * (s.threads > 64 ? 32 : 48));
        }
      }
    }
  }
  CHECK(picked > 200);
  // Whole, two tokens of 32 heads are on a processor, and those of 64 take two rounds.
  CHECK((has_room_at_once(264, 384) && !has_room_at_once(265, 384)));
  CHECK((has_room_at_once(264, 512) && !has_room_at_once(265, 512) && !has_room_at_once(1, 513)));
  CHECK((has_room_at_once(4224, 0) && !has_room_at_once(4225, 32) && !has_room_at_once(1, std::int64_t{1} << 40)));
  CHECK(pick_divided_schedule(352, 128, 256, true) == shared_schedule{128, 352, 3, true});
  CHECK(pick_divided_schedule(353, 128, 256, true).blocks == 0);
  // 8 KV heads of 128 and 32 or 64 of q, one and 8; few enough tokens, and one more.
  CHECK(pick_divided_schedule(176, 256, 512, true) == shared_schedule{256, 176, 3, true});
  CHECK(pick_divided_schedule(177, 256, 512, true).blocks == 0);
  CHECK(pick_divided_schedule(1, 256, 1024, true) == shared_schedule{256, 1, 5, true});
  CHECK(pick_divided_schedule(1056, 32, 128, true) == shared_schedule{64, 1056, 3, true});
  CHECK(pick_divided_schedule(1057, 32, 128, true).blocks == 0);
  CHECK(pick_divided_schedule(64, 256, 0, false) == shared_schedule{256, 64, 1, false});
}
