// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace device {

// threadIdx.x, asked for anew each time: what follows from it is not computed before a loop and kept through it.
BI_D inline int thread_index_anew() {
  std::uint32_t x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return static_cast<int>(x);
}

}  // namespace device
BI_NAMESPACE_END
