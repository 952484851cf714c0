// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/philox.hpp"
#include "bi/dtype.hpp"

namespace engine {

// Element `index` of random tensor number `tensor`, from Philox: the same bits on every machine, with no files. Eight
// uniforms of 16 bits are near enough to normal, and integers add up exactly.
BI_HD inline bi::bf16 random_weight(std::uint64_t seed, std::uint64_t tensor, std::uint64_t index, float scale) {
  const bi::contract::philox_block r =
      bi::contract::philox4x32_10({{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                                    static_cast<std::uint32_t>(tensor), static_cast<std::uint32_t>(tensor >> 32)}},
                                  static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
  std::int32_t sum = -4 * 65535;
  for (const std::uint32_t w : r.word) sum += static_cast<std::int32_t>((w & 0xffffu) + (w >> 16));
  return bi::cvt_rn<bi::bf16>(bi::mul_rn(bi::float_from_int(sum), scale));
}

// What the sum has to be multiplied by for a standard deviation of `deviation`.
inline float weight_scale(float deviation) {
  return bi::div_rn(deviation, bi::mul_rn(65536.0f, bi::sqrt_rn(bi::div_rn(8.0f, 12.0f))));
}

}  // namespace engine
