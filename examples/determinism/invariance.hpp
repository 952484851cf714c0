// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend.hpp"
#include "model.hpp"

namespace demo {

// One operation by itself: a row alone, and the same row at random places of batches of random neighbours.
struct invariance {
  std::string operation;
  std::int64_t batches = 0;            // tried
  std::int64_t differs = 0;            // batches in which the row's bytes were other than alone
  std::int64_t baseline_differs = -1;  // the same for the baseline, -1: it uses bi's operation
};

// `baseline` may be null.
std::vector<invariance> check_operations(backend& b, backend* baseline, const model_config& config, std::uint64_t seed,
                                         std::int64_t batches = 16);

}  // namespace demo
