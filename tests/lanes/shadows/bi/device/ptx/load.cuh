// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline void load_global_16(const void* p, std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  std::uint32_t words[4];
  std::memcpy(words, p, sizeof words);
  a = words[0], b = words[1], c = words[2], d = words[3];
}
inline void load_global_16_once(const void* p, std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  load_global_16(p, a, b, c, d);
}
inline std::uint32_t load_global_4(const void* p) {
  std::uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
inline void load_global_8(const void* p, std::uint32_t& a, std::uint32_t& b) {
  std::uint32_t words[2];
  std::memcpy(words, p, sizeof words);
  a = words[0], b = words[1];
}
inline std::uint64_t load_shared_8(std::uint32_t address) {
  std::uint64_t x;
  std::memcpy(&x, lanes::shared_memory() + address, sizeof x);
  return x;
}
inline float load_l2_in_order(const float* p) { return *p; }

}  // namespace device
BI_NAMESPACE_END
