// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "logits_edit_kernels.hpp"

#include "../common/data.cuh"
#include "bi/device/vector.cuh"
#include "bi/logits_edit.cuh"
#include "bi/token_counts.cuh"

BI_INSTANTIATE_LOGITS_EDIT(float, float, bi::contract::logits_edit_draft);
BI_INSTANTIATE_LOGITS_EDIT(bi::bf16, bi::bf16, bi::contract::logits_edit_draft);
BI_INSTANTIATE_LOGITS_EDIT(bi::bf16, float, bi::contract::logits_edit_draft);
BI_INSTANTIATE_TOKEN_COUNTS(bi::contract::logits_edit_draft);

namespace bench {
template void fill_normal(bi::bf16*, std::int64_t, std::uint64_t, float, cudaStream_t);
template void fill_normal(float*, std::int64_t, std::uint64_t, float, cudaStream_t);

namespace {

template <class T>
__global__ void __launch_bounds__(256)
    dense_kernel(T* logits, const std::int32_t* counts, const std::uint32_t* prompts, std::int64_t vocab,
                 float repetition, float frequency, float presence) {
  const std::int64_t row = blockIdx.y, i = (blockIdx.x * 256ll + threadIdx.x) * 8;
  if (i >= vocab) return;
  float x[8], n[8];
  bi::device::load_vector_f32(logits + row * vocab + i, 8, true, x);
  const int4* const words = reinterpret_cast<const int4*>(counts + row * vocab + i);
  const int4 a = words[0], b = words[1];
  const int count[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
  const std::uint32_t bits = prompts[row * ((vocab + 31) / 32) + i / 32] >> (i % 32);
  for (int e = 0; e < 8; ++e) {
    n[e] = static_cast<float>(count[e]);
    if (count[e] > 0 || (bits >> e & 1) != 0) x[e] = x[e] > 0 ? x[e] / repetition : x[e] * repetition;
    x[e] = x[e] - frequency * n[e] - (count[e] > 0 ? presence : 0.0f);
  }
  bi::device::store_vector_f32(logits + row * vocab + i, 8, true, x);
}

}  // namespace

template <class T>
void dense_penalties(T* logits, const std::int32_t* count, const std::uint32_t* prompt, std::int64_t rows,
                     std::int64_t vocab, float repetition, float frequency, float presence, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((vocab + 2047) / 2048), static_cast<unsigned>(rows));
  dense_kernel<<<grid, 256, 0, stream>>>(logits, count, prompt, vocab, repetition, frequency, presence);
  require(cudaGetLastError(), "dense_penalties");
}
template void dense_penalties(bi::bf16*, const std::int32_t*, const std::uint32_t*, std::int64_t, std::int64_t, float,
                              float, float, cudaStream_t);
template void dense_penalties(float*, const std::int32_t*, const std::uint32_t*, std::int64_t, std::int64_t, float,
                              float, float, cudaStream_t);

}  // namespace bench
