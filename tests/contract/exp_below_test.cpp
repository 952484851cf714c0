// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/device/exp_below.cuh"

#include <cstdint>

#include "support/catch.hpp"

// A faster sequence for arguments up to 0 that must have exp's bits.

namespace {

template <class Function>
std::int64_t differences(Function f, std::uint32_t step) {
  std::int64_t count = 0;
  for (std::uint64_t u = 0x80000000u; u <= 0xff800000u; u += step) {
    const float x = bi::float_of(static_cast<std::uint32_t>(u));
    if (bi::bits_of(f(x)) != bi::bits_of(bi::exp(x))) ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("exp_below: the bits of exp for all arguments up to 0", "[functions]") {
  CHECK(differences(bi::device::exp_below, 509) == 0);
  for (const float x : {0.0f, -0.0f, -87.33f, -103.97f, -104.0f, -1000.0f, bi::neg_inf_f32()}) {
    CHECK(bi::bits_of(bi::device::exp_below(x)) == bi::bits_of(bi::exp(x)));
  }
  // Control: results that are not normal count.
  CHECK(differences([](float x) { return bi::less(x, -87.34f) ? 0.0f : bi::exp(x); }, 509) > 1000);
}
