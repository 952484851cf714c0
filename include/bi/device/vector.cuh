// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/ptx/store.cuh"
#include "bi/dtype.hpp"

// Eight consecutive elements of a row (bi/contract/row_tree.hpp's vector) between memory and fp32 registers. Whether
// they move as 16-byte words or one by one is schedule: the values are the same.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int vector_size = 8;

// Whether rows `stride` elements apart that start at p can move in 16-byte words.
template <class T>
BI_HD bool vector_aligned(const T* p, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && (stride * static_cast<std::int64_t>(sizeof(T))) % 16 == 0;
}

// What moves at once.
struct alignas(16) packed_words {
  std::uint32_t word[4];
};
template <class T>
inline constexpr int vector_words = vector_size* static_cast<int>(sizeof(T)) / 16;

// Loads elements [0, n) of p, n <= 8; the others become +0. `aligned`: p is aligned to 16 bytes.
template <class T>
BI_D void load_vector(const T* p, int n, bool aligned, T (&out)[vector_size]) {
  if (aligned && n == vector_size) {
    packed_words words[vector_words<T>];
#pragma unroll
    for (int w = 0; w < vector_words<T>; ++w) words[w] = reinterpret_cast<const packed_words*>(p)[w];
    std::memcpy(static_cast<void*>(out), words, sizeof words);
  } else {
#pragma unroll
    for (int i = 0; i < vector_size; ++i) out[i] = i < n ? p[i] : T{};
  }
}
template <class T>
BI_D void load_vector_f32(const T* p, int n, bool aligned, float (&out)[vector_size]) {
  T v[vector_size];
  load_vector(p, n, aligned, v);
#pragma unroll
  for (int i = 0; i < vector_size; ++i) out[i] = to_f32(v[i]);
}

// p is in global memory: the store says so.
template <class T>
BI_D void store_vector(T* p, int n, bool aligned, const T (&in)[vector_size]) {
  if (aligned && n == vector_size) {
    // By hand: nvcc takes a structure of 16-bit elements apart and stores them two by two.
    if constexpr (sizeof(T) == 2) {
      const auto two = [&](int i) { return in[i].bits | static_cast<std::uint32_t>(in[i + 1].bits) << 16; };
      store_global_16(p, two(0), two(2), two(4), two(6));
    } else {
      store_global_16(p, bits_of(in[0]), bits_of(in[1]), bits_of(in[2]), bits_of(in[3]));
      store_global_16(p + 4, bits_of(in[4]), bits_of(in[5]), bits_of(in[6]), bits_of(in[7]));
    }
  } else {
#pragma unroll
    for (int i = 0; i < vector_size; ++i) {
      if (i < n) p[i] = in[i];
    }
  }
}
template <class T>
BI_D void store_vector_f32(T* p, int n, bool aligned, const float (&in)[vector_size]) {
  T v[vector_size];
#pragma unroll
  for (int i = 0; i < vector_size; ++i) v[i] = cvt_rn<T>(in[i]);
  store_vector(p, n, aligned, v);
}

}  // namespace device
BI_NAMESPACE_END
