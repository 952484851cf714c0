// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/dtype.hpp"

BI_NAMESPACE_BEGIN
namespace device {

// max_nan of two pairs of 16-bit elements: what it is of each widened to fp32, but for a NaN's bits.
template <class T>
BI_D std::uint32_t max_nan_pair(std::uint32_t a, std::uint32_t b) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "16-bit elements");
  std::uint32_t m;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  } else {
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  }
  return m;
}

}  // namespace device
BI_NAMESPACE_END
