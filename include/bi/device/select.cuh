// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Histograms of 64-bit weights in shared memory, and running sums over a thread block: the parts of a radix selection.
// Sums of integers, so nothing depends on the order of the adds.

BI_NAMESPACE_BEGIN
namespace device {

template <int Bins>
struct weight_bins {
  std::uint32_t low[Bins];
  std::uint32_t high[Bins];

  BI_D std::uint64_t weight(int bin) const { return static_cast<std::uint64_t>(high[bin]) << 32 | low[bin]; }
};

// By all threads of a one-dimensional block; ends with a barrier.
template <int Threads, int Bins>
BI_D void clear_bins(weight_bins<Bins>& s) {
  for (int i = static_cast<int>(threadIdx.x); i < Bins; i += Threads) s.low[i] = s.high[i] = 0;
  __syncthreads();
}

// Two 32-bit adds instead of a 64-bit one, which is a loop of compare-and-swap in shared memory: every wrap of the low
// half is seen by exactly one thread, whatever the order.
template <int Bins>
BI_D void add_to_bin(weight_bins<Bins>& s, std::uint32_t bin, std::uint64_t weight) {
  const auto low = static_cast<std::uint32_t>(weight);
  const std::uint32_t before = atomicAdd(&s.low[bin], low);  // integer atomic: a sum modulo 2^32
  const std::uint32_t high = static_cast<std::uint32_t>(weight >> 32) + (before + low < before ? 1u : 0u);
  if (high != 0) atomicAdd(&s.high[bin], high);  // integer atomic: a sum modulo 2^32
}
// A weight of 1, in a histogram of fewer than 2^32 of them.
template <int Bins>
BI_D void count_in_bin(weight_bins<Bins>& s, std::uint32_t bin) {
  atomicAdd(&s.low[bin], 1u);  // integer atomic
}

// Two sums at once.
struct two_sums {
  std::uint64_t a, b;

  BI_D void add(const two_sums& other) { a += other.a, b += other.b; }
};
template <int Threads>
struct scan_scratch {
  two_sums warp[Threads / 32];
};

// The sums of `mine` over the threads before this one, and over all. By all threads of a one-dimensional block; ends
// with a barrier. Loops, not straight code, which would be fetched once and run once.
template <int Threads>
BI_D two_sums sums_before(const two_sums& mine, scan_scratch<Threads>& s, two_sums& total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  two_sums through = mine;
#pragma unroll 1
  for (int d = 1; d < 32; d *= 2) {
    const std::uint64_t a = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(through.a), d);
    const std::uint64_t b = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(through.b), d);
    if (lane >= d) through.add({a, b});
  }
  if (lane == 31) s.warp[warp] = through;
  __syncthreads();
  two_sums before = {through.a - mine.a, through.b - mine.b};
  total = {};
#pragma unroll 1
  for (int w = 0; w < Threads / 32; ++w) {
    const two_sums one = s.warp[w];
    if (w < warp) before.add(one);
    total.add(one);
  }
  __syncthreads();
  return before;
}

}  // namespace device
BI_NAMESPACE_END
