// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

inline void require(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  (void)cudaGetLastError();  // or the next launch would be blamed
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}
#define BENCH_REQUIRE(call) ::bench::require((call), #call)

// The launches that f makes on a stream, as one CUDA graph: their time holds none of the host's.
class graph {
 public:
  template <class F>
  graph(cudaStream_t stream, F f) {
    cudaGraph_t captured = nullptr;
    BENCH_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      f();
    } catch (...) {
      (void)cudaStreamEndCapture(stream, &captured);
      if (captured != nullptr) (void)cudaGraphDestroy(captured);
      throw;
    }
    BENCH_REQUIRE(cudaStreamEndCapture(stream, &captured));
    const cudaError_t code = cudaGraphInstantiate(&exec_, captured, 0);
    (void)cudaGraphDestroy(captured);
    require(code, "cudaGraphInstantiate");
  }
  ~graph() {
    if (exec_ != nullptr) (void)cudaGraphExecDestroy(exec_);
  }
  graph(graph&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}
  graph& operator=(graph&&) = delete;

  void replay(cudaStream_t stream) const { BENCH_REQUIRE(cudaGraphLaunch(exec_, stream)); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

// Median microseconds of a replay of each graph, over `rounds` rounds after some that warm up. In a round each graph
// has its turn, so that all see the same clocks and the same heat; the host waits only at the end, so that the GPU
// never waits for it between replays.
inline std::vector<double> median_us(cudaStream_t stream, const std::vector<const graph*>& graphs, int rounds) {
  struct events {
    std::vector<cudaEvent_t> all;
    explicit events(std::size_t count) : all(count, nullptr) {
      for (cudaEvent_t& e : all) BENCH_REQUIRE(cudaEventCreate(&e));
    }
    ~events() {
      for (const cudaEvent_t e : all) (void)cudaEventDestroy(e);
    }
    events(const events&) = delete;
    events& operator=(const events&) = delete;
  };
  const std::size_t count = graphs.size(), measured = static_cast<std::size_t>(rounds) * count;
  if (count == 0) return {};
  const events marks(measured + 1);
  constexpr int warm_up = 8;  // after a pause the clocks need some milliseconds
  for (int i = 0; i < warm_up; ++i) {
    for (const graph* g : graphs) g->replay(stream);
  }
  BENCH_REQUIRE(cudaEventRecord(marks.all[0], stream));
  for (std::size_t i = 0; i < measured; ++i) {
    graphs[i % count]->replay(stream);
    BENCH_REQUIRE(cudaEventRecord(marks.all[i + 1], stream));
  }
  BENCH_REQUIRE(cudaStreamSynchronize(stream));
  std::vector<std::vector<float>> ms(count);
  for (std::size_t i = 0; i < measured; ++i) {
    float t = 0.0f;
    BENCH_REQUIRE(cudaEventElapsedTime(&t, marks.all[i], marks.all[i + 1]));
    ms[i % count].push_back(t);
  }
  std::vector<double> medians;
  for (auto& times : ms) {
    std::sort(times.begin(), times.end());
    medians.push_back(static_cast<double>(times[times.size() / 2]) * 1e3);
  }
  return medians;
}

}  // namespace bench
