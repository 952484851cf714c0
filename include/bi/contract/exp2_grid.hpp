// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/exp2_table.hpp"

// 2^x for multiples x of 2^-12, as Hopper's special function unit gives it. Of such exponents it knows 4096 mantissas for
// x >= 0 and as many for x < 0, which exp2_table.hpp records, so the host can tell its bits; of others it would take a
// model of the unit. Below 2 ulp.

BI_NAMESPACE_BEGIN
namespace contract {

// x + 3072 is x rounded to a multiple of 2^-12, ties to even, for |x| < 1024.
inline constexpr float exp2_grid_origin = 3072.0f;

// x: a multiple of 2^-12, or below -126, or not below 128, or NaN. Results below 2^-126 are +0.
BI_HD inline float exp2_of_multiple(float x) {
#if BI_DEVICE_CODE
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  if (is_nan(x)) return nan_f32();
  if (less(x, -126.0f)) return 0.0f;
  if (!less(x, 128.0f)) return inf_f32();
  const auto i = static_cast<std::int32_t>(mul_rn(x, 4096.0f));  // exact
  const auto u = static_cast<std::uint32_t>(i + 127 * 4096), k = u & 4095u;
  const std::uint32_t less = i < 0 ? static_cast<std::uint32_t>(exp2_mantissas_less[k] - '0') : 0;
  return float_of((u >> 12 << 23) | (exp2_mantissas[k] - less));
#endif
}

}  // namespace contract

// 2^(t - 3072) for every float t: what is added to 3072 is rounded to a multiple of 2^-12 by that. +0 for t - 3072 < -126
// and Inf from 128 on; exact where t is an integer.
BI_HD inline float exp2_grid(float t) { return contract::exp2_of_multiple(sub_rn(t, contract::exp2_grid_origin)); }

BI_NAMESPACE_END
