// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Forms of addition and multiplication that no contract has: a schedule counts, or sorts, with them.

BI_NAMESPACE_BEGIN
namespace device {

// Toward zero.
BI_D inline float add_rz(float a, float b) {
  float r;
  asm("add.rz.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}

// a b + c, but 0 below 0 and for a NaN, and 1 above 1.
BI_D inline float fma_saturated(float a, float b, float c) {
  float r;
  asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}

// 2^x, off by 2^-21 of it at most.
BI_D inline float exp2_about(float x) {
  float r;
  asm("ex2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// Adds 1 to a counter in shared memory at an address.
BI_D inline void count_shared(std::uint32_t address) {
  asm volatile("red.shared.add.u32 [%0], 1;" : : "r"(address) : "memory");
}

}  // namespace device
BI_NAMESPACE_END
