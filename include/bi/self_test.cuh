// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/activation.cuh"
#include "bi/attention.cuh"
#include "bi/gemm.cuh"
#include "bi/kv_cache.cuh"
#include "bi/rms_norm.cuh"
#include "bi/sample.cuh"
#include "bi/self_test.hpp"
#include "bi/softmax.cuh"
#include "bi/testing/self_test_device.cuh"

// The definition of what bi/self_test.hpp declares. It compiles the kernels of the eight operations, at head_dim 128, if
// the same .cu does not do so already. Instantiate it in one .cu file:
//   BI_INSTANTIATE_SELF_TEST(bi::bf16);

#define BI_INSTANTIATE_SELF_TEST(T) template ::bi::self_test_result(::bi::self_test<T>)(::bi::cuda_stream)

BI_NAMESPACE_BEGIN

template <class T>
self_test_result self_test(cuda_stream stream) {
  return testing::self_test_on_device<T>(stream);
}

BI_NAMESPACE_END
