// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Stores in one instruction each, p aligned to as many bytes.

BI_NAMESPACE_BEGIN
namespace device {

BI_D inline void store_global_16(void* p, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(p)), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
BI_D inline void store_global_8(void* p, std::uint32_t a, std::uint32_t b) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" : : "l"(__cvta_generic_to_global(p)), "r"(a), "r"(b) : "memory");
}
// With a policy of the L2 cache (bi/device/ptx/tma.cuh).
BI_D inline void store_global_8(float2* p, float2 x, std::uint64_t policy) {
  asm volatile("st.global.L2::cache_hint.v2.f32 [%0], {%1, %2}, %3;"
               :
               : "l"(__cvta_generic_to_global(p)), "f"(x.x), "f"(x.y), "l"(policy)
               : "memory");
}
// What the 128 bytes at p hold, aligned to 128, is lost: if memory does not have it yet, it need not.
BI_D inline void discard_line(void* p) {
  asm volatile("discard.global.L2 [%0], 128;" : : "l"(__cvta_generic_to_global(p)) : "memory");
}

// To shared memory, by shared_address.
BI_D inline void store_shared_8(std::uint32_t address, std::uint64_t x) {
  asm volatile("st.shared.b64 [%0], %1;" : : "r"(address), "l"(x) : "memory");
}

}  // namespace device
BI_NAMESPACE_END
