// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

enum class reduction : std::uint8_t { sum, mean, max, min };

// out[r] = reduction of x[r, 0..cols). Contract: contract::reduce_draft (bi/contract/row_tree.hpp).
// T and Out are bf16, fp16 or float. cols = 0 gives sum +0, mean NaN, max -Inf, min +Inf. No workspace.
template <class T, class Out = float>
struct reduce_args {
  const T* x = nullptr;       // [rows, cols], aligned to T
  std::int64_t x_stride = 0;  // elements between rows, 0: cols
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Out* out = nullptr;  // [rows]
};

// index[r] = first NaN of row r, else the lowest index of its largest (argmax) or smallest (argmin) value; -0 == +0.
// cols must be at least 1.
template <class T>
struct arg_reduce_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements between rows, 0: cols
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t* index = nullptr;  // [rows]
};

template <class T, class Out>
status check(const reduce_args<T, Out>& a, reduction op) {
  checker c("reduce");
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.supported("reduction", static_cast<int>(op), op <= reduction::min, "sum, mean, max, min");
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  if (c.ok() && a.rows > 0) {
    if (a.cols > 0) c.pointer("x", a.x);
    c.pointer("out", a.out);
    c.disjoint("out", a.out, span_bytes(a.rows, 1, 1, sizeof(Out)), "x", a.x,
               span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)));
  }
  return c.result();
}

template <class T>
status check(const arg_reduce_args<T>& a, const char* operation = "argmax") {
  checker c(operation);
  c.at_least("rows", a.rows, 0);
  if (a.rows > 0) c.at_least("cols", a.cols, 1);
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  if (c.ok() && a.rows > 0) {
    c.pointer("x", a.x).pointer("index", a.index);
    c.disjoint("index", a.index, span_bytes(a.rows, 1, 1, sizeof(std::int64_t)), "x", a.x,
               span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)));
  }
  return c.result();
}

BI_NAMESPACE_END
