// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

template <int Registers>
void take_registers() {
  lanes::warp::move_registers(Registers);
}
template <int Registers>
void give_registers() {
  lanes::warp::move_registers(Registers);
}

}  // namespace device
BI_NAMESPACE_END
