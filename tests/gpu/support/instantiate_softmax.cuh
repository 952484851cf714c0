// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/softmax.cuh"

// softmax, log_softmax and logsumexp that the tests launch, of an element type: a file each, as they take long to
// compile. FORCED_SOFTMAX_OF: those that take a schedule, for tests/gpu/support/forced_rows.hpp.

#define SOFTMAX_OF(T, Other)                                     \
  BI_INSTANTIATE_SOFTMAX(T, T, bi::contract::softmax_draft);     \
  BI_INSTANTIATE_SOFTMAX(T, Other, bi::contract::softmax_draft); \
  BI_INSTANTIATE_LOGSUMEXP(T, bi::contract::softmax_draft)

#define FORCED_FORM_OF(T, Form)                                                                      \
  template bi::status                                                                                \
  bi::launch_detail::launch_softmax<bi::contract::softmax_draft, bi::contract::softmax_draft::Form>( \
      const char*, const bi::softmax_args<T, T>&, const bi::schedule::row_schedule&, bi::cuda_stream)
#define FORCED_SOFTMAX_OF(T)                                                            \
  FORCED_FORM_OF(T, softmax_form);                                                      \
  FORCED_FORM_OF(T, log_softmax_form);                                                  \
  template bi::status bi::launch_detail::launch_logsumexp<bi::contract::softmax_draft>( \
      const bi::logsumexp_args<T>&, const bi::schedule::row_schedule&, bi::cuda_stream)
