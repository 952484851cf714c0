// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/activation.cuh"

// Instantiated twice in one program, as happens to a user who has several .cu files.
BI_INSTANTIATE_EMBEDDING(bi::bf16);
