// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/softmax.hpp"

#include <algorithm>
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

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class T, class Out>
bi::softmax_args<T, Out> args_of(const std::vector<T>& x, std::int64_t rows, std::int64_t cols, std::vector<Out>& out) {
  bi::softmax_args<T, Out> a;
  a.x = x.data();
  a.rows = rows;
  a.cols = cols;
  a.out = out.data();
  return a;
}

template <class Out, class T>
std::vector<Out> softmax(const std::vector<T>& x, std::int64_t rows, int threads = 1) {
  const auto cols = static_cast<std::int64_t>(x.size()) / rows;
  auto out = test::poisoned<Out>(rows * cols);
  REQUIRE(ref::softmax(args_of(x, rows, cols, out), threads));
  return out;
}
template <class Out, class T>
std::vector<Out> log_softmax(const std::vector<T>& x, std::int64_t rows, int threads = 1) {
  const auto cols = static_cast<std::int64_t>(x.size()) / rows;
  auto out = test::poisoned<Out>(rows * cols);
  REQUIRE(ref::log_softmax(args_of(x, rows, cols, out), threads));
  return out;
}
template <class T>
std::vector<float> logsumexp(const std::vector<T>& x, std::int64_t rows, int threads = 1) {
  auto out = test::poisoned<float>(rows);
  bi::logsumexp_args<T> a;
  a.x = x.data();
  a.rows = rows;
  a.cols = static_cast<std::int64_t>(x.size()) / rows;
  a.out = out.data();
  REQUIRE(ref::logsumexp(a, threads));
  return out;
}

struct state {
  float m, l;
};

// A cluster's way: each block on its own, then its terms as a row.
state simulated(schedule s, const std::vector<float>& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  const auto add = [](float a, float b) { return bi::add_rn(a, b); };
  const auto larger = [](float a, float b) { return bi::max_nan(a, b); };
  std::vector<float> largest, sums;
  for (std::int64_t b = 0; b * 8192 < n; ++b) {
    const std::int64_t length = std::min<std::int64_t>(8192, n - b * 8192);
    const float m = test::simulate_block(s, x.data() + b * 8192, length, bi::neg_inf_f32(), larger, larger);
    std::vector<float> weights(at(length));
    for (std::int64_t i = 0; i < length; ++i) weights[at(i)] = bi::exp(bi::sub_rn(x[at(b * 8192 + i)], m));
    const float l = test::simulate_block(s, weights.data(), length, 0.0f, add, add);
    largest.push_back(m);
    sums.push_back(bi::bits_of(m) == 0xff800000u ? 0.0f : l);
  }
  float m = bi::neg_inf_f32();
  for (std::size_t b = largest.size(); b-- > 0;) m = larger(largest[b], m);
  for (std::size_t b = 0; b < sums.size(); ++b) {
    sums[b] = bi::bits_of(largest[b]) == 0xff800000u ? 0.0f : bi::mul_rn(sums[b], bi::exp(bi::sub_rn(largest[b], m)));
  }
  return {m, test::simulate_row(s, sums.data(), static_cast<std::int64_t>(sums.size()), 0.0f, add, add)};
}

template <class T>
void require_equal_to_schedules(const std::vector<T>& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  const auto wide = test::widened(x.data(), n);
  const auto p = softmax<T>(x, 1);
  const auto logs = log_softmax<float>(x, 1);
  const auto lse = logsumexp(x, 1);
  for (const schedule s : {schedule::warp, schedule::warp_xor, schedule::block, schedule::scattered}) {
    const state f = simulated(s, wide);
    const float log_l = bi::log(f.l), inverse = bi::div_rn(1.0f, f.l), expected = bi::add_rn(f.m, log_l);
    REQUIRE(test::difference(lse.data(), &expected, 1) == "");
    if (s == schedule::warp_xor && n > 2048) continue;
    std::vector<T> q(x.size());
    std::vector<float> log_q(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float d = bi::sub_rn(wide[i], f.m);
      q[i] = bi::cvt_rn<T>(bi::mul_rn(bi::exp(d), inverse));
      log_q[i] = bi::sub_rn(d, log_l);
    }
    REQUIRE(test::difference(p, q) == "");
    REQUIRE(test::difference(logs, log_q) == "");
  }
}

}  // namespace

TEMPLATE_TEST_CASE("softmax: every schedule gives the reference's bytes", "[reference][softmax]", bi::bf16, bi::fp16,
                   float) {
  const ref::fp_environment environment;
  std::vector<std::int64_t> lengths = {1023, 1025, 2047, 2048, 2049, 4097, 8191, 8192, 8193, 16385, 70001};
  for (std::int64_t n = 1; n <= 600; n += n < 40 ? 1 : 37) lengths.push_back(n);
  for (const test::values kind : test::all_values) {
    for (const std::int64_t n : lengths) {
      if (n > 9000 && kind != test::values::normal && kind != test::values::cancelling) continue;
      INFO("cols " << n << ", data " << static_cast<int>(kind));
      require_equal_to_schedules(test::random_vector<TestType>(n, kind, 51));
    }
  }
}

TEST_CASE("softmax: blocks of -Inf, and other orders", "[reference][softmax]") {
  const ref::fp_environment environment;
  auto x = test::random_vector<float>(5 * 8192 + 7, test::values::normal, 52);
  require_equal_to_schedules(x);
  for (std::int64_t i = 0; i < 8192; ++i) x[at(2 * 8192 + i)] = bi::neg_inf_f32();
  for (std::size_t i = 5 * 8192; i < x.size(); ++i) x[i] = bi::neg_inf_f32();
  require_equal_to_schedules(x);
  REQUIRE(bi::is_finite(logsumexp(x, 1)[0]));
  // Positive control: one maximum for the whole row instead of one a block, and a sum from left to right.
  int rescaled = 0, serial = 0;
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    auto y = test::random_vector<float>(20000, test::values::normal, 53 + seed);
    for (float& v : y) v = bi::mul_rn(v, 8.0f);  // few large weights: roundings show
    const state s = simulated(schedule::block, y);
    std::vector<float> w(y.size());
    float left_to_right = 0.0f;
    for (std::size_t i = 0; i < y.size(); ++i) {
      w[i] = bi::exp(bi::sub_rn(y[i], s.m));
      left_to_right = bi::add_rn(left_to_right, w[i]);
    }
    const float l = test::simulate_row(schedule::block, w.data(), 20000, 0.0f, c::add_step{}, c::add_step{});
    rescaled += test::difference(&l, &s.l, 1) != "";
    serial += test::difference(&left_to_right, &s.l, 1) != "";
  }
  REQUIRE(rescaled > 2);
  REQUIRE(serial > 12);
}

TEMPLATE_TEST_CASE("softmax: a row does not know its neighbours, its place or the threads", "[reference][softmax]",
                   bi::bf16, bi::fp16, float) {
  using T = TestType;
  constexpr std::int64_t rows = 30, n = 1031;
  const auto needle = test::random_vector<T>(n, test::values::normal, 60);
  const auto p = softmax<T>(needle, 1), logs = log_softmax<T>(needle, 1);
  const auto lse = logsumexp(needle, 1);
  for (std::int64_t place = 0; place < rows; place += place < 4 ? 1 : 5) {
    auto x = test::random_vector<T>(rows * n, test::values::hostile, 61);
    std::copy(needle.begin(), needle.end(), x.begin() + place * n);
    const auto batch = softmax<T>(x, rows, 1), batch_logs = log_softmax<T>(x, rows, 1);
    const auto batch_lse = logsumexp(x, rows, 1);
    REQUIRE(test::difference(softmax<T>(x, rows, 2), batch) == "");
    REQUIRE(test::difference(log_softmax<T>(x, rows, 2), batch_logs) == "");
    REQUIRE(test::difference(logsumexp(x, rows, 2), batch_lse) == "");
    REQUIRE(test::difference(batch.data() + place * n, p.data(), n) == "");
    REQUIRE(test::difference(batch_logs.data() + place * n, logs.data(), n) == "");
    REQUIRE(test::difference(&batch_lse[at(place)], lse.data(), 1) == "");
    // In place, and with room between the rows.
    auto a = args_of(x, rows, n, x);
    REQUIRE(ref::softmax(a, 2));
    REQUIRE(test::difference(x, batch) == "");
  }
  auto x = test::random_vector<T>(rows * (n + 5), test::values::normal, 62);
  const auto before = x;
  auto a = args_of(x, rows, n, x);
  a.x_stride = a.out_stride = n + 5;
  REQUIRE(ref::log_softmax(a, 2));
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::vector<T> alone(before.begin() + r * (n + 5), before.begin() + r * (n + 5) + n);
    REQUIRE(test::difference(x.data() + r * (n + 5), log_softmax<T>(alone, 1).data(), n) == "");
    REQUIRE(test::difference(x.data() + r * (n + 5) + n, before.data() + r * (n + 5) + n, 5) == "");
  }
}

TEST_CASE("softmax: -Inf, +Inf, NaN, empty rows", "[reference][softmax]") {
  const float minus = bi::neg_inf_f32(), plus = bi::inf_f32(), nan = bi::float_of(0xffc00123u);
  const auto all_nan = [](const std::vector<float>& v) {
    return std::all_of(v.begin(), v.end(), [](float x) { return bi::bits_of(x) == bi::nan_bits; });
  };
  for (const std::int64_t n : {1, 7, 300, 9000}) {
    std::vector<float> x(at(n), minus);
    REQUIRE(bi::bits_of(logsumexp(x, 1)[0]) == 0xff800000u);
    REQUIRE(all_nan(softmax<float>(x, 1)));
    REQUIRE(all_nan(log_softmax<float>(x, 1)));
    // One finite element: it has all the weight.
    x[at(n - 1)] = -5.0f;
    auto p = softmax<float>(x, 1), logs = log_softmax<float>(x, 1);
    REQUIRE(bi::bits_of(logsumexp(x, 1)[0]) == bi::bits_of(-5.0f));
    REQUIRE(bi::bits_of(p[at(n - 1)]) == bi::bits_of(1.0f));
    REQUIRE(bi::bits_of(logs[at(n - 1)]) == 0u);
    if (n > 1) {
      REQUIRE(bi::bits_of(p[0]) == 0u);
      REQUIRE(bi::bits_of(logs[0]) == 0xff800000u);
    }
    for (const float bad : {plus, nan}) {
      for (const float other : {minus, 1.0f}) {
        for (const std::int64_t place : {std::int64_t{0}, n / 2, n - 1}) {
          std::vector<float> y(at(n), other);
          y[at(place)] = bad;
          INFO("cols " << n << ", place " << place);
          REQUIRE(all_nan(logsumexp(y, 1)));
          REQUIRE(all_nan(softmax<float>(y, 1)));
          REQUIRE(all_nan(log_softmax<float>(y, 1)));
        }
      }
    }
  }
  // cols = 0: a null x, several rows.
  auto out = test::poisoned<float>(3);
  bi::logsumexp_args<float> a;
  a.rows = 3;
  a.x_stride = 4;
  a.out = out.data();
  REQUIRE(ref::logsumexp(a));
  REQUIRE(test::difference(out, std::vector<float>(3, minus)) == "");
}

TEST_CASE("softmax: values known by hand", "[reference][softmax]") {
  // Equal elements: l = n exactly, and each has weight 1/n rounded once.
  for (const std::int64_t n : {1, 2, 3, 64, 1000, 8192, 10000}) {
    const std::vector<float> x(at(n), 3.25f);
    const auto p = softmax<float>(x, 1);
    const float expected = bi::div_rn(1.0f, bi::float_from_int64(n));
    REQUIRE(test::difference(p.data() + n - 1, &expected, 1) == "");
    const float lse = bi::add_rn(3.25f, bi::log(bi::float_from_int64(n)));
    REQUIRE(test::difference(logsumexp(x, 1).data(), &lse, 1) == "");
  }
  // Each form's roundings.
  using draft = bi::contract::softmax_draft;
  test::generator g(60);
  for (int i = 0; i < 1000; ++i) {
    const float v = g.normal(), m = bi::add_rn(v, bi::abs(g.normal())), l = bi::add_rn(1.0f, bi::abs(g.normal()));
    const float shifted = bi::sub_rn(v, m), log = bi::log(l);
    REQUIRE(draft::softmax_form::value(v, m, draft::softmax_form::row(l)) ==
            bi::mul_rn(bi::exp(shifted), bi::div_rn(1.0f, l)));
    REQUIRE(draft::log_softmax_form::value(v, m, draft::log_softmax_form::row(l)) == bi::sub_rn(shifted, log));
    REQUIRE(draft::block_term(l, v, m) == bi::mul_rn(l, bi::exp(shifted)));
    REQUIRE(draft::logsumexp(m, l) == bi::add_rn(m, log));
  }
  // Far apart: no overflow, no NaN.
  const std::vector<float> x = {3e38f, -3e38f, 0.0f};
  const auto p = softmax<float>(x, 1);
  REQUIRE(bi::bits_of(p[0]) == bi::bits_of(1.0f));
  REQUIRE(bi::bits_of(p[1]) == 0u);
  REQUIRE(bi::bits_of(p[2]) == 0u);
}

TEST_CASE("softmax: error against double", "[reference][softmax]") {
  for (const std::int64_t n : {100, 4096, 32000}) {
    auto x = test::random_vector<float>(n, test::values::normal, 70);
    for (float& v : x) v = bi::mul_rn(v, 4.0f);
    const auto p = softmax<float>(x, 1), logs = log_softmax<float>(x, 1);
    const auto lse = logsumexp(x, 1);
    double m = -1e300, l = 0;
    for (const float v : x) m = std::max(m, static_cast<double>(v));
    for (const float v : x) l += std::exp(static_cast<double>(v) - m);
    const double exact_lse = m + std::log(l);
    double worst_p = 0, worst_log = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double log_p = static_cast<double>(x[at(i)]) - exact_lse, exact = std::exp(log_p);
      worst_p = std::max(worst_p, std::fabs(static_cast<double>(p[at(i)]) - exact) / exact);
      worst_log = std::max(worst_log, std::fabs(static_cast<double>(logs[at(i)]) - log_p) / (1 + std::fabs(log_p)));
    }
    // sub(x, m) is off by up to 2^-25 |x - m|, and exp turns that into a relative error of the weight.
    REQUIRE(worst_p < 48 * 0x1p-24);
    // The error of l is an absolute one of its logarithm, however small that is.
    REQUIRE(worst_log < 3 * 0x1p-24);
    REQUIRE(std::fabs(static_cast<double>(lse[0]) - exact_lse) / exact_lse < 2 * 0x1p-24);
  }
}
