// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/testing/row.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

#include "bi/contract/norm.hpp"
#include "bi/reference/rms_norm.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace {

struct sum_step {
  const float* x;
  float operator()(float acc, std::int64_t i, int n) const {
    return bi::contract::fold_vector(acc, x + i, n, bi::contract::add_step{});
  }
};

struct norm_args {
  const bi::bf16* x;
  const bi::bf16* weight;
  bi::bf16* out;
  std::int64_t cols;
};

// rms_norm, written as a user writes a kernel.
struct norm_body {
  template <class Row>
  void operator()(Row& row, const norm_args& a) const {
    const bi::bf16* x = a.x + row.index() * a.cols;
    const auto square = [&](float acc, std::int64_t i, int n) {
      float v[8];
      row.load(x + i, n, v);
      return bi::contract::fold_vector(acc, v, n, bi::contract::square_step{});
    };
    const float r = bi::contract::norm_scale(row.fold(a.cols, 0.0f, square, bi::contract::add_step{}), a.cols, 1e-6f);
    row.for_each_vector(a.cols, [&](std::int64_t i, int n) {
      float v[8], w[8];
      row.load(x + i, n, v);
      row.load(a.weight + i, n, w);
      for (int e = 0; e < n; ++e) v[e] = bi::mul_rn(bi::mul_rn(v[e], r), w[e]);
      row.store(a.out + row.index() * a.cols + i, n, v);
    });
  }
};

}  // namespace

TEST_CASE("cpu_row::fold is the row tree at every length") {
  const std::vector<float> x = test::random_vector<float>(3 * 8192 + 17, test::values::normal, 1);
  std::vector<float> results(8);
  int lengths = 0;
  for (std::int64_t cols = 0; cols <= static_cast<std::int64_t>(x.size()); cols += cols < 2100 ? 1 : 509, ++lengths) {
    const bi::testing::cpu_row row(0);
    const float got = row.fold(cols, 0.0f, sum_step{x.data()}, bi::contract::add_step{});
    const float expected = bi::contract::reduce_row(x.data(), cols, 0.0f, bi::contract::add_step{},
                                                    bi::contract::add_step{}, results.data());
    INFO("cols " << cols);
    REQUIRE(bi::bits_of(got) == bi::bits_of(expected));
  }
  CHECK(lengths > 2100);
}

TEST_CASE("cpu_row::fold of more than 8192 blocks has a third level") {
  const std::int64_t cols = std::int64_t{8192} * 8192 + 8192 * 3 + 5;
  // Elements are made on the way: the row would take 256 MB.
  const auto element = [](std::int64_t i) { return bi::float_from_int64(i % 1021 - 500); };
  const auto step = [&](float acc, std::int64_t i, int n) {
    for (int e = 0; e < n; ++e) acc = bi::add_rn(acc, element(i + e));
    return acc;
  };
  const float got = bi::testing::cpu_row(0).fold(cols, 0.0f, step, bi::contract::add_step{});

  std::vector<float> block(8192), results(8192 + 4);
  for (std::int64_t b = 0; b < bi::contract::row_blocks(cols); ++b) {
    const int length = bi::contract::block_length(cols, b);
    for (int i = 0; i < length; ++i) block[static_cast<std::size_t>(i)] = element(b * 8192 + i);
    results[static_cast<std::size_t>(b)] =
        bi::contract::reduce_block(block.data(), length, 0.0f, bi::contract::add_step{}, bi::contract::add_step{});
  }
  const float expected =
      bi::contract::reduce_results(results.data(), bi::contract::row_blocks(cols), 0.0f, bi::contract::add_step{});
  CHECK(bi::bits_of(got) == bi::bits_of(expected));
}

TEST_CASE("a body over cpu_row gives the bytes of the reference") {
  for (const std::int64_t cols : {1, 7, 8, 100, 4096, 8192, 8193, 20000}) {
    const std::int64_t rows = 3;
    const auto x = test::random_vector<bi::bf16>(rows * cols, test::values::wide, 2);
    const auto weight = test::random_vector<bi::bf16>(cols, test::values::normal, 3);
    std::vector<bi::bf16> expected(x.size()), out(x.size());
    bi::rms_norm_args<bi::bf16> a;
    a.x = x.data(), a.weight = weight.data(), a.out = expected.data(), a.rows = rows, a.cols = cols;
    REQUIRE(bi::reference::rms_norm(a));
    bi::testing::run_rows_on_cpu(norm_body{}, norm_args{x.data(), weight.data(), out.data(), cols}, rows);
    INFO("cols " << cols);
    CHECK(std::memcmp(out.data(), expected.data(), out.size() * 2) == 0);
  }
}
