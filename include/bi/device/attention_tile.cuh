// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/mma_tile.cuh"
#include "bi/device/row.cuh"
#include "bi/dtype.hpp"

// Attention's products on mma.sync. A warp has 16 rows and a tile of 64 keys; thread 4 g + t holds rows g and g + 8, and of
// each the keys, or columns of V, 8 j + 2 t + e. Wider tiles than 64 values are parts of mma_tile.cuh's width, one after
// another.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int key_tile = 64;

// The same value, unknown to the compiler: what is made of it is not made earlier and kept in registers, which the
// accumulators need.
BI_D inline int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
template <class T>
BI_D const T* opaque(const T* p) {
  asm volatile("" : "+l"(p));
  return p;
}

template <int Rows, class T>
BI_D T* tile_part(T* tile, int part) {
  return tile + part * Rows * tile_width;
}

// 16 bytes of a row to shared memory, zeros if `source` is null; `any` is an address of the same array. See load_tile.
template <class T>
BI_D void copy_chunk(T* target, const T* source, const T* any, bool aligned) {
  if (aligned) {
    cp_async_16(target, source != nullptr ? source : any, source != nullptr ? 16 : 0);
  } else {
    T v[vector_size];
    load_vector(source, source != nullptr ? vector_size : 0, false, v);
    std::memcpy(static_cast<void*>(__builtin_assume_aligned(target, 16)), v, sizeof v);
  }
}

// Rows of HeadDim values from anywhere: row r is at row_at(r), null for zeros.
template <int Rows, int HeadDim, int Threads, class T, class RowAt>
BI_D void gather_tile(T* tile, const T* any, bool aligned, int thread, const RowAt& row_at) {
  constexpr int chunks = HeadDim / chunk_values;
  static_assert(Rows * chunks % Threads == 0, "whole rounds of threads");
#pragma unroll 4
  for (int i = 0; i < Rows * chunks / Threads; ++i) {
    const int index = thread + i * Threads, row = index / chunks, chunk = index % chunks;
    T* target = tile_chunk(tile_part<Rows>(tile, chunk / row_chunks), row, chunk % row_chunks);
    const T* source = row_at(row);
    copy_chunk(target, source != nullptr ? source + chunk * chunk_values : nullptr, any, aligned);
  }
}

// S = Q K^T of 16 rows and the keys [first, first + 8 Blocks) of a tile, from +0, the k16 steps of head_dim ascending.
// fragment(a, step): that of Q.
template <int HeadDim, int Blocks, class T, class Fragment>
BI_D void attention_scores_of(float (&s)[Blocks][4], T* k, int first, int lane, const Fragment& fragment) {
#pragma unroll
  for (int j = 0; j < Blocks; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[j][i] = 0.0f;
  }
#pragma unroll
  for (int step = 0; step < HeadDim / 16; ++step) {
    std::uint32_t a[4];
    fragment(a, step);
#pragma unroll
    for (int j = 0; j < Blocks; j += 2) {
      std::uint32_t b[2][2];
      load_b_fragments(b, tile_part<key_tile>(k, step / 4), first + 8 * j, step % 4, lane);
      mma_m16n8k16<T>(s[j], a, b[0]);
      mma_m16n8k16<T>(s[j + 1], a, b[1]);
    }
  }
}

// The same of rows [row, row + 16) of a tile in shared memory.
template <int Rows, int HeadDim, class T>
BI_D void attention_scores(float (&s)[key_tile / 8][4], T* q, int row, T* k, int lane) {
  attention_scores_of<HeadDim>(s, k, 0, lane, [&](std::uint32_t(&a)[4], int step) {
    load_a_fragment(a, tile_part<Rows>(q, step / 4), row, step % 4, lane);
  });
}

// Weights as V's type, in the fragments of P: where S left them is where P's fragments want them.
template <class T, int Steps>
BI_D void attention_pack_weights(std::uint32_t (&p)[Steps][4], const float (&s)[2 * Steps][4]) {
#pragma unroll
  for (int step = 0; step < Steps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&x)[4] = s[2 * step + i / 2];
      const std::uint32_t low = cvt_rn<T>(x[2 * (i % 2)]).bits, high = cvt_rn<T>(x[2 * (i % 2) + 1]).bits;
      p[step][i] = low | high << 16;
    }
  }
}

// o += P V for the rows h with sees[h], the k16 steps of the tile's keys ascending; the others keep their bits.
// Select = false: all rows see keys of the tile. v: the part of the tile with the first of o's columns, which is the first
// of block `first` of the part's 8.
template <bool Select, int Blocks, class T>
BI_D void attention_add_values(float (&o)[Blocks][4], const std::uint32_t (&p)[key_tile / 16][4], T* v,
                               const bool (&sees)[2], int lane, int first = 0) {
  if constexpr (Blocks == 1) {
    float acc[4] = {o[0][0], o[0][1], o[0][2], o[0][3]};
#pragma unroll
    for (int step = 0; step < key_tile / 16; step += 2) {
      std::uint32_t b[2][2];
      load_b_steps_transposed(b, v, 8 * first, step, lane);
      mma_m16n8k16<T>(acc, p[step], b[0]);
      mma_m16n8k16<T>(acc, p[step + 1], b[1]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!Select || sees[i / 2]) o[0][i] = acc[i];
    }
  }
#pragma unroll
  for (int j = 0; j + 1 < Blocks; j += 2) {
    float acc[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) acc[i / 4][i % 4] = o[j + i / 4][i % 4];
#pragma unroll
    for (int step = 0; step < key_tile / 16; ++step) {
      std::uint32_t b[2][2];
      load_b_fragments_transposed(b, tile_part<key_tile>(v, j / 8), 8 * (first + j % 8), step, lane);
      mma_m16n8k16<T>(acc[0], p[step], b[0]);
      mma_m16n8k16<T>(acc[1], p[step], b[1]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (!Select || sees[i % 4 / 2]) o[j + i / 4][i % 4] = acc[i / 4][i % 4];
    }
  }
}

// The same, row by row, with V = 0 at the keys that the row does not see: row h of this thread sees [begin[h], end[h]).
// For tiles where such a key's V is Inf or NaN, of which even a weight of 0 makes NaN.
template <int Blocks, class T>
BI_D void attention_add_masked_values(float (&o)[Blocks][4], const std::uint32_t (&p)[key_tile / 16][4], T* v,
                                      const int (&begin)[2], const int (&end)[2], int lane, int first_block = 0) {
#pragma unroll 1
  for (int row = 0; row < 16; ++row) {
    const int owner = row % 8 * 4;
    const int first = __shfl_sync(full_warp, row < 8 ? begin[0] : begin[1], owner);
    const int last = __shfl_sync(full_warp, row < 8 ? end[0] : end[1], owner);
    if (first >= last) continue;
    std::uint32_t mask[key_tile / 8];  // of the pair of keys 8 j + 2 t, in a B fragment
#pragma unroll
    for (int j = 0; j < key_tile / 8; ++j) {
      const int key = 8 * j + lane % 4 * 2;
      mask[j] = (key >= first && key < last ? 0xffffu : 0u) | (key + 1 >= first && key + 1 < last ? 0xffff0000u : 0u);
    }
    const bool mine[2] = {lane / 4 == row, lane / 4 + 8 == row};
    if constexpr (Blocks == 1) {
      float acc[4] = {o[0][0], o[0][1], o[0][2], o[0][3]};
#pragma unroll
      for (int step = 0; step < key_tile / 16; step += 2) {
        std::uint32_t b[2][2];
        load_b_steps_transposed(b, v, 8 * first_block, step, lane);
#pragma unroll
        for (int i = 0; i < 4; ++i) b[i / 2][i % 2] &= mask[2 * step + i];
        mma_m16n8k16<T>(acc, p[step], b[0]);
        mma_m16n8k16<T>(acc, p[step + 1], b[1]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (mine[i / 2]) o[0][i] = acc[i];
      }
    }
#pragma unroll
    for (int j = 0; j + 1 < Blocks; j += 2) {
      float acc[2][4];
#pragma unroll
      for (int i = 0; i < 8; ++i) acc[i / 4][i % 4] = o[j + i / 4][i % 4];
#pragma unroll
      for (int step = 0; step < key_tile / 16; ++step) {
        std::uint32_t b[2][2];
        load_b_fragments_transposed(b, tile_part<key_tile>(v, j / 8), 8 * (first_block + j % 8), step, lane);
#pragma unroll
        for (int i = 0; i < 4; ++i) b[i / 2][i % 2] &= mask[2 * step + i % 2];
        mma_m16n8k16<T>(acc[0], p[step], b[0]);
        mma_m16n8k16<T>(acc[1], p[step], b[1]);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (mine[i % 4 / 2]) o[j + i / 4][i % 4] = acc[i / 4][i % 4];
      }
    }
  }
}

// Bits 15 and 31, among others, if a value of a chunk is Inf or NaN.
template <class T>
BI_D std::uint32_t attention_nonfinite_bits(const T* chunk) {
  constexpr std::uint32_t exponent = std::is_same_v<T, bf16> ? 0x7f80u : 0x7c00u;
  constexpr std::uint32_t exponents = exponent | exponent << 16, carry = 0x80008000u - exponents;
  T x[vector_size];
  load_vector(chunk, vector_size, true, x);
  std::uint32_t found = 0;
#pragma unroll
  for (int i = 0; i < vector_size; i += 2) {
    const std::uint32_t pair = x[i].bits | static_cast<std::uint32_t>(x[i + 1].bits) << 16;
    found |= (pair & exponents) + carry;  // an exponent of all ones carries into the sign's place
  }
  return found;
}
constexpr std::uint32_t nonfinite_mask = 0x80008000u;

// Bit j: key j of the tile has an Inf or NaN among the `columns` values from block `first` of the part v on. The same in all
// lanes.
template <int Columns, class T>
BI_D std::uint64_t attention_nonfinite_keys(T* v, int lane, int first = 0) {
  std::uint64_t keys = 0;
#pragma unroll 1  // rare, and registers are not
  for (int half = 0; half < 2; ++half) {
    std::uint32_t found = 0;
#pragma unroll 1
    for (int chunk = 0; chunk < Columns / chunk_values; ++chunk) {
      found |= attention_nonfinite_bits(
          tile_chunk(tile_part<key_tile>(v, chunk / row_chunks), half * 32 + lane, first + chunk % row_chunks));
    }
    const std::uint64_t some = __ballot_sync(full_warp, (found & nonfinite_mask) != 0);
    keys |= some << (32 * half);
  }
  return keys;
}

}  // namespace device
BI_NAMESPACE_END
