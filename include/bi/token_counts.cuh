// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/token_counts.cuh"
#include "bi/launch_flat.cuh"
#include "bi/token_counts.hpp"

// Definitions of the launchers that bi/token_counts.hpp declares. Instantiate them in one .cu file:
//   BI_INSTANTIATE_TOKEN_COUNTS(bi::contract::logits_edit_draft);

#define BI_INSTANTIATE_TOKEN_COUNTS(Contract)                                                             \
  template ::bi::status(::bi::clear_counts<Contract>)(const ::bi::clear_counts_args&, ::bi::cuda_stream); \
  template ::bi::status(::bi::count_tokens<Contract>)(const ::bi::count_tokens_args&, ::bi::cuda_stream); \
  template ::bi::status(::bi::count_view<Contract>)(const ::bi::count_view_args&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

inline kernel::counts_table counts_table_of(const token_counts& t, token_part part) {
  kernel::counts_table k = {};
  k.count = t.count;
  k.bits = part == token_part::prompt ? t.prompt : t.output;
  k.prompt = t.prompt;
  k.count_stride = count_stride(t);
  k.bits_stride = bits_stride(t);
  k.slots = t.slots;
  k.vocab = t.vocab;
  return k;
}

// With a given schedule each; the arguments have passed check() and leave something to do.
template <class Contract>
status launch_clear_counts(const clear_counts_args& a, const schedule::flat_schedule& s, cuda_stream stream) {
  kernel::clear_counts_params p = {};
  p.table = counts_table_of(a.counts, token_part::output);
  p.slot = a.slot;
  p.words = {a.requests, contract::token_words(a.counts.vocab)};
  return launch_flat("clear_counts", kernel::clear_counts_kernel<Contract>, p, s, stream);
}

template <class Contract>
status launch_count_tokens(const count_tokens_args& a, const schedule::flat_schedule& s, cuda_stream stream) {
  kernel::count_tokens_params p = {};
  p.table = counts_table_of(a.counts, a.part);
  p.token = a.token;
  p.slot = a.slot;
  p.tokens = a.tokens;
  p.times = a.part == token_part::output ? a.times : 0;
  return launch_flat("count_tokens", kernel::count_tokens_kernel<Contract>, p, s, stream);
}

template <class Contract>
status launch_count_view(const count_view_args& a, const schedule::flat_schedule& s, cuda_stream stream) {
  kernel::count_view_params p = {};
  p.table = counts_table_of(a.counts, a.part);
  p.view = device::make_view_source(a.view, a);
  p.page_size = a.page_size;
  p.token = a.token;
  p.first = a.first;
  p.count = a.count;
  p.slot = a.slot;
  p.requests = a.requests;
  p.times = a.part == token_part::output ? 1 : 0;
  return launch_flat("count_view", kernel::count_view_kernel<Contract>, p, s, stream);
}

}  // namespace launch_detail

template <class Contract>
status clear_counts(const clear_counts_args& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.requests == 0) return st;
  const std::int64_t words = a.requests * contract::token_words(a.counts.vocab);
  return launch_detail::launch_clear_counts<Contract>(a, schedule::pick_flat_schedule(words), stream);
}

template <class Contract>
status count_tokens(const count_tokens_args& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.tokens == 0) return st;
  return launch_detail::launch_count_tokens<Contract>(a, schedule::pick_flat_schedule(a.tokens), stream);
}

template <class Contract>
status count_view(const count_view_args& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.requests == 0) return st;
  const std::int64_t warps = a.requests * kernel::count_view_warps;
  return launch_detail::launch_count_view<Contract>(a, schedule::pick_flat_schedule(warps, 32), stream);
}

BI_NAMESPACE_END
