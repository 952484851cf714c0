// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// A histogram of 64-bit weights in shared memory, and the bin in which a running sum from the highest bin down reaches
// a target: one level of a radix selection. Sums of integers, so nothing depends on the order of the adds.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int select_bins = 2048;

template <int Threads>
struct select_scratch {
  std::uint32_t low[select_bins];
  std::uint32_t high[select_bins];
  std::uint64_t warp[Threads / 32];
  std::uint64_t above, sum;
  std::uint32_t bin;
};

struct select_border {
  std::uint32_t bin = 0;
  std::uint64_t above = 0;  // sum of the bins above it
  std::uint64_t sum = 0;    // its own: above < target <= above + sum
};

// All but select_add are called by all threads of a one-dimensional block. select_clear and select_find end with a
// barrier; the caller has one between the last select_add and select_find.
template <int Bins, int Threads>
BI_D void select_clear(select_scratch<Threads>& s) {
  static_assert(Bins <= select_bins && Bins % Threads == 0, "each thread has some bins");
#pragma unroll
  for (int i = 0; i < Bins / Threads; ++i) {
    s.low[static_cast<int>(threadIdx.x) + i * Threads] = 0;
    s.high[static_cast<int>(threadIdx.x) + i * Threads] = 0;
  }
  __syncthreads();
}

// Two 32-bit adds instead of a 64-bit one, which is a loop of compare-and-swap in shared memory: every wrap of the low
// half is seen by exactly one thread, whatever the order.
template <int Threads>
BI_D void select_add(select_scratch<Threads>& s, std::uint32_t bin, std::uint64_t weight) {
  const auto low = static_cast<std::uint32_t>(weight);
  const std::uint32_t before = atomicAdd(&s.low[bin], low);  // integer atomic: a sum modulo 2^32
  const std::uint32_t high = static_cast<std::uint32_t>(weight >> 32) + (before + low < before ? 1u : 0u);
  if (high != 0) atomicAdd(&s.high[bin], high);  // integer atomic: a sum modulo 2^32
}

// False if target_of(sum of all bins) is more than that sum. Targets are at least 1.
template <int Bins, int Threads, class TargetOf>
BI_D bool select_find(select_scratch<Threads>& s, TargetOf target_of, std::uint64_t& target, select_border& border) {
  constexpr int held = Bins / Threads;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  // Thread 0 has the highest bins.
  std::uint64_t part[held], mine = 0;
#pragma unroll
  for (int i = 0; i < held; ++i) {
    const int bin = Bins - 1 - (thread * held + i);
    part[i] = static_cast<std::uint64_t>(s.high[bin]) << 32 | s.low[bin];
    mine += part[i];
  }
  std::uint64_t through = mine;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const std::uint64_t other = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(through), d);
    if (lane >= d) through += other;
  }
  if (lane == 31) s.warp[warp] = through;
  __syncthreads();
  std::uint64_t above = through - mine, total = 0;
#pragma unroll
  for (int w = 0; w < Threads / 32; ++w) {
    if (w < warp) above += s.warp[w];
    total += s.warp[w];
  }
  target = target_of(total);
  if (target > total) {
    __syncthreads();
    return false;
  }
#pragma unroll
  for (int i = 0; i < held; ++i) {
    if (above < target && target <= above + part[i]) {
      s.bin = static_cast<std::uint32_t>(Bins - 1 - (thread * held + i));
      s.above = above;
      s.sum = part[i];
    }
    above += part[i];
  }
  __syncthreads();
  border = {s.bin, s.above, s.sum};
  __syncthreads();
  return true;
}

}  // namespace device
BI_NAMESPACE_END
