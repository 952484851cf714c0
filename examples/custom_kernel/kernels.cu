// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "kernels.hpp"

#include "bi/testing/row.cuh"

bi::status launch_norm_gate(const norm_gate_args& args, std::int64_t rows, bi::cuda_stream stream) {
  return bi::testing::launch_rows("norm_gate", norm_gate{}, args, rows, stream);
}
bi::status launch_norm_gate_that_follows_the_batch(const norm_gate_args& args, std::int64_t rows,
                                                   bi::cuda_stream stream) {
  return bi::testing::launch_rows("norm_gate", norm_gate_that_follows_the_batch{}, args, rows, stream);
}
bi::status launch_alibi_attention(const alibi_attention_args& args, std::int64_t rows, bi::cuda_stream stream) {
  return bi::testing::launch_rows("alibi_attention", alibi_attention{}, args, rows, stream);
}
