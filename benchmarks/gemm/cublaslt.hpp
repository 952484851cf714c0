// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../common/timing.hpp"
#include "bi/dtype.hpp"

// The peer: cuBLASLt, D[m, n] = A[m, k] B[n, k]^T, all row-major (column-major D^T = B A^T).
namespace bench {

// A stack of products, entries one after another.
struct product {
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  bool kn = false;  // B is [k, n]
};

inline void require(cublasStatus_t code, const char* what) {
  if (code != CUBLAS_STATUS_SUCCESS) throw std::runtime_error(std::string(what) + ": " + cublasLtGetStatusString(code));
}

template <class T>
class cublaslt_product {
 public:
  // The heuristic's first `most` algorithms that need at most workspace_bytes.
  cublaslt_product(const product& p, std::size_t workspace_bytes, int most) {
    const cudaDataType_t type = std::is_same_v<T, bi::bf16> ? CUDA_R_16BF : CUDA_R_16F;
    const auto size = [](std::int64_t x) { return static_cast<std::uint64_t>(x); };
    const cublasOperation_t op = p.kn ? CUBLAS_OP_N : CUBLAS_OP_T;
    BENCH_REQUIRE(cublasLtCreate(&handle_));
    BENCH_REQUIRE(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    BENCH_REQUIRE(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &op, sizeof op));
    const auto layout = [&](cublasLtMatrixLayout_t* to, std::int64_t rows, std::int64_t cols) {
      const auto count = static_cast<std::int32_t>(p.batch);
      const std::int64_t stride = rows * cols;
      BENCH_REQUIRE(cublasLtMatrixLayoutCreate(to, type, size(rows), size(cols), rows));
      BENCH_REQUIRE(cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
      BENCH_REQUIRE(
          cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
    };
    p.kn ? layout(&b_, p.n, p.k) : layout(&b_, p.k, p.n);
    layout(&a_, p.k, p.m);
    layout(&d_, p.n, p.m);
    cublasLtMatmulPreference_t preference = nullptr;
    BENCH_REQUIRE(cublasLtMatmulPreferenceCreate(&preference));
    BENCH_REQUIRE(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                       &workspace_bytes, sizeof workspace_bytes));
    found_.resize(static_cast<std::size_t>(most));
    int count = 0;
    BENCH_REQUIRE(
        cublasLtMatmulAlgoGetHeuristic(handle_, operation_, b_, a_, d_, d_, preference, most, found_.data(), &count));
    found_.resize(static_cast<std::size_t>(count));
    BENCH_REQUIRE(cublasLtMatmulPreferenceDestroy(preference));
    if (count == 0) throw std::runtime_error("cuBLASLt has no algorithm for this shape");
  }
  ~cublaslt_product() {
    (void)cublasLtMatrixLayoutDestroy(d_);
    (void)cublasLtMatrixLayoutDestroy(a_);
    (void)cublasLtMatrixLayoutDestroy(b_);
    (void)cublasLtMatmulDescDestroy(operation_);
    (void)cublasLtDestroy(handle_);
  }
  cublaslt_product(const cublaslt_product&) = delete;
  cublaslt_product& operator=(const cublaslt_product&) = delete;

  int algorithms() const { return static_cast<int>(found_.size()); }
  void run(int algorithm, const T* a, const T* b, T* d, void* workspace, cudaStream_t stream) const {
    const float one = 1.0f, zero = 0.0f;
    const auto& found = found_[static_cast<std::size_t>(algorithm)];
    BENCH_REQUIRE(cublasLtMatmul(handle_, operation_, &one, b, b_, a, a_, &zero, d, d_, d, d_, &found.algo, workspace,
                                 found.workspaceSize, stream));
  }

 private:
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> found_;
};

}  // namespace bench
