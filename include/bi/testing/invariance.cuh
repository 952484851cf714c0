// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "bi/runtime.hpp"
#include "bi/testing/invariance.hpp"

// The checks of bi/testing/invariance.hpp over GPU memory. Unlike the rest of the library this allocates and waits. It
// has no kernels: a .cpp file that sees the CUDA headers may include it.

BI_NAMESPACE_BEGIN
namespace testing {

// Memory of the current device, and a stream of its own.
class BI_TYPE device_memory : public memory {
 public:
  device_memory() {
    opened_ = say("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~device_memory() override {
    if (graph_ != nullptr) (void)cudaGraphExecDestroy(graph_);
    for (void* p : buffers_) (void)cudaFree(p);
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }

  void* allocate(std::size_t bytes, status& st) override {
    void* p = nullptr;
    st = opened_ ? say("cudaMalloc", cudaMalloc(&p, bytes)) : opened_;
    if (st) buffers_.push_back(p);
    return p;
  }
  status write(void* to, const void* from, std::size_t bytes) override {
    return copy(to, from, bytes, cudaMemcpyHostToDevice);
  }
  status read(void* to, const void* from, std::size_t bytes) override {
    return copy(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  cuda_stream stream() const override { return stream_; }

  bool has_graphs() const override { return true; }
  status capture(const std::function<status()>& work) override {
    if (graph_ != nullptr) (void)cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
    // Global: whatever the function under test does that a capture forbids is an error.
    if (const status st = say("cudaStreamBeginCapture", cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
        !st) {
      return st;
    }
    const status worked = work();
    cudaGraph_t recorded = nullptr;
    const status ended = say("cudaStreamEndCapture", cudaStreamEndCapture(stream_, &recorded));
    status st = worked ? ended : worked;
    if (st) st = say("cudaGraphInstantiate", cudaGraphInstantiate(&graph_, recorded, 0));
    if (recorded != nullptr) (void)cudaGraphDestroy(recorded);
    return st;
  }
  status replay() override { return say("cudaGraphLaunch", cudaGraphLaunch(graph_, stream_)); }

 private:
  static status say(const char* call, cudaError_t code) { return cuda_status("invariance", call, code); }

  status copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (const status st = say("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, kind, stream_)); !st) return st;
    return say("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
  }

  cudaStream_t stream_ = nullptr;
  status opened_;
  cudaGraphExec_t graph_ = nullptr;
  std::vector<void*> buffers_;
};

// All checks on the current device, graphs included. `twin` computes the same rows on the CPU, null: not compared.
inline report check_on_gpu(const rows_under_test& rows, const row_function& run, const row_function* twin = nullptr,
                           const check_options& options = {}) {
  device_memory m;
  return check(rows, run, m, twin, options);
}

}  // namespace testing
BI_NAMESPACE_END
