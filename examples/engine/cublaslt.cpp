// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "cublaslt.hpp"

#include <map>
#include <stdexcept>
#include <string>
#include <tuple>

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

namespace engine {
namespace {

constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // as PyTorch gives it on Hopper

void require(cublasStatus_t code, const char* call) {
  if (code != CUBLAS_STATUS_SUCCESS) {
    throw std::runtime_error(std::string(call) + " failed with cuBLAS status " + std::to_string(code));
  }
}

}  // namespace

struct cublaslt::library {
  struct plan {
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };

  library() {
    for (const char* name : {"libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"}) {
      if (handle == nullptr) handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (handle == nullptr) throw std::runtime_error("the baseline needs cuBLASLt: libcublasLt.so can't be loaded");
    load(create, "cublasLtCreate");
    load(destroy, "cublasLtDestroy");
    load(create_operation, "cublasLtMatmulDescCreate");
    load(set_operation, "cublasLtMatmulDescSetAttribute");
    load(create_layout, "cublasLtMatrixLayoutCreate");
    load(destroy_layout, "cublasLtMatrixLayoutDestroy");
    load(create_preference, "cublasLtMatmulPreferenceCreate");
    load(set_preference, "cublasLtMatmulPreferenceSetAttribute");
    load(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    load(matmul, "cublasLtMatmul");
    require((create)(&context), "cublasLtCreate");
    require((create_operation)(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    require((set_operation)(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
            "cublasLtMatmulDescSetAttribute");
    require((create_preference)(&preference), "cublasLtMatmulPreferenceCreate");
    const std::uint64_t bytes = workspace_bytes;
    require((set_preference)(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes),
            "cublasLtMatmulPreferenceSetAttribute");
    if (cudaMalloc(&workspace, workspace_bytes) != cudaSuccess) throw std::bad_alloc();
  }
  ~library() {  // the process ends soon after: operation and preference go with it
    for (auto& [shape, p] : plans) {
      (void)(destroy_layout)(p.a);
      (void)(destroy_layout)(p.b);
      (void)(destroy_layout)(p.d);
    }
    (void)(destroy)(context);
    (void)cudaFree(workspace);
  }

  template <class F>
  void load(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    if (function == nullptr) throw std::runtime_error(std::string("cuBLASLt has no ") + name);
  }

  // Row-major D = A B^T is column-major D^T = B A^T.
  plan make(bool f32, std::int64_t m, std::int64_t n, std::int64_t k) {
    const auto size = [](std::int64_t x) { return static_cast<std::uint64_t>(x); };
    plan p;
    require((create_layout)(&p.b, CUDA_R_16BF, size(k), size(n), k), "cublasLtMatrixLayoutCreate");
    require((create_layout)(&p.a, CUDA_R_16BF, size(k), size(m), k), "cublasLtMatrixLayoutCreate");
    require((create_layout)(&p.d, f32 ? CUDA_R_32F : CUDA_R_16BF, size(n), size(m), n), "cublasLtMatrixLayoutCreate");
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    require((heuristic)(context, operation, p.b, p.a, p.d, p.d, preference, 1, &found, &count),
            "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0) throw std::runtime_error("cuBLASLt has no algorithm for " + std::to_string(m) + " rows");
    p.algorithm = found.algo;
    return p;
  }

  void* handle = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_operation = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  cublasLtHandle_t context = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  void* workspace = nullptr;
  std::map<std::tuple<bool, std::int64_t, std::int64_t, std::int64_t>, plan> plans;
};

cublaslt::cublaslt() : library_(std::make_unique<library>()) {}
cublaslt::~cublaslt() = default;

void cublaslt::product(const bi::bf16* a, const bi::bf16* b, void* d, bool f32, std::int64_t m, std::int64_t n,
                       std::int64_t k, bi::cuda_stream stream) {
  library& l = *library_;
  const auto shape = std::tuple(f32, m, n, k);
  auto found = l.plans.find(shape);
  if (found == l.plans.end()) found = l.plans.emplace(shape, l.make(f32, m, n, k)).first;
  const library::plan& p = found->second;
  const float one = 1.0f, zero = 0.0f;
  require((l.matmul)(l.context, l.operation, &one, b, p.b, a, p.a, &zero, d, p.d, d, p.d, &p.algorithm, l.workspace,
                     workspace_bytes, stream),
          "cublasLtMatmul");
}

}  // namespace engine

#else  // a toolkit without cuBLAS

namespace engine {

struct cublaslt::library {};
cublaslt::cublaslt() {
  throw std::runtime_error("the baseline needs cuBLASLt, whose header was not there when this was built");
}
cublaslt::~cublaslt() = default;
void cublaslt::product(const bi::bf16*, const bi::bf16*, void*, bool, std::int64_t, std::int64_t, std::int64_t,
                       bi::cuda_stream) {}

}  // namespace engine

#endif
