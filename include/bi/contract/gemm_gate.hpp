// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/config.hpp"
#include "bi/contract/activation.hpp"

BI_NAMESPACE_BEGIN
namespace contract {

// A product's gate: of the rounded outputs, so it gives the bytes of the separate operation silu_mul.
template <class Out>
BI_HD Out gemm_silu_gate(Out gate, Out up) {
  return activation_draft::silu_mul(gate, up);
}

}  // namespace contract
BI_NAMESPACE_END
