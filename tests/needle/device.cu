// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "needle/device.hpp"

#include "bi/runtime.hpp"

namespace test::needle {
namespace {

// Elements of `unit` bytes of all rows are dealt out to the threads of the grid.
struct rows_params {
  unsigned char* data;
  std::int64_t row_bytes, element_bytes, stride, gap;
  bool transposed;
  const unsigned char* pool;
  const std::int32_t* index;
  std::int64_t rows;
  unsigned char fill;
  coordinate from;
  found* to;
};

__device__ std::int64_t place_of(const rows_params& p, std::int64_t row, std::int64_t byte) {
  return p.transposed ? byte / p.element_bytes * p.stride + row * p.element_bytes + byte % p.element_bytes
                      : row * p.stride + byte;
}
__device__ void note(found* to, std::int64_t launch, int column, std::int64_t row, std::int64_t byte) {
  atomicAdd(reinterpret_cast<unsigned long long*>(&to->bytes), 1ull);
  atomicMin(reinterpret_cast<unsigned long long*>(&to->first),
            static_cast<unsigned long long>(launch) << 44 | static_cast<unsigned long long>(column) << 40 |
                static_cast<unsigned long long>(row) << 24 | static_cast<unsigned long long>(byte));
}

// A block a row, round after round.
__global__ void gather_kernel(const rows_params p) {
  for (std::int64_t r = blockIdx.x; r < p.rows; r += gridDim.x) {
    const unsigned char* from = p.pool + p.index[r] * p.row_bytes;
    for (std::int64_t i = threadIdx.x; i < p.row_bytes; i += blockDim.x) p.data[place_of(p, r, i)] = from[i];
  }
}
__global__ void compare_kernel(const rows_params p) {
  for (std::int64_t r = blockIdx.x; r < p.rows; r += gridDim.x) {
    const unsigned char* expected = p.pool + p.index[r] * p.row_bytes;
    for (std::int64_t i = threadIdx.x; i < p.row_bytes + p.gap; i += blockDim.x) {
      const unsigned char wanted = i < p.row_bytes ? expected[i] : p.fill;
      if (p.data[place_of(p, r, i)] != wanted) note(p.to, p.from.launch, p.from.column, r, i);
    }
  }
}
__global__ void zone_kernel(const rows_params p) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < p.row_bytes;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    if (p.data[i] != p.fill) note(p.to, p.from.launch, p.from.column, coordinate::zone_row, i);
  }
}

rows_params params_of(const placed& rows, const unsigned char* pool, const std::int32_t* index, std::int64_t count) {
  rows_params p{};
  p.data = rows.data;
  p.row_bytes = rows.bytes, p.element_bytes = rows.element_bytes, p.stride = rows.stride, p.gap = rows.gap;
  p.transposed = rows.transposed;
  p.pool = pool, p.index = index, p.rows = count;
  return p;
}
bi::launch_shape shape_of(std::int64_t rows) {
  bi::launch_shape shape;
  shape.grid.x = static_cast<unsigned>(rows < 4096 ? rows : 4096);
  shape.block.x = 256;
  return shape;
}

}  // namespace

bi::status gather_on_gpu(const placed& to, const unsigned char* pool, const std::int32_t* index, std::int64_t rows,
                         bi::cuda_stream stream) {
  return bi::launch("gather", gather_kernel, shape_of(rows), params_of(to, pool, index, rows), stream);
}
bi::status compare_on_gpu(const coordinate& from, const placed& rows, const unsigned char* expected,
                          const std::int32_t* index, std::int64_t count, unsigned char fill, found* to,
                          bi::cuda_stream stream) {
  rows_params p = params_of(rows, expected, index, count);
  p.fill = fill, p.from = from, p.to = to;
  return bi::launch("compare", compare_kernel, shape_of(count), p, stream);
}
bi::status compare_zone_on_gpu(const coordinate& from, const unsigned char* p, std::int64_t bytes, unsigned char fill,
                               found* to, bi::cuda_stream stream) {
  rows_params q{};
  q.data = const_cast<unsigned char*>(p);
  q.row_bytes = bytes, q.fill = fill, q.from = from, q.to = to;
  return bi::launch("compare_zone", zone_kernel, shape_of(64), q, stream);
}

}  // namespace test::needle
