// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bi/contract/id.hpp"
#include "needle/needle.hpp"

// What the needle matrix tries.
namespace test::needle {

struct options {
  std::uint64_t seed = 1;
  std::int64_t rows = 100000;        // at least, of a case
  std::int64_t most_rows = 1 << 20;  // of a batch
  bool far = false;                  // rows more than 2^31 elements apart instead, and so pages of a cache
  std::int64_t far_stride = (std::int64_t{1} << 30) + 24;  // elements from row to row, of which there are three
  std::int64_t far_span = std::int64_t{3} << 32;           // bytes of an array of pages
  bool forced = false;                                     // under every schedule instead
  // A few of everything, for tools under which kernels are slow; inputs end where their memory does.
  bool small = false;
  // Small, and of each case one batch; of schedules, those that no case of the operation before it had, whatever its types.
  bool brief = false;
  std::set<std::string>* tried = nullptr;
  std::uint64_t part = 0, parts = 1;  // of schedules that `tried` may take up, by name
};

struct result {
  std::int64_t rows = 0, launches = 0, replays = 0, reference_rows = 0;
  std::int64_t refused = 0;                       // by the launcher: schedules that do not fit the arguments
  std::map<std::string, std::int64_t> schedules;  // launches under each, whatever its number of thread blocks
  std::uint64_t bytes_different = 0;
  std::string failure;  // of the first difference; empty: none
};

// Sizes of batches under every schedule.
inline std::vector<std::int64_t> forced_sizes(const table& t, std::int64_t most, bool small) {
  std::vector<std::int64_t> out;
  for (const std::int64_t rows : {1, 3, 17, 130, 700}) {
    if (rows <= most && rows <= t.most_rows && (!small || rows == t.few_rows)) out.push_back(rows);
  }
  return out;
}

// Batch sizes around tiles, warps and processors, and where the launcher's choice changes.
inline std::vector<std::int64_t> batch_sizes(const table& t, std::int64_t most, bool small = false) {
  std::set<std::int64_t> all = {1,  2,  3,   4,   7,   8,   15,  16,  17,  31,   32,   33,  63,
                                64, 65, 127, 128, 129, 255, 256, 257, 512, 1023, 1024, 4096};
  if (small) all = {1, 3, 17, 130};
  if (t.schedule && !small) {
    std::string before = t.schedule(1);
    for (std::int64_t rows = 2; rows <= 4200; ++rows) {
      std::string now = t.schedule(rows);
      if (now != before) all.insert({rows - 1, rows, rows + 1});
      before = std::move(now);
    }
  }
  std::vector<std::int64_t> out;
  for (const std::int64_t rows : all) {
    if (rows <= most && rows <= t.most_rows) out.push_back(rows);
  }
  return out;
}

// Which row of the pool stands at each place: needles first, last, around the edges of tiles and here and there.
// `of_needles`: how many of them there are.
inline std::vector<std::int32_t> choose_rows(const table& t, std::int64_t rows, neighbours kind, std::uint64_t seed,
                                             std::int64_t of_needles = needles) {
  if (t.choose) return t.choose(rows, seed);
  std::vector<std::int32_t> all;
  const auto random = [&](std::int64_t place, std::uint64_t salt, std::int64_t below) {
    const std::uint64_t h = bi::mix64(bi::mix64(seed * 8 + salt) + static_cast<std::uint64_t>(place));
    return static_cast<std::int64_t>(h % static_cast<std::uint64_t>(below));
  };
  const std::int64_t first_neighbour = needles + (static_cast<int>(kind) - 1) * rows_of_kind;
  for (std::int64_t r = 0; r < rows; ++r) {
    const bool edge = r == rows - 1 || r % 16 == 15 || r % 16 < 2;
    std::int64_t row = random(kind == neighbours::identical ? 0 : r, 1, of_needles);
    if (kind != neighbours::mixed && kind != neighbours::identical && !edge && random(r, 2, 8) != 0) {
      row = first_neighbour + random(r, 3, rows_of_kind);
    }
    all.push_back(static_cast<std::int32_t>(row));
  }
  return all;
}

}  // namespace test::needle
