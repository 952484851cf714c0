// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"
#include "bi/contract/id.hpp"

BI_NAMESPACE_BEGIN
namespace contract {

// Elementwise: operands are widened to fp32, the result is rounded to T once.
//   silu_mul       cvt(mul(silu(gate), up))
//   gelu_mul       cvt(mul(gelu(gate), up))
//   gelu_tanh_mul  cvt(mul(gelu_tanh(gate), up))
//   add            cvt(add(x, y))
struct BI_TYPE activation_draft {
  static constexpr const char* name = "activation_draft";
  static constexpr std::uint64_t id() { return contract_id(name); }

  template <class T>
  BI_HD static T silu_mul(T gate, T up) {
    return cvt_rn<T>(mul_rn(bi::silu(to_f32(gate)), to_f32(up)));
  }
  template <class T>
  BI_HD static T gelu_mul(T gate, T up) {
    return cvt_rn<T>(mul_rn(bi::gelu(to_f32(gate)), to_f32(up)));
  }
  template <class T>
  BI_HD static T gelu_tanh_mul(T gate, T up) {
    return cvt_rn<T>(mul_rn(bi::gelu_tanh(to_f32(gate)), to_f32(up)));
  }
  template <class T>
  BI_HD static T add(T x, T y) {
    return cvt_rn<T>(add_rn(to_f32(x), to_f32(y)));
  }
};

}  // namespace contract
BI_NAMESPACE_END
