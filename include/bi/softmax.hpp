// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/check.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

// softmax, log_softmax and log-sum-exp of each row of a matrix, for example of logits.
//
// Contract: contract::softmax_draft (bi/contract/softmax.hpp): each block of 8192 elements has its own largest element and
// sum, which are then rescaled to the row's largest and summed, as in the online softmax (Milakov and Gimelshein 2018,
// arXiv 1805.02867) but in a fixed order, a function of cols alone; fp32 inside, rounded once to Out.
// T and Out are bf16, fp16 or float, in any pairing. A NaN or a +Inf makes the whole row NaN; a row of -Inf gives softmax
// and log_softmax NaN and log-sum-exp -Inf.
// No workspace, no alignment beyond that of the elements. Nothing is written when the returned status is not ok. If there
// is nothing to write, nothing is read and pointers may be null; sizes and strides must be valid all the same. On the GPU
// see bi/softmax.cuh, on the CPU bi/reference/softmax.hpp.

BI_NAMESPACE_BEGIN

// softmax: out[r, i] = exp(x[r, i]) / sum over j of exp(x[r, j]); log_softmax: its logarithm. A row is read whole before
// it is written. Allowed alias: out == x where T is Out and the strides are equal; apart from that out must overlap
// nothing, counting all from its first to its last element.
template <class T, class Out = T>
struct BI_TYPE softmax_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements from row to row, at least cols; 0: cols
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Out* out = nullptr;           // [rows, cols]
  std::int64_t out_stride = 0;  // as x_stride
};

// out[r] = log(sum over j of exp(x[r, j])). cols = 0 gives -Inf, and x may be null.
template <class T>
struct BI_TYPE logsumexp_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements from row to row, at least cols; 0: cols
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  float* out = nullptr;  // [rows], contiguous; must not overlap x
};

// What every entry point asks first. Looks at the arguments, never at what they point to.
template <class T, class Out>
status check(const softmax_args<T, Out>& a, const char* operation = "softmax") {
  checker c(operation);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, sizeof(Out));
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();

  c.pointer("x", a.x).pointer("out", a.out);
  const auto stride = [&](std::int64_t s) { return s == 0 ? a.cols : s; };
  const bool same = std::is_same_v<T, Out> && (a.rows == 1 || stride(a.x_stride) == stride(a.out_stride));
  c.disjoint("out", a.out, span_bytes(a.rows, a.out_stride, a.cols, sizeof(Out)), "x", a.x,
             span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)), same);
  return c.result();
}

template <class T>
status check(const logsumexp_args<T>& a) {
  checker c("logsumexp");
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, sizeof(T));
  c.stride("rows", a.rows, 0, nullptr, 1, sizeof(float));
  if (!c.ok() || a.rows == 0) return c.result();
  if (a.cols > 0) c.pointer("x", a.x);
  c.pointer("out", a.out);
  c.disjoint("out", a.out, span_bytes(a.rows, 1, 1, sizeof(float)), "x", a.x,
             span_bytes(a.rows, a.x_stride, a.cols, sizeof(T)));
  return c.result();
}

// Enqueued on `stream`; defined in bi/softmax.cuh.
template <class T, class Out = T, class Contract = contract::softmax_draft>
status softmax(const softmax_args<T, Out>& args, cuda_stream stream);
template <class T, class Out = T, class Contract = contract::softmax_draft>
status log_softmax(const softmax_args<T, Out>& args, cuda_stream stream);
template <class T, class Contract = contract::softmax_draft>
status logsumexp(const logsumexp_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
