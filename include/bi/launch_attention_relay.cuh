// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_relay.cuh"
#include "bi/launch_attention_split.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/attention.hpp"

// The launcher of bi/kernel/attention_relay.cuh, and when it is picked.

BI_NAMESPACE_BEGIN
namespace launch_detail {

// The shape of attention_relay.cuh's clusters.
template <class Contract, int HeadDim, class T>
launch_shape relay_shape(std::int64_t clusters, int cluster, int stages) {
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(clusters * cluster);
  shape.block.x = kernel::attention_leaves_threads;
  shape.shared_bytes = static_cast<std::size_t>(kernel::attention_relay_bytes<Contract, HeadDim>(stages));
  shape.programmatic = true;
  shape.cluster = static_cast<unsigned>(cluster);
  return shape;
}
template <class Contract, int HeadDim>
inline constexpr int most_relay_stages = longest_ring(kernel::attention_leaves_most_slots, split_shared_limit,
                                                      kernel::attention_relay_bytes<Contract, HeadDim>);

// A cluster for each of the first items, and blocks by themselves for the others; or those that fold what is cut.
template <class Contract, int HeadDim, class T>
status attention_relay(const attention_args<T>& a, const schedule::attention_schedule& s, void* data,
                       cuda_stream stream) {
  const attention_split_limits l = split_limits<Contract, HeadDim>(a.limits);
  const std::int64_t in_clusters = s.blocks - s.singles;
  checker c("attention");
  c.supported("schedule.row_warps", s.row_warps, s.row_warps == 1, "1 with blocks beside clusters");
  c.supported("schedule.cluster", s.cluster, s.cluster == 2 || s.cluster == 4 || s.cluster == 8 || s.cluster == 16,
              "2, 4, 8 or 16");
  c.supported(
      "schedule.blocks", s.blocks,
      s.blocks + s.singles < schedule::attention_split_most_blocks && in_clusters > 0 && in_clusters % s.cluster == 0,
      "whole clusters and schedule.singles, below 256 with these counted twice");
  c.supported("schedule.singles", s.singles, s.singles > 0 && s.singles <= in_clusters,
              "from 1 up to the blocks in clusters");
  c.supported("requests", a.requests, a.requests <= kernel::attention_share_requests,
              "at most 64 with blocks beside clusters");
  c.supported("limits.heads_kv", a.limits.heads_kv, a.limits.heads_kv <= 1 << 20,
              "at most 2^20 with blocks beside clusters");
  if (!c.ok()) return c.result();
  const schedule::attention_split_space space = schedule::attention_split_carve(
      s.blocks, l.leaves, l.total, l.rows, HeadDim, sizeof(device::attention_cut), s.blocks + s.singles + 1);
  kernel::attention_relay_params<T> p = {};
  p.split = make_split_params(a, l, space, data);
  p.rest_cuts = p.split.partials.cuts + s.blocks;
  p.through = reinterpret_cast<std::int32_t*>(p.rest_cuts + s.singles);
  p.shape.cluster = s.cluster;
  p.shape.clusters = static_cast<std::int32_t>(in_clusters / s.cluster);
  p.shape.singles = s.singles;
  p.shape.least = s.least_leaves;
  constexpr int most = most_relay_stages<Contract, HeadDim>;
  static_assert(most >= kernel::attention_leaves_least_slots, "a leaf fits the rings");
  if (const status st = take_stages(p.split, s.stages, kernel::attention_leaves_least_slots, most, most); !st)
    return st;
  launch_shape shape = relay_shape<Contract, HeadDim, T>(p.shape.clusters, s.cluster, p.split.stages);
  const auto relay = kernel::attention_relay_kernel<Contract, T, HeadDim>;
  if (const status st = launch("attention", relay, shape, p, stream); !st) return st;
  p.is_single = true;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.cluster = 1;
  return launch("attention", relay, shape, p, stream);
}
// Whether a few long items have a cluster each, and s says how.
template <class Contract, int HeadDim, class T>
status pick_relay(const attention_args<T>& a, schedule::attention_schedule& s, std::int64_t processors) {
  if (s.kernel != schedule::attention_kernel::split || s.row_warps != 1 || s.cluster != 0 || s.whole_items) return {};
  const attention_split_limits l = split_limits<Contract, HeadDim>(a.limits);
  const std::int64_t items = a.requests * a.limits.heads_kv;
  const int cluster = schedule::attention_relay_cluster(processors, items, l.leaves, l.rows);
  if (cluster == 0 || a.requests > kernel::attention_share_requests) return {};
  bool found = false;
  const auto relay = kernel::attention_relay_kernel<Contract, T, HeadDim>;
  if (const status st = find_leaves_code(relay, found); !st || !found) return st;
  int clusters = 0;
  const launch_shape shape = relay_shape<Contract, HeadDim, T>(1, cluster, most_relay_stages<Contract, HeadDim>);
  if (const status st = find_clusters_at_once("attention", relay, shape, clusters); !st) return st;
  schedule::make_attention_relay(s, processors, items, cluster, clusters);
  return {};
}

}  // namespace launch_detail
BI_NAMESPACE_END
