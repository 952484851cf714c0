// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/rope.cuh"
#include "bi/launch_flat.cuh"
#include "bi/rope.hpp"

// Definition of the launcher that bi/rope.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_ROPE(bi::bf16, bi::contract::rope_draft);

#define BI_INSTANTIATE_ROPE(T, Contract) \
  template ::bi::status(::bi::rope<T, Contract>)(const ::bi::rope_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

// With a given schedule; the arguments have passed check() and leave something to do.
template <class Contract, class T>
status launch_rope(const rope_args<T>& a, const schedule::flat_schedule& s, cuda_stream stream) {
  kernel::rope_params<T> p = {};
  p.x = a.x;
  p.out = a.out;
  p.position = a.position;
  p.x_head_stride = a.x_head_stride == 0 ? a.head_dim : a.x_head_stride;
  p.x_token_stride = a.x_token_stride == 0 ? a.heads * p.x_head_stride : a.x_token_stride;
  p.out_head_stride = a.out_head_stride == 0 ? a.head_dim : a.out_head_stride;
  p.out_token_stride = a.out_token_stride == 0 ? a.heads * p.out_head_stride : a.out_token_stride;
  p.heads = {a.tokens, a.heads};
  p.rope = device::make_rope_source(a.table, a.head_dim);
  p.rope.positions = a.table.positions;  // with rotary_dim = 0 too: it says which tokens are padding
  p.in_head = p.rope.items();
  p.items = p.heads.count() * p.in_head;
  p.aligned = device::vector_aligned(p.x, p.x_token_stride) && device::vector_aligned(p.x, p.x_head_stride) &&
              device::vector_aligned(p.out, p.out_token_stride) && device::vector_aligned(p.out, p.out_head_stride);
  return launch_flat("rope", kernel::rope_kernel<Contract, T>, p, s, stream);
}

}  // namespace launch_detail

template <class T, class Contract>
status rope(const rope_args<T>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.tokens == 0 || a.heads == 0 || a.head_dim == 0) return st;
  const std::int64_t items = a.tokens * a.heads * device::make_rope_source(a.table, a.head_dim).items();
  return launch_detail::launch_rope<Contract>(a, schedule::pick_flat_schedule(items), stream);
}

BI_NAMESPACE_END
