// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/backend.hpp"
#include "support/ops_attention.hpp"

namespace test {

enum class view_storage { table, csr, runs };
inline constexpr view_storage all_storages[] = {view_storage::table, view_storage::csr, view_storage::runs};

struct attention_case {
  std::vector<std::int32_t> len;    // tokens of each request's view
  std::vector<std::int32_t> q_len;  // query tokens of each request
  std::int64_t heads_q = 4, heads_kv = 2, head_dim = 128;
  std::int64_t page_size = 16;
  view_storage storage = view_storage::table;
  values kind = values::normal;
  bi::attention_mask mask = bi::attention_mask::causal;
  std::int64_t window = 0;
  float soft_cap = 0;
  bool head_major = false;      // pages lie [head, token, dim] instead of [token, head, dim]
  std::int64_t gap = 0;         // elements between heads, in every array
  std::int64_t offset = 0;      // elements before the first head, to misalign them
  std::int64_t spare_rows = 0;  // at the end, no request's
};

inline std::string to_string(const attention_case& c) {
  std::string s;
  for (std::size_t i = 0; i < c.len.size(); ++i) {
    s += (i == 0 ? "" : "+") + std::to_string(c.q_len[i]) + "of" + std::to_string(c.len[i]);
  }
  s += ",heads=" + std::to_string(c.heads_q) + "/" + std::to_string(c.heads_kv) + "x" + std::to_string(c.head_dim);
  s += ",page=" + std::to_string(c.page_size) + ",storage=" + std::to_string(static_cast<int>(c.storage));
  s += ",values=" + std::to_string(static_cast<int>(c.kind));
  if (c.mask == bi::attention_mask::full) s += ",full";
  if (c.window != 0) s += ",window=" + std::to_string(c.window);
  if (c.soft_cap != 0) s += ",cap";
  if (c.head_major) s += ",head_major";
  if (c.gap != 0) s += ",gap=" + std::to_string(c.gap);
  if (c.offset != 0) s += ",offset=" + std::to_string(c.offset);
  if (c.spare_rows != 0) s += ",spare_rows=" + std::to_string(c.spare_rows);
  return s;
}

// What a case fills a backend with; kept apart from the call so that tests can change it between launches.
template <class T>
struct attention_data {
  std::vector<T> q, k, v;           // k and v: the whole cache, pages that no view uses hold NaN
  std::vector<std::int32_t> pages;  // table or CSR
  std::vector<std::int32_t> start;  // CSR or run list
  std::vector<bi::kv_run> runs;
  std::vector<std::int32_t> len, q_start;
  std::int64_t rows = 0, max_pages = 0, num_pages = 0;
};

// The tokens of request i are drawn from (seed, i) alone, and so are its queries: a request has the same data in any batch
// (given the same `first` index) and any storage.
template <class T>
attention_data<T> make_attention_data(const attention_case& c, std::uint64_t seed, std::uint64_t first = 0) {
  attention_data<T> d;
  const auto requests = static_cast<std::int64_t>(c.len.size());
  std::int64_t used = 0;
  for (const std::int32_t n : c.len) {
    const std::int64_t pages = (n + c.page_size - 1) / c.page_size;
    d.max_pages = pages > d.max_pages ? pages : d.max_pages;
    used += pages;
  }
  d.num_pages = used + 3;
  // Pages in random order.
  std::vector<std::int32_t> order(static_cast<std::size_t>(d.num_pages));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  generator g(seed ^ 0x77);
  for (std::size_t i = order.size(); i-- > 1;)
    std::swap(order[i], order[static_cast<std::size_t>(g.below(static_cast<std::int64_t>(i) + 1))]);

  const std::int64_t token = c.heads_kv * c.head_dim, page = token * c.page_size;
  const T nan = from_bits<T>(sizeof(T) == 4 ? 0x7fc00000u : 0x7fffu);
  d.k.assign(static_cast<std::size_t>(d.num_pages * page), nan);
  d.v = d.k;
  d.q_start.push_back(0);
  d.start.push_back(0);
  std::size_t next = 0;
  for (std::int64_t i = 0; i < requests; ++i) {
    const std::int64_t n = c.len[static_cast<std::size_t>(i)], pages = (n + c.page_size - 1) / c.page_size;
    const std::uint64_t own = seed * 1000 + first + static_cast<std::uint64_t>(i);
    const auto k = random_vector<T>(n * token, c.kind, own * 4), v = random_vector<T>(n * token, c.kind, own * 4 + 1);
    const std::size_t row = d.pages.size();
    if (c.storage == view_storage::table) d.pages.resize(row + static_cast<std::size_t>(d.max_pages), -1);
    for (std::int64_t p = 0; p < pages; ++p) {
      const std::int32_t id = order[next++];
      if (c.storage == view_storage::table) {
        d.pages[row + static_cast<std::size_t>(p)] = id;
      } else {
        d.pages.push_back(id);
      }
      // Runs: each page's tokens in one or two pieces.
      const auto base = static_cast<std::int32_t>(id * c.page_size);
      const auto here =
          static_cast<std::int32_t>(n - p * c.page_size < c.page_size ? n - p * c.page_size : c.page_size);
      const auto cut = static_cast<std::int32_t>(g.below(here + 1));
      d.runs.push_back({base, cut});
      d.runs.push_back({base + cut, here - cut});
      for (std::int64_t t = 0; t < here; ++t) {
        for (std::int64_t h = 0; h < c.heads_kv; ++h) {
          const std::int64_t to =
              id * page + (c.head_major ? (h * c.page_size + t) : (t * c.heads_kv + h)) * c.head_dim;
          const std::int64_t from = (p * c.page_size + t) * token + h * c.head_dim;
          for (std::int64_t e = 0; e < c.head_dim; ++e) {
            d.k[static_cast<std::size_t>(to + e)] = k[static_cast<std::size_t>(from + e)];
            d.v[static_cast<std::size_t>(to + e)] = v[static_cast<std::size_t>(from + e)];
          }
        }
      }
    }
    d.start.push_back(static_cast<std::int32_t>(c.storage == view_storage::runs ? d.runs.size() : d.pages.size()));
    const std::int64_t rows = c.q_len[static_cast<std::size_t>(i)];
    const auto q = random_vector<T>(rows * c.heads_q * c.head_dim, c.kind, own * 4 + 2);
    d.q.insert(d.q.end(), q.begin(), q.end());
    d.rows += rows;
    d.q_start.push_back(static_cast<std::int32_t>(d.rows));
    d.len.push_back(static_cast<std::int32_t>(n));
  }
  return d;
}

template <class T>
struct attention_result {
  std::vector<T> out;
  std::vector<float> lse;
};

// Heads of `dim` elements with c.gap elements between them and c.offset before, which hold NaN.
template <class T>
std::vector<T> spread_heads(const attention_case& c, const std::vector<T>& x) {
  if (c.gap == 0 && c.offset == 0) return x;
  const auto dim = static_cast<std::size_t>(c.head_dim), stride = dim + static_cast<std::size_t>(c.gap);
  std::vector<T> out(x.size() / dim * stride + static_cast<std::size_t>(c.offset), from_bits<T>(0x7fffu));
  for (std::size_t i = 0; i < x.size(); ++i)
    out[static_cast<std::size_t>(c.offset) + i / dim * stride + i % dim] = x[i];
  return out;
}

template <class T, class Backend>
bi::attention_args<T> make_attention_args(Backend& b, const attention_case& c, const attention_data<T>& d) {
  bi::attention_args<T> a;
  const std::int64_t stride = c.head_dim + c.gap;
  std::vector<T> q = d.q;
  q.resize(q.size() + static_cast<std::size_t>(c.spare_rows * c.heads_q * c.head_dim), from_bits<T>(0x7fffu));
  a.q = b.input(spread_heads(c, q)) + c.offset;
  a.q_head_stride = stride;
  a.cache.k = b.input(spread_heads(c, d.k)) + c.offset;
  a.cache.v = b.input(spread_heads(c, d.v)) + c.offset;
  a.cache.num_pages = d.num_pages;
  a.cache.page_size = c.page_size;
  a.cache.heads = c.heads_kv;
  a.cache.head_dim = c.head_dim;
  a.cache.k_head_stride = stride;
  if (c.head_major) {
    a.cache.k_page_stride = c.heads_kv * c.page_size * stride;
    a.cache.k_token_stride = stride;
    a.cache.k_head_stride = c.page_size * stride;
  }
  const auto* start = b.input(d.start);
  if (c.storage == view_storage::table) {
    a.view = bi::page_table{b.input(d.pages), d.max_pages};
  } else if (c.storage == view_storage::csr) {
    a.view = bi::page_csr{b.input(d.pages), start};
  } else {
    a.view = bi::run_list{b.input(d.runs), start};
  }
  a.len = b.input(d.len);
  a.q_start = b.input(d.q_start);
  a.requests = static_cast<std::int64_t>(c.len.size());
  a.rows = d.rows + c.spare_rows;
  a.mask = c.mask;
  a.window = c.window;
  a.scale = bi::rsqrt_rn(bi::float_from_int64(c.head_dim));
  a.soft_cap = c.soft_cap;
  std::int64_t max_q = 1, max_view = 0;
  for (const std::int32_t n : c.q_len) max_q = n > max_q ? n : max_q;
  for (const std::int32_t n : c.len) max_view = n > max_view ? n : max_view;
  a.limits = {a.requests, a.rows, max_q, max_view, c.heads_q, c.heads_kv, c.head_dim};
  a.lse_token_stride = c.heads_q + c.gap;
  a.lse = b.template output<float>(a.rows * a.lse_token_stride);
  a.out = b.template output<T>(a.rows * c.heads_q * stride + c.offset) + c.offset;
  a.out_head_stride = stride;
  return a;
}

// Whole buffers: what the operation may not write must stay poisoned.
template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>, class Backend>
attention_result<T> run_attention(Backend& b, const attention_case& c, std::uint64_t seed, std::uint64_t first = 0) {
  const auto a = make_attention_args<T>(b, c, make_attention_data<T>(c, seed, first));
  b.run(attention_op<T, HeadDim, Contract>{}, a);
  return {b.read(a.out - c.offset), b.read(a.lse)};
}

template <class Backend, class Sink>
void golden_attention(Backend& b, Sink&& sink) {
  using bi::bf16;
  using bi::fp16;
  const auto emit = [&](const char* type, std::uint64_t contract, const attention_case& c, const auto& r) {
    sink(golden_entry{std::string("attention/") + type + "/" + to_string(c), contract,
                      digest_of(r.lse, digest_of(r.out)), static_cast<std::int64_t>(r.out.size() + r.lse.size())});
    b.clear();
  };
  using cap = bi::contract::attention_soft_cap_v1<bf16>;
  const auto bf = bi::contract::attention_v1<bf16>::id();
  attention_case c;
  c.len = {1, 63, 130, 300};
  c.q_len = {1, 2, 1, 3};
  for (const values kind : all_values) {
    c.kind = kind;
    emit("bf16", bf, c, run_attention<bf16, 128>(b, c, 1));
    emit("fp16", bi::contract::attention_v1<fp16>::id(), c, run_attention<fp16, 128>(b, c, 1));
  }
  c.kind = values::normal;
  for (const view_storage storage : {view_storage::csr, view_storage::runs}) {
    c.storage = storage;
    c.page_size = 7;
    emit("bf16", bf, c, run_attention<bf16, 128>(b, c, 2));
  }
  c.window = 50;
  emit("bf16", bf, c, run_attention<bf16, 128>(b, c, 3));
  c.window = 0;
  c.mask = bi::attention_mask::full;
  c.head_major = true;
  emit("bf16", bf, c, run_attention<bf16, 128>(b, c, 4));
  c.mask = bi::attention_mask::causal;
  c.soft_cap = 20.0f;
  emit("bf16", cap::id(), c, run_attention<bf16, 128, cap>(b, c, 5));
  c.soft_cap = 0;
  c.heads_q = 6, c.heads_kv = 1, c.head_dim = 64, c.q_len = {1, 20, 1, 70};
  emit("bf16", bf, c, run_attention<bf16, 64>(b, c, 6));
  c.head_dim = 256, c.heads_q = 2, c.heads_kv = 2;
  emit("bf16", bf, c, run_attention<bf16, 256>(b, c, 7));
}

}  // namespace test
