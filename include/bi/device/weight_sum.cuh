// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"
#include "bi/device/ptx/rounding.cuh"

// Sums of contract::sample_draft::top_p_weight, in fewer instructions: the same integers.

BI_NAMESPACE_BEGIN
namespace device {

// The weight, not yet cut to an integer, of x where the row's largest is `max`, finite and not less than x. A NaN weighs
// nothing. bi::exp with 2^44 put on in the same step, which is exact, since whatever weighs something is normal.
BI_D inline float whole_weight(float x, float max) {
  constexpr float magic = contract::round_magic + 44.0f;
  const float below = max_num(sub_rn(x, max), -40.0f);  // below -31 the weight is 0
  const float t = fma_rn(below, 0x1.715476p+0f, magic);
  const float n = sub_rn(t, magic);
  float r = fma_rn(n, -0x1.62e430p-1f, below);
  r = fma_rn(n, 0x1.05c610p-29f, r);
  const float p = contract::polynomial(r, 0x1.6ab93ep-10f, 0x1.123d74p-7f, 0x1.55585ap-5f, 0x1.55548cp-3f,
                                       0x1.fffffcp-2f, 1.0f, 1.0f);
  // The low 9 bits of the magic number are 44.
  return float_of(bits_of(p) + (bits_of(t) << 23));
}

// Adds up to 2^9 weights in two halves of 22 bits, of floats that have the integers in their low bits.
struct weight_sum {
  std::uint32_t high = 0, low = 0;
  int count = 0;

  struct halves {
    std::uint32_t high, low;
  };
  // At most 2^44.
  BI_D static halves split(float weight) {
    const float h = add_rz(weight, 0x1p45f);                              // a multiple of 2^22
    const float l = add_rz(sub_rn(weight, sub_rn(h, 0x1p45f)), 0x1p23f);  // of 1
    return {bits_of(h), bits_of(l)};
  }
  // What split() makes of 0.
  BI_D static halves nothing() { return {0x56000000u, 0x4b000000u}; }
  BI_D void add(const halves& w) {
    high += w.high;
    low += w.low;
    ++count;
  }
  BI_D std::uint64_t sum() const {
    const std::uint32_t n = static_cast<std::uint32_t>(count);
    return (static_cast<std::uint64_t>(high - n * nothing().high) << 22) + (low - n * nothing().low);
  }
};

}  // namespace device
BI_NAMESPACE_END
