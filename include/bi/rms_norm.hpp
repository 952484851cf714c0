// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/norm.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

// Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467) of rows, and of the heads of q and k
// (Henry et al. 2020, arXiv 2010.04245, in the form that Qwen3 uses).
//
// Contracts (bi/contract/norm.hpp), the template parameter of every entry point: rms_norm_draft, rms_norm_hf_draft
// (rounded to T before the weight), rms_norm_one_plus_draft (the weight stored is w - 1). The sum of squares is the row
// tree of bi/contract/row_tree.hpp, a function of cols alone, in fp32.
// T is bf16, fp16 or float. No workspace, no alignment beyond that of the elements. Nothing is written when the returned
// status is not ok. If a size is 0 nothing is read or written and pointers may be null; sizes, strides and eps must be
// valid all the same. On the GPU see bi/rms_norm.cuh, on the CPU bi/reference/rms_norm.hpp.

BI_NAMESPACE_BEGIN

// out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight. With `residual`, x + residual is rounded to T and stored in
// residual_out, and that stored sum takes the place of x: the bytes of bi::add followed by rms_norm.
//
// A row is read whole before it is written. Allowed aliases: out or residual_out may be x or residual (same pointer and
// same stride). Apart from these, outputs must overlap nothing, each other included; two arguments overlap when the
// ranges from first to last element meet, even if their rows interleave.
template <class T>
struct BI_TYPE rms_norm_args {
  const T* x = nullptr;                  // [rows, cols]
  std::int64_t x_stride = 0;             // elements from row to row, at least cols; 0: cols
  const T* residual = nullptr;           // [rows, cols], or null
  std::int64_t residual_stride = 0;      // as x_stride
  T* residual_out = nullptr;             // [rows, cols], required with residual, null without
  std::int64_t residual_out_stride = 0;  // as x_stride
  const T* weight = nullptr;             // [cols]
  float eps = 1e-6f;                     // finite and at least 0
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;             // [rows, cols]
  std::int64_t out_stride = 0;  // as x_stride
};

// rms_norm of each head of each token, for example of the q or the k part of a fused qkv projection: x[t, h] is a row
// of head_dim elements. Allowed alias: out == x with the same strides.
template <class T>
struct BI_TYPE qk_norm_args {
  const T* x = nullptr;             // [tokens, heads, head_dim]
  std::int64_t x_token_stride = 0;  // elements from token to token, not less than a token's heads take; 0: packed
  std::int64_t x_head_stride = 0;   // elements from head to head, at least head_dim; 0: head_dim
  const T* weight = nullptr;        // [head_dim]
  float eps = 1e-6f;                // finite and at least 0
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  T* out = nullptr;                   // [tokens, heads, head_dim]
  std::int64_t out_token_stride = 0;  // as x_token_stride
  std::int64_t out_head_stride = 0;   // as x_head_stride
};

// What every entry point asks first. Looks at the arguments, never at what they point to.
template <class T>
status check(const rms_norm_args<T>& a) {
  checker c("rms_norm");
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.real("eps", a.eps, is_finite(a.eps) && !less(a.eps, 0.0f), "finite and at least 0");
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, bytes);
  c.stride("residual_stride", a.residual_stride, a.cols, "cols", a.rows, bytes);
  c.stride("residual_out_stride", a.residual_out_stride, a.cols, "cols", a.rows, bytes);
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, bytes);
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();

  c.pointer("x", a.x).optional_pointer("residual", a.residual);
  if (a.residual != nullptr) c.pointer("residual_out", a.residual_out);
  if (a.residual_out != nullptr) c.pointer("residual", a.residual);
  c.pointer("weight", a.weight).pointer("out", a.out);

  const auto span = [&](std::int64_t stride) { return span_bytes(a.rows, stride, a.cols, bytes); };
  const auto same = [&](std::int64_t s, std::int64_t t) {
    return a.rows == 1 || (s == 0 ? a.cols : s) == (t == 0 ? a.cols : t);
  };
  const auto apart = [&](const char* name, const T* p, std::int64_t stride) {
    c.disjoint(name, p, span(stride), "x", a.x, span(a.x_stride), same(stride, a.x_stride));
    c.disjoint(name, p, span(stride), "residual", a.residual, span(a.residual_stride), same(stride, a.residual_stride));
    c.disjoint(name, p, span(stride), "weight", a.weight, a.cols * bytes);
  };
  apart("residual_out", a.residual_out, a.residual_out_stride);
  apart("out", a.out, a.out_stride);
  c.disjoint("out", a.out, span(a.out_stride), "residual_out", a.residual_out, span(a.residual_out_stride));
  return c.result();
}

template <class T>
status check(const qk_norm_args<T>& a) {
  checker c("qk_norm");
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("tokens", a.tokens, 0).at_least("heads", a.heads, 0).at_least("head_dim", a.head_dim, 0);
  c.real("eps", a.eps, is_finite(a.eps) && !less(a.eps, 0.0f), "finite and at least 0");
  c.stride("x_head_stride", a.x_head_stride, a.head_dim, "head_dim", a.heads, bytes);
  c.stride("out_head_stride", a.out_head_stride, a.head_dim, "head_dim", a.heads, bytes);
  if (!c.ok()) return c.result();
  const auto head = [&](std::int64_t stride) { return stride == 0 ? a.head_dim : stride; };
  const auto width = [&](std::int64_t stride) { return a.heads == 0 ? 0 : (a.heads - 1) * head(stride) + a.head_dim; };
  const auto token = [&](std::int64_t stride, std::int64_t head_stride) {
    return stride == 0 ? a.heads * head(head_stride) : stride;
  };
  const std::int64_t x_width = width(a.x_head_stride), x_token = token(a.x_token_stride, a.x_head_stride);
  const std::int64_t out_width = width(a.out_head_stride), out_token = token(a.out_token_stride, a.out_head_stride);
  c.stride("x_token_stride", x_token, x_width, "the width of a token's heads", a.tokens, bytes);
  c.stride("out_token_stride", out_token, out_width, "the width of a token's heads", a.tokens, bytes);
  if (!c.ok() || a.tokens == 0 || a.heads == 0 || a.head_dim == 0) return c.result();

  c.pointer("x", a.x).pointer("weight", a.weight).pointer("out", a.out);
  const std::int64_t out_bytes = span_bytes(a.tokens, out_token, out_width, bytes);
  const bool same =
      (a.tokens == 1 || x_token == out_token) && (a.heads == 1 || head(a.x_head_stride) == head(a.out_head_stride));
  c.disjoint("out", a.out, out_bytes, "x", a.x, span_bytes(a.tokens, x_token, x_width, bytes), same);
  c.disjoint("out", a.out, out_bytes, "weight", a.weight, a.head_dim * bytes);
  return c.result();
}

// Enqueued on `stream`; defined in bi/rms_norm.cuh.
template <class T, class Contract = contract::rms_norm_draft>
status rms_norm(const rms_norm_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::rms_norm_draft>
status qk_norm(const qk_norm_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
