// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/gemm.hpp"

namespace demo {

inline constexpr std::int64_t busy_blocks = 64;  // thread blocks that fill the machine

// How many parts a library that looks at the batch cuts k into: as many as it takes to keep the machine busy.
inline int split_k(std::int64_t m, const bi::gemm_limits& l) {
  const std::int64_t tiles = ((m + 15) / 16) * ((l.n + 63) / 64);
  int split = 1;
  while (split < 8 && tiles * split * 2 <= busy_blocks && l.k / (split * 2) >= 64) split *= 2;
  return split;
}

}  // namespace demo
