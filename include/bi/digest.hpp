// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/digest.hpp"
#include "bi/dtype.hpp"
#include "bi/kv_cache.hpp"
#include "bi/status.hpp"

// Digests of bytes, free of order, so that no launch shape can change them.
//
// Contract: contract::digest_words_draft (bi/contract/digest.hpp), which also has the digest of a request, a chain that the host
// keeps. No workspace, no alignment beyond that of the elements; outputs must overlap nothing. Nothing is written when the
// returned status is not ok. If there is nothing to write nothing is read and pointers may be null. On the GPU see
// bi/digest.cuh, on the CPU bi/reference/digest.hpp.

BI_NAMESPACE_BEGIN

// out[r] = digest of the row_bytes bytes of row r. Any alignment.
struct BI_TYPE digest_rows_args {
  const void* data = nullptr;         // [rows, row_bytes]; may be null if row_bytes is 0
  std::int64_t row_stride_bytes = 0;  // from row to row, at least row_bytes; 0: row_bytes
  std::int64_t rows = 0;
  std::int64_t row_bytes = 0;
  std::uint64_t* out = nullptr;  // [rows]
};

// out[i] = digest of the K and V bytes of the run of view indices [first[i], first[i] + count[i]) of request i's view.
// The bytes are taken in the order token, K then V, head, element, whatever the pages' layout; where the run lies in
// its view, and in which slots, doesn't matter. count[i] <= 0: the empty run, digest 0, whose first[i] isn't read. The
// view must hold first[i] + count[i] tokens: the reference refuses other calls, kernels leave out tokens whose page is
// none of the cache's, so the digest is wrong. T is bf16, fp16 or float.
template <class T>
struct BI_TYPE digest_kv_args {
  paged_cache<const T> cache{};
  kv_view view{};
  const std::int32_t* first = nullptr;  // [requests], null: 0
  const std::int32_t* count = nullptr;  // [requests]
  std::int64_t requests = 0;
  std::uint64_t* out = nullptr;  // [requests]
};

// What every entry point asks first. Looks at the arguments, never at what they point to.
inline status check(const digest_rows_args& a) {
  checker c("digest_rows");
  c.at_least("rows", a.rows, 0).at_least("row_bytes", a.row_bytes, 0);
  c.stride("row_stride_bytes", a.row_stride_bytes, a.row_bytes, "row_bytes", a.rows, 1);
  c.stride("rows", a.rows, 0, nullptr, 1, sizeof(std::uint64_t));
  if (!c.ok() || a.rows == 0) return c.result();
  if (a.row_bytes > 0) c.pointer("data", static_cast<const char*>(a.data));
  c.pointer("out", a.out);
  c.disjoint("out", a.out, a.rows * 8, "data", a.data, span_bytes(a.rows, a.row_stride_bytes, a.row_bytes, 1));
  return c.result();
}

template <class T>
status check(const digest_kv_args<T>& a) {
  checker c("digest_kv");
  c.at_least("requests", a.requests, 0).at_most("requests", a.requests, std::int64_t{1} << 31);
  if (!c.ok() || a.requests == 0) return c.result();
  check_cache(c, a.cache);
  check_view(c, a.view, a.requests);
  c.optional_pointer("first", a.first).pointer("count", a.count).pointer("out", a.out);
  if (!c.ok()) return c.result();
  const std::int64_t bytes = a.requests * 8;
  c.disjoint("out", a.out, bytes, "cache.k", a.cache.k, cache_bytes(a.cache, k_strides(a.cache)));
  c.disjoint("out", a.out, bytes, "cache.v", a.cache.v, cache_bytes(a.cache, v_strides(a.cache)));
  c.disjoint("out", a.out, bytes, "first", a.first, a.requests * 4);
  c.disjoint("out", a.out, bytes, "count", a.count, a.requests * 4);
  return c.result();
}

// Enqueued on `stream`; defined in bi/digest.cuh.
template <class Contract = contract::digest_words_draft>
status digest_rows(const digest_rows_args& args, cuda_stream stream);
template <class T, class Contract = contract::digest_words_draft>
status digest_kv(const digest_kv_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
