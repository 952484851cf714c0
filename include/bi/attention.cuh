// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_mma.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/attention.hpp"

// Definitions of what bi/attention.hpp declares. Instantiate each type that a program uses in one .cu file:
//   BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128>);
//   BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128, bi::contract::attention_soft_cap_draft<bi::bf16>>);
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

// With a given schedule; the arguments have passed check() and leave something to do. one_tile_each asks for requests of
// at most 16 * row_warps packed rows.
template <class Contract, int HeadDim, class T>
status launch_attention(const attention_args<T>& a, const schedule::attention_schedule& s, cuda_stream stream) {
  kernel::attention_params<T> p = make_attention_params(a);
  p.batch.tile_rows = 16 * s.row_warps;
  p.batch.one_tile_each = s.one_tile_each;
  if (s.row_warps == 1) return attention_mma<Contract, T, HeadDim, 1>(p, s.blocks, stream);
  return attention_mma<Contract, T, HeadDim, most_row_warps<HeadDim>>(p, s.blocks, stream);
}

}  // namespace launch_detail

template <class T, int HeadDim, class Contract>
std::size_t attention<T, HeadDim, Contract>::workspace_bytes(const attention_limits&) {
  return 0;
}

template <class T, int HeadDim, class Contract>
status attention<T, HeadDim, Contract>::launch(const attention_args<T>& a, workspace, cuda_stream stream) {
  if (const status st = check(a, Contract{}); !st) return st;
  checker c("attention");
  c.supported("limits.head_dim", a.limits.head_dim, a.limits.head_dim == HeadDim, "the HeadDim of bi::attention");
  if (!c.ok() || a.rows == 0 || a.requests == 0) return c.result();
  constexpr int most = launch_detail::most_row_warps<HeadDim>;
  bool fits = true;
  if constexpr (HeadDim == 256) {
    constexpr std::size_t bytes = sizeof(kernel::attention_mma_memory<T, HeadDim, most>);
    if (const status st = launch_detail::has_shared_memory(bytes, fits); !st) return st;
  }
  const std::int64_t group = a.limits.heads_q / a.limits.heads_kv;
  const schedule::attention_schedule s = schedule::pick_attention_schedule(a.requests, a.rows, a.limits.max_q_len,
                                                                           group, a.limits.heads_kv, fits ? most : 1);
  return launch_detail::launch_attention<Contract, HeadDim>(a, s, stream);
}

BI_NAMESPACE_END
