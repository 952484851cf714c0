// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/activation.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/vector.cuh"

// An element of the output depends on the elements of the operands at the same row and column.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class Contract>
struct silu_mul_function {
  template <class T>
  BI_D static T value(T gate, T up) {
    return Contract::silu_mul(gate, up);
  }
};
template <class Contract>
struct gelu_mul_function {
  template <class T>
  BI_D static T value(T gate, T up) {
    return Contract::gelu_mul(gate, up);
  }
};
template <class Contract>
struct gelu_tanh_mul_function {
  template <class T>
  BI_D static T value(T gate, T up) {
    return Contract::gelu_tanh_mul(gate, up);
  }
};
template <class Contract>
struct add_function {
  template <class T>
  BI_D static T value(T x, T y) {
    return Contract::add(x, y);
  }
};

template <class T>
struct pair_params {
  const T* x;
  const T* y;
  T* out;
  std::int64_t x_stride, y_stride, out_stride;
  std::int64_t column_step;  // of x and y
  std::int64_t cols;
  device::flat_items vectors;
  bool aligned;  // column_step is 1 and every row of every array starts at a multiple of 16 bytes
};

template <class T>
BI_D void load_columns(const T* p, std::int64_t step, int n, bool aligned, T (&v)[device::vector_size]) {
  if (step == 1) {
    device::load_vector(p, n, aligned, v);
  } else {
#pragma unroll
    for (int e = 0; e < device::vector_size; ++e) v[e] = e < n ? p[e * step] : T{};
  }
}

// out may be x or y: an element is read by the thread that writes it, before it does.
template <class Function, class T>
BI_KERNEL __launch_bounds__(256) void pair_kernel(const pair_params<T> p) {
  constexpr int width = device::vector_size;
  device::for_items<1>(p.vectors, [&](device::flat_item item) {
    const std::int64_t i = item.index * width, in = i * p.column_step;
    const int n = device::vector_length(p.cols, item.index);
    T x[width], y[width];
    load_columns(p.x + item.row * p.x_stride + in, p.column_step, n, p.aligned, x);
    load_columns(p.y + item.row * p.y_stride + in, p.column_step, n, p.aligned, y);
#pragma unroll
    for (int e = 0; e < width; ++e) x[e] = Function::value(x[e], y[e]);
    device::store_vector(p.out + item.row * p.out_stride + i, n, p.aligned, x);
  });
}

template <class T>
struct embedding_params {
  const T* table;
  const std::int32_t* id;
  T* out;
  std::int64_t table_stride, out_stride;
  std::int64_t table_rows, cols;
  device::flat_items vectors;
  bool aligned;
};

// A row whose id is no row of the table stays as it is.
template <class T>
BI_KERNEL __launch_bounds__(256) void embedding_kernel(const embedding_params<T> p) {
  constexpr int width = device::vector_size;
  device::for_items<1>(p.vectors, [&](device::flat_item item) {
    const std::int64_t id = p.id[item.row];
    if (id < 0 || id >= p.table_rows) return;
    const std::int64_t i = item.index * width;
    const int n = device::vector_length(p.cols, item.index);
    T v[width];
    device::load_vector(p.table + id * p.table_stride + i, n, p.aligned, v);
    device::store_vector(p.out + item.row * p.out_stride + i, n, p.aligned, v);
  });
}

}  // namespace kernel
BI_NAMESPACE_END
