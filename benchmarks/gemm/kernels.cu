// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "../common/data.cuh"
#include "bi/gemm.cuh"

BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16>);
BI_INSTANTIATE_GEMM(bi::gemm<bi::fp16>);

namespace bench {
#define BENCH_INSTANTIATE_DATA(T)                                                  \
  template void fill_normal(T*, std::int64_t, std::uint64_t, float, cudaStream_t); \
  template void count_differences(const T*, const T*, std::int64_t, unsigned long long*, cudaStream_t)
BENCH_INSTANTIATE_DATA(bi::bf16);
BENCH_INSTANTIATE_DATA(bi::fp16);
}  // namespace bench
