// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_shared.cuh"
#include "bi/kernel/attention_shared_fold.cuh"
#include "bi/launch_attention_prefill.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/attention_shared.hpp"

// The launcher of bi/kernel/attention_shared.cuh. `leaves` and `total` are of one view, and of a call over all heads, at
// most; `rows` are a request's packed ones.

BI_NAMESPACE_BEGIN
namespace launch_detail {

struct attention_shared_limits {
  std::int64_t leaves, total, rows;
};

// Dynamic shared memory.
template <int HeadDim>
std::int64_t shared_bytes(std::int64_t requests, std::int64_t groups) {
  return kernel::attention_shared_shape<HeadDim>::bytes + kernel::attention_shared_tables::bytes(requests, groups);
}

// Whether there is such a kernel and it takes the call: the thread blocks that run at once, or 0.
template <class Contract, int HeadDim, class T>
status find_shared_blocks(const attention_args<T>& a, const kernel::attention_params<T>& p,
                          const attention_shared_limits& l, std::int64_t& blocks) {
  using shape = kernel::attention_shared_shape<HeadDim>;
  blocks = 0;
  // Sums of weights have 32 bits, and a request's tiles fewer.
  constexpr std::int64_t most_tiles = std::int64_t{1} << 22, most_weight = std::int64_t{1} << 27;
  const std::int64_t tiles = l.leaves * (Contract::leaf / Contract::tile);
  const bool takes = l.rows <= 64 && prefill_takes(p, a, shape::rows) && a.sharing.groups <= a.requests &&
                     tiles <= most_tiles && a.requests * tiles <= most_weight / p.heads_kv;
  if (!takes) return {};
  int major = 0, processors = 0, limit = 0;
  status st = current_device_attribute("attention", "cudaDeviceGetAttribute(ComputeCapabilityMajor)",
                                       cudaDevAttrComputeCapabilityMajor, major);
  if (!st || major != 9) return st;
  cudaFuncAttributes attributes = {};
  st = find_kernel_attributes("attention", kernel::attention_shared_kernel<Contract, T, HeadDim>, attributes);
  if (!st || attributes.sharedSizeBytes == 0) return st;  // built for another target than sm_90a, its body is empty
  st = current_device_attribute("attention", "cudaDeviceGetAttribute(MaxSharedMemoryPerBlockOptin)",
                                cudaDevAttrMaxSharedMemoryPerBlockOptin, limit);
  const auto fixed = static_cast<std::int64_t>(attributes.sharedSizeBytes);
  if (!st || fixed + shared_bytes<HeadDim>(a.requests, a.sharing.groups) > limit) return st;
  st = current_device_attribute("attention", "cudaDeviceGetAttribute(MultiProcessorCount)",
                                cudaDevAttrMultiProcessorCount, processors);
  blocks = processors;  // each takes a whole one
  return st;
}

// p: as make_attention_params has it. The workspace has room for all partial results.
template <class Contract, int HeadDim, class T>
status attention_shared(const attention_args<T>& a, kernel::attention_params<T> p, const attention_shared_limits& l,
                        const schedule::attention_shared_schedule& s, void* data, cuda_stream stream) {
  using shape = kernel::attention_shared_shape<HeadDim>;
  p.batch.tile_rows = static_cast<std::int32_t>(l.rows);
  p.batch.one_tile_each = true;
  kernel::attention_shared_params<T> params = {};
  params.a = p;
  constexpr std::int64_t unit = 16 / sizeof(T);
  params.q_token = static_cast<std::uint32_t>(p.q_token_stride / unit);
  params.q_head = static_cast<std::uint32_t>(p.q_head_stride / unit);
  params.k_page = static_cast<std::uint32_t>(p.k_page_stride / unit);
  params.k_token = static_cast<std::uint32_t>(p.k_token_stride / unit);
  params.v_page = static_cast<std::uint32_t>(p.v_page_stride / unit);
  params.v_token = static_cast<std::uint32_t>(p.v_token_stride / unit);
  if (const int box = prefill_box(p.view); box > 0) {
    status st = encode_prefill_map<HeadDim>(params.k, p, p.k, p.k_token_stride, p.k_head_stride, p.k_page_stride, box);
    if (st) st = encode_prefill_map<HeadDim>(params.v, p, p.v, p.v_token_stride, p.v_head_stride, p.v_page_stride, box);
    if (!st && st.cuda_error != cudaErrorInvalidValue) return st;
    if (st) params.box = box;  // otherwise strides that the driver doesn't take
  }
  params.groups = {a.sharing.start, a.sharing.member, a.sharing.shared, static_cast<std::int32_t>(a.sharing.groups)};
  const schedule::attention_shared_space space =
      schedule::attention_shared_carve(a.limits.max_requests, l.total, l.rows, HeadDim);
  auto* const bytes = static_cast<unsigned char*>(data);
  params.partials.before = reinterpret_cast<std::int32_t*>(bytes);
  params.partials.ml = reinterpret_cast<float*>(bytes + space.ml);
  params.partials.o = reinterpret_cast<float*>(bytes + space.o);
  params.partials.count = static_cast<std::uint32_t>(space.count);
  params.partials.rows = static_cast<std::int32_t>(l.rows);
  params.most_leaves = static_cast<std::int32_t>(l.leaves);

  // A folding block a row, as many as run at once; few of them have more memory each.
  using fold_shape = kernel::attention_shared_fold_shape<HeadDim>;
  const std::int64_t rows = a.requests * a.limits.heads_kv * l.rows, most = 8 * s.blocks;
  params.fold_stages = rows <= 2 * s.blocks ? fold_shape::most_stages : 2;

  launch_shape walk;
  walk.grid.x = static_cast<unsigned>(s.blocks);
  walk.block.x = shape::threads;
  walk.shared_bytes = static_cast<std::size_t>(shared_bytes<HeadDim>(a.requests, a.sharing.groups));
  walk.programmatic = true;
  status st = launch("attention", kernel::attention_shared_kernel<Contract, T, HeadDim>, walk, params, stream);
  if (!st) return st;
  launch_shape fold;
  fold.grid.x = static_cast<unsigned>(rows < most ? rows : most);
  fold.block.x = fold_shape::threads;
  fold.shared_bytes = static_cast<std::size_t>(fold_shape::bytes(params.fold_stages));
  fold.programmatic = true;
  return launch("attention", kernel::attention_shared_fold_kernel<Contract, T, HeadDim>, fold, params, stream);
}

}  // namespace launch_detail
BI_NAMESPACE_END
