// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_clusters.cuh"
#include "bi/kernel/attention_fold.cuh"
#include "bi/kernel/attention_leaves.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_relay.cuh"
#include "bi/kernel/attention_split.cuh"
#include "bi/launch_attention_prefill.cuh"
#include "bi/launch_attention_shared.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/attention.hpp"

// Definitions of what bi/attention.hpp declares. Instantiate each type that a program uses in one .cu file:
//   BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128>);
//   BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128, bi::contract::attention_soft_cap_v1<bi::bf16>>);
//
// Arrays that break the rules, which only the device can see: a page id or slot outside the cache, or past the view's
// storage, counts as a token whose K and V are 0; rows that q_start puts outside the batch are left out; a request with
// more rows than limits.max_q_len, or q_start that decreases, leaves rows unwritten. None of it makes a kernel write
// elsewhere.

#define BI_INSTANTIATE_ATTENTION(...) template struct __VA_ARGS__

BI_NAMESPACE_BEGIN

namespace launch_detail {

template <class Contract, class T, int HeadDim, int RowWarps>
status attention_mma(const kernel::attention_params<T>& p, std::int64_t blocks, cuda_stream stream) {
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(blocks);
  shape.block.x = kernel::attention_mma_shape<HeadDim, RowWarps>::threads;
  shape.shared_bytes = sizeof(kernel::attention_mma_memory<T, HeadDim, RowWarps>);
  return launch("attention", kernel::attention_mma_kernel<Contract, T, HeadDim, RowWarps>, shape, p, stream);
}

// Whether a thread block may have that much shared memory on the current device.
inline status has_shared_memory(std::size_t bytes, bool& has) {
  int limit = 0;
  const status st = current_device_attribute("attention", "cudaDeviceGetAttribute(MaxSharedMemoryPerBlockOptin)",
                                             cudaDevAttrMaxSharedMemoryPerBlockOptin, limit);
  has = bytes <= static_cast<std::size_t>(limit);
  return st;
}

template <class T>
kernel::attention_params<T> make_attention_params(const attention_args<T>& a) {
  const attention_strides q = q_strides(a), out = out_strides(a);
  const cache_strides k = k_strides(a.cache), v = v_strides(a.cache);
  kernel::attention_params<T> p = {};
  p.q = a.q;
  p.k = a.cache.k;
  p.v = a.cache.v;
  p.out = a.out;
  p.lse = a.lse;
  p.len = a.len;
  p.batch.q_start = a.q_start;
  p.batch.requests = a.requests;
  p.batch.rows = a.rows;
  p.batch.group = a.limits.heads_q / a.limits.heads_kv;
  p.view = device::make_view_source(a.view, a.cache);
  p.q_token_stride = q.token;
  p.q_head_stride = q.head;
  p.out_token_stride = out.token;
  p.out_head_stride = out.head;
  p.lse_token_stride = a.lse_token_stride == 0 ? a.limits.heads_q : a.lse_token_stride;
  p.k_page_stride = k.page;
  p.k_token_stride = k.token;
  p.k_head_stride = k.head;
  p.v_page_stride = v.page;
  p.v_token_stride = v.token;
  p.v_head_stride = v.head;
  p.heads_kv = a.limits.heads_kv;
  p.window = a.window;
  p.scale = a.scale;
  p.soft_cap = a.soft_cap;
  p.causal = a.mask == attention_mask::causal;
  using device::vector_aligned;
  p.q_aligned = vector_aligned(a.q, q.token) && vector_aligned(a.q, q.head);
  p.out_aligned = vector_aligned(a.out, out.token) && vector_aligned(a.out, out.head);
  p.k_aligned = vector_aligned(p.k, k.page) && vector_aligned(p.k, k.token) && vector_aligned(p.k, k.head);
  p.v_aligned = vector_aligned(p.v, v.page) && vector_aligned(p.v, v.token) && vector_aligned(p.v, v.head);
  return p;
}

// At most this many row warps; 2 at head_dim 256 need more shared memory than every architecture has.
template <int HeadDim>
inline constexpr int most_row_warps = HeadDim == 256 ? 2 : 4;

// The split schedule's numbers, from the limits alone.
struct attention_split_limits {
  std::int64_t leaves, total, rows;
};
template <class Contract, int HeadDim>
attention_split_limits split_limits(const attention_limits& l) {
  const auto product = [](std::int64_t a, std::int64_t b) {
    constexpr std::int64_t most = std::int64_t{1} << 40;  // beyond what matters
    return b > 0 && a > most / b ? most : a * b;
  };
  attention_split_limits s = {};
  s.leaves = Contract::end_leaf(l.max_view) > 1 ? Contract::end_leaf(l.max_view) : 1;
  s.total = product(l.max_requests, s.leaves);
  if (l.max_view_sum > 0) {
    // Tokens in a row may lie in two leaves more than fill them.
    const std::int64_t by_sum = l.max_view_sum / Contract::leaf;
    s.leaves = by_sum + 2 < s.leaves ? by_sum + 2 : s.leaves;
    s.total = by_sum + 2 * l.max_requests < s.total ? by_sum + 2 * l.max_requests : s.total;
  }
  s.total = product(s.total, l.heads_kv);
  const std::int64_t packed = product(l.max_q_len, l.heads_q / l.heads_kv);
  s.rows = packed < 16 * most_row_warps<HeadDim> ? packed : 16 * most_row_warps<HeadDim>;
  return s;
}

// What the split schedule's kernels take whose partial results lie in a workspace.
template <class T>
kernel::attention_split_params<T> make_split_params(const attention_args<T>& a, const attention_split_limits& l,
                                                    const schedule::attention_split_space& space, void* data) {
  kernel::attention_split_params<T> p = {};
  p.a = make_attention_params(a);
  p.a.batch.tile_rows = static_cast<std::int32_t>(l.rows);
  p.a.batch.one_tile_each = true;
  auto* const bytes = static_cast<unsigned char*>(data);
  p.partials.cuts = reinterpret_cast<device::attention_cut*>(bytes);
  p.partials.ml = reinterpret_cast<float*>(bytes + space.records);
  p.partials.o = reinterpret_cast<float*>(bytes + space.records + space.ml);
  p.partials.places.a_block = space.places_a_block;
  p.partials.rows = l.rows;
  return p;
}

// Whether attention_leaves.cuh has a kernel for requests of at most 16 packed rows.
template <int HeadDim>
inline constexpr bool has_leaves_kernel = HeadDim <= 128;

// The longest ring, up to `most`, whose shared memory is within the limit.
template <class Bytes>
constexpr int longest_ring(int most, std::int64_t shared_limit, const Bytes& bytes) {
  int stages = 0;
  while (stages < most && bytes(stages + 1) <= shared_limit) ++stages;
  return stages;
}

// H100's; what is picked runs on devices that have no less.
inline constexpr std::int64_t split_shared_limit = 227 * 1024;

// The stages asked for, or with 0 as many as there can be; p has them then.
template <class T>
status take_stages(kernel::attention_split_params<T>& p, int asked, int least, int most) {
  p.stages = asked != 0 ? asked : most;
  checker c("attention");
  c.supported("schedule.stages", p.stages, least <= p.stages && p.stages <= most, "what the kernel's rings can have");
  return c.result();
}

// Whether the code of attention_leaves.cuh, or of a kernel like it, that this device runs was built for sm_90a. Otherwise it is
// a trap, which takes few registers; the kernels have all that 512 threads can have.
template <class Params>
status find_leaves_code(void (*kernel)(Params), bool& found) {
  cudaFuncAttributes attributes = {};
  const status st = find_kernel_attributes("attention", kernel, attributes);
  found = st && attributes.numRegs > 64;
  return st;
}

// A ring of attention_leaves.cuh, of attention_clusters.cuh, and the launch.
template <class T, class Bytes>
status launch_leaves(void (*kernel)(kernel::attention_split_params<T>), kernel::attention_split_params<T>& p,
                     const schedule::attention_schedule& s, int most, const Bytes& bytes, cuda_stream stream) {
  if (const status st = take_stages(p, s.stages, kernel::attention_leaves_least_slots, most); !st) return st;
  launch_shape grid;
  grid.grid.x = static_cast<unsigned>(s.blocks);
  grid.block.x = kernel::attention_leaves_threads;
  grid.shared_bytes = static_cast<std::size_t>(bytes(p.stages));
  grid.programmatic = true;
  if (s.cluster > 0) grid.cluster = static_cast<unsigned>(s.cluster);
  return launch("attention", kernel, grid, p, stream);
}

// The kernel that walks the blocks' shares.
template <class Contract, int HeadDim, class T>
status attention_walk_shares(kernel::attention_split_params<T>& p, const schedule::attention_schedule& s,
                             cuda_stream stream) {
  if constexpr (has_leaves_kernel<HeadDim>) {
    bool found = s.row_warps == 1;
    if (found) {
      if (const status st = find_leaves_code(kernel::attention_leaves_kernel<Contract, T, HeadDim>, found); !st)
        return st;
    }
    if (found) {
      constexpr auto bytes = kernel::attention_leaves_bytes<Contract, HeadDim>;
      constexpr int most = longest_ring(kernel::attention_leaves_most_slots, split_shared_limit, bytes);
      static_assert(most >= kernel::attention_leaves_least_slots, "a leaf fits the rings");
      return launch_leaves(kernel::attention_leaves_kernel<Contract, T, HeadDim>, p, s, most, bytes, stream);
    }
  }
  constexpr int row_warps = most_row_warps<HeadDim>;
  constexpr auto bytes = kernel::attention_split_bytes<T, HeadDim, row_warps>;
  constexpr int most = longest_ring(kernel::attention_split_max_stages, split_shared_limit, bytes);
  if (const status st = take_stages(p, s.stages, 2, most); !st) return st;
  launch_shape grid;
  grid.grid.x = static_cast<unsigned>(s.blocks);
  grid.block.x = kernel::attention_split_shape<HeadDim, row_warps>::threads;
  grid.shared_bytes = static_cast<std::size_t>(bytes(p.stages));
  return launch("attention", kernel::attention_split_kernel<Contract, T, HeadDim, row_warps>, grid, p, stream);
}

// A cluster for each item.
template <class Contract, int HeadDim, class T>
status attention_clusters(const attention_args<T>& a, const schedule::attention_schedule& s, cuda_stream stream) {
  const attention_split_limits l = split_limits<Contract, HeadDim>(a.limits);
  checker c("attention");
  c.supported("schedule.cluster", s.cluster,
              (s.cluster == 2 || s.cluster == 4 || s.cluster == 8 || s.cluster == 16) &&
                  l.leaves <= kernel::attention_cluster_leaves_a_block * s.cluster,
              "2, 4, 8 or 16, with at most twice as many leaves of a view");
  c.supported("schedule.blocks", s.blocks, s.blocks == a.requests * a.limits.heads_kv * s.cluster,
              "a cluster for each request and KV head");
  if (!c.ok()) return c.result();
  kernel::attention_split_params<T> p = {};
  p.a = make_attention_params(a);
  p.a.batch.tile_rows = static_cast<std::int32_t>(l.rows);
  p.a.batch.one_tile_each = true;
  constexpr auto bytes = kernel::attention_cluster_bytes<Contract, HeadDim>;
  constexpr int most = longest_ring(kernel::attention_leaves_most_slots, split_shared_limit, bytes);
  static_assert(most >= kernel::attention_leaves_least_slots, "a leaf fits the rings");
  return launch_leaves(kernel::attention_clusters_kernel<Contract, T, HeadDim>, p, s, most, bytes, stream);
}

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
  if (const status st = take_stages(p.split, s.stages, kernel::attention_leaves_least_slots, most); !st) return st;
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

template <class Contract, int HeadDim, class T>
status attention_split(const attention_args<T>& a, const schedule::attention_schedule& s, void* data,
                       cuda_stream stream) {
  if constexpr (has_leaves_kernel<HeadDim>) {
    if (s.singles != 0) return attention_relay<Contract, HeadDim>(a, s, data, stream);
    if (s.cluster != 0) return attention_clusters<Contract, HeadDim>(a, s, stream);
  }
  const attention_split_limits l = split_limits<Contract, HeadDim>(a.limits);
  const schedule::attention_split_space space =
      schedule::attention_split_carve(s.blocks, l.leaves, l.total, l.rows, HeadDim, sizeof(device::attention_cut));
  kernel::attention_split_params<T> p = make_split_params(a, l, space, data);
  p.a.whole_items = s.whole_items;
  const std::int64_t items = a.requests * a.limits.heads_kv;
  p.partials.by_item = items <= s.blocks;
  const status st = attention_walk_shares<Contract, HeadDim>(p, s, stream);
  if (!st || s.blocks == 1 || l.leaves == 1 || s.whole_items) return st;  // nothing is cut

  static_assert(kernel::attention_fold_most_records >= schedule::attention_split_most_blocks, "a record of each block");
  const std::int64_t records = p.partials.by_item ? items : s.blocks;
  const std::int64_t units = records * l.rows * (HeadDim / kernel::attention_fold_columns);
  // Blocks that are there keep those of the next call out: of short views, few do.
  const std::int64_t most = l.leaves > kernel::attention_fold_section ? 3 * s.blocks : s.blocks;
  const kernel::attention_fold_params<T> fold = {p.a, p.partials, static_cast<std::int32_t>(s.blocks), units <= most};
  launch_shape after;
  after.grid.x = static_cast<unsigned>(units < most ? units : most);
  after.block.x = kernel::attention_fold_threads;
  after.programmatic = true;
  return launch("attention", kernel::attention_fold_kernel<Contract, T, HeadDim>, after, fold, stream);
}

// With a given schedule; the arguments have passed check() and leave something to do. one_tile_each, as the split kernel,
// asks for requests of at most 16 * row_warps packed rows; that kernel also for at most attention_split_most_blocks blocks
// and the whole workspace.
template <class Contract, int HeadDim, class T>
status launch_attention(const attention_args<T>& a, const schedule::attention_schedule& s, workspace ws,
                        cuda_stream stream) {
  constexpr int most = most_row_warps<HeadDim>;
  if (s.kernel == schedule::attention_kernel::split) {
    return attention_split<Contract, HeadDim>(a, s, ws.data, stream);
  }
  kernel::attention_params<T> p = make_attention_params(a);
  if constexpr (has_prefill_kernel<HeadDim>) {
    if (s.kernel == schedule::attention_kernel::prefill) {
      return attention_prefill<Contract, HeadDim>(a, p, s.blocks, stream);
    }
  }
  p.batch.tile_rows = 16 * s.row_warps;
  p.batch.one_tile_each = s.one_tile_each;
  if (s.row_warps == 1) return attention_mma<Contract, T, HeadDim, 1>(p, s.blocks, stream);
  return attention_mma<Contract, T, HeadDim, most>(p, s.blocks, stream);
}

// Where requests share leading tokens, with a given schedule: a call that find_shared_blocks has blocks for.
template <class Contract, int HeadDim, class T>
status launch_attention_shared(const attention_args<T>& a, const schedule::attention_shared_schedule& s, workspace ws,
                               cuda_stream stream) {
  const attention_split_limits l = split_limits<Contract, HeadDim>(a.limits);
  return attention_shared<Contract, HeadDim>(a, make_attention_params(a), {l.leaves, l.total, l.rows}, s, ws.data,
                                             stream);
}

// The thread blocks that run at once under the split schedule; 0 if this program has no code for it that this device runs.
template <class Contract, int HeadDim, class T>
status find_split_blocks(std::int64_t& blocks) {
  blocks = 0;
  bool fits = false;
  if (const status st = has_shared_memory(split_shared_limit, fits); !st || !fits) return st;
  bool found = false;  // other code would not wait for the kernel before
  status st = find_hopper_code("attention", kernel::attention_fold_kernel<Contract, T, HeadDim>, found);
  if (!st || !found) return st;
  int processors = 0;
  st = current_device_attribute("attention", "cudaDeviceGetAttribute(MultiProcessorCount)",
                                cudaDevAttrMultiProcessorCount, processors);
  blocks = processors;  // the ring takes a whole one
  return st;
}

}  // namespace launch_detail

template <class T, int HeadDim, class Contract>
std::size_t attention<T, HeadDim, Contract>::workspace_bytes(const attention_limits& limits) {
  checker c("attention");
  attention_detail::check_limits(c, limits);
  if (!c.ok() || limits.max_requests == 0) return 0;  // launch() says what is wrong
  const launch_detail::attention_split_limits l = launch_detail::split_limits<Contract, HeadDim>(limits);
  const std::int64_t split =
      schedule::attention_split_bytes(l.leaves, l.total, l.rows, HeadDim, sizeof(device::attention_cut));
  std::int64_t shared = 0;
  if (launch_detail::has_prefill_kernel<HeadDim> && limits.max_groups > 0) {
    shared = schedule::attention_shared_carve(limits.max_requests, l.total, l.rows, HeadDim).bytes;
  }
  return static_cast<std::size_t>(split > shared ? split : shared);
}

template <class T, int HeadDim, class Contract>
status attention<T, HeadDim, Contract>::launch(const attention_args<T>& a, workspace ws, cuda_stream stream) {
  if (const status st = check(a, Contract{}); !st) return st;
  checker c("attention");
  c.supported("limits.head_dim", a.limits.head_dim, a.limits.head_dim == HeadDim, "the HeadDim of bi::attention");
  if (!c.ok() || a.rows == 0 || a.requests == 0) return c.result();
  const bool has_workspace = ws.data != nullptr || ws.bytes != 0;
  if (has_workspace) c.workspace(ws.data, ws.bytes, workspace_bytes(a.limits));
  if (!c.ok()) return c.result();

  constexpr int most = launch_detail::most_row_warps<HeadDim>;
  bool fits = true;
  if constexpr (HeadDim == 256) {
    constexpr std::size_t bytes = sizeof(kernel::attention_mma_memory<T, HeadDim, most>);
    if (const status st = launch_detail::has_shared_memory(bytes, fits); !st) return st;
  }
  const int row_warps = fits ? most : 1;
  const std::int64_t group = a.limits.heads_q / a.limits.heads_kv, packed = a.limits.max_q_len * group;
  if constexpr (launch_detail::has_prefill_kernel<HeadDim>) {
    if (has_workspace && a.sharing.groups > 0 && packed <= 16 * row_warps) {
      const launch_detail::attention_split_limits l = launch_detail::split_limits<Contract, HeadDim>(a.limits);
      schedule::attention_shared_schedule s;
      const status st = launch_detail::find_shared_blocks<Contract, HeadDim>(a, launch_detail::make_attention_params(a),
                                                                             {l.leaves, l.total, l.rows}, s.blocks);
      if (!st) return st;
      if (s.blocks > 0) return launch_detail::launch_attention_shared<Contract, HeadDim>(a, s, ws, stream);
    }
  }
  std::int64_t split_blocks = 0;
  if (has_workspace && packed <= 16 * row_warps) {
    const status st = launch_detail::find_split_blocks<Contract, HeadDim, T>(split_blocks);
    if (!st) return st;
  }
  std::int64_t prefill_blocks = 0;
  if constexpr (launch_detail::has_prefill_kernel<HeadDim>) {
    if (packed > 16 * row_warps && launch_detail::prefill_takes(launch_detail::make_attention_params(a), a, 128)) {
      const status st = launch_detail::find_prefill_blocks<Contract, HeadDim, T>(prefill_blocks);
      if (!st) return st;
    }
  }
  const auto pick = [&](bool has_clusters) {
    return schedule::pick_attention_schedule(
        a.requests, a.rows, a.limits.max_q_len, group, a.limits.heads_kv, row_warps, split_blocks,
        launch_detail::split_limits<Contract, HeadDim>(a.limits).leaves, prefill_blocks, has_clusters);
  };
  schedule::attention_schedule s = pick(launch_detail::has_leaves_kernel<HeadDim>);
  if constexpr (launch_detail::has_leaves_kernel<HeadDim>) {
    if (s.cluster != 0) {  // most calls need not ask the runtime
      bool found = false;
      const status st = launch_detail::find_leaves_code(kernel::attention_clusters_kernel<Contract, T, HeadDim>, found);
      if (!st) return st;
      if (!found) s = pick(false);
    }
    if constexpr (kernel::attention_leaves_apart<Contract>) {
      if (const status st = launch_detail::pick_relay<Contract, HeadDim>(a, s, split_blocks); !st) return st;
    }
  }
  return launch_detail::launch_attention<Contract, HeadDim>(a, s, ws, stream);
}

BI_NAMESPACE_END
