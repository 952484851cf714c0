// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"

// What the noise of a token (contract::gumbel_noise) can't exceed, without its logarithms. A token whose x plus this
// stays below a score that is there already can't be drawn: rounding keeps order, so add(x, noise) <= add(x, bound).

BI_NAMESPACE_BEGIN
namespace device {

// At least gumbel_noise(w) for every w >= word. With v = (word + 1/2) 2^-32 the noise is -log(-log(1 - v)) <= -log(v),
// and log2(v) is at least the straight line between powers of two that a float's bits, read as an integer, are. The
// line is off by 0.06 at most. 2^-10 covers a hundred times the roundings of both sides. word = 0 gives 110.
BI_HD inline float noise_bound(std::uint32_t word) {
  constexpr float ln2 = 0x1.62e430p-1f;
  const float line = float_from_uint(bits_of(float_from_uint(word)));  // 2^23 (127 + log2), or less
  return fma_rn(line, -0x1p-23f * ln2, 159.0f * ln2 + 0x1p-10f);
}

// At least any noise.
inline constexpr float most_noise = 23.0f;

// Float x such that x < min_p_floor(...) is dropped by contract::sample_draft::min_p_keeps; -Inf where nothing can be
// said. exp and log are off by some ulp, 0.01 covers them and every rounding for a |max| below 2^12; beyond that the
// distance grows with it. A min_p near the subnormals could be reached by rounding up.
template <class Log>
BI_HD inline float min_p_floor(float max, float min_p, Log log) {
  if (!is_finite(max) || less(min_p, 0x1p-120f)) return neg_inf_f32();
  const float distance = min_nan(log(min_p), 0.0f);
  if (!is_finite(distance)) return neg_inf_f32();
  return add_rn(max, sub_rn(distance, add_rn(0.01f, mul_rn(abs(max), 0x1p-18f))));
}

}  // namespace device
BI_NAMESPACE_END
