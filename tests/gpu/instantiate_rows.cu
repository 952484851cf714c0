// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/layer_norm.cuh"
#include "bi/reduce.cuh"
#include "bi/rms_norm.cuh"
#include "bi/softmax.cuh"

// The row operations that the tests launch.

#define ROWS_OF(T)                                                   \
  BI_INSTANTIATE_RMS_NORM(T, bi::contract::rms_norm_draft);          \
  BI_INSTANTIATE_RMS_NORM(T, bi::contract::rms_norm_hf_draft);       \
  BI_INSTANTIATE_RMS_NORM(T, bi::contract::rms_norm_one_plus_draft); \
  BI_INSTANTIATE_LAYER_NORM(T, bi::contract::layer_norm_draft);      \
  BI_INSTANTIATE_REDUCE(T, T, bi::contract::reduce_draft);           \
  BI_INSTANTIATE_ARG_REDUCE(T, bi::contract::reduce_draft);          \
  BI_INSTANTIATE_SOFTMAX(T, T, bi::contract::softmax_draft);         \
  BI_INSTANTIATE_LOGSUMEXP(T, bi::contract::softmax_draft)

ROWS_OF(bi::bf16);
ROWS_OF(bi::fp16);
ROWS_OF(float);

// Other output types.
BI_INSTANTIATE_REDUCE(bi::bf16, float, bi::contract::reduce_draft);
BI_INSTANTIATE_REDUCE(bi::fp16, float, bi::contract::reduce_draft);
BI_INSTANTIATE_REDUCE(float, bi::fp16, bi::contract::reduce_draft);
BI_INSTANTIATE_SOFTMAX(bi::bf16, float, bi::contract::softmax_draft);
BI_INSTANTIATE_SOFTMAX(bi::fp16, float, bi::contract::softmax_draft);
BI_INSTANTIATE_SOFTMAX(float, bi::bf16, bi::contract::softmax_draft);

// Those that take a schedule, for tests/gpu/support/forced_rows.hpp.
namespace c = bi::contract;
using bi::cuda_stream;
using bi::status;
using bi::schedule::row_schedule;
namespace launch = bi::launch_detail;

#define FORCED_NORMS_OF(T, C)                                                                                \
  template status launch::launch_rms_norm<C>(const bi::rms_norm_args<T>&, const row_schedule&, cuda_stream); \
  template status launch::launch_qk_norm<C>(const bi::qk_norm_args<T>&, const row_schedule&, cuda_stream)
#define FORCED_SOFTMAX_OF(T, Form)                                                  \
  template status launch::launch_softmax<c::softmax_draft, c::softmax_draft::Form>( \
      const char*, const bi::softmax_args<T, T>&, const row_schedule&, cuda_stream)
#define FORCED_ARG_OF(T, Step)                                                                                        \
  template status launch::launch_arg_reduce<c::Step>(const char*, const bi::arg_reduce_args<T>&, const row_schedule&, \
                                                     cuda_stream)
#define FORCED_ROWS_OF(T)                                                                                            \
  FORCED_NORMS_OF(T, c::rms_norm_draft);                                                                             \
  FORCED_NORMS_OF(T, c::rms_norm_hf_draft);                                                                          \
  FORCED_NORMS_OF(T, c::rms_norm_one_plus_draft);                                                                    \
  FORCED_SOFTMAX_OF(T, softmax_form);                                                                                \
  FORCED_SOFTMAX_OF(T, log_softmax_form);                                                                            \
  FORCED_ARG_OF(T, arg_max_step);                                                                                    \
  FORCED_ARG_OF(T, arg_min_step);                                                                                    \
  template status launch::launch_layer_norm<c::layer_norm_draft>(const bi::layer_norm_args<T>&, const row_schedule&, \
                                                                 cuda_stream);                                       \
  template status launch::launch_reduce<c::reduce_draft>(const bi::reduce_args<T, float>&, bi::reduction,            \
                                                         const row_schedule&, cuda_stream);                          \
  template status launch::launch_logsumexp<c::softmax_draft>(const bi::logsumexp_args<T>&, const row_schedule&,      \
                                                             cuda_stream)

FORCED_ROWS_OF(bi::bf16);
FORCED_ROWS_OF(float);
