// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/rope.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

// Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of the heads of q and k.
//
// Contract: contract::rope_draft (bi/contract/rope.hpp). T is bf16, fp16 or float. No workspace, no alignment beyond that of
// the elements. Nothing is written when the returned status is not ok. If a size is 0 nothing is read or written and
// pointers may be null; sizes and strides must be valid all the same. On the GPU see bi/rope.cuh, on the CPU
// bi/reference/rope.hpp.

BI_NAMESPACE_BEGIN

// cos and sin per position, fp32, made by bi::make_rope_table (bi/contract/trig.hpp) or by the caller. libm's sin and
// cos differ between systems, so tables are data: same table, same bits.
struct BI_TYPE rope_table {
  const float* cos = nullptr;   // [positions, rotary_dim / 2], contiguous
  const float* sin = nullptr;   // as cos
  std::int64_t positions = 0;   // rows of the table
  std::int64_t rotary_dim = 0;  // even, at most head_dim; elements past it are copied bit by bit
  rope_style style = rope_style::half;
};

// Rotates each head of x by its token's position. position[t] < 0 marks padding: token t is neither read nor written. A
// position of table.positions or more is the caller's mistake: the reference refuses the call, kernels take it for
// padding. Allowed alias: out == x with the same strides; apart from that out must overlap nothing.
template <class T>
struct BI_TYPE rope_args {
  const T* x = nullptr;                    // [tokens, heads, head_dim]
  std::int64_t x_token_stride = 0;         // elements, not less than a token's heads take; 0: heads * x_head_stride
  std::int64_t x_head_stride = 0;          // elements, at least head_dim; 0: head_dim
  const std::int32_t* position = nullptr;  // [tokens]
  rope_table table{};
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  T* out = nullptr;                   // [tokens, heads, head_dim]
  std::int64_t out_token_stride = 0;  // as x_token_stride
  std::int64_t out_head_stride = 0;   // as x_head_stride
};

// Of every operation that takes a table.
inline checker& check_rope_table(checker& c, const rope_table& t, std::int64_t head_dim) {
  constexpr std::int64_t bytes = sizeof(float);
  c.at_least("table.rotary_dim", t.rotary_dim, 0).at_most("table.rotary_dim", t.rotary_dim, head_dim, "head_dim");
  c.multiple_of("table.rotary_dim", t.rotary_dim, 2).at_least("table.positions", t.positions, 1);
  c.at_most("table.positions", t.positions, std::int64_t{1} << 31);
  c.supported("table.style", static_cast<int>(t.style), t.style <= rope_style::interleaved, "half, interleaved");
  if (c.ok()) c.stride("table.rotary_dim", t.rotary_dim / 2, 0, nullptr, t.positions, bytes);
  if (t.rotary_dim > 0) c.pointer("table.cos", t.cos).pointer("table.sin", t.sin);
  return c;
}

// What every entry point asks first. Looks at the arguments, never at what they point to.
template <class T>
status check(const rope_args<T>& a) {
  checker c("rope");
  constexpr std::int64_t bytes = sizeof(T), position_bytes = sizeof(std::int32_t);
  c.at_least("tokens", a.tokens, 0).at_least("heads", a.heads, 0).at_least("head_dim", a.head_dim, 0);
  c.stride("x_head_stride", a.x_head_stride, a.head_dim, "head_dim", a.heads, bytes);
  c.stride("out_head_stride", a.out_head_stride, a.head_dim, "head_dim", a.heads, bytes);
  c.stride("tokens", a.tokens, 0, nullptr, 1, position_bytes);
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

  c.pointer("x", a.x).pointer("position", a.position).pointer("out", a.out);
  check_rope_table(c, a.table, a.head_dim);
  if (!c.ok()) return c.result();
  const std::int64_t out_bytes = span_bytes(a.tokens, out_token, out_width, bytes);
  const std::int64_t table_bytes = a.table.positions * (a.table.rotary_dim / 2) * static_cast<int>(sizeof(float));
  const bool same =
      (a.tokens == 1 || x_token == out_token) && (a.heads == 1 || head(a.x_head_stride) == head(a.out_head_stride));
  c.disjoint("out", a.out, out_bytes, "x", a.x, span_bytes(a.tokens, x_token, x_width, bytes), same);
  c.disjoint("out", a.out, out_bytes, "position", a.position, a.tokens * position_bytes);
  c.disjoint("out", a.out, out_bytes, "table.cos", a.table.cos, table_bytes);
  c.disjoint("out", a.out, out_bytes, "table.sin", a.table.sin, table_bytes);
  return c.result();
}

// Enqueued on `stream`; defined in bi/rope.cuh.
template <class T, class Contract = contract::rope_draft>
status rope(const rope_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
