// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/activation.hpp"
#include "bi/contract/activation.hpp"
#include "bi/reference/parallel.hpp"

// silu_mul, gelu_mul, gelu_tanh_mul, add and embedding on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

namespace activation_detail {

inline std::int64_t grain(std::int64_t cols) { return cols < 16384 ? 16384 / (cols + 1) + 1 : 1; }

template <class T, class Function>
status gate_mul(const gate_mul_args<T>& a, const char* operation, int threads, Function f) {
  if (const status st = check(a, operation); !st) return st;
  if (a.cols == 0) return {};
  const std::int64_t dense = a.cols * a.column_step;
  const std::int64_t gate_stride = a.gate_stride == 0 ? dense : a.gate_stride;
  const std::int64_t up_stride = a.up_stride == 0 ? dense : a.up_stride;
  const std::int64_t out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* gate = a.gate + r * gate_stride;
      const T* up = a.up + r * up_stride;
      T* out = a.out + r * out_stride;
      for (std::int64_t j = 0; j < a.cols; ++j) out[j] = f(gate[j * a.column_step], up[j * a.column_step]);
    }
  };
  parallel_for(a.rows, threads, rows, grain(a.cols));
  return {};
}

}  // namespace activation_detail

template <class Contract = contract::activation_draft, class T>
status silu_mul(const gate_mul_args<T>& a, int threads = 0) {
  return activation_detail::gate_mul(a, "silu_mul", threads, [](T g, T u) { return Contract::silu_mul(g, u); });
}
template <class Contract = contract::activation_draft, class T>
status gelu_mul(const gate_mul_args<T>& a, int threads = 0) {
  return activation_detail::gate_mul(a, "gelu_mul", threads, [](T g, T u) { return Contract::gelu_mul(g, u); });
}
template <class Contract = contract::activation_draft, class T>
status gelu_tanh_mul(const gate_mul_args<T>& a, int threads = 0) {
  return activation_detail::gate_mul(a, "gelu_tanh_mul", threads,
                                     [](T g, T u) { return Contract::gelu_tanh_mul(g, u); });
}

template <class Contract = contract::activation_draft, class T>
status add(const add_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.cols == 0) return {};
  const auto stride = [&](std::int64_t s) { return s == 0 ? a.cols : s; };
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* x = a.x + r * stride(a.x_stride);
      const T* y = a.y + r * stride(a.y_stride);
      T* out = a.out + r * stride(a.out_stride);
      for (std::int64_t j = 0; j < a.cols; ++j) out[j] = Contract::add(x[j], y[j]);
    }
  };
  parallel_for(a.rows, threads, rows, activation_detail::grain(a.cols));
  return {};
}

template <class T>
status embedding(const embedding_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.rows == 0 || a.cols == 0) return {};
  for (std::int64_t r = 0; r < a.rows; ++r) {
    if (a.id[r] < a.table_rows) continue;
    return checker("embedding").fail(error::index_out_of_range, "id", a.id[r], "table_rows", a.table_rows, r).result();
  }
  const auto stride = [&](std::int64_t s) { return s == 0 ? a.cols : s; };
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      if (a.id[r] < 0) continue;
      std::memcpy(static_cast<void*>(a.out + r * stride(a.out_stride)), a.table + a.id[r] * stride(a.table_stride),
                  static_cast<std::size_t>(a.cols) * sizeof(T));
    }
  };
  parallel_for(a.rows, threads, rows, activation_detail::grain(a.cols));
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
