// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gpu/support/instantiate_norms.cuh"

NORMS_OF(bi::bf16);
FORCED_NORMS_OF(bi::bf16);
