// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/rope.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/rope.hpp"

// rope on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

namespace rope_detail {

// One head, x to out; out == x is allowed.
template <class Contract, class T>
void rotate_head(const rope_table& table, std::int64_t position, std::int64_t head_dim, const T* x, T* out) {
  const std::int64_t pairs = table.rotary_dim / 2;
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int64_t p = Contract::first(table.style, i), q = Contract::second(table.style, i, table.rotary_dim);
    T first = x[p], second = x[q];
    Contract::rotate(first, second, table.cos[position * pairs + i], table.sin[position * pairs + i]);
    out[p] = first;
    out[q] = second;
  }
  for (std::int64_t i = table.rotary_dim; i < head_dim; ++i) out[i] = x[i];
}

}  // namespace rope_detail

template <class Contract = contract::rope_draft, class T>
status rope(const rope_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.tokens == 0 || a.heads == 0 || a.head_dim == 0) return {};
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    if (a.position[t] < a.table.positions) continue;
    return checker("rope")
        .fail(error::index_out_of_range, "position", a.position[t], "table.positions", a.table.positions, t)
        .result();
  }
  const auto head = [&](std::int64_t s) { return s == 0 ? a.head_dim : s; };
  const std::int64_t x_head = head(a.x_head_stride), out_head = head(a.out_head_stride);
  const std::int64_t x_token = a.x_token_stride == 0 ? a.heads * x_head : a.x_token_stride;
  const std::int64_t out_token = a.out_token_stride == 0 ? a.heads * out_head : a.out_token_stride;
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      if (a.position[t] < 0) continue;
      for (std::int64_t h = 0; h < a.heads; ++h) {
        rope_detail::rotate_head<Contract>(a.table, a.position[t], a.head_dim, a.x + t * x_token + h * x_head,
                                           a.out + t * out_token + h * out_head);
      }
    }
  };
  parallel_for(a.tokens, threads, tokens, 16);
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
