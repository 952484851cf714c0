// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/digest.hpp"
#include "bi/kernel/digest.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/rows.hpp"

// Definitions of the launchers that bi/digest.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_DIGEST_ROWS(bi::contract::digest_words_draft);
//   BI_INSTANTIATE_DIGEST_KV(bi::bf16, bi::contract::digest_words_draft);

#define BI_INSTANTIATE_DIGEST_ROWS(Contract) \
  template ::bi::status(::bi::digest_rows<Contract>)(const ::bi::digest_rows_args&, ::bi::cuda_stream)
#define BI_INSTANTIATE_DIGEST_KV(T, Contract) \
  template ::bi::status(::bi::digest_kv<T, Contract>)(const ::bi::digest_kv_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

// Kernel<Contract> over `count` digests, after a launch that clears them where thread blocks share one.
template <class Contract, class Params>
status launch_digest(const char* operation, void (*kernel)(Params), const Params& p, std::int64_t count,
                     const schedule::digest_schedule& s, cuda_stream stream) {
  launch_shape shape;
  shape.programmatic = s.programmatic;
  if (s.parts > 1) {
    shape.block.x = 256;
    shape.grid.x = static_cast<unsigned>((count + 255) / 256);
    const kernel::digest_clear_params clear = {p.out, count};
    const status st = launch(operation, kernel::digest_clear_kernel<Contract>, shape, clear, stream);
    if (!st) return st;
  }
  shape.block.x = static_cast<unsigned>(kernel::digest_threads);
  shape.grid.x = static_cast<unsigned>(s.blocks);
  return launch(operation, kernel, shape, p, stream);
}

// With a given schedule each; the arguments have passed check() and leave something to do.
template <class Contract>
status launch_digest_rows(const digest_rows_args& a, const schedule::digest_schedule& s, cuda_stream stream) {
  kernel::digest_rows_params p = {};
  p.data = static_cast<const unsigned char*>(a.data);
  p.row_stride = a.row_stride_bytes == 0 ? a.row_bytes : a.row_stride_bytes;
  p.rows = a.rows;
  p.row_bytes = a.row_bytes;
  p.out = a.out;
  p.parts = s.parts;
  const std::uintptr_t starts = reinterpret_cast<std::uintptr_t>(a.data) | static_cast<std::uintptr_t>(p.row_stride);
  p.granule = 16;
  while (starts % static_cast<unsigned>(p.granule) != 0) p.granule /= 2;
  return launch_digest<Contract>("digest_rows", kernel::digest_rows_kernel<Contract>, p, a.rows, s, stream);
}

template <class Contract, class T>
status launch_digest_kv(const digest_kv_args<T>& a, const schedule::digest_schedule& s, cuda_stream stream) {
  const cache_strides k = k_strides(a.cache), v = v_strides(a.cache);
  kernel::digest_kv_params<T> p = {};
  p.k = a.cache.k;
  p.v = a.cache.v;
  p.k_page_stride = k.page;
  p.k_token_stride = k.token;
  p.k_head_stride = k.head;
  p.v_page_stride = v.page;
  p.v_token_stride = v.token;
  p.v_head_stride = v.head;
  p.heads = a.cache.heads;
  p.head_dim = a.cache.head_dim;
  p.view = device::make_view_source(a.view, a.cache);
  p.first = a.first;
  p.count = a.count;
  p.requests = a.requests;
  p.out = a.out;
  p.parts = s.parts;
  p.aligned = a.cache.head_dim * static_cast<int>(sizeof(T)) % 16 == 0;
  for (const std::int64_t stride : {k.page, k.token, k.head}) {
    p.aligned = p.aligned && device::vector_aligned(p.k, stride);
  }
  for (const std::int64_t stride : {v.page, v.token, v.head}) {
    p.aligned = p.aligned && device::vector_aligned(p.v, stride);
  }
  return launch_digest<Contract>("digest_kv", kernel::digest_kv_kernel<Contract, T>, p, a.requests, s, stream);
}

}  // namespace launch_detail

template <class Contract>
status digest_rows(const digest_rows_args& a, cuda_stream stream) {
  status st = check(a);
  if (!st || a.rows == 0) return st;
  bool hopper = false;
  st = find_hopper_code("digest_rows", kernel::digest_rows_kernel<Contract>, hopper);
  if (!st) return st;
  return launch_detail::launch_digest_rows<Contract>(a, schedule::pick_digest_schedule(a.rows, a.row_bytes, hopper),
                                                     stream);
}

template <class T, class Contract>
status digest_kv(const digest_kv_args<T>& a, cuda_stream stream) {
  status st = check(a);
  if (!st || a.requests == 0) return st;
  bool hopper = false;
  st = find_hopper_code("digest_kv", kernel::digest_kv_kernel<Contract, T>, hopper);
  if (!st) return st;
  const std::int64_t bytes = cache_bytes(a.cache, k_strides(a.cache));  // of V there are about as many
  return launch_detail::launch_digest_kv<Contract>(a, schedule::pick_digest_schedule(a.requests, bytes, hopper),
                                                   stream);
}

BI_NAMESPACE_END
