// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/activation.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::bf16;
using bi::fp16;

namespace {

enum class operation { silu_mul, gelu_mul, gelu_tanh_mul };
constexpr operation gates[] = {operation::silu_mul, operation::gelu_mul, operation::gelu_tanh_mul};

template <class T>
void run(operation op, const bi::gate_mul_args<T>& a, int threads = 1) {
  const bi::status st = op == operation::silu_mul   ? ref::silu_mul(a, threads)
                        : op == operation::gelu_mul ? ref::gelu_mul(a, threads)
                                                    : ref::gelu_tanh_mul(a, threads);
  INFO(bi::describe(st));
  REQUIRE(st);
}

// One element, from its definition.
template <class T>
T one(operation op, T gate, T up) {
  const float g = bi::to_f32(gate);
  float f = 0;
  if (op == operation::silu_mul) f = bi::div_rn(g, bi::add_rn(1.0f, bi::exp(bi::neg(g))));
  if (op == operation::gelu_mul) f = bi::gelu(g);
  if (op == operation::gelu_tanh_mul) f = bi::gelu_tanh(g);
  return bi::cvt_rn<T>(bi::mul_rn(f, bi::to_f32(up)));
}

template <class T>
std::size_t at(T i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

TEMPLATE_TEST_CASE("activation: every element from its definition, at every layout", "[reference][activation]", bf16,
                   fp16, float) {
  using T = TestType;
  const bi::reference::fp_environment environment;
  for (const test::values kind : test::all_values) {
    for (const operation op : gates) {
      for (const std::int64_t cols : {1, 7, 64, 1000}) {
        const std::int64_t rows = 5;
        const auto gate = test::random_vector<T>(rows * cols, kind, 1),
                   up = test::random_vector<T>(rows * cols, kind, 2);
        std::vector<T> expected(at(rows * cols));
        for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = one(op, gate[i], up[i]);

        // Separate arrays.
        auto out = test::poisoned<T>(rows * cols);
        bi::gate_mul_args<T> a;
        a.gate = gate.data();
        a.up = up.data();
        a.rows = rows;
        a.cols = cols;
        a.out = out.data();
        run(op, a);
        REQUIRE(test::difference(out, expected) == "");
        std::memset(static_cast<void*>(out.data()), test::poison_byte, out.size() * sizeof(T));
        run(op, a, 3);
        REQUIRE(test::difference(out, expected) == "");

        // Halves of one array, then interleaved columns; out with gaps, which stay as they were.
        for (const bool halves : {true, false}) {
          std::vector<T> both(at(2 * rows * cols));
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t j = 0; j < cols; ++j) {
              const std::int64_t g = 2 * cols * r + (halves ? j : 2 * j);
              both[at(g)] = gate[at(r * cols + j)];
              both[at(g + (halves ? cols : 1))] = up[at(r * cols + j)];
            }
          }
          a.gate = both.data();
          a.up = both.data() + (halves ? cols : 1);
          a.gate_stride = a.up_stride = halves ? 2 * cols : 0;
          a.column_step = halves ? 1 : 2;
          a.out_stride = cols + 3;
          out = test::poisoned<T>(rows * a.out_stride);
          auto gaps = out;
          a.out = out.data();
          run(op, a);
          for (std::int64_t r = 0; r < rows; ++r) {
            REQUIRE(test::difference(out.data() + r * a.out_stride, expected.data() + r * cols, cols) == "");
            std::copy_n(expected.data() + r * cols, cols, gaps.data() + r * a.out_stride);
          }
          REQUIRE(test::difference(out, gaps) == "");

          if (halves) {  // out in place of the gate half, the up half stays
            auto before = both;
            a.out = both.data();
            a.out_stride = 2 * cols;
            run(op, a);
            for (std::int64_t r = 0; r < rows; ++r)
              std::copy_n(expected.data() + r * cols, cols, &before[at(2 * cols * r)]);
            REQUIRE(test::difference(both, before) == "");
          }
        }

        // In place of either.
        for (const bool gate_side : {true, false}) {
          auto g = gate, u = up;
          bi::gate_mul_args<T> b;
          b.gate = g.data();
          b.up = u.data();
          b.out = gate_side ? g.data() : u.data();
          b.rows = rows;
          b.cols = cols;
          run(op, b);
          REQUIRE(test::difference(gate_side ? g : u, expected) == "");
          REQUIRE(test::difference(gate_side ? u : g, gate_side ? up : gate) == "");
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("activation: add", "[reference][activation]", bf16, fp16, float) {
  using T = TestType;
  const bi::reference::fp_environment environment;
  for (const test::values kind : test::all_values) {
    const std::int64_t rows = 9, cols = 333, stride = 340;
    const auto x = test::random_vector<T>(rows * stride, kind, 3), y = test::random_vector<T>(rows * cols, kind, 4);
    bi::add_args<T> a;
    a.x = x.data();
    a.x_stride = stride;
    a.y = y.data();
    a.rows = rows;
    a.cols = cols;
    auto out = test::poisoned<T>(rows * cols);
    a.out = out.data();
    REQUIRE(ref::add(a, 2));
    std::vector<T> expected(out.size());
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t j = 0; j < cols; ++j) {
        expected[at(r * cols + j)] =
            bi::cvt_rn<T>(bi::add_rn(bi::to_f32(x[at(r * stride + j)]), bi::to_f32(y[at(r * cols + j)])));
      }
    }
    REQUIRE(test::difference(out, expected) == "");
    auto in_place = y;  // as a residual stream is
    a.y = a.out = in_place.data();
    REQUIRE(ref::add(a));
    REQUIRE(test::difference(in_place, expected) == "");
    auto other = x;
    a.x = a.out = other.data();
    a.y = y.data();
    a.out_stride = stride;
    REQUIRE(ref::add(a));
    for (std::int64_t r = 0; r < rows; ++r) {
      REQUIRE(test::difference(other.data() + r * stride, expected.data() + r * cols, cols) == "");
      REQUIRE(test::difference(other.data() + r * stride + cols, x.data() + r * stride + cols, stride - cols) == "");
    }
  }
}

TEMPLATE_TEST_CASE("activation: a row alone equals that row in any batch", "[reference][activation]", bf16, float) {
  using T = TestType;
  const std::int64_t cols = 129, most = 40;
  const auto gate = test::random_vector<T>(most * cols, test::values::hostile, 5);
  const auto up = test::random_vector<T>(most * cols, test::values::normal, 6);
  bi::gate_mul_args<T> a;
  a.cols = cols;
  const auto batch = [&](std::int64_t first, std::int64_t rows, int threads) {
    auto out = test::poisoned<T>(rows * cols);
    a.gate = gate.data() + first * cols;
    a.up = up.data() + first * cols;
    a.rows = rows;
    a.out = out.data();
    run(operation::silu_mul, a, threads);
    return out;
  };
  const auto all = batch(0, most, 1);
  for (std::int64_t rows = 1; rows <= most; ++rows) {
    const auto out = batch(most - rows, rows, static_cast<int>(rows % 4));
    REQUIRE(test::difference(out.data(), all.data() + (most - rows) * cols, rows * cols) == "");
  }
}

TEST_CASE("activation: known values", "[reference][activation]") {
  const float inf = bi::inf_f32();
  const std::vector<float> gate = {0.0f, -0.0f, 1.0f, -200.0f, 200.0f, inf, bi::nan_f32(), -inf};
  const std::vector<float> up(gate.size(), 2.0f);
  bi::gate_mul_args<float> a;
  a.gate = gate.data();
  a.up = up.data();
  a.rows = 1;
  a.cols = static_cast<std::int64_t>(gate.size());
  auto out = test::poisoned<float>(a.cols);
  a.out = out.data();
  for (const operation op : gates) {
    run(op, a);
    REQUIRE(bi::bits_of(out[0]) == 0);
    REQUIRE(bi::bits_of(out[1]) == 0x80000000u);
    REQUIRE(bi::bits_of(out[4]) == bi::bits_of(400.0f));
    REQUIRE(bi::bits_of(out[5]) == bi::inf_bits);
    REQUIRE(bi::bits_of(out[6]) == bi::nan_bits);
    REQUIRE(bi::bits_of(out[7]) == bi::nan_bits);
    REQUIRE(bi::equal(out[3], 0.0f));
  }
}

TEST_CASE("activation: accuracy", "[reference][activation]") {
  std::vector<float> gate, up;
  test::generator g(7);
  for (int i = 0; i < 200000; ++i) {
    gate.push_back(bi::mul_rn(g.normal(), i % 2 == 0 ? 1.0f : 3.0f));
    up.push_back(g.normal());
  }
  bi::gate_mul_args<float> a;
  a.gate = gate.data();
  a.up = up.data();
  a.rows = 1;
  a.cols = static_cast<std::int64_t>(gate.size());
  auto out = test::poisoned<float>(a.cols);
  a.out = out.data();
  // Error over |gate * up|: near zeros of gelu's tail its relative error has no bound.
  const double bounds[] = {2e-7, 2e-7, 2e-7};
  for (const operation op : gates) {
    run(op, a);
    double worst = 0;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double x = gate[i];
      double f = x / (1 + std::exp(-x));
      if (op == operation::gelu_mul) f = 0.5 * x * std::erfc(-x * 0.70710678118654752440);
      if (op == operation::gelu_tanh_mul) {
        f = 0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
      }
      const double size = std::fabs(x * static_cast<double>(up[i]));
      if (size > 0)
        worst = std::max(worst, std::fabs(static_cast<double>(out[i]) - f * static_cast<double>(up[i])) / size);
    }
    INFO("operation " << static_cast<int>(op) << ": largest error " << worst);
    CHECK(worst < bounds[static_cast<int>(op)]);
  }
}

TEMPLATE_TEST_CASE("embedding: copies rows bit by bit, skips padding", "[reference][activation]", bf16, float) {
  using T = TestType;
  const std::int64_t rows = 50, cols = 33, table_rows = 17, table_stride = 40, out_stride = 35;
  const auto table = test::random_vector<T>(table_rows * table_stride, test::values::hostile, 8);
  test::generator g(9);
  std::vector<std::int32_t> id;
  for (std::int64_t r = 0; r < rows; ++r) id.push_back(static_cast<std::int32_t>(g.between(-3, table_rows - 1)));
  id[0] = table_rows - 1;
  id[1] = 0;
  id[2] = -2147483647;
  auto out = test::poisoned<T>(rows * out_stride);
  auto expected = out;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; id[at(r)] >= 0 && j < cols; ++j) {
      expected[at(r * out_stride + j)] = table[at(id[at(r)] * table_stride + j)];
    }
  }
  bi::embedding_args<T> a;
  a.table = table.data();
  a.table_stride = table_stride;
  a.table_rows = table_rows;
  a.id = id.data();
  a.rows = rows;
  a.cols = cols;
  a.out = out.data();
  a.out_stride = out_stride;
  REQUIRE(ref::embedding(a, 2));
  REQUIRE(test::difference(out, expected) == "");
}
