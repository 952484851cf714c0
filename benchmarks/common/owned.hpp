// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "timing.hpp"

// Device memory and a stream that are given back at the end of their scope.
namespace bench {

template <class T>
class buffer {
 public:
  explicit buffer(std::int64_t elements) {
    const std::size_t bytes = static_cast<std::size_t>(elements) * sizeof(T);
    require(cudaMalloc(reinterpret_cast<void**>(&data_), bytes), "cudaMalloc");
  }
  ~buffer() { (void)cudaFree(data_); }
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

class owned_stream {
 public:
  owned_stream() { BENCH_REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~owned_stream() { (void)cudaStreamDestroy(stream_); }
  owned_stream(const owned_stream&) = delete;
  owned_stream& operator=(const owned_stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace bench
