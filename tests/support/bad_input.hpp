// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bi/status.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

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

// One mistake in otherwise good arguments, and what the call must say of it.
template <class Args>
struct bad_row {
  std::function<void(Args&)> spoil;
  complaint expected;
};

// `run` must complain as the table says and leave the memory as it was.
template <class Args, std::size_t N, class Data, class Run>
void require_complaints(const Args& good, const bad_row<Args> (&rows)[N], const std::vector<Data>& data, Run run) {
  const auto untouched = data;
  for (std::size_t i = 0; i < N; ++i) {
    Args a = good;
    rows[i].spoil(a);
    INFO("row " << i);
    REQUIRE(other_than(rows[i].expected, run(a)) == "");
    REQUIRE(difference(data, untouched) == "");
  }
}

template <class P>
P* byte_after(P* p) {
  return reinterpret_cast<P*>(reinterpret_cast<std::uintptr_t>(p) + 1);
}

}  // namespace test
