// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/gemm.cuh"

BI_INSTANTIATE_GEMM(bi::gemm<bi::fp16, bi::epilogue::none, bi::fp16>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::fp16, bi::epilogue::none, float>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::fp16, bi::epilogue::bias_residual>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::fp16, bi::epilogue::partial, float>);
BI_INSTANTIATE_GEMM_FINISH(bi::fp16, bi::epilogue::none, bi::fp16);
BI_INSTANTIATE_GEMM_FINISH(bi::fp16, bi::epilogue::bias_silu_gate, bi::fp16);
