// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

namespace lanes {

// What happens while a kernel looks for flags: a test may set some then.
inline std::function<void()>& before_flags() {
  static std::function<void()> all;
  return all;
}

}  // namespace lanes

BI_NAMESPACE_BEGIN
namespace device {

inline void fence_gpu() {}
inline void store_flag(std::int32_t* p, std::int32_t x) { *p = x; }
inline int4 load_flags(const std::int32_t* p) {
  if (lanes::before_flags()) lanes::before_flags()();
  return {p[0], p[1], p[2], p[3]};
}
inline void sleep_ns(std::uint32_t) { lanes::warp::pass(); }

}  // namespace device
BI_NAMESPACE_END
