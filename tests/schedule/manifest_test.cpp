// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "support/manifest.hpp"

#include <cstdint>
#include <set>
#include <string>

#include "support/catch.hpp"

namespace {

template <class Schedule>
void check_names(const std::vector<test::manifest_entry<Schedule>>& all) {
  std::set<std::string> names;
  for (const auto& e : all) names.insert(to_string(e));
  CHECK(names.size() == all.size());
}

constexpr std::int64_t large = (std::int64_t{1} << 31) - 1;
constexpr std::int64_t sizes[] = {1, 2, 16, 17, 63, 64, 65, 1000, 1024, 1025, 8192, 100000, large};

}  // namespace

TEST_CASE("manifest: every entry has a name of its own", "[schedule]") {
  using namespace test;
  check_names(manifest(row_operations(), row_schedules()));
  check_names(manifest(flat_operations(), flat_schedules()));
  check_names(manifest(shared_operations(), shared_schedules()));
  check_names(manifest(count_operations(), flat_schedules()));
  check_names(manifest(edit_operations(), edit_schedules(true)));
  check_names(manifest(digest_operations(), digest_schedules()));
  check_names(manifest(column_operations(), block_schedules()));
  check_names(manifest(sample_operations(), sample_schedules()));
  check_names(manifest(attention_operations(), attention_schedules(128, 1)));
  const auto first = manifest(row_operations(), row_schedules())[0];
  CHECK(to_string(first) ==
        "rms_norm/rms_norm_draft/row_schedule{threads_per_row=32, rows_per_block=4, blocks=1, held=0, cluster=1}");
}

TEST_CASE("manifest: every schedule that is picked is forced too", "[schedule]") {
  using namespace bi::schedule;
  for (const std::int64_t rows : sizes) {
    for (const std::int64_t bytes : sizes) {
      for (const bool hopper : {false, true}) {
        REQUIRE(test::covers(test::digest_schedules(), pick_digest_schedule(rows, bytes, hopper)));
      }
    }
    for (const std::int64_t vocab : sizes) {
      for (const bool in_place : {false, true}) {
        const auto s = pick_logits_edit_schedule(rows, vocab, in_place);
        REQUIRE(test::covers(test::edit_schedules(in_place), s));
      }
      for (const bool clusters : {false, true}) {
        for (const int bytes : {2, 4}) {
          if (vocab > bi::contract::sample_max_vocab) continue;
          REQUIRE(test::covers(test::sample_schedules(), pick_sample_schedule(rows, vocab, bytes, clusters)));
        }
      }
    }
    for (const int width : {1, 32}) REQUIRE(test::covers(test::flat_schedules(), pick_flat_schedule(rows, width)));
    for (const std::int64_t threads : sizes) {
      for (const bool hopper : {false, true}) {
        if (rows > 0) REQUIRE(test::covers(test::shared_schedules(), pick_shared_schedule(rows, threads, hopper)));
      }
    }
    for (const std::int64_t cols : sizes) REQUIRE(test::covers(test::row_schedules(), pick_row_schedule(rows, cols)));
  }
  for (const std::int64_t head_dim : {64, 128, 256}) {
    for (const int most : {1, head_dim == 256 ? 2 : 4}) {
      for (const std::int64_t q_len : sizes) {
        for (const std::int64_t group : {1, 3, 8, 16, 17}) {
          for (const std::int64_t requests : {1, 20}) {
            const auto s = pick_attention_schedule(requests, requests * q_len, q_len, group, 2, most);
            INFO(to_string(s) << ", q_len " << q_len << ", group " << group);
            REQUIRE(test::covers(test::attention_schedules(head_dim, q_len * group), s));
          }
        }
      }
    }
  }
  // Controls: what no operation has a kernel for is not covered.
  CHECK(!test::covers(test::row_schedules(), {64, 4, 1}));
  CHECK(!test::covers(test::row_schedules(), {32, 4, 0}));
  CHECK(!test::covers(test::attention_schedules(256, 1), {4, false, 1}));
  CHECK(!test::covers(test::attention_schedules(128, 65), {4, true, 1}));
}
