// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Prints the reference's digest of every golden case, as they stand in tests/golden/h100.json. scripts/check_flags builds
// this with many flags.
#include <cstdio>
#include <exception>

#include "golden/cases.hpp"

int main() {
  try {
    test::host_backend host;
    test::golden_cases(host, [](const test::golden_entry& e) { std::printf("%s\n", test::to_json(e).c_str()); });
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
