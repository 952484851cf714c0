// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "bi/config.hpp"
#include "bi/status.hpp"

// The one seam between bi and the CUDA runtime. Every runtime call that a launcher makes stands here, so that a test
// which defines BI_RUNTIME_TEST_DOUBLE as a header of its own can make each of them fail.

#if defined(BI_RUNTIME_TEST_DOUBLE)
#include BI_RUNTIME_TEST_DOUBLE
#else
BI_NAMESPACE_BEGIN
namespace runtime {

inline cudaError_t launch_kernel(const cudaLaunchConfig_t* config, const void* kernel, void** params) {
  return cudaLaunchKernelExC(config, kernel, params);
}
inline cudaError_t set_dynamic_shared_memory(const void* kernel, int bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}
inline cudaError_t get_device(int* device) { return cudaGetDevice(device); }
inline cudaError_t get_attribute(int* value, cudaDeviceAttr attribute, int device) {
  return cudaDeviceGetAttribute(value, attribute, device);
}

}  // namespace runtime
BI_NAMESPACE_END
#endif

BI_NAMESPACE_BEGIN

// A failed runtime call as a status. The launch's own return code is used: cudaGetLastError would also return, and
// clear, errors of other libraries.
inline status cuda_status(const char* operation, const char* call, cudaError_t code) {
  status st;
  if (code == cudaSuccess) return st;
  st.code = error::cuda;
  st.cuda_error = static_cast<int>(code);
  st.operation = operation;
  st.argument = call;
  return st;
}

struct launch_shape {
  dim3 grid{1, 1, 1};
  dim3 block{1, 1, 1};
  std::size_t shared_bytes = 0;  // dynamic
};

// Launches kernel(params) on the stream. Nothing is launched for an empty grid.
template <class Params>
status launch(const char* operation, void (*kernel)(Params), const launch_shape& shape, const Params& params,
              cuda_stream stream) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return {};
  const void* function = reinterpret_cast<const void*>(kernel);
  // Up to 48 KB need no permission.
  if (shape.shared_bytes > 48 * 1024) {
    const cudaError_t code = runtime::set_dynamic_shared_memory(function, static_cast<int>(shape.shared_bytes));
    if (code != cudaSuccess) return cuda_status(operation, "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)", code);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  Params copy = params;
  void* arguments[] = {&copy};
  return cuda_status(operation, "the kernel launch", runtime::launch_kernel(&config, function, arguments));
}

BI_NAMESPACE_END
