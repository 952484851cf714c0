// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <string>

#include "bi/testing/self_test_device.cuh"
#include "support/catch.hpp"
#include "support/gpu_backend.hpp"

// The operations' kernels are those of the other tests.

TEST_CASE("self_test passes on this machine, on any stream") {
  test::gpu_backend b;
  for (const bi::cuda_stream stream : {b.stream(), bi::cuda_stream(nullptr)}) {
    const bi::self_test_result bf16 = bi::testing::self_test_on_device<bi::bf16>(stream);
    INFO(bi::describe(bf16));
    CHECK(bf16);
    CHECK(bf16.operations == 8);
  }
}

TEST_CASE("self_test refuses a stream that is being captured, and leaves the capture alone") {
  test::gpu_backend b;
  BI_REQUIRE_CUDA(cudaStreamBeginCapture(b.stream(), cudaStreamCaptureModeGlobal));
  const bi::self_test_result r = bi::testing::self_test_on_device<bi::bf16>(b.stream());
  cudaGraph_t graph = nullptr;
  BI_REQUIRE_CUDA(cudaStreamEndCapture(b.stream(), &graph));
  BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
  CHECK(r.call.code == bi::error::not_supported);
  CHECK(bi::describe(r).find("capture = 1 is not supported") != std::string::npos);
}
