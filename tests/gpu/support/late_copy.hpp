// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/status.hpp"

namespace test {

struct late_copy_args {
  std::int32_t* to;
  const std::int32_t* from;
  std::int64_t n;
  std::int64_t microseconds;  // before the first value is written
};

// Lets the launch after it begin at once, waits, then copies: what that one reads before its own wait is of before.
bi::status copy_late(const late_copy_args& a, bi::cuda_stream stream);

}  // namespace test
