// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/cluster.cuh"

BI_NAMESPACE_BEGIN
namespace device {

inline void prefetch_l2(const void*) {}
inline std::uint64_t policy_evict_first() { return 0; }
inline std::uint64_t policy_evict_normal() { return 0; }
inline std::uint64_t policy_evict_last() { return 0; }
template <class T>
T load_l2(const T* p) {
  return *p;
}

}  // namespace device
BI_NAMESPACE_END
