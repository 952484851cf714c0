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

// 2^x, off by 2^-21 of it at most; 0 where that is subnormal.
BI_D inline float exp2_about(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// Adds w to `above` where x is greater than `than`, and to `below` where it is less. Said so, or the compiler branches.
BI_D inline void add_by_order(float x, float than, float w, float& above, float& below) {
  asm("{\n\t.reg .pred p, q;\n\tsetp.gt.f32 p, %2, %3;\n\tsetp.lt.f32 q, %2, %3;\n\t"
      "@p add.rn.f32 %0, %0, %4;\n\t@q add.rn.f32 %1, %1, %4;\n\t}"
      : "+f"(above), "+f"(below)
      : "f"(x), "f"(than), "f"(w));
}

// Whether any of four is equal to x. Without branches, again.
BI_D inline unsigned any_equals(float a, float b, float c, float d, float x) {
  unsigned r;
  asm("{\n\t.reg .pred p;\n\tsetp.eq.f32 p, %1, %5;\n\tsetp.eq.or.f32 p, %2, %5, p;\n\tsetp.eq.or.f32 p, %3, %5, p;\n\t"
      "setp.eq.or.f32 p, %4, %5, p;\n\tselp.u32 %0, 1, 0, p;\n\t}"
      : "=r"(r)
      : "f"(a), "f"(b), "f"(c), "f"(d), "f"(x));
  return r;
}

// Adds 1 to a counter in shared memory at an address.
BI_D inline void count_shared(std::uint32_t address) {
  asm volatile("red.shared.add.u32 [%0], 1;" : : "r"(address) : "memory");
}

}  // namespace device
BI_NAMESPACE_END
