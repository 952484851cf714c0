// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/device/vector.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/rows.hpp"

BI_NAMESPACE_BEGIN
namespace launch_detail {

inline constexpr int rows_per_block = 4;  // of a kernel that gives each row a warp

// Parameters of a kernel that reads rows and writes a value for each, but for where these go.
template <class Params, class Args>
Params row_params(const Args& a) {
  Params p = {};
  p.x = a.x;
  p.x_stride = a.x_stride == 0 ? a.cols : a.x_stride;
  p.rows = a.rows;
  p.cols = a.cols;
  p.aligned = device::vector_aligned(a.x, a.rows == 1 ? 0 : p.x_stride);  // one row has no next
  return p;
}

// Launches a kernel under a schedule that it fits.
template <class Params>
status launch_row_kernel(const char* operation, void (*kernel)(Params), const Params& p,
                         const schedule::row_schedule& s, cuda_stream stream) {
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = static_cast<unsigned>(s.threads_per_row * s.rows_per_block);
  shape.cluster = static_cast<unsigned>(s.cluster);
  shape.programmatic = s.programmatic;
  return launch(operation, kernel, shape, p, stream);
}

// Launches one of an operation's two kernels for any row: `warp` gives each row a warp of rows_per_block in a thread
// block, `block` a thread block of 256. Both give the same bits.
template <class Params>
status launch_rows(const char* operation, void (*warp)(Params), void (*block)(Params), const Params& p,
                   const schedule::row_schedule& s, cuda_stream stream) {
  return launch_row_kernel(operation, s.threads_per_row == 32 ? warp : block, p, s, stream);
}

// Whether the kernel's code that this device runs knows sm_90: clusters, and to wait in a programmatic launch.
template <class Params>
status find_hopper_code(const char* operation, void (*kernel)(Params), bool& found) {
  cudaFuncAttributes attributes = {};
  const cudaError_t code = runtime::get_kernel_attributes(&attributes, reinterpret_cast<const void*>(kernel));
  found = code == cudaSuccess && attributes.ptxVersion >= 90;
  return cuda_status(operation, "cudaFuncGetAttributes", code);
}

}  // namespace launch_detail
BI_NAMESPACE_END
