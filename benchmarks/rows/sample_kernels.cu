// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "sample_kernels.hpp"

#include "../common/data.cuh"
#include "bi/digest.cuh"
#include "bi/sample.cuh"

BI_INSTANTIATE_SAMPLE(bi::bf16, bi::contract::sample_draft);
BI_INSTANTIATE_SAMPLE(float, bi::contract::sample_draft);
BI_INSTANTIATE_DIGEST_ROWS(bi::contract::digest_words_draft);

namespace bench {
template void fill_normal(bi::bf16*, std::int64_t, std::uint64_t, float, cudaStream_t);
template void fill_normal(float*, std::int64_t, std::uint64_t, float, cudaStream_t);

namespace {

__global__ void __launch_bounds__(512) read_kernel(const uint4* data, std::int64_t words, std::uint32_t* largest) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::uint32_t most = 0;
  const auto take = [&](const uint4& w) { most = max(most, max(max(w.x, w.y), max(w.z, w.w))); };
  std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + 3 * step < words; i += 4 * step) {
    const uint4 w[4] = {data[i], data[i + step], data[i + 2 * step], data[i + 3 * step]};
    for (const uint4& x : w) take(x);
  }
  for (; i < words; i += step) take(data[i]);
  most = __reduce_max_sync(0xffffffffu, most);
  if (threadIdx.x % 32 == 0) atomicMax(largest, most);
}

}  // namespace

void read_once(const void* data, std::int64_t words, std::uint32_t* largest, cudaStream_t stream) {
  const std::int64_t needed = (words + 511) / 512, most = 132 * 4;
  read_kernel<<<static_cast<unsigned>(needed < most ? needed : most), 512, 0, stream>>>(static_cast<const uint4*>(data),
                                                                                        words, largest);
}

}  // namespace bench
