// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/runtime.hpp"
#include "support/ops_functions.hpp"

namespace test {
namespace {

template <int Threads>
__global__ void function_kernel(const function_args a) {
  for (std::int64_t i = blockIdx.x * std::int64_t{Threads} + threadIdx.x; i < a.n;
       i += gridDim.x * std::int64_t{Threads}) {
    a.out[i] = evaluate(a.function, a.x[i], a.y[i], a.z[i]);
  }
}

}  // namespace

bi::status evaluate_on_gpu(const function_args& a, bi::cuda_stream stream) {
  bi::launch_shape shape;
  shape.grid.x = 256;
  shape.block.x = 256;
  return bi::launch("functions", function_kernel<256>, shape, a, stream);
}

}  // namespace test
