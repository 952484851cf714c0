// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/schedule/rows.hpp"

#include <cstdint>
#include <string>

#include "support/catch.hpp"
#include "support/manifest.hpp"

using namespace bi::schedule;

namespace {

constexpr std::int64_t rows_of_interest[] = {1, 2, 16, 17, 64, 300, 528, 529, 1024, 8192, 65536, std::int64_t{1} << 40};
constexpr std::int64_t cols_of_interest[] = {1,     8,      64,     256,    264,    1024,  1032,   2048,
                                             2056,  4096,   4104,   8192,   8200,   16384, 16392,  65536,
                                             65544, 128256, 151936, 262144, 262152, 8191,  1 << 30};

}  // namespace

TEST_CASE("rows: what is picked fits, and the tests force it", "[schedule]") {
  for (const std::int64_t rows : rows_of_interest) {
    for (const std::int64_t cols : cols_of_interest) {
      for (const int bytes : {2, 4}) {
        for (const bool hopper : {false, true}) {
          for (const bool flag : {false, true}) {
            const row_traits t{bytes, flag && cols % 8 == 0, hopper};
            const auto check = [&](const row_schedule& s, bool fits) {
              INFO(to_string(s) << ", rows " << rows << ", cols " << cols << ", bytes " << bytes);
              REQUIRE(fits);
              REQUIRE(s.blocks % s.cluster == 0);
              REQUIRE(s.blocks <= (s.held > 0 ? max_held_row_blocks : max_row_blocks) * s.cluster);
              REQUIRE(test::covers(test::row_schedules(), s));
            };
            const row_schedule norm = pick_norm_schedule(rows, cols, t);
            check(norm, fits_norm(norm, cols, t));
            for (const bool keep : {false, true}) {
              const row_schedule log_sum = pick_log_sum_schedule(rows, cols, t, keep);
              check(log_sum, fits_log_sum(log_sum, cols, t, keep));
            }
            const row_schedule reduce = pick_reduce_schedule(rows, cols, t, flag);
            check(reduce, fits_reduce(reduce, cols, t, flag));
            const row_schedule arg = pick_arg_reduce_schedule(rows, cols, t, flag);
            check(arg, fits_arg_reduce(arg, cols, t, flag));
          }
        }
      }
    }
  }
}

TEST_CASE("rows: what is picked at some sizes", "[schedule]") {
  const row_traits t{2, true, true};
  CHECK(to_string(pick_norm_schedule(8192, 4096, t)) ==
        "row_schedule{threads_per_row=256, rows_per_block=1, blocks=8192, held=2, cluster=1, programmatic}");
  CHECK(pick_norm_schedule(1, 32768, t) == row_schedule{256, 1, 4, 4, 4, true});
  CHECK(pick_norm_schedule(262144, 128, t) == row_schedule{32, 4, 65536, 1, 1, true});
  const row_traits f{4, true, true};
  CHECK(pick_log_sum_schedule(1024, 151936, t, true) == row_schedule{256, 1, 7168, 12, 7, true});
  CHECK(pick_log_sum_schedule(16, 151936, t, true) == row_schedule{256, 1, 160, 8, 10, true});
  CHECK(pick_log_sum_schedule(256, 151936, f, true) == row_schedule{256, 1, 2560, 8, 10, true});
  CHECK(pick_log_sum_schedule(64, 32000, t, true) == row_schedule{256, 1, 256, 4, 4, true});
  CHECK(pick_log_sum_schedule(1024, 32000, t, true) == row_schedule{256, 1, 2048, 8, 2, true});
  CHECK(pick_log_sum_schedule(1024, 32000, f, true) == row_schedule{256, 1, 4096, 4, 4, true});
  CHECK(pick_log_sum_schedule(1, 262144, t, true) == row_schedule{256, 1, 16, 8, 16, true});
  CHECK(pick_log_sum_schedule(256, 151936, f, false) == row_schedule{256, 1, 512, 4, 2, true});
  CHECK(pick_log_sum_schedule(4096, 32000, t, false) == row_schedule{256, 1, 4096, 4, 1, true});
  CHECK(pick_log_sum_schedule(1, 151936, t, false) == row_schedule{256, 1, 7, 16, 7, true});
  CHECK(pick_log_sum_schedule(16, 151936, t, false) == row_schedule{256, 1, 112, 4, 7, true});
  CHECK(pick_reduce_schedule(1, std::int64_t{1} << 30, f, true) == row_schedule{32, 4, 32768, 8, 1, true});
  CHECK(pick_reduce_schedule(524288, 256, f, false) == row_schedule{32, 4, 32768, 1, 1, true});
  CHECK(pick_reduce_schedule(1, 262144, f, true) == row_schedule{256, 1, 16, 4, 16, true});
  // Without what they need, all read rows through.
  CHECK(pick_norm_schedule(1, 4095, {2, false, true}).held == 0);
  CHECK(pick_log_sum_schedule(1, 151936, {2, true, false}, true).held == 0);
  CHECK(pick_reduce_schedule(1, 256 * 8192 + 1, t, false).held == 0);
}
