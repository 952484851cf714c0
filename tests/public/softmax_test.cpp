// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/softmax.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include "bi/reference/softmax.hpp"
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

TEST_CASE("softmax, log_softmax: bad input", "[public][softmax]") {
  using T = bi::bf16;
  using args = bi::softmax_args<T, T>;
  auto x = test::random_vector<T>(64, test::values::normal, 1);
  auto out = test::poisoned<T>(64);
  const auto x_before = x, untouched = out;
  args good;  // 4 rows of 8, 10 apart
  good.x = x.data();
  good.x_stride = good.out_stride = 10;
  good.rows = 4;
  good.cols = 8;
  good.out = out.data();
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -2; }, {error::too_small, "cols", -2}},
      {[](args& a) { a.x_stride = 7; }, {error::too_small, "x_stride", 7}},
      {[](args& a) { a.out_stride = -10; }, {error::too_small, "out_stride", -10}},
      {[](args& a) { a.x_stride = huge; }, {error::overflow, "x_stride", huge}},
      {[](args& a) { a.out_stride = INT64_MAX; }, {error::overflow, "out_stride", INT64_MAX}},
      {[](args& a) { a.x_stride = huge / 4 + 1; }, {error::overflow, "x_stride", huge / 4 + 1}},  // 2^62 + 8 bytes
      {[](args& a) { a.rows = huge, a.x_stride = 0; }, {error::overflow, "x_stride", 8}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = x.data() + 1; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = x.data(), a.out_stride = 8; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = x.data() + 8, a.rows = 3; }, {error::overlap, "out"}},  // rows interleave
      {[](args& a) { a.rows = 0, a.cols = -1; }, {error::too_small, "cols", -1}},
      {[](args& a) { a.cols = 0, a.rows = -1; }, {error::too_small, "rows", -1}},
  };
  for (const bad_row<args>& r : rows) {
    args a = good;
    r.spoil(a);
    INFO("row " << (&r - rows));
    const bi::status p = ref::softmax(a), log_p = ref::log_softmax(a);
    REQUIRE(test::other_than(r.expected, p) == "");
    REQUIRE(test::other_than(r.expected, log_p) == "");
    REQUIRE(std::string(p.operation) == "softmax");
    REQUIRE(std::string(log_p.operation) == "log_softmax");
    REQUIRE(test::difference(out, untouched) == "");
    REQUIRE(test::difference(x, x_before) == "");
  }
  args a = good;
  a.out = x.data();
  REQUIRE(check(a));
  // The same pointer under another type is no alias, be it as wide.
  bi::softmax_args<T, bi::fp16> other;
  other.x = x.data();
  other.rows = 4;
  other.cols = 8;
  other.out = reinterpret_cast<bi::fp16*>(x.data());
  REQUIRE(test::other_than({error::overlap, "out"}, ref::softmax(other)) == "");
  REQUIRE(bi::describe(ref::log_softmax(other)) == "log_softmax: out overlaps x");
}

TEST_CASE("logsumexp: bad input", "[public][softmax]") {
  using args = bi::logsumexp_args<float>;
  auto x = test::random_vector<float>(64, test::values::normal, 2);
  auto out = test::poisoned<float>(8);
  const auto untouched = out;
  args good;
  good.x = x.data();
  good.x_stride = 10;
  good.rows = 4;
  good.cols = 8;
  good.out = out.data();
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -2; }, {error::too_small, "cols", -2}},
      {[](args& a) { a.x_stride = 7; }, {error::too_small, "x_stride", 7}},
      {[](args& a) { a.x_stride = -1; }, {error::too_small, "x_stride", -1}},
      {[](args& a) { a.x_stride = huge; }, {error::overflow, "x_stride", huge}},
      {[](args& a) { a.rows = huge, a.cols = a.x_stride = 0; }, {error::overflow, "rows", huge}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[&](args& a) { a.out = x.data() + 37; }, {error::overlap, "out"}},
      {[](args& a) { a.rows = 0, a.x_stride = 1; }, {error::too_small, "x_stride", 1}},
  };
  for (const bad_row<args>& r : rows) {
    args a = good;
    r.spoil(a);
    INFO("row " << (&r - rows));
    REQUIRE(test::other_than(r.expected, ref::logsumexp(a)) == "");
    REQUIRE(test::difference(out, untouched) == "");
  }
  args a = good;
  a.x_stride = 7;
  REQUIRE(bi::describe(ref::logsumexp(a)) == "logsumexp: x_stride = 7 must be at least cols = 8");
}

TEST_CASE("softmax: nothing to do", "[public][softmax]") {
  bi::softmax_args<float> a;
  REQUIRE(ref::softmax(a));
  a.rows = 7;
  REQUIRE(ref::log_softmax(a));
  a.rows = 0;
  a.cols = 7;
  REQUIRE(ref::softmax(a));
  auto out = test::poisoned<float>(7);
  const auto untouched = out;
  a.out = out.data();
  REQUIRE(ref::softmax(a));
  bi::logsumexp_args<float> l;
  l.cols = 7;
  l.out = out.data();
  REQUIRE(ref::logsumexp(l));
  REQUIRE(test::difference(out, untouched) == "");
}
