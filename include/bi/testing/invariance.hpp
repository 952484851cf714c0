// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/testing/invariance_checks.hpp"
#include "bi/testing/invariance_rows.hpp"

// Checks a kernel of one's own for batch invariance: that the bytes of an output row are a function of that row's own
// inputs. Nothing here needs a GPU; bi/testing/invariance.cuh adds the memory of one.
//
//   bi::testing::rows_under_test rows(pool);                 // `pool` different rows, say 40
//   const int x = rows.numbers("x", x_values, cols);         // an input: pool x cols values
//   const int n = rows.indices("n", n_values, 1);            // one whose bytes mean places: never filled with garbage
//   const int y = rows.output<bi::bf16>("y", cols);
//   auto run = [&](const bi::testing::row_call& c) {         // computes c.rows rows; weights are the closure's own
//     return my_kernel(c.in<float>(x), c.in<int>(n), c.out<bi::bf16>(y), c.rows, c.stream);
//   };
//   const bi::testing::report r = bi::testing::check_on_cpu(rows, run);
//   if (!r) std::puts(bi::testing::describe(r).c_str());
//
// The inputs of a row lie together, rows one after another. Each row is computed alone first, and its bytes are what is
// expected of it in every other call:
//
//   cpu twin     alone by the same function over host memory, where one is given
//   repeat       alone once more
//   batch        in batches of many sizes, filled with rows in a random order
//   position     at the first, the last and other places of one batch
//   neighbours   among rows of zeros, of the largest numbers, of infinities, of NaNs, of copies of itself
//   graph        from a captured graph, replayed with other rows in the same memory
//
// In each call outputs hold 0xFF before; inputs, the bytes around all arrays and rows past the last must stay as they are.
// A check whose rows all have the same outputs is vacuous and fails.

BI_NAMESPACE_BEGIN
namespace testing {

// Runs all checks over `run` with its arrays in `m`. `twin`, if any, is the same function over host memory; each row
// alone must have its bytes. Waits for the calls; there are about 2 * pool + batches + 21 * watched of them.
inline report check(const rows_under_test& rows, const row_function& run, memory& m, const row_function* twin = nullptr,
                    const check_options& options = {}) {
  return detail::checker(rows, run, m, options).result(twin);
}

// The same for a function that runs on the CPU, such as a kernel's twin.
inline report check_on_cpu(const rows_under_test& rows, const row_function& run, const check_options& options = {}) {
  host_memory m;
  return check(rows, run, m, nullptr, options);
}

}  // namespace testing
BI_NAMESPACE_END
