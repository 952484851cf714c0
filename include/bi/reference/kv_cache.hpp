// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "bi/contract/digest.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/kv_cache.hpp"
#include "bi/reference/digest.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/rope.hpp"
#include "bi/reference/views.hpp"

// kv_append on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

namespace kv_detail {

// What the arrays say, looked at before anything is written.
template <class T>
status check_tokens(const kv_append_args<T>& a, bool rotates) {
  const std::int64_t slots = a.cache.num_pages * a.cache.page_size;
  std::vector<std::pair<std::int64_t, std::int64_t>> used;  // slot, token
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    checker c("kv_append");
    if (a.slot[t] < 0) continue;
    if (a.slot[t] >= slots) c.fail(error::index_out_of_range, "slot", a.slot[t], "the cache's slots", slots, t);
    if (rotates && (a.position[t] < 0 || a.position[t] >= a.table.positions)) {
      c.fail(error::index_out_of_range, "position", a.position[t], "table.positions", a.table.positions, t);
    }
    if (a.digest != nullptr && a.run_index != nullptr && a.run_index[t] < 0) {
      c.fail(error::too_small, "run_index", a.run_index[t], nullptr, 0, t);
    }
    if (!c.ok()) return c.result();
    used.emplace_back(a.slot[t], t);
  }
  std::sort(used.begin(), used.end());
  for (std::size_t i = 1; i < used.size(); ++i) {
    if (used[i].first != used[i - 1].first) continue;
    return checker("kv_append")
        .fail(error::overlap, "slot", used[i].first, "another token's slot", used[i - 1].second, used[i].second)
        .result();
  }
  return {};
}

// Heads of one weight, normalised and rotated one after another.
template <class Norm, class Rope, class T>
class head_writer {
 public:
  head_writer(const kv_append_args<T>& a, const T* weight)
      : a_(a), dim_(a.cache.head_dim), has_norm_(weight != nullptr), weight_(row_detail::floats(dim_)) {
    if (has_norm_) row_detail::widen(weight, dim_, weight_.data());
    x_ = row_detail::floats(dim_);
    results_ = row_detail::floats(contract::row_blocks(dim_));
  }
  // to == from is allowed.
  void operator()(std::int64_t token, const T* from, T* to) {
    if (has_norm_) {
      row_detail::widen(from, dim_, x_.data());
      row_detail::rms_norm_row<Norm>(x_.data(), weight_.data(), a_.norm_eps, dim_, results_.data(), to);
    } else {
      std::memmove(static_cast<void*>(to), from, static_cast<std::size_t>(dim_) * sizeof(T));
    }
    if (a_.table.cos != nullptr) rope_detail::rotate_head<Rope>(a_.table, a_.position[token], dim_, to, to);
  }

 private:
  const kv_append_args<T>& a_;
  std::int64_t dim_;
  bool has_norm_;
  std::vector<float> weight_, x_, results_;
};

}  // namespace kv_detail

template <class Norm = contract::rms_norm_draft, class Rope = contract::rope_draft, class T>
status kv_append(const kv_append_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.tokens == 0) return {};
  const bool rotates = a.table.cos != nullptr;
  if (const status st = kv_detail::check_tokens(a, rotates); !st) return st;

  const std::int64_t dim = a.cache.head_dim, page_size = a.cache.page_size, heads = a.cache.heads;
  const cache_strides k = k_source_strides(a), v = v_source_strides(a), q = q_source_strides(a), o = q_out_strides(a);
  const cache_strides cache_k = k_strides(a.cache), cache_v = v_strides(a.cache);
  const std::uint64_t token_bytes = contract::kv_token_bytes(heads, dim, sizeof(T));
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    kv_detail::head_writer<Norm, Rope, T> write_k(a, a.norm_weight), write_q(a, a.q_norm_weight);
    std::vector<unsigned char> written(a.digest != nullptr ? static_cast<std::size_t>(token_bytes) : 0);
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t slot = a.slot[t];
      if (slot < 0) {
        if (a.digest != nullptr) a.digest[t] = 0;
        continue;
      }
      const view_detail::place at = {slot / page_size, slot % page_size};
      T* k_to = a.cache.k + at.page * cache_k.page + at.token * cache_k.token;
      T* v_to = a.cache.v + at.page * cache_v.page + at.token * cache_v.token;
      for (std::int64_t h = 0; h < heads; ++h) {
        write_k(t, a.k + t * k.token + h * k.head, k_to + h * cache_k.head);
        std::memcpy(static_cast<void*>(v_to + h * cache_v.head), a.v + t * v.token + h * v.head,
                    static_cast<std::size_t>(dim) * sizeof(T));
      }
      for (std::int64_t h = 0; a.q != nullptr && h < a.heads_q; ++h) {
        write_q(t, a.q + t * q.token + h * q.head, a.q_out + t * o.token + h * o.head);
      }
      if (a.digest == nullptr) continue;
      const std::uint64_t index = a.run_index == nullptr ? 0 : static_cast<std::uint64_t>(a.run_index[t]);
      digest_detail::gather(a.cache.k, cache_k, at, heads, dim, written.data());
      digest_detail::gather(a.cache.v, cache_v, at, heads, dim, written.data() + token_bytes / 2);
      a.digest[t] = contract::digest_terms(written.data(), token_bytes, contract::kv_token_word(index, token_bytes));
    }
  };
  parallel_for(a.tokens, threads, tokens, 16);
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
