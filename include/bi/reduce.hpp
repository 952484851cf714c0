// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

// Sum, mean, max, min, argmax and argmin of each row of a matrix, and over any other dimensions that are next to each
// other.
//
// Contract: contract::reduce_draft (bi/contract/reduce.hpp). The order of the additions is the row tree of
// bi/contract/row_tree.hpp, a function of cols alone; everything is fp32 inside, rounded once to Out.
// T and Out are bf16, fp16 or float, in any pairing. No alignment beyond that of the elements, no alias. The workspace
// changes no bit: with one, a row of more than 8192 elements is spread over the GPU. Only reduce_columns() must have it.
// Nothing is written when the returned status is not ok. With nothing to write nothing is read and pointers may be null.
// On the GPU see bi/reduce.cuh, on the CPU bi/reference/reduce.hpp.

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

// out[o, i] = reduction of x[o, 0 .. cols, i]: over a dimension that is not the last, or over several that are next to
// each other, `cols` being the product of their sizes, `outer` of those before and `inner` of those after them. Has the
// bits of reduce() over a row of these elements, in the order of the dimensions. Over the last ones use reduce(), whose
// reads are faster. cols = 0 as in reduce().
template <class T, class Out = float>
struct BI_TYPE reduce_columns_args {
  const T* x = nullptr;       // [outer, cols, inner]
  std::int64_t x_stride = 0;  // elements from one of the `cols` to the next, at least inner; 0: inner. From one of the
                              // `outer` to the next there are cols times as many
  std::int64_t outer = 1;
  std::int64_t cols = 0;
  std::int64_t inner = 0;
  Out* out = nullptr;  // [outer, inner], contiguous; must not overlap x
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

// index[o, i] = as above, of x[o, 0 .. cols, i]; dimensions as in reduce_columns_args. No workspace.
template <class T>
struct BI_TYPE arg_reduce_columns_args {
  const T* x = nullptr;  // [outer, cols, inner]
  std::int64_t x_stride = 0;
  std::int64_t outer = 1;
  std::int64_t cols = 0;  // at least 1 unless outer or inner = 0
  std::int64_t inner = 0;
  std::int64_t* index = nullptr;  // [outer, inner], contiguous; must not overlap x
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

namespace reduce_detail {

// Of both operations over columns: what is left to ask once the sizes have been found at least as large as they must be.
template <class Args, class Out>
status check_columns(checker& c, const Args& a, const char* out_name, const Out* out) {
  c.stride("x_stride", a.x_stride, a.inner, "inner", a.cols, sizeof(*a.x));
  if (!c.ok()) return c.result();
  // The same again for x as `outer` rows, and for the output.
  const std::int64_t stride = a.x_stride == 0 ? a.inner : a.x_stride;
  c.stride("outer", a.outer, 0, nullptr, a.cols * stride, sizeof(*a.x));
  c.stride("outer", a.outer, 0, nullptr, a.inner, sizeof(Out));
  if (!c.ok() || a.outer == 0 || a.inner == 0) return c.result();
  if (a.cols > 0) c.pointer("x", a.x);
  c.pointer(out_name, out);
  c.disjoint(out_name, out, a.outer * a.inner * static_cast<std::int64_t>(sizeof(Out)), "x", a.x,
             span_bytes(a.outer * a.cols, stride, a.inner, sizeof(*a.x)));
  return c.result();
}

}  // namespace reduce_detail

template <class T, class Out>
status check(const reduce_columns_args<T, Out>& a, reduction op) {
  checker c("reduce_columns");
  c.at_least("outer", a.outer, 0).at_least("cols", a.cols, 0).at_least("inner", a.inner, 0);
  c.supported("reduction", static_cast<int>(op), op <= reduction::min, "sum, mean, max, min");
  return reduce_detail::check_columns(c, a, "out", a.out);
}
template <class T>
status check(const arg_reduce_columns_args<T>& a, const char* operation = "argmax_columns") {
  checker c(operation);
  c.at_least("outer", a.outer, 0).at_least("inner", a.inner, 0);
  c.at_least("cols", a.cols, a.outer > 0 && a.inner > 0 ? 1 : 0);
  return reduce_detail::check_columns(c, a, "index", a.index);
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

// Bytes of the workspace for up to so many rows of up to so many columns; 0 where none is of use.
inline std::size_t reduce_workspace_bytes(std::int64_t rows, std::int64_t cols) {
  if (rows <= 0 || cols <= contract::row_block) return 0;
  std::size_t floats = 0;
  for (std::int64_t n = contract::row_blocks(cols); n > 1; n = contract::row_blocks(n)) {
    floats += static_cast<std::size_t>(rows) * static_cast<std::size_t>(n + 7);
  }
  return floats * sizeof(float);
}
// reduce_columns() refuses a call without so many; 0 for cols <= 8192.
inline std::size_t reduce_columns_workspace_bytes(std::int64_t outer, std::int64_t cols, std::int64_t inner) {
  if (outer <= 0 || inner <= 0 || cols <= contract::row_block) return 0;
  std::size_t results = 0;
  for (std::int64_t n = contract::row_blocks(cols); n > 1; n = contract::row_blocks(n)) {
    results += static_cast<std::size_t>(n);
  }
  return results * static_cast<std::size_t>(outer) * static_cast<std::size_t>(inner) * sizeof(float);
}
inline std::size_t arg_reduce_workspace_bytes(std::int64_t rows, std::int64_t cols) {
  if (rows <= 0 || cols <= contract::row_block) return 0;
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(contract::row_blocks(cols)) *
         sizeof(contract::arg_value);
}

// Enqueued on `stream`, with a workspace or, ws = {}, without; one that is given must have the bytes above. Defined in
// bi/reduce.cuh.
template <class T, class Out = float, class Contract = contract::reduce_draft>
status reduce(const reduce_args<T, Out>& args, reduction op, workspace ws, cuda_stream stream);
template <class T, class Out = float, class Contract = contract::reduce_draft>
status reduce_columns(const reduce_columns_args<T, Out>& args, reduction op, workspace ws, cuda_stream stream);
template <class T, class Contract = contract::reduce_draft>
status argmax(const arg_reduce_args<T>& args, workspace ws, cuda_stream stream);
template <class T, class Contract = contract::reduce_draft>
status argmin(const arg_reduce_args<T>& args, workspace ws, cuda_stream stream);

// Without a workspace.
template <class T, class Contract = contract::reduce_draft>
status argmax_columns(const arg_reduce_columns_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::reduce_draft>
status argmin_columns(const arg_reduce_columns_args<T>& args, cuda_stream stream);
template <class T, class Out = float, class Contract = contract::reduce_draft>
status reduce(const reduce_args<T, Out>& args, reduction op, cuda_stream stream);
template <class T, class Contract = contract::reduce_draft>
status argmax(const arg_reduce_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::reduce_draft>
status argmin(const arg_reduce_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
