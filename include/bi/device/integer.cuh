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

// The sum modulo 2^64 over a warp, for all of its threads, in three parts, 2^0, 2^16 and 2^32 times: an instruction a part; a
// butterfly takes 20, one after the other.
BI_D inline std::uint64_t sum_in_warp(std::uint64_t v) {
  constexpr unsigned all = 0xffffffffu;
  const auto of_low = static_cast<std::uint32_t>(v);
  const std::uint32_t low = __reduce_add_sync(all, of_low & 0xffffu), middle = __reduce_add_sync(all, of_low >> 16),
                      high = __reduce_add_sync(all, static_cast<std::uint32_t>(v >> 32));
  return (low | static_cast<std::uint64_t>(high) << 32) + (static_cast<std::uint64_t>(middle) << 16);
}

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
