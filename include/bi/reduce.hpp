// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

// Sum, mean, max, min, argmax and argmin of each row of a matrix.
//
// Contract: contract::reduce_draft (bi/contract/reduce.hpp). The order of the additions is the row tree of
// bi/contract/row_tree.hpp, a function of cols alone; everything is fp32 inside, rounded once to Out.
// T and Out are bf16, fp16 or float, in any pairing. No workspace, no alignment beyond that of the elements, no alias.
// Nothing is written when the returned status is not ok. With rows = 0 nothing is read or written and pointers may be
// null. On the GPU see bi/reduce.cuh, on the CPU bi/reference/reduce.hpp.

BI_NAMESPACE_BEGIN

enum class reduction : std::uint8_t { sum, mean, max, min };

// out[r] = reduction of x[r, 0 .. cols). NaN wins in max and min, and +0 > -0. cols = 0 gives sum +0, mean NaN, max -Inf,
// min +Inf, and x may be null.
template <class T, class Out = float>
struct BI_TYPE reduce_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements from row to row, at least cols; 0: cols
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Out* out = nullptr;  // [rows], contiguous; must not overlap x
};

// index[r] = the first NaN of row r, else the lowest index of its largest (argmax) or smallest (argmin) value; -0 == +0.
template <class T>
struct BI_TYPE arg_reduce_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements from row to row, at least cols; 0: cols
  std::int64_t rows = 0;
  std::int64_t cols = 0;          // at least 1 unless rows = 0
  std::int64_t* index = nullptr;  // [rows], contiguous; must not overlap x
};

// What every entry point asks first. Looks at the arguments, never at what they point to.
template <class T, class Out>
status check(const reduce_args<T, Out>& a, reduction op) {
  checker c("reduce");
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.supported("reduction", static_cast<int>(op), op <= reduction::min, "sum, mean, max, min");
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  c.stride("rows", a.rows, 0, nullptr, 1, sizeof(Out));
  if (!c.ok() || a.rows == 0) return c.result();
  if (a.cols > 0) c.pointer("x", a.x);
  c.pointer("out", a.out);
  c.disjoint("out", a.out, span_bytes(a.rows, 1, 1, sizeof(Out)), "x", a.x,
             span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)));
  return c.result();
}

template <class T>
status check(const arg_reduce_args<T>& a, const char* operation = "argmax") {
  checker c(operation);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, a.rows > 0 ? 1 : 0);
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  c.stride("rows", a.rows, 0, nullptr, 1, sizeof(std::int64_t));
  if (!c.ok() || a.rows == 0) return c.result();
  c.pointer("x", a.x).pointer("index", a.index);
  c.disjoint("index", a.index, span_bytes(a.rows, 1, 1, sizeof(std::int64_t)), "x", a.x,
             span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)));
  return c.result();
}

// Enqueued on `stream`; defined in bi/reduce.cuh.
template <class T, class Out = float, class Contract = contract::reduce_draft>
status reduce(const reduce_args<T, Out>& args, reduction op, cuda_stream stream);
template <class T, class Contract = contract::reduce_draft>
status argmax(const arg_reduce_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::reduce_draft>
status argmin(const arg_reduce_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
