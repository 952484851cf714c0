// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"
#include "bi/contract/id.hpp"
#include "bi/contract/row_tree.hpp"

BI_NAMESPACE_BEGIN
namespace contract {

// The fold of a block: acc + exp(x - m), m being the block's largest element.
struct BI_TYPE exp_step {
  float m;
  BI_HD float operator()(float acc, float x) const { return add_rn(acc, bi::exp(sub_rn(x, m))); }
};

// log-sum-exp, softmax and log_softmax of a row. Elements are widened to fp32.
//
//   m_b = largest element of block b (max_nan, any order)
//   l_b = lane tree of add(acc, exp(sub(x, m_b))) from +0, lanes combined by add; +0 if m_b = -Inf
//   m   = largest m_b (max_nan, any order)
//   l   = row tree of add over the blocks' block_term(l_b, m_b, m)
//   logsumexp add(m, log(l))    log_softmax sub(sub(x, m), log(l))    softmax mul(exp(sub(x, m)), div(1, l))
//
// One pass over memory gives m_b and l_b of a block. A row of -Inf, and an empty row, have m = -Inf and l = +0: logsumexp
// is -Inf, the other two NaN. A NaN or a +Inf in the row makes l NaN, and with it every result of the row.
struct BI_TYPE softmax_draft {
  static constexpr const char* name = "softmax_draft";
  static constexpr std::uint64_t id() { return contract_id(name, row_vector, row_lanes, row_block); }

  // Selected, not computed: -Inf - -Inf would be NaN.
  BI_HD static bool empty_block(float m_b) { return bits_of(m_b) == (inf_bits | 0x80000000u); }
  BI_HD static float block_term(float l_b, float m_b, float m) {
    return empty_block(m_b) ? 0.0f : mul_rn(l_b, bi::exp(sub_rn(m_b, m)));
  }

  BI_HD static float logsumexp(float m, float l) { return add_rn(m, bi::log(l)); }

  // Once a row, then value() for each element.
  struct softmax_form {
    BI_HD static float row(float l) { return div_rn(1.0f, l); }
    BI_HD static float value(float x, float m, float row) { return mul_rn(bi::exp(sub_rn(x, m)), row); }
  };
  struct log_softmax_form {
    BI_HD static float row(float l) { return bi::log(l); }
    BI_HD static float value(float x, float m, float row) { return sub_rn(sub_rn(x, m), row); }
  };
};

}  // namespace contract
BI_NAMESPACE_END
