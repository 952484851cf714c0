// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/attention.cuh"

// The attention that the tests launch.

BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 64>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 256>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::fp16, 128>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128, bi::contract::attention_soft_cap_draft<bi::bf16>>);
