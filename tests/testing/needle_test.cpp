// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

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

TEST_CASE("needle: pages and rows far apart are the same rows") {
  std::set<std::string> operations;
  for (const needle_case& c : all_cases()) {
    // One of each operation, and all that read a cache.
    const bool has_pages = c.operation.find("attention") == 0 || c.operation == "digest_kv";
    if (c.operation.find("columns") != std::string::npos || c.operation.find("count") != std::string::npos ||
        c.operation == "verify" || (!operations.insert(c.operation).second && !has_pages)) {
      continue;
    }
    INFO(c.name());
    host_machine host;
    options o = few(3);
    o.far = true, o.small = true;
    // As far as a row is long, and four times as far as pages lie anyway.
    o.far_stride = 100024, o.far_span = std::int64_t{1} << 23;
    const result r = check_case(host, c, o);
    CHECK(r.failure == "");
    CHECK(r.rows == (1 + 3) * 2);
    CHECK(c.make(1).pieces.empty() != has_pages);
  }
  CHECK(operations.size() > 20);
}

TEST_CASE("needle: pages that lie elsewhere are found") {
  const auto make = [](std::uint64_t seed) {
    table t;
    t.in = {values_column<float>("x", 1, seed)};
    t.shared = {bytes_of(std::vector<float>{1, 2, 3, 4})};
    t.pieces = {8};
    t.out = {output_column<float>("out", 2)};
    t.reference = [](const call& c) {
      for (std::int64_t r = 0; r < c.rows; ++r) {
        const float* second = c.array<float>(0) + (c.rows > 1 ? 2 : c.array_stride<float>(0));
        for (std::int64_t i = 0; i < 2; ++i) c.output<float>(0)[r * c.output_stride<float>(0) + i] = second[i];
      }
      return bi::status{};
    };
    return t;
  };
  const needle_case c{"pages", "test", "f32", "x", make};
  options o = few(3);
  o.small = true;
  host_machine near;
  CHECK(check_case(near, c, o).failure == "");
  o.far = true, o.far_stride = 100, o.far_span = 4096;
  // An array's second page is not where the first one ends.
  const auto one_after_the_other = [&] {
    host_machine host;
    matrix m(host, c, o);
    result r;
    m.run(r);
    return r.failure;
  };
  CHECK(one_after_the_other().find("a batch of 3 rows") == 0);
}

TEST_CASE("needle: under every schedule") {
  std::set<std::string> operations;
  for (const needle_case& c : all_cases()) {
    if (!operations.insert(c.operation).second) continue;
    INFO(c.name());
    host_machine host;
    options o = few(3);
    o.forced = true, o.small = true;
    const result r = check_case(host, c, o);
    CHECK(r.failure == "");
    CHECK(r.refused == 0);
    CHECK((r.launches > 0) == (c.make(1).schedules != nullptr));
    std::int64_t launches = 0;
    for (const auto& [name, times] : r.schedules) {
      launches += times;
      const std::size_t blocks = name.find("blocks=");
      CHECK((blocks == std::string::npos || name.compare(blocks, 10, "blocks=any") == 0));
    }
    CHECK(launches == r.launches);
  }
  CHECK(operations.size() > 30);
  // A schedule with other bits, one with other bits in a batch of three only, and one that the launcher refuses.
  std::set<std::string>* tried = nullptr;
  std::uint64_t part = 0, parts = 1;
  const auto forced = [&](std::size_t wrong, std::int64_t rows, bi::error refused) {
    class bad_machine : public host_machine {
     public:
      bad_machine(std::size_t which, std::int64_t rows, bi::error error) : which_(which), rows_(rows), error_(error) {}
      bi::status run_forced(const table& t, const call& c, std::size_t which) override {
        if (which == 2 && error_ != bi::error::none) return bi::status{error_};
        const bi::status st = run(t, c);
        if (which == which_ && c.rows >= rows_) c.out[0][(c.rows - 1) * c.out_stride[0]] ^= 1;
        return st;
      }

     private:
      std::size_t which_;
      std::int64_t rows_;
      bi::error error_;
    };
    needle_case c = sums([](const call&) {});
    const auto make = c.make;
    c.make = [make](std::uint64_t seed) {
      table t = make(seed);
      t.schedules = [](const call&) { return std::vector<std::string>{"a{blocks=1}", "a{blocks=22}", "b{}"}; };
      return t;
    };
    bad_machine host(wrong, rows, refused);
    options o = few(3);
    o.forced = true;
    o.brief = o.small = tried != nullptr, o.tried = tried;
    o.part = part, o.parts = parts;
    return check_case(host, c, o);
  };
  const result good = forced(9, 1, bi::error::none);
  CHECK(good.failure == "");
  CHECK(good.schedules == std::map<std::string, std::int64_t>{{"a{blocks=any}", 8}, {"b{}", 4}});
  CHECK(forced(1, 1, bi::error::none).failure.find("forced a{blocks=22}: place 0 ") != std::string::npos);
  CHECK(forced(2, 3, bi::error::none).failure.find("a batch of 3 rows") == 0);
  const result refused = forced(9, 1, bi::error::not_supported);
  CHECK(refused.failure == "");
  CHECK(refused.refused == 4);
  CHECK(refused.launches == 8);
  CHECK_THROWS(forced(9, 1, bi::error::cuda));
  // In brief, each but once, over all cases, and again if it was refused.
  std::set<std::string> so_far;
  tried = &so_far;
  CHECK(forced(9, 1, bi::error::not_supported).schedules == std::map<std::string, std::int64_t>{{"a{blocks=any}", 1}});
  CHECK(forced(0, 1, bi::error::none).schedules == std::map<std::string, std::int64_t>{{"b{}", 1}});
  const result nothing = forced(0, 1, bi::error::none);
  CHECK(nothing.launches == 0);
  CHECK(nothing.reference_rows == 0);  // the case is left out
  // In parts, each in one of them.
  std::map<std::string, std::int64_t> of_parts;
  int with_any = 0;
  for (part = 0, parts = 4; part < parts; ++part) {
    so_far.clear();
    const result r = forced(9, 1, bi::error::none);
    with_any += r.launches > 0 ? 1 : 0;
    for (const auto& [name, times] : r.schedules) of_parts[name] += times;
  }
  CHECK(of_parts == std::map<std::string, std::int64_t>{{"a{blocks=any}", 1}, {"b{}", 1}});
  CHECK(with_any == 2);
}

TEST_CASE("needle: in brief") {
  host_machine host;
  options o = few(130);
  o.small = o.brief = true;
  const result r = check_case(host, sums([](const call&) {}), o);
  CHECK(r.failure == "");
  CHECK(r.launches == 1);
  CHECK(r.rows == 17);
}
