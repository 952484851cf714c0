// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bi/status.hpp"
#include "support/data.hpp"

namespace test {

inline void require_cuda(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}
#define BI_REQUIRE_CUDA(call) ::test::require_cuda((call), #call)

// Throws what describe() says, and what the runtime says of its error.
inline void require_ok(const bi::status& st) {
  if (st) return;
  std::string text = bi::describe(st);
  if (st.code == bi::error::cuda)
    text += std::string(": ") + cudaGetErrorString(static_cast<cudaError_t>(st.cuda_error));
  throw std::runtime_error(text);
}

// The backend of tests/support/backend.hpp on the current device. Each buffer lies between two guard zones that are
// checked when it is read and at the end; a workspace is poisoned before each call.
class gpu_backend {
 public:
  static constexpr bool is_gpu = true;
  static constexpr std::size_t guard_bytes = 1024;
  static constexpr unsigned char guard_byte = 0x5A;

  gpu_backend() { BI_REQUIRE_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~gpu_backend() {
    free_all();
    (void)cudaStreamDestroy(stream_);
  }
  gpu_backend(const gpu_backend&) = delete;
  gpu_backend& operator=(const gpu_backend&) = delete;

  bi::cuda_stream stream() const { return stream_; }

  template <class T>
  T* input(const std::vector<T>& values) {
    T* p = allocate<T>(values.size());
    if (!values.empty()) {
      BI_REQUIRE_CUDA(cudaMemcpyAsync(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream_));
    }
    sync();
    return p;
  }
  template <class T>
  T* output(std::int64_t n) {
    T* p = allocate<T>(static_cast<std::size_t>(n));
    BI_REQUIRE_CUDA(cudaMemsetAsync(p, poison_byte, static_cast<std::size_t>(n) * sizeof(T), stream_));
    return p;
  }
  template <class T>
  void write(T* p, const std::vector<T>& values) {
    BI_REQUIRE_CUDA(cudaMemcpyAsync(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream_));
    sync();
  }
  template <class T>
  void poison(T* p, std::int64_t n) {
    BI_REQUIRE_CUDA(cudaMemsetAsync(p, poison_byte, static_cast<std::size_t>(n) * sizeof(T), stream_));
  }
  template <class T>
  std::vector<T> read(const T* p) {
    return read(p, -1);
  }
  // The first n elements; -1: all.
  template <class T>
  std::vector<T> read(const T* p, std::int64_t n) {
    sync();
    for (const buffer& b : buffers_) {
      if (b.base + guard_bytes != reinterpret_cast<const unsigned char*>(p)) continue;
      check_guards(b);
      std::vector<T> out(n < 0 ? b.bytes / sizeof(T) : static_cast<std::size_t>(n));
      if (!out.empty()) BI_REQUIRE_CUDA(cudaMemcpy(out.data(), p, out.size() * sizeof(T), cudaMemcpyDeviceToHost));
      return out;
    }
    throw std::logic_error("read() takes the start of a buffer of this backend");
  }

  template <class Op, class Args>
  void run(const Op&, const Args& args) {
    bi::workspace ws;
    ws.bytes = bytes_needed<Op>(args, 0);
    if (ws.bytes > 0) ws.data = output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
    require_ok(Op::gpu(args, ws, stream_));
    sync();
  }

  void sync() { BI_REQUIRE_CUDA(cudaStreamSynchronize(stream_)); }

  // Frees every buffer; a guard zone that was written fails.
  void clear() {
    sync();
    for (const buffer& b : buffers_) check_guards(b);
    free_all();
  }

 private:
  struct buffer {
    unsigned char* base;
    std::size_t bytes;
  };
  template <class Op, class Args>
  static auto bytes_needed(const Args& args, int) -> decltype(Op::workspace_bytes(args)) {
    return Op::workspace_bytes(args);
  }
  template <class Op, class Args>
  static std::size_t bytes_needed(const Args&, long) {
    return 0;
  }
  template <class T>
  T* allocate(std::size_t n) {
    buffer b{nullptr, n * sizeof(T)};
    void* base = nullptr;
    BI_REQUIRE_CUDA(cudaMalloc(&base, b.bytes + 2 * guard_bytes));
    b.base = static_cast<unsigned char*>(base);
    buffers_.push_back(b);
    BI_REQUIRE_CUDA(cudaMemsetAsync(b.base, guard_byte, guard_bytes, stream_));
    BI_REQUIRE_CUDA(cudaMemsetAsync(b.base + guard_bytes + b.bytes, guard_byte, guard_bytes, stream_));
    return reinterpret_cast<T*>(b.base + guard_bytes);
  }
  static void check_guards(const buffer& b) {
    unsigned char host[guard_bytes];
    for (const unsigned char* zone : {b.base, b.base + guard_bytes + b.bytes}) {
      BI_REQUIRE_CUDA(cudaMemcpy(host, zone, guard_bytes, cudaMemcpyDeviceToHost));
      for (const unsigned char byte : host) {
        if (byte != guard_byte) throw std::runtime_error("a kernel wrote outside a buffer");
      }
    }
  }
  void free_all() {
    for (const buffer& b : buffers_) (void)cudaFree(b.base);
    buffers_.clear();
  }

  cudaStream_t stream_ = nullptr;
  std::vector<buffer> buffers_;
};

}  // namespace test
