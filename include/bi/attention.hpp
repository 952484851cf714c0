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

// attend(row, view): each query row sees the indices lo <= j < see of its request's view and nothing else. One form for
// decode, prefill, chunked prefill, speculative verification and merged branches. K and V come only from the cache, so
// kv_append of the new tokens runs first: cached and new tokens are one view. A row's bytes depend on its q, on the K
// and V of the tokens it sees in view order, and on the contract; not on pages, runs, chunks, the batch or the other
// rows. A tree of draft tokens needs no mask: each leaf's path is a view of its own, a list of runs that shares the
// common part.
//
// Contracts (bi/contract/attention.hpp): attention_v1<T>, the default, and attention_soft_cap_v1<T>, which needs
// soft_cap > 0. T is bf16 or fp16, also the type of the cache; head_dim is 64, 128 or 256; any number of query heads a
// KV head (query head h reads KV head h / (heads_q / heads_kv)).
//
// The softmax is the online one of Milakov and Gimelshein (2018, arXiv 1805.02867) in the tiling of FlashAttention (Dao
// et al. 2022, arXiv 2205.14135), over leaves of a fixed number of tokens as in "Defeating Nondeterminism in LLM
// Inference" (He 2025).
//
// No alignment beyond that of the elements is required; q, K and V whose heads start at multiples of 16 bytes run
// faster. Nothing is written when the returned status is not ok. If requests or rows is 0 nothing is read or written;
// pointers and strides may be anything then, the rest must be valid all the same. Errors: see check() below. What only
// the device's arrays tell (a length over max_view, a page id over num_pages) is the caller's duty on the GPU; the CPU
// reference finds it before it writes anything. On the GPU see bi/attention.cuh, on the CPU bi/reference/attention.hpp.

BI_NAMESPACE_BEGIN

enum class attention_mask : std::uint8_t {
  causal,  // the request's last q_len view tokens are its rows: row i sees see = len - q_len + i + 1 tokens
  full,    // every row sees all len tokens
};

// Upper bounds, known on the host; lengths themselves live on the device. No bit of a result depends on them.
struct BI_TYPE attention_limits {
  std::int64_t max_requests = 0;
  std::int64_t max_rows = 0;    // query tokens of all requests
  std::int64_t max_q_len = 1;   // query tokens of one request
  std::int64_t max_view = 0;    // tokens of one view
  std::int64_t heads_q = 0;     // a multiple of heads_kv
  std::int64_t heads_kv = 0;    // cache.heads
  std::int64_t head_dim = 128;  // 64, 128 or 256, cache.head_dim
  // Tokens of all views of a call together, shared ones counted again, those that no row sees left out; 0: max_requests *
  // max_view. Only the workspace's size depends on it.
  std::int64_t max_view_sum = 0;
  // Groups of `sharing`. With any, the workspace has room for a partial result of every leaf of every view, so that
  // max_view_sum saves much.
  std::int64_t max_groups = 0;
};

// Groups of requests whose views begin with the same tokens, in the same slots: system prompts, samples of one prompt,
// the branches of a tree. What every member sees of them in whole leaves is then read once for all rows of the group. It
// is a hint: no bit depends on it, and without a workspace, at head_dim 256, where heads don't start at multiples of 16
// bytes, of more than 64 packed rows a request, or on another GPU than Hopper it is ignored. Device arrays, of which a
// replay may find other contents. A group of one request, or of rows with a window that leaves out its first token, is
// none; padding may be a member of any. On the GPU it is the caller's duty that a request is in one group at most and that
// the slots are the same: of different ones the members get the bits of any one's. A member that has less than `shared`
// tokens makes the others share no more than it has; the CPU reference calls it an error.
struct BI_TYPE attention_sharing {
  const std::int32_t* start = nullptr;   // [groups + 1], not decreasing
  const std::int32_t* member = nullptr;  // requests: group g has member[start[g]] .. member[start[g + 1] - 1]
  const std::int32_t* shared = nullptr;  // [groups] leading tokens of each member's view that are the same
  std::int64_t groups = 0;
};

// A row that sees nothing (see <= lo, a request of length 0) or only scores of -Inf gets out = +0 and lse = -Inf. A NaN
// score, or one that scale takes to +Inf, makes the row's head NaN. What a row does not see cannot change it, NaN and
// Inf included; slots and page ids that no row sees are never used.
//
// Allowed alias: out == q with the same strides. Apart from this, out and lse must overlap nothing, nor each other.
template <class T>
struct BI_TYPE attention_args {
  const T* q = nullptr;             // [rows, heads_q, head_dim], normalised and rotated
  std::int64_t q_token_stride = 0;  // elements; 0: heads_q * q_head_stride
  std::int64_t q_head_stride = 0;   // elements; 0: head_dim. Either stride may be the larger one
  paged_cache<const T> cache{};
  kv_view view{};
  const std::int32_t* len = nullptr;  // [requests] tokens in each view, the new ones included; 0: padding
  const std::int32_t* q_start =
      nullptr;  // [requests + 1] first row of each request, not decreasing; null: one row each
  std::int64_t requests = 0;
  std::int64_t rows = 0;  // query tokens in all; rows at or after q_start[requests] stay untouched
  attention_mask mask = attention_mask::causal;
  std::int64_t window = 0;         // > 0: only the last `window` tokens below see, the row itself included; 0: all
  float scale = 0;                 // softmax scale, finite and > 0
  float soft_cap = 0;              // scores become soft_cap * tanh(score * scale / soft_cap); 0 without that contract
  const float* sink = nullptr;     // reserved: must be null
  const float* k_scale = nullptr;  // reserved for fp8 caches: must be null
  const float* v_scale = nullptr;
  attention_limits limits{};
  attention_sharing sharing{};
  float* lse = nullptr;               // [rows, heads_q] natural log-sum-exp of the scaled scores, optional
  std::int64_t lse_token_stride = 0;  // elements; 0: heads_q
  T* out = nullptr;                   // [rows, heads_q, head_dim]
  std::int64_t out_token_stride = 0;  // as of q
  std::int64_t out_head_stride = 0;
};

// The strides with their defaults filled in.
struct BI_TYPE attention_strides {
  std::int64_t token = 0, head = 0;
};
BI_HD inline attention_strides attention_strides_of(std::int64_t token, std::int64_t head, const attention_limits& l) {
  if (head == 0) head = l.head_dim;
  return {token == 0 ? l.heads_q * head : token, head};
}
template <class T>
BI_HD attention_strides q_strides(const attention_args<T>& a) {
  return attention_strides_of(a.q_token_stride, a.q_head_stride, a.limits);
}
template <class T>
BI_HD attention_strides out_strides(const attention_args<T>& a) {
  return attention_strides_of(a.out_token_stride, a.out_head_stride, a.limits);
}

namespace attention_detail {

inline void check_limits(checker& c, const attention_limits& l) {
  constexpr std::int64_t large = (std::int64_t{1} << 31) - 1;  // lengths and row numbers are int32 on the device
  c.supported("limits.head_dim", l.head_dim, l.head_dim == 64 || l.head_dim == 128 || l.head_dim == 256,
              "64, 128, 256");
  c.at_least("limits.heads_kv", l.heads_kv, 1).at_least("limits.heads_q", l.heads_q, 1);
  c.at_most("limits.heads_q", l.heads_q, large).multiple_of("limits.heads_q", l.heads_q, l.heads_kv, "heads_kv");
  c.at_least("limits.max_requests", l.max_requests, 0).at_most("limits.max_requests", l.max_requests, large);
  c.at_least("limits.max_rows", l.max_rows, 0).at_most("limits.max_rows", l.max_rows, large);
  c.at_least("limits.max_q_len", l.max_q_len, 1).at_most("limits.max_q_len", l.max_q_len, large);
  c.at_least("limits.max_view", l.max_view, 0).at_most("limits.max_view", l.max_view, large);
  c.at_least("limits.max_view_sum", l.max_view_sum, 0);
  c.at_least("limits.max_groups", l.max_groups, 0).at_most("limits.max_groups", l.max_groups, large);
}

// [rows, heads, head_dim], no two elements at one place: all of a token's heads lie below the next token, or all of a
// head's tokens below the next head. Returns the bytes from first to last.
inline std::int64_t check_strides(checker& c, const char* token_name, const char* head_name, std::int64_t token,
                                  std::int64_t head, std::int64_t rows, const attention_limits& l, std::int64_t bytes) {
  c.stride(head_name, head, l.head_dim, "head_dim", l.heads_q, bytes);
  if (!c.ok()) return 0;  // the default of the token stride may overflow
  const attention_strides s = attention_strides_of(token, head, l);
  c.stride(token_name, s.token, l.head_dim, "head_dim", rows, bytes);
  if (!c.ok()) return 0;
  const std::int64_t heads_width = (l.heads_q - 1) * s.head + l.head_dim;
  const std::int64_t rows_width = (rows - 1) * s.token + l.head_dim;
  if (rows > 1 && l.heads_q > 1 && s.head < rows_width) {
    c.at_least(token_name, s.token, heads_width, "the width of one token's heads");
  }
  return span_bytes(rows, s.token, heads_width, bytes);
}

}  // namespace attention_detail

// What every entry point asks first. Looks at the arguments, never at what they point to.
template <class T, class Contract>
status check(const attention_args<T>& a, Contract) {
  checker c("attention");
  const attention_limits& l = a.limits;
  constexpr std::int64_t bytes = sizeof(T);
  attention_detail::check_limits(c, l);
  c.at_least("requests", a.requests, 0).at_most("requests", a.requests, l.max_requests, "limits.max_requests");
  c.at_least("rows", a.rows, 0).at_most("rows", a.rows, l.max_rows, "limits.max_rows");
  if (a.q_start == nullptr) {
    c.at_least("rows", a.rows, a.requests, "requests").at_most("rows", a.rows, a.requests, "requests");
  }
  c.at_least("sharing.groups", a.sharing.groups, 0);
  c.at_most("sharing.groups", a.sharing.groups, l.max_groups, "limits.max_groups");
  c.supported("mask", static_cast<int>(a.mask), a.mask <= attention_mask::full, "causal, full");
  c.at_least("window", a.window, 0);
  c.real("scale", a.scale, is_finite(a.scale) && greater(a.scale, 0.0f), "finite and greater than 0");
  if (Contract::has_soft_cap) {
    c.real("soft_cap", a.soft_cap, is_finite(a.soft_cap) && greater(a.soft_cap, 0.0f),
           "finite and greater than 0 with this contract");
  } else {
    c.real("soft_cap", a.soft_cap, equal(a.soft_cap, 0.0f), "0 with this contract; attention_soft_cap_v1 takes one");
  }
  if (c.ok()) {
    c.real("scale", a.scale, Contract::is_valid(Contract::prepare(a.scale, a.soft_cap)),
           Contract::has_soft_cap ? "such that scale / soft_cap is finite and greater than 0"
                                  : "such that scale * log2(e) / 128 is finite and greater than 0");
  }
  c.supported("sink", a.sink != nullptr, a.sink == nullptr, "null (attention sinks are reserved)");
  c.supported("k_scale", a.k_scale != nullptr, a.k_scale == nullptr, "null (fp8 caches are reserved)");
  c.supported("v_scale", a.v_scale != nullptr, a.v_scale == nullptr, "null (fp8 caches are reserved)");
  if (!c.ok() || a.rows == 0 || a.requests == 0) return c.result();

  using attention_detail::check_strides;
  const std::int64_t q_bytes =
      check_strides(c, "q_token_stride", "q_head_stride", a.q_token_stride, a.q_head_stride, a.rows, l, bytes);
  const std::int64_t out_bytes =
      check_strides(c, "out_token_stride", "out_head_stride", a.out_token_stride, a.out_head_stride, a.rows, l, bytes);
  c.stride("lse_token_stride", a.lse_token_stride, l.heads_q, "heads_q", a.rows, sizeof(float));
  c.pointer("q", a.q).pointer("out", a.out).pointer("len", a.len);
  c.optional_pointer("q_start", a.q_start).optional_pointer("lse", a.lse);
  if (a.sharing.groups > 0) {
    c.pointer("sharing.start", a.sharing.start).pointer("sharing.member", a.sharing.member);
    c.pointer("sharing.shared", a.sharing.shared);
  }
  check_cache(c, a.cache);
  c.at_least("cache.heads", a.cache.heads, l.heads_kv, "limits.heads_kv");
  c.at_most("cache.heads", a.cache.heads, l.heads_kv, "limits.heads_kv");
  c.at_least("cache.head_dim", a.cache.head_dim, l.head_dim, "limits.head_dim");
  c.at_most("cache.head_dim", a.cache.head_dim, l.head_dim, "limits.head_dim");
  check_view(c, a.view, a.requests);
  if (!c.ok()) return c.result();

  const attention_strides sq = q_strides(a), so = out_strides(a);
  const std::int64_t k_bytes = cache_bytes(a.cache, k_strides(a.cache));
  const std::int64_t v_bytes = cache_bytes(a.cache, v_strides(a.cache));
  const std::int64_t lse_bytes = span_bytes(a.rows, a.lse_token_stride, l.heads_q, sizeof(float));
  constexpr std::int64_t entry = sizeof(std::int32_t);
  const std::int64_t len_bytes = a.requests * entry;
  c.disjoint("out", a.out, out_bytes, "q", a.q, q_bytes, sq.token == so.token && sq.head == so.head);
  c.disjoint("lse", a.lse, lse_bytes, "out", a.out, out_bytes).disjoint("lse", a.lse, lse_bytes, "q", a.q, q_bytes);
  const auto apart = [&](const char* name, const void* p, std::int64_t size) {
    c.disjoint("out", a.out, out_bytes, name, p, size).disjoint("lse", a.lse, lse_bytes, name, p, size);
  };
  apart("cache.k", a.cache.k, k_bytes);
  apart("cache.v", a.cache.v, v_bytes);
  apart("len", a.len, len_bytes);
  apart("q_start", a.q_start, len_bytes + entry);
  if (a.sharing.groups > 0) {
    apart("sharing.start", a.sharing.start, (a.sharing.groups + 1) * entry);
    apart("sharing.member", a.sharing.member, entry);  // how many there are only the device knows
    apart("sharing.shared", a.sharing.shared, a.sharing.groups * entry);
  }
  return c.result();
}

template <class T>
status check(const attention_args<T>& a) {
  return check(a, contract::attention_v1<T>{});
}

// The launcher, defined in bi/attention.cuh and instantiated in one .cu of the user's. limits.head_dim must be HeadDim.
// launch() neither allocates nor waits, reads device arrays on the device only, and may be captured: a replay with
// other contents of `len`, `q_start`, `view` and `sharing` is right as long as they keep within the limits.
template <class T, int HeadDim, class Contract = contract::attention_v1<T>>
struct BI_TYPE attention {
  static_assert(HeadDim == 64 || HeadDim == 128 || HeadDim == 256, "head_dim is 64, 128 or 256");
  // Not decreasing in max_requests, max_rows, max_q_len, max_view, max_view_sum and max_groups. The workspace is aligned to
  // 256 bytes.
  static std::size_t workspace_bytes(const attention_limits& limits);
  // The workspace is optional, ws = {}: the bytes are the same without, but decode over long views is slow. One that is
  // given must have the bytes for a.limits. It lets the leaves of a view be spread over the GPU.
  static status launch(const attention_args<T>& a, workspace ws, cuda_stream stream);
};

BI_NAMESPACE_END
