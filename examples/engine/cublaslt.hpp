// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <memory>

#include "bi/dtype.hpp"
#include "bi/status.hpp"

namespace engine {

// D[m, n] = A[m, k] B[n, k]^T by whatever cuBLASLt's heuristic takes first for this m: the baseline's products. The
// library is loaded when the first object is made, so that the program does not need it otherwise; std::runtime_error
// if it can't be found.
class cublaslt {
 public:
  cublaslt();
  ~cublaslt();
  // f32: D is float, else bf16.
  void product(const bi::bf16* a, const bi::bf16* b, void* d, bool f32, std::int64_t m, std::int64_t n, std::int64_t k,
               bi::cuda_stream stream);

 private:
  struct library;
  std::unique_ptr<library> library_;
};

}  // namespace engine
