// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

#include "bi/status.hpp"

namespace test {

// What a bad call must say.
struct complaint {
  bi::error code;
  std::string argument;
  std::int64_t value = 0;
};

// Empty if `st` says it, else what it says.
inline std::string other_than(const complaint& expected, const bi::status& st) {
  if (st.code == expected.code && st.argument != nullptr && expected.argument == st.argument &&
      (expected.value == st.value || expected.code == bi::error::misaligned)) {
    return {};
  }
  return "expected code " + std::to_string(static_cast<int>(expected.code)) + ", argument " + expected.argument +
         ", value " + std::to_string(expected.value) + "; got code " + std::to_string(static_cast<int>(st.code)) +
         ", value " + std::to_string(st.value) + ": " + bi::describe(st);
}

}  // namespace test
