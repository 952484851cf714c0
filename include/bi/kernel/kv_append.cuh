// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/rope.cuh"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/digest.cuh"

// The K of a head in the cache depends on that head's k, the norm's weight and eps, the token's position and that row
// of the table, and so does a head of q; the V is a copy. A token's digest depends on what is written and on its index.

BI_NAMESPACE_BEGIN
namespace kernel {

// [tokens, heads, head_dim].
template <class T>
struct kv_append_heads {
  T* data;
  std::int64_t token_stride, head_stride;

  BI_D T* at(std::int64_t token, std::int64_t head) const { return data + token * token_stride + head * head_stride; }
};
// A cache's K or V.
template <class T>
struct kv_append_pages {
  T* data;
  std::int64_t page_stride, token_stride, head_stride;

  BI_D T* at(const device::kv_place& place, std::int64_t head) const {
    return data + place.page * page_stride + place.token * token_stride + head * head_stride;
  }
};

template <class T>
struct kv_append_params {
  kv_append_heads<const T> k, v, q;
  kv_append_heads<T> q_out;
  kv_append_pages<T> cache_k, cache_v;
  const std::int64_t* slot;
  const std::int32_t* position;  // null without rotation
  const T* k_weight;             // null: no norm
  const T* q_weight;
  std::uint64_t* digest;          // null: none
  const std::int32_t* run_index;  // null: 0
  std::int64_t num_pages, page_size, head_dim, tokens;
  std::int64_t heads_q, heads;  // heads_q = 0 without q
  device::rope_source rope;
  float norm_eps;
  int lanes;     // kv_append_lanes_kernel: threads of a head
  bool aligned;  // every head of every array, and each weight, starts at a multiple of 16 bytes
};

inline constexpr int kv_append_threads = 256;  // of a thread block, at most

// ---- what both kernels ask of a token

struct kv_append_token {
  std::int64_t slot;
  std::int32_t position;
};
template <class T>
BI_D kv_append_token load_token(const kv_append_params<T>& p, std::int64_t token) {
  if (token >= p.tokens) return {-1, 0};
  return {p.slot[token], p.position == nullptr ? 0 : p.position[token]};
}
// Not valid for padding.
template <class T>
BI_D device::kv_place find_place(const kv_append_params<T>& p, const kv_append_token& t) {
  if (t.slot < 0) return {-1, 0};
  const device::flat_item at = device::split({0, p.page_size}, t.slot);
  if (at.row >= p.num_pages) return {-1, 0};
  if (p.position != nullptr && (t.position < 0 || t.position >= p.rope.positions)) return {-1, 0};
  return {static_cast<std::int32_t>(at.row), static_cast<std::int32_t>(at.index)};
}
template <class T>
BI_D std::uint64_t first_word(const kv_append_params<T>& p, std::int64_t token) {
  const auto index = p.run_index == nullptr ? std::int64_t{0} : std::int64_t{p.run_index[token]};
  const std::uint64_t bytes = contract::kv_token_bytes(p.heads, p.head_dim, static_cast<int>(sizeof(T)));
  return contract::kv_token_word(static_cast<std::uint64_t>(index), bytes);
}

// ---- heads of 16 to 512 elements, in 16-byte words

// A head has an even number of vectors of 8, two for each of its lanes. The first pair_lanes lanes hold vectors whose
// elements are rotated with each other, lane and pair_lanes + lane; the others hold the rest in order.
struct kv_append_lane {
  int first, second;  // vectors
  int pair_lanes;
  bool has;  // lanes are a power of two, so some may have no vectors

  BI_D kv_append_lane(int lane, int vectors, int pairs) : pair_lanes(pairs), has(2 * lane < vectors) {
    first = lane < pairs ? lane : 2 * lane;
    second = lane < pairs ? pairs + lane : 2 * lane + 1;
  }
};

template <class T>
struct kv_append_vectors {
  T a[device::vector_size], b[device::vector_size];
};

// The row tree of a head, of which this thread has vectors `lane` and lanes + lane; +0 stands for one that isn't there.
// At each distance both threads get the same sum. Called by whole warps.
template <class T>
BI_D float sum_of_squares(const kv_append_vectors<T>& x, int lanes) {
  float low = 0.0f, high = 0.0f;
#pragma unroll
  for (int e = 0; e < device::vector_size; ++e) {
    low = contract::square_step{}(low, to_f32(x.a[e]));
    high = contract::square_step{}(high, to_f32(x.b[e]));
  }
  float sum = contract::add_step{}(low, high);
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    const float other = __shfl_xor_sync(device::full_warp, sum, d);
    if (d < lanes) sum = contract::add_step{}(sum, other);
  }
  return sum;
}

// What a lane needs of the table, the same for all heads of a token.
struct kv_append_angles {
  float cos[device::vector_size], sin[device::vector_size];
};
BI_D inline void load_angles(const device::rope_source& s, std::int64_t position, const kv_append_lane& mine,
                             kv_append_angles& angles) {
  constexpr int width = device::vector_size, half = width / 2;
  const auto load = [&](const float* row, float(&out)[width]) {
    row += position * (s.rotary_dim / 2);
    if (s.style == rope_style::half) {
      device::load_vector(row + mine.first * width, width, s.aligned, out);
      return;
    }
#pragma unroll
    for (int e = 0; e < half; ++e) {
      out[e] = row[mine.first * half + e];
      out[half + e] = row[mine.second * half + e];
    }
  };
  load(s.cos, angles.cos);
  load(s.sin, angles.sin);
}
template <class Rope, class T>
BI_D void rotate(rope_style style, const kv_append_angles& angles, kv_append_vectors<T>& x) {
  constexpr int width = device::vector_size;
  if (style == rope_style::half) {
#pragma unroll
    for (int e = 0; e < width; ++e) Rope::rotate(x.a[e], x.b[e], angles.cos[e], angles.sin[e]);
    return;
  }
#pragma unroll
  for (int e = 0; e < width / 2; ++e) {
    Rope::rotate(x.a[2 * e], x.a[2 * e + 1], angles.cos[e], angles.sin[e]);
    Rope::rotate(x.b[2 * e], x.b[2 * e + 1], angles.cos[width / 2 + e], angles.sin[width / 2 + e]);
  }
}

template <class Norm, class T>
BI_D void normalise(const T* weight, float scale, const kv_append_lane& mine, kv_append_vectors<T>& x) {
  constexpr int width = device::vector_size;
  float w[width];
  device::load_vector_f32(weight + mine.first * width, width, true, w);
#pragma unroll
  for (int e = 0; e < width; ++e) x.a[e] = Norm::template value<T>(to_f32(x.a[e]), scale, w[e]);
  device::load_vector_f32(weight + mine.second * width, width, true, w);
#pragma unroll
  for (int e = 0; e < width; ++e) x.b[e] = Norm::template value<T>(to_f32(x.b[e]), scale, w[e]);
}

template <class T>
BI_D std::uint64_t digest_vector(const T (&x)[device::vector_size], std::uint64_t word) {
  std::uint64_t words[sizeof x / 8], sum = 0;
  std::memcpy(words, x, sizeof x);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof x / 8); ++i) {
    sum += contract::digest_term(words[i], word + static_cast<std::uint64_t>(i));
  }
  return sum;
}

// A thread block a token at a time; its rows are the heads of q, of k and of v, in this order, dealt out to groups of
// `lanes` threads. What a group works on next is loaded before it works, that of padding too.
template <class Norm, class Rope, class T>
BI_KERNEL __launch_bounds__(kv_append_threads,
                            sizeof(T) == 2 ? 3 : 2) void kv_append_lanes_kernel(const kv_append_params<T> p) {
  constexpr int width = device::vector_size, words = width * static_cast<int>(sizeof(T)) / 8;
  __shared__ std::uint64_t warp_sums[2][kv_append_threads / 32];
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (p.lanes - 1), group = thread / p.lanes;
  const int groups = static_cast<int>(blockDim.x) / p.lanes, vectors = static_cast<int>(p.head_dim / width);
  const int heads_q = static_cast<int>(p.heads_q), heads = static_cast<int>(p.heads), rows = heads_q + 2 * heads;
  const bool rotates = p.rope.rotary_dim > 0;
  const kv_append_lane mine(lane, vectors, rotates ? static_cast<int>(p.rope.rotary_dim / (2 * width)) : vectors / 2);
  const int in_a = mine.first * width, in_b = mine.second * width;  // elements of the head

  const auto source = [&](std::int64_t token, int row) {
    return row < heads_q           ? p.q.at(token, row)
           : row < heads_q + heads ? p.k.at(token, row - heads_q)
                                   : p.v.at(token, row - heads_q - heads);
  };
  const auto load = [&](std::int64_t token, int row) {
    kv_append_vectors<T> x = {};
    if (row >= rows || token >= p.tokens || !mine.has) return x;
    const T* from = source(token, row);
    device::load_vector(from + in_a, width, true, x.a);
    device::load_vector(from + in_b, width, true, x.b);
    return x;
  };

  std::int64_t token = blockIdx.x;
  kv_append_token next = load_token(p, token);
  kv_append_vectors<T> next_x = load(token, group);
  for (int turn = 0; token < p.tokens; token += gridDim.x) {
    const kv_append_token now = next;
    next = load_token(p, token + gridDim.x);
    const device::kv_place place = find_place(p, now);
    if (!place.valid()) {
      next_x = load(token + gridDim.x, group);
      if (p.digest != nullptr && thread == 0) p.digest[token] = 0;
      continue;
    }
    kv_append_angles angles;
    if (rotates && lane < mine.pair_lanes) load_angles(p.rope, now.position, mine, angles);
    std::uint64_t sum = 0;

    for (int first = 0; first < rows; first += groups) {  // the same rounds for every group: warps exchange values
      const int row = first + group;
      kv_append_vectors<T> x = next_x;
      next_x = first + groups < rows ? load(token, row + groups) : load(token + gridDim.x, group);
      const T* weight = row < heads_q ? p.q_weight : row < heads_q + heads ? p.k_weight : nullptr;
      if (__any_sync(device::full_warp, weight != nullptr)) {
        // Those of the tree, where they aren't those of the rotation: read a second time.
        kv_append_vectors<T> of_tree = x;
        if (mine.pair_lanes != p.lanes) {
          of_tree = {};
          const int a = row < rows ? lane : vectors, b = p.lanes + a;
          if (a < vectors) device::load_vector(source(token, row) + a * width, width, true, of_tree.a);
          if (b < vectors) device::load_vector(source(token, row) + b * width, width, true, of_tree.b);
        }
        const float ss = sum_of_squares(of_tree, p.lanes);
        if (weight != nullptr && mine.has) {
          normalise<Norm>(weight, contract::norm_scale(ss, p.head_dim, p.norm_eps), mine, x);
        }
      }
      if (row >= rows || !mine.has) continue;
      if (rotates && row < heads_q + heads && lane < mine.pair_lanes) rotate<Rope>(p.rope.style, angles, x);
      T* to = row < heads_q           ? p.q_out.at(token, row)
              : row < heads_q + heads ? p.cache_k.at(place, row - heads_q)
                                      : p.cache_v.at(place, row - heads_q - heads);
      device::store_vector(to + in_a, width, true, x.a);
      device::store_vector(to + in_b, width, true, x.b);
      if (p.digest == nullptr || row < heads_q) continue;
      const std::uint64_t at_row = first_word(p, token) + static_cast<std::uint64_t>((row - heads_q) * vectors) * words;
      sum += digest_vector(x.a, at_row + static_cast<std::uint64_t>(mine.first * words));
      sum += digest_vector(x.b, at_row + static_cast<std::uint64_t>(mine.second * words));
    }

    if (p.digest == nullptr) continue;
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
      sum += static_cast<std::uint64_t>(__shfl_xor_sync(device::full_warp, static_cast<unsigned long long>(sum), d));
    }
    if (thread % 32 == 0) warp_sums[turn][thread / 32] = sum;
    __syncthreads();  // one a digest: the next one's sums have the other half
    if (thread == 0) {
      for (int w = 1; w < static_cast<int>(blockDim.x) / 32; ++w) sum += warp_sums[turn][w];
      p.digest[token] = sum;
    }
    turn ^= 1;
  }
}

// ---- heads of any size, alignment and rotary_dim

// One head of q or k by a warp. x is read again after the sum of squares; it is in L1 by then. Norm and rotation each
// round to T, as separate calls do, with no store between them. to may be x: an item reads what it writes, and no other
// does.
template <class Norm, class Rope, class T>
BI_D void kv_append_head(const kv_append_params<T>& p, const T* x, const T* weight, std::int64_t position, T* to) {
  constexpr int width = device::vector_size;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const auto aligned = [&](std::int64_t i) { return p.aligned && i * static_cast<int>(sizeof(T)) % 16 == 0; };
  float scale = 0.0f;
  if (weight != nullptr) {
    device::row_group<32> group(lane, nullptr);
    const device::fold_elements<T, contract::square_step> squares = {x, p.aligned, {}};
    const float ss = group.fold_row(p.head_dim, 0.0f, squares, contract::add_step{});
    scale = contract::norm_scale(ss, p.head_dim, p.norm_eps);
  }
  const auto load = [&](std::int64_t i, int n, T(&v)[width]) {
    device::load_vector(x + i, n, aligned(i), v);
    if (weight == nullptr) return;
    float w[width];
    device::load_vector_f32(weight + i, n, aligned(i), w);
#pragma unroll
    for (int e = 0; e < width; ++e) v[e] = Norm::template value<T>(to_f32(v[e]), scale, w[e]);
  };
  const auto store = [&](std::int64_t i, int n, const T(&v)[width]) { device::store_vector(to + i, n, aligned(i), v); };
  for (std::int64_t item = lane; item < p.rope.items(); item += 32) {
    device::rope_item<Rope, T>(p.rope, position, item, load, store);
  }
}
template <class T>
BI_D void kv_append_copy(const kv_append_params<T>& p, const T* x, T* to) {
  for (std::int64_t item = threadIdx.x % 32; item < device::vectors_of(p.head_dim); item += 32) {
    const std::int64_t i = item * device::vector_size;
    const int n = device::vector_length(p.head_dim, item);
    T v[device::vector_size];
    device::load_vector(x + i, n, p.aligned, v);
    device::store_vector(to + i, n, p.aligned, v);
  }
}

// A thread block a token at a time, its warps share the heads. The digest reads the cache again: a word may hold parts
// of two heads.
template <class Norm, class Rope, class T>
BI_KERNEL __launch_bounds__(kv_append_threads) void kv_append_kernel(const kv_append_params<T> p) {
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (std::int64_t token = blockIdx.x; token < p.tokens; token += gridDim.x) {
    const kv_append_token now = load_token(p, token);
    const device::kv_place place = find_place(p, now);
    if (!place.valid()) {
      if (p.digest != nullptr && threadIdx.x == 0) p.digest[token] = 0;
      continue;
    }
    for (std::int64_t row = warp; row < p.heads_q + p.heads; row += warps) {
      const std::int64_t head = row - p.heads_q;
      if (head < 0) {
        kv_append_head<Norm, Rope>(p, p.q.at(token, row), p.q_weight, now.position, p.q_out.at(token, row));
        continue;
      }
      kv_append_head<Norm, Rope>(p, p.k.at(token, head), p.k_weight, now.position, p.cache_k.at(place, head));
      kv_append_copy(p, p.v.at(token, head), p.cache_v.at(place, head));
    }
    if (p.digest == nullptr) continue;
    __syncthreads();  // all that the token's digest reads has been written
    if (warp != 0) continue;
    digest_kv_params<T> d = {};
    d.k = p.cache_k.data;
    d.v = p.cache_v.data;
    d.k_page_stride = p.cache_k.page_stride;
    d.k_token_stride = p.cache_k.token_stride;
    d.k_head_stride = p.cache_k.head_stride;
    d.v_page_stride = p.cache_v.page_stride;
    d.v_token_stride = p.cache_v.token_stride;
    d.v_head_stride = p.cache_v.head_stride;
    d.heads = p.heads;
    d.head_dim = p.head_dim;
    std::uint64_t sum = digest_token_part(d, place, first_word(p, token), static_cast<int>(threadIdx.x));
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
      sum += static_cast<std::uint64_t>(__shfl_xor_sync(device::full_warp, static_cast<unsigned long long>(sum), i));
    }
    if (threadIdx.x == 0) p.digest[token] = sum;
  }
}

}  // namespace kernel
BI_NAMESPACE_END
