// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Defined in data.cuh, for bf16 and fp16.
namespace bench {

// Roughly normal values of this standard deviation: the GPU's power, and with it its clock, depends on the data.
template <class T>
void fill_normal(T* p, std::int64_t n, std::uint64_t seed, float deviation, cudaStream_t stream);

// Adds to *count, in device memory, the number of elements whose bits differ.
template <class T>
void count_differences(const T* a, const T* b, std::int64_t n, unsigned long long* count, cudaStream_t stream);

}  // namespace bench
