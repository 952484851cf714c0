// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_queue.cuh"
#include "bi/launch_attention_split.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/attention.hpp"

// The launcher of bi/kernel/attention_queue.cuh, and when it is picked.

BI_NAMESPACE_BEGIN
namespace launch_detail {

// Records of what is cut that so many blocks and the queue behind them take the place of.
inline std::int64_t attention_queue_records(std::int64_t blocks, std::int64_t requests) {
  const std::int64_t bytes = static_cast<std::int64_t>(sizeof(device::attention_queue)) + 4 * requests;
  const auto record = static_cast<std::int64_t>(sizeof(device::attention_cut));
  return blocks + (bytes + record - 1) / record;
}

// The kernel that makes the queue, the one whose blocks have shares of the longest requests' leaves and then whole items, and the one
// that folds what is cut.
template <class Contract, int HeadDim, class T>
status attention_queue(const attention_args<T>& a, const schedule::attention_schedule& s, void* data,
                       cuda_stream stream) {
  const attention_split_limits l = split_limits<Contract, HeadDim>(a.limits);
  const std::int64_t records = attention_queue_records(s.blocks, a.requests);
  checker c("attention");
  c.supported("schedule.row_warps", s.row_warps, s.row_warps == 1, "1 with a queue");
  c.supported("schedule.blocks", s.blocks, s.blocks > 0 && records <= schedule::attention_split_most_blocks,
              "so few that the queue has a place in the workspace");
  c.supported("requests", a.requests, a.requests <= device::attention_queue_requests, "at most 256 with a queue");
  c.supported("limits.heads_kv", a.limits.heads_kv, a.limits.heads_kv <= 1 << 20, "at most 2^20 with a queue");
  if (!c.ok()) return c.result();
  const schedule::attention_split_space space = schedule::attention_split_carve(
      s.blocks, l.leaves, l.total, l.rows, HeadDim, sizeof(device::attention_cut), records);
  kernel::attention_queue_params<T> p = {};
  p.split = make_split_params(a, l, space, data);
  p.queue = reinterpret_cast<device::attention_queue*>(p.split.partials.cuts + s.blocks);
  p.order = reinterpret_cast<std::int32_t*>(p.queue + 1);
  p.blocks = static_cast<std::int32_t>(s.blocks);
  constexpr auto bytes = kernel::attention_queue_bytes<Contract, HeadDim>;
  constexpr int most = longest_ring(kernel::attention_leaves_most_slots, split_shared_limit, bytes);
  static_assert(most >= kernel::attention_leaves_least_slots, "a leaf fits the rings");
  status st = take_stages(p.split, s.stages, kernel::attention_leaves_least_slots, most, most);
  if (!st) return st;
  launch_shape make;
  make.grid.x = 1;
  make.block.x = kernel::attention_queue_threads;
  make.programmatic = true;
  st = launch("attention", kernel::attention_queue_make_kernel<Contract, T>, make, p, stream);
  if (!st) return st;
  launch_shape grid;
  grid.grid.x = static_cast<unsigned>(s.blocks);
  grid.block.x = kernel::attention_leaves_threads;
  grid.shared_bytes = static_cast<std::size_t>(bytes(p.split.stages));
  grid.programmatic = true;
  st = launch("attention", kernel::attention_queue_kernel<Contract, T, HeadDim>, grid, p, stream);
  if (!st || s.blocks == 1 || l.leaves == 1) return st;  // nothing is cut
  return attention_fold<Contract, HeadDim>(p.split.a, p.split.partials, l, s.blocks, s.blocks, stream);
}

// Whether blocks take whole items from a queue, and s says so.
template <class Contract, int HeadDim, class T>
status pick_queue(const attention_args<T>& a, schedule::attention_schedule& s, std::int64_t processors) {
  if (s.kernel != schedule::attention_kernel::split || s.row_warps != 1 || s.cluster != 0 || s.whole_items) return {};
  if (a.requests > device::attention_queue_requests || a.limits.heads_kv > 1 << 20) return {};
  const std::int64_t leaves = split_limits<Contract, HeadDim>(a.limits).leaves;
  if (!schedule::attention_may_queue(processors, a.requests * a.limits.heads_kv, leaves)) return {};
  if (attention_queue_records(processors, a.requests) > schedule::attention_split_most_blocks) return {};
  bool found = false;
  const auto queue = kernel::attention_queue_kernel<Contract, T, HeadDim>;
  if (const status st = find_leaves_code(queue, found); !st || !found) return st;
  s.queued = true;
  s.blocks = processors;
  return {};
}

}  // namespace launch_detail
BI_NAMESPACE_END
