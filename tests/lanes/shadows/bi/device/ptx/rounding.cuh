// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cfenv>
#include <cmath>
#include <cstdint>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline float add_rz(float a, float b) {
  const volatile float x = a, y = b;  // added here, between the two calls
  std::fesetround(FE_TOWARDZERO);
  const volatile float sum = x + y;
  std::fesetround(FE_TONEAREST);
  return sum;
}
inline float fma_saturated(float a, float b, float c) {
  const float x = std::fma(a, b, c);
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
inline float exp2_about(float x) {
  const float r = std::exp2(x) * (1.0f - 0x1p-22f);
  return r < 0x1p-126f ? 0.0f : r;
}
inline void add_by_order(float x, float than, float w, float& above, float& below) {
  if (x > than) above += w;
  if (x < than) below += w;
}
inline unsigned any_equals(float a, float b, float c, float d, float x) {
  return a == x || b == x || c == x || d == x ? 1u : 0u;
}
inline void count_shared(std::uint32_t address) {
  ++*reinterpret_cast<std::uint32_t*>(lanes::shared_memory() + address);
}

}  // namespace device
BI_NAMESPACE_END
