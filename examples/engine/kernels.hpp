// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "backend.hpp"
#include "bi/status.hpp"

// The example's own kernels, for the GPU backend, which sees no device code.

namespace engine {

bi::status launch_random_weights(bf16* out, std::int64_t count, std::uint64_t seed, std::uint64_t tensor, float scale,
                                 bi::cuda_stream stream);
bi::status launch_pick(const pick_args& a, bi::cuda_stream stream);

// ---- of the baseline (kernels_baseline.cu)

// A block for each row, of fewer threads when there are many rows.
bi::status launch_norm_by_rows(const bi::rms_norm_args<bf16>& a, bi::cuda_stream stream);

// Split-KV: each view of whole pages is cut into `parts` views of its own, which attention sees as so many requests.
struct split_args {
  bi::attention_args<bf16> whole;  // page_csr, one row a request
  std::int64_t parts = 1;
  std::int32_t* page_start = nullptr;  // [requests * parts + 1]
  std::int32_t* len = nullptr;         // [requests * parts]
  bf16* q = nullptr;                   // [requests * parts, heads_q, head_dim], each row as often as there are parts
  bf16* out = nullptr;                 // the parts' results, the same shape
  float* lse = nullptr;                // [requests * parts, heads_q]
};
bi::status launch_split(const split_args& a, bi::cuda_stream stream);
// Weighs the parts by their log-sum-exp.
bi::status launch_join(const split_args& a, bi::cuda_stream stream);

}  // namespace engine
