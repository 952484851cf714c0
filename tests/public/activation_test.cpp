// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/activation.hpp"

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "bi/reference/activation.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::error;
using test::bad_row;
using test::byte_after;
using test::require_complaints;
using T = bi::bf16;

namespace {

constexpr std::int64_t huge = std::int64_t{1} << 61;

// Every operand lies in one buffer, 64 elements apart: 4 rows of 8, 10 apart, take 38.
struct buffer {
  std::vector<T> data = test::random_vector<T>(6 * 64, test::values::normal, 1);
  T* operator[](int i) { return data.data() + 64 * i; }
};

static_assert(std::is_same_v<bi::status, decltype(bi::silu_mul(bi::gate_mul_args<T>{}, bi::cuda_stream{}))>);
static_assert(std::is_same_v<bi::status, decltype(bi::gelu_mul(bi::gate_mul_args<T>{}, bi::cuda_stream{}))>);
static_assert(std::is_same_v<bi::status, decltype(bi::gelu_tanh_mul(bi::gate_mul_args<T>{}, bi::cuda_stream{}))>);
static_assert(std::is_same_v<bi::status, decltype(bi::add(bi::add_args<T>{}, bi::cuda_stream{}))>);
static_assert(std::is_same_v<bi::status, decltype(bi::embedding(bi::embedding_args<T>{}, bi::cuda_stream{}))>);

}  // namespace

TEST_CASE("silu_mul and its kin: bad input", "[public][activation]") {
  using args = bi::gate_mul_args<T>;
  buffer b;
  args good;
  good.gate = b[0];
  good.up = b[1];
  good.out = b[2];
  good.gate_stride = good.up_stride = good.out_stride = 10;
  good.rows = 4;
  good.cols = 8;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -8; }, {error::too_small, "cols", -8}},
      {[](args& a) { a.column_step = 0; }, {error::too_small, "column_step", 0}},
      {[](args& a) { a.column_step = huge; }, {error::overflow, "column_step", huge}},
      {[](args& a) { a.gate_stride = 7; }, {error::too_small, "gate_stride", 7}},
      {[](args& a) { a.column_step = 2; }, {error::too_small, "gate_stride", 10}},
      {[](args& a) { a.up_stride = -10; }, {error::too_small, "up_stride", -10}},
      {[](args& a) { a.out_stride = 7; }, {error::too_small, "out_stride", 7}},
      {[](args& a) { a.out_stride = huge; }, {error::overflow, "out_stride", huge}},
      {[](args& a) { a.rows = huge; }, {error::overflow, "gate_stride", 10}},
      {[](args& a) { a.gate = nullptr; }, {error::null_pointer, "gate"}},
      {[](args& a) { a.up = nullptr; }, {error::null_pointer, "up"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.gate = byte_after(a.gate); }, {error::misaligned, "gate"}},
      {[](args& a) { a.up = byte_after(a.up); }, {error::misaligned, "up"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = b[0] + 1; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[0] - 1; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[1] + 37; }, {error::overlap, "out"}},               // the last element of up
      {[&](args& a) { a.out = b[1], a.out_stride = 0; }, {error::overlap, "out"}},  // up, another stride
      {[&](args& a) { a.out = b[0] + 10; }, {error::overlap, "out"}},               // gate, a row on
      // Interleaved columns have no alias.
      {[&](args& a) { a.column_step = 2, a.cols = 4, a.out = b[0]; }, {error::overlap, "out"}},
      {[](args& a) { a.rows = 0, a.cols = -1; }, {error::too_small, "cols", -1}},
      {[](args& a) { a.rows = 0, a.up_stride = 2; }, {error::too_small, "up_stride", 2}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::silu_mul(a); });
  require_complaints(good, rows, b.data, [](const args& a) { return ref::gelu_mul(a); });
  require_complaints(good, rows, b.data, [](const args& a) { return ref::gelu_tanh_mul(a); });
  args a = good;
  a.gate_stride = 7;
  REQUIRE(bi::describe(ref::gelu_mul(a)) == "gelu_mul: gate_stride = 7 must be at least the width of a row = 8");
  REQUIRE(bi::describe(ref::gelu_tanh_mul(a)).find("gelu_tanh_mul: ") == 0);
  // Not mistakes.
  a = good;
  a.out = b[0];
  REQUIRE(check(a));
  a.out = b[1];
  REQUIRE(check(a));
  a.out = b[0];
  a.up = b[0];  // squares a gate
  REQUIRE(check(a));
  a = good;
  a.rows = 1;  // one row has no stride
  a.out = b[0];
  a.out_stride = 0;
  REQUIRE(check(a));
  a = good;  // halves of one array, out in the gate half; then between the rows of both
  a.gate_stride = a.up_stride = a.out_stride = 26;
  a.rows = 2;
  a.up = b[0] + 8;
  a.out = b[0];
  REQUIRE(check(a));
  a.out = b[0] + 8;
  REQUIRE(check(a));
  a.out = b[0] + 16;
  REQUIRE(check(a));
  a.out = b[0] + 18;
  REQUIRE(check(a));
  a.out = b[0] + 19;
  REQUIRE(check(a).code == error::overlap);
  a.out = b[0] + 15;
  REQUIRE(check(a).code == error::overlap);
}

TEST_CASE("add: bad input", "[public][activation]") {
  using args = bi::add_args<T>;
  buffer b;
  args good;
  good.x = b[0];
  good.y = b[1];
  good.out = b[2];
  good.x_stride = good.y_stride = good.out_stride = 10;
  good.rows = 4;
  good.cols = 8;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -8; }, {error::too_small, "cols", -8}},
      {[](args& a) { a.x_stride = 7; }, {error::too_small, "x_stride", 7}},
      {[](args& a) { a.y_stride = 1; }, {error::too_small, "y_stride", 1}},
      {[](args& a) { a.out_stride = -10; }, {error::too_small, "out_stride", -10}},
      {[](args& a) { a.y_stride = huge; }, {error::overflow, "y_stride", huge}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x"}},
      {[](args& a) { a.y = nullptr; }, {error::null_pointer, "y"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[](args& a) { a.y = byte_after(a.y); }, {error::misaligned, "y"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = b[0] + 10; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[1] + 37; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[1], a.out_stride = 9; }, {error::overlap, "out"}},
      {[](args& a) { a.cols = 0, a.rows = -2; }, {error::too_small, "rows", -2}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::add(a); });
  args a = good;
  a.out = b[0];
  REQUIRE(check(a));
  a.out = b[1];
  a.x = b[1];
  REQUIRE(check(a));
}

TEST_CASE("embedding: bad input", "[public][activation]") {
  using args = bi::embedding_args<T>;
  buffer b;
  std::vector<std::int32_t> id = {0, 3, -1, 2};
  args good;
  good.table = b[0];
  good.table_stride = 10;
  good.table_rows = 4;
  good.id = id.data();
  good.rows = 4;
  good.cols = 8;
  good.out = b[2];
  good.out_stride = 10;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -8; }, {error::too_small, "cols", -8}},
      {[](args& a) { a.table_rows = -4; }, {error::too_small, "table_rows", -4}},
      {[](args& a) { a.table_stride = 7; }, {error::too_small, "table_stride", 7}},
      {[](args& a) { a.table_stride = huge; }, {error::overflow, "table_stride", huge}},
      {[](args& a) { a.out_stride = -1; }, {error::too_small, "out_stride", -1}},
      {[](args& a) { a.table = nullptr; }, {error::null_pointer, "table"}},
      {[](args& a) { a.id = nullptr; }, {error::null_pointer, "id"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.table = byte_after(a.table); }, {error::misaligned, "table"}},
      {[](args& a) { a.id = byte_after(a.id); }, {error::misaligned, "id"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = b[0]; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[0] + 37; }, {error::overlap, "out"}},
      {[&](args& a) { a.id = reinterpret_cast<const std::int32_t*>(b[2] + 8); }, {error::overlap, "out"}},
      {[](args& a) { a.table_rows = 3; }, {error::index_out_of_range, "id", 3}},
      {[](args& a) { a.table_rows = 0; }, {error::index_out_of_range, "id", 0}},
      {[](args& a) { a.rows = 0, a.out_stride = 3; }, {error::too_small, "out_stride", 3}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::embedding(a); });
  args a = good;
  a.table_rows = 3;
  REQUIRE(bi::describe(ref::embedding(a)) == "embedding: id[1] = 3 must be at least 0 and below table_rows = 3");
  id = {-1, -1, -1, -1};  // nothing but padding needs no table
  a.table = nullptr;
  a.table_rows = 0;
  const auto untouched = b.data;
  REQUIRE(ref::embedding(a));
  REQUIRE(test::difference(b.data, untouched) == "");
}

TEST_CASE("activation: nothing to do", "[public][activation]") {
  buffer b;
  const auto untouched = b.data;
  REQUIRE(ref::silu_mul(bi::gate_mul_args<T>{}));
  REQUIRE(ref::add(bi::add_args<float>{}));
  REQUIRE(ref::embedding(bi::embedding_args<bi::fp16>{}));
  for (const bool no_rows : {true, false}) {
    bi::gate_mul_args<T> g;
    bi::add_args<T> s;
    bi::embedding_args<T> e;
    g.rows = s.rows = e.rows = no_rows ? 0 : 5;
    g.cols = s.cols = e.cols = no_rows ? 5 : 0;
    for (T* out : {static_cast<T*>(nullptr), b[0]}) {
      g.out = s.out = e.out = out;
      REQUIRE(ref::silu_mul(g));
      REQUIRE(ref::gelu_mul(g));
      REQUIRE(ref::gelu_tanh_mul(g));
      REQUIRE(ref::add(s));
      REQUIRE(ref::embedding(e));
    }
  }
  REQUIRE(test::difference(b.data, untouched) == "");
}
