// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <string>

#include "bi/schedule/attention.hpp"
#include "bi/schedule/attention_shared.hpp"
#include "bi/schedule/flat.hpp"
#include "bi/schedule/gemm.hpp"
#include "bi/schedule/logits_edit.hpp"
#include "bi/schedule/rows.hpp"
#include "bi/schedule/sample.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// What a kernel can take: of every combination of fields, those that fit must keep what the kernel needs.

using namespace bi::schedule;

namespace {

template <class S, class... Changes>
void each_field_counts(const S& s, Changes... changes) {
  REQUIRE(s == s);
  REQUIRE_FALSE(s != s);
  const auto differs = [&](auto change) {
    S other = s;
    change(other);
    INFO(to_string(s) << " and " << to_string(other));
    REQUIRE(other != s);
    REQUIRE_FALSE(other == s);
    REQUIRE(to_string(other) != to_string(s));
  };
  (differs(changes), ...);
}

}  // namespace

TEST_CASE("schedules: each field counts, and is told", "[schedule]") {
  each_field_counts(
      gemm_schedule{}, [](auto& s) { s.kernel = gemm_kernel::wgmma; }, [](auto& s) { s.weights_first = true; },
      [](auto& s) { s.block_m = 16; }, [](auto& s) { s.block_n = 8; }, [](auto& s) { s.cluster_m = 2; },
      [](auto& s) { s.cluster_n = 2; }, [](auto& s) { s.cluster_k = 2; }, [](auto& s) { s.residents = 2; },
      [](auto& s) { s.stages = 3; }, [](auto& s) { s.group = 4; }, [](auto& s) { s.blocks = 5; },
      [](auto& s) { s.programmatic = false; });
  each_field_counts(
      row_schedule{}, [](auto& s) { s.threads_per_row = 32; }, [](auto& s) { s.rows_per_block = 4; },
      [](auto& s) { s.blocks = 5; }, [](auto& s) { s.held = 2; }, [](auto& s) { s.cluster = 2; },
      [](auto& s) { s.programmatic = true; });
  each_field_counts(
      attention_schedule{}, [](auto& s) { s.row_warps = 1; }, [](auto& s) { s.one_tile_each = true; },
      [](auto& s) { s.blocks = 5; }, [](auto& s) { s.kernel = attention_kernel::split; },
      [](auto& s) { s.kernel = attention_kernel::prefill; }, [](auto& s) { s.stages = 2; });
  each_field_counts(attention_shared_schedule{}, [](auto& s) { s.blocks = 5; });
  each_field_counts(
      flat_schedule{}, [](auto& s) { s.threads = 32; }, [](auto& s) { s.blocks = 5; });
  each_field_counts(
      shared_schedule{}, [](auto& s) { s.threads = 32; }, [](auto& s) { s.blocks = 5; }, [](auto& s) { s.parts = 2; },
      [](auto& s) { s.programmatic = true; });
  each_field_counts(block_schedule{}, [](auto& s) { s.blocks = 5; });
  each_field_counts(
      digest_schedule{}, [](auto& s) { s.blocks = 5; }, [](auto& s) { s.parts = 2; },
      [](auto& s) { s.programmatic = true; });
  each_field_counts(
      sample_schedule{}, [](auto& s) { s.cluster = 2; }, [](auto& s) { s.slots = 3; },
      [](auto& s) { s.programmatic = true; }, [](auto& s) { s.blocks = 5; }, [](auto& s) { s.once = true; });
  each_field_counts(
      logits_edit_schedule{}, [](auto& s) { s.words = 4; }, [](auto& s) { s.blocks = 5; });
}

TEST_CASE("rows: nothing fits that a kernel cannot hold", "[schedule]") {
  int norms = 0, sums = 0, reductions = 0, args = 0;
  for (const int threads : {32, 256}) {
    for (int held = 0; held <= 17; ++held) {
      for (const int cluster : {1, 2, 3, 8, 9, 16, 17}) {
        for (const bool programmatic : {false, true}) {
          row_schedule s;
          s.threads_per_row = threads;
          s.rows_per_block = threads == 32 ? 4 : 1;
          s.held = held;
          s.cluster = cluster;
          s.programmatic = programmatic;
          for (const std::int64_t cols :
               {0, 1, 8, 256, 257, 2048, 8192, 8193, 16384, 65536, 73728, 151936, 262144, 270336, 2097152, 2097153}) {
            for (int flags = 0; flags < 16; ++flags) {
              const row_traits t = {(flags & 1) != 0 ? 2 : 4, (flags & 2) != 0, (flags & 4) != 0};
              const bool flag = (flags & 8) != 0;
              INFO(to_string(s) << ", cols " << cols << ", bytes " << t.element_bytes << ", vectors " << t.vectors
                                << ", hopper " << t.hopper << ", flag " << flag);
              const std::int64_t elements = std::int64_t{8} * held * threads * cluster;
              // Of all of them: launches and clusters that only Hopper has, and rows that are read through alone.
              const auto sound = [&] {
                REQUIRE((t.hopper || (!programmatic && cluster == 1)));
                REQUIRE((held > 0 || (!programmatic && cluster == 1)));
                REQUIRE(cluster <= max_wide_cluster);
              };
              if (fits_norm(s, cols, t)) {
                ++norms;
                sound();
                REQUIRE((held == 0 || (t.vectors && elements >= cols && held * t.element_bytes <= 16)));
              }
              if (fits_log_sum(s, cols, t, flag)) {
                ++sums;
                sound();
                REQUIRE((held == 0 || (t.vectors && threads == 256 && cluster <= tree_blocks(cols))));
                REQUIRE((held == 0 || !flag || elements >= cols));  // a row that stays
              }
              if (fits_reduce(s, cols, t, flag)) {
                ++reductions;
                sound();
                REQUIRE((held != 1 || threads == 256 || cols <= 256));
                REQUIRE((held != 8 || cols <= 8192 || flag));  // parts of a row meet in the workspace
                REQUIRE((cluster == 1 || cluster <= tree_blocks(cols)));
              }
              if (fits_arg_reduce(s, cols, t, flag)) {
                ++args;
                sound();
                REQUIRE((held == 0 || (flag && cols > 8192)));
              }
            }
          }
        }
      }
    }
  }
  CHECK((norms > 100 && sums > 100 && reductions > 100 && args > 100));
}

TEST_CASE("rows: what is picked is for the rows that there are", "[schedule]") {
  constexpr std::int64_t most = INT64_MAX;
  const row_traits t = {2, true, true};
  for (const std::int64_t cols : {1, 256, 8192, 65536, 65544, 1 << 20, 1 << 30}) {
    for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{529}, std::int64_t{1} << 40, most}) {
      for (const bool flag : {false, true}) {
        for (const row_schedule& s :
             {pick_norm_schedule(rows, cols, t), pick_log_sum_schedule(rows, cols, t, flag),
              pick_reduce_schedule(rows, cols, t, flag), pick_arg_reduce_schedule(rows, cols, t, flag)}) {
          INFO(to_string(s) << ", rows " << rows << ", cols " << cols);
          REQUIRE((s.blocks >= 1 && s.blocks <= max_held_row_blocks * s.cluster));
        }
      }
    }
  }
}

TEST_CASE("attention: prefill where rows fill more than a tile of the others", "[schedule][attention]") {
  const auto s = pick_attention_schedule(2, 8192, 4096, 4, 8, 4, 0, 1, 132);
  CHECK(s == attention_schedule{8, false, 132, attention_kernel::prefill, 0});
  CHECK(pick_attention_schedule(1, 17, 17, 4, 1, 4, 0, 1, 132).blocks == 1);
  CHECK(pick_attention_schedule(1, 16, 16, 4, 1, 4, 0, 1, 132).kernel == attention_kernel::mma);
  CHECK(attention_even_blocks(0, 5) == 0);
  CHECK(attention_even_blocks(5, 0) == 5);
}

TEST_CASE("gemm schedule: a random one that is legal has what the kernel needs", "[schedule][gemm]") {
  test::generator g(23);
  int legal = 0;
  for (int i = 0; i < 60000; ++i) {
    gemm_problem p;
    p.m = g.between(1, 600), p.n = g.between(1, 3000), p.k = g.between(0, 5000);
    p.slices = 1 << g.between(0, 3);
    p.kn = g.chance(30);
    p.aligned = g.chance(90);
    if (g.chance(2)) (g.chance(50) ? p.m : p.n) = std::int64_t{1} << g.between(30, 40);
    gemm_schedule s;
    // Near one that is legal, or of any numbers.
    if (g.chance(80)) s = pick_gemm_schedule(p, {132, true});
    for (std::int64_t n = g.between(0, 3); n > 0; --n) {
      int* const fields[] = {&s.block_m,   &s.block_n,   &s.cluster_m, &s.cluster_n,
                             &s.cluster_k, &s.residents, &s.stages,    &s.group};
      constexpr int values[] = {-1, 0, 1, 2, 3, 4, 8, 12, 16, 17, 32, 40, 64, 80, 88, 96, 128, 160, 192, 256};
      *fields[g.below(8)] = values[g.below(20)];
      if (g.chance(10)) s.blocks = g.between(-1, 300);
      if (g.chance(10)) s.kernel = g.chance(50) ? gemm_kernel::mma : gemm_kernel::wgmma;
      if (g.chance(10)) s.weights_first = !s.weights_first;
    }
    if (!gemm_is_legal(s, p)) continue;
    ++legal;
    INFO(to_string(s) << ", m " << p.m << ", n " << p.n << ", k " << p.k << ", slices " << p.slices << ", kn " << p.kn);
    const int cluster = s.cluster_m * s.cluster_n * s.cluster_k;
    REQUIRE(s.blocks >= 1);
    if (s.kernel == gemm_kernel::mma) {
      REQUIRE((s.block_n == 64 && (s.block_m == 16 || s.block_m == 64)));
      continue;
    }
    REQUIRE((p.aligned && p.k > 0 && p.m <= 1 << 30 && p.n <= 1 << 30));
    REQUIRE((cluster >= 1 && cluster <= 8 && s.blocks % cluster == 0));
    REQUIRE((s.cluster_k >= 1 && p.slices % s.cluster_k == 0));
    REQUIRE((s.stages == 0 || (s.stages >= 2 && s.stages <= gemm_max_stages)));
    REQUIRE((s.group >= 1 && (s.residents == 1 || s.residents == 2)));
    REQUIRE((s.block_m % 8 == 0 && s.block_n % 8 == 0));
    REQUIRE((s.residents == 1 || gemm_may_share(s)));
    REQUIRE((s.block_m <= 256 && s.block_n <= 256));
  }
  CHECK(legal > 6000);
  CHECK(resident_clusters({132, true}, 0) == 1);
  CHECK(resident_clusters({132, true}, 9) == 1);
}
