// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/ptx/load.cuh"
#include "bi/device/vector.cuh"

// The consecutive elements of a row that a thread block has.

BI_NAMESPACE_BEGIN
namespace device {

// Elements that move in one instruction, 16 bytes.
template <class T>
inline constexpr int word_elements = 16 / static_cast<int>(sizeof(T));

template <class T>
struct row_part {
  static constexpr int width = word_elements<T>;

  const T* x;  // in global memory
  int first;   // the row's element that x is
  int count;
  bool aligned;  // x is aligned to 16 bytes

  // Up to width elements from i on; those that the part does not have become `missing`.
  BI_D packed_words load(int i, T missing) const {
    if (aligned && i + width <= count) {
      packed_words w;
      load_global_16_once(x + i, w.word[0], w.word[1], w.word[2], w.word[3]);
      return w;
    }
    T one[width];
#pragma unroll
    for (int e = 0; e < width; ++e) one[e] = i + e < count ? x[i + e] : missing;
    packed_words w;
    std::memcpy(&w, static_cast<const void*>(one), sizeof w);
    return w;
  }
  BI_D static float element(const packed_words& w, int e) {
    if constexpr (sizeof(T) == 4) {
      return float_of(w.word[e]);
    } else {
      return to_f32(T{static_cast<std::uint16_t>(e % 2 == 0 ? w.word[e / 2] : w.word[e / 2] >> 16)});
    }
  }
};

}  // namespace device
BI_NAMESPACE_END
