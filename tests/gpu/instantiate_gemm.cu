// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/gemm.cuh"

// The matrix products that the tests launch, with instantiate_gemm_*.cu.

BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::none, bi::bf16>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::none, float>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::partial, float>);
BI_INSTANTIATE_GEMM_FINISH(bi::bf16, bi::epilogue::none, bi::bf16);
BI_INSTANTIATE_GEMM_FINISH(bi::bf16, bi::epilogue::bias_silu_gate, bi::bf16);
BI_INSTANTIATE_GEMM_F32(bi::contract::gemm_f32_draft);
