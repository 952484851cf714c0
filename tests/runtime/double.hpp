// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <string>
#include <vector>

#include "bi/config.hpp"

// BI_RUNTIME_TEST_DOUBLE: the calls of bi/runtime.hpp, on a device that is said to be so and so. One of them may fail.

BI_NAMESPACE_BEGIN
namespace runtime {

struct launched {
  const void* kernel = nullptr;
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  unsigned cluster = 1;
  bool programmatic = false;
  std::size_t allowed_bytes = 48 * 1024;
  bool wide_clusters = false;
};

struct fake_device {
  int processors = 132, major = 9, shared_bytes = 227 * 1024;
  int ptx_version = 90;
  std::size_t static_shared_bytes = 1024;  // of kernels: some are empty on other architectures
  int registers = 128;                     // of kernels
  int clusters_at_once = 30;

  int fail_at = 0;  // number of the call that fails, from 1; 0: none
  cudaError_t failure = static_cast<cudaError_t>(719);
  std::vector<std::string> calls;  // as a status names them
  std::vector<launched> launches;
  const void* allowed_kernel = nullptr;
  std::size_t allowed_bytes = 48 * 1024;
  const void* wide_kernel = nullptr;

  cudaError_t call(const std::string& name) {
    calls.push_back(name);
    return static_cast<int>(calls.size()) == fail_at ? failure : cudaSuccess;
  }
};
inline fake_device fake;

inline cudaError_t launch_kernel(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  launched l;
  l.kernel = kernel;
  l.grid = config->gridDim;
  l.block = config->blockDim;
  l.shared_bytes = config->dynamicSmemBytes;
  l.allowed_bytes = fake.allowed_kernel == kernel ? fake.allowed_bytes : 48 * 1024;
  l.wide_clusters = fake.wide_kernel == kernel;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& a = config->attrs[i];
    if (a.id == cudaLaunchAttributeClusterDimension) l.cluster = a.val.clusterDim.x;
    if (a.id == cudaLaunchAttributeProgrammaticStreamSerialization) l.programmatic = true;
  }
  fake.launches.push_back(l);
  return fake.call("the kernel launch");
}
inline cudaError_t set_dynamic_shared_memory(const void* kernel, int bytes) {
  fake.allowed_kernel = kernel;
  fake.allowed_bytes = static_cast<std::size_t>(bytes);
  return fake.call("cudaFuncSetAttribute(MaxDynamicSharedMemorySize)");
}
inline cudaError_t allow_wide_clusters(const void* kernel) {
  fake.wide_kernel = kernel;
  return fake.call("cudaFuncSetAttribute(NonPortableClusterSizeAllowed)");
}
inline cudaError_t get_clusters_at_once(int* clusters, const void*, const cudaLaunchConfig_t*) {
  *clusters = fake.clusters_at_once;
  return fake.call("cudaOccupancyMaxActiveClusters");
}
inline cudaError_t get_device(int* device) {
  *device = 0;
  return fake.call("cudaGetDevice");
}
inline cudaError_t get_attribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = fake.processors;
      return fake.call("cudaDeviceGetAttribute(MultiProcessorCount)");
    case cudaDevAttrComputeCapabilityMajor:
      *value = fake.major;
      return fake.call("cudaDeviceGetAttribute(ComputeCapabilityMajor)");
    default:
      *value = fake.shared_bytes;
      return fake.call("cudaDeviceGetAttribute(MaxSharedMemoryPerBlockOptin)");
  }
}
inline cudaError_t get_kernel_attributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = fake.ptx_version;
  attributes->sharedSizeBytes = fake.static_shared_bytes;
  attributes->numRegs = fake.registers;
  return fake.call("cudaFuncGetAttributes");
}
inline CUresult encode(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                       const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  return fake.call("cuTensorMapEncodeTiled") == cudaSuccess ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
inline cudaError_t get_driver_function(void** function, const char*, unsigned) {
  *function = reinterpret_cast<void*>(&encode);
  return fake.call("cudaGetDriverEntryPoint(cuTensorMapEncodeTiled)");
}

}  // namespace runtime
BI_NAMESPACE_END
