// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/device/held.cuh"
#include "bi/device/integer.cuh"
#include "bi/device/order.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/device/ptx/store.cuh"
#include "bi/device/rope.cuh"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/kv_append.cuh"
#include "bi/kernel/kv_append_digest.cuh"

// As bi/kernel/kv_append.cuh, for few tokens. Their time is that of one dependent instruction after another, so nothing
// is on the way from a token's data to its bytes that can be done before the data comes, or on other processors.

BI_NAMESPACE_BEGIN
namespace kernel {

// ---- heads of 8 to 256 elements, a vector a lane

// Four neighbouring elements, as they are stored.
template <class T>
struct kv_append_quad {
  static constexpr int words = static_cast<int>(sizeof(T)), size = 4;
  std::uint32_t word[words];

  BI_D void load(const T* p) {
    if constexpr (words == 2) {
      device::load_global_8(p, word[0], word[1]);
    } else {
      device::load_global_16(p, word[0], word[1], word[2], word[3]);
    }
  }
  BI_D void store(T* p) const {
    if constexpr (words == 2) {
      device::store_global_8(p, word[0], word[1]);
    } else {
      device::store_global_16(p, word[0], word[1], word[2], word[3]);
    }
  }
  BI_D void get(T (&x)[size]) const { device::unpack_elements(word, x); }
  BI_D void set(const T (&x)[size]) { device::pack_elements(x, word); }
};
template <class T>
struct kv_append_quads {
  kv_append_quad<T> low, high;
};

// A lane loads and squares a vector, then owns two quads: the halves of its vector, or, where element i turns with
// i + rotary_dim / 2, one half of it and the quad that this half turns with. The partner has the others.
struct kv_append_quad_lane {
  std::uint32_t vector;     // element of the head, where the vector begins
  std::uint32_t low, high;  // and the quads
  int partner;              // a lane of the warp
  bool has;                 // lanes are a power of two, so some may have no vector
  bool turns, swaps, second;
  std::uint32_t mask;  // ~0 or, without a vector, 0

  BI_D kv_append_quad_lane(const device::rope_source& rope, int lane, int lanes, int vectors) {
    constexpr std::uint32_t width = device::vector_size, half = width / 2;
    const int rotary = static_cast<int>(rope.rotary_dim) / device::vector_size, pairs = rotary / 2;
    has = lane < vectors;
    mask = has ? ~0u : 0;
    const int mine = has ? lane : 0;
    turns = mine < rotary;
    swaps = turns && rope.style == rope_style::half;
    second = swaps && mine >= pairs;
    const int other = !swaps ? mine : second ? mine - pairs : mine + pairs;
    partner = (static_cast<int>(threadIdx.x % 32) & -lanes) + other;
    vector = static_cast<std::uint32_t>(mine) * width;
    const std::uint32_t other_vector = static_cast<std::uint32_t>(other) * width;
    low = second ? other_vector + half : vector;
    high = swaps && !second ? other_vector : vector + half;
  }
  // Called by whole warps.
  template <class T>
  BI_D kv_append_quads<T> quads(const device::held_vector<T>& x) const {
    constexpr int words = kv_append_quad<T>::words;
    kv_append_quads<T> q;
#pragma unroll
    for (int w = 0; w < words; ++w) {
      const std::uint32_t low_word = x.word[w], high_word = x.word[words + w];
      const std::uint32_t other = __shfl_sync(device::full_warp, second ? low_word : high_word, partner);
      q.low.word[w] = second ? other : low_word;
      q.high.word[w] = swaps && !second ? other : high_word;
    }
    return q;
  }
};

// The row tree of a head of so many lanes, a vector a lane. At each distance both threads get the same sum. Called by
// whole warps.
BI_D inline float sum_of_head(float sum, int lanes) {
  if (lanes == 32) sum = contract::add_step{}(sum, __shfl_xor_sync(device::full_warp, sum, 16));
#pragma unroll
  for (int d = 8; d > 0; d /= 2) {
    const float other = __shfl_xor_sync(device::full_warp, sum, d);
    if (d < lanes) sum = contract::add_step{}(sum, other);
  }
  return sum;
}

// What a lane needs of the table, the same for all heads of a token.
struct kv_append_quad_angles {
  float cos[4], sin[4];

  // Of a row so many bytes after the first.
  BI_D void load(const float* first_cos, const float* first_sin, std::uint64_t bytes) {
    load_four(reinterpret_cast<const char*>(first_cos) + bytes, cos);
    load_four(reinterpret_cast<const char*>(first_sin) + bytes, sin);
  }

 private:
  BI_D static void load_four(const void* from, float (&out)[4]) {
    std::uint32_t x[4];
    device::load_global_16(from, x[0], x[1], x[2], x[3]);
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = float_of(x[e]);
  }
};
template <class Norm, class T>
BI_D void normalise(const kv_append_quad<T>& weight, float scale, kv_append_quad<T>& x) {
  constexpr int size = kv_append_quad<T>::size;
  T v[size], w[size];
  x.get(v);
  weight.get(w);
#pragma unroll
  for (int e = 0; e < size; ++e) v[e] = Norm::template value<T>(to_f32(v[e]), scale, to_f32(w[e]));
  x.set(v);
}

// The heads of k, of v and of q, in this order, are dealt out to groups of `lanes` threads, a head each. gridDim.y thread
// blocks share a token: the first has k and v then, and the others q. All that does not come from memory is made ahead
// of the wait; who has nothing to do loads what another has, so that nobody branches.
template <class Norm, class Rope, class T, bool Digest>
BI_KERNEL __launch_bounds__(kv_append_threads,
                            kv_append_blocks<T, false>) void kv_append_once_kernel(const kv_append_params<T> p) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (p.lanes - 1), group = thread >> p.lane_bits;
  const int groups = static_cast<int>(blockDim.x) >> p.lane_bits;
  const int heads = static_cast<int>(p.heads), cached = 2 * heads, all = cached + static_cast<int>(p.heads_q);
  const int part = static_cast<int>(blockIdx.y), end = part == 0 && gridDim.y > 1 ? cached : all;
  const int row = part == 0 ? group : cached + (part - 1) * groups + group, safe_row = row < end ? row : 0;
  const int kind = safe_row < heads ? of_k : safe_row < cached ? of_v : of_q;
  const int head = safe_row - (kind == of_k ? 0 : kind == of_v ? heads : cached);
  const kv_append_quad_lane mine(p.rope, lane, p.lanes, static_cast<int>(p.head_dim) / device::vector_size);
  const bool works = row < end && mine.has, turns = mine.turns && kind != of_v;
  const bool may_add = Digest && part == 0 && thread < p.term_threads;
  const std::int64_t token = blockIdx.x;

  const T* const source = p.from[kind].at(0, token, head) + mine.vector;
  const T* const weight = row < end ? p.weight[kind] : nullptr;
  // Who has no weight, no angles or no position reads other things there, and leaves them.
  const T* const weights = weight != nullptr ? weight : source - mine.vector;
  const std::int64_t* const slot_at = p.slot + token;
  const std::int32_t* const other = reinterpret_cast<const std::int32_t*>(slot_at);
  const std::int32_t* const position_at = p.position != nullptr ? p.position + token : other;
  const std::int32_t* const run_index_at = Digest ? p.some_index + token : other;
  const std::uint32_t angle = p.rope.style == rope_style::half ? mine.low : mine.low / 2;
  const auto* const some = reinterpret_cast<const float*>(source);
  const float *const cos = turns ? p.rope.cos + angle : some, *const sin = turns ? p.rope.sin + angle : some;
  T* to = p.to[kind].at(0, kind == of_q ? token : 0, head);
  const std::int64_t page_stride = kind == of_q ? 0 : p.to[kind].page_stride;
  const std::int64_t token_stride = kind == of_q ? 0 : p.to[kind].token_stride;
  constexpr int words = kv_append_quad<T>::words / 2;  // of the digest, in a quad
  const auto seed_of = [&](std::uint32_t element) {
    return static_cast<std::uint32_t>(row) * p.head_seeds +
           contract::digest_seed(element / kv_append_quad<T>::size * static_cast<std::uint32_t>(words));
  };
  const std::uint32_t low_seed = seed_of(mine.low), high_seed = seed_of(mine.high);
  device::keep_order(p.none, source, weights, slot_at, position_at, run_index_at, cos, sin, to, page_stride,
                     token_stride, low_seed, high_seed);

  device::begin_dependent();
  const std::uint32_t position = device::load_global_4(position_at);
  std::uint32_t slot_low, slot_high;
  device::load_global_8(slot_at, slot_low, slot_high);
  const std::uint32_t run_index = Digest ? device::load_global_4(run_index_at) : 0;
  device::held_vector<T> x;
  x.load(source);
  if (may_add) clear_digest(p, thread, p.term_threads);  // behind the loads that others wait for
  kv_append_quads<T> w;
  w.low.load(weights + mine.low);
  w.high.load(weights + mine.high);

  // A vote: x is asked for before the position is known.
  const bool in_table = __all_sync(device::full_warp, position < p.positions) != 0;
  kv_append_quad_angles angles;
  angles.load(cos, sin, std::uint64_t{turns && in_table ? position : 0} * p.angle_bytes);
  const auto slot = static_cast<std::int64_t>(slot_low | static_cast<std::uint64_t>(slot_high) << 32);
  const device::flat_item place = p.page_bits < 0 ? device::split({0, p.page_size}, slot < 0 ? 0 : slot)
                                                  : device::flat_item{slot >> p.page_bits, slot & (p.page_size - 1)};
  const bool valid = slot >= 0 && place.row < p.num_pages && in_table;
  if (valid) to += place.row * page_stride + place.index * token_stride;
  digest_keys<words> low_keys, high_keys;
  if constexpr (Digest) {
    low_keys.make(low_seed + run_index * p.token_seeds);
    high_keys.make(high_seed + run_index * p.token_seeds);
  }
  // By a vote, not anew at the end.
  const unsigned adding = Digest ? __ballot_sync(device::full_warp, may_add && works && valid && row < cached) : 0;
  to = device::kept(to);
  std::uint64_t* const out = Digest ? device::kept(p.digest + token) : nullptr;
  const int place_in_block = Digest ? device::kept(thread) : 0;
  if constexpr (Digest) {
    device::keep_order(p.none, to, low_keys.bits(), high_keys.bits(), adding);
  } else {
    device::keep_order(p.none, to);
  }

  kv_append_quads<T> y = mine.quads(x);
  if (__any_sync(device::full_warp, weight != nullptr)) {
    const float ss = sum_of_head(float_of(bits_of(sum_of_squares(x)) & mine.mask), p.lanes);
    if (weight != nullptr) {
      const float mean = bits_of(p.head_part) != 0 ? mul_rn(ss, p.head_part) : div_rn(ss, float_from_int64(p.head_dim));
      const float scale = rsqrt_rn(add_rn(mean, p.norm_eps));
      normalise<Norm>(w.low, scale, y.low);
      normalise<Norm>(w.high, scale, y.high);
    }
  }
  if (turns) rotate<Rope, T>(p.rope.style, angles.cos, angles.sin, y.low, y.high);
  if (works && valid) {
    y.low.store(to + mine.low);
    y.high.store(to + mine.high);
  }
  if (adding == 0) return;
  std::uint64_t terms = high_keys.add(low_keys.add(0, y.low.word), y.high.word);
  if (adding != device::full_warp && (adding >> (place_in_block & 31) & 1) == 0) terms = 0;
  terms = device::sum_in_warp(terms);
  if ((place_in_block & 31) != 0) return;
  device::add_global_8(out, terms);
}

}  // namespace kernel
BI_NAMESPACE_END
