// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/kv_cache.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/rope.hpp"

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

}  // namespace kv_detail

template <class Norm = contract::rms_norm_draft, class Rope = contract::rope_draft, class T>
status kv_append(const kv_append_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.tokens == 0) return {};
  const bool rotates = a.table.cos != nullptr;
  if (const status st = kv_detail::check_tokens(a, rotates); !st) return st;

  const std::int64_t dim = a.cache.head_dim, page_size = a.cache.page_size;
  const cache_strides k = k_source_strides(a), v = v_source_strides(a);
  const cache_strides cache_k = k_strides(a.cache), cache_v = v_strides(a.cache);
  std::vector<float> weight = row_detail::floats(dim);
  if (a.norm_weight != nullptr) row_detail::widen(a.norm_weight, dim, weight.data());
  const auto place = [&](const cache_strides& s, std::int64_t slot, std::int64_t head) {
    return slot / page_size * s.page + slot % page_size * s.token + head * s.head;
  };
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> x = row_detail::floats(dim), results = row_detail::floats(contract::row_blocks(dim));
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t slot = a.slot[t];
      if (slot < 0) continue;
      for (std::int64_t h = 0; h < a.cache.heads; ++h) {
        const T* from = a.k + t * k.token + h * k.head;
        T* to = a.cache.k + place(cache_k, slot, h);
        if (a.norm_weight != nullptr) {
          row_detail::widen(from, dim, x.data());
          row_detail::rms_norm_row<Norm>(x.data(), weight.data(), a.norm_eps, dim, results.data(), to);
        } else {
          std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(dim) * sizeof(T));
        }
        if (rotates) rope_detail::rotate_head<Rope>(a.table, a.position[t], dim, to, to);
        std::memcpy(static_cast<void*>(a.cache.v + place(cache_v, slot, h)), a.v + t * v.token + h * v.head,
                    static_cast<std::size_t>(dim) * sizeof(T));
      }
    }
  };
  parallel_for(a.tokens, threads, tokens, 16);
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
