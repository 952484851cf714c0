// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "../common/data.cuh"
#include "bi/digest.cuh"
#include "bi/kv_cache.cuh"
#include "bi/rms_norm.cuh"
#include "bi/rope.cuh"

BI_INSTANTIATE_KV_APPEND(bi::bf16, bi::contract::rms_norm_draft, bi::contract::rope_draft);
BI_INSTANTIATE_DIGEST_KV(bi::bf16, bi::contract::digest_words_draft);
BI_INSTANTIATE_RMS_NORM(bi::bf16, bi::contract::rms_norm_draft);
BI_INSTANTIATE_ROPE(bi::bf16, bi::contract::rope_draft);

namespace bench {
template void fill_normal(bi::bf16*, std::int64_t, std::uint64_t, float, cudaStream_t);
template void count_differences(const bi::bf16*, const bi::bf16*, std::int64_t, unsigned long long*, cudaStream_t);
}  // namespace bench

// The launcher that takes a schedule, for --sweep.
template bi::status bi::launch_detail::launch_kv_append<bi::contract::rms_norm_draft, bi::contract::rope_draft>(
    const bi::kv_append_args<bi::bf16>&, const bi::schedule::shared_schedule&, bi::cuda_stream);
