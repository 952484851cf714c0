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

template <int Threads, int RowsPerBlock, int Held, bool Cluster>
struct held_norm_shape {
  static constexpr int threads = Threads, rows_per_block = RowsPerBlock, held = Held;
  static constexpr bool cluster = Cluster;
};
// f(shape) for the kernel of rows of T held in registers that a schedule with s.held > 0, which fits_norm, names.
template <class T, class F>
status with_held_norm_shape(const schedule::row_schedule& s, F f) {
  constexpr int most = schedule::most_held(sizeof(T));
  if (s.cluster > 1) return f(held_norm_shape<256, 1, 4, true>{});
  if (s.held == 1) return f(held_norm_shape<32, rows_per_block, 1, false>{});
  if (s.threads_per_row == 32) return f(held_norm_shape<32, rows_per_block, most, false>{});
  if (s.held == 2) return f(held_norm_shape<256, 1, 2, false>{});
  if (s.held == 4) return f(held_norm_shape<256, 1, 4, false>{});
  return f(held_norm_shape<256, 1, most, false>{});
}

// Launches one of an operation's two kernels for any row: `warp` gives each row a warp of rows_per_block in a thread
// block, `block` a thread block of 256. Both give the same bits.
template <class Params>
status launch_rows(const char* operation, void (*warp)(Params), void (*block)(Params), const Params& p,
                   const schedule::row_schedule& s, cuda_stream stream) {
  return launch_row_kernel(operation, s.threads_per_row == 32 ? warp : block, p, s, stream);
}

}  // namespace launch_detail
BI_NAMESPACE_END
