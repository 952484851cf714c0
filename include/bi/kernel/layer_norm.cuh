// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/norm.hpp"
#include "bi/device/held.cuh"
#include "bi/device/held_sum.cuh"
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

// As rms_norm_held_kernel: a row is read once and kept in registers.
template <class Contract, class T, int Threads, int RowsPerBlock, int Held, bool Cluster>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void layer_norm_held_kernel(const layer_norm_params<T> p) {
  constexpr int width = device::vector_size;
  using sum_type = device::held_sum<Threads, Held, Cluster>;
  __shared__ typename sum_type::memory_type memory;
  sum_type sum(memory);
  const int cluster = Cluster ? static_cast<int>(contract::row_blocks(p.cols)) : 1;
  const int rank = Cluster ? static_cast<int>(blockIdx.x % static_cast<unsigned>(cluster)) : 0;
  const int thread = static_cast<int>(threadIdx.x) % Threads;
  const int cols = Cluster ? contract::block_length(p.cols, rank) : static_cast<int>(p.cols);
  const bool has_weight = p.weight != nullptr, has_bias = p.bias != nullptr;
  const T *weight = p.weight + rank * contract::row_block, *bias = p.bias + rank * contract::row_block;
  const std::int64_t bytes = cols * static_cast<std::int64_t>(sizeof(T));
  constexpr int threads = Threads * RowsPerBlock;
  const bool first = blockIdx.x < static_cast<unsigned>(cluster);
  if (first && has_weight) device::prefetch_shared_row(weight, bytes, static_cast<int>(threadIdx.x), threads);
  if (first && has_bias) device::prefetch_shared_row(bias, bytes, static_cast<int>(threadIdx.x), threads);
  device::begin_dependent();
  sum.ready();

  const int at = thread * width;  // of the thread's first vector; the next is Threads * width further
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x / static_cast<unsigned>(cluster)) * RowsPerBlock;
  std::int64_t row = static_cast<std::int64_t>(blockIdx.x / static_cast<unsigned>(cluster)) * RowsPerBlock +
                     static_cast<int>(threadIdx.x) / Threads;
  for (; row < p.rows; row += step) {
    const T* x = p.x + row * p.x_stride + at + rank * contract::row_block;
    T* out = p.out + row * p.out_stride + at + rank * contract::row_block;
    device::held_vector<T> v[Held];
#pragma unroll
    for (int j = 0; j < Held; ++j) {
      v[j].fill(T{});
      if (at + j * Threads * width < cols) v[j].load_once(x + j * Threads * width);
    }
    const float total = sum(cluster, [&](float acc, int j) {
#pragma unroll
      for (int e = 0; e < width; ++e) acc = add_rn(acc, v[j][e]);
      return acc;
    });
    const float mean = Contract::mean(total, p.cols);
    const contract::centred_square_step square{mean};
    const float squares = sum(cluster, [&](float acc, int j) {
      if (at + j * Threads * width < cols) {
#pragma unroll
        for (int e = 0; e < width; ++e) acc = square(acc, v[j][e]);
      }
      return acc;
    });
    const float scale = contract::norm_scale(squares, p.cols, p.eps);
#pragma unroll
    for (int j = 0; j < Held; ++j) {
      if (at + j * Threads * width >= cols) continue;
      device::held_vector<T> w, b;
      w.fill(T{});
      b.fill(T{});
      if (has_weight) w.load(weight + at + j * Threads * width);
      if (has_bias) b.load(bias + at + j * Threads * width);
      T y[width];
#pragma unroll
      for (int e = 0; e < width; ++e) {
        y[e] = Contract::template value<T>(v[j][e], mean, scale, has_weight, w[e], has_bias, b[e]);
      }
      v[j].set(y);
      v[j].store(out + j * Threads * width);
    }
  }
}

}  // namespace kernel
BI_NAMESPACE_END
