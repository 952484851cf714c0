// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/activation.cuh"
#include "bi/digest.cuh"
#include "bi/kv_cache.cuh"
#include "bi/rope.cuh"
#include "bi/sample.cuh"

// The operations on tokens that the tests launch.

#define TOKENS_OF(T)                                                                            \
  BI_INSTANTIATE_ACTIVATION(T, bi::contract::activation_draft);                                 \
  BI_INSTANTIATE_EMBEDDING(T);                                                                  \
  BI_INSTANTIATE_ROPE(T, bi::contract::rope_draft);                                             \
  BI_INSTANTIATE_KV_APPEND(T, bi::contract::rms_norm_draft, bi::contract::rope_draft);          \
  BI_INSTANTIATE_KV_APPEND(T, bi::contract::rms_norm_hf_draft, bi::contract::rope_draft);       \
  BI_INSTANTIATE_KV_APPEND(T, bi::contract::rms_norm_one_plus_draft, bi::contract::rope_draft); \
  BI_INSTANTIATE_SAMPLE(T, bi::contract::sample_draft);                                         \
  BI_INSTANTIATE_VERIFY(T, bi::contract::sample_draft);                                         \
  BI_INSTANTIATE_DIGEST_KV(T, bi::contract::digest_draft)

TOKENS_OF(bi::bf16);
TOKENS_OF(bi::fp16);
TOKENS_OF(float);

BI_INSTANTIATE_DIGEST_ROWS(bi::contract::digest_draft);
