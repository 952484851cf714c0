// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline void fence_gpu() {}
inline void store_flag(std::int32_t* p, std::int32_t x) { *p = x; }
// Others have their turns before it is looked at.
inline std::int32_t load_flag(const std::int32_t* p) {
  lanes::warp::pass();
  return *p;
}
inline std::int32_t add_acquire_release(std::int32_t* p, std::int32_t x) {
  const std::int32_t before = *p;
  *p += x;
  return before;
}

}  // namespace device
BI_NAMESPACE_END
