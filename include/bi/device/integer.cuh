// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Reductions of 64-bit integers over a thread block: exact, so their order is free.

BI_NAMESPACE_BEGIN
namespace device {

struct integer_sum {
  BI_HD std::uint64_t operator()(std::uint64_t a, std::uint64_t b) const { return a + b; }
};
struct integer_max {
  BI_HD std::uint64_t operator()(std::uint64_t a, std::uint64_t b) const { return a < b ? b : a; }
};

template <int Threads>
struct integer_scratch {
  std::uint64_t warp[Threads / 32];
};

// Called by all threads of a one-dimensional block; each gets the result.
template <int Threads, class Combine>
BI_D std::uint64_t block_reduce(std::uint64_t value, integer_scratch<Threads>& scratch, Combine combine) {
  constexpr int warps = Threads / 32;
  static_assert(Threads % 32 == 0 && (warps & (warps - 1)) == 0 && warps <= 32, "warps divide a warp");
  const auto butterfly = [&](int d) {
    const std::uint64_t other = __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(value), d);
    value = combine(value, other);
  };
#pragma unroll
  for (int d = 16; d > 0; d /= 2) butterfly(d);
  if (threadIdx.x % 32 == 0) scratch.warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch.warp[threadIdx.x % warps];
#pragma unroll
  for (int d = warps / 2; d > 0; d /= 2) butterfly(d);
  __syncthreads();  // the scratch may be used again
  return value;
}

}  // namespace device
BI_NAMESPACE_END
