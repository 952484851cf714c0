// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// An independent oracle: cuBLASLt without a workspace can't split k, so it runs the same chain of k16 steps as a product
// of one slice, and its bytes are the same.
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bi/gemm.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/catch.hpp"
#include "support/ops_gemm.hpp"

namespace {

void require(cublasStatus_t code, const char* what) {
  if (code != CUBLAS_STATUS_SUCCESS) throw std::runtime_error(std::string(what) + ": " + cublasLtGetStatusString(code));
}

// D[m, n] = A[m, k] B[n, k]^T, all row-major: column-major D^T = B A^T. The first algorithm that needs no workspace.
template <class T>
void cublaslt_product(const T* a, const T* b, T* d, std::int64_t m, std::int64_t n, std::int64_t k,
                      cudaStream_t stream) {
  const cudaDataType_t type = std::is_same_v<T, bi::bf16> ? CUDA_R_16BF : CUDA_R_16F;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t la = nullptr, lb = nullptr, ld = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  require(cublasLtCreate(&handle), "cublasLtCreate");
  require(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  require(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
          "TRANSA");
  const auto size = [](std::int64_t x) { return static_cast<std::uint64_t>(x); };
  require(cublasLtMatrixLayoutCreate(&lb, type, size(k), size(n), k), "layout of B");
  require(cublasLtMatrixLayoutCreate(&la, type, size(k), size(m), k), "layout of A");
  require(cublasLtMatrixLayoutCreate(&ld, type, size(n), size(m), n), "layout of D");
  require(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const std::uint64_t no_workspace = 0;
  require(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &no_workspace,
                                               sizeof no_workspace),
          "MAX_WORKSPACE_BYTES");
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  require(cublasLtMatmulAlgoGetHeuristic(handle, operation, lb, la, ld, ld, preference, 1, &found, &count),
          "heuristic");
  if (count == 0) throw std::runtime_error("cuBLASLt has no algorithm for this shape");
  const float one = 1.0f, zero = 0.0f;
  require(cublasLtMatmul(handle, operation, &one, b, lb, a, la, &zero, d, ld, d, ld, &found.algo, nullptr, 0, stream),
          "cublasLtMatmul");
  BI_REQUIRE_CUDA(cudaStreamSynchronize(stream));
  (void)cublasLtMatmulPreferenceDestroy(preference);
  (void)cublasLtMatrixLayoutDestroy(ld);
  (void)cublasLtMatrixLayoutDestroy(la);
  (void)cublasLtMatrixLayoutDestroy(lb);
  (void)cublasLtMatmulDescDestroy(operation);
  (void)cublasLtDestroy(handle);
}

struct shape {
  std::int64_t n, k;
};
// The projections of an 8B model, those of a 70B model cut over eight GPUs, and a square.
constexpr shape shapes[] = {{6144, 4096}, {4096, 4096}, {24576, 4096}, {4096, 12288}, {151936, 4096},
                            {7168, 8192}, {1280, 8192}, {8192, 1024},  {8192, 3584},  {8192, 8192}};

template <class T>
void compare_with_cublaslt() {
  // Large matrices are repeats of one random block, whose length is prime.
  constexpr std::int64_t length = 1000003;
  const auto block = test::random_vector<T>(length, test::values::normal, 11);
  test::gpu_backend gpu;
  const auto fill = [&](std::int64_t elements) {
    T* p = gpu.template output<T>(elements);
    for (std::int64_t i = 0; i < elements; i += length) {
      const std::int64_t n = elements - i < length ? elements - i : length;
      BI_REQUIRE_CUDA(cudaMemcpyAsync(p + i, block.data(), static_cast<std::size_t>(n) * sizeof(T),
                                      cudaMemcpyHostToDevice, gpu.stream()));
    }
    return p;
  };
  for (const shape s : shapes) {
    const T* b = fill(s.n * s.k);
    for (const std::int64_t m : {1, 48, 200}) {
      const T* a = fill(m * s.k);
      T* expected = gpu.template output<T>(m * s.n);
      cublaslt_product(a, b, expected, m, s.n, s.k, gpu.stream());
      test::gemm_call<T, bi::epilogue::none, T> call;
      call.limits = {s.n, s.k, m, 1};
      call.args.a = a;
      call.args.b = b;
      T* d = gpu.template output<T>(m * s.n);
      call.args.d = d;
      call.args.m = m;
      gpu.run(test::gemm_op{}, call);
      INFO("n = " << s.n << ", k = " << s.k << ", m = " << m);
      CHECK(test::difference(gpu.read(d), gpu.read(expected)) == "");
      if (s.n == 1280) {  // control: slices change bits
        call.limits.slices = 8;
        gpu.run(test::gemm_op{}, call);
        CHECK(test::difference(gpu.read(d), gpu.read(expected)) != "");
      }
    }
    gpu.clear();
  }
}

}  // namespace

TEST_CASE("gemm: one slice equals cuBLASLt without a workspace, bf16", "[gpu][cublaslt]") {
  compare_with_cublaslt<bi::bf16>();
}
TEST_CASE("gemm: one slice equals cuBLASLt without a workspace, fp16", "[gpu][cublaslt]") {
  compare_with_cublaslt<bi::fp16>();
}
