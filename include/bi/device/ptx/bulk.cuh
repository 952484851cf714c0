// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Copies of the copy engine into shared memory, beside those of tma.cuh. A barrier counts their bytes.

BI_NAMESPACE_BEGIN
namespace device {

// Bytes as they lie; addresses and their number are multiples of 16.
BI_D inline void copy_bulk(std::uint32_t shared, const void* global, int bytes, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :
               : "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(barrier)
               : "memory");
}

// The same into the L2 cache.
BI_D inline void prefetch_bulk(const void* global, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;"
               :
               : "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}

// A box of 4 dimensions; the policy says what the L2 cache should do with it.
BI_D inline void tma_load_4d(std::uint32_t shared, const void* map, std::uint32_t barrier, int x, int y, int z, int w,
                             std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;"
      :
      : "r"(shared), "l"(reinterpret_cast<std::uint64_t>(map)), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w),
        "l"(policy)
      : "memory");
}

}  // namespace device
BI_NAMESPACE_END
