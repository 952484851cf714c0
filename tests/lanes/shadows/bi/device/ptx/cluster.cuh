// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline void named_barrier(int id, int threads) { lanes::meet_named(id, threads); }
inline void named_arrive(int id, int threads) { lanes::arrive_named(id, threads); }
inline void launch_dependents() {}
inline void wait_for_dependencies() {
  if (lanes::before_dependencies()) lanes::before_dependencies()();
}

}  // namespace device
BI_NAMESPACE_END
