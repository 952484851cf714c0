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

// A sum modulo 2^64 of up to 2^16 numbers, in three parts that add up by themselves: 2^0, 2^16 and 2^32 times.
struct integer_parts {
  std::uint32_t low, middle, high;

  BI_D std::uint64_t sum() const {
    return low + (static_cast<std::uint64_t>(middle) << 16) + (static_cast<std::uint64_t>(high) << 32);
  }
};
// Over a warp, for all of its threads: an instruction a part; a butterfly takes 20, one after the other.
BI_D inline integer_parts parts_in_warp(std::uint64_t v) {
  constexpr unsigned all = 0xffffffffu;
  const auto low = static_cast<std::uint32_t>(v);
  return {__reduce_add_sync(all, low & 0xffffu), __reduce_add_sync(all, low >> 16),
          __reduce_add_sync(all, static_cast<std::uint32_t>(v >> 32))};
}
BI_D inline std::uint64_t sum_in_warp(std::uint64_t v) { return parts_in_warp(v).sum(); }

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
