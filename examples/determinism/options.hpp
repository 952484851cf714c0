// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <string>
#include <vector>

#include "serving.hpp"

namespace demo {

struct options {
  model_config model;
  traffic serve;
  schedule how;
  model_limits limits{.rows = 96, .requests = 24, .pages = 288, .page_size = 16};
  std::string backend = "reference";
  int threads = 0;
  bool baseline = true;
  std::string save, check, json;  // file names
  bool help = false;
};

// Throws std::invalid_argument with a sentence.
options parse(const std::vector<std::string>& arguments);
std::string usage();

}  // namespace demo
