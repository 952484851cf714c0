// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "golden/cases.hpp"

#include <fstream>
#include <set>
#include <string>

#include "support/catch.hpp"

// What a GPU gave stands in the file; the reference must give the same, case by case.
TEST_CASE("golden: the reference reproduces the bytes that an H100 gave") {
  std::ifstream file(std::string(BI_TEST_DIR) + "/golden/h100.json");
  REQUIRE(file.good());
  std::set<std::string> recorded;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("{\"name\"", 0) != 0) continue;
    if (line.back() == ',') line.pop_back();
    recorded.insert(line);
  }
  REQUIRE(recorded.size() > 100);
  std::size_t computed = 0;
  test::host_backend host;
  test::golden_cases(host, [&](const test::golden_entry& e) {
    ++computed;
    INFO(test::to_json(e));
    CHECK(recorded.count(test::to_json(e)) == 1);
  });
  CHECK(computed == recorded.size());
}
