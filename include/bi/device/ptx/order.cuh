// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// What thread blocks of a kernel tell each other through global memory.

BI_NAMESPACE_BEGIN
namespace device {

// Between what a thread, or one that it has met, writes and a flag that it stores or adds to then.
BI_D inline void fence_gpu() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
BI_D inline void store_flag(std::int32_t* p, std::int32_t x) {
  asm volatile("st.relaxed.gpu.global.s32 [%0], %1;" : : "l"(__cvta_generic_to_global(p)), "r"(x) : "memory");
}
// An addition of integers: in whatever order, the sum is the same.
BI_D inline void add_flag(std::int32_t* p, std::int32_t x) {
  asm volatile("red.relaxed.gpu.global.add.s32 [%0], %1;" : : "l"(__cvta_generic_to_global(p)), "r"(x) : "memory");
}
BI_D inline void add_global_8(std::uint64_t* p, std::uint64_t x) {
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" : : "l"(__cvta_generic_to_global(p)), "l"(x) : "memory");
}
// The same of a flag, and what was there before.
BI_D inline std::int32_t take_flag(std::int32_t* p, std::int32_t x) {
  std::int32_t before;
  asm volatile("atom.relaxed.gpu.global.add.s32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(__cvta_generic_to_global(p)), "r"(x)
               : "memory");
  return before;
}
// What was written before such a fence is there for whoever has seen the flag after it.
BI_D inline std::int32_t load_flag(const std::int32_t* p) {
  std::int32_t x;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(__cvta_generic_to_global(p)) : "memory");
  return x;
}
// For about so long others have the processor's memory pipes to themselves.
BI_D inline void sleep_ns(std::uint32_t ns) { asm volatile("nanosleep.u32 %0;" : : "r"(ns)); }

}  // namespace device
BI_NAMESPACE_END
