// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Some bytes from global memory in one instruction, p aligned to as many. Volatile: a row's loads stay together, ahead of
// the arithmetic, as they are written.

BI_NAMESPACE_BEGIN
namespace device {

// Data that is read once takes no place in the L1 cache.
BI_D inline void load_global_16_once(const void* p, std::uint32_t& a, std::uint32_t& b, std::uint32_t& c,
                                     std::uint32_t& d) {
  asm volatile("ld.global.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
}
BI_D inline void load_global_16(const void* p, std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
}
BI_D inline std::uint32_t load_global_4(const void* p) {
  std::uint32_t x;
  asm volatile("ld.global.b32 %0, [%1];" : "=r"(x) : "l"(__cvta_generic_to_global(p)) : "memory");
  return x;
}
BI_D inline void load_global_8(const void* p, std::uint32_t& a, std::uint32_t& b) {
  asm volatile("ld.global.v2.b32 {%0, %1}, [%2];" : "=r"(a), "=r"(b) : "l"(__cvta_generic_to_global(p)) : "memory");
}

// Of shared memory, by shared_address.
BI_D inline std::uint64_t load_shared_8(std::uint32_t address) {
  std::uint64_t x;
  asm volatile("ld.shared.b64 %0, [%1];" : "=l"(x) : "r"(address) : "memory");
  return x;
}

// What others wrote, past the L1 cache, and in its place among the loads.
BI_D inline float load_l2_in_order(const float* p) {
  float x;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x) : "l"(__cvta_generic_to_global(p)) : "memory");
  return x;
}

}  // namespace device
BI_NAMESPACE_END
