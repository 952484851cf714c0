// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/norm.hpp"
#include "bi/dtype.hpp"
#include "bi/rope.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// K and V of one layer in pages. Slot s is token s % page_size of page s / page_size; element d of head h lies at
// k + page * k_page_stride + token * k_token_stride + h * k_head_stride + d. NHD and HND layouts differ in strides
// only. V's strides default to K's.
template <class T>
struct BI_TYPE paged_cache {
  T* k = nullptr;
  T* v = nullptr;
  std::int64_t num_pages = 0;
  std::int64_t page_size = 16;  // tokens, any size >= 1
  std::int64_t heads = 0;       // KV heads
  std::int64_t head_dim = 0;
  std::int64_t k_page_stride = 0;   // elements, 0: page_size * token stride
  std::int64_t k_token_stride = 0;  // 0: heads * k_head_stride
  std::int64_t k_head_stride = 0;   // 0: head_dim
  std::int64_t v_page_stride = 0;   // 0: K's
  std::int64_t v_token_stride = 0;
  std::int64_t v_head_stride = 0;
};

// The strides with their defaults filled in.
struct BI_TYPE cache_strides {
  std::int64_t page = 0, token = 0, head = 0;
};
template <class T>
BI_HD cache_strides k_strides(const paged_cache<T>& c) {
  cache_strides s;
  s.head = c.k_head_stride != 0 ? c.k_head_stride : c.head_dim;
  s.token = c.k_token_stride != 0 ? c.k_token_stride : c.heads * s.head;
  s.page = c.k_page_stride != 0 ? c.k_page_stride : c.page_size * s.token;
  return s;
}
template <class T>
BI_HD cache_strides v_strides(const paged_cache<T>& c) {
  const cache_strides k = k_strides(c);
  cache_strides s;
  s.head = c.v_head_stride != 0 ? c.v_head_stride : k.head;
  s.token = c.v_token_stride != 0 ? c.v_token_stride : k.token;
  s.page = c.v_page_stride != 0 ? c.v_page_stride : k.page;
  return s;
}

// From the first to one past the last byte of K or V, of strides that check_cache accepts.
template <class T>
std::int64_t cache_bytes(const paged_cache<T>& c, const cache_strides& s) {
  if (c.num_pages <= 0) return 0;
  constexpr auto bytes = static_cast<std::int64_t>(sizeof(T));
  const std::int64_t page = (c.num_pages - 1) * s.page * bytes, token = (c.page_size - 1) * s.token * bytes;
  std::int64_t sum = page + ((c.heads - 1) * s.head + c.head_dim) * bytes;
  return __builtin_add_overflow(sum, token, &sum) ? std::int64_t{0x7fffffffffffffff} : sum;
}

// A view is the ordered list of KV tokens that a request's rows see; view index j counts in that list, whatever the
// storage. Three ways to write one view a request; pages and runs may be shared by any number of views. All arrays are
// read on the device. Only the entries that some row sees matter: the rest may hold anything.
struct BI_TYPE page_table {
  const std::int32_t* pages = nullptr;  // page of view index j: pages[request * row_stride + j / page_size]
  std::int64_t row_stride = 0;          // entries a request, at least ceil(len / page_size)
};
struct BI_TYPE page_csr {
  const std::int32_t* pages = nullptr;  // page of view index j: pages[start[request] + j / page_size]
  const std::int32_t* start = nullptr;  // [requests + 1], not decreasing
};
// A run may begin and end inside a page, and cross page boundaries.
struct BI_TYPE kv_run {
  std::int32_t slot = 0;    // first slot
  std::int32_t length = 0;  // consecutive slots, >= 0
};
struct BI_TYPE run_list {
  const kv_run* runs = nullptr;         // the runs of a request, in order: runs[start[request] .. start[request + 1])
  const std::int32_t* start = nullptr;  // [requests + 1], not decreasing; a request's lengths add up to at least len
};

enum class view_kind : std::uint8_t { none, page_table, page_csr, run_list };

struct BI_TYPE kv_view {
  view_kind kind = view_kind::none;
  page_table table;
  page_csr csr;
  run_list runs;

  kv_view() = default;
  kv_view(const page_table& t) : kind(view_kind::page_table), table(t) {}  // NOLINT: implicit on purpose
  kv_view(const page_csr& c) : kind(view_kind::page_csr), csr(c) {}        // NOLINT
  kv_view(const run_list& r) : kind(view_kind::run_list), runs(r) {}       // NOLINT
};

// Writes the K and V of new tokens into their slots, once, before attention reads them. With norm_weight K is
// normalised per head, with a table it is rotated: the bytes of qk_norm, rope and a plain append run one after another.
// V, and K without either, are copied bit by bit. Contracts: a norm of bi/contract/norm.hpp, contract::rope_draft,
// contract::digest_words_draft. T is bf16, fp16 or float. No workspace.
//
// With q, the tokens' queries go the same way to q_out: qk_norm with q_norm_weight, then rope. Allowed alias: q_out ==
// q with the same strides, also where q, k and v are parts of one array of rows, as a fused projection leaves them.
//
// With digest, digest[t] is what token t adds to the digest of a run of KV tokens (bi/contract/digest.hpp) in which it
// is token run_index[t], modulo 2^64. So a run's digest grows with the run: digest_kv of n tokens is
// digest_length_term(n * kv_token_bytes(heads, head_dim, sizeof(T))) plus the sum of theirs.
//
// slot[t] < 0 marks padding: nothing of token t is written, but for digest[t] = 0. Where it is not, slot[t] must lie in
// the cache, be no other token's, position[t] must lie in the table and run_index[t] be at least 0: the reference
// refuses other calls; kernels take a slot or position that is out of range for padding, and of tokens that share a
// slot any may win. Outputs must overlap nothing else, nor each other. No alignment beyond that of the elements is
// required; heads that start at multiples of 16 bytes, of whole 16 elements up to 512, run faster if the table does, too.
template <class T>
struct BI_TYPE kv_append_args {
  paged_cache<T> cache{};
  const T* k = nullptr;             // [tokens, heads, head_dim]
  std::int64_t k_token_stride = 0;  // elements, 0: heads * k_head_stride
  std::int64_t k_head_stride = 0;   // 0: head_dim
  const T* v = nullptr;
  std::int64_t v_token_stride = 0;     // 0: K's
  std::int64_t v_head_stride = 0;      // 0: K's
  const std::int64_t* slot = nullptr;  // [tokens]
  std::int64_t tokens = 0;
  const T* norm_weight = nullptr;          // [head_dim], null: no norm
  float norm_eps = 1e-6f;                  // finite, >= 0; of q's norm too
  const std::int32_t* position = nullptr;  // [tokens], required with a table
  rope_table table{};                      // cos == nullptr: no rotation
  const T* q = nullptr;                    // [tokens, heads_q, head_dim], null: K and V only
  std::int64_t heads_q = 0;                // at least 1 with q
  std::int64_t q_token_stride = 0;         // elements, 0: heads_q * q_head_stride
  std::int64_t q_head_stride = 0;          // 0: head_dim
  const T* q_norm_weight = nullptr;        // [head_dim], null: no norm
  T* q_out = nullptr;                      // [tokens, heads_q, head_dim], required with q
  std::int64_t q_out_token_stride = 0;     // as of q
  std::int64_t q_out_head_stride = 0;
  std::uint64_t* digest = nullptr;          // [tokens], null: none
  const std::int32_t* run_index = nullptr;  // [tokens], null: 0
};

template <class T>
checker& check_cache(checker& c, const paged_cache<T>& p) {
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("cache.num_pages", p.num_pages, 0).at_least("cache.page_size", p.page_size, 1);
  c.at_least("cache.heads", p.heads, 1);
  c.at_least("cache.head_dim", p.head_dim, 1);
  constexpr std::int64_t large = std::int64_t{1} << 31;
  c.at_most("cache.num_pages", p.num_pages, large).at_most("cache.page_size", p.page_size, large);
  c.at_most("cache.heads", p.heads, large).at_most("cache.head_dim", p.head_dim, large);
  if (!c.ok()) return c;
  // Each default is a product with a stride that has been found small enough.
  const auto or_else = [](std::int64_t stride, std::int64_t packed) { return stride != 0 ? stride : packed; };
  const std::int64_t k_head = or_else(p.k_head_stride, p.head_dim), v_head = or_else(p.v_head_stride, k_head);
  c.stride("cache.k_head_stride", k_head, p.head_dim, "head_dim", p.heads, bytes);
  c.stride("cache.v_head_stride", v_head, p.head_dim, "head_dim", p.heads, bytes);
  if (!c.ok()) return c;
  const std::int64_t k_token = or_else(p.k_token_stride, p.heads * k_head);
  const std::int64_t v_token = or_else(p.v_token_stride, k_token);
  c.stride("cache.k_token_stride", k_token, p.head_dim, "head_dim", p.page_size, bytes);
  c.stride("cache.v_token_stride", v_token, p.head_dim, "head_dim", p.page_size, bytes);
  if (!c.ok()) return c;
  const std::int64_t k_page = or_else(p.k_page_stride, p.page_size * k_token);
  const std::int64_t v_page = or_else(p.v_page_stride, k_page);
  c.stride("cache.k_page_stride", k_page, p.head_dim, "head_dim", p.num_pages, bytes);
  c.stride("cache.v_page_stride", v_page, p.head_dim, "head_dim", p.num_pages, bytes);
  c.pointer("cache.k", p.k).pointer("cache.v", p.v);
  return c;
}

inline checker& check_view(checker& c, const kv_view& v, std::int64_t requests) {
  switch (v.kind) {
    case view_kind::page_table:
      c.pointer("view.pages", v.table.pages).at_least("view.row_stride", v.table.row_stride, 0);
      return c.stride("view.row_stride", v.table.row_stride, 0, nullptr, requests, sizeof(std::int32_t));
    case view_kind::page_csr:
      return c.pointer("view.pages", v.csr.pages).pointer("view.start", v.csr.start);
    case view_kind::run_list:
      return c.pointer("view.runs", v.runs.runs).pointer("view.start", v.runs.start);
    default:
      return c.supported("view", static_cast<int>(v.kind), false, "page_table, page_csr, run_list");
  }
}

// The strides of k, v, q and q_out with their defaults filled in; page is not used.
BI_HD inline cache_strides source_strides(std::int64_t token, std::int64_t head, std::int64_t heads,
                                          std::int64_t head_dim) {
  cache_strides s;
  s.head = head != 0 ? head : head_dim;
  s.token = token != 0 ? token : heads * s.head;
  return s;
}
template <class T>
BI_HD cache_strides k_source_strides(const kv_append_args<T>& a) {
  return source_strides(a.k_token_stride, a.k_head_stride, a.cache.heads, a.cache.head_dim);
}
template <class T>
BI_HD cache_strides v_source_strides(const kv_append_args<T>& a) {
  cache_strides s = k_source_strides(a);
  if (a.v_head_stride != 0) s.head = a.v_head_stride;
  if (a.v_token_stride != 0) s.token = a.v_token_stride;
  return s;
}
template <class T>
BI_HD cache_strides q_source_strides(const kv_append_args<T>& a) {
  return source_strides(a.q_token_stride, a.q_head_stride, a.heads_q, a.cache.head_dim);
}
template <class T>
BI_HD cache_strides q_out_strides(const kv_append_args<T>& a) {
  return source_strides(a.q_out_token_stride, a.q_out_head_stride, a.heads_q, a.cache.head_dim);
}

namespace kv_append_detail {

// `count` rows of bytes, `stride` bytes apart.
struct byte_rows {
  const char* name;
  const void* data;
  std::int64_t count, stride, width;

  std::int64_t bytes() const { return count > 0 ? (count - 1) * stride + width : 0; }
};

// [tokens, heads, head_dim]: the argument's strides must keep heads and tokens apart.
template <class T>
byte_rows token_rows(checker& c, const char* name, const char* token_name, const T* p, const cache_strides& s,
                     std::int64_t tokens, std::int64_t heads, std::int64_t head_dim) {
  constexpr std::int64_t bytes = sizeof(T);
  const std::int64_t width = (heads - 1) * s.head + head_dim;
  c.stride(token_name, s.token, width, "the width of a token's heads", tokens, bytes);
  c.pointer(name, p);
  if (!c.ok()) return {name, p, 0, 0, 0};
  return {name, p, tokens, s.token * bytes, width * bytes};
}

// Rows of one stride may take turns: parts of the rows of one array.
inline void check_apart(checker& c, const byte_rows& a, const byte_rows& b) {
  if (a.stride == b.stride && a.stride > 0 && a.data != nullptr && b.data != nullptr) {
    const auto x = reinterpret_cast<std::uintptr_t>(a.data), y = reinterpret_cast<std::uintptr_t>(b.data);
    const auto stride = static_cast<std::uintptr_t>(a.stride);
    const std::uintptr_t after = y >= x ? (y - x) % stride : (stride - (x - y) % stride) % stride;
    const auto a_width = static_cast<std::uintptr_t>(a.width), b_width = static_cast<std::uintptr_t>(b.width);
    if (a_width <= after && after + b_width <= stride) return;
  }
  c.disjoint(a.name, a.data, a.bytes(), b.name, b.data, b.bytes());
}

}  // namespace kv_append_detail

template <class T>
status check(const kv_append_args<T>& a) {
  using kv_append_detail::byte_rows;
  checker c("kv_append");
  constexpr std::int64_t bytes = sizeof(T);
  c.at_least("tokens", a.tokens, 0);
  if (!c.ok() || a.tokens == 0) return c.result();
  check_cache(c, a.cache);
  const std::int64_t heads = a.cache.heads, dim = a.cache.head_dim, heads_q = a.q != nullptr ? a.heads_q : 0;
  c.stride("k_head_stride", a.k_head_stride, dim, "head_dim", heads, bytes);
  c.stride("v_head_stride", a.v_head_stride, dim, "head_dim", heads, bytes);
  if (a.q != nullptr) {
    c.at_least("heads_q", a.heads_q, 1).at_most("heads_q", a.heads_q, std::int64_t{1} << 31);
    c.stride("q_head_stride", a.q_head_stride, dim, "head_dim", heads_q, bytes);
    c.stride("q_out_head_stride", a.q_out_head_stride, dim, "head_dim", heads_q, bytes);
  }
  c.stride("tokens", a.tokens, 0, nullptr, 1, sizeof(std::int64_t));
  if (!c.ok()) return c.result();
  const auto rows_of = [&](const char* name, const char* token_name, const T* p, const cache_strides& s,
                           std::int64_t count) {
    return kv_append_detail::token_rows(c, name, token_name, p, s, a.tokens, count, dim);
  };
  const byte_rows k = rows_of("k", "k_token_stride", a.k, k_source_strides(a), heads);
  const byte_rows v = rows_of("v", "v_token_stride", a.v, v_source_strides(a), heads);
  byte_rows q = {"q", nullptr, 0, 0, 0}, q_out = {"q_out", nullptr, 0, 0, 0};
  if (a.q != nullptr) {
    q = rows_of("q", "q_token_stride", a.q, q_source_strides(a), heads_q);
    q_out = rows_of("q_out", "q_out_token_stride", a.q_out, q_out_strides(a), heads_q);
    c.optional_pointer("q_norm_weight", a.q_norm_weight);
  } else {
    c.supported("q_out", a.q_out != nullptr, a.q_out == nullptr, "null without q");
  }
  c.pointer("slot", a.slot).optional_pointer("norm_weight", a.norm_weight);
  c.real("norm_eps", a.norm_eps, is_finite(a.norm_eps) && !less(a.norm_eps, 0.0f), "finite and at least 0");
  if (a.table.cos != nullptr || a.table.sin != nullptr) {
    check_rope_table(c, a.table, dim);
    c.pointer("position", a.position);
  }
  c.optional_pointer("digest", a.digest).optional_pointer("run_index", a.run_index);
  if (!c.ok()) return c.result();
  const byte_rows cache_k = {"cache.k", a.cache.k, 1, 0, cache_bytes(a.cache, k_strides(a.cache))};
  const byte_rows cache_v = {"cache.v", a.cache.v, 1, 0, cache_bytes(a.cache, v_strides(a.cache))};
  const byte_rows digest = {"digest", a.digest, 1, 0, a.tokens * 8};
  for (const byte_rows& cache : {cache_k, cache_v}) {
    for (const byte_rows& other : {k, v, q, q_out, digest}) kv_append_detail::check_apart(c, cache, other);
  }
  const bool in_place = a.q_out == a.q && q.width == q_out.width && (a.tokens == 1 || q.stride == q_out.stride);
  if (!in_place) kv_append_detail::check_apart(c, q_out, q);
  for (const byte_rows& other : {k, v, digest}) kv_append_detail::check_apart(c, q_out, other);
  for (const byte_rows& other : {k, v, q}) kv_append_detail::check_apart(c, digest, other);
  const byte_rows arrays[] = {{"slot", a.slot, 1, 0, a.tokens * 8},
                              {"position", a.position, 1, 0, a.tokens * 4},
                              {"run_index", a.run_index, 1, 0, a.tokens * 4},
                              {"norm_weight", a.norm_weight, 1, 0, dim * bytes},
                              {"q_norm_weight", a.q_norm_weight, 1, 0, dim * bytes}};
  for (const byte_rows& other : arrays) {
    kv_append_detail::check_apart(c, q_out, other);
    kv_append_detail::check_apart(c, digest, other);
  }
  return c.result();
}

// Enqueued on `stream`; defined in bi/kv_cache.cuh.
template <class T, class Norm = contract::rms_norm_draft, class Rope = contract::rope_draft>
status kv_append(const kv_append_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
