// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "bi/attention.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/dtype.hpp"
#include "bi/reference/attention_sharing.hpp"
#include "bi/reference/attention_views.hpp"
#include "bi/reference/mma.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/status.hpp"

// Attention on the CPU. A task is a KV head and some rows of one request: it gathers a tile of K and V once for all its
// rows, and each row goes through its own tree.

BI_NAMESPACE_BEGIN
namespace reference {

namespace attention_detail {

// One query token and head. A task's rows are in the order of their tokens, so neither bound of the range decreases.
struct row {
  std::int64_t token;  // of the batch
  std::int64_t head;
  contract::attention_range range;
  contract::attention_leaf leaf;
  float m, l;  // of the closed leaves
  bool folded;

  // The part of the view indices [begin, end) that the row sees.
  contract::attention_range seen(std::int64_t begin, std::int64_t end) const {
    return {std::max(range.lo, begin), std::min(range.see, end)};
  }
  bool sees(std::int64_t begin, std::int64_t end) const {
    const contract::attention_range r = seen(begin, end);
    return r.lo < r.see;
  }
};

// Rows [first, end) of a request, with all query heads of one KV head.
struct task {
  std::int64_t request, head, first, end;
};

template <class Contract, class T>
class row_group {
  static constexpr int tile = Contract::tile;
  static_assert(tile % mma_columns == 0 && Contract::step == mma_depth, "the chains are those of mma_chain");
  struct scores {
    float s[tile];
  };
  struct weights {
    mma_row_block p[tile / mma_depth];
  };

 public:
  row_group(const attention_args<T>& a, const contract::attention_scale& scale, const task& t)
      : a_(a), scale_(scale), dim_(a.limits.head_dim), steps_(mma_steps(dim_)), source_(a, t.request, t.head) {
    const request r = request_at(a, t.request);
    const std::int64_t heads = a.limits.heads_q / a.limits.heads_kv;
    for (std::int64_t i = t.first; i < t.end; ++i) {
      const auto range = Contract::visible(a.mask == attention_mask::causal, r.len, r.q_len, i, a.window);
      for (std::int64_t h = 0; h < heads; ++h) {
        rows_.push_back({r.first_row + i, t.head * heads + h, range, {}, neg_inf_f32(), 0.0f, false});
      }
    }
    const std::size_t count = rows_.size();
    q_.resize(count * static_cast<std::size_t>(steps_));
    scores_.resize(count);
    weights_.resize(count);
    o_leaf_.assign(count * static_cast<std::size_t>(dim_), 0.0f);
    o_ = o_leaf_;
    const attention_strides stride = q_strides(a);
    for (std::size_t i = 0; i < count; ++i) {
      const T* q = a.q + rows_[i].token * stride.token + rows_[i].head * stride.head;
      mma_pack_row<T>(of(q_, i, steps_), dim_, [&](std::int64_t d) { return q[d]; });
    }
  }

  void run() {
    const std::int64_t lo = rows_.front().range.lo, see = rows_.back().range.see;
    for (std::int64_t leaf = Contract::first_leaf(lo); leaf < Contract::end_leaf(see); ++leaf) {
      const std::int64_t begin = leaf * Contract::leaf, end = begin + Contract::leaf;
      for (std::int64_t first = begin; first < end; first += tile) {
        if (first + tile <= lo || first >= see) continue;
        source_.load(first, lo, see);
        walk_tile(first);
      }
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        if (rows_[i].sees(begin, end)) close_and_fold(i);
      }
    }
    for (std::size_t i = 0; i < rows_.size(); ++i) finish(i);
  }

 private:
  template <class Element>
  static Element* of(std::vector<Element>& all, std::size_t i, std::int64_t each) {
    return all.data() + static_cast<std::int64_t>(i) * each;
  }

  void walk_tile(std::int64_t first) {
    for (int panel = 0; panel < tile / mma_columns; ++panel) {
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        if (!rows_[i].sees(first, first + tile)) continue;
        float* s = scores_[i].s + panel * mma_columns;
        std::fill(s, s + mma_columns, 0.0f);
        mma_chain<T>(s, of(q_, i, steps_), source_.k(panel), steps_);
      }
    }
    std::vector<std::size_t> plain, masked;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const contract::attention_range r = rows_[i].seen(first, first + tile);
      if (r.lo >= r.see) continue;
      const int begin = static_cast<int>(r.lo - first), end = static_cast<int>(r.see - first);
      weigh(i, begin, end);
      (source_.is_finite_outside(begin, end) ? plain : masked).push_back(i);
    }
    for (std::int64_t panel = 0; panel < dim_ / mma_columns; ++panel) {
      for (const std::size_t i : plain) add_values(i, panel, source_.v(panel));
    }
    for (const std::size_t i : masked) {
      const contract::attention_range r = rows_[i].seen(first, first + tile);
      source_.mask_v(static_cast<int>(r.lo - first), static_cast<int>(r.see - first));
      for (std::int64_t panel = 0; panel < dim_ / mma_columns; ++panel) add_values(i, panel, source_.masked_v(panel));
    }
  }

  // From the tile's scores, of which [begin, end) are visible, to weights; rescales l and o.
  void weigh(std::size_t i, int begin, int end) {
    contract::attention_leaf& leaf = rows_[i].leaf;
    float* s = scores_[i].s;
    float largest = neg_inf_f32();
    for (int j = begin; j < end; ++j) {
      s[j] = Contract::score(s[j], scale_);
      largest = max_nan(largest, s[j]);
    }
    const contract::attention_advance next = Contract::advance(leaf.m, Contract::tile_max(largest, scale_));
    float p[tile] = {};
    for (int j = begin; j < end; ++j) p[j] = Contract::weight(s[j], scale_, next.shift);
    for (int lane = 0; lane < 4; ++lane) {
      float own[16];
      for (int e = 0; e < 16; ++e) own[e] = p[Contract::key(lane, e / 4, e / 2 % 2, e % 2)];
      leaf.l[lane] = Contract::accumulate(leaf.l[lane], next.rescale, Contract::lane_sum(own));
    }
    leaf.m = next.m;
    mma_pack_row<T>(weights_[i].p, tile, [&](std::int64_t j) { return cvt_rn<T>(p[j]); });
    float* o = of(o_leaf_, i, dim_);
    for (std::int64_t d = 0; d < dim_; ++d) o[d] = mul_rn(o[d], next.rescale);
  }

  void add_values(std::size_t i, std::int64_t panel, const mma_panel_block* v) {
    mma_chain<T>(of(o_leaf_, i, dim_) + panel * mma_columns, weights_[i].p, v, tile / mma_depth);
  }

  void close_and_fold(std::size_t i) {
    row& r = rows_[i];
    const float m = r.leaf.m, l = Contract::close(m, r.leaf.l[0], r.leaf.l[1], r.leaf.l[2], r.leaf.l[3]);
    float *left = of(o_, i, dim_), *right = of(o_leaf_, i, dim_);
    const contract::attention_fold fold = Contract::fold(r.m, m);
    for (std::int64_t d = 0; d < dim_; ++d) {
      const float value = Contract::close_o(m, right[d]);
      left[d] = r.folded ? Contract::fold_value(fold, left[d], value) : value;
      right[d] = 0.0f;
    }
    r.l = r.folded ? Contract::fold_value(fold, r.l, l) : l;
    r.m = r.folded ? fold.m : m;
    r.folded = true;
    r.leaf = {};
  }

  void finish(std::size_t i) {
    const row& r = rows_[i];
    const attention_strides stride = out_strides(a_);
    T* out = a_.out + r.token * stride.token + r.head * stride.head;
    const float inverse = Contract::inverse(r.l);
    for (std::int64_t d = 0; d < dim_; ++d) {
      out[d] = Contract::template finish<T>(of(o_, i, dim_)[d], r.l, inverse);
    }
    const std::int64_t lse_stride = a_.lse_token_stride == 0 ? a_.limits.heads_q : a_.lse_token_stride;
    if (a_.lse != nullptr) a_.lse[r.token * lse_stride + r.head] = Contract::lse(r.m, r.l);
  }

  const attention_args<T>& a_;
  const contract::attention_scale scale_;
  const std::int64_t dim_, steps_;
  tile_source<T> source_;
  std::vector<row> rows_;
  std::vector<mma_row_block> q_;
  std::vector<scores> scores_;
  std::vector<weights> weights_;
  std::vector<float> o_leaf_, o_;
};

}  // namespace attention_detail

// The bits of Contract, contract::attention_v1<T> by default. Reads the device's arrays on the host and checks what
// they say before it writes anything.
template <class Contract = void, class T>
status attention(const attention_args<T>& a, int threads = 0) {
  using contract_type = std::conditional_t<std::is_void_v<Contract>, contract::attention_v1<T>, Contract>;
  using attention_detail::task;
  if (const status st = check(a, contract_type{}); !st) return st;
  if (a.rows == 0 || a.requests == 0) return {};
  if (const status st = attention_detail::check_arrays(a); !st) return st;
  if (const status st = attention_detail::check_sharing(a); !st) return st;

  const std::int64_t group = a.limits.heads_q / a.limits.heads_kv;
  const std::int64_t tokens_at_once = std::max<std::int64_t>(1, 128 / group);
  std::vector<task> tasks;
  for (std::int64_t i = 0; i < a.requests; ++i) {
    const std::int64_t q_len = attention_detail::request_at(a, i).q_len;
    for (std::int64_t first = 0; first < q_len; first += tokens_at_once) {
      const std::int64_t end = std::min(q_len, first + tokens_at_once);
      for (std::int64_t head = 0; head < a.limits.heads_kv; ++head) tasks.push_back({i, head, first, end});
    }
  }
  parallel_for(static_cast<std::int64_t>(tasks.size()), threads, [&](std::int64_t begin, std::int64_t end) {
    const auto scale = contract_type::prepare(a.scale, a.soft_cap);
    for (std::int64_t i = begin; i < end; ++i) {
      attention_detail::row_group<contract_type, T>(a, scale, tasks[static_cast<std::size_t>(i)]).run();
    }
  });
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
