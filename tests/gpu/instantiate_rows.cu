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
