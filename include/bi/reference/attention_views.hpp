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
#include "bi/reference/views.hpp"
#include "bi/status.hpp"

// The views of an attention call on the CPU: what each request's rows see, and the tiles that they lead to.

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

// Errors that only the arrays show. Nothing has been written yet.
template <class T>
status check_arrays(const attention_args<T>& a) {
  checker c("attention");
  if (a.q_start != nullptr) {
    view_detail::check_start(c, "q_start", a.q_start, a.requests);
    if (a.q_start[a.requests] > a.rows) {
      c.fail(error::too_large, "q_start", a.q_start[a.requests], "rows", a.rows, a.requests);
    }
  }
  view_detail::check_view_start(c, a.view, a.requests);
  for (std::int64_t i = 0; i < a.requests && c.ok(); ++i) {
    if (a.len[i] < 0) c.fail(error::too_small, "len", a.len[i], nullptr, 0, i);
    if (a.len[i] > a.limits.max_view) {
      c.fail(error::too_large, "len", a.len[i], "limits.max_view", a.limits.max_view, i);
    }
    const request r = request_at(a, i);
    if (r.q_len > a.limits.max_q_len) {
      c.fail(error::too_large, "q_len", r.q_len, "limits.max_q_len", a.limits.max_q_len, i);
    }
    if (c.ok()) view_detail::check_part(c, a.view, a.cache, {i, r.len, r.lo, r.see}, "len");
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
      : locate_(a.view, a.cache.page_size, request, a.len[request]),
        dim_(a.limits.head_dim),
        k_(k_strides(a.cache)),
        v_(v_strides(a.cache)) {
    k_base_ = a.cache.k + head * k_.head;
    v_base_ = a.cache.v + head * v_.head;
    const auto blocks = static_cast<std::size_t>(k_panels * mma_steps(dim_));
    k_blocks_.resize(blocks);
    v_blocks_.resize(blocks);
    masked_blocks_.resize(blocks);
  }

  // View indices [first, first + 64), of which [lo, see) are read and the others zero.
  void load(std::int64_t first, std::int64_t lo, std::int64_t see) {
    for (int j = 0; j < tile; ++j) {
      k_token_[j] = v_token_[j] = nullptr;
      if (first + j < lo || first + j >= see) continue;
      const view_detail::place at = locate_(first + j);
      k_token_[j] = k_base_ + at.page * k_.page + at.token * k_.token;
      v_token_[j] = v_base_ + at.page * v_.page + at.token * v_.token;
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
  void pack_v(std::vector<mma_panel_block>& out, int begin, int end) {
    for (std::int64_t p = 0; p < dim_ / mma_columns; ++p) {
      mma_pack_panel<T>(out.data() + p * v_steps, tile, mma_columns, [&](std::int64_t j, int d) {
        return j < begin || j >= end || v_token_[j] == nullptr ? T{0} : v_token_[j][p * mma_columns + d];
      });
    }
  }

  view_detail::locator locate_;
  std::int64_t dim_;
  cache_strides k_, v_;
  const T *k_base_, *v_base_;
  const T *k_token_[tile], *v_token_[tile];
  bool finite_[tile];
  std::vector<mma_panel_block> k_blocks_, v_blocks_, masked_blocks_;
};

}  // namespace attention_detail
}  // namespace reference
BI_NAMESPACE_END
