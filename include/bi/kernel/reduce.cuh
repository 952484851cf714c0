// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"

// A row's result depends on its own elements: sum, mean, max and min are row trees (bi/contract/row_tree.hpp),
// argmax and argmin combine in any order.

BI_NAMESPACE_BEGIN
namespace kernel {

// What one reduction does: the step of its tree, the start value, and the result made of the tree's.
template <class Contract>
struct sum_form {
  using step = contract::add_step;
  BI_D static float start() { return 0.0f; }
  BI_D static float finish(float v, std::int64_t) { return v; }
};
template <class Contract>
struct mean_form : sum_form<Contract> {
  BI_D static float finish(float v, std::int64_t cols) { return Contract::mean(v, cols); }
};
template <class Contract>
struct max_form : sum_form<Contract> {
  using step = contract::max_step;
  BI_D static float start() { return neg_inf_f32(); }
};
template <class Contract>
struct min_form : sum_form<Contract> {
  using step = contract::min_step;
  BI_D static float start() { return inf_f32(); }
};

template <class T, class Out>
struct reduce_params {
  const T* x;
  Out* out;
  std::int64_t x_stride;
  std::int64_t rows, cols;
  bool aligned;  // every row of x starts at a multiple of 16 bytes
};

template <class Form, class T, class Out, int Threads, int RowsPerBlock>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void reduce_kernel(const reduce_params<T, Out> p) {
  using step = typename Form::step;
  device::for_each_row<Threads, RowsPerBlock>(p.rows, [&](device::row_group<Threads>& group, std::int64_t row) {
    const device::fold_elements<T, step> fold{p.x + row * p.x_stride, p.aligned, step{}};
    const float v = group.fold_row(p.cols, Form::start(), fold, step{});
    if (group.thread() == 0) p.out[row] = cvt_rn<Out>(Form::finish(v, p.cols));
  });
}

template <class T>
struct arg_reduce_params {
  const T* x;
  std::int64_t* index;
  std::int64_t x_stride;
  std::int64_t rows, cols;
  bool aligned;  // every row of x starts at a multiple of 16 bytes
};

template <int Threads>
struct arg_scratch {
  contract::arg_value warp[Threads / 32];
};

template <class Step>
BI_D contract::arg_value best_of_warp(contract::arg_value mine) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    contract::arg_value other;
    other.value = __shfl_xor_sync(device::full_warp, mine.value, d);
    other.index = __shfl_xor_sync(device::full_warp, mine.index, d);
    mine = contract::better_arg<Step>(mine, other);
  }
  return mine;
}

// The best of all threads' values, for all of them.
template <class Step, int Threads>
BI_D contract::arg_value best_of_group(const device::row_group<Threads>& group, contract::arg_value mine,
                                       arg_scratch<Threads>& scratch) {
  mine = best_of_warp<Step>(mine);
  if constexpr (Threads > 32) {
    if (group.thread() % 32 == 0) scratch.warp[group.thread() / 32] = mine;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < Threads / 32; ++w) mine = contract::better_arg<Step>(mine, scratch.warp[w]);
    __syncthreads();  // the next row writes the scratch again
  }
  return mine;
}

template <class Step, class T, int Threads, int RowsPerBlock>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void arg_reduce_kernel(const arg_reduce_params<T> p) {
  __shared__ arg_scratch<Threads> scratch;
  device::for_each_row<Threads, RowsPerBlock>(p.rows, [&](device::row_group<Threads>& group, std::int64_t row) {
    const T* x = p.x + row * p.x_stride;
    contract::arg_value best{0.0f, -1};
    device::for_each_vector(group, p.cols, [&](std::int64_t i, int n) {
      float v[device::vector_size];
      device::load_vector_f32(x + i, n, p.aligned, v);
#pragma unroll
      for (int e = 0; e < device::vector_size; ++e) {
        if (e < n) best = contract::better_arg<Step>(best, {v[e], i + e});
      }
    });
    best = best_of_group<Step>(group, best, scratch);
    if (group.thread() == 0) p.index[row] = best.index;
  });
}

}  // namespace kernel
BI_NAMESPACE_END
