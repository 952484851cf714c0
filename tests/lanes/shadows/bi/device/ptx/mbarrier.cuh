// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/ldmatrix.cuh"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

struct mbarrier {
  std::uint64_t bits;
};
inline constexpr int arrivals_of_a_warp = 1;
inline bool arrives_for_warp(int lane) { return lane == 0; }

inline lanes::memory_barrier& barrier_at(std::uint32_t address) {
  return lanes::barriers()[lanes::in_cluster(address)];
}
inline void mbarrier_init(mbarrier* b, int count) { barrier_at(shared_address(b)) = {count, count, 0, {}}; }
inline void mbarrier_init_fence() {}
inline void mbarrier_arrive(std::uint32_t address) { barrier_at(address).arrive(1); }
inline void mbarrier_arrive_expect(std::uint32_t address, int bytes) { barrier_at(address).arrive(1, bytes); }
inline void mbarrier_arrive_remote(std::uint32_t cluster_address) { barrier_at(cluster_address).arrive(1); }
inline std::uint32_t cluster_address(const void* p, int rank) { return lanes::address_in(rank, shared_address(p)); }
inline void mbarrier_arrive(mbarrier* b, int count) { barrier_at(shared_address(b)).arrive(count); }
inline void mbarrier_arrive_copied(mbarrier* b) { barrier_at(shared_address(b)).arrive_with(lanes::copies()); }
inline bool mbarrier_try_wait(std::uint32_t address, int parity) { return barrier_at(address).phase != parity; }
inline void mbarrier_wait(std::uint32_t address, int parity) {
  while (!mbarrier_try_wait(address, parity)) lanes::warp::pass();
}
inline void mbarrier_wait_cluster(mbarrier* b, int parity) { mbarrier_wait(shared_address(b), parity); }

}  // namespace device
BI_NAMESPACE_END
