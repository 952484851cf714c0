// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/device/integer.cuh"
#include "bi/device/rope.cuh"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/digest.cuh"
#include "bi/kernel/kv_append.cuh"

// As bi/kernel/kv_append.cuh, for heads of any size, alignment and rotary_dim.

BI_NAMESPACE_BEGIN
namespace kernel {

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
BI_KERNEL __launch_bounds__(kv_append_threads, 1) void kv_append_kernel(const kv_append_params<T> p) {
  const kv_append_terms block_terms(static_cast<int>(threadIdx.x));
  device::begin_dependent();
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (std::int64_t token = blockIdx.x; token < p.tokens; token += gridDim.x) {
    const kv_append_token now = token_of(load_token(p, token));
    const device::kv_place place = find_place(p, now);
    if (!place.valid()) {
      if (p.digest != nullptr && threadIdx.x == 0) p.digest[token] = 0;
      continue;
    }
    for (std::int64_t row = warp; row < p.heads_q + p.heads; row += warps) {
      const std::int64_t head = row - p.heads_q;
      if (head < 0) {
        kv_append_head<Norm, Rope>(p, p.from[of_q].at(0, token, row), p.weight[of_q], now.position,
                                   p.to[of_q].at(0, token, row));
        continue;
      }
      kv_append_head<Norm, Rope>(p, p.from[of_k].at(0, token, head), p.weight[of_k], now.position,
                                 p.to[of_k].at(place.page, place.token, head));
      kv_append_copy(p, p.from[of_v].at(0, token, head), p.to[of_v].at(place.page, place.token, head));
    }
    if (p.digest == nullptr) continue;
    __syncthreads();  // all that the token's digest reads has been written
    digest_kv_params<T> d = {};
    const kv_append_heads<T>&k = p.to[of_k], &v = p.to[of_v];
    d.k = k.data, d.k_page_stride = k.page_stride, d.k_token_stride = k.token_stride, d.k_head_stride = k.head_stride;
    d.v = v.data, d.v_page_stride = v.page_stride, d.v_token_stride = v.token_stride, d.v_head_stride = v.head_stride;
    d.heads = p.heads;
    d.head_dim = p.head_dim;
    block_terms.set(
        digest_token_part(d, place, first_word(p, now), static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)));
    __syncthreads();
    if (threadIdx.x < 32) {
      const std::uint64_t sum = device::sum_in_warp(block_terms.sum_of_lane(0, static_cast<int>(blockDim.x)));
      if (threadIdx.x == 0) p.digest[token] = sum;
    }
    __syncthreads();  // the next token's terms take their place
  }
}

}  // namespace kernel
BI_NAMESPACE_END
