// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/norm.hpp"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"

// A row's output depends on its own x, the weight, the bias and eps: the sum and the sum of squares about the mean are
// row trees (bi/contract/row_tree.hpp), the rest is Contract::value on each element.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct layer_norm_params {
  const T* x;
  const T* weight;  // null: none
  const T* bias;    // null: none
  T* out;
  std::int64_t x_stride, out_stride;
  std::int64_t rows, cols;
  float eps;
  bool aligned;  // every row of every array starts at a multiple of 16 bytes
};

// A row is read three times, the second and third time from L1 or L2.
template <class Contract, class T, int Threads>
BI_D void layer_norm_row(device::row_group<Threads>& group, const layer_norm_params<T>& p, std::int64_t row) {
  constexpr int width = device::vector_size;
  const T* x = p.x + row * p.x_stride;
  T* out = p.out + row * p.out_stride;
  const bool has_weight = p.weight != nullptr, has_bias = p.bias != nullptr;

  const auto sum_of = [&](auto step) {
    const device::fold_elements<T, decltype(step)> fold{x, p.aligned, step};
    return group.fold_row(p.cols, 0.0f, fold, contract::add_step{});
  };
  const float mean = Contract::mean(sum_of(contract::add_step{}), p.cols);
  const float scale = contract::norm_scale(sum_of(contract::centred_square_step{mean}), p.cols, p.eps);

  device::for_each_vector(group, p.cols, [&](std::int64_t i, int n) {
    float v[width], w[width], b[width];
    device::load_vector_f32(x + i, n, p.aligned, v);
    device::load_vector_f32(p.weight + i, has_weight ? n : 0, p.aligned, w);
    device::load_vector_f32(p.bias + i, has_bias ? n : 0, p.aligned, b);
    T y[width];
#pragma unroll
    for (int e = 0; e < width; ++e) {
      y[e] = Contract::template value<T>(v[e], mean, scale, has_weight, w[e], has_bias, b[e]);
    }
    device::store_vector(out + i, n, p.aligned, y);
  });
}

template <class Contract, class T, int Threads, int RowsPerBlock>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void layer_norm_kernel(const layer_norm_params<T> p) {
  device::for_each_row<Threads, RowsPerBlock>(
      p.rows, [&](device::row_group<Threads>& group, std::int64_t row) { layer_norm_row<Contract>(group, p, row); });
}

}  // namespace kernel
BI_NAMESPACE_END
