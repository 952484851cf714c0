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
// `rows`, or the few that are left of them.
inline std::int64_t few_rows(std::int64_t rows) { return small_run() && rows > 9 ? 9 : rows; }

}  // namespace test
