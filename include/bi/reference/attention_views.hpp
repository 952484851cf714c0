// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/attention.hpp"
#include "bi/check.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/dtype.hpp"
#include "bi/kv_cache.hpp"
#include "bi/reference/mma.hpp"
#include "bi/status.hpp"

// The views of an attention call on the CPU: what the device's arrays say, and the tiles that they lead to.

BI_NAMESPACE_BEGIN
namespace reference {
namespace attention_detail {

// ---- what the device's arrays say

struct request {
  std::int64_t first_row, q_len, len;
  std::int64_t lo, see;  // the view indices that any of its rows sees

  static request at(const std::int32_t* q_start, std::int64_t len, bool causal, std::int64_t window, std::int64_t i) {
    request r{i, 1, len, 0, 0};
    if (q_start != nullptr) {
      r.first_row = q_start[i];
      r.q_len = q_start[i + 1] - r.first_row;
    }
    if (r.q_len <= 0) return r;
    r.lo = contract::attention_order::visible(causal, len, r.q_len, 0, window).lo;
    r.see = contract::attention_order::visible(causal, len, r.q_len, r.q_len - 1, window).see;
    return r;
  }
};
template <class T>
request request_at(const attention_args<T>& a, std::int64_t i) {
  return request::at(a.q_start, a.len[i], a.mask == attention_mask::causal, a.window, i);
}

inline void check_start(checker& c, const char* name, const std::int32_t* start, std::int64_t requests) {
  if (start[0] < 0) c.fail(error::too_small, name, start[0], nullptr, 0, 0);
  for (std::int64_t i = 1; i <= requests && c.ok(); ++i) {
    if (start[i] < start[i - 1]) c.fail(error::too_small, name, start[i], "the entry before", start[i - 1], i);
  }
}

// Pages first .. of request i, whose table has room for `entries` of them.
inline void check_pages(checker& c, const std::int32_t* pages, std::int64_t first, std::int64_t entries,
                        const char* entries_name, const request& r, std::int64_t i, std::int64_t page_size,
                        std::int64_t num_pages) {
  if (entries < r.len / page_size + (r.len % page_size != 0 ? 1 : 0)) {
    c.fail(error::too_large, "len", r.len, entries_name, entries * page_size, i);
  }
  if (!c.ok() || r.see <= r.lo) return;
  for (std::int64_t p = first + r.lo / page_size; p <= first + (r.see - 1) / page_size; ++p) {
    if (pages[p] < 0 || pages[p] >= num_pages) {
      c.fail(error::index_out_of_range, "view.pages", pages[p], "cache.num_pages", num_pages, p);
    }
  }
}

inline void check_runs(checker& c, const run_list& list, const request& r, std::int64_t i, std::int64_t slots) {
  std::int64_t begin = 0;
  for (std::int64_t k = list.start[i]; k < list.start[i + 1] && begin < r.len; ++k) {
    const std::int64_t slot = list.runs[k].slot, length = list.runs[k].length;
    if (length < 0) c.fail(error::too_small, "view.runs.length", length, nullptr, 0, k);
    if (!c.ok()) return;
    const std::int64_t lo = std::max(begin, r.lo), see = std::min(begin + length, r.see);
    if (lo < see) {
      const std::int64_t low = slot + lo - begin, high = slot + see - begin - 1;
      if (low < 0 || high >= slots) {
        c.fail(error::index_out_of_range, "view.runs.slot", low < 0 ? low : high, "the slots of the cache", slots, k);
      }
    }
    begin += length;
  }
  if (begin < r.len) c.fail(error::too_large, "len", r.len, "the sum of its runs", begin, i);
}

// Errors that only the arrays show. Nothing has been written yet.
template <class T>
status check_arrays(const attention_args<T>& a) {
  checker c("attention");
  if (a.q_start != nullptr) {
    check_start(c, "q_start", a.q_start, a.requests);
    if (a.q_start[a.requests] > a.rows) {
      c.fail(error::too_large, "q_start", a.q_start[a.requests], "rows", a.rows, a.requests);
    }
  }
  if (a.view.kind == view_kind::page_csr) check_start(c, "view.start", a.view.csr.start, a.requests);
  if (a.view.kind == view_kind::run_list) check_start(c, "view.start", a.view.runs.start, a.requests);
  for (std::int64_t i = 0; i < a.requests && c.ok(); ++i) {
    if (a.len[i] < 0) c.fail(error::too_small, "len", a.len[i], nullptr, 0, i);
    if (a.len[i] > a.limits.max_view) {
      c.fail(error::too_large, "len", a.len[i], "limits.max_view", a.limits.max_view, i);
    }
    const request r = request_at(a, i);
    if (r.q_len > a.limits.max_q_len) {
      c.fail(error::too_large, "q_len", r.q_len, "limits.max_q_len", a.limits.max_q_len, i);
    }
    if (!c.ok()) break;
    switch (a.view.kind) {
      case view_kind::page_table:
        check_pages(c, a.view.table.pages, i * a.view.table.row_stride, a.view.table.row_stride,
                    "view.row_stride * page_size", r, i, a.cache.page_size, a.cache.num_pages);
        break;
      case view_kind::page_csr:
        check_pages(c, a.view.csr.pages, a.view.csr.start[i], a.view.csr.start[i + 1] - a.view.csr.start[i],
                    "the tokens of its pages", r, i, a.cache.page_size, a.cache.num_pages);
        break;
      default:
        check_runs(c, a.view.runs, r, i, a.cache.num_pages * a.cache.page_size);
    }
  }
  return c.result();
}

// ---- gathering

// K and V of the tiles of one view and KV head, each tile as the tensor core takes it.
template <class T>
class tile_source {
  static constexpr int tile = contract::attention_order::tile;

 public:
  static constexpr int k_panels = tile / mma_columns, v_steps = tile / mma_depth;

  tile_source(const attention_args<T>& a, std::int64_t request, std::int64_t head)
      : a_(a), request_(request), dim_(a.limits.head_dim), k_(k_strides(a.cache)), v_(v_strides(a.cache)) {
    k_base_ = a.cache.k + head * k_.head;
    v_base_ = a.cache.v + head * v_.head;
    const auto blocks = static_cast<std::size_t>(k_panels * mma_steps(dim_));
    k_blocks_.resize(blocks);
    v_blocks_.resize(blocks);
    masked_blocks_.resize(blocks);
    if (a.view.kind == view_kind::run_list) {
      std::int64_t begin = 0;
      for (std::int64_t r = a.view.runs.start[request]; r < a.view.runs.start[request + 1] && begin < a.len[request];
           ++r) {
        run_begin_.push_back(begin);
        begin += a.view.runs.runs[r].length;
      }
    }
  }

  // View indices [first, first + 64), of which [lo, see) are read and the others zero.
  void load(std::int64_t first, std::int64_t lo, std::int64_t see) {
    for (int j = 0; j < tile; ++j) {
      k_token_[j] = v_token_[j] = nullptr;
      if (first + j < lo || first + j >= see) continue;
      std::int64_t page = 0, token = 0;
      locate(first + j, page, token);
      k_token_[j] = k_base_ + page * k_.page + token * k_.token;
      v_token_[j] = v_base_ + page * v_.page + token * v_.token;
    }
    for (int p = 0; p < k_panels; ++p) {
      mma_pack_panel<T>(k_blocks_.data() + p * mma_steps(dim_), dim_, mma_columns, [&](std::int64_t d, int j) {
        const T* token = k_token_[p * mma_columns + j];
        return token == nullptr ? T{0} : token[d];
      });
    }
    for (int j = 0; j < tile; ++j) {
      finite_[j] = true;
      for (std::int64_t d = 0; d < dim_ && v_token_[j] != nullptr; ++d) finite_[j] &= is_finite(v_token_[j][d]);
    }
    pack_v(v_blocks_, 0, tile);
  }

  const mma_panel_block* k(int panel) const { return k_blocks_.data() + panel * mma_steps(dim_); }
  const mma_panel_block* v(std::int64_t panel) const { return v_blocks_.data() + panel * v_steps; }

  // An Inf or NaN of V at a key outside [begin, end) would make NaN of a weight of 0: such a row needs V masked.
  bool is_finite_outside(int begin, int end) const {
    bool finite = true;
    for (int j = 0; j < tile; ++j) finite &= (j >= begin && j < end) || finite_[j];
    return finite;
  }
  void mask_v(int begin, int end) { pack_v(masked_blocks_, begin, end); }
  const mma_panel_block* masked_v(std::int64_t panel) const { return masked_blocks_.data() + panel * v_steps; }

 private:
  void locate(std::int64_t j, std::int64_t& page, std::int64_t& token) const {
    const std::int64_t size = a_.cache.page_size;
    if (a_.view.kind == view_kind::run_list) {
      const auto after = std::upper_bound(run_begin_.begin(), run_begin_.end(), j);
      const std::int64_t run = after - run_begin_.begin() - 1;
      const std::int64_t slot =
          a_.view.runs.runs[a_.view.runs.start[request_] + run].slot + (j - run_begin_[static_cast<std::size_t>(run)]);
      page = slot / size;
      token = slot % size;
      return;
    }
    page = a_.view.kind == view_kind::page_table ? a_.view.table.pages[request_ * a_.view.table.row_stride + j / size]
                                                 : a_.view.csr.pages[a_.view.csr.start[request_] + j / size];
    token = j % size;
  }

  void pack_v(std::vector<mma_panel_block>& out, int begin, int end) {
    for (std::int64_t p = 0; p < dim_ / mma_columns; ++p) {
      mma_pack_panel<T>(out.data() + p * v_steps, tile, mma_columns, [&](std::int64_t j, int d) {
        return j < begin || j >= end || v_token_[j] == nullptr ? T{0} : v_token_[j][p * mma_columns + d];
      });
    }
  }

  const attention_args<T>& a_;
  std::int64_t request_, dim_;
  cache_strides k_, v_;
  const T *k_base_, *v_base_;
  std::vector<std::int64_t> run_begin_;
  const T *k_token_[tile], *v_token_[tile];
  bool finite_[tile];
  std::vector<mma_panel_block> k_blocks_, v_blocks_, masked_blocks_;
};

}  // namespace attention_detail
}  // namespace reference
BI_NAMESPACE_END
