// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gpu/support/late_copy.hpp"

#include "bi/device/ptx/cluster.cuh"
#include "bi/runtime.hpp"

namespace test {
namespace {

__global__ void late_copy_kernel([[maybe_unused]] const late_copy_args a) {
#if __CUDA_ARCH__ >= 900
  bi::device::launch_dependents();
  const auto now = [] {
    std::int64_t t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
  };
  for (const std::int64_t start = now(); now() - start < 1000 * a.microseconds;) {
  }
  for (std::int64_t i = threadIdx.x; i < a.n; i += blockDim.x) a.to[i] = a.from[i];
#endif
}

}  // namespace

bi::status copy_late(const late_copy_args& a, bi::cuda_stream stream) {
  bi::launch_shape shape;
  shape.block.x = 256;
  return bi::launch("late_copy", late_copy_kernel, shape, a, stream);
}

}  // namespace test
