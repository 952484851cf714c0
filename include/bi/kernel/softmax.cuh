// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"

// A row's output depends on its own elements: each block of 8192 has its largest element and its sum, a lane tree; the
// rescaled sums are a row tree (bi/contract/softmax.hpp).

BI_NAMESPACE_BEGIN
namespace kernel {

struct log_sum {
  float m, l;
};

// The largest element first, then block after block its own largest and its sum: the second read of a block comes from
// L1.
template <class Contract, class T, int Threads>
BI_D log_sum log_sum_of(device::row_group<Threads>& group, const T* x, std::int64_t cols, bool aligned) {
  using contract::add_step;
  using contract::exp_step;
  using contract::max_step;
  const std::int64_t blocks = contract::row_blocks(cols);
  const float m = group.fold_row(cols, neg_inf_f32(), device::fold_elements<T, max_step>{x, aligned, {}}, max_step{});
  const float l = group.fold_results(
      blocks, 0.0f,
      [&](std::int64_t b) {
        const T* block = x + b * contract::row_block;
        const int length = contract::block_length(cols, b);
        const float m_b = blocks == 1
                              ? m
                              : group.fold_block(length, neg_inf_f32(),
                                                 device::fold_elements<T, max_step>{block, aligned, {}}, max_step{});
        float l_b = 0.0f;
        if (!Contract::empty_block(m_b)) {
          l_b = group.fold_block(length, 0.0f, device::fold_elements<T, exp_step>{block, aligned, {m_b}}, add_step{});
        }
        return Contract::block_term(l_b, m_b, m);
      },
      add_step{});
  return {m, l};
}

template <class T, class Out>
struct softmax_params {
  const T* x;
  Out* out;
  std::int64_t x_stride, out_stride;
  std::int64_t rows, cols;
  bool x_aligned, out_aligned;  // every row starts at a multiple of 16 bytes
};

template <class Contract, class Form, class T, class Out, int Threads, int RowsPerBlock>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void softmax_kernel(const softmax_params<T, Out> p) {
  constexpr int width = device::vector_size;
  device::for_each_row<Threads, RowsPerBlock>(p.rows, [&](device::row_group<Threads>& group, std::int64_t row) {
    const T* x = p.x + row * p.x_stride;
    Out* out = p.out + row * p.out_stride;
    const log_sum s = log_sum_of<Contract>(group, x, p.cols, p.x_aligned);
    const float of_row = Form::row(s.l);
    device::for_each_vector(group, p.cols, [&](std::int64_t i, int n) {
      float v[width];
      device::load_vector_f32(x + i, n, p.x_aligned, v);
#pragma unroll
      for (int e = 0; e < width; ++e) v[e] = Form::value(v[e], s.m, of_row);
      device::store_vector_f32(out + i, n, p.out_aligned, v);
    });
  });
}

template <class T>
struct logsumexp_params {
  const T* x;
  float* out;
  std::int64_t x_stride;
  std::int64_t rows, cols;
  bool aligned;  // every row of x starts at a multiple of 16 bytes
};

template <class Contract, class T, int Threads, int RowsPerBlock>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void logsumexp_kernel(const logsumexp_params<T> p) {
  device::for_each_row<Threads, RowsPerBlock>(p.rows, [&](device::row_group<Threads>& group, std::int64_t row) {
    const log_sum s = log_sum_of<Contract>(group, p.x + row * p.x_stride, p.cols, p.aligned);
    if (group.thread() == 0) p.out[row] = Contract::logsumexp(s.m, s.l);
  });
}

}  // namespace kernel
BI_NAMESPACE_END
