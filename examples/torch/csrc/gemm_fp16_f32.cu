// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/gemm.cuh"

BI_INSTANTIATE_GEMM(bi::gemm<bi::fp16, bi::epilogue::none, float>);
