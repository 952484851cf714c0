// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"
#include "bi/contract/row_tree.hpp"

BI_NAMESPACE_BEGIN
namespace contract {

// Sum, mean, max, min, argmax, argmin of a row. Elements are widened to fp32, the result is rounded once.
//
//   sum     row tree of add from +0; an empty row gives +0
//   mean    div(sum, cols); an empty row gives NaN
//   max     row tree of max_nan from -Inf: NaN wins, +0 > -0; an empty row gives -Inf
//   min     row tree of min_nan from +Inf: NaN wins, -0 < +0; an empty row gives +Inf
//   argmax  the first NaN, else the lowest index of the largest value, -0 == +0
//   argmin  the first NaN, else the lowest index of the smallest value, -0 == +0
//
// max, min and the two args do not depend on an order, so any order will do for them.
struct BI_TYPE reduce_draft {
  static constexpr const char* name = "reduce_draft";
  static constexpr std::uint64_t id() { return contract_id(name, row_vector, row_lanes, row_block); }

  BI_HD static float mean(float sum, std::int64_t cols) { return div_rn(sum, float_from_int64(cols)); }
};

// A value and where it stands. Index -1 is nothing yet; every value beats it.
struct BI_TYPE arg_value {
  float value;
  std::int64_t index;
};

struct BI_TYPE arg_max_step {
  BI_HD static bool first(float a, float b) { return greater(a, b); }
};
struct BI_TYPE arg_min_step {
  BI_HD static bool first(float a, float b) { return less(a, b); }
};

// The better of two, whichever is named first: associative and commutative.
template <class Step>
BI_HD arg_value better_arg(arg_value a, arg_value b) {
  if (a.index < 0) return b;
  if (b.index < 0) return a;
  const bool a_nan = is_nan(a.value), b_nan = is_nan(b.value);
  if (a_nan != b_nan) return a_nan ? a : b;
  if (Step::first(a.value, b.value)) return a;
  if (Step::first(b.value, a.value)) return b;
  return a.index < b.index ? a : b;
}

}  // namespace contract
BI_NAMESPACE_END
