// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/logits_edit.cuh"
#include "bi/token_counts.cuh"

// What tests/gpu/logits_edit_test.cpp launches, and what takes a schedule, for tests/gpu/support/forced_edit.hpp.

namespace c = bi::contract;
using bi::cuda_stream;
using bi::status;
using bi::schedule::flat_schedule;
using bi::schedule::logits_edit_schedule;
namespace launch = bi::launch_detail;

#define EDIT_OF(T, Out)                                                                                 \
  BI_INSTANTIATE_LOGITS_EDIT(T, Out, c::logits_edit_draft);                                             \
  template status launch::launch_logits_edit<c::logits_edit_draft>(const bi::logits_edit_args<T, Out>&, \
                                                                   const logits_edit_schedule&, cuda_stream)

EDIT_OF(bi::bf16, bi::bf16);
EDIT_OF(bi::fp16, bi::fp16);
EDIT_OF(float, float);
EDIT_OF(bi::bf16, float);
EDIT_OF(bi::fp16, float);

BI_INSTANTIATE_TOKEN_COUNTS(c::logits_edit_draft);
template status launch::launch_clear_counts<c::logits_edit_draft>(const bi::clear_counts_args&, const flat_schedule&,
                                                                  cuda_stream);
template status launch::launch_count_tokens<c::logits_edit_draft>(const bi::count_tokens_args&, const flat_schedule&,
                                                                  cuda_stream);
template status launch::launch_count_view<c::logits_edit_draft>(const bi::count_view_args&, const flat_schedule&,
                                                                cuda_stream);
