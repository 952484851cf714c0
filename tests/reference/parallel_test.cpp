// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/parallel.hpp"

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"

using bi::reference::parallel_for;

TEST_CASE("parallel_for: every index once, in ranges of the grain or more", "[reference]") {
  for (const std::int64_t count : {-1, 0, 1, 2, 7, 100, 1000}) {
    for (const int threads : {0, 1, 2, 5, 64}) {
      for (const std::int64_t grain : {-3, 0, 1, 3, 50, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count > 0 ? count : 0));
        std::atomic<int> wrong{0};
        parallel_for(
            count, threads,
            [&](std::int64_t begin, std::int64_t end) {
              if (begin < 0 || end > count || begin >= end) ++wrong;
              if (end < count && end - begin < grain) ++wrong;
              for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
            },
            grain);
        INFO("count " << count << ", threads " << threads << ", grain " << grain);
        REQUIRE(wrong == 0);
        for (const auto& n : seen) REQUIRE(n == 1);
      }
    }
  }
}

TEST_CASE("parallel_for: the first exception comes back, and what has not begun is dropped", "[reference]") {
  for (const int threads : {1, 2, 4}) {
    std::atomic<int> begun{0};
    std::string said;
    try {
      parallel_for(1000, threads, [&](std::int64_t, std::int64_t) {
        ++begun;
        throw std::runtime_error("no");
      });
    } catch (const std::runtime_error& e) {
      said = e.what();
    }
    INFO("threads " << threads);
    CHECK(said == "no");
    CHECK(begun <= threads);
  }
}
