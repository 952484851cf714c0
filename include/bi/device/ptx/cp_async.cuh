// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/ldmatrix.cuh"

// cp.async: 16 bytes from global to shared memory without registers, both aligned to 16.

BI_NAMESPACE_BEGIN
namespace device {

// Copies `bytes` (0..16) and fills the rest of the 16 with zeros.
BI_D inline void cp_async_16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}

// To an address in shared memory; the second form copies all 16.
BI_D inline void cp_async_16(std::uint32_t shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}
BI_D inline void cp_async_16(std::uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global))
               : "memory");
}

// The same with a policy of the L2 cache (bi/device/ptx/tma.cuh).
BI_D inline void cp_async_16(void* shared, const void* global, int bytes, std::uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(bytes), "l"(policy)
               : "memory");
}

BI_D inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most Pending of the latest groups are under way.
template <int Pending>
BI_D void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(Pending) : "memory");
}

}  // namespace device
BI_NAMESPACE_END
