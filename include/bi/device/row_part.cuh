// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/ptx/load.cuh"
#include "bi/device/vector.cuh"

// The consecutive elements of a row that a thread block has, in global memory or as a copy in shared memory.

BI_NAMESPACE_BEGIN
namespace device {

// Elements that move in one instruction, 16 bytes.
template <class T>
inline constexpr int word_elements = 16 / static_cast<int>(sizeof(T));

template <class T>
struct row_part {
  static constexpr int width = word_elements<T>;

  const T* x;
  int first;  // the row's element that x is
  int count;
  bool aligned;  // x is aligned to 16 bytes

  // Up to width elements from i on, of which n are there; the others become `missing`. Once: of global memory that is
  // not read again.
  template <bool Once>
  BI_D packed_words load(int i, int n, T missing) const {
    if (aligned && n >= width) return load_whole<Once>(i);
    T one[width];
#pragma unroll
    for (int e = 0; e < width; ++e) one[e] = e < n ? x[i + e] : missing;
    packed_words w;
    std::memcpy(&w, static_cast<const void*>(one), sizeof w);
    return w;
  }
  template <bool Once>
  BI_D packed_words load_whole(int i) const {
    if constexpr (Once) {
      packed_words w;
      load_global_16_once(x + i, w.word[0], w.word[1], w.word[2], w.word[3]);
      return w;
    } else {
      return *reinterpret_cast<const packed_words*>(x + i);
    }
  }
  BI_D static float element(const packed_words& w, int e) {
    if constexpr (sizeof(T) == 4) {
      return float_of(w.word[e]);
    } else {
      return to_f32(T{static_cast<std::uint16_t>(e % 2 == 0 ? w.word[e / 2] : w.word[e / 2] >> 16)});
    }
  }

  // The thread's words at base, base + Threads * width, ..., of all threads together or none.
  template <int Threads, bool Once, int Held>
  BI_D void load_words(int base, T missing, packed_words (&w)[Held]) const {
    constexpr int step = Threads * width;
    if (aligned && base - static_cast<int>(threadIdx.x) * width + Held * step <= count) {
#pragma unroll
      for (int u = 0; u < Held; ++u) w[u] = load_whole<Once>(base + u * step);
    } else {
#pragma unroll
      for (int u = 0; u < Held; ++u) w[u] = load<Once>(base + u * step, count - base - u * step, missing);
    }
  }

  // fn(i, words) for the part's words: a thread's `Held` words are loaded together, and some may be all missing.
  template <int Threads, int Held, bool Once, class Fn>
  BI_D void for_words(T missing, Fn fn) const {
    constexpr int step = Threads * width;
    for (int base = static_cast<int>(threadIdx.x) * width; base < count; base += Held * step) {
      packed_words w[Held];
      load_words<Threads, Once>(base, missing, w);
#pragma unroll
      for (int u = 0; u < Held; ++u) fn(base + u * step, w[u]);
    }
  }
};

}  // namespace device
BI_NAMESPACE_END
