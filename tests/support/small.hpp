// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

// A test program that is started with --small tries fewer schedules, over fewer rows: for tools under which kernels are a
// hundred times slower (scripts/gpu_sanitize).
namespace test {

inline bool& small_run() {
  static bool is_small = false;
  return is_small;
}
// A program that is started with --one-wide forces schedules of rows and of sampling with one cluster of more than 8 thread
// blocks at a time: for a tool that is wrong about several (docs/testing.md).
inline bool& one_wide() {
  static bool is_one = false;
  return is_one;
}
inline constexpr int most_narrow = 8;  // thread blocks of a cluster that is not wide
// How many clusters to launch where a test would have `clusters`.
inline std::int64_t clusters_at_once(int cluster, std::int64_t clusters) {
  return one_wide() && cluster > most_narrow ? 1 : clusters;
}
// `rows`, or the few that are left of them.
inline std::int64_t few_rows(std::int64_t rows) { return small_run() && rows > 9 ? 9 : rows; }

}  // namespace test
