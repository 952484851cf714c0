// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// Elementwise operations: every element is computed alone, by the same code in every lane.
// Contract: contract::activation_draft (bi/contract/activation.hpp).

enum class gate_function : std::uint8_t { silu, gelu, gelu_tanh };

// out[r, j] = f(gate[r, j]) * up[r, j], rounded once. Gate and up are separate arrays, halves of one array
// (up = gate + cols), or interleaved columns (up = gate + 1, column_step = 2).
// T is bf16, fp16 or float. Allowed alias: out == gate or out == up when column_step is 1 and the strides are equal.
template <class T>
struct gate_mul_args {
  const T* gate = nullptr;
  std::int64_t gate_stride = 0;  // elements between rows, 0: cols * column_step
  const T* up = nullptr;
  std::int64_t up_stride = 0;
  std::int64_t column_step = 1;  // elements between columns of gate and up
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;  // [rows, cols]
  std::int64_t out_stride = 0;
};

// out[r, j] = x[r, j] + y[r, j], rounded once. Allowed aliases: out == x, out == y with the same stride.
template <class T>
struct add_args {
  const T* x = nullptr;
  std::int64_t x_stride = 0;
  const T* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;
  std::int64_t out_stride = 0;
};

template <class T>
status check(const gate_mul_args<T>& a, const char* operation = "silu_mul") {
  checker c(operation);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0).at_least("column_step", a.column_step, 1);
  constexpr std::int64_t bytes = sizeof(T);
  std::int64_t width = 0;
  if (c.ok() && a.cols > 0) {
    if (__builtin_mul_overflow(a.cols - 1, a.column_step, &width)) c.fail(error::overflow, "column_step", a.column_step);
    width += 1;
  }
  if (!c.ok()) return c.result();
  const std::int64_t dense = a.column_step == 1 ? a.cols : a.cols * a.column_step;
  const auto in_stride = [&](std::int64_t s) { return s == 0 ? dense : s; };
  c.stride("gate_stride", in_stride(a.gate_stride), width, "the row's width", a.rows, bytes);
  c.stride("up_stride", in_stride(a.up_stride), width, "the row's width", a.rows, bytes);
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, bytes);
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();
  c.pointer("gate", a.gate).pointer("up", a.up).pointer("out", a.out);
  const std::int64_t out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  const std::int64_t out_bytes = span_bytes(a.rows, out_stride, a.cols, bytes);
  c.disjoint("out", a.out, out_bytes, "gate", a.gate, span_bytes(a.rows, in_stride(a.gate_stride), width, bytes),
             a.column_step == 1 && in_stride(a.gate_stride) == out_stride);
  c.disjoint("out", a.out, out_bytes, "up", a.up, span_bytes(a.rows, in_stride(a.up_stride), width, bytes),
             a.column_step == 1 && in_stride(a.up_stride) == out_stride);
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
  const auto eff = [&](std::int64_t s) { return s == 0 ? a.cols : s; };
  const std::int64_t out_bytes = span_bytes(a.rows, a.out_stride, a.cols, bytes);
  c.disjoint("out", a.out, out_bytes, "x", a.x, span_bytes(a.rows, a.x_stride, a.cols, bytes),
             eff(a.x_stride) == eff(a.out_stride));
  c.disjoint("out", a.out, out_bytes, "y", a.y, span_bytes(a.rows, a.y_stride, a.cols, bytes),
             eff(a.y_stride) == eff(a.out_stride));
  return c.result();
}

BI_NAMESPACE_END
