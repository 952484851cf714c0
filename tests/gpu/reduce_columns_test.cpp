// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "gpu/support/forced_backend.hpp"
#include "gpu/support/forced_rows.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/catch.hpp"
#include "support/ops_rows.hpp"

using bi::bf16;
using bi::reduction;
using test::values;

namespace {

struct columns_shape {
  std::int64_t outer, cols, inner;
  values kind = values::normal;
  std::int64_t gap = 0;  // elements between those of a row and the next
  std::int64_t offset = 0;
};

// A vector of the tree, a lane, all lanes, several vectors a lane, several blocks; tiles that end early; three levels
// are one row of bi/contract/row_tree.hpp more than two.
std::vector<columns_shape> shapes() {
  return {{1, 1, 1},
          {3, 7, 5, values::hostile},
          {2, 8, 32, values::wide},
          {4, 9, 33, values::ties, 3},
          {1, 64, 300, values::cancelling, 0, 1},
          {5, 100, 31, values::subnormal},
          {2, 2048, 40, values::cancelling},
          {2, 2049, 17, values::wide, 1, 1},
          {1, 5000, 70, values::hostile},
          {1, 8192, 33, values::cancelling},
          {2, 8193, 3, values::cancelling, 2},
          {2, 16385, 9, values::normal},
          {1, 100003, 5, values::cancelling},
          {300, 20, 7, values::hostile},
          {2, 700, 64, values::ties},
          {3, 129, 50, values::hostile, 5, 1},
          {3, 0, 35}};
}

// All of the output.
template <class Op, class T, class Out, class Backend>
std::vector<Out> run_columns(Backend& b, const columns_shape& s) {
  bi::reduce_columns_args<T, Out> a;
  a.x_stride = s.inner + s.gap;
  a.x = b.input(test::pool_vector<T>(s.offset + s.outer * s.cols * a.x_stride, s.kind,
                                     static_cast<std::uint64_t>(s.cols * 7 + s.inner))) +
        s.offset;
  a.outer = s.outer;
  a.cols = s.cols;
  a.inner = s.inner;
  a.out = b.template output<Out>(s.outer * s.inner);
  b.run(Op{}, a);
  return b.read(a.out);
}

template <class Op, class T, class Backend>
std::vector<std::int64_t> run_arg_columns(Backend& b, const columns_shape& s) {
  bi::arg_reduce_columns_args<T> a;
  a.x_stride = s.inner + s.gap;
  a.x = b.input(test::pool_vector<T>(s.offset + s.outer * s.cols * a.x_stride, s.kind,
                                     static_cast<std::uint64_t>(s.cols * 7 + s.inner))) +
        s.offset;
  a.outer = s.outer;
  a.cols = s.cols;
  a.inner = s.inner;
  a.index = b.template output<std::int64_t>(s.outer * s.inner);
  b.run(Op{}, a);
  return b.read(a.index);
}

template <class Op, class T>
void force_columns(const test::manifest_operation& o) {
  constexpr bool arg = std::is_same_v<Op, test::argmax_columns_op<>> || std::is_same_v<Op, test::argmin_columns_op<>>;
  for (const columns_shape& s : shapes()) {
    if (arg && s.cols == 0) continue;
    const auto of_shape = [&](auto& b) {
      if constexpr (arg) {
        return run_arg_columns<Op, T>(b, s);
      } else {
        return run_columns<Op, T, float>(b, s);
      }
    };
    test::host_backend host;
    const std::string name = std::to_string(s.outer) + " x " + std::to_string(s.cols) + " x " + std::to_string(s.inner);
    const auto expected = of_shape(host);
    test::check_forced(o, test::block_schedules(), name, expected, of_shape);
    // And what a caller gets.
    test::gpu_backend gpu;
    INFO(name);
    REQUIRE(test::difference(of_shape(gpu), expected) == "");
  }
}

}  // namespace

TEMPLATE_TEST_CASE("reduce_columns: every schedule gives the reference's bytes", "[gpu][reduce][schedule]", bf16,
                   bi::fp16, float) {
  const auto all = test::column_operations();
  REQUIRE(all.size() == 6);
  force_columns<test::reduce_columns_op<reduction::sum>, TestType>(all[0]);
  force_columns<test::reduce_columns_op<reduction::mean>, TestType>(all[1]);
  force_columns<test::reduce_columns_op<reduction::max>, TestType>(all[2]);
  force_columns<test::reduce_columns_op<reduction::min>, TestType>(all[3]);
  force_columns<test::argmax_columns_op<>, TestType>(all[4]);
  force_columns<test::argmin_columns_op<>, TestType>(all[5]);
}

// Rows that lie side by side have the bits of rows one after the other, which reduce() reads; a sum in another order has
// others, and the comparison sees them.
TEST_CASE("reduce_columns: the bits of reduce over the transpose", "[gpu][reduce]") {
  constexpr std::int64_t cols = 9001, inner = 37;
  const auto x = test::pool_vector<float>(cols * inner, values::cancelling, 11);
  std::vector<float> transposed(x.size()), in_order(static_cast<std::size_t>(inner));
  for (std::int64_t k = 0; k < cols; ++k) {
    for (std::int64_t i = 0; i < inner; ++i) {
      const float v = x[static_cast<std::size_t>(k * inner + i)];
      transposed[static_cast<std::size_t>(i * cols + k)] = v;
      float& sum = in_order[static_cast<std::size_t>(i)];
      sum = bi::add_rn(sum, v);
    }
  }
  test::gpu_backend gpu;
  bi::reduce_columns_args<float> columns;
  columns.x = gpu.input(x);
  columns.cols = cols;
  columns.inner = inner;
  columns.out = gpu.output<float>(inner);
  gpu.run(test::reduce_columns_op<reduction::sum>{}, columns);
  bi::reduce_args<float> rows;
  rows.x = gpu.input(transposed);
  rows.rows = inner;
  rows.cols = cols;
  rows.out = gpu.output<float>(inner);
  gpu.run(test::reduce_op<reduction::sum>{}, rows);
  const auto got = gpu.read(columns.out);
  REQUIRE(test::difference(got, gpu.read(rows.out)) == "");
  REQUIRE(test::difference(got, in_order) != "");
}

// The first NaN, the lowest of equals and -0 == +0, wherever they lie among the warps.
TEST_CASE("argmax_columns and argmin_columns: ties, NaN and infinities", "[gpu][reduce]") {
  constexpr std::int64_t cols = 203, inner = 40;
  const auto at = [](std::int64_t k, std::int64_t i) { return static_cast<std::size_t>(k * inner + i); };
  std::vector<float> x(cols * inner, 1.0f);
  std::vector<std::int64_t> largest(inner, 0), smallest(inner, 0);
  for (std::int64_t i = 0; i < inner; ++i) {
    const std::int64_t k = i * 5 + 1;  // every warp has one
    const auto u = static_cast<std::size_t>(i);
    switch (i % 4) {
      case 0:
        x[at(k, i)] = x[at(k + 1, i)] = bi::nan_f32(), x[at(0, i)] = bi::inf_f32(), largest[u] = smallest[u] = k;
        break;
      case 1:
        x[at(k, i)] = x[at(cols - 1, i)] = bi::inf_f32(), largest[u] = k;
        break;
      case 2:
        x[at(k, i)] = x[at(cols - 1, i)] = bi::neg_inf_f32(), smallest[u] = k;
        break;
      default:
        for (std::int64_t r = 0; r < cols; ++r) x[at(r, i)] = r % 2 == 0 ? -0.0f : 0.0f;
    }
  }
  test::gpu_backend gpu;
  bi::arg_reduce_columns_args<float> a;
  a.x = gpu.input(x), a.cols = cols, a.inner = inner, a.index = gpu.output<std::int64_t>(inner);
  gpu.run(test::argmax_columns_op<>{}, a);
  CHECK(test::difference(gpu.read(a.index), largest) == "");
  gpu.run(test::argmin_columns_op<>{}, a);
  CHECK(test::difference(gpu.read(a.index), smallest) == "");
}

// A row keeps its bits whatever rows lie beside it.
TEST_CASE("reduce_columns: a row does not know its batch", "[gpu][reduce]") {
  constexpr std::int64_t cols = 3000, most = 133;
  const auto x = test::pool_vector<bf16>(cols * most, values::wide, 3);
  test::gpu_backend gpu;
  bi::reduce_columns_args<bf16> a;
  a.cols = cols;
  a.x_stride = most;
  const bf16* const all = gpu.input(x);
  a.out = gpu.output<float>(most);
  const auto sums = [&](std::int64_t first, std::int64_t inner) {
    a.x = all + first;
    a.inner = inner;
    gpu.run(test::reduce_columns_op<reduction::sum>{}, a);
    return gpu.read(a.out, inner);
  };
  const auto together = sums(0, most);
  for (std::int64_t first = 0; first < most; ++first) {
    for (const std::int64_t inner : {std::int64_t{1}, std::int64_t{31}, std::int64_t{33}, most - first}) {
      if (first + inner > most) continue;
      INFO(inner << " from " << first);
      REQUIRE(test::difference(sums(first, inner).data(), together.data() + first, inner) == "");
    }
  }
}

TEST_CASE("reduce_columns: bad calls launch nothing", "[gpu][reduce]") {
  test::gpu_backend gpu;
  bi::reduce_columns_args<float> a;
  a.cols = 8193;
  a.inner = 4;
  a.x = gpu.output<float>(a.cols * a.inner);
  a.out = gpu.output<float>(a.inner);
  const bi::status none = bi::reduce_columns(a, reduction::sum, {}, gpu.stream());
  REQUIRE(none.code == bi::error::workspace_too_small);
  const std::size_t bytes = bi::reduce_columns_workspace_bytes(a.outer, a.cols, a.inner);
  bi::workspace ws{gpu.output<unsigned char>(static_cast<std::int64_t>(bytes)), bytes - 1};
  REQUIRE(bi::reduce_columns(a, reduction::sum, ws, gpu.stream()).code == bi::error::workspace_too_small);
  auto bad = a;
  bad.x_stride = 3;
  ws.bytes = bytes;
  REQUIRE(bi::reduce_columns(bad, reduction::sum, ws, gpu.stream()).code == bi::error::too_small);
  bad = a;
  bad.out = const_cast<float*>(a.x) + 5;
  REQUIRE(bi::reduce_columns(bad, reduction::sum, ws, gpu.stream()).code == bi::error::overlap);
  REQUIRE(test::difference(gpu.read(a.out), test::poisoned<float>(a.inner)) == "");
  a.inner = 0;
  a.x = nullptr;
  REQUIRE(bi::reduce_columns(a, reduction::sum, {}, gpu.stream()));
}
