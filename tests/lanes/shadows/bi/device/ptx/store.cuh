// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline void store_global_16(void* p, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  const std::uint32_t words[4] = {a, b, c, d};
  std::memcpy(p, words, sizeof words);
}

}  // namespace device
BI_NAMESPACE_END
