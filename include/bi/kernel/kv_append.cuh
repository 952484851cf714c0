// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/held.cuh"
#include "bi/device/integer.cuh"
#include "bi/device/order.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/device/rope.cuh"
#include "bi/device/row.cuh"
#include "bi/device/vector.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/kv_append_digest.cuh"

// The K of a head in the cache depends on that head's k, the norm's weight and eps, the token's position and that row
// of the table, and so does a head of q; the V is a copy. A token's digest depends on what is written and on its index.

BI_NAMESPACE_BEGIN
namespace kernel {

// Heads of k, v or q, of tokens in an array of [tokens, heads, head_dim], or in pages.
template <class T>
struct kv_append_heads {
  T* data;
  std::int64_t page_stride, token_stride, head_stride;  // page_stride = 0 without pages

  BI_D T* at(std::int64_t page, std::int64_t token, std::int64_t head) const {
    return data + page * page_stride + token * token_stride + head * head_stride;
  }
};
enum kv_append_kind : int { of_k, of_v, of_q };  // of arrays that have an entry for each

template <class T>
struct kv_append_params {
  kv_append_heads<const T> from[3];
  kv_append_heads<T> to[3];  // pages, but for q
  const T* weight[3];        // null: no norm
  const std::int64_t* slot;
  const std::int32_t* position;   // null without rotation
  std::uint64_t* digest;          // null: none
  const std::int32_t* run_index;  // null: 0
  std::int64_t num_pages, page_size, head_dim, tokens;
  std::int64_t heads_q, heads;  // heads_q = 0 without q
  device::rope_source rope;
  float norm_eps;
  int lanes, lane_bits;                   // threads of a head, 1 << lane_bits, but for kv_append_kernel
  int term_threads;                       // of kv_append_once_kernel: of warps that have k or v, whose words have terms
  std::uint32_t head_seeds, token_seeds;  // from a head's, or a token's, first word of the digest to the next one's
  // Of kv_append_once_kernel, but for `none`:
  std::uint32_t positions, angle_bytes;  // of the table, and of its rows; 2^32 - 1 positions, if there is no rotation
  const std::int32_t* some_index;        // run_index, or without one whatever can be read, and token_seeds is 0
  int page_bits;                         // 1 << page_bits is page_size; -1: no power of two is
  float head_part;     // 1 / head_dim if that is a power of two: a product with it is the quotient; or +0
  std::uint32_t none;  // 0, which the compiler doesn't know
  bool aligned;        // every head of every array, and each weight, starts at a multiple of 16 bytes
};

inline constexpr int kv_append_threads = 512;  // of a thread block, at most

// ---- what both kernels ask of a token

struct kv_append_token {
  std::int64_t slot;
  std::int32_t position, run_index;
};
// All that is to be known of a token, read by one warp at once: by lanes 0 and 1 the slot, by 2 the position and by 3
// the index in the run. Called by whole warps, as token_of() is.
template <class T>
BI_D std::uint32_t load_token(const kv_append_params<T>& p, std::int64_t token) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (token >= p.tokens) return 0xffffffffu;
  if (lane < 2) return reinterpret_cast<const std::uint32_t*>(p.slot + token)[lane];
  const std::int32_t* const from = lane == 2 ? p.position : lane == 3 && p.digest != nullptr ? p.run_index : nullptr;
  return from == nullptr ? 0 : static_cast<std::uint32_t>(from[token]);
}
BI_D inline kv_append_token token_of(std::uint32_t loaded) {
  const auto word = [&](int lane) { return __shfl_sync(device::full_warp, loaded, lane); };
  return {static_cast<std::int64_t>(word(0) | static_cast<std::uint64_t>(word(1)) << 32),
          static_cast<std::int32_t>(word(2)), static_cast<std::int32_t>(word(3))};
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
BI_D std::uint64_t first_word(const kv_append_params<T>& p, const kv_append_token& t) {
  const std::uint64_t bytes = contract::kv_token_bytes(p.heads, p.head_dim, static_cast<int>(sizeof(T)));
  return contract::kv_token_word(static_cast<std::uint64_t>(std::int64_t{t.run_index}), bytes);
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
  device::held_vector<T> a, b;
};

template <class T>
BI_D float sum_of_squares(const device::held_vector<T>& x) {
  float sum = 0.0f;
#pragma unroll
  for (int e = 0; e < device::vector_size; ++e) sum = contract::square_step{}(sum, x[e]);
  return sum;
}
// The row tree of a head, of which this thread has the sums of vectors `lane` and lanes + lane; +0 stands for one that
// isn't there. At each distance both threads get the same sum. Called by whole warps.
BI_D inline float sum_of_head(float low, float high, int lanes) {
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
  const bool whole = s.style == rope_style::half;  // pairs of a vector lie one after the other, or 4 in each
  const std::int64_t row = position * (s.rotary_dim / 2);
  const std::int64_t low = row + mine.first * (whole ? width : half),
                     high = whole ? low + half : row + mine.second * half;
  const auto load = [&](const float* from, float* out) {
    std::uint32_t x[half];
    device::load_global_16(from, x[0], x[1], x[2], x[3]);
#pragma unroll
    for (int e = 0; e < half; ++e) out[e] = float_of(x[e]);
  };
  load(s.cos + low, angles.cos);
  load(s.cos + high, angles.cos + half);
  load(s.sin + low, angles.sin);
  load(s.sin + high, angles.sin + half);
}
// Of two parts of a head, equally long: their elements with each other, or neighbours in each.
template <class Rope, class T, int Size, class Part>
BI_D void rotate(rope_style style, const float (&cos)[Size], const float (&sin)[Size], Part& low, Part& high) {
  T a[Size], b[Size];
  low.get(a);
  high.get(b);
  if (style == rope_style::half) {
#pragma unroll
    for (int e = 0; e < Size; ++e) Rope::rotate(a[e], b[e], cos[e], sin[e]);
  } else {
#pragma unroll
    for (int e = 0; e < Size / 2; ++e) {
      Rope::rotate(a[2 * e], a[2 * e + 1], cos[e], sin[e]);
      Rope::rotate(b[2 * e], b[2 * e + 1], cos[Size / 2 + e], sin[Size / 2 + e]);
    }
  }
  low.set(a);
  high.set(b);
}

template <class Norm, class T>
BI_D void normalise(const T* weight, float scale, device::held_vector<T>& x) {
  constexpr int width = device::vector_size;
  device::held_vector<T> w;
  w.load(weight);
  T y[width];
#pragma unroll
  for (int e = 0; e < width; ++e) y[e] = Norm::template value<T>(x[e], scale, w[e]);
  x.set(y);
}

// Thread blocks an SM that ptxas leaves registers for; code for architectures before sm_90 takes a few more than 64.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr int kv_append_most_blocks = 1;
#else
inline constexpr int kv_append_most_blocks = 2;
#endif
template <class T, bool SharesWarps>
inline constexpr int kv_append_blocks = sizeof(T) == 4 || SharesWarps ? 1 : kv_append_most_blocks;

// What a thread block does: tokens, one after the other; one token, in rounds; or one round, which is a token or a part.
enum class kv_append_work { tokens, token, round };
template <class T, bool Digest, kv_append_work Work>
inline constexpr int kv_append_lanes_blocks = kv_append_blocks<T, Digest && Work == kv_append_work::tokens>;

// A token's rows are the heads of k, of v and of q, in this order, dealt out to groups of `lanes` threads. Or gridDim.y
// thread blocks share a token, a round each, all at once: the first has k and v then, and the others q. What a group
// works on next is loaded before it works, that of padding too.
template <class Norm, class Rope, class T, bool Digest, kv_append_work Work>
BI_KERNEL __launch_bounds__(kv_append_threads, kv_append_lanes_blocks<T, Digest, Work>) void kv_append_lanes_kernel(
    const kv_append_params<T> p) {
  constexpr bool one_round = Work == kv_append_work::round, one_token = one_round || Work == kv_append_work::token;
  constexpr int width = device::vector_size, words = width * static_cast<int>(sizeof(T)) / 8;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (p.lanes - 1), group = thread >> p.lane_bits;
  const int groups = static_cast<int>(blockDim.x) >> p.lane_bits, vectors = static_cast<int>(p.head_dim / width);
  const int heads = static_cast<int>(p.heads), cached = 2 * heads, rows = cached + static_cast<int>(p.heads_q);
  // Only warps that have k or v have terms. Not p.term_threads: ptxas asks for it behind the wait (0.1 us of 4.3).
  const int whole_warps = ((cached << p.lane_bits) + 31) / 32 * 32;
  const int busy = whole_warps < static_cast<int>(blockDim.x) ? whole_warps : static_cast<int>(blockDim.x);
  const bool rotates = p.rope.rotary_dim > 0;
  const kv_append_lane mine(lane, vectors, rotates ? static_cast<int>(p.rope.rotary_dim / (2 * width)) : vectors / 2);
  const int in_a = mine.first * width, in_b = mine.second * width;  // elements of the head
  const int part = one_token ? static_cast<int>(blockIdx.y) : 0;
  const int begin = part == 0 ? 0 : cached + (part - 1) * groups;
  const int end = !one_token || gridDim.y == 1 ? rows
                  : part == 0                  ? cached
                  : rows < begin + groups      ? rows
                                               : begin + groups;

  const auto kind_of = [&](int row) { return row < heads ? of_k : row < cached ? of_v : of_q; };
  const auto head_of = [&](int row, int kind) { return row - (kind == of_k ? 0 : kind == of_v ? heads : cached); };
  const auto source = [&](std::int64_t token, int row) {
    const int kind = kind_of(row);
    return p.from[kind].at(0, token, head_of(row, kind));
  };
  const auto load = [&](std::int64_t token, int row) {
    kv_append_vectors<T> x;
    x.a.fill(T{});
    x.b.fill(T{});
    if (row >= end || token >= p.tokens || !mine.has) return x;
    const T* from = source(token, row);
    x.a.load(from + in_a);
    x.b.load(from + in_b);
    return x;
  };

  // Parameters come from memory, too, a line at a time. Those that are used last are asked for here.
  device::keep_order(p.none, p.to[of_k].data, p.to[of_v].data, p.weight[of_k], p.head_seeds);
  device::begin_dependent();
  const kv_append_terms block_terms(thread);  // of several rounds
  std::int64_t token = blockIdx.x;
  std::uint32_t next = load_token(p, token);
  kv_append_vectors<T> next_x = load(token, begin + group);
  if (Digest && one_round && busy > 32 && part == 0 && thread < busy) clear_digest(p, thread, busy);
  for (; token < p.tokens; token += gridDim.x) {
    const kv_append_token now = token_of(next);
    if (!one_token) next = load_token(p, token + gridDim.x);
    const device::kv_place place = find_place(p, now);
    if (!place.valid()) {
      if (Digest && thread == 0 && part == 0) p.digest[token] = 0;
      if (one_token) break;
      next_x = load(token + gridDim.x, group);
      continue;
    }
    kv_append_angles angles;
    if (rotates && lane < mine.pair_lanes) load_angles(p.rope, now.position, mine, angles);

    int place_in_block = part == 0 ? thread : busy;
    std::uint64_t* digest = nullptr;
    if constexpr (Digest && one_round) {  // made here, not where it is used
      place_in_block = device::kept(place_in_block);
      digest = device::kept(p.digest + token);
    }
    const std::uint32_t token_seed =
        contract::digest_seed(0) + static_cast<std::uint32_t>(now.run_index) * p.token_seeds;
    // Of the warps that have k or v. In one round each adds what it has; otherwise the first one, which begins with k and so is one of
    // the last, waits for the others.
    const auto end_digest = [&](std::uint64_t terms) {
      if (place_in_block >= busy) return;
      if constexpr (one_round) {
        terms = device::sum_in_warp(terms);
        if (place_in_block % 32 != 0) return;
        if (busy > 32) {
          device::add_global_8(digest, terms);
        } else {
          *digest = terms;
        }
        return;
      }
      if (busy > 32) {
        if (place_in_block >= 32) {
          block_terms.set(terms);
          device::named_arrive(1, busy);
          return;
        }
        device::named_barrier(1, busy);
        terms += block_terms.sum_of_lane(32, busy);
      }
      terms = device::sum_in_warp(terms);
      if (place_in_block == 0) p.digest[token] = terms;
    };
    for (int first = begin; first < end; first += groups) {  // the same rounds for every group: warps exchange values
      const int row = first + group;
      kv_append_vectors<T> x = next_x;
      const bool more = !one_round && first + groups < end;
      if (one_token) {
        if (more) next_x = load(token, first + groups + group);
      } else {
        next_x = load(more ? token : token + gridDim.x, (more ? first + groups : 0) + group);
      }
      const int kind = kind_of(row);
      const T* weight = p.weight[kind];
      if (__any_sync(device::full_warp, weight != nullptr)) {
        float low, high;
        if (mine.pair_lanes == p.lanes) {
          low = sum_of_squares(x.a);
          high = sum_of_squares(x.b);
        } else {  // the tree's vectors aren't the rotation's: they are read a second time
          const auto squares = [&](int vector) {
            device::held_vector<T> of_tree;
            of_tree.fill(T{});
            if (row < end && vector < vectors) of_tree.load(source(token, row) + vector * width);
            return sum_of_squares(of_tree);
          };
          low = squares(lane);
          high = squares(p.lanes + lane);
        }
        const float ss = sum_of_head(low, high, p.lanes);
        if (weight != nullptr && mine.has) {
          const float scale = contract::norm_scale(ss, p.head_dim, p.norm_eps);
          normalise<Norm>(weight + in_a, scale, x.a);
          normalise<Norm>(weight + in_b, scale, x.b);
        }
      }
      std::uint64_t terms = 0;
      if (row < end && mine.has) {
        if (rotates && kind != of_v && lane < mine.pair_lanes) {
          rotate<Rope, T>(p.rope.style, angles.cos, angles.sin, x.a, x.b);
        }
        T* to = p.to[kind].at(place.page, kind == of_q ? token : place.token, head_of(row, kind));
        x.a.store(to + in_a);
        x.b.store(to + in_b);
        if (Digest && kind != of_q) {
          constexpr std::uint32_t step = words * contract::digest_word_step;
          const std::uint32_t seed = token_seed + static_cast<std::uint32_t>(row) * p.head_seeds;
          digest_keys<words> a, b;
          a.make(seed + static_cast<std::uint32_t>(mine.first) * step);
          b.make(seed + static_cast<std::uint32_t>(mine.second) * step);
          terms = b.add(a.add(0, x.a.word), x.b.word);
        }
      }
      if constexpr (one_round) {
        if (Digest) end_digest(terms);
        break;
      }
      if (!Digest || first >= cached) continue;
      // What came before lies in shared memory rather than in a register of every thread.
      if (first > 0) terms += block_terms.get();
      block_terms.set(terms);
    }
    if (Digest && one_token && !one_round) end_digest(block_terms.get());
    if (one_token) break;
    if (!Digest) continue;
    if (blockDim.x > 32) __syncthreads();
    if (thread < 32) {
      const std::uint64_t sum = device::sum_in_warp(block_terms.sum_of_lane(0, static_cast<int>(blockDim.x)));
      if (thread == 0) p.digest[token] = sum;
    }
    if (blockDim.x > 32) __syncthreads();  // the next token's terms take their place
  }
}

}  // namespace kernel
BI_NAMESPACE_END
