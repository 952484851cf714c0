// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline std::uint32_t shared_address(const void* p) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(p)); }
inline std::uint32_t launch_shared_address() {
  alignas(16) static unsigned char memory[4096];
  return shared_address(memory);
}

// Lane i has a row's address; of block b, thread t gets the pair 2 t of row t / 4, or what is there transposed.
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  const int lane = lanes::warp::lane();
  const auto rows = lanes::warp::meet(lanes::to_bits(row));
  for (int b = 0; b < 4; ++b) {
    const auto* const from = lanes::from_bits<const unsigned char*>(rows[static_cast<std::size_t>(8 * b + lane / 4)]);
    std::memcpy(&r[b], from + lane % 4 * 4, 4);
  }
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  const int lane = lanes::warp::lane();
  const auto rows = lanes::warp::meet(lanes::to_bits(row));
  for (int b = 0; b < 4; ++b) {
    std::uint16_t pair[2];
    for (int e = 0; e < 2; ++e) {
      const auto at = static_cast<std::size_t>(8 * b + lane % 4 * 2 + e);
      std::memcpy(&pair[e], lanes::from_bits<const unsigned char*>(rows[at]) + lane / 4 * 2, 2);
    }
    r[b] = pair[0] | static_cast<std::uint32_t>(pair[1]) << 16;
  }
}

}  // namespace device
BI_NAMESPACE_END
