// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/view.cuh"

// Counts of tokens are sums of integers, and sets are unions, so which thread counts what is free.

BI_NAMESPACE_BEGIN
namespace kernel {

struct counts_table {
  std::int32_t* count;
  std::uint32_t* bits;    // of the output, or of the prompt
  std::uint32_t* prompt;  // of clear_counts; may be null
  std::int64_t count_stride, bits_stride;
  std::int64_t slots, vocab;

  BI_D bool has(std::int64_t slot) const { return slot >= 0 && slot < slots; }
  // times: 0 leaves the count as it is.
  BI_D void add(std::int64_t slot, std::int64_t id, std::int32_t times) const {
    if (!has(slot) || id < 0 || id >= vocab) return;
    if (times != 0) atomicAdd(count + slot * count_stride + id, times);  // integer atomic
    if (times < 0) return;
    atomicOr(bits + slot * bits_stride + id / 32, 1u << (id % 32));  // integer atomic
  }
};

struct clear_counts_params {
  counts_table table;
  const std::int32_t* slot;
  device::flat_items words;  // requests, words of each
};

// A thread a word. Where it is 0 the counts are.
template <class Contract>
BI_KERNEL __launch_bounds__(256) void clear_counts_kernel(const clear_counts_params p) {
  const counts_table& t = p.table;
  device::for_items<1>(p.words, [&](device::flat_item item) {
    const std::int64_t slot = p.slot[item.row];
    if (!t.has(slot)) return;
    std::uint32_t* const word = t.bits + slot * t.bits_stride + item.index;
    std::int32_t* const count = t.count + slot * t.count_stride + item.index * 32;
    if (*word != 0) {
      for (std::int64_t i = 0; i < 32 && item.index * 32 + i < t.vocab; ++i) count[i] = 0;
      *word = 0;
    }
    if (t.prompt != nullptr) t.prompt[slot * t.bits_stride + item.index] = 0;
  });
}

struct count_tokens_params {
  counts_table table;
  const std::int32_t* token;
  const std::int32_t* slot;
  std::int64_t tokens;
  std::int32_t times;
};

template <class Contract>
BI_KERNEL __launch_bounds__(256) void count_tokens_kernel(const count_tokens_params p) {
  device::for_items<1>({p.tokens, 1},
                       [&](device::flat_item item) { p.table.add(p.slot[item.row], p.token[item.row], p.times); });
}

inline constexpr int count_view_warps = 64;  // that share a request

struct count_view_params {
  counts_table table;
  device::view_source view;
  std::int64_t page_size;
  const std::int32_t* token;
  const std::int32_t* first;  // may be null
  const std::int32_t* count;
  const std::int32_t* slot;
  std::int64_t requests;
  std::int32_t times;
};

template <class Contract>
BI_KERNEL __launch_bounds__(256) void count_view_kernel(const count_view_params p) {
  const std::int64_t lane = threadIdx.x % 32;
  device::for_items<32>({p.requests, count_view_warps}, [&](device::flat_item item) {
    const std::int64_t slot = p.slot[item.row], count = p.count[item.row], begin = 32 * item.index;
    if (!p.table.has(slot) || begin >= count) return;
    const std::int64_t first = p.first == nullptr ? 0 : p.first[item.row];
    device::view_cursor cursor(p.view, item.row);
    cursor.skip_to(first + begin);
    for (std::int64_t t = begin + lane; t < count; t += 32 * count_view_warps) {
      if (first + t < 0) continue;
      const device::kv_place place = cursor.place(first + t);
      if (place.valid()) p.table.add(slot, p.token[place.page * p.page_size + place.token], p.times);
    }
  });
}

}  // namespace kernel
BI_NAMESPACE_END
