// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/dtype.hpp"
#include "bi/kv_cache.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// Digests of bytes, free of order, so that no launch shape can change them. Contract: contract::digest_draft
// (bi/contract/digest.hpp).

// out[r] = digest of the row_bytes bytes of row r.
struct digest_rows_args {
  const void* data = nullptr;
  std::int64_t row_stride_bytes = 0;  // 0: row_bytes
  std::int64_t rows = 0;
  std::int64_t row_bytes = 0;
  std::uint64_t* out = nullptr;  // [rows]
};

// out[i] = digest of the K and V bytes of view indices [first[i], first[i] + count[i]) of request i's view. The bytes
// are taken in the order token, K then V, head, element, whatever the pages' layout.
template <class T>
struct digest_kv_args {
  paged_cache<const T> cache;
  kv_view view;
  const std::int32_t* first = nullptr;  // [requests], null: 0
  const std::int32_t* count = nullptr;  // [requests]
  std::int64_t requests = 0;
  std::uint64_t* out = nullptr;  // [requests]
};

inline status check(const digest_rows_args& a) {
  checker c("digest_rows");
  c.at_least("rows", a.rows, 0).at_least("row_bytes", a.row_bytes, 0);
  c.stride("row_stride_bytes", a.row_stride_bytes, a.row_bytes, "row_bytes", a.rows, 1);
  if (!c.ok() || a.rows == 0) return c.result();
  if (a.row_bytes > 0 && a.data == nullptr) c.fail(error::null_pointer, "data", 0);
  c.pointer("out", a.out);
  return c.result();
}

template <class T>
status check(const digest_kv_args<T>& a) {
  checker c("digest_kv");
  c.at_least("requests", a.requests, 0);
  if (!c.ok() || a.requests == 0) return c.result();
  check_cache(c, a.cache);
  c.optional_pointer("first", a.first).pointer("count", a.count).pointer("out", a.out);
  c.supported("view", static_cast<int>(a.view.kind), a.view.kind != view_kind::none, "page_table, page_csr, run_list");
  return c.result();
}

BI_NAMESPACE_END
