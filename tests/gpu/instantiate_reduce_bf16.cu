// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gpu/support/instantiate_reduce.cuh"

REDUCTIONS_OF(bi::bf16, float);
FORCED_REDUCTIONS_OF(bi::bf16);
FORCED_COLUMNS_OF(bi::bf16);
