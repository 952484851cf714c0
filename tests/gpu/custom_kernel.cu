// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gpu/support/custom_kernel.hpp"

#include "bi/testing/row.cuh"

namespace test {

bi::status launch_row_sum(const row_sum_args& args, std::int64_t rows, bi::cuda_stream stream, int threads_per_row) {
  return bi::testing::launch_rows("row_sum", row_sum{}, args, rows, stream, threads_per_row);
}
bi::status launch_split_row_sum(const row_sum_args& args, std::int64_t rows, bi::cuda_stream stream) {
  return bi::testing::launch_rows("row_sum", split_row_sum{}, args, rows, stream);
}

}  // namespace test
