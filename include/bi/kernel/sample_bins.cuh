// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/row.cuh"
#include "bi/kernel/sample_border.cuh"
#include "bi/kernel/sample_row.cuh"

// Bins of a row's values, as they lie for top-k and top-p, and what is made of them while the first pass goes on.

BI_NAMESPACE_BEGIN
namespace kernel {

BI_D inline bool needs_border(const sample_plan& plan) { return plan.top_k != 0 || less(plan.top_p, 1.0f); }

// What a pass found, in the memory of the block. Followed by a barrier.
BI_D inline void keep_most(float most, sample_memory& m, sample_found& now) {
  const bool nan = is_nan(most);
  const std::uint32_t key = __reduce_max_sync(device::full_warp, contract::ordered_key(most));
  if (nan) now.nan = 1;
  if (threadIdx.x % 32 == 0) atomicMax(&m.cut.largest, key);  // integer atomic
}

// A token this far below the largest weighs 2^44 exp(-64) < 1, nothing, and loses to it by more than all noise.
inline constexpr float far_below = 64.0f;

// Of what bins say of a value: their edges are off by some roundings, and the sum of weights by some thousandths of a
// bin.
BI_D inline float bin_slack(const device::value_bins& bins) {
  return fma_rn(bins.range, 0.02f / sample_counts, mul_rn(0x1p-20f, max_num(abs(bins.top), bins.range)));
}

// A row starts: bins that are about as wide as the row's values are spread, from a sample that all blocks take. Ends with
// a barrier.
template <class Contract, class T>
BI_D __noinline__ void choose_bins(const device::row_part<T> part, int vocab, float inverse, int first_bins,
                                   sample_memory& m) {
  constexpr int width = device::row_part<T>::width;
  const int thread = static_cast<int>(threadIdx.x), words = vocab / width;
  const device::row_part<T> row = {part.x - part.first, 0, vocab, part.aligned};
  device::packed_words some = {};
  if (words > 0) some = row.load(thread * words / sample_threads * width, no_logit<T>());
  auto* const counts = reinterpret_cast<uint4*>(m.counts);
#pragma unroll
  for (int i = 0; i < device::value_bin_count / 4 / sample_threads; ++i) {
    counts[thread + i * sample_threads] = make_uint4(0, 0, 0, 0);
  }
  if (thread == 0) {
    m.cut.most = m.cut.least = m.cut.largest = 0;
    m.cut.outliers = m.cut.listed = 0;
    m.cut.first_bins = first_bins;
    m.once.listed = 0, m.once.settles = false;
    m.once.from = neg_inf_f32();
    m.cut.low = least_candidate(), m.cut.high = inf_f32();
  }
  __syncthreads();
  if (words > 0) {
    std::uint32_t most = 0, least = 0;
#pragma unroll
    for (int e = 0; e < width; ++e) {
      const float x = scaled_max<Contract>(row.element(some, e), inverse);
      if (!greater(x, neg_inf_f32())) continue;
      const std::uint32_t key = contract::ordered_key(x);
      most = key > most ? key : most;
      least = ~key > least ? ~key : least;
    }
    most = __reduce_max_sync(device::full_warp, most);
    least = __reduce_max_sync(device::full_warp, least);
    if (thread % 32 == 0 && most != 0) {
      atomicMax(&m.cut.most, most);    // integer atomic
      atomicMax(&m.cut.least, least);  // integer atomic
    }
  }
  __syncthreads();
  if (thread == 0) {
    device::value_bins bins = {0.0f, 1.0f};
    if (m.cut.most != 0) {
      const float most = float_of_key(m.cut.most);
      // Nothing that is much lower counts, be it there to be ruled out.
      const float range = min_nan(sub_rn(most, float_of_key(~m.cut.least)), 64.0f);
      bins.range = max_num(mul_rn(1.25f, range), max_num(mul_rn(abs(most), 0x1p-10f), 1e-30f));
      bins.top = fma_rn(0.2f, bins.range, most);
    }
    m.cut.bins = bins;
    m.cut.scale = bins.scale(), m.cut.offset = bins.offset();
    // A little early: the bin itself decides.
    m.cut.outlier = first_bins > 0 ? sub_rn(edge_of(bins, float_from_int(first_bins)), bins.slack()) : inf_f32();
  }
  __syncthreads();
}

// A thread's bins in a message, 16 bits each. What is more than that is counted as less: the sum is too small then, but
// not less than most_counted.
inline constexpr int counts_each = sample_counts / sample_bin_messages;
inline constexpr std::uint32_t most_counted = 0xffffu;
static_assert(sample_fine == 4, "a vector of counters each");
// Calls fn(i, the four counters of bin i of the thread's). Threads begin at different ones: no bank has two of them.
template <class Fn>
BI_D void for_counts(const sample_memory& m, Fn fn) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto* const mine = reinterpret_cast<const uint4*>(m.counts) + thread * counts_each;
#pragma unroll
  for (int i = 0; i < counts_each; ++i) {
    const int at = (i + thread) % counts_each;
    fn(at, mine[at]);
  }
}
BI_D inline device::message pack_counts(const sample_memory& m) {
  std::uint64_t low = 0, high = 0;
  for_counts(m, [&](int i, const uint4& c) {
    const std::uint32_t sum = c.x + c.y + c.z + c.w;
    const std::uint64_t count = static_cast<std::uint64_t>(sum < most_counted ? sum : most_counted)
                                << (16 * (i % (counts_each / 2)));
    (i < counts_each / 2 ? low : high) |= count;
  });
  return {low, high};
}

// ---- a small top-k

// Sets m.cut.low to a value that, by a sample that all blocks take, almost certainly more than k tokens have or exceed, but
// not many more. All threads; ends with a barrier.
template <class Contract, class T>
BI_D __noinline__ void choose_low(const device::row_part<T> part, int vocab, const sample_plan& plan,
                                  sample_memory& m) {
  constexpr int width = device::row_part<T>::width, sampled = 4096, words_each = sampled / sample_threads / width;
  const int thread = static_cast<int>(threadIdx.x), words = vocab / width;
  const device::row_part<T> row = {part.x - part.first, 0, vocab, part.aligned};
  device::packed_words some[words_each] = {};
#pragma unroll
  for (int w = 0; w < words_each; ++w) {
    const int i = w * sample_threads + thread;
    if (words > 0) some[w] = row.load(i * words / (words_each * sample_threads) * width, no_logit<T>());
  }
  m.bins.low[thread] = 0;
  if (thread == 0) {
    m.cut.most = m.cut.least = m.cut.largest = 0;
    m.cut.listed = 0;
    m.once.settles = false;
    m.cut.low = least_candidate();
  }
  __syncthreads();
  const auto value = [&](int i) {
    return words > 0 ? scaled_max<Contract>(row.element(some[i / width], i % width), plan.inverse) : neg_inf_f32();
  };
  float own_most = neg_inf_f32(), own_least = inf_f32();
#pragma unroll
  for (int i = 0; i < words_each * width; ++i) {
    own_most = max_num(own_most, value(i));
    own_least = min_nan(own_least, greater(value(i), neg_inf_f32()) ? value(i) : inf_f32());
  }
  const std::uint32_t most = __reduce_max_sync(device::full_warp, contract::ordered_key(own_most));
  const std::uint32_t least = __reduce_max_sync(device::full_warp, ~contract::ordered_key(own_least));
  if (thread % 32 == 0) {
    atomicMax(&m.cut.most, most);    // integer atomic
    atomicMax(&m.cut.least, least);  // integer atomic
  }
  __syncthreads();
  const float largest = float_of_key(m.cut.most);
  const float cell = mul_rn(min_nan(sub_rn(largest, float_of_key(~m.cut.least)), far_below), 1.0f / sample_threads);
  const float per_cell = div_rn(1.0f, cell);
#pragma unroll
  for (int i = 0; i < words_each * width; ++i) {
    if (!greater(value(i), neg_inf_f32())) continue;
    const float at = min_nan(max_num(mul_rn(sub_rn(largest, value(i)), per_cell), 0.0f), sample_threads - 1.0f);
    atomicAdd(&m.bins.low[uint64_from_float_rz(at)], 1u);  // integer atomic
  }
  __syncthreads();
  // Sampled are Poisson's, whose deviation is the root.
  const float first = div_rn(mul_rn(float_from_int(plan.top_k), static_cast<float>(sampled)), float_from_int(vocab));
  const std::uint64_t goal = uint64_from_float_rz(add_rn(fma_rn(4.0f, sqrt_rn(first), first), 6.0f));
  const two_sums mine = {m.bins.low[thread], 0};
  two_sums total;
  const two_sums before = device::sums_before(mine, m.scan, total);
  if (before.a < goal && before.a + mine.a >= goal) {
    m.cut.low = max_num(fma_rn(cell, float_from_int(-1 - thread), largest), least_candidate());
  }
  __syncthreads();
}

}  // namespace kernel
BI_NAMESPACE_END
