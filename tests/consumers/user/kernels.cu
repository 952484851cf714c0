// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/activation.cuh"

BI_INSTANTIATE_EMBEDDING(bi::bf16);
