// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/dtype.hpp"

// Two floats rounded to nearest even and packed, `low` into the lower half: the bits of two cvt_rn (sm_80).

BI_NAMESPACE_BEGIN
namespace device {

template <class T>
BI_D std::uint32_t pack_rn(float low, float high);

template <>
BI_D inline std::uint32_t pack_rn<bf16>(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <>
BI_D inline std::uint32_t pack_rn<fp16>(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

}  // namespace device
BI_NAMESPACE_END
