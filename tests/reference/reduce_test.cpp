// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/reduce.hpp"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/row_schedules.hpp"

namespace c = bi::contract;
namespace ref = bi::reference;
using test::schedule;

namespace {

constexpr bi::reduction all_reductions[] = {bi::reduction::sum, bi::reduction::mean, bi::reduction::max,
                                            bi::reduction::min};

// The same reductions by a simulated GPU.
float simulated(bi::reduction op, schedule s, const std::vector<float>& x, std::int64_t n, std::int64_t ctas) {
  const float* p = x.data();
  switch (op) {
    case bi::reduction::max:
      return test::simulate_row(s, p, n, bi::neg_inf_f32(), c::max_step{}, c::max_step{}, ctas, true);
    case bi::reduction::min:
      return test::simulate_row(s, p, n, bi::inf_f32(), c::min_step{}, c::min_step{}, ctas, true);
    default: {
      const float sum = test::simulate_row(s, p, n, 0.0f, c::add_step{}, c::add_step{}, ctas, true);
      return op == bi::reduction::sum ? sum : bi::div_rn(sum, bi::float_from_int64(n));
    }
  }
}

template <class T, class Out>
std::vector<Out> reduced(const std::vector<T>& x, std::int64_t rows, std::int64_t cols, std::int64_t stride,
                         bi::reduction op, int threads = 1) {
  auto out = test::poisoned<Out>(rows);
  bi::reduce_args<T, Out> a;
  a.x = x.data();
  a.x_stride = stride;
  a.rows = rows;
  a.cols = cols;
  a.out = out.data();
  const bi::status st = ref::reduce(a, op, threads);
  INFO(bi::describe(st));
  REQUIRE(st);
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("reduce: every schedule gives the reference's bytes", "[reference][reduce]", bi::bf16, bi::fp16,
                   float) {
  using T = TestType;
  const ref::fp_environment environment;
  for (const test::values kind : test::all_values) {
    const auto x = test::random_vector<T>(16385, kind, 11);
    const auto wide = test::widened(x.data(), 16385);
    std::vector<std::int64_t> lengths = {1023, 1024, 1025, 2047, 2048, 2049, 4095, 4097, 8191, 8192, 8193, 16385};
    for (std::int64_t n = 0; n <= 600; n += n < 70 ? 1 : 7) lengths.push_back(n);
    for (const std::int64_t n : lengths) {
      for (const bi::reduction op : all_reductions) {
        const auto f32 = reduced<T, float>(x, 1, n, 0, op);
        const auto own = reduced<T, T>(x, 1, n, 0, op);
        for (const schedule s : {schedule::warp, schedule::warp_xor, schedule::block, schedule::scattered}) {
          const float expected = simulated(op, s, wide, n, 2);
          const T narrow = bi::cvt_rn<T>(expected);
          INFO("cols " << n << ", data " << static_cast<int>(kind) << ", op " << static_cast<int>(op));
          REQUIRE(test::difference(f32.data(), &expected, 1) == "");
          REQUIRE(test::difference(own.data(), &narrow, 1) == "");
        }
      }
    }
  }
}

TEST_CASE("reduce: long rows", "[reference][reduce]") {
  const ref::fp_environment environment;
  constexpr std::int64_t longest = (std::int64_t{1} << 20) + 1;
  for (const test::values kind : {test::values::normal, test::values::cancelling}) {
    const auto x = test::random_vector<float>(longest, kind, 12);
    for (const std::int64_t n : {65535l, 65537l, 131071l, 1048575l, 1048576l, 1048577l}) {
      const auto y = reduced<float, float>(x, 1, n, 0, bi::reduction::sum);
      for (const schedule s : {schedule::warp, schedule::block}) {
        const float expected = simulated(bi::reduction::sum, s, x, n, 8);
        INFO("cols " << n);
        REQUIRE(test::difference(y.data(), &expected, 1) == "");
      }
    }
  }
}

TEMPLATE_TEST_CASE("reduce: a row does not know its neighbours, its place or the threads", "[reference][reduce]",
                   bi::bf16, bi::fp16, float) {
  using T = TestType;
  constexpr std::int64_t rows = 23, cols = 777, stride = 801;
  for (const bi::reduction op : all_reductions) {
    auto x = test::random_vector<T>(rows * stride, test::values::hostile, 13);
    const auto batch = reduced<T, float>(x, rows, cols, stride, op, 1);
    REQUIRE(test::difference(reduced<T, float>(x, rows, cols, stride, op, 2), batch) == "");
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::vector<T> alone(x.begin() + r * stride, x.begin() + r * stride + cols);
      REQUIRE(test::difference(reduced<T, float>(alone, 1, cols, 0, op).data(), &batch[static_cast<std::size_t>(r)],
                               1) == "");
    }
    // One normal row at every place of a hostile batch.
    const auto needle = test::random_vector<T>(cols, test::values::normal, 14);
    const auto expected = reduced<T, float>(needle, 1, cols, 0, op);
    for (std::int64_t r = 0; r < rows; ++r) {
      auto hay = x;
      std::copy(needle.begin(), needle.end(), hay.begin() + r * stride);
      const auto out = reduced<T, float>(hay, rows, cols, stride, op, 2);
      REQUIRE(test::difference(&out[static_cast<std::size_t>(r)], expected.data(), 1) == "");
    }
  }
}

TEST_CASE("reduce: rules for empty rows, NaN and zeros", "[reference][reduce]") {
  const std::vector<float> none;
  const auto bits = [](const std::vector<float>& v) { return bi::bits_of(v[0]); };
  const auto of = [&](std::vector<float> x, bi::reduction op) {
    return bits(reduced<float, float>(x, 1, static_cast<std::int64_t>(x.size()), 0, op));
  };
  REQUIRE(of({}, bi::reduction::sum) == 0u);
  REQUIRE(of({}, bi::reduction::mean) == bi::nan_bits);
  REQUIRE(of({}, bi::reduction::max) == 0xff800000u);
  REQUIRE(of({}, bi::reduction::min) == 0x7f800000u);
  const float minus = bi::float_of(0x80000000u), other_nan = bi::float_of(0xffc12345u);
  REQUIRE(of({minus, minus}, bi::reduction::sum) == 0u);
  REQUIRE(of({minus, 0.0f, minus}, bi::reduction::max) == 0u);
  REQUIRE(of({0.0f, minus, 0.0f}, bi::reduction::min) == 0x80000000u);
  for (const bi::reduction op : all_reductions) REQUIRE(of({1.0f, other_nan, 2.0f}, op) == bi::nan_bits);
  REQUIRE(of({bi::inf_f32(), bi::neg_inf_f32()}, bi::reduction::sum) == bi::nan_bits);
  REQUIRE(of({bi::inf_f32(), bi::neg_inf_f32()}, bi::reduction::max) == 0x7f800000u);
  // cols = 0 with a null x, several rows.
  auto out = test::poisoned<float>(3);
  bi::reduce_args<float> a;
  a.x_stride = 5;
  a.rows = 3;
  a.out = out.data();
  REQUIRE(ref::reduce(a, bi::reduction::sum));
  REQUIRE(test::difference(out, std::vector<float>(3, 0.0f)) == "");
}

TEMPLATE_TEST_CASE("argmax, argmin: against a search written another way", "[reference][reduce]", bi::bf16, bi::fp16,
                   float) {
  using T = TestType;
  for (const test::values kind : test::all_values) {
    constexpr std::int64_t rows = 40, stride = 400;
    const auto x = test::random_vector<T>(rows * stride, kind, 15);
    for (const std::int64_t cols : {1, 2, 9, 64, 333, 400}) {
      std::vector<std::int64_t> high(rows, -7), low(rows, -7), high2(rows, -7);
      bi::arg_reduce_args<T> a;
      a.x = x.data();
      a.x_stride = stride;
      a.rows = rows;
      a.cols = cols;
      a.index = high.data();
      REQUIRE(ref::argmax(a, 1));
      a.index = low.data();
      REQUIRE(ref::argmin(a, 1));
      a.index = high2.data();
      REQUIRE(ref::argmax(a, 2));
      REQUIRE(high == high2);
      for (std::int64_t r = 0; r < rows; ++r) {
        // From the end, keeping what is at least as good: the lowest index stays.
        std::int64_t best = cols - 1, worst = cols - 1, nan = -1;
        const auto at = [&](std::int64_t i) { return bi::to_f32(x[static_cast<std::size_t>(r * stride + i)]); };
        for (std::int64_t i = cols; i-- > 0;) {
          if (bi::is_nan(at(i))) nan = i;
          if (!bi::less(at(i), at(best))) best = i;
          if (!bi::less(at(worst), at(i))) worst = i;
        }
        REQUIRE(high[static_cast<std::size_t>(r)] == (nan >= 0 ? nan : best));
        REQUIRE(low[static_cast<std::size_t>(r)] == (nan >= 0 ? nan : worst));
      }
    }
  }
  // -0 == +0: the first of them, whichever it is.
  const T zeros[] = {bi::cvt_rn<T>(-1.0f), bi::cvt_rn<T>(bi::float_of(0x80000000u)), bi::cvt_rn<T>(0.0f)};
  std::int64_t index = -7;
  bi::arg_reduce_args<T> a;
  a.x = zeros;
  a.rows = 1;
  a.cols = 3;
  a.index = &index;
  REQUIRE(ref::argmax(a));
  REQUIRE(index == 1);
}

TEST_CASE("sum: error against double", "[reference][reduce]") {
  for (const std::int64_t cols : {64, 4096, 8192, 65536}) {
    double worst = 0;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      const auto x = test::random_vector<float>(cols, test::values::normal, 100 + seed);
      double exact = 0, magnitude = 0;
      for (const float v : x) exact += v, magnitude += std::fabs(static_cast<double>(v));
      const auto y = reduced<float, float>(x, 1, cols, 0, bi::reduction::sum);
      worst = std::max(worst, std::fabs(static_cast<double>(y[0]) - exact) / magnitude);
    }
    // An element takes part in at most 40 additions per level; the bound for any order of that depth.
    REQUIRE(worst < 40 * 0x1p-24);
    REQUIRE(worst < 4 * 0x1p-24);  // and what is measured: the errors are random
  }
}
