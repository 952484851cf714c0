// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline void store_global_16(void* p, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  const std::uint32_t words[4] = {a, b, c, d};
  std::memcpy(p, words, sizeof words);
}
inline void store_global_8(float2* p, float2 x, std::uint64_t) { *p = x; }
inline void discard_line(void* p) { std::memset(p, 0x7f, 128); }
inline void store_global_8(void* p, std::uint32_t a, std::uint32_t b) {
  const std::uint32_t words[2] = {a, b};
  std::memcpy(p, words, sizeof words);
}
inline void store_shared_8(std::uint32_t address, std::uint64_t x) {
  std::memcpy(lanes::shared_memory() + address, &x, sizeof x);
}

}  // namespace device
BI_NAMESPACE_END
