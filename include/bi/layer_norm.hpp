// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// out[r] = (x[r] - mean) * rsqrt(var + eps) * weight + bias; mean first, then the squares of x - mean.
// Contract: contract::layer_norm_draft (bi/contract/norm.hpp). weight and bias may be null: that step is skipped.
// T is bf16, fp16 or float. No workspace. Allowed alias: out == x with the same stride.
template <class T>
struct layer_norm_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements between rows, 0: cols
  const T* weight = nullptr;  // [cols] or null
  const T* bias = nullptr;    // [cols] or null
  float eps = 1e-5f;          // finite, >= 0
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;
  std::int64_t out_stride = 0;
};

template <class T>
status check(const layer_norm_args<T>& a) {
  checker c("layer_norm");
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.real("eps", a.eps, is_finite(a.eps) && !less(a.eps, 0.0f), "finite and at least 0");
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, bytes);
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, bytes);
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();
  c.pointer("x", a.x).optional_pointer("weight", a.weight).optional_pointer("bias", a.bias).pointer("out", a.out);
  const std::int64_t out_bytes = span_bytes(a.rows, a.out_stride, a.cols, bytes);
  const bool same = (a.x_stride == 0 ? a.cols : a.x_stride) == (a.out_stride == 0 ? a.cols : a.out_stride);
  c.disjoint("out", a.out, out_bytes, "x", a.x, span_bytes(a.rows, a.x_stride, a.cols, bytes), same);
  c.disjoint("out", a.out, out_bytes, "weight", a.weight, a.cols * bytes);
  c.disjoint("out", a.out, out_bytes, "bias", a.bias, a.cols * bytes);
  return c.result();
}

BI_NAMESPACE_END
