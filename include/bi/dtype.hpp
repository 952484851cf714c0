// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN

// Storage types. They carry bits and no arithmetic; layout equals __nv_bfloat16 and __half, so pointers may be
// reinterpreted. Arithmetic is in bi/contract/arithmetic.hpp.
struct BI_TYPE bf16 {
  std::uint16_t bits;
};
struct BI_TYPE fp16 {
  std::uint16_t bits;
};

enum class dtype : std::uint8_t { bf16, fp16, f32 };

template <class T>
struct dtype_traits;
template <>
struct dtype_traits<bf16> {
  static constexpr dtype value = dtype::bf16;
  static constexpr const char* name = "bf16";
};
template <>
struct dtype_traits<fp16> {
  static constexpr dtype value = dtype::fp16;
  static constexpr const char* name = "fp16";
};
template <>
struct dtype_traits<float> {
  static constexpr dtype value = dtype::f32;
  static constexpr const char* name = "f32";
};

static_assert(sizeof(bf16) == 2 && sizeof(fp16) == 2, "storage types are two bytes");

BI_NAMESPACE_END
