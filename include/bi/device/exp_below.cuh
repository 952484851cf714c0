// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"

BI_NAMESPACE_BEGIN
namespace device {

// bi::exp(x) for x <= 0, not NaN, in 13 instructions where that takes 22: the same argument reduction and polynomial,
// so the same bits, but for how the power of two is put on. The power here is 2^(n + 64) >= 2^-86, an exact addition
// to the exponent, and the last product is the only one that may round, as it is there.
// tests/contract/exp_below_test.cpp compares them.
BI_HD inline float exp_below(float x) {
  constexpr float magic = contract::round_magic + 64.0f;
  x = max_num(x, -104.0f);
  const float t = fma_rn(x, 0x1.715476p+0f, magic);
  const float n = sub_rn(t, magic);
  float r = fma_rn(n, -0x1.62e430p-1f, x);
  r = fma_rn(n, 0x1.05c610p-29f, r);
  const float p = contract::polynomial(r, 0x1.6ab93ep-10f, 0x1.123d74p-7f, 0x1.55585ap-5f, 0x1.55548cp-3f,
                                       0x1.fffffcp-2f, 1.0f, 1.0f);
  // The low 9 bits of the magic number are 64.
  return mul_rn(float_of(bits_of(p) + (bits_of(t) << 23)), 0x1p-64f);
}

}  // namespace device
BI_NAMESPACE_END
