// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"

BI_NAMESPACE_BEGIN

enum class rope_style : std::uint8_t {
  half,         // element i pairs with i + rotary_dim / 2 (GPT-NeoX, Llama, Qwen)
  interleaved,  // element 2i pairs with 2i + 1 (GPT-J)
};

namespace contract {

// Pair i of a head's first rotary_dim elements, (x1, x2) widened to fp32, turns by the table's angle i at the token's
// position. Each result is rounded to T once. Elements past rotary_dim are copied bit by bit.
//   x1' = cvt(fma(x1, cos, neg(mul(x2, sin))))    x2' = cvt(fma(x2, cos, mul(x1, sin)))
struct BI_TYPE rope_draft {
  static constexpr const char* name = "rope_draft";
  static constexpr std::uint64_t id() { return contract_id(name); }

  BI_HD static constexpr std::int64_t first(rope_style s, std::int64_t pair) {
    return s == rope_style::half ? pair : 2 * pair;
  }
  BI_HD static constexpr std::int64_t second(rope_style s, std::int64_t pair, std::int64_t rotary_dim) {
    return s == rope_style::half ? pair + rotary_dim / 2 : 2 * pair + 1;
  }

  // In place.
  template <class T>
  BI_HD static void rotate(T& first, T& second, float cos, float sin) {
    const float x1 = to_f32(first), x2 = to_f32(second);
    first = cvt_rn<T>(fma_rn(x1, cos, neg(mul_rn(x2, sin))));
    second = cvt_rn<T>(fma_rn(x2, cos, mul_rn(x1, sin)));
  }
};

}  // namespace contract
BI_NAMESPACE_END
