// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/bi.cuh"

// One instantiation of each operation, as a user's one .cu file has them. scripts/check_ptx compiles it with the flags and
// architectures that users have.

namespace c = bi::contract;
using bi::bf16;

BI_INSTANTIATE_ACTIVATION(bf16, c::activation_draft);
BI_INSTANTIATE_EMBEDDING(bf16);
BI_INSTANTIATE_ROPE(bf16, c::rope_draft);
BI_INSTANTIATE_KV_APPEND(bf16, c::rms_norm_draft, c::rope_draft);
BI_INSTANTIATE_SAMPLE(float, c::sample_draft);
BI_INSTANTIATE_VERIFY(float, c::sample_draft);
BI_INSTANTIATE_LOGITS_EDIT(float, float, c::logits_edit_draft);
BI_INSTANTIATE_TOKEN_COUNTS(c::logits_edit_draft);
BI_INSTANTIATE_DIGEST_ROWS(c::digest_words_draft);
BI_INSTANTIATE_DIGEST_KV(bf16, c::digest_words_draft);
BI_INSTANTIATE_REDUCE(bf16, float, c::reduce_draft);
BI_INSTANTIATE_REDUCE_COLUMNS(bf16, float, c::reduce_draft);
BI_INSTANTIATE_ARG_REDUCE(float, c::reduce_draft);
BI_INSTANTIATE_ARG_REDUCE_COLUMNS(float, c::reduce_draft);
BI_INSTANTIATE_RMS_NORM(bf16, c::rms_norm_draft);
BI_INSTANTIATE_LAYER_NORM(bf16, c::layer_norm_draft);
BI_INSTANTIATE_SOFTMAX(float, float, c::softmax_draft);
BI_INSTANTIATE_LOGSUMEXP(float, c::softmax_draft);
BI_INSTANTIATE_GEMM(bi::gemm<bf16, bi::epilogue::bias>);
BI_INSTANTIATE_GEMM_FINISH(bf16, bi::epilogue::none, bf16);
BI_INSTANTIATE_GEMM_F32(c::gemm_f32_draft);
BI_INSTANTIATE_ATTENTION(bi::attention<bf16, 128>);
