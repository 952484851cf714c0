// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/max_pair.cuh"
#include "bi/device/ptx/store.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/vector.cuh"

// Vectors of a row that stay in registers, so that the row is read once. They are kept as they are stored: taken apart
// into elements, 16-bit ones would need twice the registers.

BI_NAMESPACE_BEGIN
namespace device {

// Elements as words that hold one each, or two of 16 bits.
template <class T, int Size, int Words>
BI_D void pack_elements(const T (&x)[Size], std::uint32_t (&word)[Words]) {
  static_assert(Size * sizeof(T) == Words * sizeof(std::uint32_t), "they fill the words");
#pragma unroll
  for (int w = 0; w < Words; ++w) {
    if constexpr (sizeof(T) == 4) {
      word[w] = bits_of(x[w]);
    } else {
      word[w] = x[2 * w].bits | static_cast<std::uint32_t>(x[2 * w + 1].bits) << 16;
    }
  }
}
template <class T, int Size, int Words>
BI_D void unpack_elements(const std::uint32_t (&word)[Words], T (&x)[Size]) {
  static_assert(Size * sizeof(T) == Words * sizeof(std::uint32_t), "they fill the words");
#pragma unroll
  for (int e = 0; e < Size; ++e) {
    if constexpr (sizeof(T) == 4) {
      x[e] = float_of(word[e]);
    } else {
      x[e].bits = static_cast<std::uint16_t>(word[e / 2] >> (16 * (e % 2)));
    }
  }
}

template <class T>
struct held_vector {
  static constexpr int words = vector_words<T> * 4;
  std::uint32_t word[words];

  BI_D float operator[](int e) const {
    if constexpr (sizeof(T) == 4) {
      return float_of(word[e]);
    } else {
      return to_f32(T{static_cast<std::uint16_t>(e % 2 == 0 ? word[e / 2] : word[e / 2] >> 16)});
    }
  }
  // max_nan of all elements; NaN if there is one.
  BI_D float max() const {
    if constexpr (sizeof(T) == 4) {
      float m = float_of(word[0]);
#pragma unroll
      for (int w = 1; w < words; ++w) m = max_nan(m, float_of(word[w]));
      return m;
    } else {
      std::uint32_t m = word[0];
#pragma unroll
      for (int w = 1; w < words; ++w) m = max_nan_pair<T>(m, word[w]);
      const T low{static_cast<std::uint16_t>(m)}, high{static_cast<std::uint16_t>(m >> 16)};
      return max_nan(to_f32(low), to_f32(high));
    }
  }
  BI_D void set(const T (&x)[vector_size]) { pack_elements(x, word); }
  BI_D void get(T (&x)[vector_size]) const { unpack_elements(word, x); }
  BI_D void fill(T x) {
    const T all[vector_size] = {x, x, x, x, x, x, x, x};
    set(all);
  }
  // p is aligned to 16 bytes.
  BI_D void load_once(const T* p) {
#pragma unroll
    for (int w = 0; w < words; w += 4) {
      load_global_16_once(p + w * 4 / static_cast<int>(sizeof(T)), word[w], word[w + 1], word[w + 2], word[w + 3]);
    }
  }
  BI_D void load(const T* p) {
#pragma unroll
    for (int w = 0; w < words; w += 4) {
      load_global_16(p + w * 4 / static_cast<int>(sizeof(T)), word[w], word[w + 1], word[w + 2], word[w + 3]);
    }
  }
  BI_D void store(T* p) const {
#pragma unroll
    for (int w = 0; w < words; w += 4) {
      store_global_16(p + w * 4 / static_cast<int>(sizeof(T)), word[w], word[w + 1], word[w + 2], word[w + 3]);
    }
  }
};

// What a kernel of a programmatic launch does before it touches memory. Everybody waits: a kernel that ended before
// those ahead of it would let the one after it read too early. One that comes next may take its place as this one's
// blocks go.
BI_D inline void begin_dependent() {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  wait_for_dependencies();
  launch_dependents();
#endif
}

// Asks for `bytes` from p on, 128 bytes a thread, by `threads` threads. Into L2 only, which is coherent, so it may go
// ahead of begin_dependent(), though p be written by a kernel that still runs.
BI_D inline void prefetch_shared_row(const void* p, std::int64_t bytes, int thread, int threads) {
  const auto* const byte = static_cast<const unsigned char*>(p);
  for (std::int64_t at = thread * 128ll; at < bytes; at += threads * 128ll) prefetch_l2(byte + at);
}

}  // namespace device
BI_NAMESPACE_END
