// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// out[r] = x[r] * rsqrt(mean(x[r]^2) + eps) * weight. With `residual`, x + residual is rounded to T, stored in
// residual_out, and that stored sum is normalised: the bytes of an add followed by rms_norm.
// Contracts (bi/contract/norm.hpp): rms_norm_draft, rms_norm_hf_draft (Hugging Face: rounded before the weight),
// rms_norm_one_plus_draft (weight is 1 + w). T is bf16, fp16 or float. No workspace.
// Allowed aliases: out == x, out == residual, residual_out == residual, residual_out == x (same pointer, same stride);
// out and residual_out must be apart.
template <class T>
struct rms_norm_args {
  const T* x = nullptr;       // [rows, cols]
  std::int64_t x_stride = 0;  // elements between rows, 0: cols
  const T* residual = nullptr;
  std::int64_t residual_stride = 0;
  T* residual_out = nullptr;  // required with residual, null without
  std::int64_t residual_out_stride = 0;
  const T* weight = nullptr;  // [cols]
  float eps = 1e-6f;          // finite, >= 0
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  T* out = nullptr;  // [rows, cols]
  std::int64_t out_stride = 0;
};

template <class T>
status check(const rms_norm_args<T>& a) {
  checker c("rms_norm");
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("rows", a.rows, 0).at_least("cols", a.cols, 0);
  c.real("eps", a.eps, is_finite(a.eps) && !less(a.eps, 0.0f), "finite and at least 0");
  c.stride("x_stride", a.x_stride, a.cols, "cols", a.rows, bytes);
  c.stride("out_stride", a.out_stride, a.cols, "cols", a.rows, bytes);
  c.stride("residual_stride", a.residual_stride, a.cols, "cols", a.rows, bytes);
  c.stride("residual_out_stride", a.residual_out_stride, a.cols, "cols", a.rows, bytes);
  if (!c.ok() || a.rows == 0 || a.cols == 0) return c.result();
  c.pointer("x", a.x).pointer("weight", a.weight).pointer("out", a.out);
  const auto span = [&](std::int64_t stride) { return span_bytes(a.rows, stride, a.cols, bytes); };
  const auto same = [&](std::int64_t s, std::int64_t t) { return (s == 0 ? a.cols : s) == (t == 0 ? a.cols : t); };
  c.disjoint("out", a.out, span(a.out_stride), "x", a.x, span(a.x_stride), same(a.out_stride, a.x_stride));
  c.disjoint("out", a.out, span(a.out_stride), "weight", a.weight, a.cols * bytes);
  if (a.residual != nullptr) {
    c.optional_pointer("residual", a.residual).pointer("residual_out", a.residual_out);
    c.disjoint("out", a.out, span(a.out_stride), "residual_out", a.residual_out, span(a.residual_out_stride));
    c.disjoint("out", a.out, span(a.out_stride), "residual", a.residual, span(a.residual_stride),
               same(a.out_stride, a.residual_stride));
    c.disjoint("residual_out", a.residual_out, span(a.residual_out_stride), "residual", a.residual,
               span(a.residual_stride), same(a.residual_out_stride, a.residual_stride));
    c.disjoint("residual_out", a.residual_out, span(a.residual_out_stride), "x", a.x, span(a.x_stride),
               same(a.residual_out_stride, a.x_stride));
    c.disjoint("residual_out", a.residual_out, span(a.residual_out_stride), "weight", a.weight, a.cols * bytes);
  } else if (a.residual_out != nullptr) {
    c.fail(error::null_pointer, "residual", 0);
  }
  return c.result();
}

// Per-head rms_norm of a [tokens, heads, head_dim] view, for example q or k inside a fused qkv projection: each head's
// vector is one row of the same contract. Allowed alias: out == x with the same strides.
template <class T>
struct qk_norm_args {
  const T* x = nullptr;             // [tokens, heads, head_dim]
  std::int64_t x_token_stride = 0;  // elements, 0: heads * x_head_stride
  std::int64_t x_head_stride = 0;   // elements, 0: head_dim
  const T* weight = nullptr;        // [head_dim]
  float eps = 1e-6f;
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  T* out = nullptr;
  std::int64_t out_token_stride = 0;
  std::int64_t out_head_stride = 0;
};

template <class T>
status check(const qk_norm_args<T>& a) {
  checker c("qk_norm");
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("tokens", a.tokens, 0).at_least("heads", a.heads, 0).at_least("head_dim", a.head_dim, 0);
  c.real("eps", a.eps, is_finite(a.eps) && !less(a.eps, 0.0f), "finite and at least 0");
  c.stride("x_head_stride", a.x_head_stride, a.head_dim, "head_dim", a.heads, bytes);
  c.stride("out_head_stride", a.out_head_stride, a.head_dim, "head_dim", a.heads, bytes);
  if (!c.ok() || a.tokens == 0 || a.heads == 0 || a.head_dim == 0) return c.result();
  const auto head = [&](std::int64_t s) { return s == 0 ? a.head_dim : s; };
  const std::int64_t x_width = (a.heads - 1) * head(a.x_head_stride) + a.head_dim;
  const std::int64_t out_width = (a.heads - 1) * head(a.out_head_stride) + a.head_dim;
  const std::int64_t x_token = a.x_token_stride == 0 ? a.heads * head(a.x_head_stride) : a.x_token_stride;
  const std::int64_t out_token = a.out_token_stride == 0 ? a.heads * head(a.out_head_stride) : a.out_token_stride;
  c.stride("x_token_stride", x_token, x_width, "the width of one token's heads", a.tokens, bytes);
  c.stride("out_token_stride", out_token, out_width, "the width of one token's heads", a.tokens, bytes);
  c.pointer("x", a.x).pointer("weight", a.weight).pointer("out", a.out);
  if (!c.ok()) return c.result();
  const bool same = x_token == out_token && head(a.x_head_stride) == head(a.out_head_stride);
  c.disjoint("out", a.out, span_bytes(a.tokens, out_token, out_width, bytes), "x", a.x,
             span_bytes(a.tokens, x_token, x_width, bytes), same);
  c.disjoint("out", a.out, span_bytes(a.tokens, out_token, out_width, bytes), "weight", a.weight, a.head_dim * bytes);
  return c.result();
}

BI_NAMESPACE_END
