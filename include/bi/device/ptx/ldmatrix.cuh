// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// ldmatrix: 8 x 8 blocks of 16-bit values from shared memory to mma fragments. Thread t gives the address of row t % 8 of
// block t / 8; every row is 16 bytes, aligned to 16.

BI_NAMESPACE_BEGIN
namespace device {

BI_D inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
// Where the shared memory begins whose size the launch names.
BI_D inline std::uint32_t launch_shared_address() {
  extern __shared__ __align__(16) unsigned char launch_shared[];
  return shared_address(launch_shared);
}

BI_D inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

BI_D inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// The way back: fragments to 8 x 8 blocks (sm_90).
BI_D inline void stmatrix_x4(void* row, std::uint32_t r0, std::uint32_t r1, std::uint32_t r2, std::uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
               :
               : "r"(shared_address(row)), "r"(r0), "r"(r1), "r"(r2), "r"(r3)
               : "memory");
}
// Blocks turned round: a fragment's columns become rows in memory.
BI_D inline void stmatrix_x2_trans(void* row, std::uint32_t r0, std::uint32_t r1) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1,%2};"
               :
               : "r"(shared_address(row)), "r"(r0), "r"(r1)
               : "memory");
}

}  // namespace device
BI_NAMESPACE_END
