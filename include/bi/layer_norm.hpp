// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/norm.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

// Layer normalisation (Ba, Kiros and Hinton 2016, arXiv 1607.06450) of rows.
//
// Contract: contract::layer_norm_draft (bi/contract/norm.hpp). The mean is formed first, then the sum of the squares of
// x - mean, both by the row tree of bi/contract/row_tree.hpp, a function of cols alone, in fp32; y is rounded once to T.
// T is bf16, fp16 or float. No workspace, no alignment beyond that of the elements. Nothing is written when the returned
// status is not ok. If a size is 0 nothing is read or written and pointers may be null; sizes, strides and eps must be
// valid all the same. On the GPU see bi/layer_norm.cuh, on the CPU bi/reference/layer_norm.hpp.

BI_NAMESPACE_BEGIN

// out[r] = (x[r] - mean) / sqrt(variance + eps) * weight + bias, with the variance of n, not n - 1. A weight or bias that
// is null is left out. A row is read whole before it is written. Allowed alias: out == x with the same stride; apart
// from that out must overlap nothing, counting all from its first to its last element.
template <class T>
struct BI_TYPE layer_norm_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements from row to row, at least cols; 0: cols
  const T* weight = nullptr;  // [cols], or null
  const T* bias = nullptr;    // [cols], or null
  float eps = 1e-5f;          // finite and at least 0
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;             // [rows, cols]
  std::int64_t out_stride = 0;  // as x_stride
};

// What every entry point asks first. Looks at the arguments, never at what they point to.
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
  const auto stride = [&](std::int64_t s) { return s == 0 ? a.cols : s; };
  const bool same = a.rows == 1 || stride(a.x_stride) == stride(a.out_stride);
  c.disjoint("out", a.out, out_bytes, "x", a.x, span_bytes(a.rows, a.x_stride, a.cols, bytes), same);
  c.disjoint("out", a.out, out_bytes, "weight", a.weight, a.cols * bytes);
  c.disjoint("out", a.out, out_bytes, "bias", a.bias, a.cols * bytes);
  return c.result();
}

// Enqueued on `stream`; defined in bi/layer_norm.cuh.
template <class T, class Contract = contract::layer_norm_draft>
status layer_norm(const layer_norm_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
