// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/kernel/kv_append.cuh"
#include "bi/kv_cache.hpp"
#include "bi/launch_flat.cuh"

// Definition of the launcher that bi/kv_cache.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_KV_APPEND(bi::bf16, bi::contract::rms_norm_draft, bi::contract::rope_draft);

#define BI_INSTANTIATE_KV_APPEND(T, Norm, Rope) \
  template ::bi::status(::bi::kv_append<T, Norm, Rope>)(const ::bi::kv_append_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

// With a given schedule; the arguments have passed check() and leave something to do.
template <class Norm, class Rope, class T>
status launch_kv_append(const kv_append_args<T>& a, const schedule::flat_schedule& s, cuda_stream stream) {
  const cache_strides k = k_source_strides(a), v = v_source_strides(a);
  const cache_strides cache_k = k_strides(a.cache), cache_v = v_strides(a.cache);
  kernel::kv_append_params<T> p = {};
  p.k = a.k;
  p.v = a.v;
  p.cache_k = a.cache.k;
  p.cache_v = a.cache.v;
  p.slot = a.slot;
  p.position = a.table.cos != nullptr ? a.position : nullptr;
  p.norm_weight = a.norm_weight;
  p.k_token_stride = k.token;
  p.k_head_stride = k.head;
  p.v_token_stride = v.token;
  p.v_head_stride = v.head;
  p.cache_k_page_stride = cache_k.page;
  p.cache_k_token_stride = cache_k.token;
  p.cache_k_head_stride = cache_k.head;
  p.cache_v_page_stride = cache_v.page;
  p.cache_v_token_stride = cache_v.token;
  p.cache_v_head_stride = cache_v.head;
  p.num_pages = a.cache.num_pages;
  p.page_size = a.cache.page_size;
  p.head_dim = a.cache.head_dim;
  p.heads = {a.tokens, a.cache.heads};
  p.rope = device::make_rope_source(a.table, a.cache.head_dim);
  p.norm_eps = a.norm_eps;
  p.aligned = device::vector_aligned(a.norm_weight, 0);
  for (const std::int64_t stride : {k.token, k.head}) p.aligned = p.aligned && device::vector_aligned(a.k, stride);
  for (const std::int64_t stride : {v.token, v.head}) p.aligned = p.aligned && device::vector_aligned(a.v, stride);
  for (const std::int64_t stride : {cache_k.page, cache_k.token, cache_k.head}) {
    p.aligned = p.aligned && device::vector_aligned(a.cache.k, stride);
  }
  for (const std::int64_t stride : {cache_v.page, cache_v.token, cache_v.head}) {
    p.aligned = p.aligned && device::vector_aligned(a.cache.v, stride);
  }
  return launch_flat("kv_append", kernel::kv_append_kernel<Norm, Rope, T>, p, s, stream);
}

}  // namespace launch_detail

template <class T, class Norm, class Rope>
status kv_append(const kv_append_args<T>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.tokens == 0) return st;
  const schedule::flat_schedule s = schedule::pick_flat_schedule(a.tokens * a.cache.heads, 32);
  return launch_detail::launch_kv_append<Norm, Rope>(a, s, stream);
}

BI_NAMESPACE_END
