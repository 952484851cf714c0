// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include "needle/build.hpp"
#include "needle/matrix.hpp"
#include "support/catch.hpp"

// The needle matrix over the reference: that its cases are what they seem, and that it finds what it should.

namespace {

using namespace test::needle;

options few(std::int64_t most_rows, std::int64_t rows = 1) {
  options o;
  o.most_rows = most_rows, o.rows = rows;
  return o;
}

// Sums of a row's elements, of which `wrong` may spoil some.
template <class Wrong>
needle_case sums(Wrong wrong) {
  const auto make = [wrong](std::uint64_t seed) {
    table t;
    t.in = {values_column<float>("x", 5, seed)};
    t.out = {output_column<float>("out", 5)};
    t.reference = [wrong](const call& c) {
      for (std::int64_t r = 0; r < c.rows; ++r) {
        for (std::int64_t i = 0; i < 5; ++i) {
          const float x = c.input<float>(0)[r * c.input_stride<float>(0) + i];
          c.output<float>(0)[r * c.output_stride<float>(0) + i] = bi::add_rn(x, 1.0f);
        }
      }
      wrong(c);
      return bi::status{};
    };
    return t;
  };
  return {"sums", "test", "f32", "cols=5", make};
}

}  // namespace

TEST_CASE("needle: cases have names of their own") {
  std::set<std::string> names;
  const case_list all = all_cases();
  for (const needle_case& c : all) names.insert(c.name());
  CHECK(names.size() == all.size());
  CHECK(names.size() > 150);
}

TEST_CASE("needle: the reference passes every case") {
  for (const needle_case& c : all_cases()) {
    INFO(c.name());
    host_machine host;
    options o = few(3);
    o.small = true;
    const result r = check_case(host, c, o);
    CHECK(r.failure == "");
    CHECK(r.bytes_different == 0);
    CHECK(r.rows == (1 + 3) * 2);
    CHECK(r.reference_rows >= 4);
  }
}

TEST_CASE("needle: what follows the batch is found, and where") {
  host_machine host;
  const auto flip = [](const call& c, std::int64_t row, std::int64_t element) {
    c.out[0][row * c.out_stride[0] + element * 4] ^= 1;
  };
  CHECK(check_case(host, sums([](const call&) {}), few(40)).failure == "");
  // The last row of a batch that is no multiple of 16.
  const auto tail = check_case(host, sums([flip](const call& c) {
                                 if (c.rows > 16 && c.rows < 40 && c.rows % 16 != 0) flip(c, c.rows - 1, 3);
                               }),
                               few(40));
  CHECK(tail.failure.find("a batch of 17 rows") == 0);
  CHECK(tail.failure.find("place 16 ") != std::string::npos);
  CHECK(tail.failure.find("element 3: ") != std::string::npos);
  CHECK(tail.failure.find("needle_row 'sums/test/f32/cols=5' --seed 1 --row ") != std::string::npos);
  CHECK(tail.bytes_different > 0);
  // A row's neighbour.
  const auto leak = check_case(host, sums([flip](const call& c) {
                                 if (c.rows > 1 && c.in[0][c.in_stride[0] + 3] == 0x7f) flip(c, 0, 0);
                               }),
                               few(8));
  CHECK(leak.failure.find("place 0 ") != std::string::npos);
  // Rows that nobody wrote, elements before and after the rows, and between them.
  for (const std::int64_t at : {-1, 0}) {
    const auto outside = check_case(host, sums([at](const call& c) {
                                      if (c.rows > 1) c.out[0][at < 0 ? -1 : c.rows * c.out_stride[0]] ^= 1;
                                    }),
                                    few(8));
    CHECK(outside.failure.find("what is around the rows") != std::string::npos);
  }
  const auto between = check_case(host, sums([](const call& c) {
                                    if (c.out_stride[0] > 20) c.out[0][20] ^= 1;
                                  }),
                                  few(8));
  CHECK(between.failure.find("what is around the rows") != std::string::npos);
  // An input that is written.
  const auto input = check_case(host, sums([](const call& c) {
                                  if (c.rows == 1) return;
                                  c.in[0][0] ^= 1;
                                }),
                                few(4));
  CHECK(input.failure.find("input x of row 0 was written") != std::string::npos);
}

TEST_CASE("needle: among every kind of neighbour") {
  for (const needle_case& c : all_cases()) {
    // One of each kind of column: packed, transposed, several of one array, arranged.
    if (c.dtype.find("bf16") != 0) continue;
    if (c.operation != "argmax_columns" && c.operation != "gemm_finish" && c.operation != "rope" &&
        c.operation != "verify" && c.operation != "attention_sharing") {
      continue;
    }
    INFO(c.name());
    host_machine host;
    const result r = check_case(host, c, few(3));
    CHECK(r.failure == "");
    CHECK(r.rows >= 6 * neighbour_kinds);
    CHECK(r.reference_rows == pool_rows);
  }
}

TEST_CASE("needle: batch sizes take in where the schedule changes") {
  table t;
  t.schedule = [](std::int64_t rows) { return std::string(rows < 700 ? "few" : "many"); };
  const auto sizes = batch_sizes(t, 1000);
  for (const std::int64_t rows : {699, 700, 701}) CHECK(std::count(sizes.begin(), sizes.end(), rows) == 1);
  CHECK(sizes.back() == 701);
}
