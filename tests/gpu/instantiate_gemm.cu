// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/gemm.cuh"

// The matrix products that the tests launch.

#define GEMMS_OF(T)                                                 \
  BI_INSTANTIATE_GEMM(bi::gemm<T, bi::epilogue::none, T>);          \
  BI_INSTANTIATE_GEMM(bi::gemm<T, bi::epilogue::none, float>);      \
  BI_INSTANTIATE_GEMM(bi::gemm<T, bi::epilogue::bias_residual, T>); \
  BI_INSTANTIATE_GEMM(bi::gemm<T, bi::epilogue::partial, float>);   \
  BI_INSTANTIATE_GEMM_FINISH(T, bi::epilogue::none, T);             \
  BI_INSTANTIATE_GEMM_FINISH(T, bi::epilogue::bias_silu_gate, T)

GEMMS_OF(bi::bf16);
GEMMS_OF(bi::fp16);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::bias>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::residual>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::silu_gate>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::bias_silu_gate>);
BI_INSTANTIATE_GEMM_F32(bi::contract::gemm_f32_draft);
