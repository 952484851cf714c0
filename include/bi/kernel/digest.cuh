// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/integer.cuh"
#include "bi/device/view.cuh"

// A digest depends on the bytes of its row or run. It is a sum of integers, so which thread adds what is free.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int digest_threads = 512;

struct alignas(16) digest_word_pair {
  std::uint64_t word[2];
};

// ---- rows

struct digest_rows_params {
  const unsigned char* data;
  std::int64_t row_stride, rows, row_bytes;
  std::uint64_t* out;
  int granule;  // every row starts at a multiple of this many bytes: 16, 8, 4, 2 or 1
};

template <class Part>
BI_D std::uint64_t assemble_word(const unsigned char* p) {
  std::uint64_t word = 0;
#pragma unroll
  for (int i = 0; i < 8 / static_cast<int>(sizeof(Part)); ++i) {
    word |= static_cast<std::uint64_t>(reinterpret_cast<const Part*>(p)[i]) << (8 * static_cast<int>(sizeof(Part)) * i);
  }
  return word;
}
BI_D inline std::uint64_t load_word(const unsigned char* p, int granule) {
  if (granule >= 8) return *reinterpret_cast<const std::uint64_t*>(p);
  if (granule == 4) return assemble_word<std::uint32_t>(p);
  if (granule == 2) return assemble_word<std::uint16_t>(p);
  return assemble_word<std::uint8_t>(p);
}

// This thread's terms of a row.
BI_D inline std::uint64_t digest_row_part(const unsigned char* row, std::int64_t bytes, int granule) {
  const std::int64_t words = bytes / 8;
  const int tail = static_cast<int>(bytes % 8);
  const auto thread = static_cast<std::int64_t>(threadIdx.x);
  std::uint64_t sum = 0;
  std::int64_t done = 0;
  if (granule == 16) {
    const auto* pairs = reinterpret_cast<const digest_word_pair*>(row);
    const auto add = [&](const digest_word_pair& pair, std::int64_t i) {
      sum += contract::digest_term(pair.word[0], static_cast<std::uint64_t>(2 * i));
      sum += contract::digest_term(pair.word[1], static_cast<std::uint64_t>(2 * i + 1));
    };
    constexpr int held = 4;  // loads under way
    std::int64_t i = thread;
    for (; i + (held - 1) * digest_threads < words / 2; i += held * digest_threads) {
      digest_word_pair pair[held];
#pragma unroll
      for (int u = 0; u < held; ++u) pair[u] = pairs[i + u * digest_threads];
#pragma unroll
      for (int u = 0; u < held; ++u) add(pair[u], i + u * digest_threads);
    }
    for (; i < words / 2; i += digest_threads) add(pairs[i], i);
    done = words / 2 * 2;
  }
  for (std::int64_t i = done + thread; i < words; i += digest_threads) {
    sum += contract::digest_term(load_word(row + 8 * i, granule), static_cast<std::uint64_t>(i));
  }
  if (tail != 0 && thread == 0) {
    sum += contract::digest_term(contract::digest_word(row + 8 * words, tail), static_cast<std::uint64_t>(words));
  }
  return sum;
}

template <class Contract>
BI_KERNEL __launch_bounds__(digest_threads) void digest_rows_kernel(const digest_rows_params p) {
  __shared__ device::integer_scratch<digest_threads> scratch;
  for (std::int64_t r = blockIdx.x; r < p.rows; r += gridDim.x) {
    const std::uint64_t part = digest_row_part(p.data + r * p.row_stride, p.row_bytes, p.granule);
    const std::uint64_t sum = device::block_reduce(part, scratch, device::integer_sum{});
    if (threadIdx.x == 0) p.out[r] = sum + contract::digest_length_term(static_cast<std::uint64_t>(p.row_bytes));
  }
}

// ---- runs of KV tokens

template <class T>
struct digest_kv_params {
  const T* k;
  const T* v;
  std::int64_t k_page_stride, k_token_stride, k_head_stride;
  std::int64_t v_page_stride, v_token_stride, v_head_stride;
  std::int64_t heads, head_dim;
  device::view_source view;
  const std::int32_t* first;  // null: 0
  const std::int32_t* count;
  std::int64_t requests;
  std::uint64_t* out;
  bool aligned;  // every head starts at a multiple of 16 bytes and is as long as some 16-byte words
};

// Element e of a token's 2 * heads * head_dim, K's before V's.
template <class T>
BI_D const T* digest_element(const digest_kv_params<T>& p, const device::kv_place& place, std::int64_t e) {
  const std::int64_t half = p.heads * p.head_dim;
  const bool is_v = e >= half;
  const device::flat_item at = device::split({p.heads, p.head_dim}, is_v ? e - half : e);
  const T* base = is_v ? p.v + place.page * p.v_page_stride + place.token * p.v_token_stride + at.row * p.v_head_stride
                       : p.k + place.page * p.k_page_stride + place.token * p.k_token_stride + at.row * p.k_head_stride;
  return base + at.index;
}

// This lane's terms of a token whose first word has index `first_word`.
template <class T>
BI_D std::uint64_t digest_token_part(const digest_kv_params<T>& p, const device::kv_place& place,
                                     std::uint64_t first_word, int lane) {
  constexpr int in_word = 8 / static_cast<int>(sizeof(T));
  const std::int64_t elements = 2 * p.heads * p.head_dim;
  std::uint64_t sum = 0;
  if (p.aligned) {
    for (std::int64_t pair = lane; pair < elements / (2 * in_word); pair += 32) {
      const T* at = digest_element(p, place, pair * 2 * in_word);
      const digest_word_pair words = *reinterpret_cast<const digest_word_pair*>(at);
      const std::uint64_t index = first_word + static_cast<std::uint64_t>(2 * pair);
      sum += contract::digest_term(words.word[0], index) + contract::digest_term(words.word[1], index + 1);
    }
    return sum;
  }
  for (std::int64_t w = lane; w < (elements + in_word - 1) / in_word; w += 32) {
    std::uint64_t word = 0;
#pragma unroll
    for (int i = 0; i < in_word; ++i) {
      const std::int64_t e = w * in_word + i;
      if (e >= elements) break;
      const T* at = digest_element(p, place, e);
      if constexpr (sizeof(T) == 4) {
        word |= static_cast<std::uint64_t>(*reinterpret_cast<const std::uint32_t*>(at)) << (32 * i);
      } else {
        word |= static_cast<std::uint64_t>(*reinterpret_cast<const std::uint16_t*>(at)) << (16 * i);
      }
    }
    sum += contract::digest_term(word, first_word + static_cast<std::uint64_t>(w));
  }
  return sum;
}

// A block a request, a warp a token. Tokens with no place in the cache are left out.
template <class Contract, class T>
BI_KERNEL __launch_bounds__(digest_threads) void digest_kv_kernel(const digest_kv_params<T> p) {
  __shared__ device::integer_scratch<digest_threads> scratch;
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const std::uint64_t token_bytes = contract::kv_token_bytes(p.heads, p.head_dim, static_cast<int>(sizeof(T)));
  for (std::int64_t r = blockIdx.x; r < p.requests; r += gridDim.x) {
    const std::int64_t count = p.count[r];
    std::uint64_t sum = 0;
    if (count > 0) {
      const std::int64_t first = p.first == nullptr ? 0 : p.first[r];
      device::view_cursor cursor(p.view, r);
      cursor.skip_to(first + warp);
      for (std::int64_t t = warp; t < count; t += digest_threads / 32) {
        if (first + t < 0) continue;
        const device::kv_place place = cursor.place(first + t);
        if (!place.valid()) continue;
        sum += digest_token_part(p, place, contract::kv_token_word(static_cast<std::uint64_t>(t), token_bytes), lane);
      }
    }
    sum = device::block_reduce(sum, scratch, device::integer_sum{});
    if (threadIdx.x == 0) {
      const std::uint64_t tokens = count > 0 ? static_cast<std::uint64_t>(count) : 0;
      p.out[r] = sum + contract::digest_length_term(tokens * token_bytes);
    }
  }
}

}  // namespace kernel
BI_NAMESPACE_END
