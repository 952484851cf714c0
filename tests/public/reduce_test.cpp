// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reduce.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include "bi/reference/reduce.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::error;
using test::bad_row;
using test::byte_after;

namespace {

constexpr std::int64_t huge = std::int64_t{1} << 61;

}  // namespace

TEST_CASE("reduce: bad input", "[public][reduce]") {
  using args = bi::reduce_args<bi::bf16, float>;
  // 4 rows of 8, 10 apart, in the middle of a buffer that also serves for overlaps.
  auto x = test::random_vector<bi::bf16>(64, test::values::normal, 1);
  auto out = test::poisoned<float>(8);
  const auto untouched = out;
  const args good = [&] {
    args a;
    a.x = x.data();
    a.x_stride = 10;
    a.rows = 4;
    a.cols = 8;
    a.out = out.data();
    return a;
  }();
  auto* x_as_out = reinterpret_cast<float*>(x.data());
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -5; }, {error::too_small, "cols", -5}},
      {[](args& a) { a.rows = INT64_MIN; }, {error::too_small, "rows", INT64_MIN}},
      {[](args& a) { a.x_stride = 7; }, {error::too_small, "x_stride", 7}},
      {[](args& a) { a.x_stride = -10; }, {error::too_small, "x_stride", -10}},
      {[](args& a) { a.x_stride = huge; }, {error::overflow, "x_stride", huge}},
      {[](args& a) { a.rows = huge, a.x_stride = 0; }, {error::overflow, "x_stride", 8}},
      {[](args& a) { a.rows = huge, a.cols = a.x_stride = 0; }, {error::overflow, "rows", huge}},
      {[](args& a) { a.cols = INT64_MAX, a.x_stride = 0; }, {error::overflow, "x_stride", INT64_MAX}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x", 0}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out", 0}},
      {[](args& a) { a.cols = 0, a.out = nullptr; }, {error::null_pointer, "out", 0}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = x_as_out; }, {error::overlap, "out", 0}},
      {[&](args& a) { a.out = x_as_out + 18; }, {error::overlap, "out", 0}},
      // The first of two mistakes is the one reported.
      {[](args& a) { a.cols = -2, a.x = nullptr; }, {error::too_small, "cols", -2}},
      // Nothing to do is no excuse for a size that is wrong.
      {[](args& a) { a.rows = 0, a.cols = -1; }, {error::too_small, "cols", -1}},
      {[](args& a) { a.rows = 0, a.x_stride = 3; }, {error::too_small, "x_stride", 3}},
  };
  for (const bad_row<args>& r : rows) {
    args a = good;
    r.spoil(a);
    INFO("row " << (&r - rows));
    const bi::status st = ref::reduce(a, bi::reduction::sum);
    REQUIRE(test::other_than(r.expected, st) == "");
    REQUIRE(std::string(st.operation) == "reduce");
    REQUIRE(test::difference(out, untouched) == "");
  }
  const bi::status st = ref::reduce(good, static_cast<bi::reduction>(9));
  REQUIRE(bi::describe(st) == "reduce: reduction = 9 is not supported; supported: sum, mean, max, min");
  args a = good;
  a.x_stride = 7;
  REQUIRE(bi::describe(check(a, bi::reduction::max)) == "reduce: x_stride = 7 must be at least cols = 8");
  REQUIRE(test::difference(out, untouched) == "");
  a = good;  // out may begin where x ends: 3 rows of 10 and one of 8
  std::vector<float> both(32);
  a.x = reinterpret_cast<const bi::bf16*>(both.data());
  a.out = both.data() + 19;
  REQUIRE(check(a, bi::reduction::sum));
  REQUIRE(ref::reduce(good, bi::reduction::sum));
  REQUIRE(test::difference(out.data() + 4, untouched.data() + 4, 4) == "");
}

TEST_CASE("reduce: nothing to do", "[public][reduce]") {
  bi::reduce_args<bi::fp16, bi::fp16> a;
  REQUIRE(ref::reduce(a, bi::reduction::mean));
  a.cols = 100;
  a.x_stride = 128;
  REQUIRE(ref::reduce(a, bi::reduction::mean));
  auto out = test::poisoned<bi::fp16>(2);
  const auto untouched = out;
  a.out = out.data();
  REQUIRE(ref::reduce(a, bi::reduction::mean));
  REQUIRE(test::difference(out, untouched) == "");
}

TEST_CASE("reduce_columns: bad input", "[public][reduce]") {
  using args = bi::reduce_columns_args<bi::bf16, float>;
  auto x = test::random_vector<bi::bf16>(128, test::values::normal, 1);
  auto out = test::poisoned<float>(16);
  const auto untouched = out;
  const args good = [&] {
    args a;
    a.x = x.data();
    a.x_stride = 10;
    a.outer = 2;
    a.cols = 5;
    a.inner = 6;
    a.out = out.data();
    return a;
  }();
  const bad_row<args> rows[] = {
      {[](args& a) { a.outer = -1; }, {error::too_small, "outer", -1}},
      {[](args& a) { a.cols = -5; }, {error::too_small, "cols", -5}},
      {[](args& a) { a.inner = INT64_MIN; }, {error::too_small, "inner", INT64_MIN}},
      {[](args& a) { a.x_stride = 5; }, {error::too_small, "x_stride", 5}},
      {[](args& a) { a.x_stride = huge; }, {error::overflow, "x_stride", huge}},
      {[](args& a) { a.outer = huge; }, {error::overflow, "outer", huge}},
      {[](args& a) { a.outer = huge, a.cols = 0; }, {error::overflow, "outer", huge}},
      {[](args& a) { a.cols = INT64_MAX; }, {error::overflow, "x_stride", 10}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x", 0}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out", 0}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[&](args& a) { a.out = reinterpret_cast<float*>(x.data()) + 47; }, {error::overlap, "out", 0}},
      // Nothing to do is no excuse for a size that is wrong.
      {[](args& a) { a.inner = 0, a.cols = -1; }, {error::too_small, "cols", -1}},
  };
  for (const bad_row<args>& r : rows) {
    args a = good;
    r.spoil(a);
    INFO("row " << (&r - rows));
    const bi::status st = ref::reduce_columns(a, bi::reduction::sum);
    REQUIRE(test::other_than(r.expected, st) == "");
    REQUIRE(std::string(st.operation) == "reduce_columns");
    REQUIRE(test::difference(out, untouched) == "");
  }
  REQUIRE(bi::describe(ref::reduce_columns(good, static_cast<bi::reduction>(9))) ==
          "reduce_columns: reduction = 9 is not supported; supported: sum, mean, max, min");
  args nothing;
  REQUIRE(ref::reduce_columns(nothing, bi::reduction::max));
  REQUIRE(bi::reduce_columns_workspace_bytes(1, 8192, 9) == 0);
  REQUIRE(bi::reduce_columns_workspace_bytes(3, 8193, 9) == 2 * 3 * 9 * sizeof(float));
}

TEST_CASE("reduce_columns: each row as reduce has it", "[public][reduce]") {
  for (const std::int64_t cols : {0, 1, 8, 9, 300, 8192, 8193}) {
    constexpr std::int64_t outer = 3, inner = 5, stride = 7;
    const auto x = test::random_vector<float>(outer * cols * stride + 1, test::values::cancelling, 4);
    for (const bi::reduction op : {bi::reduction::sum, bi::reduction::mean, bi::reduction::max, bi::reduction::min}) {
      auto out = test::poisoned<float>(outer * inner);
      bi::reduce_columns_args<float> a;
      a.x = x.data();
      a.x_stride = stride;
      a.outer = outer;
      a.cols = cols;
      a.inner = inner;
      a.out = out.data();
      REQUIRE(ref::reduce_columns(a, op));
      for (std::int64_t r = 0; r < outer * inner; ++r) {
        std::vector<float> row;
        for (std::int64_t k = 0; k < cols; ++k) {
          row.push_back(x[static_cast<std::size_t>((r / inner * cols + k) * stride + r % inner)]);
        }
        float expected = 0.0f;
        bi::reduce_args<float> b;
        b.x = row.data();
        b.rows = 1;
        b.cols = cols;
        b.out = &expected;
        REQUIRE(ref::reduce(b, op));
        REQUIRE(test::difference(&expected, out.data() + r, 1) == "");
      }
    }
  }
}

TEST_CASE("argmax_columns, argmin_columns: bad input", "[public][reduce]") {
  using args = bi::arg_reduce_columns_args<bi::bf16>;
  auto x = test::random_vector<bi::bf16>(128, test::values::normal, 1);
  auto index = test::poisoned<std::int64_t>(16);
  const auto untouched = index;
  const args good = [&] {
    args a;
    a.x = x.data();
    a.x_stride = 10;
    a.outer = 2;
    a.cols = 5;
    a.inner = 6;
    a.index = index.data();
    return a;
  }();
  const bad_row<args> rows[] = {
      {[](args& a) { a.outer = -1; }, {error::too_small, "outer", -1}},
      {[](args& a) { a.cols = 0; }, {error::too_small, "cols", 0}},
      {[](args& a) { a.inner = -2; }, {error::too_small, "inner", -2}},
      {[](args& a) { a.x_stride = 5; }, {error::too_small, "x_stride", 5}},
      {[](args& a) { a.outer = huge; }, {error::overflow, "outer", huge}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x", 0}},
      {[](args& a) { a.index = nullptr; }, {error::null_pointer, "index", 0}},
      {[](args& a) { a.index = byte_after(a.index); }, {error::misaligned, "index"}},
      {[&](args& a) { a.index = reinterpret_cast<std::int64_t*>(x.data()); }, {error::overlap, "index", 0}},
      // Nothing to do is no excuse for a size that is wrong.
      {[](args& a) { a.inner = 0, a.cols = -1; }, {error::too_small, "cols", -1}},
  };
  for (const bad_row<args>& r : rows) {
    args a = good;
    r.spoil(a);
    INFO("row " << (&r - rows));
    const bi::status max = ref::argmax_columns(a), min = ref::argmin_columns(a);
    REQUIRE(test::other_than(r.expected, max) == "");
    REQUIRE(test::other_than(r.expected, min) == "");
    REQUIRE(std::string(max.operation) == "argmax_columns");
    REQUIRE(std::string(min.operation) == "argmin_columns");
    REQUIRE(test::difference(index, untouched) == "");
  }
  REQUIRE(ref::argmax_columns(args{}));
}

TEST_CASE("argmax_columns, argmin_columns: each row as argmax and argmin have it", "[public][reduce]") {
  for (const std::int64_t cols : {1, 9, 300}) {
    constexpr std::int64_t outer = 3, inner = 5, stride = 7;
    const auto x = test::random_vector<float>(outer * cols * stride + 1, test::values::ties, 4);
    std::vector<std::int64_t> max(outer * inner), min(outer * inner);
    bi::arg_reduce_columns_args<float> a;
    a.x = x.data(), a.x_stride = stride, a.outer = outer, a.cols = cols, a.inner = inner;
    a.index = max.data();
    REQUIRE(ref::argmax_columns(a));
    a.index = min.data();
    REQUIRE(ref::argmin_columns(a));
    for (std::int64_t r = 0; r < outer * inner; ++r) {
      std::vector<float> row;
      for (std::int64_t k = 0; k < cols; ++k) {
        row.push_back(x[static_cast<std::size_t>((r / inner * cols + k) * stride + r % inner)]);
      }
      std::int64_t expected = -1;
      bi::arg_reduce_args<float> b;
      b.x = row.data(), b.rows = 1, b.cols = cols, b.index = &expected;
      REQUIRE(ref::argmax(b));
      REQUIRE(max[static_cast<std::size_t>(r)] == expected);
      REQUIRE(ref::argmin(b));
      REQUIRE(min[static_cast<std::size_t>(r)] == expected);
    }
  }
}

TEST_CASE("argmax, argmin: bad input", "[public][reduce]") {
  using args = bi::arg_reduce_args<float>;
  auto x = test::random_vector<float>(64, test::values::normal, 2);
  auto index = test::poisoned<std::int64_t>(8);
  const auto untouched = index;
  const args good = [&] {
    args a;
    a.x = x.data();
    a.x_stride = 10;
    a.rows = 4;
    a.cols = 8;
    a.index = index.data();
    return a;
  }();
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = 0; }, {error::too_small, "cols", 0}},
      {[](args& a) { a.cols = -5; }, {error::too_small, "cols", -5}},
      {[](args& a) { a.rows = 0, a.cols = -5; }, {error::too_small, "cols", -5}},
      {[](args& a) { a.x_stride = 7; }, {error::too_small, "x_stride", 7}},
      {[](args& a) { a.x_stride = -1; }, {error::too_small, "x_stride", -1}},
      {[](args& a) { a.x_stride = huge; }, {error::overflow, "x_stride", huge}},
      {[](args& a) { a.rows = std::int64_t{1} << 60, a.cols = 1, a.x_stride = 0; },
       {error::overflow, "rows", std::int64_t{1} << 60}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x", 0}},
      {[](args& a) { a.index = nullptr; }, {error::null_pointer, "index", 0}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[](args& a) { a.index = byte_after(a.index); }, {error::misaligned, "index"}},
      {[&](args& a) { a.index = reinterpret_cast<std::int64_t*>(x.data()); }, {error::overlap, "index", 0}},
  };
  for (const bad_row<args>& r : rows) {
    args a = good;
    r.spoil(a);
    INFO("row " << (&r - rows));
    const bi::status max = ref::argmax(a), min = ref::argmin(a);
    REQUIRE(test::other_than(r.expected, max) == "");
    REQUIRE(test::other_than(r.expected, min) == "");
    REQUIRE(std::string(max.operation) == "argmax");
    REQUIRE(std::string(min.operation) == "argmin");
    REQUIRE(test::difference(index, untouched) == "");
  }
  REQUIRE(ref::argmin(args{}));
  args a = good;
  a.index = nullptr;
  REQUIRE(bi::describe(ref::argmin(a)) == "argmin: index is null");
}
