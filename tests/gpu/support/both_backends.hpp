// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "gpu/support/gpu_backend.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

namespace test {

// Runs a case on both backends and compares bytes; returns how many outputs there were.
template <class Run>
std::int64_t compare(const std::string& name, Run run) {
  host_backend host;
  gpu_backend gpu;
  const auto expected = run(host);
  const auto got = run(gpu);
  gpu.clear();
  INFO(name);
  CHECK(difference(got, expected) == "");
  return static_cast<std::int64_t>(expected.size());
}

// A launch, captured; each replay finds its inputs as they are then. launch(stream) returns a status.
class replayed {
 public:
  template <class Launch>
  replayed(gpu_backend& gpu, Launch launch) : stream_(gpu.stream()) {
    cudaGraph_t graph = nullptr;
    BI_REQUIRE_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    const bi::status st = launch(stream_);
    BI_REQUIRE_CUDA(cudaStreamEndCapture(stream_, &graph));
    require_ok(st);
    BI_REQUIRE_CUDA(cudaGraphInstantiate(&exec_, graph, 0));
    BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
  }
  ~replayed() { (void)cudaGraphExecDestroy(exec_); }
  replayed(const replayed&) = delete;
  replayed& operator=(const replayed&) = delete;
  void operator()() { BI_REQUIRE_CUDA(cudaGraphLaunch(exec_, stream_)); }

 private:
  bi::cuda_stream stream_;
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace test
