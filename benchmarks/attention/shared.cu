// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "shared.hpp"

namespace bench {
namespace {

__global__ void read_kernel(const uint4* k, const uint4* other, std::int64_t n, std::uint32_t* never) {
  const uint4* const p = blockIdx.y == 0 ? k : other;
  constexpr int at_once = 8;
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::uint32_t x = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += at_once * threads) {
    uint4 v[at_once];
#pragma unroll
    for (int j = 0; j < at_once; ++j) v[j] = i + j * threads < n ? __ldcs(p + i + j * threads) : uint4{};
#pragma unroll
    for (int j = 0; j < at_once; ++j) x |= v[j].x & v[j].y & v[j].z & v[j].w;
  }
  if (x == 0xdeadbeefu) *never = x;  // never: the compiler does not know
}

}  // namespace

void read_memory(const void* k, const void* v, std::int64_t bytes, cudaStream_t stream) {
  read_kernel<<<dim3(132 * 4, 2), 256, 0, stream>>>(static_cast<const uint4*>(k), static_cast<const uint4*>(v),
                                                    bytes / 16, nullptr);
  BENCH_REQUIRE(cudaGetLastError());
}

}  // namespace bench
