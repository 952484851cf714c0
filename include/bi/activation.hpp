// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/activation.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

// Elementwise operations: every element is computed alone, by the same code in every lane. And rows of a table.
//
// Contract: contract::activation_draft (bi/contract/activation.hpp); embedding copies bits and has none. T is bf16, fp16 or
// float. No workspace, no alignment beyond that of the elements: rows at multiples of 16 bytes are faster. Nothing is
// written when the returned status is not ok. If a size is 0 nothing is read or written and pointers may be null; sizes
// and strides must be valid all the same. On the GPU see bi/activation.cuh, on the CPU bi/reference/activation.hpp.

BI_NAMESPACE_BEGIN

// out[r, j] = f(gate[r, j]) * up[r, j], rounded once; f is that of the call: silu_mul, gelu_mul or gelu_tanh_mul.
// Gate and up are separate arrays, halves of one array (up = gate + cols), or interleaved columns (up = gate + 1,
// column_step = 2), and may overlap each other.
// Allowed aliases: out == gate or out == up when column_step is 1 and the strides are equal. Rows of out may lie
// between rows of the other operand, as when out is the gate half of one array. Apart from these out must overlap nothing.
template <class T>
struct BI_TYPE gate_mul_args {
  const T* gate = nullptr;       // [rows, cols], columns column_step apart
  std::int64_t gate_stride = 0;  // elements from row to row, at least a row's width; 0: cols * column_step
  const T* up = nullptr;         // as gate
  std::int64_t up_stride = 0;
  std::int64_t column_step = 1;  // elements from column to column of gate and up, at least 1
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;             // [rows, cols]
  std::int64_t out_stride = 0;  // elements from row to row, at least cols; 0: cols
};

// out[r, j] = x[r, j] + y[r, j], rounded once. Allowed aliases: out == x, out == y with the same stride; apart from these out
// must overlap nothing. x and y may overlap.
template <class T>
struct BI_TYPE add_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements from row to row, at least cols; 0: cols
  const T* y = nullptr;       // [rows, cols]
  std::int64_t y_stride = 0;  // as x_stride
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;             // [rows, cols]
  std::int64_t out_stride = 0;  // as x_stride
};

// out[r] = table[id[r]], bit by bit. id[r] < 0 marks padding: row r is not written. An id of table_rows or more is the
// caller's mistake: the reference refuses the call, kernels take it for padding. out must overlap nothing.
template <class T>
struct BI_TYPE embedding_args {
  const T* table = nullptr;       // [table_rows, cols]
  std::int64_t table_stride = 0;  // elements from row to row, at least cols; 0: cols
  std::int64_t table_rows = 0;
  const std::int32_t* id = nullptr;  // [rows]
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;             // [rows, cols]
  std::int64_t out_stride = 0;  // as table_stride
};

namespace activation_detail {
// Rows of equal stride that may lie between one another's: no row of one meets a row of the other, at any index.
inline bool rows_interleave(const void* a, std::int64_t a_bytes, const void* b, std::int64_t b_bytes,
                            std::int64_t stride_bytes) {
  const auto stride = static_cast<std::uintptr_t>(stride_bytes);
  if (stride == 0) return false;
  const std::uintptr_t x = reinterpret_cast<std::uintptr_t>(a) % stride;
  const std::uintptr_t y = reinterpret_cast<std::uintptr_t>(b) % stride;
  const std::uintptr_t from_a = y >= x ? y - x : y + (stride - x);
  return from_a >= static_cast<std::uintptr_t>(a_bytes) && from_a + static_cast<std::uintptr_t>(b_bytes) <= stride;
}
}  // namespace activation_detail

// What every entry point asks first. Looks at the arguments, never at what they point to.
template <class T>
status check(const gate_mul_args<T>& a, const char* operation = "silu_mul") {
  checker c(operation);
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0).at_least("column_step", a.column_step, 1);
  std::int64_t dense = 0;
  if (c.ok() && __builtin_mul_overflow(a.cols, a.column_step, &dense)) {
    c.fail(error::overflow, "column_step", a.column_step);
  }
  if (!c.ok()) return c.result();
  const std::int64_t width = a.cols == 0 ? 0 : dense - a.column_step + 1;
  const auto in = [&](std::int64_t stride) { return stride == 0 ? dense : stride; };
  c.stride("gate_stride", in(a.gate_stride), width, "the width of a row", a.rows, bytes);
  c.stride("up_stride", in(a.up_stride), width, "the width of a row", a.rows, bytes);
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, bytes);
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();
  c.pointer("gate", a.gate).pointer("up", a.up).pointer("out", a.out);
  const std::int64_t out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  const std::int64_t out_bytes = span_bytes(a.rows, out_stride, a.cols, bytes);
  const auto apart = [&](const char* name, const T* p, std::int64_t stride) {
    const bool same_rows = a.rows == 1 || stride == out_stride;
    if (same_rows && activation_detail::rows_interleave(a.out, a.cols * bytes, p, width * bytes, stride * bytes))
      return;
    c.disjoint("out", a.out, out_bytes, name, p, span_bytes(a.rows, stride, width, bytes),
               a.column_step == 1 && same_rows);
  };
  apart("gate", a.gate, in(a.gate_stride));
  apart("up", a.up, in(a.up_stride));
  return c.result();
}

template <class T>
status check(const add_args<T>& a) {
  checker c("add");
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, bytes);
  c.stride("y_stride", a.y_stride, a.cols, "cols", a.rows, bytes);
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, bytes);
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();
  c.pointer("x", a.x).pointer("y", a.y).pointer("out", a.out);
  const auto same = [&](std::int64_t stride) {
    return a.rows == 1 || (stride == 0 ? a.cols : stride) == (a.out_stride == 0 ? a.cols : a.out_stride);
  };
  const std::int64_t out_bytes = span_bytes(a.rows, a.out_stride, a.cols, bytes);
  c.disjoint("out", a.out, out_bytes, "x", a.x, span_bytes(a.rows, a.x_stride, a.cols, bytes), same(a.x_stride));
  c.disjoint("out", a.out, out_bytes, "y", a.y, span_bytes(a.rows, a.y_stride, a.cols, bytes), same(a.y_stride));
  return c.result();
}

template <class T>
status check(const embedding_args<T>& a) {
  checker c("embedding");
  constexpr std::int64_t bytes = sizeof(T), id_bytes = sizeof(std::int32_t);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0).at_least("table_rows", a.table_rows, 0);
  c.stride("table_stride", a.table_stride, a.cols, "cols", a.table_rows, bytes);
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, bytes);
  c.stride("rows", a.rows, 0, nullptr, 1, id_bytes);
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();
  if (a.table_rows > 0) c.pointer("table", a.table);
  c.pointer("id", a.id).pointer("out", a.out);
  const std::int64_t out_bytes = span_bytes(a.rows, a.out_stride, a.cols, bytes);
  c.disjoint("out", a.out, out_bytes, "table", a.table, span_bytes(a.table_rows, a.table_stride, a.cols, bytes));
  c.disjoint("out", a.out, out_bytes, "id", a.id, a.rows * id_bytes);
  return c.result();
}

// Enqueued on `stream`; defined in bi/activation.cuh.
template <class T, class Contract = contract::activation_draft>
status silu_mul(const gate_mul_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::activation_draft>
status gelu_mul(const gate_mul_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::activation_draft>
status gelu_tanh_mul(const gate_mul_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::activation_draft>
status add(const add_args<T>& args, cuda_stream stream);
template <class T>
status embedding(const embedding_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
