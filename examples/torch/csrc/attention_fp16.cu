// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/attention.cuh"
#include "bi/kv_cache.cuh"

BI_INSTANTIATE_ATTENTION(bi::attention<bi::fp16, 64>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::fp16, 128>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::fp16, 256>);
BI_INSTANTIATE_KV_APPEND(bi::fp16, bi::contract::rms_norm_draft, bi::contract::rope_draft);
