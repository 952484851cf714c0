// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/held.cuh"
#include "bi/device/integer.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/device/view.cuh"

// A digest depends on the bytes of its row or run. It is a sum of integers, so which thread adds what is free, and when:
// where several thread blocks share a digest, each adds its part to what digest_clear_kernel left.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int digest_threads = 512;

struct digest_clear_params {
  std::uint64_t* out;
  std::int64_t count;
};
template <class Contract>
BI_KERNEL __launch_bounds__(256) void digest_clear_kernel(const digest_clear_params p) {
  device::begin_dependent();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < p.count) p.out[i] = 0;
}

// What a thread block came to, which is all if it is the only one.
BI_D inline void add_digest(std::uint64_t* out, std::uint64_t sum, int parts) {
  if (parts == 1) {
    *out = sum;
  } else {
    device::add_global_8(out, sum);
  }
}

struct alignas(16) digest_word_pair {
  std::uint64_t word[2];
};

// ---- rows

struct digest_rows_params {
  const unsigned char* data;
  std::int64_t row_stride, rows, row_bytes;
  std::uint64_t* out;
  int granule;  // every row starts at a multiple of this many bytes: 16, 8, 4, 2 or 1
  int parts;    // thread blocks of a row
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

// This thread's terms of part `part` of `parts` of a row.
BI_D inline std::uint64_t digest_row_part(const unsigned char* row, std::int64_t bytes, int granule, int part,
                                          int parts) {
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
    const std::int64_t each = parts == 1 ? words / 2 : (words / 2 + parts - 1) / parts, begin = part * each;
    const std::int64_t end = begin + each < words / 2 ? begin + each : words / 2;
    std::int64_t i = begin + thread;
    for (; i + (held - 1) * digest_threads < end; i += held * digest_threads) {
      digest_word_pair pair[held];
#pragma unroll
      for (int u = 0; u < held; ++u) pair[u] = pairs[i + u * digest_threads];
#pragma unroll
      for (int u = 0; u < held; ++u) add(pair[u], i + u * digest_threads);
    }
    for (; i < end; i += digest_threads) add(pairs[i], i);
    done = words / 2 * 2;
  }
  for (std::int64_t i = done + part * digest_threads + thread; i < words; i += parts * digest_threads) {
    sum += contract::digest_term(load_word(row + 8 * i, granule), static_cast<std::uint64_t>(i));
  }
  if (tail != 0 && part == 0 && thread == 0) {
    sum += contract::digest_term(contract::digest_word(row + 8 * words, tail), static_cast<std::uint64_t>(words));
  }
  return sum;
}

template <class Contract>
BI_KERNEL __launch_bounds__(digest_threads) void digest_rows_kernel(const digest_rows_params p) {
  __shared__ device::integer_scratch<digest_threads> scratch;
  device::begin_dependent();
  for (std::int64_t item = blockIdx.x; item < p.rows * p.parts; item += gridDim.x) {
    const device::flat_item at = device::split({0, p.parts}, item);
    const auto part = static_cast<int>(at.index);
    std::uint64_t sum = digest_row_part(p.data + at.row * p.row_stride, p.row_bytes, p.granule, part, p.parts);
    sum = device::block_reduce(sum, scratch, device::integer_sum{});
    if (threadIdx.x != 0) continue;
    if (part == 0) sum += contract::digest_length_term(static_cast<std::uint64_t>(p.row_bytes));
    add_digest(p.out + at.row, sum, p.parts);
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
  int parts;     // thread blocks of a request
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

// The terms of thread `thread` of `threads` that share a token, whose first word has index `first_word`.
template <class T>
BI_D std::uint64_t digest_token_part(const digest_kv_params<T>& p, const device::kv_place& place,
                                     std::uint64_t first_word, int thread, int threads) {
  constexpr int in_word = 8 / static_cast<int>(sizeof(T));
  const std::int64_t elements = 2 * p.heads * p.head_dim;
  std::uint64_t sum = 0;
  if (p.aligned) {
    for (std::int64_t pair = thread; pair < elements / (2 * in_word); pair += threads) {
      const T* at = digest_element(p, place, pair * 2 * in_word);
      const digest_word_pair words = *reinterpret_cast<const digest_word_pair*>(at);
      const std::uint64_t index = first_word + static_cast<std::uint64_t>(2 * pair);
      sum += contract::digest_term(words.word[0], index) + contract::digest_term(words.word[1], index + 1);
    }
    return sum;
  }
  for (std::int64_t w = thread; w < (elements + in_word - 1) / in_word; w += threads) {
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

// A block a request, or a part of it, a warp a token. Tokens with no place in the cache are left out.
template <class Contract, class T>
BI_KERNEL __launch_bounds__(digest_threads) void digest_kv_kernel(const digest_kv_params<T> p) {
  constexpr int block_warps = digest_threads / 32;
  __shared__ device::integer_scratch<digest_threads> scratch;
  device::begin_dependent();
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const std::uint64_t token_bytes = contract::kv_token_bytes(p.heads, p.head_dim, static_cast<int>(sizeof(T)));
  for (std::int64_t item = blockIdx.x; item < p.requests * p.parts; item += gridDim.x) {
    const device::flat_item at = device::split({0, p.parts}, item);
    const std::int64_t count = p.count[at.row], begin = at.index * block_warps + warp;
    std::uint64_t sum = 0;
    if (begin < count) {
      const std::int64_t first = p.first == nullptr ? 0 : p.first[at.row];
      device::view_cursor cursor(p.view, at.row);
      cursor.skip_to(first + begin);
      for (std::int64_t t = begin; t < count; t += p.parts * block_warps) {
        if (first + t < 0) continue;
        const device::kv_place place = cursor.place(first + t);
        if (!place.valid()) continue;
        const std::uint64_t word = contract::kv_token_word(static_cast<std::uint64_t>(t), token_bytes);
        sum += digest_token_part(p, place, word, lane, 32);
      }
    }
    sum = device::block_reduce(sum, scratch, device::integer_sum{});
    if (threadIdx.x != 0) continue;
    if (at.index == 0) {
      sum += contract::digest_length_term(count > 0 ? static_cast<std::uint64_t>(count) * token_bytes : 0);
    } else if (begin >= count) {
      continue;
    }
    add_digest(p.out + at.row, sum, p.parts);
  }
}

}  // namespace kernel
BI_NAMESPACE_END
