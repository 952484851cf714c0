// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Computes one row of a case of the needle matrix by the reference, on the CPU, and prints its bits.
//
//   needle_row CASE --row R [--seed S] [--output NAME] [--element E]
//   needle_row --list
#include <cstdio>
#include <exception>
#include <string>

#include "needle/matrix.hpp"

int main(int argc, char** argv) {
  using namespace test::needle;
  try {
    options o;
    o.most_rows = 1;
    std::string name, output;
    long long row = -1, element = -1;
    for (int i = 1; i < argc; ++i) {
      const std::string a = argv[i];
      if (a == "--list") {
        for (const needle_case& c : all_cases()) std::puts(c.name().c_str());
        return 0;
      }
      if (a.rfind("--", 0) != 0) {
        name = a;
        continue;
      }
      if (++i == argc) break;
      if (a == "--row") row = std::stoll(argv[i]);
      if (a == "--seed") o.seed = std::stoull(argv[i]);
      if (a == "--output") output = argv[i];
      if (a == "--element") element = std::stoll(argv[i]);
    }
    for (const needle_case& c : all_cases()) {
      if (c.name() != name) continue;
      host_machine host;
      matrix m(host, c, o);
      if (row < 0 || row >= m.of().pool) {
        std::fprintf(stderr, "needle_row: --row = %lld must be at least 0 and below %lld\n", row,
                     static_cast<long long>(m.of().pool));
        return 2;
      }
      for (std::size_t i = 0; i < m.of().out.size(); ++i) {
        const column& out = m.of().out[i];
        if (!output.empty() && output != out.name) continue;
        const auto bytes = m.row_alone(static_cast<std::int32_t>(row), i);
        for (std::int64_t e = 0; e < out.bytes / out.element_bytes; ++e) {
          if (element >= 0 && element != e) continue;
          std::printf("%s[%lld] = 0x", out.name.c_str(), static_cast<long long>(e));
          for (std::int64_t b = out.element_bytes; b-- > 0;) {
            std::printf("%02x", bytes[static_cast<std::size_t>(e * out.element_bytes + b)]);
          }
          std::printf("\n");
        }
      }
      return 0;
    }
    std::fprintf(stderr, "needle_row: no case '%s'; --list names them\n", name.c_str());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "needle_row: %s\n", e.what());
    return 1;
  }
}
