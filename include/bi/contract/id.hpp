// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN

// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64 bits. Digests, keys and contract ids use it.
BI_HD constexpr std::uint64_t mix64(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// Tensor cores round each step of a chain in their own way, so a contract that uses them names their family.
enum class mma_family : std::uint8_t {
  hopper = 1,  // one k16 step, terms cut to 25 fraction bits, result toward zero (bi/reference/mma_step.hpp)
};

// A contract's identity: two processes that print equal ids compute equal bits. FNV-1a of the name, then each parameter
// (integers and enumerations) mixed in, in order.
template <class... Parameters>
BI_HD constexpr std::uint64_t contract_id(const char* name, Parameters... parameters) {
  static_assert(((std::is_integral_v<Parameters> || std::is_enum_v<Parameters>)&&...),
                "contract parameters are integers or enumerations");
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char* p = name; *p != 0; ++p) h = (h ^ static_cast<unsigned char>(*p)) * 0x100000001b3u;
  ((h = mix64(h + 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(parameters))), ...);
  return h;
}

BI_NAMESPACE_END
