// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

// Kernels beside bi's: one thread block of 256 a row with sums in any order and the special function unit, as a library
// without a contract would have them, and CUB's reductions.
namespace bench {

enum class row_op { rms_norm, add_rms_norm, layer_norm, softmax, log_softmax, logsumexp, sum, digest };

inline constexpr std::string_view row_op_names[] = {"rms_norm",    "add_rms_norm", "layer_norm", "softmax",
                                                    "log_softmax", "logsumexp",    "reduce",     "digest_rows"};

template <class T>
struct row_problem {
  std::int64_t rows = 0, cols = 0;
  const T* x = nullptr;
  T* residual = nullptr;  // add_rms_norm: the sum takes its place
  const T* weight = nullptr;
  const T* bias = nullptr;
  T* out = nullptr;
  float* result = nullptr;  // one a row, or, for digests, two
};

// Defined in peers.cu, for bf16 and float.
template <class T>
void launch_free(row_op op, const row_problem<T>& p, cudaStream_t stream);

// Sums of `rows` rows of `cols`: one row by cub::DeviceReduce, more by cub::DeviceSegmentedReduce. Null `temporary`:
// sets `bytes`.
void cub_sum(void* temporary, std::size_t& bytes, const float* x, float* result, std::int64_t rows, std::int64_t cols,
             cudaStream_t stream);
// cub::DeviceReduce under the determinism that it offers; false where this CUB has no such mode.
enum class cub_mode { run_to_run, gpu_to_gpu };
bool cub_sum_mode(cub_mode mode, const float* x, float* result, std::int64_t n, cudaStream_t stream);

}  // namespace bench
