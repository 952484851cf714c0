// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "../common/data.cuh"
#include "bi/digest.cuh"
#include "bi/layer_norm.cuh"
#include "bi/reduce.cuh"
#include "bi/rms_norm.cuh"
#include "bi/softmax.cuh"

// The operations that rows.cpp times.

BI_INSTANTIATE_RMS_NORM(bi::bf16, bi::contract::rms_norm_draft);
BI_INSTANTIATE_RMS_NORM(float, bi::contract::rms_norm_draft);
BI_INSTANTIATE_LAYER_NORM(bi::bf16, bi::contract::layer_norm_draft);
BI_INSTANTIATE_LAYER_NORM(float, bi::contract::layer_norm_draft);
BI_INSTANTIATE_SOFTMAX(bi::bf16, bi::bf16, bi::contract::softmax_draft);
BI_INSTANTIATE_SOFTMAX(float, float, bi::contract::softmax_draft);
BI_INSTANTIATE_LOGSUMEXP(bi::bf16, bi::contract::softmax_draft);
BI_INSTANTIATE_LOGSUMEXP(float, bi::contract::softmax_draft);
BI_INSTANTIATE_REDUCE(bi::bf16, float, bi::contract::reduce_draft);
BI_INSTANTIATE_REDUCE(float, float, bi::contract::reduce_draft);
BI_INSTANTIATE_REDUCE_COLUMNS(bi::bf16, float, bi::contract::reduce_draft);
BI_INSTANTIATE_REDUCE_COLUMNS(float, float, bi::contract::reduce_draft);
BI_INSTANTIATE_DIGEST_ROWS(bi::contract::digest_words_draft);

namespace bench {
template void fill_normal(bi::bf16*, std::int64_t, std::uint64_t, float, cudaStream_t);
template void fill_normal(float*, std::int64_t, std::uint64_t, float, cudaStream_t);
}  // namespace bench
