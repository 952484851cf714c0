// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "gpu/support/gpu_backend.hpp"
#include "needle/device.hpp"
#include "needle/machine.hpp"

namespace test::needle {

// The current device, one stream.
class gpu_machine : public machine {
 public:
  gpu_machine() {
    BI_REQUIRE_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    BI_REQUIRE_CUDA(cudaMalloc(reinterpret_cast<void**>(&found_), sizeof(found)));
    reset_found();
  }
  ~gpu_machine() override {
    drop_graph();
    gpu_machine::release_all();
    (void)cudaFree(found_);
    (void)cudaStreamDestroy(stream_);
  }

  unsigned char* allocate(std::int64_t bytes) override {
    void* p = nullptr;
    // No more than that: what is read beyond it must be seen by tools that look for it.
    BI_REQUIRE_CUDA(cudaMalloc(&p, bytes == 0 ? 256 : static_cast<std::size_t>(bytes)));
    buffers_.push_back(p);
    return static_cast<unsigned char*>(p);
  }
  void release_all() override {
    (void)cudaStreamSynchronize(stream_);
    for (void* p : buffers_) (void)cudaFree(p);
    buffers_.clear();
    workspace_ = {};
  }
  void upload(void* to, const void* from, std::int64_t bytes) override {
    // From pageable memory: `from` is free again when this returns.
    BI_REQUIRE_CUDA(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_));
  }
  void download(void* to, const void* from, std::int64_t bytes) override {
    BI_REQUIRE_CUDA(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream_));
    BI_REQUIRE_CUDA(cudaStreamSynchronize(stream_));
  }
  void fill(void* p, unsigned char byte, std::int64_t bytes) override {
    BI_REQUIRE_CUDA(cudaMemsetAsync(p, byte, static_cast<std::size_t>(bytes), stream_));
  }
  void gather(const placed& to, const unsigned char* pool, const std::int32_t* index, std::int64_t rows) override {
    require_ok(gather_on_gpu(to, pool, index, rows, stream_));
  }
  void compare(const coordinate& from, const placed& rows, const unsigned char* expected, const std::int32_t* index,
               std::int64_t count, unsigned char fill) override {
    require_ok(compare_on_gpu(from, rows, expected, index, count, fill, found_, stream_));
  }
  void compare_zone(const coordinate& from, const unsigned char* p, std::int64_t bytes, unsigned char fill) override {
    require_ok(compare_zone_on_gpu(from, p, bytes, fill, found_, stream_));
  }
  found collect() override {
    found f;
    download(&f, found_, sizeof f);
    reset_found();
    return f;
  }

  bi::status run(const table& t, const call& c) override { return t.gpu(c, poisoned_workspace(t, c), stream_); }
  bi::status run_forced(const table& t, const call& c, std::size_t which) override {
    return t.forced(c, which, stream_);
  }
  bool has_graphs() const override { return true; }
  bi::status capture(const table& t, const call& c) override {
    drop_graph();
    const bi::workspace ws = poisoned_workspace(t, c);
    cudaGraph_t graph = nullptr;
    BI_REQUIRE_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    const bi::status st = t.gpu(c, ws, stream_);
    BI_REQUIRE_CUDA(cudaStreamEndCapture(stream_, &graph));
    if (st) BI_REQUIRE_CUDA(cudaGraphInstantiate(&graph_, graph, 0));
    BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
    return st;
  }
  // What the last replay left in the workspace stays there.
  bi::status replay() override {
    BI_REQUIRE_CUDA(cudaGraphLaunch(graph_, stream_));
    return {};
  }

 private:
  bi::workspace poisoned_workspace(const table& t, const call& c) {
    const std::size_t bytes = t.workspace_bytes(c);
    if (bytes == 0) return {};
    if (bytes > workspace_.bytes) workspace_ = {allocate(static_cast<std::int64_t>(bytes)), bytes};
    // In turn poison and what the last call left.
    if (turn_++ % 2 == 0) fill(workspace_.data, 0xFF, static_cast<std::int64_t>(bytes));
    return {workspace_.data, bytes};
  }
  void reset_found() {
    const found none;
    upload(found_, &none, sizeof none);
  }
  void drop_graph() {
    if (graph_ != nullptr) (void)cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
  }

  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
  found* found_ = nullptr;
  std::vector<void*> buffers_;
  bi::workspace workspace_;
  int turn_ = 0;
};

}  // namespace test::needle
