// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/reduce.hpp"
#include "bi/reference/parallel.hpp"

// reduce, argmax and argmin on the CPU, and what the other row operations share.

BI_NAMESPACE_BEGIN
namespace reference {

namespace row_detail {

// Rows worth a range of their own in parallel_for.
inline std::int64_t grain(std::int64_t cols) { return cols < 16384 ? 16384 / (cols + 1) + 1 : 1; }

// Floats that a row and its block results need, at least 1.
inline std::vector<float> floats(std::int64_t count) {
  return std::vector<float>(static_cast<std::size_t>(count > 0 ? count : 1));
}

template <class T>
void widen(const T* x, std::int64_t cols, float* to) {
  for (std::int64_t i = 0; i < cols; ++i) to[i] = to_f32(x[i]);
}

// One row, unrounded. `results` has room for its blocks'.
template <class Contract>
float reduce_floats(const float* x, std::int64_t cols, reduction op, float* results) {
  const auto tree = [&](float start, auto step) { return contract::reduce_row(x, cols, start, step, step, results); };
  switch (op) {
    case reduction::mean:
      return Contract::mean(tree(0.0f, contract::add_step{}), cols);
    case reduction::max:
      return tree(neg_inf_f32(), contract::max_step{});
    case reduction::min:
      return tree(inf_f32(), contract::min_step{});
    default:
      return tree(0.0f, contract::add_step{});
  }
}

}  // namespace row_detail

template <class Contract = contract::reduce_draft, class T, class Out>
status reduce(const reduce_args<T, Out>& a, reduction op, int threads = 0) {
  if (const status st = check(a, op); !st) return st;
  const std::int64_t stride = a.x_stride == 0 ? a.cols : a.x_stride;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> x = row_detail::floats(a.cols), results = row_detail::floats(contract::row_blocks(a.cols));
    for (std::int64_t r = begin; r < end; ++r) {
      if (a.cols > 0) row_detail::widen(a.x + r * stride, a.cols, x.data());
      a.out[r] = cvt_rn<Out>(row_detail::reduce_floats<Contract>(x.data(), a.cols, op, results.data()));
    }
  };
  parallel_for(a.rows, threads, rows, row_detail::grain(a.cols));
  return {};
}

template <class Contract = contract::reduce_draft, class T, class Out>
status reduce_columns(const reduce_columns_args<T, Out>& a, reduction op, int threads = 0) {
  if (const status st = check(a, op); !st) return st;
  if (a.inner == 0) return {};
  const std::int64_t stride = a.x_stride == 0 ? a.inner : a.x_stride;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> x = row_detail::floats(a.cols), results = row_detail::floats(contract::row_blocks(a.cols));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t first = r / a.inner * a.cols * stride + r % a.inner;
      for (std::int64_t k = 0; k < a.cols; ++k) x[static_cast<std::size_t>(k)] = to_f32(a.x[first + k * stride]);
      a.out[r] = cvt_rn<Out>(row_detail::reduce_floats<Contract>(x.data(), a.cols, op, results.data()));
    }
  };
  parallel_for(a.outer * a.inner, threads, rows, row_detail::grain(a.cols));
  return {};
}

namespace row_detail {

template <class Step, class T>
status arg_reduce(const arg_reduce_args<T>& a, const char* operation, int threads) {
  if (const status st = check(a, operation); !st) return st;
  const std::int64_t stride = a.x_stride == 0 ? a.cols : a.x_stride;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      contract::arg_value best{0.0f, -1};
      for (std::int64_t i = 0; i < a.cols; ++i) {
        best = contract::better_arg<Step>(best, {to_f32(a.x[r * stride + i]), i});
      }
      a.index[r] = best.index;
    }
  };
  parallel_for(a.rows, threads, rows, grain(a.cols));
  return {};
}

template <class Step, class T>
status arg_columns(const arg_reduce_columns_args<T>& a, const char* operation, int threads) {
  const status st = check(a, operation);
  if (!st || a.outer == 0 || a.inner == 0) return st;
  const std::int64_t stride = a.x_stride == 0 ? a.inner : a.x_stride;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t first = r / a.inner * a.cols * stride + r % a.inner;
      contract::arg_value best{0.0f, -1};
      for (std::int64_t k = 0; k < a.cols; ++k) {
        best = contract::better_arg<Step>(best, {to_f32(a.x[first + k * stride]), k});
      }
      a.index[r] = best.index;
    }
  };
  parallel_for(a.outer * a.inner, threads, rows, grain(a.cols));
  return {};
}

}  // namespace row_detail

template <class Contract = contract::reduce_draft, class T>
status argmax_columns(const arg_reduce_columns_args<T>& a, int threads = 0) {
  return row_detail::arg_columns<contract::arg_max_step>(a, "argmax_columns", threads);
}
template <class Contract = contract::reduce_draft, class T>
status argmin_columns(const arg_reduce_columns_args<T>& a, int threads = 0) {
  return row_detail::arg_columns<contract::arg_min_step>(a, "argmin_columns", threads);
}
template <class Contract = contract::reduce_draft, class T>
status argmax(const arg_reduce_args<T>& a, int threads = 0) {
  return row_detail::arg_reduce<contract::arg_max_step>(a, "argmax", threads);
}
template <class Contract = contract::reduce_draft, class T>
status argmin(const arg_reduce_args<T>& a, int threads = 0) {
  return row_detail::arg_reduce<contract::arg_min_step>(a, "argmin", threads);
}

}  // namespace reference
BI_NAMESPACE_END
