// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// softmax, log_softmax: out[r, i] over the last dimension. Contract: contract::softmax_draft
// (bi/contract/softmax.hpp). T and Out are bf16, fp16 or float. A row of -Inf gives NaN. No workspace.
// Allowed alias: out == x when T is Out and the strides are equal.
template <class T, class Out = T>
struct softmax_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements between rows, 0: cols
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Out* out = nullptr;  // [rows, cols]
  std::int64_t out_stride = 0;
};

// out[r] = log(sum(exp(x[r]))), fp32. A row of -Inf, and cols = 0, give -Inf.
template <class T>
struct logsumexp_args {
  const T* x = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  float* out = nullptr;  // [rows]
};

template <class T, class Out>
status check(const softmax_args<T, Out>& a, const char* operation = "softmax") {
  checker c(operation);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, sizeof(Out));
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();
  c.pointer("x", a.x).pointer("out", a.out);
  const bool same = sizeof(T) == sizeof(Out) &&
                    (a.x_stride == 0 ? a.cols : a.x_stride) == (a.out_stride == 0 ? a.cols : a.out_stride);
  c.disjoint("out", a.out, span_bytes(a.rows, a.out_stride, a.cols, sizeof(Out)), "x", a.x,
             span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)), same);
  return c.result();
}

template <class T>
status check(const logsumexp_args<T>& a) {
  checker c("logsumexp");
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  if (!c.ok() || a.rows == 0) return c.result();
  if (a.cols > 0) c.pointer("x", a.x);
  c.pointer("out", a.out);
  c.disjoint("out", a.out, span_bytes(a.rows, 1, 1, sizeof(float)), "x", a.x,
             span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)));
  return c.result();
}

BI_NAMESPACE_END
