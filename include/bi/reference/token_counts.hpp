// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bi/reference/views.hpp"
#include "bi/token_counts.hpp"

// clear_counts, count_tokens and count_view on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

namespace token_counts_detail {

inline status check_slots(const char* operation, const std::int32_t* slot, std::int64_t n, const token_counts& counts) {
  checker c(operation);
  for (std::int64_t i = 0; i < n; ++i) {
    if (slot[i] >= counts.slots) {
      return c.fail(error::index_out_of_range, "slot", slot[i], "counts.slots", counts.slots, i).result();
    }
  }
  return {};
}

inline void count(const token_counts& t, std::int64_t slot, std::int64_t id, token_part part, std::int32_t times) {
  if (slot < 0 || id < 0 || id >= t.vocab) return;
  std::uint32_t* const bits = part == token_part::prompt ? t.prompt : t.output;
  if (times > 0) bits[slot * bits_stride(t) + id / 32] |= 1u << (id % 32);
  // The same sum as atomicAdd's, which wraps around.
  std::int32_t& n = t.count[slot * count_stride(t) + id];
  if (part == token_part::output) {
    n = static_cast<std::int32_t>(static_cast<std::uint32_t>(n) + static_cast<std::uint32_t>(times));
  }
}

}  // namespace token_counts_detail

template <class Contract = contract::logits_edit_draft>
status clear_counts(const clear_counts_args& a) {
  if (const status st = check(a); !st || a.requests == 0) return st;
  const token_counts& t = a.counts;
  if (const status st = token_counts_detail::check_slots("clear_counts", a.slot, a.requests, t); !st) return st;
  const auto bits_bytes = static_cast<std::size_t>(contract::token_words(t.vocab)) * 4;
  for (std::int64_t i = 0; i < a.requests; ++i) {
    const std::int64_t slot = a.slot[i];
    if (slot < 0) continue;
    std::memset(t.count + slot * count_stride(t), 0, static_cast<std::size_t>(t.vocab) * 4);
    std::memset(t.output + slot * bits_stride(t), 0, bits_bytes);
    if (t.prompt != nullptr) std::memset(t.prompt + slot * bits_stride(t), 0, bits_bytes);
  }
  return {};
}

template <class Contract = contract::logits_edit_draft>
status count_tokens(const count_tokens_args& a) {
  if (const status st = check(a); !st || a.tokens == 0) return st;
  if (const status st = token_counts_detail::check_slots("count_tokens", a.slot, a.tokens, a.counts); !st) return st;
  for (std::int64_t i = 0; i < a.tokens; ++i) {
    token_counts_detail::count(a.counts, a.slot[i], a.token[i], a.part, a.times);
  }
  return {};
}

template <class Contract = contract::logits_edit_draft>
status count_view(const count_view_args& a) {
  if (const status st = check(a); !st || a.requests == 0) return st;
  if (const status st = token_counts_detail::check_slots("count_view", a.slot, a.requests, a.counts); !st) return st;
  checker c("count_view");
  paged_cache<float> cache;
  cache.num_pages = a.num_pages;
  cache.page_size = a.page_size;
  view_detail::check_view_start(c, a.view, a.requests);
  const auto first = [&](std::int64_t i) { return a.first == nullptr ? std::int64_t{0} : a.first[i]; };
  for (std::int64_t i = 0; i < a.requests && c.ok(); ++i) {
    if (a.slot[i] < 0 || a.count[i] <= 0) continue;
    if (first(i) < 0) c.fail(error::too_small, "first", first(i), nullptr, 0, i);
    const std::int64_t end = first(i) + a.count[i];
    if (c.ok()) view_detail::check_part(c, a.view, cache, {i, end, first(i), end}, "first + count");
  }
  if (!c.ok()) return c.result();
  for (std::int64_t i = 0; i < a.requests; ++i) {
    if (a.slot[i] < 0 || a.count[i] <= 0) continue;
    const std::int64_t end = first(i) + a.count[i];
    const view_detail::locator at(a.view, a.page_size, i, end);
    for (std::int64_t j = first(i); j < end; ++j) {
      const view_detail::place place = at(j);
      token_counts_detail::count(a.counts, a.slot[i], a.token[place.page * a.page_size + place.token], a.part, 1);
    }
  }
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
