// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/rope.cuh"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"

// The K of a head in the cache depends on that head's k, the norm's weight and eps, the token's position and that row
// of the table; the V is a copy.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct kv_append_params {
  const T* k;
  const T* v;
  T* cache_k;
  T* cache_v;
  const std::int64_t* slot;
  const std::int32_t* position;  // null without rotation
  const T* norm_weight;          // null: no norm
  std::int64_t k_token_stride, k_head_stride, v_token_stride, v_head_stride;
  std::int64_t cache_k_page_stride, cache_k_token_stride, cache_k_head_stride;
  std::int64_t cache_v_page_stride, cache_v_token_stride, cache_v_head_stride;
  std::int64_t num_pages, page_size, head_dim;
  device::flat_items heads;  // tokens, heads of each
  device::rope_source rope;
  float norm_eps;
  bool aligned;  // every head of every array, and the weight, starts at a multiple of 16 bytes
};

// One head of one token by a warp: its lanes share the items of K and of V. k is read again after the sum of squares;
// it is in L1 by then. Norm and rotation each round to T, as separate calls do, with no store between them.
template <class Norm, class Rope, class T>
BI_D void kv_append_head(const kv_append_params<T>& p, std::int64_t token, std::int64_t head) {
  constexpr int width = device::vector_size;
  const std::int64_t slot = p.slot[token];
  if (slot < 0) return;
  const std::int64_t page = slot / p.page_size;
  if (page >= p.num_pages) return;
  std::int64_t position = 0;
  if (p.position != nullptr) {
    position = p.position[token];
    if (position < 0 || position >= p.rope.positions) return;
  }
  const std::int64_t in_page = slot - page * p.page_size;
  const T* k = p.k + token * p.k_token_stride + head * p.k_head_stride;
  const T* v = p.v + token * p.v_token_stride + head * p.v_head_stride;
  T* cache_k =
      p.cache_k + page * p.cache_k_page_stride + in_page * p.cache_k_token_stride + head * p.cache_k_head_stride;
  T* cache_v =
      p.cache_v + page * p.cache_v_page_stride + in_page * p.cache_v_token_stride + head * p.cache_v_head_stride;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const auto aligned = [&](std::int64_t i) { return p.aligned && i * static_cast<int>(sizeof(T)) % 16 == 0; };

  float scale = 0.0f;
  if (p.norm_weight != nullptr) {
    device::row_group<32> group(lane, nullptr);
    const device::fold_elements<T, contract::square_step> squares = {k, p.aligned, {}};
    const float ss = group.fold_row(p.head_dim, 0.0f, squares, contract::add_step{});
    scale = contract::norm_scale(ss, p.head_dim, p.norm_eps);
  }
  const auto load_k = [&](std::int64_t i, int n, T(&x)[width]) {
    device::load_vector(k + i, n, aligned(i), x);
    if (p.norm_weight == nullptr) return;
    float w[width];
    device::load_vector_f32(p.norm_weight + i, n, aligned(i), w);
#pragma unroll
    for (int e = 0; e < width; ++e) x[e] = Norm::template value<T>(to_f32(x[e]), scale, w[e]);
  };
  const auto store_k = [&](std::int64_t i, int n, const T(&x)[width]) {
    device::store_vector(cache_k + i, n, aligned(i), x);
  };

  const std::int64_t k_items = p.rope.items(), items = k_items + device::vectors_of(p.head_dim);
  for (std::int64_t item = lane; item < items; item += 32) {
    if (item < k_items) {
      device::rope_item<Rope, T>(p.rope, position, item, load_k, store_k);
    } else {
      const std::int64_t i = (item - k_items) * width;
      const int n = device::vector_length(p.head_dim, item - k_items);
      T x[width];
      device::load_vector(v + i, n, p.aligned, x);
      device::store_vector(cache_v + i, n, p.aligned, x);
    }
  }
}

// Padding, and tokens whose slot or position is out of range, are skipped.
template <class Norm, class Rope, class T>
BI_KERNEL __launch_bounds__(256) void kv_append_kernel(const kv_append_params<T> p) {
  device::for_items<32>(p.heads, [&](device::flat_item item) { kv_append_head<Norm, Rope>(p, item.row, item.index); });
}

}  // namespace kernel
BI_NAMESPACE_END
