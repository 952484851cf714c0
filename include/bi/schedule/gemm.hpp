// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How a matrix product is spread over the GPU. No field changes a bit.
struct gemm_schedule {
  int block_m = 64;         // rows of A in a thread block's tile: 16 or 64
  int block_n = 64;         // columns of D
  std::int64_t blocks = 0;  // thread blocks; tiles are dealt out round after round

  friend constexpr bool operator==(const gemm_schedule& a, const gemm_schedule& b) {
    return a.block_m == b.block_m && a.block_n == b.block_n && a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const gemm_schedule& a, const gemm_schedule& b) { return !(a == b); }
};

inline std::string to_string(const gemm_schedule& s) {
  char text[128];
  std::snprintf(text, sizeof text, "gemm_schedule{block_m=%d, block_n=%d, blocks=%lld}", s.block_m, s.block_n,
                static_cast<long long>(s.blocks));
  return text;
}

// Tiles of a stack of `batch` products.
constexpr std::int64_t gemm_tiles(std::int64_t m, std::int64_t n, std::int64_t batch, int block_m, int block_n) {
  return (m / block_m + (m % block_m != 0 ? 1 : 0)) * (n / block_n + (n % block_n != 0 ? 1 : 0)) * batch;
}

// The generic mma.sync schedule: every shape, alignment and architecture from sm_80.
constexpr gemm_schedule pick_gemm_schedule(std::int64_t m, std::int64_t n, std::int64_t batch) {
  gemm_schedule s;
  s.block_m = m <= 16 ? 16 : 64;
  const std::int64_t tiles = gemm_tiles(m, n, batch, s.block_m, s.block_n);
  constexpr std::int64_t most = std::int64_t{1} << 30;  // below the limit of gridDim.x
  s.blocks = tiles < most ? tiles : most;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
