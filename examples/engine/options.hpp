// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace engine {

struct options {
  std::string what;  // d1, d2, d3, d4, bench, replay
  bool help = false;
  bool small = false;
  std::string config;   // file
  std::string backend;  // gpu or reference
  std::string folder = ".";
  std::string commit = "unknown";
  std::string log;            // replay
  std::int64_t request = -1;  // replay: -1: all
  std::int64_t threads = 0;
  std::int64_t seed = 1;
};

// Throws std::invalid_argument with a sentence.
options parse(const std::vector<std::string>& arguments);
std::string usage();

}  // namespace engine
