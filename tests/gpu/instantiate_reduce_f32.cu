// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gpu/support/instantiate_reduce.cuh"

REDUCTIONS_OF(float, bi::fp16);
FORCED_REDUCTIONS_OF(float);
FORCED_COLUMNS_OF(float);
