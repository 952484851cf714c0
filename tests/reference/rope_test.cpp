// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/rope.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::bf16;
using bi::fp16;
using bi::rope_style;

namespace {

template <class I>
std::size_t at(I i) {
  return static_cast<std::size_t>(i);
}

struct angles {
  std::vector<float> cos, sin;
  bi::rope_table table;

  angles(std::int64_t positions, std::int64_t rotary_dim, rope_style style) {
    for (std::int64_t p = 0; p < positions; ++p) {
      for (std::int64_t i = 0; i < rotary_dim / 2; ++i) {
        const double a =
            static_cast<double>(p) * std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
        cos.push_back(static_cast<float>(std::cos(a)));
        sin.push_back(static_cast<float>(std::sin(a)));
      }
    }
    table = {cos.data(), sin.data(), positions, rotary_dim, style};
  }
};

// Element e of a rotated head, from its own role: the partner's share is subtracted from a first element, added to a
// second one.
template <class T>
T element(const std::vector<T>& head, std::int64_t e, const angles& a, std::int64_t position) {
  const std::int64_t dim = a.table.rotary_dim, pairs = dim / 2;
  if (e >= dim) return head[at(e)];
  const bool half = a.table.style == rope_style::half;
  const bool is_first = half ? e < pairs : e % 2 == 0;
  const std::int64_t pair = half ? e % pairs : e / 2;
  const std::int64_t partner = half ? (e + pairs) % dim : (is_first ? e + 1 : e - 1);
  const float c = a.cos[at(position * pairs + pair)], s = a.sin[at(position * pairs + pair)];
  const float share = bi::mul_rn(bi::to_f32(head[at(partner)]), s);
  return bi::cvt_rn<T>(bi::fma_rn(bi::to_f32(head[at(e)]), c, is_first ? bi::neg(share) : share));
}

}  // namespace

TEMPLATE_TEST_CASE("rope: every element from its definition, at every layout", "[reference][rope]", bf16, fp16, float) {
  using T = TestType;
  const bi::reference::fp_environment environment;
  const std::int64_t tokens = 7, heads = 3, positions = 29;
  const struct {
    std::int64_t head_dim, rotary_dim;
  } shapes[] = {{128, 128}, {64, 32}, {5, 4}, {2, 2}, {9, 0}, {96, 94}};
  for (const auto& shape : shapes) {
    for (const rope_style style : {rope_style::half, rope_style::interleaved}) {
      const angles table(positions, shape.rotary_dim, style);
      for (const test::values kind : test::all_values) {
        const std::int64_t dim = shape.head_dim, x_head = dim + 1, x_token = heads * x_head + 5;
        const auto x = test::random_vector<T>(tokens * x_token, kind, 1);
        test::generator g(2);
        std::vector<std::int32_t> position;
        for (std::int64_t t = 0; t < tokens; ++t) position.push_back(static_cast<std::int32_t>(g.below(positions)));
        position[2] = -1;  // padding
        position[3] = -2147483647;
        position[4] = 0;
        position[5] = static_cast<std::int32_t>(positions - 1);
        auto out = test::poisoned<T>(tokens * heads * dim);
        auto expected = out, strided = x;
        for (std::int64_t t = 0; t < tokens; ++t) {
          for (std::int64_t h = 0; position[at(t)] >= 0 && h < heads; ++h) {
            const auto from = x.begin() + t * x_token + h * x_head;
            const std::vector<T> head(from, from + dim);
            for (std::int64_t e = 0; e < dim; ++e) {
              const T y = element(head, e, table, position[at(t)]);
              expected[at((t * heads + h) * dim + e)] = y;
              strided[at(t * x_token + h * x_head + e)] = y;
            }
          }
        }
        bi::rope_args<T> a;
        a.x = x.data();
        a.x_token_stride = x_token;
        a.x_head_stride = x_head;
        a.position = position.data();
        a.table = table.table;
        a.tokens = tokens;
        a.heads = heads;
        a.head_dim = dim;
        a.out = out.data();
        REQUIRE(ref::rope(a, 2));
        REQUIRE(test::difference(out, expected) == "");

        // In place, gaps and padding untouched.
        auto in_place = x;
        a.x = a.out = in_place.data();
        a.out_token_stride = x_token;
        a.out_head_stride = x_head;
        REQUIRE(ref::rope(a));
        REQUIRE(test::difference(in_place, strided) == "");
      }
    }
  }
}

TEST_CASE("rope: a token's bytes depend on its own values and position", "[reference][rope]") {
  const std::int64_t tokens = 64, heads = 2, dim = 32;
  const angles table(100, dim, rope_style::half);
  const auto x = test::random_vector<bf16>(tokens * heads * dim, test::values::hostile, 3);
  test::generator g(4);
  std::vector<std::int32_t> position;
  for (std::int64_t t = 0; t < tokens; ++t) position.push_back(static_cast<std::int32_t>(g.below(100)));
  bi::rope_args<bf16> a;
  a.table = table.table;
  a.heads = heads;
  a.head_dim = dim;
  const auto rotated = [&](std::int64_t first, std::int64_t count, int threads) {
    auto out = test::poisoned<bf16>(count * heads * dim);
    a.x = x.data() + first * heads * dim;
    a.position = position.data() + first;
    a.tokens = count;
    a.out = out.data();
    REQUIRE(ref::rope(a, threads));
    return out;
  };
  const auto all = rotated(0, tokens, 1);
  for (std::int64_t first = 0; first < tokens; ++first) {
    const auto out = rotated(first, tokens - first, 3);
    REQUIRE(test::difference(out.data(), all.data() + first * heads * dim, (tokens - first) * heads * dim) == "");
  }
  ++position[5];  // and the position does matter
  REQUIRE(test::difference(rotated(0, tokens, 1), all) != "");
}

TEST_CASE("rope: accuracy", "[reference][rope]") {
  const std::int64_t tokens = 500, dim = 128, positions = 4096;
  for (const rope_style style : {rope_style::half, rope_style::interleaved}) {
    const angles table(positions, dim, style);
    const auto x = test::random_vector<float>(tokens * dim, test::values::normal, 5);
    test::generator g(6);
    std::vector<std::int32_t> position;
    for (std::int64_t t = 0; t < tokens; ++t) position.push_back(static_cast<std::int32_t>(g.below(positions)));
    auto out = test::poisoned<float>(tokens * dim);
    bi::rope_args<float> a;
    a.x = x.data();
    a.position = position.data();
    a.table = table.table;
    a.tokens = tokens;
    a.heads = 1;
    a.head_dim = dim;
    a.out = out.data();
    REQUIRE(ref::rope(a));
    double worst = 0;  // over the length of the pair
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t i = 0; i < dim / 2; ++i) {
        const bool half = style == rope_style::half;
        const std::int64_t p = t * dim + (half ? i : 2 * i), q = t * dim + (half ? i + dim / 2 : 2 * i + 1);
        const double angle = position[at(t)] * std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
        const double x1 = x[at(p)], x2 = x[at(q)], c = std::cos(angle), s = std::sin(angle), size = std::hypot(x1, x2);
        worst = std::max(worst, std::fabs(static_cast<double>(out[at(p)]) - (x1 * c - x2 * s)) / size);
        worst = std::max(worst, std::fabs(static_cast<double>(out[at(q)]) - (x2 * c + x1 * s)) / size);
      }
    }
    INFO("largest error " << worst);
    CHECK(worst < 1.5e-7);
  }
}
