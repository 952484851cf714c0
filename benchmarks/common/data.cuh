// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/gemm.cuh"
#include "data.hpp"
#include "timing.hpp"

namespace bench {
namespace data_detail {

// The sum of four uniform values.
template <class T>
__global__ void fill_normal(T* p, std::int64_t n, std::uint64_t seed, float deviation) {
  for (std::int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
    std::uint64_t x = (static_cast<std::uint64_t>(i) + seed) * 0x9E3779B97F4A7C15ull;
    x ^= x >> 32, x *= 0xD6E8FEB86659FD93ull, x ^= x >> 32, x *= 0xD6E8FEB86659FD93ull, x ^= x >> 32;
    float sum = -2.0f;
    for (int j = 0; j < 4; ++j) sum += static_cast<float>((x >> (16 * j)) & 0xffff) / 65536.0f;
    p[i] = bi::cvt_rn<T>(sum * 1.7f * deviation);
  }
}

template <class T>
__global__ void count_differences(const T* a, const T* b, std::int64_t n, unsigned long long* count) {
  for (std::int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
    if (a[i].bits != b[i].bits) atomicAdd(count, 1ull);
  }
}

}  // namespace data_detail

template <class T>
void fill_normal(T* p, std::int64_t n, std::uint64_t seed, float deviation, cudaStream_t stream) {
  data_detail::fill_normal<<<1024, 256, 0, stream>>>(p, n, seed, deviation);
  require(cudaGetLastError(), "fill_normal");
}

template <class T>
void count_differences(const T* a, const T* b, std::int64_t n, unsigned long long* count, cudaStream_t stream) {
  data_detail::count_differences<<<1024, 256, 0, stream>>>(a, b, n, count);
  require(cudaGetLastError(), "count_differences");
}

}  // namespace bench
