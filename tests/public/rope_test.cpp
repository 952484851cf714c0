// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/rope.hpp"

#include <cstdint>
#include <type_traits>
#include <vector>

#include "bi/reference/rope.hpp"
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

static_assert(std::is_same_v<bi::status, decltype(bi::rope(bi::rope_args<T>{}, bi::cuda_stream{}))>);
static_assert(bi::rope_args<T>{.x = nullptr}.tokens == 0);  // no member without a default

}  // namespace

TEST_CASE("rope: bad input", "[public][rope]") {
  using args = bi::rope_args<T>;
  // One buffer: x at 0, out at 256; 3 tokens of 2 heads of 8, 10 and 30 apart, take 78 elements.
  std::vector<T> data = test::random_vector<T>(512, test::values::normal, 1);
  T* x = data.data();
  T* out = x + 256;
  std::vector<std::int32_t> position = {0, -1, 4};
  const std::vector<float> table(64, 0.5f);
  args good;
  good.x = x;
  good.x_head_stride = 10;
  good.x_token_stride = 30;
  good.position = position.data();
  good.table = {table.data(), table.data() + 20, 5, 8, bi::rope_style::half};
  good.tokens = 3;
  good.heads = 2;
  good.head_dim = 8;
  good.out = out;
  good.out_head_stride = 10;
  good.out_token_stride = 30;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.tokens = -1; }, {error::too_small, "tokens", -1}},
      {[](args& a) { a.heads = -2; }, {error::too_small, "heads", -2}},
      {[](args& a) { a.head_dim = -3; }, {error::too_small, "head_dim", -3}},
      {[](args& a) { a.x_head_stride = 7; }, {error::too_small, "x_head_stride", 7}},
      {[](args& a) { a.out_head_stride = -8; }, {error::too_small, "out_head_stride", -8}},
      {[](args& a) { a.x_token_stride = 17; }, {error::too_small, "x_token_stride", 17}},
      {[](args& a) { a.out_token_stride = 1; }, {error::too_small, "out_token_stride", 1}},
      {[](args& a) { a.x_head_stride = huge; }, {error::overflow, "x_head_stride", huge}},
      {[](args& a) { a.out_token_stride = huge; }, {error::overflow, "out_token_stride", huge}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x"}},
      {[](args& a) { a.position = nullptr; }, {error::null_pointer, "position"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[](args& a) { a.position = byte_after(a.position); }, {error::misaligned, "position"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[](args& a) { a.table.cos = nullptr; }, {error::null_pointer, "table.cos"}},
      {[](args& a) { a.table.sin = nullptr; }, {error::null_pointer, "table.sin"}},
      {[](args& a) { a.table.sin = byte_after(a.table.sin); }, {error::misaligned, "table.sin"}},
      {[](args& a) { a.table.rotary_dim = -2; }, {error::too_small, "table.rotary_dim", -2}},
      {[](args& a) { a.table.rotary_dim = 10; }, {error::too_large, "table.rotary_dim", 10}},
      {[](args& a) { a.table.rotary_dim = 7; }, {error::not_multiple, "table.rotary_dim", 7}},
      {[](args& a) { a.table.positions = 0; }, {error::too_small, "table.positions", 0}},
      {[](args& a) { a.table.positions = huge; }, {error::too_large, "table.positions", huge}},
      {[](args& a) { a.table.style = static_cast<bi::rope_style>(2); }, {error::not_supported, "table.style", 2}},
      {[&](args& a) { a.out = x + 1; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = x + 77; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = x, a.out_token_stride = 29; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = x, a.out_head_stride = 9; }, {error::overlap, "out"}},
      {[&](args& a) { a.position = reinterpret_cast<const std::int32_t*>(out); }, {error::overlap, "out"}},
      {[&](args& a) { a.table.cos = reinterpret_cast<const float*>(out + 4); }, {error::overlap, "out"}},
      {[&](args& a) { a.table.sin = reinterpret_cast<const float*>(out + 4); }, {error::overlap, "out"}},
      {[](args& a) { a.table.positions = 4; }, {error::index_out_of_range, "position", 4}},
      {[](args& a) { a.tokens = 0, a.x_token_stride = -20; }, {error::too_small, "x_token_stride", -20}},
      {[](args& a) { a.heads = 0, a.head_dim = -1; }, {error::too_small, "head_dim", -1}},
  };
  require_complaints(good, rows, data, [](const args& a) { return ref::rope(a); });
  args a = good;
  a.table.positions = 4;
  REQUIRE(bi::describe(ref::rope(a)) == "rope: position[2] = 4 must be at least 0 and below table.positions = 4");
  a = good;  // not mistakes
  a.out = x;
  REQUIRE(check(a));
  a.table.rotary_dim = 0;
  a.table.cos = a.table.sin = nullptr;
  REQUIRE(check(a));
  a = good;
  a.tokens = a.heads = 1;
  a.out = x;
  a.out_head_stride = a.out_token_stride = 0;
  REQUIRE(check(a));
}

TEST_CASE("rope: nothing to do", "[public][rope]") {
  REQUIRE(ref::rope(bi::rope_args<float>{}));
  std::vector<T> data = test::random_vector<T>(64, test::values::normal, 1);
  const auto untouched = data;
  for (int zero = 0; zero < 3; ++zero) {
    bi::rope_args<T> a;
    a.tokens = zero == 0 ? 0 : 2;
    a.heads = zero == 1 ? 0 : 2;
    a.head_dim = zero == 2 ? 0 : 2;
    REQUIRE(ref::rope(a));
    a.out = data.data();
    REQUIRE(ref::rope(a));
  }
  REQUIRE(test::difference(data, untouched) == "");
}
