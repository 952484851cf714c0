// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/contract/gemm_gate.hpp"

// The end of a product whose k was cut over ranks: the tree over their fp32 roots in rank order, then the epilogue. Each
// output depends on its own roots alone.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T, class Out>
struct gemm_finish_params {
  const float* partial;
  const T* bias;
  const T* residual;
  Out* d;
  std::int64_t partial_rank_stride, ldp, ldr, ldd;
  std::int64_t m, n;
  int ranks;
  float alpha;
};

template <class Epilogue, class T, class Out>
BI_D Out gemm_finish_value(const gemm_finish_params<T, Out>& p, std::int64_t row, std::int64_t col) {
  float root[contract::max_slices];
#pragma unroll
  for (int r = 0; r < contract::max_slices; ++r) {
    root[r] = r < p.ranks ? p.partial[r * p.partial_rank_stride + row * p.ldp + col] : 0.0f;
  }
  const float acc = contract::combine_slices(root, p.ranks);
  return contract::gemm_epilogue<Out>(acc, p.alpha, Epilogue::has_bias ? p.bias + col : nullptr,
                                      Epilogue::has_residual ? p.residual + row * p.ldr + col : nullptr);
}

inline constexpr int gemm_finish_threads = 256;

template <class T, class Epilogue, class Out>
BI_KERNEL __launch_bounds__(gemm_finish_threads) void gemm_finish_kernel(const gemm_finish_params<T, Out> p) {
  const std::int64_t cols = Epilogue::has_gate ? p.n / 2 : p.n, total = p.m * cols;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * gemm_finish_threads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * gemm_finish_threads + threadIdx.x; i < total;
       i += step) {
    const std::int64_t row = i / cols, col = i % cols;
    if constexpr (Epilogue::has_gate) {
      p.d[row * p.ldd + col] = contract::gemm_silu_gate(gemm_finish_value<Epilogue>(p, row, 2 * col),
                                                        gemm_finish_value<Epilogue>(p, row, 2 * col + 1));
    } else {
      p.d[row * p.ldd + col] = gemm_finish_value<Epilogue>(p, row, col);
    }
  }
}

}  // namespace kernel
BI_NAMESPACE_END
