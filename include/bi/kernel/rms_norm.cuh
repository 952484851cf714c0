// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/norm.hpp"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"

// A row's output depends on its own x and residual, the weight and eps: the sum of squares is the row tree of
// bi/contract/row_tree.hpp, the rest is Contract::value on each element. Rows are [outer, inner]: [tokens, heads] for
// qk_norm, [rows, 1] for rms_norm.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct rms_norm_params {
  const T* x;
  const T* residual;  // null: none
  T* residual_out;
  const T* weight;
  T* out;
  std::int64_t x_stride, x_inner_stride;
  std::int64_t residual_stride, residual_out_stride;
  std::int64_t out_stride, out_inner_stride;
  std::int64_t rows, inner, cols;
  float eps;
  bool aligned;  // every row of every array starts at a multiple of 16 bytes
};

// One row by one group. A row is read again for the output: it is in L1 or L2 by then.
template <class Contract, class T, int Threads>
BI_D void rms_norm_row(device::row_group<Threads>& group, const rms_norm_params<T>& p, std::int64_t row) {
  constexpr int width = device::vector_size;
  const std::int64_t outer = row / p.inner, inner = row % p.inner;
  const T* x = p.x + outer * p.x_stride + inner * p.x_inner_stride;
  const T* residual = p.residual == nullptr ? nullptr : p.residual + outer * p.residual_stride;
  T* sum_out = p.residual == nullptr ? nullptr : p.residual_out + outer * p.residual_out_stride;
  T* out = p.out + outer * p.out_stride + inner * p.out_inner_stride;

  // With a residual the rounded, stored sum is normalised. Each element is read back by the thread that wrote it.
  const float ss = group.fold_row(
      p.cols, 0.0f,
      [&](float acc, std::int64_t i, int n) {
        float v[width];
        device::load_vector_f32(x + i, n, p.aligned, v);
        if (residual != nullptr) {
          float r[width];
          T sum[width];
          device::load_vector_f32(residual + i, n, p.aligned, r);
#pragma unroll
          for (int e = 0; e < width; ++e) {
            sum[e] = cvt_rn<T>(add_rn(v[e], r[e]));
            v[e] = to_f32(sum[e]);
          }
          device::store_vector(sum_out + i, n, p.aligned, sum);
        }
#pragma unroll
        for (int e = 0; e < width; ++e) {
          if (e < n) acc = contract::square_step{}(acc, v[e]);
        }
        return acc;
      },
      contract::add_step{});
  const float scale = contract::norm_scale(ss, p.cols, p.eps);

  const T* normalised = residual != nullptr ? sum_out : x;
  device::for_each_vector(group, p.cols, [&](std::int64_t i, int n) {
    float v[width], w[width];
    device::load_vector_f32(normalised + i, n, p.aligned, v);
    device::load_vector_f32(p.weight + i, n, p.aligned, w);
    T y[width];
#pragma unroll
    for (int e = 0; e < width; ++e) y[e] = Contract::template value<T>(v[e], scale, w[e]);
    device::store_vector(out + i, n, p.aligned, y);
  });
}

template <class Contract, class T, int Threads, int RowsPerBlock>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void rms_norm_kernel(const rms_norm_params<T> p) {
  device::for_each_row<Threads, RowsPerBlock>(
      p.rows, [&](device::row_group<Threads>& group, std::int64_t row) { rms_norm_row<Contract>(group, p, row); });
}

}  // namespace kernel
BI_NAMESPACE_END
