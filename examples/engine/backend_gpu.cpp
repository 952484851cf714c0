// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Every operation is one launcher of bi on one stream, but for those that shall follow the batch. The kernels are
// instantiated in kernels.cu, so this file sees no device code.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.hpp"
#include "cublaslt.hpp"
#include "kernels.hpp"

namespace engine {
namespace {

void require_cuda(cudaError_t code, const char* call) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(code));
}

// Memory that grows. What it held stays alive, since graphs may have recorded its address.
class scratch {
 public:
  ~scratch() {
    for (void* p : all_) (void)cudaFree(p);
  }
  void* at_least(std::size_t bytes) {
    if (bytes <= bytes_) return all_.empty() ? nullptr : all_.back();
    void* p = nullptr;
    require_cuda(cudaMalloc(&p, bytes), "cudaMalloc");
    all_.push_back(p);
    bytes_ = bytes;
    return p;
  }

 private:
  std::vector<void*> all_;
  std::size_t bytes_ = 0;
};

class gpu_backend final : public backend {
 public:
  explicit gpu_backend(const batch_dependent& d) : follows_(d) {
    require_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    if (d.gemm) cublaslt_ = std::make_unique<cublaslt>();
  }
  ~gpu_backend() override {
    forget_runs();
    (void)cudaStreamDestroy(stream_);
  }
  std::string name() const override { return arm_name(follows_); }
  std::string device() const override {
    cudaDeviceProp p{};
    require_cuda(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
    return p.name;
  }

  void* allocate(std::size_t bytes) override {
    void* p = nullptr;
    const std::size_t size = bytes == 0 ? 1 : bytes;
    require_cuda(cudaMalloc(&p, size), "cudaMalloc");
    require_cuda(cudaMemsetAsync(p, 0, size, stream_), "cudaMemsetAsync");
    require_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");  // other backends have other streams
    return p;
  }
  void release(void* p) override { (void)cudaFree(p); }
  // From pageable memory: `from` has been read when the call returns.
  void upload(void* to, const void* from, std::size_t bytes) override {
    require_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync to the device");
  }
  void download(void* to, const void* from, std::size_t bytes) override {
    require_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync to the host");
    require_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  void random_weights(bf16* out, std::int64_t count, std::uint64_t seed, std::uint64_t tensor, float scale) override {
    require(launch_random_weights(out, count, seed, tensor, scale, stream_));
  }
  void embedding(const bi::embedding_args<bf16>& a) override { require(bi::embedding(a, stream_)); }
  void rms_norm(const bi::rms_norm_args<bf16>& a) override {
    require(follows_.norm ? launch_norm_by_rows(a, stream_) : bi::rms_norm(a, stream_));
  }
  void gemm(const bi::gemm_limits& l, const gemm_args& a) override {
    if (follows_.gemm) return cublaslt_->product(a.a, a.b, a.d, false, a.m, l.n, l.k, stream_);
    run_gemm(l, a);
  }
  void gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) override {
    if (!follows_.gemm) return run_gemm(l, a);
    auto* both = static_cast<bf16*>(both_.at_least(static_cast<std::size_t>(l.max_m * l.n) * sizeof(bf16)));
    cublaslt_->product(a.a, a.b, both, false, a.m, l.n, l.k, stream_);
    bi::gate_mul_args<bf16> s;
    s.gate = both;
    s.up = both + 1;
    s.column_step = 2;
    s.rows = a.m;
    s.cols = l.n / 2;
    s.out = a.d;
    require(bi::silu_mul(s, stream_));
  }
  void gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) override {
    if (follows_.gemm) return cublaslt_->product(a.a, a.b, a.d, true, a.m, l.n, l.k, stream_);
    run_gemm(l, a);
  }
  void kv_append(const bi::kv_append_args<bf16>& a) override { require(bi::kv_append(a, stream_)); }
  void attention(const bi::attention_args<bf16>& a) override {
    // Parts enough to keep all SMs busy. Prefill is not split, nor are views that don't consist of whole pages.
    const std::int64_t blocks = a.requests * a.limits.heads_kv;
    const std::int64_t parts = std::min<std::int64_t>(16, 2 * 132 / std::max<std::int64_t>(blocks, 1));
    if (follows_.attention && parts > 1 && a.limits.max_q_len == 1 && a.view.kind == bi::view_kind::page_csr) {
      return split_attention(a, parts);
    }
    launch_attention(a);
  }
  void sample(const bi::sample_args<float>& a) override { require(bi::sample(a, stream_)); }
  void log_softmax(const bi::softmax_args<float>& a) override { require(bi::log_softmax(a, stream_)); }
  void pick(const pick_args& a) override { require(launch_pick(a, stream_)); }
  void digest_rows(const bi::digest_rows_args& a) override { require(bi::digest_rows(a, stream_)); }
  void digest_kv(const bi::digest_kv_args<bf16>& a) override { require(bi::digest_kv(a, stream_)); }

  // The first run of a key allocates and loads what it needs, the second is recorded.
  void run(std::uint64_t key, const std::function<void()>& calls) override {
    if (key == 0) return calls();
    auto [at, first] = graphs_.try_emplace(key, nullptr);
    if (first) return calls();
    if (at->second == nullptr) {
      cudaGraph_t graph = nullptr;
      require_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
      calls();
      require_cuda(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
      const cudaError_t code = cudaGraphInstantiate(&at->second, graph, 0);
      (void)cudaGraphDestroy(graph);
      require_cuda(code, "cudaGraphInstantiate");
    }
    require_cuda(cudaGraphLaunch(at->second, stream_), "cudaGraphLaunch");
  }
  void forget_runs() override {
    (void)cudaStreamSynchronize(stream_);
    for (const auto& [key, graph] : graphs_) {
      if (graph != nullptr) (void)cudaGraphExecDestroy(graph);
    }
    graphs_.clear();
  }

 private:
  template <class T, class Epilogue, class Out>
  void run_gemm(const bi::gemm_limits& l, const bi::gemm_args<T, Epilogue, Out>& a) {
    require(bi::gemm<T, Epilogue, Out>::prepare(l)(a, {}, stream_));
  }

  template <int HeadDim>
  void launch_attention_of(const bi::attention_args<bf16>& a) {
    using kernel = bi::attention<bf16, HeadDim>;
    const std::size_t bytes = kernel::workspace_bytes(a.limits);
    require(kernel::launch(a, {workspace_.at_least(bytes), bytes}, stream_));
  }
  void launch_attention(const bi::attention_args<bf16>& a) {
    switch (a.limits.head_dim) {
      case 64:
        return launch_attention_of<64>(a);
      case 128:
        return launch_attention_of<128>(a);
      default:
        throw std::runtime_error("the GPU backend has attention kernels for head_dim 64 and 128");
    }
  }

  void split_attention(const bi::attention_args<bf16>& a, std::int64_t parts) {
    const std::int64_t rows = a.requests * parts, width = a.limits.heads_q * a.limits.head_dim;
    const auto bytes = [](std::int64_t count, std::size_t element) {
      return static_cast<std::size_t>(count) * element;
    };
    split_args s;
    s.whole = a;
    s.parts = parts;
    s.page_start = static_cast<std::int32_t*>(part_start_.at_least(bytes(rows + 1, sizeof(std::int32_t))));
    s.len = static_cast<std::int32_t*>(part_len_.at_least(bytes(rows, sizeof(std::int32_t))));
    s.q = static_cast<bf16*>(part_q_.at_least(bytes(rows * width, sizeof(bf16))));
    s.out = static_cast<bf16*>(part_out_.at_least(bytes(rows * width, sizeof(bf16))));
    s.lse = static_cast<float*>(part_lse_.at_least(bytes(rows * a.limits.heads_q, sizeof(float))));
    require(launch_split(s, stream_));
    bi::attention_args<bf16> p = a;
    p.q = s.q;
    p.q_token_stride = 0;
    p.view = bi::page_csr{a.view.csr.pages, s.page_start};
    p.len = s.len;
    p.q_start = nullptr;
    p.requests = p.rows = rows;
    p.sharing = {};
    p.limits.max_groups = 0;
    p.limits.max_requests = p.limits.max_rows = std::max(rows, a.limits.max_requests);
    p.lse = s.lse;
    p.out = s.out;
    p.out_token_stride = 0;
    launch_attention(p);
    require(launch_join(s, stream_));
  }

  const batch_dependent follows_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<cublaslt> cublaslt_;
  std::map<std::uint64_t, cudaGraphExec_t> graphs_;
  scratch workspace_, both_, part_start_, part_len_, part_q_, part_out_, part_lse_;
};

}  // namespace

bool gpu_is_here() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}
std::unique_ptr<backend> make_gpu(const batch_dependent& d) { return std::make_unique<gpu_backend>(d); }

}  // namespace engine
