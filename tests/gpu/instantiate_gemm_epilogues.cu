// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/gemm.cuh"

BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::bias>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::residual>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::bias_residual>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::silu_gate>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::bias_silu_gate>);
