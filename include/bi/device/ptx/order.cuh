// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// What thread blocks of one kernel tell each other through global memory.

BI_NAMESPACE_BEGIN
namespace device {

// Of a thread that stores and loads flags: whoever sees what it stores after the fence sees what it wrote or saw before; and
// after the fence it sees what was written before what it saw before.
BI_D inline void fence_gpu() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
BI_D inline void store_flag(std::int32_t* p, std::int32_t x) {
  asm volatile("st.relaxed.gpu.global.s32 [%0], %1;" : : "l"(__cvta_generic_to_global(p)), "r"(x) : "memory");
}
BI_D inline std::int32_t load_flag(const std::int32_t* p) {
  std::int32_t x;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(__cvta_generic_to_global(p)) : "memory");
  return x;
}
// Adds to a flag, with such a fence before and after it; what was there.
BI_D inline std::int32_t add_acquire_release(std::int32_t* p, std::int32_t x) {
  std::int32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(__cvta_generic_to_global(p)), "r"(x)
               : "memory");
  return before;
}
// The 128 bytes at p, which nobody needs any more, need not go from the L2 cache to memory.
BI_D inline void discard_line(void* p) {
  asm volatile("discard.global.L2 [%0], 128;" : : "l"(__cvta_generic_to_global(p)) : "memory");
}

}  // namespace device
BI_NAMESPACE_END
