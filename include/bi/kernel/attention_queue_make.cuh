// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_queue.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_share.cuh"

// The queue of attention_queue.cuh: requests in the order of their lengths, and how many of them are dealt out. One thread block, of
// which each thread has a request.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct attention_queue_params {
  attention_split_params<T> split;
  device::attention_queue* queue;
  std::int32_t* order;  // requests, those with more leaves first
  std::int32_t blocks;  // that take items
};

inline constexpr int attention_queue_threads = device::attention_queue_requests;

struct attention_queue_make_memory {
  static constexpr int warps = attention_queue_threads / 32;
  std::int64_t keys[attention_queue_threads];
  std::int64_t sorted[attention_queue_threads];      // leaves of an item of the request at that place
  std::int64_t before[attention_queue_threads + 1];  // of an item of each request before
  std::int64_t sums[warps], best[warps];
  std::int32_t with_rows[warps];  // requests of a warp's that have rows
};

// Of the thread's request, an item of which has so many leaves: its place. Says how many requests have rows. By all threads.
BI_D inline int attention_queue_sort(attention_queue_make_memory& memory, std::int64_t leaves, int& requests) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  // Different for each request: of equal ones the first comes first.
  const std::int64_t key = leaves * attention_queue_threads + (attention_queue_threads - 1 - thread);
  memory.keys[thread] = key;
  const unsigned with_rows = __ballot_sync(device::full_warp, leaves > 0);
  if (lane == 0) memory.with_rows[warp] = __popc(with_rows);
  __syncthreads();
  int place = 0;
  const int all = requests;
#pragma unroll 8
  for (int r = 0; r < all; ++r) place += memory.keys[r] > key ? 1 : 0;
  if (thread < all) memory.sorted[place] = leaves;
  requests = 0;
#pragma unroll
  for (int w = 0; w < memory.warps; ++w) requests += memory.with_rows[w];
  __syncthreads();
  const std::int64_t own = thread < all ? memory.sorted[thread] : 0;
  std::int64_t to = attention_inclusive_sum<long long>(own, lane);
  if (lane == 31) memory.sums[warp] = to;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < memory.warps; ++w) to += w < warp ? memory.sums[w] : 0;
  memory.before[thread + 1] = to;
  if (thread == 0) memory.before[0] = 0;
  __syncthreads();
  return place;
}

// The smallest number of dealt requests of those that cost least. By all threads.
BI_D inline int attention_queue_dealt(attention_queue_make_memory& memory, int requests, std::int64_t heads,
                                      std::int64_t blocks) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto cost = [&](int dealt) {
    return device::attention_queue_cost(dealt, requests, heads, blocks, memory.sorted, memory.before);
  };
  constexpr std::int64_t numbers = 2 * attention_queue_threads;  // more than there are
  std::int64_t best = cost(requests) * numbers + requests;
  if (thread < requests) {
    const std::int64_t own = cost(thread) * numbers + thread;
    best = own < best ? own : best;
  }
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const std::int64_t other = __shfl_xor_sync(device::full_warp, static_cast<long long>(best), d);
    best = other < best ? other : best;
  }
  if (thread % 32 == 0) memory.best[thread / 32] = best;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < memory.warps; ++w) best = memory.best[w] < best ? memory.best[w] : best;
  return static_cast<int>(best % numbers);
}

template <class Contract, class T>
BI_KERNEL __launch_bounds__(attention_queue_threads) void attention_queue_make_kernel(
    [[maybe_unused]] const attention_queue_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900  // no launcher asks others for it
  __shared__ attention_queue_make_memory memory;
  device::launch_dependents();  // who takes from the queue waits for the end of this kernel
  const attention_params<T>& a = p.split.a;
  const int thread = static_cast<int>(threadIdx.x);
  const auto heads = static_cast<std::int32_t>(a.heads_kv);
  // Before the wait lengths are only a guess, nearly always a right one.
  attention_lengths lengths = attention_read_lengths(a, thread);
  for (bool sure = false;; sure = true) {
    int requests = static_cast<int>(a.batch.requests);
    const bool exists = thread < requests;
    const std::int64_t leaves = exists ? attention_request_item<Contract>(a, thread, lengths).leaves : 0;
    const int place = attention_queue_sort(memory, leaves, requests);
    const int dealt = attention_queue_dealt(memory, requests, heads, p.blocks);
    if (!sure) device::wait_for_dependencies();
    const attention_lengths now = sure ? lengths : attention_read_lengths(a, thread);
    const bool same = __syncthreads_and(now.equals(lengths) ? 1 : 0) != 0;  // and all have left memory
    lengths = now;
    if (!same) continue;
    if (exists) p.order[place] = thread;
    if (thread == 0) {
      p.queue->items = requests * heads;
      p.queue->first = dealt * heads;
      p.queue->taken = 0;
    }
    if (exists && place == dealt - 1) p.queue->dealt = {static_cast<std::int32_t>(leaves), thread};
    if (thread == 0 && dealt == 0) p.queue->dealt = {};
    return;
  }
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
