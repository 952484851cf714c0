// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/device/rope.cuh"
#include "bi/device/vector.cuh"
#include "bi/kernel/kv_append.cuh"
#include "bi/kv_cache.hpp"

// What kv_append's kernels are given, without a launch.

BI_NAMESPACE_BEGIN

namespace launch_detail {

template <class T>
kernel::kv_append_params<T> make_kv_append_params(const kv_append_args<T>& a) {
  const auto pages = [](T* data, const cache_strides& s) {
    return kernel::kv_append_heads<T>{data, s.page, s.token, s.head};
  };
  const cache_strides k = k_source_strides(a), v = v_source_strides(a), q = q_source_strides(a), o = q_out_strides(a);
  kernel::kv_append_params<T> p = {};
  p.from[kernel::of_k] = {a.k, 0, k.token, k.head};
  p.from[kernel::of_v] = {a.v, 0, v.token, v.head};
  p.to[kernel::of_k] = pages(a.cache.k, k_strides(a.cache));
  p.to[kernel::of_v] = pages(a.cache.v, v_strides(a.cache));
  p.weight[kernel::of_k] = a.norm_weight;
  if (a.q != nullptr) {
    p.from[kernel::of_q] = {a.q, 0, q.token, q.head};
    p.to[kernel::of_q] = {a.q_out, 0, o.token, o.head};
    p.weight[kernel::of_q] = a.q_norm_weight;
    p.heads_q = a.heads_q;
  }
  p.slot = a.slot;
  p.position = a.table.cos != nullptr ? a.position : nullptr;
  p.digest = a.digest;
  p.run_index = a.run_index;
  p.num_pages = a.cache.num_pages;
  p.page_size = a.cache.page_size;
  p.head_dim = a.cache.head_dim;
  p.tokens = a.tokens;
  p.heads = a.cache.heads;
  p.rope = device::make_rope_source(a.table, a.cache.head_dim);
  p.norm_eps = a.norm_eps;
  const int bytes = static_cast<int>(sizeof(T));
  p.head_seeds = static_cast<std::uint32_t>(p.head_dim * bytes / 8) * contract::digest_word_step;
  p.token_seeds = p.run_index == nullptr ? 0 : static_cast<std::uint32_t>(2 * p.heads) * p.head_seeds;
  p.some_index = p.run_index != nullptr ? p.run_index : reinterpret_cast<const std::int32_t*>(p.slot);
  p.positions =
      p.position == nullptr ? ~0u : static_cast<std::uint32_t>(std::min<std::int64_t>(p.rope.positions, 1ll << 31));
  p.angle_bytes = static_cast<std::uint32_t>(p.rope.rotary_dim / 2 * static_cast<int>(sizeof(float)));
  p.page_bits = 0;
  while (p.page_bits < 62 && std::int64_t{1} << p.page_bits < p.page_size) ++p.page_bits;
  if (std::int64_t{1} << p.page_bits != p.page_size) p.page_bits = -1;
  p.head_part = (p.head_dim & (p.head_dim - 1)) == 0 ? 1.0f / static_cast<float>(p.head_dim) : 0.0f;
  using device::vector_aligned;
  const auto heads_aligned = [](const auto& x) {
    return vector_aligned(x.data, x.page_stride) && vector_aligned(x.data, x.token_stride) &&
           vector_aligned(x.data, x.head_stride);
  };
  p.aligned = true;
  for (int kind = 0; kind < 3; ++kind) {
    p.aligned =
        p.aligned && heads_aligned(p.from[kind]) && heads_aligned(p.to[kind]) && vector_aligned(p.weight[kind], 0);
  }
  return p;
}

// Threads of a head of so many vectors, `each` elements a lane; 0: not one of its heads.
template <class T>
int kv_append_lanes(const kernel::kv_append_params<T>& p, int each) {
  constexpr int pair = 2 * device::vector_size;
  if (!p.aligned || p.head_dim % each != 0 || p.head_dim > 32 * each || p.rope.rotary_dim % pair != 0) return 0;
  if (p.rope.rotary_dim > 0 && !p.rope.aligned) return 0;
  if (p.heads_q > 1 << 20 || p.heads > 1 << 20) return 0;
  int lanes = 1;
  while (lanes * each < p.head_dim) lanes *= 2;
  return lanes;
}
template <class T>
void set_lanes(kernel::kv_append_params<T>& p, int lanes) {
  p.lanes = lanes;
  for (p.lane_bits = 0; 1 << p.lane_bits < lanes; ++p.lane_bits) {
  }
  p.term_threads = static_cast<int>((2 * p.heads * lanes + 31) / 32 * 32);
}

// The kernel for heads in 16-byte words, two a lane.
template <class Norm, class Rope, class T>
auto kv_append_lanes_kernel_of(bool digest, kernel::kv_append_work work) {
  using w = kernel::kv_append_work;
  const auto of = [work](auto with_digest) {
    constexpr bool digest_too = decltype(with_digest)::value;
    return work == w::round   ? kernel::kv_append_lanes_kernel<Norm, Rope, T, digest_too, w::round>
           : work == w::token ? kernel::kv_append_lanes_kernel<Norm, Rope, T, digest_too, w::token>
                              : kernel::kv_append_lanes_kernel<Norm, Rope, T, digest_too, w::tokens>;
  };
  return digest ? of(std::true_type{}) : of(std::false_type{});
}
// What a launch of so many thread blocks does in each.
template <class T>
kernel::kv_append_work kv_append_work_of(const kernel::kv_append_params<T>& p, std::int64_t blocks, int threads,
                                         bool divided) {
  if (blocks < p.tokens) return kernel::kv_append_work::tokens;
  const bool one_round = divided || threads / p.lanes >= 2 * p.heads + p.heads_q;
  return one_round ? kernel::kv_append_work::round : kernel::kv_append_work::token;
}
// Bytes of shared memory for the digest's terms of so many threads: in one round none are kept.
template <class T>
int kv_append_terms_bytes(const kernel::kv_append_params<T>& p, kernel::kv_append_work work, int threads) {
  return p.digest == nullptr || work == kernel::kv_append_work::round ? 0 : 8 * threads;
}

}  // namespace launch_detail

BI_NAMESPACE_END
