// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/reference/mma_step.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

// By the model of Hopper's tensor core.
template <class T>
void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  const int lane = lanes::warp::lane();
  std::array<std::array<std::uint64_t, 32>, 3> all;
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t low = i < 2 ? a[2 * i] : b[0], high = i < 2 ? a[2 * i + 1] : b[1];
    all[static_cast<std::size_t>(i)] = lanes::warp::meet(low | static_cast<std::uint64_t>(high) << 32);
  }
  // Value k of a word that lane `of` has; word: of a, or of b from 4 on.
  const auto value = [&](int of, int word, int half) {
    const std::uint64_t words = all[static_cast<std::size_t>(word / 2)][static_cast<std::size_t>(of)];
    const auto w = static_cast<std::uint32_t>(word % 2 == 0 ? words : words >> 32);
    return T{static_cast<std::uint16_t>(half == 0 ? w : w >> 16)};
  };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    T x[16], y[16];
    for (int k = 0; k < 16; ++k) {
      x[k] = value(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k % 2);
      y[k] = value(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
    }
    c[i] = reference::mma_step_exact(c[i], x, y);
  }
}

}  // namespace device
BI_NAMESPACE_END
