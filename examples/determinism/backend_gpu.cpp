// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The same engine on a GPU: every operation is one launcher of bi on one stream. Built where nvcc is; the kernels are
// instantiated in kernels.cu, so this file sees no device code.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "backend.hpp"
#include "split_k.hpp"

namespace demo {
namespace {

void require_cuda(cudaError_t code, const char* call) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(code));
}

class gpu_backend : public backend {
 public:
  gpu_backend() {
    require_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~gpu_backend() override { (void)cudaStreamDestroy(stream_); }
  std::string name() const override { return "gpu"; }

  void* allocate(std::size_t bytes) override {
    void* p = nullptr;
    const std::size_t size = bytes == 0 ? 1 : bytes;
    require_cuda(cudaMalloc(&p, size), "cudaMalloc");
    require_cuda(cudaMemsetAsync(p, 0, size, stream_), "cudaMemsetAsync");
    return p;
  }
  void release(void* p) override { (void)cudaFree(p); }
  void upload(void* to, const void* from, std::size_t bytes) override {
    require_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync to the device");
    require_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");  // `from` may go at once
  }
  void download(void* to, const void* from, std::size_t bytes) override {
    require_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync to the host");
    require_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  void gather(const gather_args& a) override {
    bi::embedding_args<bf16> e;
    e.table = a.table;
    e.id = a.index;
    e.table_rows = a.table_rows;
    e.rows = a.rows;
    e.cols = a.cols;
    e.out = a.out;
    require(bi::embedding(e, stream_));
  }
  void rms_norm(const bi::rms_norm_args<bf16>& a) override { require(bi::rms_norm(a, stream_)); }
  void add(const bi::add_args<bf16>& a) override { require(bi::add(a, stream_)); }
  void gemm(const bi::gemm_limits& l, const gemm_args& a) override { run_gemm(l, a); }
  void gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) override { run_gemm(l, a); }
  void gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) override { run_gemm(l, a); }
  void silu_mul(const bi::gate_mul_args<bf16>& a) override { require(bi::silu_mul(a, stream_)); }
  void qk_norm(const bi::qk_norm_args<bf16>& a) override { require(bi::qk_norm(a, stream_)); }
  void rope(const bi::rope_args<bf16>& a) override { require(bi::rope(a, stream_)); }
  void kv_append(const bi::kv_append_args<bf16>& a) override { require(bi::kv_append(a, stream_)); }
  void attention(const bi::attention_args<bf16>& a) override {
    switch (a.limits.head_dim) {
      case 64:
        return require(bi::attention<bf16, 64>::launch(a, {}, stream_));
      case 128:
        return require(bi::attention<bf16, 128>::launch(a, {}, stream_));
      default:
        throw std::runtime_error("the GPU backend has kernels for head_dim 64 and 128");
    }
  }
  void sample(const bi::sample_args<float>& a) override { require(bi::sample(a, stream_)); }
  void digest_rows(const bi::digest_rows_args& a) override { require(bi::digest_rows(a, stream_)); }
  void digest_kv(const bi::digest_kv_args<bf16>& a) override { require(bi::digest_kv(a, stream_)); }

 protected:
  template <class T, class Epilogue, class Out>
  void launch_gemm(const bi::gemm_limits& l, const bi::gemm_args<T, Epilogue, Out>& a) {
    require(bi::gemm<T, Epilogue, Out>::prepare(l)(a, {}, stream_));
  }
  virtual bi::gemm_limits contract_of(const bi::gemm_limits& l, std::int64_t) const { return l; }

 private:
  template <class Args>
  void run_gemm(const bi::gemm_limits& l, const Args& a) {
    launch_gemm(contract_of(l, a.m), a);
  }

  cudaStream_t stream_ = nullptr;
};

// The batch-dependent arm: k is split by the number of rows, as a library's heuristics do.
class gpu_baseline_backend final : public gpu_backend {
 public:
  std::string name() const override { return baseline_name; }

 protected:
  bi::gemm_limits contract_of(const bi::gemm_limits& l, std::int64_t m) const override {
    bi::gemm_limits split = l;
    split.slices = split_k(m, l);
    return split;
  }
};

}  // namespace

std::unique_ptr<backend> make_gpu() { return std::make_unique<gpu_backend>(); }
std::unique_ptr<backend> make_gpu_baseline() { return std::make_unique<gpu_baseline_backend>(); }

}  // namespace demo
