// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/norm.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/reduce.hpp"
#include "bi/rms_norm.hpp"

// rms_norm and qk_norm on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

namespace row_detail {

// One row, widened in x, to out. `results` has room for the row's block results.
template <class Contract, class T>
void rms_norm_row(const float* x, const float* weight, float eps, std::int64_t cols, float* results, T* out) {
  const float ss = contract::reduce_row(x, cols, 0.0f, contract::square_step{}, contract::add_step{}, results);
  const float r = contract::norm_scale(ss, cols, eps);
  for (std::int64_t i = 0; i < cols; ++i) out[i] = Contract::template value<T>(x[i], r, weight[i]);
}

}  // namespace row_detail

template <class Contract = contract::rms_norm_draft, class T>
status rms_norm(const rms_norm_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.rows == 0 || a.cols == 0) return {};
  const auto stride = [&](std::int64_t s) { return s == 0 ? a.cols : s; };
  std::vector<float> weight = row_detail::floats(a.cols);
  row_detail::widen(a.weight, a.cols, weight.data());
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> x = row_detail::floats(a.cols), results = row_detail::floats(contract::row_blocks(a.cols));
    for (std::int64_t r = begin; r < end; ++r) {
      row_detail::widen(a.x + r * stride(a.x_stride), a.cols, x.data());
      if (a.residual != nullptr) {
        const T* residual = a.residual + r * stride(a.residual_stride);
        T* sum = a.residual_out + r * stride(a.residual_out_stride);
        for (std::int64_t i = 0; i < a.cols; ++i) {
          const auto k = static_cast<std::size_t>(i);
          sum[i] = cvt_rn<T>(add_rn(x[k], to_f32(residual[i])));
          x[k] = to_f32(sum[i]);
        }
      }
      row_detail::rms_norm_row<Contract>(x.data(), weight.data(), a.eps, a.cols, results.data(),
                                         a.out + r * stride(a.out_stride));
    }
  };
  parallel_for(a.rows, threads, rows, row_detail::grain(a.cols));
  return {};
}

template <class Contract = contract::rms_norm_draft, class T>
status qk_norm(const qk_norm_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.tokens == 0 || a.heads == 0 || a.head_dim == 0) return {};
  const auto head = [&](std::int64_t s) { return s == 0 ? a.head_dim : s; };
  const auto token = [&](std::int64_t s, std::int64_t head_stride) { return s == 0 ? a.heads * head(head_stride) : s; };
  std::vector<float> weight = row_detail::floats(a.head_dim);
  row_detail::widen(a.weight, a.head_dim, weight.data());
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> x = row_detail::floats(a.head_dim),
                       results = row_detail::floats(contract::row_blocks(a.head_dim));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t t = r / a.heads, h = r % a.heads;
      row_detail::widen(a.x + t * token(a.x_token_stride, a.x_head_stride) + h * head(a.x_head_stride), a.head_dim,
                        x.data());
      row_detail::rms_norm_row<Contract>(
          x.data(), weight.data(), a.eps, a.head_dim, results.data(),
          a.out + t * token(a.out_token_stride, a.out_head_stride) + h * head(a.out_head_stride));
    }
  };
  parallel_for(a.tokens * a.heads, threads, rows, row_detail::grain(a.head_dim));
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
