// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "../common/data.cuh"
#include "bi/attention.cuh"
#include "free_split.hpp"
#include "prefill.hpp"

namespace bi::kernel {
template <>
inline constexpr bool attention_leaves_apart<bench::free_split> = false;
}  // namespace bi::kernel

BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128, bench::free_split>);

namespace bench {
template void fill_normal(bi::bf16*, std::int64_t, std::uint64_t, float, cudaStream_t);
template void count_differences(const bi::bf16*, const bi::bf16*, std::int64_t, unsigned long long*, cudaStream_t);

bi::status launch_generic_attention(const bi::attention_args<bi::bf16>& a, cudaStream_t stream) {
  bi::schedule::attention_schedule s;
  s.blocks = (a.rows * (a.limits.heads_q / a.limits.heads_kv) / 64 + a.requests) * a.limits.heads_kv;
  return bi::launch_detail::launch_attention<bi::contract::attention_v1<bi::bf16>, 128>(a, s, {}, stream);
}
}  // namespace bench
