// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/held.cuh"
#include "bi/device/held_log_sum.cuh"
#include "bi/kernel/softmax.cuh"

// As bi/kernel/softmax.cuh, for rows of whole, aligned vectors: a cluster has a row and reads it once. sm_90.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int vectors_each = contract::row_block / contract::row_vector / contract::row_lanes;

// The thread's vectors of block `block` of a row, -Inf after its end.
template <class T>
BI_D void load_block(const T* x, std::int64_t cols, int block, device::held_vector<T> (&v)[vectors_each]) {
  constexpr int width = device::vector_size;
  const int length = contract::block_length(cols, block), at = static_cast<int>(threadIdx.x) * width;
  x += static_cast<std::int64_t>(block) * contract::row_block + at;
#pragma unroll
  for (int k = 0; k < vectors_each; ++k) {
    v[k].fill(cvt_rn<T>(neg_inf_f32()));
    if (at + k * contract::row_lanes * width < length) v[k].load_once(x + k * contract::row_lanes * width);
  }
}

// Form::value, for a row whose largest element m is finite.
template <class Form, class Contract>
BI_D float value_below(float x, float m, float of_row) {
  if constexpr (std::is_same_v<Form, typename Contract::softmax_form>) {
    return mul_rn(device::exp_below(sub_rn(x, m)), of_row);
  } else {
    return Form::value(x, m, of_row);
  }
}

// A row stays in registers: at most Blocks blocks of the tree a thread block. ptxas takes no more than leave an SM two
// thread blocks or more, of which one loads while another folds; told that two are enough, it takes them all.
template <class Contract, class Form, class T, class Out, int Blocks>
BI_KERNEL __launch_bounds__(256) void softmax_held_kernel([[maybe_unused]] const softmax_params<T, Out> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  constexpr int width = device::vector_size;
  __shared__ device::log_sum_memory<Blocks> memory;
  device::held_log_sum<Contract, Blocks> sum(memory);
  device::begin_dependent();
  const int cluster = device::cluster_size(), rank = device::cluster_rank();
  const int blocks = static_cast<int>(contract::row_blocks(p.cols)), mine = (blocks - rank + cluster - 1) / cluster;
  sum.ready();

  for (std::int64_t row = blockIdx.x / static_cast<unsigned>(cluster); row < p.rows;
       row += gridDim.x / static_cast<unsigned>(cluster)) {
    const T* x = p.x + row * p.x_stride;
    device::held_vector<T> v[Blocks][vectors_each];
#pragma unroll
    for (int b = 0; b < Blocks; ++b) {
      if (b < mine) load_block(x, p.cols, rank + b * cluster, v[b]);
    }
    sum.fold(v, rank, mine, cluster, [] {});
    const device::log_sum s = sum.finish(blocks, cluster);
    const float of_row = Form::row(s.l);
    const bool finite = is_finite(s.m);
#pragma unroll
    for (int b = 0; b < Blocks; ++b) {
      if (b >= mine) continue;
      const int length = contract::block_length(p.cols, rank + b * cluster);
      const int at = static_cast<int>(threadIdx.x) * width;
      Out* out = p.out + row * p.out_stride + static_cast<std::int64_t>(rank + b * cluster) * contract::row_block + at;
#pragma unroll
      for (int k = 0; k < vectors_each; ++k) {
        if (at + k * contract::row_lanes * width >= length) continue;
        Out y[width];
        if (finite) {
#pragma unroll
          for (int e = 0; e < width; ++e) y[e] = cvt_rn<Out>(value_below<Form, Contract>(v[b][k][e], s.m, of_row));
        } else {
          // All NaN.
#pragma unroll
          for (int e = 0; e < width; ++e) y[e] = cvt_rn<Out>(nan_f32());
        }
        device::held_vector<Out> packed;
        packed.set(y);
        packed.store(out + k * contract::row_lanes * width);
      }
    }
  }
#endif
}

// Nothing need stay. The next blocks, of this row or of the next one, are on their way as soon as these have been
// folded. A thread block that has one at a time leaves room for three more on an SM, whose loads fill its pauses; with
// four at once, a few rows are read at once.
template <class Contract, class T, int Blocks>
BI_KERNEL __launch_bounds__(256, Blocks == 1
                                     ? 4
                                     : 1) void logsumexp_held_kernel([[maybe_unused]] const logsumexp_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  __shared__ device::log_sum_memory<Blocks> memory;
  device::held_log_sum<Contract, Blocks> sum(memory);
  device::begin_dependent();
  const int cluster = device::cluster_size(), rank = device::cluster_rank();
  const int blocks = static_cast<int>(contract::row_blocks(p.cols));
  const std::int64_t step = gridDim.x / static_cast<unsigned>(cluster);

  device::held_vector<T> v[Blocks][vectors_each];
  const auto load = [&](std::int64_t row, int first) {
#pragma unroll
    for (int b = 0; b < Blocks; ++b) {
      if (first + b * cluster < blocks) load_block(p.x + row * p.x_stride, p.cols, first + b * cluster, v[b]);
    }
  };
  std::int64_t row = blockIdx.x / static_cast<unsigned>(cluster);
  if (row < p.rows) load(row, rank);
  sum.ready();
  for (; row < p.rows; row += step) {
    for (int first = rank; first < blocks; first += Blocks * cluster) {
      const int next = first + Blocks * cluster, left = (blocks - first + cluster - 1) / cluster;
      sum.fold(v, first, left < Blocks ? left : Blocks, cluster, [&] {
        if (next < blocks) {
          load(row, next);
        } else if (row + step < p.rows) {
          load(row + step, rank);
        }
      });
    }
    device::log_sum s = {};
    if constexpr (Blocks == 1) {
      if (threadIdx.x < 32) s = sum.finish_in_first_warp(blocks, cluster);
    } else {
      s = sum.finish(blocks, cluster);
    }
    if (rank == 0 && threadIdx.x == 0) p.out[row] = Contract::logsumexp(s.m, s.l);
  }
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
