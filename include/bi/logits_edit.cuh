// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/device/vector.cuh"
#include "bi/kernel/logits_edit.cuh"
#include "bi/logits_edit.hpp"
#include "bi/runtime.hpp"
#include "bi/schedule/logits_edit.hpp"

// Definitions of the launchers that bi/logits_edit.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_LOGITS_EDIT(bi::bf16, float, bi::contract::logits_edit_draft);

#define BI_INSTANTIATE_LOGITS_EDIT(T, Out, Contract) \
  template ::bi::status(::bi::logits_edit<T, Out, Contract>)(const ::bi::logits_edit_args<T, Out>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

template <class T, class Out>
bool in_place(const logits_edit_args<T, Out>& a) {
  return static_cast<const void*>(a.logits) == static_cast<const void*>(a.out);
}

// With a given schedule; the arguments have passed check() and leave something to do.
template <class Contract, class T, class Out>
status launch_logits_edit(const logits_edit_args<T, Out>& a, const schedule::logits_edit_schedule& s,
                          cuda_stream stream) {
  kernel::logits_edit_kernel_params<T, Out, logits_edit_params> p = {};
  p.logits = a.logits;
  p.out = a.out;
  p.logits_stride = a.logits_stride == 0 ? a.vocab : a.logits_stride;
  p.out_stride = a.out_stride == 0 ? a.vocab : a.out_stride;
  p.vocab = a.vocab;
  p.rows = a.params;
  p.count = a.counts.count;
  p.output = a.counts.output;
  p.prompt = a.counts.prompt;
  p.count_stride = count_stride(a.counts);
  p.bits_stride = bits_stride(a.counts);
  p.draft = a.draft;
  p.bias_id = a.bias_id;
  p.bias = a.bias;
  p.mask = reinterpret_cast<const std::uint32_t*>(a.mask);
  p.mask_stride = a.mask_stride == 0 ? contract::token_words(a.vocab) : a.mask_stride;
  p.limits = {a.counts.slots, a.masks, a.biases, a.drafts};
  // One row has no next.
  p.aligned = device::vector_aligned(p.logits, a.rows == 1 ? 0 : p.logits_stride) &&
              device::vector_aligned(p.out, a.rows == 1 ? 0 : p.out_stride);
  const int words = in_place(a) ? s.words : 1;
  static_assert(kernel::edit_span<1> == schedule::logits_edit_span, "a word of each set a thread");
  p.spans = {a.rows, schedule::logits_edit_spans(a.vocab, words)};
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = kernel::edit_threads;
  auto function = kernel::logits_edit_kernel<Contract, false, 1, T, Out, logits_edit_params>;
  if constexpr (std::is_same_v<T, Out>) {
    if (in_place(a)) {
      function = words == 1 ? kernel::logits_edit_kernel<Contract, true, 1, T, Out, logits_edit_params>
                            : kernel::logits_edit_kernel<Contract, true, 4, T, Out, logits_edit_params>;
    }
  }
  return launch("logits_edit", function, shape, p, stream);
}

}  // namespace launch_detail

template <class T, class Out, class Contract>
status logits_edit(const logits_edit_args<T, Out>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.rows == 0) return st;
  return launch_detail::launch_logits_edit<Contract>(
      a, schedule::pick_logits_edit_schedule(a.rows, a.vocab, launch_detail::in_place(a)), stream);
}

BI_NAMESPACE_END
