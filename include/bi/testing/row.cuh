// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"
#include "bi/runtime.hpp"
#include "bi/testing/row.hpp"

// The GPU's side of bi/testing/row.hpp: a row is computed by one warp or by one thread block of 256, and which of them
// changes no bit.

BI_NAMESPACE_BEGIN
namespace testing {

// Its functions are BI_HD, with bodies for the device only, so that a body that is BI_HD may call them.
template <int Threads>
class BI_TYPE gpu_row {
 public:
  BI_D gpu_row(device::row_group<Threads>& group, std::int64_t index) : group_(group), index_(index) {}

  BI_HD std::int64_t index() const { return index_; }

  template <class Step, class Combine>
  BI_HD float fold([[maybe_unused]] std::int64_t cols, [[maybe_unused]] float start, [[maybe_unused]] Step step,
                   [[maybe_unused]] Combine combine) const {
#if BI_DEVICE_CODE
    return group_.fold_row(cols, start, step, combine);
#else
    return 0;
#endif
  }

  template <class F>
  BI_HD void for_each_vector([[maybe_unused]] std::int64_t cols, [[maybe_unused]] F f) const {
#if BI_DEVICE_CODE
    device::for_each_vector(group_, cols, f);
#endif
  }
  template <class F>
  BI_HD void for_each([[maybe_unused]] std::int64_t count, [[maybe_unused]] F f) const {
#if BI_DEVICE_CODE
    for (std::int64_t i = group_.thread(); i < count; i += Threads) f(i);
#endif
  }

  template <class T>
  BI_HD void load([[maybe_unused]] const T* p, [[maybe_unused]] int n,
                  [[maybe_unused]] float (&v)[contract::row_vector]) const {
#if BI_DEVICE_CODE
    device::load_vector_f32(p, n, device::vector_aligned(p, 0), v);
#endif
  }
  template <class T>
  BI_HD void store([[maybe_unused]] T* p, [[maybe_unused]] int n,
                   [[maybe_unused]] const float (&v)[contract::row_vector]) const {
#if BI_DEVICE_CODE
    device::store_vector_f32(p, n, device::vector_aligned(p, 0), v);
#endif
  }

  BI_HD void barrier() const {
#if BI_DEVICE_CODE
    if constexpr (Threads == 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
#endif
  }

 private:
  device::row_group<Threads>& group_;
  std::int64_t index_;
};

namespace detail {

template <class Body, class Args>
struct BI_TYPE row_params {
  Body body;
  Args args;
  std::int64_t rows;
};

template <class Body, class Args, int Threads, int RowsPerBlock>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void row_kernel(const row_params<Body, Args> p) {
  device::for_each_row<Threads, RowsPerBlock>(p.rows, [&](device::row_group<Threads>& group, std::int64_t index) {
    gpu_row<Threads> row(group, index);
    p.body(row, p.args);
  });
}

}  // namespace detail

// The body over rows [0, rows), enqueued on `stream`. Body and Args are trivially copyable, 4 KB at most together. Many
// rows get a warp each, few a thread block of 256 each: the schedule follows the batch, the bits do not. threads_per_row:
// 0 for that choice, else 32 or 256. No workspace; no allocation, no wait.
template <class Body, class Args>
status launch_rows(const char* operation, const Body& body, const Args& args, std::int64_t rows, cuda_stream stream,
                   int threads_per_row = 0) {
  constexpr int rows_per_block = 4;
  constexpr std::int64_t most_blocks = 1 << 20;  // a block takes further rows in turn
  if (threads_per_row == 0) threads_per_row = rows >= 256 ? 32 : 256;
  const bool warps = threads_per_row == 32;
  const std::int64_t blocks = warps ? (rows + rows_per_block - 1) / rows_per_block : rows;
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(blocks < most_blocks ? (blocks < 0 ? 0 : blocks) : most_blocks);
  shape.block.x = warps ? 32 * rows_per_block : 256;
  const detail::row_params<Body, Args> p{body, args, rows};
  return launch(operation,
                warps ? detail::row_kernel<Body, Args, 32, rows_per_block> : detail::row_kernel<Body, Args, 256, 1>,
                shape, p, stream);
}

}  // namespace testing
BI_NAMESPACE_END
