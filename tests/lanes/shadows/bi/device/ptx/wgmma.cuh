// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace device {

template <int Registers>
void take_registers() {}
template <int Registers>
void give_registers() {}

}  // namespace device
BI_NAMESPACE_END
