// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "bi/check.hpp"
#include "bi/contract/digest.hpp"
#include "bi/digest.hpp"
#include "bi/kv_cache.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/views.hpp"
#include "bi/status.hpp"

// digest_rows and digest_kv on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

template <class Contract = contract::digest_words_draft>
status digest_rows(const digest_rows_args& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  const std::int64_t stride = a.row_stride_bytes == 0 ? a.row_bytes : a.row_stride_bytes;
  const auto bytes = static_cast<std::uint64_t>(a.row_bytes);
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const auto* row = static_cast<const unsigned char*>(a.data) + (bytes > 0 ? r * stride : 0);
      a.out[r] = contract::digest_length_term(bytes) + contract::digest_terms(row, bytes);
    }
  };
  parallel_for(a.rows, threads, rows, 1 + 65536 / (a.row_bytes + 1));
  return {};
}

namespace digest_detail {

template <class T>
view_detail::part part_at(const digest_kv_args<T>& a, std::int64_t i) {
  const std::int64_t first = a.first == nullptr ? 0 : a.first[i];
  return {i, first + a.count[i], first, first + a.count[i]};
}

// Errors that only the arrays show. Nothing has been written yet.
template <class T>
status check_arrays(const digest_kv_args<T>& a) {
  checker c("digest_kv");
  view_detail::check_view_start(c, a.view, a.requests);
  for (std::int64_t i = 0; i < a.requests && c.ok(); ++i) {
    if (a.count[i] <= 0) continue;
    const view_detail::part v = part_at(a, i);
    if (v.lo < 0) c.fail(error::too_small, "first", v.lo, nullptr, 0, i);
    if (c.ok()) view_detail::check_part(c, a.view, a.cache, v, "first + count");
  }
  return c.result();
}

// All heads of one token of K or V, next to each other.
template <class T>
void gather(const T* p, const cache_strides& s, const view_detail::place& at, std::int64_t heads, std::int64_t dim,
            unsigned char* to) {
  const T* from = p + at.page * s.page + at.token * s.token;
  const auto bytes = static_cast<std::size_t>(dim) * sizeof(T);
  for (std::int64_t h = 0; h < heads; ++h) {
    std::memcpy(to + static_cast<std::size_t>(h) * bytes, from + h * s.head, bytes);
  }
}

}  // namespace digest_detail

template <class Contract = contract::digest_words_draft, class T>
status digest_kv(const digest_kv_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.requests == 0) return {};
  if (const status st = digest_detail::check_arrays(a); !st) return st;
  const std::uint64_t token_bytes = contract::kv_token_bytes(a.cache.heads, a.cache.head_dim, sizeof(T));
  const auto requests = [&](std::int64_t begin, std::int64_t end) {
    std::vector<unsigned char> bytes(static_cast<std::size_t>(token_bytes));
    for (std::int64_t i = begin; i < end; ++i) {
      std::uint64_t tokens = 0, sum = 0;
      if (a.count[i] > 0) {
        const view_detail::part v = digest_detail::part_at(a, i);
        const view_detail::locator locate(a.view, a.cache.page_size, i, v.len);
        for (std::int64_t j = v.lo; j < v.see; ++j) {
          const view_detail::place at = locate(j);
          digest_detail::gather(a.cache.k, k_strides(a.cache), at, a.cache.heads, a.cache.head_dim, bytes.data());
          digest_detail::gather(a.cache.v, v_strides(a.cache), at, a.cache.heads, a.cache.head_dim,
                                bytes.data() + token_bytes / 2);
          sum += contract::digest_terms(bytes.data(), token_bytes, contract::kv_token_word(tokens++, token_bytes));
        }
      }
      a.out[i] = contract::digest_length_term(tokens * token_bytes) + sum;
    }
  };
  parallel_for(a.requests, threads, requests);
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
