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
inline void add_flag(std::int32_t* p, std::int32_t x) { *p += x; }
inline void add_global_8(std::uint64_t* p, std::uint64_t x) { *p += x; }
inline std::int32_t take_flag(std::int32_t* p, std::int32_t x) {
  const std::int32_t before = *p;
  *p += x;
  return before;
}
inline std::int32_t load_flag(const std::int32_t* p) { return *p; }
inline void sleep_ns(std::uint32_t) { lanes::warp::pass(); }

}  // namespace device
BI_NAMESPACE_END
