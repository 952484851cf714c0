// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/norm.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/held.cuh"
#include "bi/device/held_sum.cuh"
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

// Rows of whole, aligned vectors, at most Held a thread: read once, kept in registers. A row is a warp's, a thread
// block's, or, with Cluster, a cluster's: each of its thread blocks then has one block of the tree.
template <class Contract, class T, int Threads, int RowsPerBlock, int Held, bool Cluster>
BI_KERNEL __launch_bounds__(Threads* RowsPerBlock) void rms_norm_held_kernel(const rms_norm_params<T> p) {
  constexpr int width = device::vector_size;
  using sum_type = device::held_sum<Threads, Held, Cluster>;
  __shared__ typename sum_type::memory_type memory;
  sum_type sum(memory);
  const int cluster = Cluster ? static_cast<int>(contract::row_blocks(p.cols)) : 1;
  const int rank = Cluster ? static_cast<int>(blockIdx.x % static_cast<unsigned>(cluster)) : 0;
  const int thread = static_cast<int>(threadIdx.x) % Threads;
  const int cols = Cluster ? contract::block_length(p.cols, rank) : static_cast<int>(p.cols);
  const T* weight = p.weight + rank * contract::row_block;
  if (blockIdx.x < static_cast<unsigned>(cluster)) {
    device::prefetch_shared_row(weight, cols * static_cast<std::int64_t>(sizeof(T)), static_cast<int>(threadIdx.x),
                                Threads * RowsPerBlock);
  }
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x / static_cast<unsigned>(cluster)) * RowsPerBlock +
                                 static_cast<int>(threadIdx.x) / Threads;
  // The residual was not written by the kernel ahead, as a rule, so it too may be on its way. Not with thread blocks
  // that begin after it has ended, nor where a warp's row is a small part of what goes on.
  if (Threads > 32 && p.residual != nullptr && first_row < p.rows && blockIdx.x < 8 * 132) {
    device::prefetch_shared_row(p.residual + first_row * p.residual_stride + rank * contract::row_block,
                                cols * static_cast<std::int64_t>(sizeof(T)), thread, Threads);
  }
  device::begin_dependent();
  sum.ready();

  const int at = thread * width;  // of the thread's first vector; the next is Threads * width further
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x / static_cast<unsigned>(cluster)) * RowsPerBlock;
  for (std::int64_t row = first_row; row < p.rows; row += step) {
    const device::flat_item item =
        p.inner == 1 ? device::flat_item{row, 0} : device::split(device::flat_items{0, p.inner}, row);
    const std::int64_t begin = at + rank * contract::row_block;
    const T* x = p.x + item.row * p.x_stride + item.index * p.x_inner_stride + begin;
    T* out = p.out + item.row * p.out_stride + item.index * p.out_inner_stride + begin;

    device::held_vector<T> v[Held], r[Held], w[Held];
#pragma unroll
    for (int j = 0; j < Held; ++j) {
      v[j].fill(T{});
      if (at + j * Threads * width < cols) v[j].load_once(x + j * Threads * width);
    }
    if (p.residual != nullptr) {
      const T* residual = p.residual + item.row * p.residual_stride + begin;
#pragma unroll
      for (int j = 0; j < Held; ++j) {
        if (at + j * Threads * width < cols) r[j].load_once(residual + j * Threads * width);
      }
    }
    const auto load_weight = [&] {
#pragma unroll
      for (int j = 0; j < Held; ++j) {
        if (at + j * Threads * width < cols) w[j].load(weight + at + j * Threads * width);
      }
    };
    // On its way with the rest, or, where registers are short, in the place of the residual.
    constexpr bool all_at_once = Held <= 4;
    if constexpr (all_at_once) load_weight();
    if (p.residual != nullptr) {
      T* sum_out = p.residual_out + item.row * p.residual_out_stride + begin;
#pragma unroll
      for (int j = 0; j < Held; ++j) {
        if (at + j * Threads * width >= cols) continue;
        T total[width];
#pragma unroll
        for (int e = 0; e < width; ++e) total[e] = cvt_rn<T>(add_rn(v[j][e], r[j][e]));
        v[j].set(total);
        v[j].store(sum_out + j * Threads * width);
      }
    }
    if constexpr (!all_at_once) load_weight();

    // Where there is no vector, zeros change no sum.
    const float ss = sum(cluster, [&](float acc, int j) {
#pragma unroll
      for (int e = 0; e < width; ++e) acc = contract::square_step{}(acc, v[j][e]);
      return acc;
    });
    const float scale = contract::norm_scale(ss, p.cols, p.eps);
#pragma unroll
    for (int j = 0; j < Held; ++j) {
      if (at + j * Threads * width >= cols) continue;
      T y[width];
#pragma unroll
      for (int e = 0; e < width; ++e) y[e] = Contract::template value<T>(v[j][e], scale, w[j][e]);
      v[j].set(y);
      v[j].store(out + j * Threads * width);
    }
  }
}

}  // namespace kernel
BI_NAMESPACE_END
