// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/gemm.cuh"
#include "bi/reduce.cuh"
#include "bi/rms_norm.cuh"
#include "bi/sample.cuh"
#include "bi/softmax.cuh"

namespace c = bi::contract;

#define BI_TORCH_INSTANTIATE_TO(T, Out)             \
  BI_INSTANTIATE_SOFTMAX(T, Out, c::softmax_draft); \
  BI_INSTANTIATE_REDUCE(T, Out, c::reduce_draft);   \
  BI_INSTANTIATE_REDUCE_COLUMNS(T, Out, c::reduce_draft)
BI_TORCH_INSTANTIATE_TO(bi::bf16, bi::bf16);
BI_TORCH_INSTANTIATE_TO(bi::bf16, float);
BI_TORCH_INSTANTIATE_TO(bi::fp16, bi::fp16);
BI_TORCH_INSTANTIATE_TO(bi::fp16, float);
BI_TORCH_INSTANTIATE_TO(float, float);

#define BI_TORCH_INSTANTIATE(T)                     \
  BI_INSTANTIATE_RMS_NORM(T, c::rms_norm_draft);    \
  BI_INSTANTIATE_RMS_NORM(T, c::rms_norm_hf_draft); \
  BI_INSTANTIATE_SAMPLE(T, c::sample_draft)
BI_TORCH_INSTANTIATE(bi::bf16);
BI_TORCH_INSTANTIATE(bi::fp16);
BI_TORCH_INSTANTIATE(float);

BI_INSTANTIATE_GEMM_F32(c::gemm_f32_draft);
