// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_queue.cuh"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/store.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_mma.cuh"

// What attention_leaves.cuh, attention_split.cuh and attention_fold.cuh have in common: how a block finds its share of all
// leaves, and where results go.

BI_NAMESPACE_BEGIN
namespace kernel {

// Partial results: of place i, row r and column d (m, l) at ml[2 (i * rows + r)] and o at o[(i * rows + r) * head_dim + d].
struct attention_partials {
  float* ml;
  float* o;
  device::attention_cut* cuts;  // of each block
  device::attention_places places;
  std::int64_t rows;
  bool by_item;  // cuts has a record of each item, from the block that the item begins in; otherwise of each block
};

// Whether leaves that follow an item's first ones in another share stay apart, which the contracts' trees ask for. A
// benchmark says no for a contract of its own, to see what that costs: its bits depend on the batch.
template <class Contract>
inline constexpr bool attention_leaves_apart = true;

template <class T>
struct attention_split_params {
  attention_params<T> a;
  attention_partials partials;
  std::int32_t stages;  // of the ring, or slots of each ring of attention_leaves.cuh
};

// What a block knows of its share, in shared memory.
template <int Threads>
struct attention_share_memory {
  std::int64_t sums[Threads / 32];
  std::int64_t found[3];  // a request, the leaves of the requests before it, its own
  std::int64_t end, total;
};

// Sum: an integer that __shfl_up_sync takes.
template <class Sum>
BI_D Sum attention_inclusive_sum(Sum x, int lane) {
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const Sum below = __shfl_up_sync(device::full_warp, x, d);
    if (lane >= d) x += below;
  }
  return x;
}

// What the items of a request see, one for each head.
template <class Contract, class T>
BI_D device::attention_item attention_request_item(const attention_params<T>& p, std::int64_t request) {
  return device::make_attention_item<Contract>(device::attention_request_rows(p.batch, request), p.len[request],
                                               p.causal, p.window);
}

// The lengths of a request, as they are now: before a kernel waits for those that may write them they are only a guess.
struct attention_lengths {
  std::int32_t first = 0, end = 0, len = 0;  // rows of the batch, tokens of the view

  BI_D bool equals(const attention_lengths& b) const { return first == b.first && end == b.end && len == b.len; }
  BI_D attention_lengths of_lane(int lane) const {
    const auto from = [&](std::int32_t x) { return __shfl_sync(device::full_warp, x, lane); };
    return {from(first), from(end), from(len)};
  }
};
template <class T>
BI_D attention_lengths attention_read_lengths(const attention_params<T>& p, std::int64_t request) {
  if (request < 0 || request >= p.batch.requests) return {};
  const std::int32_t* const q_start = p.batch.q_start;
  const auto row = static_cast<std::int32_t>(request);
  return {q_start != nullptr ? device::load_l2(q_start + request) : row,
          q_start != nullptr ? device::load_l2(q_start + request + 1) : row + 1, device::load_l2(p.len + request)};
}
// After the wait, so that the L1 cache may have them.
template <class T>
BI_D attention_lengths attention_lengths_of(const attention_params<T>& p, std::int64_t request) {
  return {static_cast<std::int32_t>(p.batch.first(request)), static_cast<std::int32_t>(p.batch.first(request + 1)),
          p.len[request]};
}
template <class Contract, class T>
BI_D device::attention_item attention_request_item(const attention_params<T>& p, std::int64_t request,
                                                   const attention_lengths& l) {
  return device::make_attention_item<Contract>(device::attention_request_rows(p.batch, request, l.first, l.end), l.len,
                                               p.causal, p.window);
}

// What the folding kernel is told of the run in hand, of a request with some rows and len tokens; one thread says it of each
// run, one after the other. By block only of the last, the only one that others may go on with: what is there until then is
// nearly always the same of the call before, and blocks that fold may read it.
BI_D inline void attention_tell_cut(const attention_partials& partials, std::int64_t heads_kv,
                                    const device::attention_walk& walk, const device::attention_row_tile& rows,
                                    std::int64_t len, std::int64_t end, std::int64_t total) {
  const device::attention_run& run = walk.run;
  if (partials.by_item ? !run.is_first() : walk.more()) return;
  const std::int64_t at = partials.by_item ? run.request * heads_kv + run.head : blockIdx.x;
  partials.cuts[at] =
      device::make_attention_cut(run, blockIdx.x, end, total, rows.first_row, rows.first_row + rows.q_len, len);
}

// To the run after walk.run. Requests: those whose leaves are in the list, see attention_queue.cuh.
template <class Contract, class T, class Requests = device::attention_all_requests>
BI_D void attention_share_next(const attention_params<T>& p, device::attention_walk& walk,
                               const Requests& requests = {}) {
  const auto leaves_of = [&](std::int64_t request) {
    return requests.dealt(request, attention_request_item<Contract>(p, request).leaves);
  };
  walk.next(p.heads_kv, leaves_of, p.whole_items);
}
// A warp finds the share of so many requests by itself: it waits for no other. Lane i has the lengths of requests i and 32 + i.
inline constexpr int attention_share_requests = 64;
struct attention_lane_lengths {
  attention_lengths low, high;

  BI_D bool equals(const attention_lane_lengths& b) const { return low.equals(b.low) && high.equals(b.high); }
  BI_D attention_lengths of(std::int64_t request) const {
    const int lane = static_cast<int>(request % 32);
    const attention_lengths a = low.of_lane(lane), b = high.of_lane(lane);
    return request < 32 ? a : b;
  }
};
template <class T>
BI_D attention_lane_lengths attention_read_lane_lengths(const attention_params<T>& p, int lane) {
  return {attention_read_lengths(p, lane), attention_read_lengths(p, 32 + lane)};
}

// Leaves of one item of so many requests, as a warp has them.
struct attention_lane_leaves {
  int low, high, to_low, to_high;  // of the lane's two requests; up to them, them too

  template <class Contract, class T, class Requests = device::attention_all_requests>
  BI_D static attention_lane_leaves find(const attention_params<T>& p, const attention_lane_lengths& l, int lane,
                                         const Requests& requests = {}) {
    const auto of_lane = [&](const attention_lengths& x, int request) {
      if (request >= p.batch.requests) return 0;
      return static_cast<int>(requests.dealt(request, attention_request_item<Contract>(p, request, x).leaves));
    };
    attention_lane_leaves s;
    s.low = of_lane(l.low, lane), s.high = of_lane(l.high, 32 + lane);
    s.to_low = attention_inclusive_sum(s.low, lane);
    s.to_high = attention_inclusive_sum(s.high, lane) + __shfl_sync(device::full_warp, s.to_low, 31);
    return s;
  }
  BI_D int all() const { return __shfl_sync(device::full_warp, to_high, 31); }
  BI_D int of(std::int64_t request) const { return of(low, high, request); }
  // The one that leaf i of one item each lies in.
  BI_D int find_request(int i) const {
    const unsigned in_low = __ballot_sync(device::full_warp, i < to_low),
                   in_high = __ballot_sync(device::full_warp, i < to_high);
    return in_low != 0 ? __ffs(static_cast<int>(in_low)) - 1 : 31 + __ffs(static_cast<int>(in_high));
  }
  BI_D int before(std::int64_t request) const { return of(to_low - low, to_high - high, request); }

 private:
  BI_D static int of(int x, int y, std::int64_t i) {
    const int lane = static_cast<int>(i % 32);
    const int a = __shfl_sync(device::full_warp, x, lane), b = __shfl_sync(device::full_warp, y, lane);
    return i < 32 ? a : b;
  }
};

// One block's share, which ends at leaf `end` of `total`, by a warp. Leaves walk.run.count == 0 if the share is empty.
template <class Contract, class T, class Requests = device::attention_all_requests>
BI_D void attention_share_of_warp(const attention_params<T>& p, const attention_lane_lengths& l, int lane,
                                  device::attention_walk& walk, std::int64_t& end, std::int64_t& total,
                                  const Requests& requests = {}) {
  const auto leaves = attention_lane_leaves::find<Contract>(p, l, lane, requests);
  total = leaves.all() * p.heads_kv;
  const device::attention_shares shares(total, gridDim.x);
  const std::int64_t begin = shares.begin(blockIdx.x);
  end = shares.begin(blockIdx.x + 1);
  walk.run.count = 0;
  if (begin == end) return;
  const std::int64_t request = leaves.find_request(static_cast<int>(device::attention_divide(begin, p.heads_kv)));
  walk.start(begin, end, request, leaves.before(request) * p.heads_kv, leaves.of(request), p.whole_items, p.heads_kv,
             [&](std::int64_t i) { return leaves.of(i); });
}

// One block's share, found by all its threads. Leaves walk.run.count == 0 if the share is empty.
template <class Contract, class T, int Threads, class Requests = device::attention_all_requests>
BI_D void attention_share_start(const attention_params<T>& p, attention_share_memory<Threads>& memory,
                                device::attention_walk& walk, const Requests& requests = {}) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto leaves_of = [&](std::int64_t request) -> std::int64_t {
    if (request >= p.batch.requests) return 0;
    return requests.dealt(request, attention_request_item<Contract>(p, request).leaves);
  };
  if (p.batch.requests <= attention_share_requests) {
    std::int64_t end, total;
    attention_share_of_warp<Contract>(p, attention_read_lane_lengths(p, lane), lane, walk, end, total, requests);
    if (thread == 0) {
      memory.end = end;
      memory.total = total;
    }
    return;
  }
  // Each thread sums a piece of the requests; if it is more than one, a warp then searches the piece that has the share's
  // first leaf.
  const std::int64_t each = (p.batch.requests + Threads - 1) / Threads, first = thread * each;
  std::int64_t own = 0;
  for (std::int64_t i = 0; i < each; ++i) own += leaves_of(first + i);
  std::int64_t end = attention_inclusive_sum<long long>(own, lane);
  if (lane == 31) memory.sums[warp] = end;
  __syncthreads();
  constexpr int warps = Threads / 32;
  const std::int64_t sums = attention_inclusive_sum<long long>(lane < warps ? memory.sums[lane] : 0, lane);
  const std::int64_t total = __shfl_sync(device::full_warp, static_cast<long long>(sums), 31);
  const std::int64_t below = __shfl_sync(device::full_warp, static_cast<long long>(sums), warp > 0 ? warp - 1 : 0);
  if (warp > 0) end += below;
  const device::attention_shares shares(total * p.heads_kv, gridDim.x);
  const std::int64_t begin = shares.begin(blockIdx.x), share_end = shares.begin(blockIdx.x + 1);
  walk.run.count = 0;
  if (begin == share_end) return;
  if (thread == 0) {
    memory.end = share_end;
    memory.total = shares.total;
  }
  const std::int64_t target = device::attention_divide(begin, p.heads_kv);
  if (target >= end - own && target < end) {
    memory.found[0] = first;
    memory.found[1] = end - own;
    memory.found[2] = own;
  }
  __syncthreads();
  std::int64_t request = memory.found[0], sum = memory.found[1];
  if (each == 1) {
    walk.start(begin, share_end, request, sum * p.heads_kv, memory.found[2], p.whole_items, p.heads_kv, leaves_of);
    return;
  }
  for (;;) {
    const std::int64_t leaves = leaves_of(request + lane), to = sum + attention_inclusive_sum<long long>(leaves, lane);
    const unsigned beyond = __ballot_sync(device::full_warp, target < to);
    if (beyond != 0) {
      const int at = __ffs(static_cast<int>(beyond)) - 1;
      const std::int64_t from = __shfl_sync(device::full_warp, static_cast<long long>(to - leaves), at);
      walk.start(begin, share_end, request + at, from * p.heads_kv,
                 __shfl_sync(device::full_warp, static_cast<long long>(leaves), at), p.whole_items, p.heads_kv,
                 leaves_of);
      return;
    }
    sum = __shfl_sync(device::full_warp, static_cast<long long>(to), 31);
    request += 32;
  }
}

// A thread's columns of packed row `row`, 8 j + 2 t + e from `column` on, as a partial result. o(2 j + e): their values.
// stays: in the L2 cache, see attention_stays.
template <int HeadDim, int Blocks, class Value>
BI_D void attention_give(const attention_partials& partials, std::int64_t place, int row, int column, int lane, float m,
                         float l, const Value& o, bool stays = false) {
  const std::int64_t i = place * partials.rows + row;
  if (column == 0 && lane % 4 == 0) *reinterpret_cast<float2*>(partials.ml + 2 * i) = make_float2(m, l);
  float* target = partials.o + i * HeadDim + column + lane % 4 * 2;
  const std::uint64_t policy = stays ? device::policy_evict_last() : device::policy_evict_normal();
#pragma unroll
  for (int j = 0; j < Blocks; ++j) {
    device::store_global_8(reinterpret_cast<float2*>(target + 8 * j), make_float2(o(2 * j), o(2 * j + 1)), policy);
  }
}

// The same as the row's result.
template <class Contract, int Blocks, class T, class Value>
BI_D void attention_write(const attention_params<T>& a, const device::attention_row_tile& rows, std::int64_t head_kv,
                          int row, int column, int lane, float m, float l, const Value& o) {
  const std::int64_t token = rows.first_row + rows.token(row), head = head_kv * rows.group + rows.head(row);
  if (a.lse != nullptr && column == 0 && lane % 4 == 0) {
    a.lse[token * a.lse_token_stride + head] = Contract::lse(m, l);
  }
  const float inverse = Contract::inverse(l);
  T* target = a.out + token * a.out_token_stride + head * a.out_head_stride + column + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < Blocks; ++j) {
    const T low = Contract::template finish<T>(o(2 * j), l, inverse);
    const T high = Contract::template finish<T>(o(2 * j + 1), l, inverse);
    if (a.out_aligned) {
      *reinterpret_cast<std::uint32_t*>(target + 8 * j) = low.bits | static_cast<std::uint32_t>(high.bits) << 16;
    } else {
      target[8 * j] = low;
      target[8 * j + 1] = high;
    }
  }
}

// Four consecutive columns, the first a multiple of 4.
template <class Contract, class T>
BI_D void attention_write_four(const attention_params<T>& a, const device::attention_row_tile& rows,
                               std::int64_t head_kv, int row, int column, float m, float l, const float (&o)[4]) {
  const std::int64_t token = rows.first_row + rows.token(row), head = head_kv * rows.group + rows.head(row);
  if (a.lse != nullptr && column == 0) a.lse[token * a.lse_token_stride + head] = Contract::lse(m, l);
  const float inverse = Contract::inverse(l);
  T* const target = a.out + token * a.out_token_stride + head * a.out_head_stride + column;
  std::uint32_t x[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) x[c] = Contract::template finish<T>(o[c], l, inverse).bits;
  if (a.out_aligned) {
    *reinterpret_cast<uint2*>(target) = make_uint2(x[0] | x[1] << 16, x[2] | x[3] << 16);
  } else {
#pragma unroll
    for (int c = 0; c < 4; ++c) target[c].bits = static_cast<std::uint16_t>(x[c]);
  }
}

}  // namespace kernel
BI_NAMESPACE_END
