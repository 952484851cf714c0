// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "support/data.hpp"

namespace test {

// A leaf's partial result of a row, made up from its number alone.
struct made_up_partial {
  float m, l;

  made_up_partial(std::uint64_t item, std::int64_t leaf, int row)
      : seed_(((item << 24) + static_cast<std::uint64_t>(leaf)) << 8) {
    seed_ = bi::mix64(seed_ + static_cast<std::uint64_t>(row));
    const std::uint64_t x = bi::mix64(seed_ + 400);
    none_ = x % 37 == 0;  // every score was -Inf
    m = none_ ? bi::neg_inf_f32() : bi::mul_rn(bi::float_from_int(static_cast<int>(x >> 20) % 40000 - 20000), 0x1p-12f);
    l = none_ ? 0.0f : bi::fma_rn(bi::float_from_int(static_cast<int>(bi::mix64(seed_ + 401) % 100000)), 0.001f, 1.0f);
  }
  float o(int column) const {
    const std::uint64_t x = bi::mix64(seed_ + static_cast<std::uint64_t>(column));
    if (none_) return 0.0f;
    return x % 11 == 0 ? -0.0f
                       : bi::mul_rn(bi::float_from_int(static_cast<int>(x >> 20) % 2000001 - 1000000), 0x1p-15f);
  }

 private:
  std::uint64_t seed_;
  bool none_;
};

// A row's columns, leaves folded in the order in which they are added.
template <class Contract, int HeadDim>
struct folded_row {
  float m = bi::neg_inf_f32(), l = 0.0f, o[HeadDim] = {};
  bool first = true;

  void add(const made_up_partial& right) {
    const auto f = Contract::fold(m, right.m);
    l = first ? right.l : Contract::fold_value(f, l, right.l);
    for (int c = 0; c < HeadDim; ++c) o[c] = first ? right.o(c) : Contract::fold_value(f, o[c], right.o(c));
    m = first ? right.m : f.m;
    first = false;
  }
};

}  // namespace test
