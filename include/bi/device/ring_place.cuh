// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace device {

// One of a ring's slots, which take turns, and the parity of the phase to wait for in its full barrier.
struct ring_place {
  int slot = 0, parity = 0;

  BI_D void next(int slots) {
    ++slot;
    if (slot == slots) slot = 0, parity ^= 1;
  }
  BI_D ring_place after(int on, int slots) const {  // on <= slots
    ring_place then = {slot + on, parity};
    if (then.slot >= slots) {
      then.slot -= slots;
      then.parity ^= 1;
    }
    return then;
  }
};

}  // namespace device
BI_NAMESPACE_END
