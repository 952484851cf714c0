// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/kernel/kv_append.cuh"
#include "bi/kernel/kv_append_any.cuh"
#include "bi/kv_cache.hpp"
#include "bi/runtime.hpp"
#include "bi/schedule/flat.hpp"

// Definition of the launcher that bi/kv_cache.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_KV_APPEND(bi::bf16, bi::contract::rms_norm_draft, bi::contract::rope_draft);

#define BI_INSTANTIATE_KV_APPEND(T, Norm, Rope) \
  template ::bi::status(::bi::kv_append<T, Norm, Rope>)(const ::bi::kv_append_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

template <class T>
kernel::kv_append_params<T> make_kv_append_params(const kv_append_args<T>& a) {
  const auto pages = [](T* data, const cache_strides& s) {
    return kernel::kv_append_heads<T>{data, s.page, s.token, s.head};
  };
  const cache_strides k = k_source_strides(a), v = v_source_strides(a), q = q_source_strides(a), o = q_out_strides(a);
  kernel::kv_append_params<T> p = {};
  p.from[kernel::of_k] = {a.k, 0, k.token, k.head};
  p.from[kernel::of_v] = {a.v, 0, v.token, v.head};
  p.to[kernel::of_k] = pages(a.cache.k, k_strides(a.cache));
  p.to[kernel::of_v] = pages(a.cache.v, v_strides(a.cache));
  p.weight[kernel::of_k] = a.norm_weight;
  if (a.q != nullptr) {
    p.from[kernel::of_q] = {a.q, 0, q.token, q.head};
    p.to[kernel::of_q] = {a.q_out, 0, o.token, o.head};
    p.weight[kernel::of_q] = a.q_norm_weight;
    p.heads_q = a.heads_q;
  }
  p.slot = a.slot;
  p.position = a.table.cos != nullptr ? a.position : nullptr;
  p.digest = a.digest;
  p.run_index = a.run_index;
  p.num_pages = a.cache.num_pages;
  p.page_size = a.cache.page_size;
  p.head_dim = a.cache.head_dim;
  p.tokens = a.tokens;
  p.heads = a.cache.heads;
  p.rope = device::make_rope_source(a.table, a.cache.head_dim);
  p.norm_eps = a.norm_eps;
  const int bytes = static_cast<int>(sizeof(T));
  p.token_offset =
      contract::kv_token_word(1, contract::kv_token_bytes(p.heads, p.head_dim, bytes)) * contract::digest_step;
  p.head_offset =
      static_cast<std::uint64_t>(p.head_dim * bytes / 8) * contract::digest_step;  // if these are whole words
  using device::vector_aligned;
  const auto heads_aligned = [](const auto& x) {
    return vector_aligned(x.data, x.page_stride) && vector_aligned(x.data, x.token_stride) &&
           vector_aligned(x.data, x.head_stride);
  };
  p.aligned = true;
  for (int kind = 0; kind < 3; ++kind) {
    p.aligned =
        p.aligned && heads_aligned(p.from[kind]) && heads_aligned(p.to[kind]) && vector_aligned(p.weight[kind], 0);
  }
  return p;
}

// Threads of a head in kv_append_lanes_kernel; 0: not one of its heads.
template <class T>
int kv_append_lanes(const kernel::kv_append_params<T>& p) {
  constexpr int each = 2 * device::vector_size;  // elements of a lane
  if (!p.aligned || p.head_dim % each != 0 || p.head_dim > 32 * each || p.rope.rotary_dim % each != 0) return 0;
  if (p.rope.rotary_dim > 0 && !p.rope.aligned) return 0;
  if (p.heads_q > 1 << 20 || p.heads > 1 << 20) return 0;
  int lanes = 1;
  while (lanes * each < p.head_dim) lanes *= 2;
  return lanes;
}

// With a given schedule; the arguments have passed check() and leave something to do.
template <class Norm, class Rope, class T>
status launch_kv_append(const kv_append_args<T>& a, const schedule::shared_schedule& s, cuda_stream stream) {
  kernel::kv_append_params<T> p = make_kv_append_params(a);
  p.lanes = kv_append_lanes(p);
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = static_cast<unsigned>(s.threads);
  shape.programmatic = s.programmatic;
  if (p.lanes == 0) return launch("kv_append", kernel::kv_append_kernel<Norm, Rope, T>, shape, p, stream);
  while (1 << p.lane_bits < p.lanes) ++p.lane_bits;
  const bool one = s.blocks >= p.tokens, digest = p.digest != nullptr;
  const auto kernel = digest ? one ? kernel::kv_append_lanes_kernel<Norm, Rope, T, true, true>
                                   : kernel::kv_append_lanes_kernel<Norm, Rope, T, true, false>
                      : one ? kernel::kv_append_lanes_kernel<Norm, Rope, T, false, true>
                             : kernel::kv_append_lanes_kernel<Norm, Rope, T, false, false>;
  return launch("kv_append", kernel, shape, p, stream);
}

}  // namespace launch_detail

template <class T, class Norm, class Rope>
status kv_append(const kv_append_args<T>& a, cuda_stream stream) {
  status st = check(a);
  if (!st || a.tokens == 0) return st;
  bool hopper = false;
  st = find_hopper_code("kv_append", kernel::kv_append_kernel<Norm, Rope, T>, hopper);
  if (!st) return st;
  const int lanes = launch_detail::kv_append_lanes(launch_detail::make_kv_append_params(a));
  const std::int64_t heads_q = a.q != nullptr ? a.heads_q : 0, heads = a.cache.heads;
  const std::int64_t threads = lanes != 0 ? lanes * (heads_q + 2 * heads) : 32 * (heads_q + heads);
  return launch_detail::launch_kv_append<Norm, Rope>(a, schedule::pick_shared_schedule(a.tokens, threads, hopper),
                                                     stream);
}

BI_NAMESPACE_END
