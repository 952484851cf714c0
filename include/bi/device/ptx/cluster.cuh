// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Thread block clusters, named barriers and programmatic dependent launch (sm_90).

BI_NAMESPACE_BEGIN
namespace device {

BI_D inline int cluster_rank() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
BI_D inline int cluster_size() {
  std::uint32_t size;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
  return static_cast<int>(size);
}
// Publishes no writes: at cluster scope that costs a fence of the whole GPU.
BI_D inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
BI_D inline void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// Four floats to another block's shared memory, or one's own; a barrier of that block is told of the 16 bytes as they
// land. Both addresses come from cluster_address. Not in a launch without clusters, nor in a cluster of one block: there
// the instruction is illegal, though the block would only write to itself, and the context is lost.
BI_D inline void store_cluster(std::uint32_t address, float x0, float x1, float x2, float x3, std::uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];"
               :
               : "r"(address), "f"(x0), "f"(x1), "f"(x2), "f"(x3), "r"(barrier)
               : "memory");
}
// The same of two.
BI_D inline void store_cluster(std::uint32_t address, float x0, float x1, std::uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];"
               :
               : "r"(address), "f"(x0), "f"(x1), "r"(barrier)
               : "memory");
}

// True in one thread of a warp whose threads are all here. The compiler then knows that instructions of the copy engine
// are issued once, and makes no loop of each.
BI_D inline bool elect_one() {
  std::uint32_t elected;
  asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.b32 %0, 1, 0, p;}" : "=r"(elected));
  return elected != 0;
}

// A barrier of `threads` threads of the block, whole warps; id 0 is __syncthreads'.
BI_D inline void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" : : "r"(id), "r"(threads) : "memory");
}
// As named_barrier; true if `some` is true in any of the threads.
BI_D inline bool named_barrier_any(int id, int threads, bool some) {
  int any;
  asm volatile("{.reg .pred p, q; setp.ne.s32 p, %3, 0; bar.red.or.pred q, %1, %2, p; selp.s32 %0, 1, 0, q;}"
               : "=r"(any)
               : "r"(id), "r"(threads), "r"(some ? 1 : 0)
               : "memory");
  return any != 0;
}

// Counts as one who has come to named_barrier, and goes on.
BI_D inline void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

// Waits until the kernels that this one depends on are over and their writes are visible. No effect without a
// programmatic launch.
BI_D inline void wait_for_dependencies() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// Lets a dependent kernel start once every block has come here or ended.
BI_D inline void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace device
BI_NAMESPACE_END
