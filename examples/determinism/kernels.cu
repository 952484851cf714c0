// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/bi.cuh"

// The kernels that backend_gpu.cpp launches.

namespace c = bi::contract;
using bi::bf16;

BI_INSTANTIATE_ACTIVATION(bf16, c::activation_draft);
BI_INSTANTIATE_EMBEDDING(bf16);
BI_INSTANTIATE_RMS_NORM(bf16, c::rms_norm_draft);
BI_INSTANTIATE_ROPE(bf16, c::rope_draft);
BI_INSTANTIATE_KV_APPEND(bf16, c::rms_norm_draft, c::rope_draft);
BI_INSTANTIATE_GEMM(bi::gemm<bf16>);
BI_INSTANTIATE_GEMM(bi::gemm<bf16, bi::epilogue::silu_gate>);
BI_INSTANTIATE_GEMM(bi::gemm<bf16, bi::epilogue::none, float>);
BI_INSTANTIATE_ATTENTION(bi::attention<bf16, 64>);
BI_INSTANTIATE_ATTENTION(bi::attention<bf16, 128>);
BI_INSTANTIATE_SAMPLE(float, c::sample_draft);
BI_INSTANTIATE_DIGEST_ROWS(c::digest_words_draft);
BI_INSTANTIATE_DIGEST_KV(bf16, c::digest_words_draft);
