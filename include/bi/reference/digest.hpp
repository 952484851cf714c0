// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "bi/contract/digest.hpp"
#include "bi/digest.hpp"
#include "bi/reference/parallel.hpp"

// digest_rows and digest_kv on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

template <class Contract = contract::digest_draft>
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

// Calls fn(slot) for view indices [first, first + count) of a request; the first thing that is out of range ends it.
template <class Fn>
status for_slots(const kv_view& view, std::int64_t page_size, std::int64_t pages, std::int64_t request,
                 std::int64_t first, std::int64_t count, Fn&& fn) {
  const auto wrong = [&](const char* argument, std::int64_t value, const char* name, std::int64_t bound,
                         std::int64_t position) {
    return checker("digest_kv").fail(error::index_out_of_range, argument, value, name, bound, position).result();
  };
  const std::int64_t end = first + count;
  if (view.kind == view_kind::run_list) {
    std::int64_t index = 0;  // of the run's first token
    for (std::int64_t r = view.runs.start[request]; r < view.runs.start[request + 1] && index < end; ++r) {
      const kv_run run = view.runs.runs[r];
      if (run.length < 0) return wrong("view.runs", run.length, "run length", std::int64_t{1} << 31, r);
      for (std::int64_t j = first > index ? first - index : 0; j < run.length && index + j < end; ++j) {
        const std::int64_t slot = run.slot + j;
        if (slot < 0 || slot >= pages * page_size) {
          return wrong("view.runs", slot, "the cache's slots", pages * page_size, r);
        }
        fn(slot);
      }
      index += run.length;
    }
    return index >= end ? status{} : wrong("count", end - 1, "the view's tokens", index, request);
  }
  const bool table = view.kind == view_kind::page_table;
  const std::int32_t* ids = table ? view.table.pages : view.csr.pages;
  const std::int64_t begin = table ? request * view.table.row_stride : view.csr.start[request];
  const std::int64_t entries = table ? view.table.row_stride : view.csr.start[request + 1] - begin;
  if ((end - 1) / page_size >= entries) {
    return wrong("count", end - 1, "the view's tokens", entries < 0 ? 0 : entries * page_size, request);
  }
  for (std::int64_t j = first; j < end; ++j) {
    const std::int64_t entry = begin + j / page_size;
    if (ids[entry] < 0 || ids[entry] >= pages) return wrong("view.pages", ids[entry], "num_pages", pages, entry);
    fn(ids[entry] * page_size + j % page_size);
  }
  return {};
}

// All heads of one token of K or V, next to each other.
template <class T>
void gather(const T* p, const cache_strides& s, std::int64_t page_size, std::int64_t slot, std::int64_t heads,
            std::int64_t dim, unsigned char* to) {
  const T* from = p + slot / page_size * s.page + slot % page_size * s.token;
  const auto bytes = static_cast<std::size_t>(dim) * sizeof(T);
  for (std::int64_t h = 0; h < heads; ++h) {
    std::memcpy(to + static_cast<std::size_t>(h) * bytes, from + h * s.head, bytes);
  }
}

}  // namespace digest_detail

template <class Contract = contract::digest_draft, class T>
status digest_kv(const digest_kv_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  const auto for_slots = [&](std::int64_t i, auto&& fn) -> status {
    const std::int64_t first = a.first == nullptr ? 0 : a.first[i];
    if (a.count[i] <= 0) return {};
    if (first < 0) {
      constexpr std::int64_t bound = std::int64_t{1} << 31;
      return checker("digest_kv").fail(error::index_out_of_range, "first", first, "2^31", bound, i).result();
    }
    return digest_detail::for_slots(a.view, a.cache.page_size, a.cache.num_pages, i, first, a.count[i], fn);
  };
  for (std::int64_t i = 0; i < a.requests; ++i) {
    if (const status st = for_slots(i, [](std::int64_t) {}); !st) return st;
  }
  const std::uint64_t token_bytes = contract::kv_token_bytes(a.cache.heads, a.cache.head_dim, sizeof(T));
  const auto requests = [&](std::int64_t begin, std::int64_t end) {
    std::vector<unsigned char> bytes(static_cast<std::size_t>(token_bytes));
    for (std::int64_t i = begin; i < end; ++i) {
      std::uint64_t tokens = 0, sum = 0;
      (void)for_slots(i, [&](std::int64_t slot) {
        digest_detail::gather(a.cache.k, k_strides(a.cache), a.cache.page_size, slot, a.cache.heads, a.cache.head_dim,
                              bytes.data());
        digest_detail::gather(a.cache.v, v_strides(a.cache), a.cache.page_size, slot, a.cache.heads, a.cache.head_dim,
                              bytes.data() + token_bytes / 2);
        sum += contract::digest_terms(bytes.data(), token_bytes, contract::kv_token_word(tokens++, token_bytes));
      });
      a.out[i] = contract::digest_length_term(tokens * token_bytes) + sum;
    }
  };
  parallel_for(a.requests, threads, requests);
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
