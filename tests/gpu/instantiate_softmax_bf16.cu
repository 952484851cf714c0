// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gpu/support/instantiate_softmax.cuh"

SOFTMAX_OF(bi::bf16, float);
FORCED_SOFTMAX_OF(bi::bf16);
