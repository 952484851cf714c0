// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace device {

// The driver's CUtensorMap, a parameter of a kernel (const __grid_constant__).
struct alignas(64) tensor_map {
  std::uint64_t opaque[16];
};

}  // namespace device
BI_NAMESPACE_END
