// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/ldmatrix.cuh"
#include "bi/device/ptx/mbarrier.cuh"

// cp.async.bulk.tensor (sm_90): a box of a tensor map between global and shared memory, by one thread. Elements outside
// the tensor are read as zeros and not written.

BI_NAMESPACE_BEGIN
namespace device {

BI_D inline void prefetch_tensor_map(const void* map) {
  asm volatile("prefetch.tensormap [%0];" : : "l"(reinterpret_cast<std::uint64_t>(map)) : "memory");
}

// A line of global memory on its way into the L2 cache.
BI_D inline void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" : : "l"(p) : "memory"); }
// Global memory as the L2 cache has it; the L1 cache doesn't keep it.
BI_D inline std::int32_t load_l2(const std::int32_t* p) {
  std::int32_t x;
  asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(x) : "l"(__cvta_generic_to_global(p)) : "memory");
  return x;
}
BI_D inline float2 load_l2(const float2* p) {
  float2 x;
  asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];"
               : "=f"(x.x), "=f"(x.y)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return x;
}
BI_D inline longlong2 load_l2(const longlong2* p) {
  longlong2 x;
  asm volatile("ld.global.cg.v2.s64 {%0, %1}, [%2];"
               : "=l"(x.x), "=l"(x.y)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return x;
}

// Which lines the L2 cache gives up first, and last.
BI_D inline std::uint64_t policy_evict_first() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// These where they are asked for, not ahead of a loop, where they would take registers.
BI_D inline std::uint64_t policy_evict_normal() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
BI_D inline std::uint64_t policy_evict_last() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// To shared memory at an address; the barrier at another is told of the bytes as they land.
BI_D inline void tma_load_3d(std::uint32_t shared, const void* map, std::uint32_t barrier, int x, int y, int z,
                             std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5}], [%2], %6;"
      :
      : "r"(shared), "l"(reinterpret_cast<std::uint64_t>(map)), "r"(barrier), "r"(x), "r"(y), "r"(z), "l"(policy)
      : "memory");
}
BI_D inline void tma_load_4d(std::uint32_t shared, const void* map, std::uint32_t barrier, int x, int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];"
      :
      : "r"(shared), "l"(reinterpret_cast<std::uint64_t>(map)), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
// To the same place of every block of the cluster whose bit is set in blocks; each one's barrier is told.
BI_D inline void tma_load_3d_multicast(std::uint32_t shared, const void* map, std::uint32_t barrier, int x, int y,
                                       int z, std::uint16_t blocks, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6, %7;"
      :
      : "r"(shared), "l"(reinterpret_cast<std::uint64_t>(map)), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(blocks),
        "l"(policy)
      : "memory");
}

BI_D inline void tma_store_3d(const void* map, const void* shared, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];"
               :
               : "l"(reinterpret_cast<std::uint64_t>(map)), "r"(shared_address(shared)), "r"(x), "r"(y), "r"(z)
               : "memory");
}
BI_D inline void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until at most Pending of the thread's latest groups still read shared memory.
template <int Pending>
BI_D void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" : : "n"(Pending) : "memory");
}

// Makes this thread's writes to shared memory visible to the copy engine and the tensor core.
BI_D inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace device
BI_NAMESPACE_END
