// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <string>
#include <vector>

#include "bi/testing/invariance.cuh"
#include "gpu/support/custom_kernel.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// bi/testing's checker and rows on a GPU: a kernel of one's own, whose body is its CPU twin.

namespace {

namespace bt = bi::testing;

struct problem {
  std::int64_t cols;
  bt::rows_under_test rows{24};
  int x, products, sum;

  explicit problem(std::int64_t columns) : cols(columns) {
    const auto values = test::random_vector<float>(rows.pool() * cols, test::values::normal, 5);
    x = rows.numbers("x", values.data(), cols);
    products = rows.output<float>("products", cols);
    sum = rows.output<float>("sum", 1);
  }
  test::row_sum_args arguments(const bt::row_call& c) const {
    return {c.in<float>(x), c.out<float>(products), c.out<float>(sum), c.rows, cols};
  }
  bt::row_function twin() const {
    return [this](const bt::row_call& c) {
      bt::run_rows_on_cpu(test::row_sum{}, arguments(c), c.rows);
      return bi::status{};
    };
  }
};

}  // namespace

TEST_CASE("a kernel of rows keeps the promise with every number of threads a row") {
  for (const std::int64_t cols : {1, 8, 33, 1000, 8200, 20000}) {
    const problem p(cols);
    const bt::row_function twin = p.twin();
    bt::check_options options;
    if (cols > 1000) options.batches = {2, 17, 33}, options.position_batch = 9;
    for (const int threads : {0, 32, 256}) {
      const bt::report r = bt::check_on_gpu(
          p.rows,
          [&](const bt::row_call& c) { return test::launch_row_sum(p.arguments(c), c.rows, c.stream, threads); }, &twin,
          options);
      INFO("cols " << cols << ", threads " << threads << ": " << bt::describe(r));
      CHECK(r);
      CHECK(r.replays == 15);
    }
  }
}

TEST_CASE("the checker finds a kernel that follows the batch") {
  const problem p(1000);
  const bt::report r = bt::check_on_gpu(
      p.rows, [&](const bt::row_call& c) { return test::launch_split_row_sum(p.arguments(c), c.rows, c.stream); });
  REQUIRE(r.first.check != nullptr);
  CHECK(std::string(r.first.check) == "batch");
  CHECK(r.first.batch >= 32);
}

TEST_CASE("the checker returns what a capture forbids as an error") {
  const problem p(8);
  bool waited = false;
  const bt::report r = bt::check_on_gpu(p.rows, [&](const bt::row_call& c) {
    const bi::status st = test::launch_row_sum(p.arguments(c), c.rows, c.stream, 0);
    if (!st) return st;
    waited = true;
    return bi::cuda_status("row_sum", "cudaStreamSynchronize", cudaStreamSynchronize(c.stream));
  });
  CHECK(waited);
  CHECK(r.call.code == bi::error::cuda);
}
