// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda.h>  // types of the driver's tensor maps; nothing of libcuda is linked
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/dtype.hpp"
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
inline cudaError_t allow_wide_clusters(const void* kernel) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
}
inline cudaError_t get_clusters_at_once(int* clusters, const void* kernel, const cudaLaunchConfig_t* config) {
  return cudaOccupancyMaxActiveClusters(clusters, kernel, config);
}
inline cudaError_t get_device(int* device) { return cudaGetDevice(device); }
inline cudaError_t get_attribute(int* value, cudaDeviceAttr attribute, int device) {
  return cudaDeviceGetAttribute(value, attribute, device);
}
inline cudaError_t get_kernel_attributes(cudaFuncAttributes* attributes, const void* kernel) {
  return cudaFuncGetAttributes(attributes, kernel);
}
// A function of the driver, of the interface of CUDA `version`.
inline cudaError_t get_driver_function(void** function, const char* name, unsigned version) {
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t code = cudaGetDriverEntryPointByVersion(name, function, version, cudaEnableDefault, &found);
  if (code != cudaSuccess) return code;
  return found == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorNotSupported;
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

// A property of the current device.
inline status current_device_attribute(const char* operation, const char* call, cudaDeviceAttr attribute, int& value) {
  int device = 0;
  if (const cudaError_t code = runtime::get_device(&device); code != cudaSuccess) {
    return cuda_status(operation, "cudaGetDevice", code);
  }
  return cuda_status(operation, call, runtime::get_attribute(&value, attribute, device));
}

struct launch_shape {
  dim3 grid{1, 1, 1};
  dim3 block{1, 1, 1};
  std::size_t shared_bytes = 0;  // dynamic
  unsigned cluster = 1;          // thread blocks of a cluster, along x
  // May start when every block of the kernel before it has ended or said launch_dependents; it then has to wait itself.
  bool programmatic = false;
};

enum class element { bf16, fp16, fp32 };
template <class T>
inline constexpr element element_of = std::is_same_v<T, bf16>   ? element::bf16
                                      : std::is_same_v<T, fp16> ? element::fp16
                                                                : element::fp32;

// A tensor map over an array in memory: elements along each dimension, the first contiguous, and strides of the others
// in elements. The copy engine moves boxes, swizzled over 128, 64 or 32 bytes where a row of the box has that many.
// Pointer and strides are multiples of 16 bytes.
template <int Rank>
status encode_tensor_map(const char* operation, void* map, element type, const void* base,
                         const std::int64_t (&elements)[Rank], const std::int64_t (&strides)[Rank - 1],
                         const int (&box)[Rank]) {
  void* function = nullptr;
  cudaError_t code = runtime::get_driver_function(&function, "cuTensorMapEncodeTiled", 12000);
  if (code != cudaSuccess) return cuda_status(operation, "cudaGetDriverEntryPoint(cuTensorMapEncodeTiled)", code);
  const int size = type == element::fp32 ? 4 : 2;
  cuuint64_t sizes[Rank], bytes[Rank - 1];
  cuuint32_t boxes[Rank], steps[Rank];
  for (int i = 0; i < Rank; ++i) {
    sizes[i] = static_cast<cuuint64_t>(elements[i]);
    if (i > 0) bytes[i - 1] = static_cast<cuuint64_t>(strides[i - 1] * size);
    boxes[i] = static_cast<cuuint32_t>(box[i]);
    steps[i] = 1;
  }
  const int row_bytes = box[0] * size;
  const CUtensorMapSwizzle swizzle = row_bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : row_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                     : row_bytes == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                                       : CU_TENSOR_MAP_SWIZZLE_NONE;
  const CUtensorMapDataType data_type = type == element::bf16   ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                        : type == element::fp16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                                : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  const CUresult result = encode(static_cast<CUtensorMap*>(map), data_type, Rank, const_cast<void*>(base), sizes, bytes,
                                 boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return cuda_status(operation, "cuTensorMapEncodeTiled", result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue);
}

// The same over matrices: `cols` contiguous elements, `rows` rows, `batch` matrices.
inline status encode_tensor_map(const char* operation, void* map, element type, const void* base, std::int64_t cols,
                                std::int64_t rows, std::int64_t row_stride, std::int64_t batch,
                                std::int64_t batch_stride, int box_cols, int box_rows) {
  return encode_tensor_map<3>(operation, map, type, base, {cols, rows, batch},
                              {row_stride, batch > 1 ? batch_stride : row_stride}, {box_cols, box_rows, 1});
}

// Of the code of a kernel that the current device runs.
template <class Params>
status find_kernel_attributes(const char* operation, void (*kernel)(Params), cudaFuncAttributes& attributes) {
  attributes = {};
  const cudaError_t code = runtime::get_kernel_attributes(&attributes, reinterpret_cast<const void*>(kernel));
  return cuda_status(operation, "cudaFuncGetAttributes", code);
}

// Whether that code knows sm_90: clusters, and to wait in a programmatic launch.
template <class Params>
status find_hopper_code(const char* operation, void (*kernel)(Params), bool& found) {
  cudaFuncAttributes attributes = {};
  const status st = find_kernel_attributes(operation, kernel, attributes);
  found = st && attributes.ptxVersion >= 90;
  return st;
}

// What a shape needs of a kernel before it is launched in it.
inline status allow_shape(const char* operation, const void* function, const launch_shape& shape) {
  // Up to 48 KB need no permission.
  if (shape.shared_bytes > 48 * 1024) {
    const cudaError_t code = runtime::set_dynamic_shared_memory(function, static_cast<int>(shape.shared_bytes));
    if (code != cudaSuccess) return cuda_status(operation, "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)", code);
  }
  // Nor do clusters of up to 8.
  if (shape.cluster > 8) {
    const cudaError_t code = runtime::allow_wide_clusters(function);
    if (code != cudaSuccess) return cuda_status(operation, "cudaFuncSetAttribute(NonPortableClusterSizeAllowed)", code);
  }
  return {};
}
// The shape as the runtime takes it; `attributes` has room for two.
inline cudaLaunchConfig_t make_launch_config(const launch_shape& shape, cudaLaunchAttribute* attributes,
                                             cuda_stream stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (shape.cluster > 1) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim.x = shape.cluster;
    a.val.clusterDim.y = a.val.clusterDim.z = 1;
  }
  if (shape.programmatic) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
  }
  return config;
}

// Launches kernel(params) on the stream. Nothing is launched for an empty grid.
template <class Params>
status launch(const char* operation, void (*kernel)(Params), const launch_shape& shape, const Params& params,
              cuda_stream stream) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return {};
  const void* function = reinterpret_cast<const void*>(kernel);
  if (const status st = allow_shape(operation, function, shape); !st) return st;
  cudaLaunchAttribute attributes[2] = {};
  const cudaLaunchConfig_t config = make_launch_config(shape, attributes, stream);
  Params copy = params;
  void* arguments[] = {&copy};
  return cuda_status(operation, "the kernel launch", runtime::launch_kernel(&config, function, arguments));
}

// How many of the shape's clusters the current device runs at once.
template <class Params>
status find_clusters_at_once(const char* operation, void (*kernel)(Params), const launch_shape& shape, int& clusters) {
  clusters = 0;
  const void* function = reinterpret_cast<const void*>(kernel);
  if (const status st = allow_shape(operation, function, shape); !st) return st;
  cudaLaunchAttribute attributes[2] = {};
  const cudaLaunchConfig_t config = make_launch_config(shape, attributes, nullptr);
  return cuda_status(operation, "cudaOccupancyMaxActiveClusters",
                     runtime::get_clusters_at_once(&clusters, function, &config));
}

BI_NAMESPACE_END
