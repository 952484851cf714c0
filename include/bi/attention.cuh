// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_clusters.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_split.cuh"
#include "bi/launch_attention_prefill.cuh"
#include "bi/launch_attention_queue.cuh"
#include "bi/launch_attention_relay.cuh"
#include "bi/launch_attention_shared.cuh"
#include "bi/launch_attention_split.cuh"
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

template <class Contract, int HeadDim, class T>
status attention_split(const attention_args<T>& a, const schedule::attention_schedule& s, void* data,
                       cuda_stream stream) {
  if constexpr (has_leaves_kernel<HeadDim>) {
    if (s.singles != 0) return attention_relay<Contract, HeadDim>(a, s, data, stream);
    if (s.queued) return attention_queue<Contract, HeadDim>(a, s, data, stream);
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

  return attention_fold<Contract, HeadDim>(p.a, p.partials, l, s.blocks, s.blocks, stream);
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
      if (const status st = launch_detail::pick_queue<Contract, HeadDim>(a, s, split_blocks); !st) return st;
    }
  }
  return launch_detail::launch_attention<Contract, HeadDim>(a, s, ws, stream);
}

BI_NAMESPACE_END
