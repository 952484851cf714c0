// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline void named_barrier(int id, int threads) { lanes::meet_named(id, threads); }
inline bool named_barrier_any(int id, int threads, bool some) { return lanes::meet_named(id, threads, some); }
inline void named_arrive(int id, int threads) { lanes::arrive_named(id, threads); }
inline void launch_dependents() {}
inline int cluster_rank() { return lanes::where.rank; }
inline int cluster_size() { return lanes::where.cluster_size; }
#ifdef LANES_SHARED_AT_LAUNCH
inline void cluster_arrive() { lanes::cluster::now().arrive(); }
inline void cluster_wait() { lanes::cluster::now().wait(); }
inline void store_cluster(std::uint32_t address, float x0, float x1, std::uint32_t barrier) {
  lanes::cluster::now().send<2>(address, {x0, x1}, barrier);
}
inline void store_cluster(std::uint32_t address, float x0, float x1, float x2, float x3, std::uint32_t barrier) {
  lanes::cluster::now().send<4>(address, {x0, x1, x2, x3}, barrier);
}
#endif
inline void wait_for_dependencies() {
  if (lanes::before_dependencies()) lanes::before_dependencies()();
}

}  // namespace device
BI_NAMESPACE_END
