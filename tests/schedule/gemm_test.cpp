// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/schedule/gemm.hpp"

#include <cstdint>
#include <set>
#include <string>

#include "support/catch.hpp"
#include "support/manifest_gemm.hpp"

using bi::schedule::gemm_device;
using bi::schedule::gemm_kernel;
using bi::schedule::gemm_problem;
using bi::schedule::gemm_schedule;

namespace {

constexpr gemm_device hopper{132, true};

gemm_problem problem(std::int64_t m, std::int64_t n, std::int64_t k, int slices, bool kn = false) {
  gemm_problem p;
  p.m = m, p.n = n, p.k = k, p.slices = slices, p.kn = kn, p.aligned = true;
  return p;
}

// Whole clusters, at most all of the GPU's, and a thread block for each tile if there are few.
void check_grid(const gemm_schedule& s, const gemm_problem& p, const gemm_device& d) {
  const int cluster = s.cluster_m * s.cluster_n * s.cluster_k;
  REQUIRE(s.blocks >= 1);
  REQUIRE(s.blocks % cluster == 0);
  if (s.kernel == gemm_kernel::wgmma) {
    REQUIRE(s.blocks <= 2 * d.processors);
    REQUIRE(s.blocks / cluster <=
            bi::schedule::gemm_tiles(p.m, p.n, p.batch, s.block_m * s.cluster_m, s.block_n * s.cluster_n));
  }
}

}  // namespace

TEST_CASE("gemm schedule: every one that is picked is legal", "[schedule]") {
  std::set<std::string> picked;
  for (const int slices : {1, 2, 4, 8}) {
    for (const bool kn : {false, true}) {
      for (const std::int64_t n : {1, 8, 72, 512, 1000, 1280, 2880, 4096, 6144, 24576, 151936}) {
        for (const std::int64_t k : {8, 1000, 4096, 12288}) {
          for (std::int64_t m = 1; m <= 16384; m += m < 300 ? 1 : m / 3) {
            const gemm_problem p = problem(m, n, k, slices, kn);
            const gemm_schedule s = bi::schedule::pick_gemm_schedule(p, hopper);
            INFO(to_string(s) << ", m " << m << ", n " << n << ", k " << k << ", slices " << slices << ", kn " << kn);
            REQUIRE(s.kernel == gemm_kernel::wgmma);
            REQUIRE(bi::schedule::gemm_is_legal(s, p));
            check_grid(s, p, hopper);
            picked.insert(to_string(s));
          }
        }
      }
    }
  }
  CHECK(picked.size() > 50);
}

TEST_CASE("gemm schedule: measured choices are legal for every row count that they serve, and are taken",
          "[schedule]") {
  for (const bi::schedule::gemm_table_row& row : bi::schedule::gemm_table) {
    REQUIRE(row.first_m <= row.last_m);
    for (std::int64_t m = row.first_m; m <= row.last_m; ++m) {
      const gemm_problem p = problem(m, row.n, row.k, row.slices);
      const gemm_schedule s = bi::schedule::pick_gemm_schedule(p, hopper);
      INFO(to_string(s) << ", m " << m << ", n " << row.n << ", k " << row.k);
      REQUIRE(s.block_m == row.block_m);
      REQUIRE(s.block_n == row.block_n);
      REQUIRE(bi::schedule::gemm_is_legal(s, p));
      check_grid(s, p, hopper);
    }
  }
  // Another GPU, layout or stack has the model's.
  const bi::schedule::gemm_table_row& row = bi::schedule::gemm_table[0];
  gemm_schedule s;
  CHECK(bi::schedule::tuned_gemm_schedule(problem(row.first_m, row.n, row.k, row.slices), hopper, s));
  CHECK_FALSE(bi::schedule::tuned_gemm_schedule(problem(row.first_m, row.n, row.k, row.slices), {114, true}, s));
  CHECK_FALSE(bi::schedule::tuned_gemm_schedule(problem(row.first_m, row.n, row.k, row.slices, true), hopper, s));
}

TEST_CASE("gemm schedule: the generic kernel where the other can't run", "[schedule]") {
  gemm_problem p = problem(100, 4096, 4096, 1);
  CHECK(bi::schedule::pick_gemm_schedule(p, hopper).kernel == gemm_kernel::wgmma);
  CHECK(bi::schedule::pick_gemm_schedule(p, {132, false}).kernel == gemm_kernel::mma);
  p.aligned = false;
  const gemm_schedule s = bi::schedule::pick_gemm_schedule(p, hopper);
  CHECK(s.kernel == gemm_kernel::mma);
  CHECK(bi::schedule::gemm_is_legal(s, p));
  p = problem(100, 4096, 0, 1);
  CHECK(bi::schedule::pick_gemm_schedule(p, hopper).kernel == gemm_kernel::mma);
  p = problem(std::int64_t{1} << 31, std::int64_t{1} << 31, 64, 1);
  CHECK(bi::schedule::pick_gemm_schedule(p, hopper).kernel == gemm_kernel::mma);
  CHECK(bi::schedule::pick_gemm_schedule(p, hopper).blocks == std::int64_t{1} << 30);
}

TEST_CASE("gemm schedule: what no kernel can run is not legal", "[schedule]") {
  const gemm_problem p = problem(300, 4096, 4096, 1);
  const gemm_schedule good = bi::schedule::pick_gemm_schedule(p, hopper);
  REQUIRE(bi::schedule::gemm_is_legal(good, p));
  const auto legal = [&](auto change) {
    gemm_schedule s = good;
    change(s);
    return bi::schedule::gemm_is_legal(s, p);
  };
  CHECK(legal([](gemm_schedule& s) { s.blocks = s.cluster_m * s.cluster_n; }));
  CHECK(legal([](gemm_schedule& s) { s.stages = 2; }));
  CHECK_FALSE(legal([](gemm_schedule& s) { s.stages = 1; }));  // the consumer frees a stage after the next has come
  CHECK_FALSE(legal([](gemm_schedule& s) { s.blocks = 0; }));
  CHECK_FALSE(legal([](gemm_schedule& s) { s.block_m = 100; }));
  CHECK_FALSE(legal([](gemm_schedule& s) { s.block_n = 40, s.weights_first = false; }));
  CHECK_FALSE(legal([](gemm_schedule& s) { s.cluster_k = 2; }));
  CHECK_FALSE(legal([](gemm_schedule& s) { s.cluster_m = 5; }));
  CHECK_FALSE(legal([](gemm_schedule& s) { s.group = 0; }));
  gemm_problem unaligned = p;
  unaligned.aligned = false;
  CHECK_FALSE(bi::schedule::gemm_is_legal(good, unaligned));
}

TEST_CASE("gemm schedule: clusters of 3 and of 8, tiles of 128 weights", "[schedule]") {
  const auto legal = [](const gemm_problem& p, int block_m, int cluster_m, int cluster_n, int cluster_k) {
    gemm_schedule s;
    s.kernel = gemm_kernel::wgmma;
    s.weights_first = true;
    s.block_m = block_m, s.block_n = 128;
    s.cluster_m = cluster_m, s.cluster_n = cluster_n, s.cluster_k = cluster_k;
    s = bi::schedule::with_blocks(s, p, hopper);
    check_grid(s, p, hopper);
    return bi::schedule::gemm_is_legal(s, p);
  };
  CHECK(legal(problem(300, 5120, 5120, 1), 104, 3, 1, 1));
  CHECK_FALSE(legal(problem(300, 5120, 5120, 1, true), 104, 3, 1, 1));  // weights are copied in blocks of 64
  CHECK(legal(problem(512, 1280, 8192, 2), 88, 2, 2, 2));
  CHECK_FALSE(legal(problem(512, 1280, 8192, 2), 88, 3, 2, 2));  // 12 blocks
  CHECK(legal(problem(512, 512, 8192, 4), 88, 2, 1, 4));
  CHECK_FALSE(legal(problem(512, 512, 8192, 4), 104, 2, 1, 4));
  // Subtrees that wait take registers: four slices in a block leave room for 128 tokens, two for 192.
  CHECK(legal(problem(300, 8192, 8192, 1), 160, 2, 1, 1));
  CHECK_FALSE(legal(problem(300, 8192, 8192, 2), 160, 2, 1, 1));
  CHECK(legal(problem(400, 5120, 5120, 1), 136, 2, 1, 1));
  CHECK_FALSE(legal(problem(400, 5120, 5120, 2), 136, 2, 1, 1));
  CHECK(legal(problem(4096, 512, 8192, 4), 128, 2, 1, 1));
  CHECK_FALSE(legal(problem(4096, 512, 8192, 4), 192, 2, 1, 1));
  CHECK(legal(problem(4096, 512, 8192, 2), 192, 2, 1, 1));
  // [k, n]: a cluster shares whole blocks of 64 weights.
  CHECK(legal(problem(4096, 512, 8192, 2, true), 192, 2, 1, 1));
  CHECK_FALSE(legal(problem(4096, 512, 8192, 2, true), 192, 3, 1, 1));
  CHECK_FALSE(legal(problem(4096, 512, 8192, 1, true), 160, 1, 1, 1));
}

TEST_CASE("gemm schedule: tiles with tokens first", "[schedule]") {
  const auto legal = [](const gemm_problem& p, int block_n, int cluster_m, int cluster_n, int cluster_k) {
    gemm_schedule s;
    s.kernel = gemm_kernel::wgmma;
    s.block_m = 128, s.block_n = block_n;
    s.cluster_m = cluster_m, s.cluster_n = cluster_n, s.cluster_k = cluster_k;
    s.group = 4;
    return bi::schedule::gemm_is_legal(bi::schedule::with_blocks(s, p, hopper), p);
  };
  CHECK(legal(problem(256, 6144, 4096, 1), 96, 2, 1, 1));
  CHECK(legal(problem(256, 7168, 8192, 1), 112, 2, 1, 1));
  CHECK_FALSE(legal(problem(256, 7168, 8192, 2), 112, 2, 1, 1));
  CHECK(legal(problem(1024, 1280, 8192, 2), 80, 1, 1, 1));
  CHECK_FALSE(legal(problem(1024, 1280, 8192, 4), 80, 1, 1, 1));
  CHECK_FALSE(legal(problem(1024, 1280, 8192, 2), 80, 1, 1, 2));
  CHECK(legal(problem(3000, 2880, 1000, 1), 192, 4, 1, 1));
  CHECK_FALSE(legal(problem(3000, 2880, 1000, 1), 224, 4, 1, 1));
  CHECK(legal(problem(512, 6144, 4096, 1, true), 192, 1, 2, 1));
  CHECK_FALSE(legal(problem(512, 6144, 4096, 1, true), 192, 2, 1, 1));
  CHECK(legal(problem(128, 4096, 4096, 1, true), 64, 1, 1, 1));
}

TEST_CASE("gemm schedule: kernels start alone where blocks without a cluster wait for the L2 cache", "[schedule]") {
  const auto picked = [](std::int64_t m, std::int64_t n, std::int64_t k, int slices) {
    return bi::schedule::pick_gemm_schedule(problem(m, n, k, slices), hopper);
  };
  CHECK_FALSE(picked(1024, 1280, 8192, 2).programmatic);  // 128 x 80
  CHECK_FALSE(picked(300, 5120, 5120, 1).programmatic);   // 128 x 104
  CHECK(picked(400, 5120, 5120, 1).programmatic);         // 128 x 136: the tensor core is the bound
  CHECK(picked(256, 6144, 4096, 1).programmatic);         // a cluster
  CHECK(picked(1, 6144, 4096, 1).programmatic);
  const gemm_problem p = problem(300, 5120, 5120, 1);
  gemm_schedule s = picked(300, 5120, 5120, 1);
  CHECK(bi::schedule::gemm_starts_alone(s, p, hopper));
  s.blocks = 80;  // many processors idle
  CHECK_FALSE(bi::schedule::gemm_starts_alone(s, p, hopper));
  s.blocks = 120;
  CHECK_FALSE(bi::schedule::gemm_starts_alone(s, problem(100, 5120, 5120, 1), hopper));  // nothing is shared
  s.block_n = 64;
  CHECK_FALSE(bi::schedule::gemm_starts_alone(s, p, hopper));
}

TEST_CASE("gemm schedule: stacks of short chains have no clusters", "[schedule]") {
  for (const bool kn : {false, true}) {
    for (const std::int64_t m : {1, 16, 64, 100, 256, 1000}) {
      gemm_problem p = problem(m, 512, 128, 1, kn);
      p.batch = 128;
      const gemm_schedule s = bi::schedule::pick_gemm_schedule(p, hopper);
      INFO(to_string(s));
      CHECK(s.cluster_m * s.cluster_n * s.cluster_k == 1);
      CHECK(bi::schedule::gemm_is_legal(s, p));
    }
  }
}

TEST_CASE("gemm schedule: clusters that run at once", "[schedule]") {
  // As measured: with 40 clusters of 3 a schedule would run twice.
  const std::int64_t measured[] = {132, 66, 39, 30, 22, 17, 15, 15};
  for (int cluster = 1; cluster <= 8; ++cluster) {
    CHECK(bi::schedule::resident_clusters(hopper, cluster) == measured[cluster - 1]);
    for (const int processors : {1, 7, 66, 78, 114, 144}) {
      const std::int64_t room = bi::schedule::resident_clusters({processors, true}, cluster);
      CHECK(room >= 1);
      CHECK((room == 1 || room * cluster <= processors));
    }
  }
}

TEST_CASE("gemm schedule: the manifest has legal schedules only, each under a name of its own", "[schedule]") {
  for (const int slices : {1, 2, 4, 8}) {
    for (const bool kn : {false, true}) {
      const gemm_problem p = problem(200, 328, 1096, slices, kn);
      std::set<std::string> names;
      const auto all = test::gemm_schedules(p);
      for (const auto& e : test::manifest({test::gemm_operation<bi::bf16>()}, all)) {
        INFO(to_string(e));
        CHECK(bi::schedule::gemm_is_legal(e.schedule, p));
        names.insert(to_string(e));
      }
      CHECK(names.size() == all.size());
    }
  }
}

TEST_CASE("gemm schedule: text", "[schedule]") {
  CHECK(to_string(bi::schedule::pick_gemm_schedule(problem(8, 8192, 4096, 1), hopper)) ==
        "gemm_schedule{wgmma, weights first, block_m=8, block_n=64, cluster=1x1x1, residents=2, stages=0, group=1, "
        "blocks=128, programmatic}");
}
