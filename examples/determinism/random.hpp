// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "bi/contract/id.hpp"

namespace demo {

// SplitMix64: the same numbers on every machine, so a logged seed replays a whole run.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) : state_(bi::mix64(seed + 0x9E3779B97F4A7C15u)) {}

  std::uint64_t next() { return bi::mix64(state_ += 0x9E3779B97F4A7C15u); }
  // In [low, high].
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return between(1, 100) <= percent; }

  template <class T>
  void shuffle(std::vector<T>& v) {
    for (std::size_t i = v.size(); i > 1; --i) {
      std::swap(v[i - 1], v[static_cast<std::size_t>(between(0, static_cast<std::int64_t>(i) - 1))]);
    }
  }

 private:
  std::uint64_t state_;
};

}  // namespace demo
