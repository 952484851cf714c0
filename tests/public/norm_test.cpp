// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <vector>

#include "bi/reference/layer_norm.hpp"
#include "bi/reference/rms_norm.hpp"
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

}  // namespace

TEST_CASE("rms_norm: bad input", "[public][norm]") {
  using args = bi::rms_norm_args<T>;
  buffer b;
  args good;
  good.x = b[0];
  good.residual = b[1];
  good.residual_out = b[2];
  good.weight = b[3];
  good.out = b[4];
  good.x_stride = good.residual_stride = good.residual_out_stride = good.out_stride = 10;
  good.rows = 4;
  good.cols = 8;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -8; }, {error::too_small, "cols", -8}},
      {[](args& a) { a.eps = -1e-6f; }, {error::not_valid, "eps"}},
      {[](args& a) { a.eps = bi::nan_f32(); }, {error::not_valid, "eps"}},
      {[](args& a) { a.eps = bi::inf_f32(); }, {error::not_valid, "eps"}},
      {[](args& a) { a.x_stride = 7; }, {error::too_small, "x_stride", 7}},
      {[](args& a) { a.residual_stride = 1; }, {error::too_small, "residual_stride", 1}},
      {[](args& a) { a.residual_out_stride = -10; }, {error::too_small, "residual_out_stride", -10}},
      {[](args& a) { a.out_stride = 7; }, {error::too_small, "out_stride", 7}},
      {[](args& a) { a.out_stride = huge; }, {error::overflow, "out_stride", huge}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x"}},
      {[](args& a) { a.weight = nullptr; }, {error::null_pointer, "weight"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.residual = nullptr; }, {error::null_pointer, "residual"}},
      {[](args& a) { a.residual_out = nullptr; }, {error::null_pointer, "residual_out"}},
      {[](args& a) { a.x = byte_after(a.x); }, {error::misaligned, "x"}},
      {[](args& a) { a.residual = byte_after(a.residual); }, {error::misaligned, "residual"}},
      {[](args& a) { a.weight = byte_after(a.weight); }, {error::misaligned, "weight"}},
      {[&](args& a) { a.out = b[2]; }, {error::overlap, "out"}},       // residual_out
      {[&](args& a) { a.out = b[3]; }, {error::overlap, "out"}},       // weight
      {[&](args& a) { a.out = b[0] + 37; }, {error::overlap, "out"}},  // the last element of x
      {[&](args& a) { a.residual = a.residual_out = nullptr, a.out = b[0] + 37; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[0], a.out_stride = 0; }, {error::overlap, "out"}},  // x, another stride
      {[&](args& a) { a.out = b[1] + 10; }, {error::overlap, "out"}},               // residual, a row on
      {[&](args& a) { a.residual_out = b[0] + 1; }, {error::overlap, "residual_out"}},
      {[&](args& a) { a.residual_out = b[1] - 1; }, {error::overlap, "residual_out"}},
      {[&](args& a) { a.residual_out = b[3] - 30; }, {error::overlap, "residual_out"}},  // weight
      {[](args& a) { a.rows = 0, a.cols = -1; }, {error::too_small, "cols", -1}},
      {[](args& a) { a.cols = 0, a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.rows = 0, a.x_stride = 2; }, {error::too_small, "x_stride", 2}},
      {[](args& a) { a.rows = 0, a.eps = -1.0f; }, {error::not_valid, "eps"}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::rms_norm(a); });
  args a = good;
  a.eps = -1.0f;
  REQUIRE(bi::describe(check(a)) == "rms_norm: eps = -1 must be finite and at least 0");
  a = good;
  a.out = b[2];
  REQUIRE(bi::describe(check(a)) == "rms_norm: out overlaps residual_out");
  // Not mistakes.
  a = good;
  a.residual = a.residual_out = nullptr;
  a.out = b[0] + 38;  // right after x
  REQUIRE(check(a));
  a.out = b[3] - 38;  // right before weight
  REQUIRE(check(a));
  a = good;
  a.eps = 0.0f;
  a.out = b[0];
  a.residual_out = b[1];
  REQUIRE(check(a));
  a.out = b[1];
  a.residual_out = b[0];
  REQUIRE(check(a));
  a.rows = 1;  // one row has no stride
  a.out_stride = 0;
  REQUIRE(check(a));
}

TEST_CASE("qk_norm: bad input", "[public][norm]") {
  using args = bi::qk_norm_args<T>;
  buffer b;
  args good;  // 3 tokens of 2 heads of 4
  good.x = b[0];
  good.weight = b[3];
  good.out = b[4];
  good.x_head_stride = 6;
  good.x_token_stride = 20;
  good.tokens = 3;
  good.heads = 2;
  good.head_dim = 4;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.tokens = -1; }, {error::too_small, "tokens", -1}},
      {[](args& a) { a.heads = -2; }, {error::too_small, "heads", -2}},
      {[](args& a) { a.head_dim = -3; }, {error::too_small, "head_dim", -3}},
      {[](args& a) { a.eps = bi::neg_inf_f32(); }, {error::not_valid, "eps"}},
      {[](args& a) { a.x_head_stride = 3; }, {error::too_small, "x_head_stride", 3}},
      {[](args& a) { a.out_head_stride = -4; }, {error::too_small, "out_head_stride", -4}},
      {[](args& a) { a.x_token_stride = 9; }, {error::too_small, "x_token_stride", 9}},
      {[](args& a) { a.out_token_stride = 7; }, {error::too_small, "out_token_stride", 7}},
      {[](args& a) { a.x_head_stride = huge; }, {error::overflow, "x_head_stride", huge}},
      {[](args& a) { a.x_token_stride = huge; }, {error::overflow, "x_token_stride", huge}},
      {[](args& a) { a.tokens = huge, a.x_token_stride = 0; }, {error::overflow, "x_token_stride", 12}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x"}},
      {[](args& a) { a.weight = nullptr; }, {error::null_pointer, "weight"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = b[0]; }, {error::overlap, "out"}},  // other strides
      {[&](args& a) { a.out = b[3]; }, {error::overlap, "out"}},
      {[](args& a) { a.tokens = 0, a.x_token_stride = -20; }, {error::too_small, "x_token_stride", -20}},
      {[](args& a) { a.heads = 0, a.head_dim = -1; }, {error::too_small, "head_dim", -1}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::qk_norm(a); });
  args a = good;
  a.x_token_stride = 9;
  REQUIRE(bi::describe(check(a)) == "qk_norm: x_token_stride = 9 must be at least the width of a token's heads = 10");
  a = good;
  a.out = b[0];
  a.out_head_stride = 6;
  a.out_token_stride = 20;
  REQUIRE(check(a));
}

TEST_CASE("layer_norm: bad input", "[public][norm]") {
  using args = bi::layer_norm_args<T>;
  buffer b;
  args good;
  good.x = b[0];
  good.weight = b[1];
  good.bias = b[2];
  good.out = b[3];
  good.x_stride = good.out_stride = 10;
  good.rows = 4;
  good.cols = 8;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.cols = -1; }, {error::too_small, "cols", -1}},
      {[](args& a) { a.eps = bi::nan_f32(); }, {error::not_valid, "eps"}},
      {[](args& a) { a.x_stride = 7; }, {error::too_small, "x_stride", 7}},
      {[](args& a) { a.out_stride = -10; }, {error::too_small, "out_stride", -10}},
      {[](args& a) { a.x_stride = huge; }, {error::overflow, "x_stride", huge}},
      {[](args& a) { a.x = nullptr; }, {error::null_pointer, "x"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.weight = byte_after(a.weight); }, {error::misaligned, "weight"}},
      {[](args& a) { a.bias = byte_after(a.bias); }, {error::misaligned, "bias"}},
      {[&](args& a) { a.out = b[1]; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[2] - 37; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[0] + 1; }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b[0], a.out_stride = 9; }, {error::overlap, "out"}},
      {[](args& a) { a.rows = 0, a.cols = -1; }, {error::too_small, "cols", -1}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::layer_norm(a); });
  args a = good;
  a.bias = byte_after(a.bias);
  REQUIRE(bi::describe(check(a)).find("layer_norm: bias = 0x") == 0);
  a = good;
  a.weight = a.bias = nullptr;
  a.out = b[0];
  REQUIRE(check(a));
}

TEST_CASE("norms: nothing to do", "[public][norm]") {
  REQUIRE(ref::rms_norm(bi::rms_norm_args<T>{}));
  REQUIRE(ref::qk_norm(bi::qk_norm_args<float>{}));
  REQUIRE(ref::layer_norm(bi::layer_norm_args<bi::fp16>{}));
  buffer b;
  const auto untouched = b.data;
  for (int zero = 0; zero < 2; ++zero) {
    bi::rms_norm_args<T> a;
    a.rows = zero == 0 ? 0 : 5;
    a.cols = zero == 0 ? 5 : 0;
    REQUIRE(ref::rms_norm(a));
    a.out = b[0];
    REQUIRE(ref::rms_norm(a));
    bi::layer_norm_args<T> l;
    l.rows = a.rows;
    l.cols = a.cols;
    REQUIRE(ref::layer_norm(l));
    l.out = b[0];
    REQUIRE(ref::layer_norm(l));
  }
  for (int zero = 0; zero < 3; ++zero) {
    bi::qk_norm_args<T> a;
    a.tokens = zero == 0 ? 0 : 2;
    a.heads = zero == 1 ? 0 : 2;
    a.head_dim = zero == 2 ? 0 : 2;
    a.out = zero == 0 ? b[0] : nullptr;
    REQUIRE(ref::qk_norm(a));
  }
  REQUIRE(test::difference(b.data, untouched) == "");
}
