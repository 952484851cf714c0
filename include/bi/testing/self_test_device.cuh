// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/runtime.hpp"
#include "bi/self_test.hpp"
#include "bi/testing/self_test_cases.hpp"

// bi::self_test on the current device. It has no kernels: the operations' launchers are instantiated elsewhere.

BI_NAMESPACE_BEGIN
namespace testing {

class BI_TYPE device_backend {
 public:
  explicit device_backend(cuda_stream stream) : stream_(stream) {
    note("cudaMalloc", cudaMalloc(&memory_, self_test_bytes));
    if (failed_) note("cudaMemsetAsync", cudaMemsetAsync(memory_, 0xFF, self_test_bytes, stream_));
  }
  ~device_backend() {
    if (memory_ == nullptr) return;
    // A kernel that an early return left behind may still write.
    (void)cudaStreamSynchronize(stream_);
    (void)cudaFree(memory_);
  }
  device_backend(const device_backend&) = delete;
  device_backend& operator=(const device_backend&) = delete;

  template <class E>
  const E* input(const std::vector<E>& values) {
    E* p = output<E>(static_cast<std::int64_t>(values.size()));
    if (p != nullptr) {
      note("cudaMemcpyAsync",
           cudaMemcpyAsync(p, values.data(), values.size() * sizeof(E), cudaMemcpyHostToDevice, stream_));
      // The values are gone when this returns.
      note("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
    }
    return p;
  }
  template <class E>
  E* output(std::int64_t count) {
    return static_cast<E*>(take(static_cast<std::size_t>(count) * sizeof(E)));
  }
  template <class E>
  status read(E* to, const E* from, std::int64_t count) {
    if (!failed_) return failed_;
    const std::size_t size = static_cast<std::size_t>(count) * sizeof(E);
    note("cudaMemcpyAsync", cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, stream_));
    note("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
    return failed_;
  }

  template <class T>
  status run(const add_args<T>& a) {
    return failed_ ? bi::add(a, stream_) : failed_;
  }
  template <class T>
  status run(const gate_mul_args<T>& a) {
    return failed_ ? bi::silu_mul(a, stream_) : failed_;
  }
  template <class T>
  status run(const rms_norm_args<T>& a) {
    return failed_ ? bi::rms_norm(a, stream_) : failed_;
  }
  template <class T, class Out>
  status run(const softmax_args<T, Out>& a) {
    return failed_ ? bi::log_softmax(a, stream_) : failed_;
  }
  template <class T>
  status run(const gemm_limits& l, const gemm_args<T>& a) {
    if (!failed_) return failed_;
    const workspace ws = workspace_of(gemm<T>::workspace_bytes(l));
    return failed_ ? gemm<T>::prepare(l)(a, ws, stream_) : failed_;
  }
  template <class T>
  status run(const kv_append_args<T>& a) {
    return failed_ ? bi::kv_append(a, stream_) : failed_;
  }
  template <class T>
  status run(const attention_args<T>& a) {
    if (!failed_) return failed_;
    const workspace ws = workspace_of(attention<T, 128>::workspace_bytes(a.limits));
    return failed_ ? attention<T, 128>::launch(a, ws, stream_) : failed_;
  }
  template <class T>
  status run(const sample_args<T>& a) {
    return failed_ ? bi::sample(a, stream_) : failed_;
  }

 private:
  void note(const char* call, cudaError_t code) {
    if (failed_) failed_ = cuda_status("self_test", call, code);
  }
  void* take(std::size_t count) {
    constexpr std::size_t alignment = 256;
    const std::size_t needed = used_ + (count + alignment - 1) / alignment * alignment;
    if (failed_ && needed > self_test_bytes) {
      failed_ = {error::too_small,
                 0,
                 "self_test",
                 "memory",
                 nullptr,
                 static_cast<std::int64_t>(self_test_bytes),
                 static_cast<std::int64_t>(needed)};
    }
    if (!failed_) return nullptr;
    void* p = static_cast<unsigned char*>(memory_) + used_;
    used_ = needed;
    return p;
  }
  workspace workspace_of(std::size_t count) {
    if (count == 0) return {};
    return {take(count), count};
  }

  cuda_stream stream_;
  void* memory_ = nullptr;
  std::size_t used_ = 0;
  status failed_;  // the first failure of the runtime, ok until then
};

// What can be asked before anything is allocated.
inline status check_self_test(cuda_stream stream) {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  if (const cudaError_t code = cudaStreamIsCapturing(stream, &capturing); code != cudaSuccess) {
    return cuda_status("self_test", "cudaStreamIsCapturing", code);
  }
  status st;
  st.operation = "self_test";
  if (capturing != cudaStreamCaptureStatusNone) {
    st.code = error::not_supported, st.argument = "the stream's capture", st.value = static_cast<int>(capturing);
    st.relation = "0 (self_test waits, which a captured stream cannot)";
    return st;
  }
  int major = 0;
  if (const status got =
          current_device_attribute("self_test", "cudaDeviceGetAttribute", cudaDevAttrComputeCapabilityMajor, major);
      !got) {
    return got;
  }
  if (major != 9) {
    st.code = error::not_supported, st.argument = "the device's compute capability", st.value = major;
    st.relation = "9 (the CPU reference is that of Hopper's tensor cores)";
  }
  return st;
}

template <class T>
self_test_result self_test_on_device(cuda_stream stream) {
  self_test_result r;
  r.call = check_self_test(stream);
  if (!r.call) return r;
  device_backend gpu(stream);
  return run_self_test<T>(gpu);
}

}  // namespace testing
BI_NAMESPACE_END
