// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstring>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

struct mbarrier {
  int count, missing, phase;
};
inline void mbarrier_init(mbarrier* b, int count) { *b = {count, count, 0}; }
inline mbarrier* shared_address(mbarrier* b) { return b; }
inline void mbarrier_arrive_copied(mbarrier* b) {
  if (--b->missing > 0) return;
  b->missing = b->count;
  b->phase ^= 1;
}
inline void mbarrier_wait(mbarrier* b, int parity) {
  while (b->phase == parity) lanes::warp::pass();
  for (const lanes::warp::copy& c : lanes::warp::now().copies) std::memcpy(c.to, c.bytes.data(), c.bytes.size());
  lanes::warp::now().copies.clear();
}

}  // namespace device
BI_NAMESPACE_END
