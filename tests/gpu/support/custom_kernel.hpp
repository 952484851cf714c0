// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/status.hpp"
#include "bi/testing/row.hpp"

// A kernel as a user writes one, for the tests of bi/testing: the sum of a row, each element of which is first multiplied
// by the row's first one, through memory.
namespace test {

struct row_sum_args {
  const float* x;   // [rows, cols]
  float* products;  // [rows, cols]
  float* sum;       // [rows]
  std::int64_t rows, cols;
};

struct row_sum {
  template <class Row>
  BI_HD void operator()(Row& row, const row_sum_args& a) const {
    write_products(row, a);
    const float sum = fold(row, a, 0, a.cols);
    row.for_each(1, [&](std::int64_t) { a.sum[row.index()] = sum; });
  }

  template <class Row>
  BI_HD static void write_products(Row& row, const row_sum_args& a) {
    const float* x = a.x + row.index() * a.cols;
    float* products = a.products + row.index() * a.cols;
    // Reversed, so that threads read what others wrote.
    row.for_each(a.cols, [&](std::int64_t i) { products[a.cols - 1 - i] = bi::mul_rn(x[i], x[0]); });
    row.barrier();
  }
  template <class Row>
  BI_HD static float fold(Row& row, const row_sum_args& a, std::int64_t begin, std::int64_t end) {
    const float* p = a.products + row.index() * a.cols + begin;
    return row.fold(
        end - begin, 0.0f,
        [&](float acc, std::int64_t i, int n) {
          for (int e = 0; e < n; ++e) acc = bi::add_rn(acc, p[i + e]);
          return acc;
        },
        bi::contract::add_step{});
  }
};

// The positive control: it splits the sums of a small batch.
struct split_row_sum {
  template <class Row>
  BI_HD void operator()(Row& row, const row_sum_args& a) const {
    row_sum::write_products(row, a);
    const std::int64_t half = a.rows < 32 ? a.cols / 2 : a.cols;
    const float first = row_sum::fold(row, a, 0, half);
    const float sum = bi::add_rn(first, row_sum::fold(row, a, half, a.cols));
    row.for_each(1, [&](std::int64_t) { a.sum[row.index()] = sum; });
  }
};

bi::status launch_row_sum(const row_sum_args& args, std::int64_t rows, bi::cuda_stream stream, int threads_per_row);
bi::status launch_split_row_sum(const row_sum_args& args, std::int64_t rows, bi::cuda_stream stream);

}  // namespace test
