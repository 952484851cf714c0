// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/attention.hpp"
#include "bi/dtype.hpp"
#include "bi/kv_cache.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// attend(row, view): each query row sees view indices [lo, see) of its request's view and nothing else. One form for
// decode, prefill, chunked prefill, speculative verification and merged branches; attention reads K and V only from
// the cache, so kv_append of the new tokens comes first.
// Contract: contract::attention_draft<T> (bi/contract/attention.hpp); with soft_cap contract::attention_soft_cap_draft.

enum class attention_mask : std::uint8_t {
  causal,  // the request's last q_len view tokens are its rows: row i sees len - q_len + i + 1 tokens
  full,    // every row sees all len tokens
};

// Upper bounds, known on the host; lengths themselves live on the device.
struct attention_limits {
  std::int64_t max_requests = 0;
  std::int64_t max_rows = 0;   // query tokens of all requests
  std::int64_t max_q_len = 1;  // query tokens of one request
  std::int64_t max_view = 0;   // tokens of one view
  std::int64_t heads_q = 0;    // a multiple of the cache's heads
  std::int64_t heads_kv = 0;
  std::int64_t head_dim = 128;  // 64, 128 or 256
};

template <class T>
struct attention_args {
  const T* q = nullptr;             // [rows, heads_q, head_dim], normalised and rotated
  std::int64_t q_token_stride = 0;  // elements, 0: heads_q * q_head_stride
  std::int64_t q_head_stride = 0;   // 0: head_dim
  paged_cache<const T> cache;
  kv_view view;
  const std::int32_t* len = nullptr;      // [requests] tokens in each view, the new ones included; 0: padding
  const std::int32_t* q_start = nullptr;  // [requests + 1] first row of each request; null: one row a request
  std::int64_t requests = 0;
  std::int64_t rows = 0;                  // query tokens in all; rows >= q_start[requests] stay untouched
  attention_mask mask = attention_mask::causal;
  std::int64_t window = 0;  // > 0: a row sees its last `window` tokens, itself included; 0: all
  float scale = 0;          // softmax scale, finite and > 0
  float soft_cap = 0;       // > 0: scores become cap * tanh(score * scale / cap); 0: off
  const float* sink = nullptr;     // reserved: not supported
  const float* k_scale = nullptr;  // reserved for fp8 caches: not supported
  const float* v_scale = nullptr;
  attention_limits limits;
  float* lse = nullptr;               // [rows, heads_q] natural log-sum-exp of the scaled scores, optional
  std::int64_t lse_token_stride = 0;  // 0: heads_q
  T* out = nullptr;                   // [rows, heads_q, head_dim]; a row that sees nothing gets +0, lse -Inf
  std::int64_t out_token_stride = 0;  // 0: heads_q * out_head_stride
  std::int64_t out_head_stride = 0;   // 0: head_dim
};

template <class T>
status check(const attention_args<T>& a) {
  checker c("attention");
  const attention_limits& l = a.limits;
  constexpr std::int64_t bytes = sizeof(T), large = std::int64_t{1} << 31;
  c.at_least("requests", a.requests, 0).at_least("rows", a.rows, 0);
  c.at_most("requests", a.requests, l.max_requests, "limits.max_requests");
  c.at_most("rows", a.rows, l.max_rows, "limits.max_rows");
  c.supported("limits.head_dim", l.head_dim, l.head_dim == 64 || l.head_dim == 128 || l.head_dim == 256,
              "64, 128, 256");
  c.at_least("limits.heads_kv", l.heads_kv, 1).at_least("limits.heads_q", l.heads_q, 1);
  c.at_most("limits.heads_q", l.heads_q, large);
  c.multiple_of("limits.heads_q", l.heads_q, l.heads_kv, "heads_kv");
  c.at_least("limits.max_q_len", l.max_q_len, 1).at_least("limits.max_view", l.max_view, 0);
  c.at_most("limits.max_view", l.max_view, large - 1);
  c.at_least("window", a.window, 0);
  c.supported("mask", static_cast<int>(a.mask), a.mask <= attention_mask::full, "causal, full");
  if (a.q_start == nullptr && c.ok() && a.rows != a.requests) {
    c.fail(a.rows < a.requests ? error::too_small : error::too_large, "rows", a.rows, "requests", a.requests);
  }
  c.real("scale", a.scale, is_finite(a.scale) && greater(a.scale, 0.0f), "finite and greater than 0");
  c.real("soft_cap", a.soft_cap, is_finite(a.soft_cap) && !less(a.soft_cap, 0.0f), "finite and at least 0");
  c.supported("sink", a.sink != nullptr, a.sink == nullptr, "null (attention sinks are reserved)");
  c.supported("k_scale", a.k_scale != nullptr, a.k_scale == nullptr, "null (fp8 caches are reserved)");
  c.supported("v_scale", a.v_scale != nullptr, a.v_scale == nullptr, "null (fp8 caches are reserved)");
  if (!c.ok() || a.rows == 0 || a.requests == 0) return c.result();

  const std::int64_t dim = l.head_dim;
  const auto head = [&](std::int64_t s) { return s == 0 ? dim : s; };
  c.stride("q_head_stride", head(a.q_head_stride), dim, "head_dim", l.heads_q, bytes);
  c.stride("out_head_stride", head(a.out_head_stride), dim, "head_dim", l.heads_q, bytes);
  if (!c.ok()) return c.result();
  const std::int64_t q_width = (l.heads_q - 1) * head(a.q_head_stride) + dim;
  const std::int64_t out_width = (l.heads_q - 1) * head(a.out_head_stride) + dim;
  const std::int64_t q_token = a.q_token_stride == 0 ? l.heads_q * head(a.q_head_stride) : a.q_token_stride;
  const std::int64_t out_token = a.out_token_stride == 0 ? l.heads_q * head(a.out_head_stride) : a.out_token_stride;
  const char* width_name = "the width of one token's heads";
  c.stride("q_token_stride", q_token, q_width, width_name, a.rows, bytes);
  c.stride("out_token_stride", out_token, out_width, width_name, a.rows, bytes);
  c.stride("lse_token_stride", a.lse_token_stride, l.heads_q, "heads_q", a.rows, sizeof(float));
  c.pointer("q", a.q).pointer("out", a.out).pointer("len", a.len);
  c.optional_pointer("q_start", a.q_start).optional_pointer("lse", a.lse);
  check_cache(c, a.cache);
  if (c.ok() && a.cache.heads != l.heads_kv) {
    c.fail(a.cache.heads < l.heads_kv ? error::too_small : error::too_large, "cache.heads", a.cache.heads,
           "limits.heads_kv", l.heads_kv);
  }
  if (c.ok() && a.cache.head_dim != dim) {
    c.fail(a.cache.head_dim < dim ? error::too_small : error::too_large, "cache.head_dim", a.cache.head_dim,
           "limits.head_dim", dim);
  }
  switch (a.view.kind) {
    case view_kind::page_table:
      c.pointer("view.pages", a.view.table.pages).at_least("view.row_stride", a.view.table.row_stride, 0);
      break;
    case view_kind::page_csr:
      c.pointer("view.pages", a.view.csr.pages).pointer("view.start", a.view.csr.start);
      break;
    case view_kind::run_list:
      c.pointer("view.runs", a.view.runs.runs).pointer("view.start", a.view.runs.start);
      break;
    default:
      c.supported("view", static_cast<int>(a.view.kind), false, "page_table, page_csr, run_list");
  }
  if (!c.ok()) return c.result();
  const std::int64_t out_bytes = span_bytes(a.rows, out_token, out_width, bytes);
  c.disjoint("out", a.out, out_bytes, "q", a.q, span_bytes(a.rows, q_token, q_width, bytes),
             q_token == out_token && head(a.q_head_stride) == head(a.out_head_stride));
  c.disjoint("lse", a.lse, span_bytes(a.rows, a.lse_token_stride, l.heads_q, sizeof(float)), "out", a.out, out_bytes);
  return c.result();
}

BI_NAMESPACE_END
