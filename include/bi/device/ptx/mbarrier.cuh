// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/ldmatrix.cuh"

// mbarrier (sm_90): a phase ends when `count` arrivals and all announced bytes are in. A waiter names the parity of the
// phase: that of a fresh barrier is 0, and the phase before it, of parity 1, counts as over.

BI_NAMESPACE_BEGIN
namespace device {

using mbarrier = std::uint64_t;

BI_D inline void mbarrier_init(mbarrier* b, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(shared_address(b)), "r"(count) : "memory");
}
// Makes initialised barriers visible to the cluster and to the copy engine.
BI_D inline void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Arrives, and announces bytes that copies will bring in this phase.
BI_D inline void mbarrier_arrive_expect(std::uint32_t address, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(address), "r"(bytes)
               : "memory");
}
BI_D inline void mbarrier_arrive(mbarrier* b, int count) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(b)), "r"(count)
               : "memory");
}
BI_D inline void mbarrier_arrive(std::uint32_t address) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" : : "r"(address) : "memory");
}
// Arrives once the thread's cp.async copies so far have landed; one of the barrier's own count.
BI_D inline void mbarrier_arrive_copied(mbarrier* b) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" : : "r"(shared_address(b)) : "memory");
}
// A warp arrives once, by one lane, when all have met (__syncwarp). compute-sanitizer knows of an arrival only what the arriving
// thread did before it. So that it can follow, all lanes arrive in builds with BI_EVERY_LANE_ARRIVES.
#ifdef BI_EVERY_LANE_ARRIVES
inline constexpr int arrivals_of_a_warp = 32;
#else
inline constexpr int arrivals_of_a_warp = 1;
#endif
BI_D inline bool arrives_for_warp(int lane) { return arrivals_of_a_warp > 1 || lane == 0; }
// The address of one's own shared variable in another block of the cluster.
BI_D inline std::uint32_t cluster_address(const void* p, int rank) {
  std::uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
  return address;
}
// Arrives in another block, or one's own. Publishes no writes: at cluster scope that would cost a fence of the whole GPU.
BI_D inline void mbarrier_arrive_remote(std::uint32_t cluster_address) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" : : "r"(cluster_address) : "memory");
}
BI_D inline bool mbarrier_try_wait(std::uint32_t address, int parity) {
  std::uint32_t done;
  asm volatile("{.reg .pred p; mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
               : "=r"(done)
               : "r"(address), "r"(parity)
               : "memory");
  return done != 0;
}
BI_D inline void mbarrier_wait(std::uint32_t address, int parity) {
  while (!mbarrier_try_wait(address, parity)) {
  }
}
// As above, and sees what other blocks of the cluster wrote before they arrived.
BI_D inline bool mbarrier_try_wait_cluster(mbarrier* b, int parity) {
  std::uint32_t done;
  asm volatile(
      "{.reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
      : "=r"(done)
      : "r"(shared_address(b)), "r"(parity)
      : "memory");
  return done != 0;
}
BI_D inline void mbarrier_wait_cluster(mbarrier* b, int parity) {
  while (!mbarrier_try_wait_cluster(b, parity)) {
  }
}

}  // namespace device
BI_NAMESPACE_END
