// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "../gemm/data.cuh"
#include "bi/attention.cuh"

BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128>);

namespace bench {
template void fill_normal(bi::bf16*, std::int64_t, std::uint64_t, float, cudaStream_t);
template void count_differences(const bi::bf16*, const bi::bf16*, std::int64_t, unsigned long long*, cudaStream_t);
}  // namespace bench
