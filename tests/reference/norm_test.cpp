// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "bi/reference/layer_norm.hpp"
#include "bi/reference/rms_norm.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/row_schedules.hpp"

namespace c = bi::contract;
namespace ref = bi::reference;
using test::schedule;

namespace {

constexpr float eps = 1e-6f;
constexpr schedule gpu_schedules[] = {schedule::warp, schedule::warp_xor, schedule::block, schedule::scattered};

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// A matrix with room between its rows.
template <class T>
struct matrix {
  std::int64_t rows, cols, stride;
  std::vector<T> data;
  matrix(std::int64_t m, std::int64_t n, test::values kind, std::uint64_t seed, std::int64_t gap = 3)
      : rows(m), cols(n), stride(n + gap), data(test::random_vector<T>(m * (n + gap), kind, seed)) {}
  matrix(std::int64_t m, std::int64_t n, std::int64_t gap = 1)
      : rows(m), cols(n), stride(n + gap), data(test::poisoned<T>(m * (n + gap))) {}
  const T* row(std::int64_t r) const { return data.data() + r * stride; }
  T* row(std::int64_t r) { return data.data() + r * stride; }
};

template <class T>
bi::rms_norm_args<T> rms_args(const matrix<T>& x, const std::vector<T>& weight, matrix<T>& out) {
  bi::rms_norm_args<T> a;
  a.x = x.data.data();
  a.x_stride = x.stride;
  a.weight = weight.data();
  a.eps = eps;
  a.rows = x.rows;
  a.cols = x.cols;
  a.out = out.data.data();
  a.out_stride = out.stride;
  return a;
}
template <class T>
bi::layer_norm_args<T> layer_args(const matrix<T>& x, const T* weight, const T* bias, matrix<T>& out) {
  bi::layer_norm_args<T> a;
  a.x = x.data.data();
  a.x_stride = x.stride;
  a.weight = weight;
  a.bias = bias;
  a.eps = eps;
  a.rows = x.rows;
  a.cols = x.cols;
  a.out = out.data.data();
  a.out_stride = out.stride;
  return a;
}

// The formulas, written out once more.
enum class form { plain, hugging_face, one_plus };
template <class T>
std::vector<T> simulated_rms(form f, schedule s, const std::vector<float>& x, const std::vector<T>& weight) {
  const auto n = static_cast<std::int64_t>(x.size());
  const float ss = test::simulate_row(
      s, x.data(), n, 0.0f, [](float acc, float e) { return bi::fma_rn(e, e, acc); },
      [](float a, float b) { return bi::add_rn(a, b); }, 2);
  const float mean = bi::div_rn(ss, bi::float_from_int64(n));
  const float r = bi::div_rn(1.0f, bi::sqrt_rn(bi::add_rn(mean, eps)));
  std::vector<T> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float scaled = bi::mul_rn(x[i], r), w = bi::to_f32(weight[i]);
    if (f == form::plain) y[i] = bi::cvt_rn<T>(bi::mul_rn(scaled, w));
    if (f == form::hugging_face) y[i] = bi::cvt_rn<T>(bi::mul_rn(bi::to_f32(bi::cvt_rn<T>(scaled)), w));
    if (f == form::one_plus) y[i] = bi::cvt_rn<T>(bi::mul_rn(scaled, bi::add_rn(1.0f, w)));
  }
  return y;
}
template <class T>
std::vector<T> simulated_layer(schedule s, const std::vector<float>& x, const T* weight, const T* bias) {
  const auto n = static_cast<std::int64_t>(x.size());
  const auto add = [](float a, float b) { return bi::add_rn(a, b); };
  const float mean = bi::div_rn(test::simulate_row(s, x.data(), n, 0.0f, add, add, 2), bi::float_from_int64(n));
  std::vector<float> d(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) d[i] = bi::sub_rn(x[i], mean);
  const float ss = test::simulate_row(
      s, d.data(), n, 0.0f, [](float acc, float e) { return bi::fma_rn(e, e, acc); }, add, 2);
  const float r = bi::div_rn(1.0f, bi::sqrt_rn(bi::add_rn(bi::div_rn(ss, bi::float_from_int64(n)), eps)));
  std::vector<T> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    float v = bi::mul_rn(d[i], r);
    if (weight != nullptr) v = bi::mul_rn(v, bi::to_f32(weight[i]));
    if (bias != nullptr) v = bi::add_rn(v, bi::to_f32(bias[i]));
    y[i] = bi::cvt_rn<T>(v);
  }
  return y;
}

std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> out = {1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 16385};
  for (std::int64_t n = 1; n <= 600; n += n < 40 ? 1 : 13) out.push_back(n);
  return out;
}

// Distance in units of the last place of `exact` in T.
template <class T>
double ulps(T got, double exact) {
  const int fraction = test::format_of<T>::fraction, lowest = test::format_of<T>::exponent == 5 ? -14 : -126;
  const int e = exact == 0 ? lowest : std::max(std::ilogb(exact), lowest);
  return std::fabs(static_cast<double>(bi::to_f32(got)) - exact) / std::ldexp(1.0, e - fraction);
}

}  // namespace

TEMPLATE_TEST_CASE("norms: every schedule gives the reference's bytes", "[reference][norm]", bi::bf16, bi::fp16,
                   float) {
  using T = TestType;
  const ref::fp_environment environment;
  for (const test::values kind : test::all_values) {
    for (const std::int64_t n : lengths()) {
      const matrix<T> x(1, n, kind, 21);
      const auto weight = test::random_vector<T>(n, test::values::normal, 22);
      const auto bias = test::random_vector<T>(n, test::values::normal, 23);
      matrix<T> plain(1, n), hf(1, n), one_plus(1, n), layer(1, n), bare(1, n);
      REQUIRE(ref::rms_norm(rms_args(x, weight, plain), 1));
      REQUIRE(ref::rms_norm<c::rms_norm_hf_draft>(rms_args(x, weight, hf), 1));
      REQUIRE(ref::rms_norm<c::rms_norm_one_plus_draft>(rms_args(x, weight, one_plus), 1));
      REQUIRE(ref::layer_norm(layer_args(x, weight.data(), bias.data(), layer), 1));
      REQUIRE(ref::layer_norm(layer_args<T>(x, nullptr, nullptr, bare), 1));
      const auto wide = test::widened(x.row(0), n);
      for (const schedule s : gpu_schedules) {
        INFO("cols " << n << ", data " << static_cast<int>(kind) << ", schedule " << static_cast<int>(s));
        const auto same = [&](const matrix<T>& y, const std::vector<T>& z) {
          return test::difference(y.row(0), z.data(), n);
        };
        REQUIRE(same(plain, simulated_rms<T>(form::plain, s, wide, weight)) == "");
        REQUIRE(same(hf, simulated_rms<T>(form::hugging_face, s, wide, weight)) == "");
        REQUIRE(same(one_plus, simulated_rms<T>(form::one_plus, s, wide, weight)) == "");
        REQUIRE(same(layer, simulated_layer<T>(s, wide, weight.data(), bias.data())) == "");
        REQUIRE(same(bare, simulated_layer<T>(s, wide, nullptr, nullptr)) == "");
      }
    }
  }
}

TEST_CASE("norms: the contracts and other orders differ", "[reference][norm]") {
  // Positive control for the comparisons above.
  const ref::fp_environment environment;
  using T = bi::bf16;
  constexpr std::int64_t rows = 32, n = 1000;
  const matrix<T> x(rows, n, test::values::normal, 24);
  const matrix<float> x32(rows, n, test::values::normal, 24);
  const auto weight = test::random_vector<T>(n, test::values::normal, 25);
  const std::vector<float> ones(n, 1.0f);
  matrix<T> plain(rows, n), hf(rows, n);
  matrix<float> f32(rows, n);
  REQUIRE(ref::rms_norm(rms_args(x, weight, plain)));
  REQUIRE(ref::rms_norm<c::rms_norm_hf_draft>(rms_args(x, weight, hf)));
  REQUIRE(test::difference(plain.data, hf.data) != "");
  REQUIRE(ref::rms_norm(rms_args(x32, ones, f32)));
  int serial = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    float ss = 0.0f;
    for (std::int64_t i = 0; i < n; ++i) ss = bi::fma_rn(x32.row(r)[i], x32.row(r)[i], ss);
    const float scale = bi::rsqrt_rn(bi::add_rn(bi::div_rn(ss, 1000.0f), eps));
    std::vector<float> y(n);
    for (std::int64_t i = 0; i < n; ++i) y[at(i)] = bi::mul_rn(x32.row(r)[i], scale);
    serial += test::difference(y.data(), f32.row(r), n) != "";
  }
  REQUIRE(serial > rows / 2);
}

TEMPLATE_TEST_CASE("rms_norm with a residual is add, then rms_norm", "[reference][norm]", bi::bf16, bi::fp16, float) {
  using T = TestType;
  const ref::fp_environment environment;
  for (const test::values kind : test::all_values) {
    constexpr std::int64_t rows = 9, n = 515;
    const matrix<T> x(rows, n, kind, 26), residual(rows, n, kind, 27, 8);
    const auto weight = test::random_vector<T>(n, test::values::normal, 28);
    matrix<T> sum(rows, n), sum_out(rows, n), fused(rows, n), separate(rows, n);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < n; ++i) {
        sum.row(r)[i] = bi::cvt_rn<T>(bi::add_rn(bi::to_f32(x.row(r)[i]), bi::to_f32(residual.row(r)[i])));
      }
    }
    REQUIRE(ref::rms_norm(rms_args(sum, weight, separate)));
    auto a = rms_args(x, weight, fused);
    a.residual = residual.data.data();
    a.residual_stride = residual.stride;
    a.residual_out = sum_out.data.data();
    a.residual_out_stride = sum_out.stride;
    REQUIRE(ref::rms_norm(a, 2));
    REQUIRE(test::difference(fused.data, separate.data) == "");  // what lies between rows is poison in both
    REQUIRE(test::difference(sum_out.data, sum.data) == "");

    // Every allowed alias gives the same bytes.
    for (int alias = 0; alias < 6; ++alias) {
      matrix<T> in(rows, n, test::values::ties, 1), res(rows, n, test::values::ties, 1), out(rows, n, 3),
          total(rows, n, 3);
      for (std::int64_t r = 0; r < rows; ++r) {
        std::copy(x.row(r), x.row(r) + n, in.row(r));
        std::copy(residual.row(r), residual.row(r) + n, res.row(r));
      }
      auto b = rms_args(in, weight, out);
      b.residual = res.data.data();
      b.residual_stride = res.stride;
      b.residual_out = total.data.data();
      b.residual_out_stride = total.stride;
      if (alias == 0 || alias == 3) b.out = in.data.data();
      if (alias == 1 || alias == 2) b.out = res.data.data();
      if (alias == 2 || alias == 4) b.residual_out = in.data.data();
      if (alias == 3 || alias == 5) b.residual_out = res.data.data();
      REQUIRE(ref::rms_norm(b, 2));
      for (std::int64_t r = 0; r < rows; ++r) {
        INFO("alias " << alias << ", row " << r);
        REQUIRE(test::difference(b.out + r * b.out_stride, fused.row(r), n) == "");
        REQUIRE(test::difference(b.residual_out + r * b.residual_out_stride, sum.row(r), n) == "");
      }
    }
  }
}

TEMPLATE_TEST_CASE("norms: a row does not know its neighbours, its place or the threads", "[reference][norm]", bi::bf16,
                   bi::fp16, float) {
  using T = TestType;
  constexpr std::int64_t rows = 40, n = 1025;
  const auto weight = test::random_vector<T>(n, test::values::normal, 30);
  const auto bias = test::random_vector<T>(n, test::values::normal, 31);
  const matrix<T> needle(1, n, test::values::normal, 32);
  matrix<T> rms(1, n), layer(1, n);
  REQUIRE(ref::rms_norm(rms_args(needle, weight, rms)));
  REQUIRE(ref::layer_norm(layer_args(needle, weight.data(), bias.data(), layer)));
  for (std::int64_t place = 0; place < rows; place += place < 4 ? 1 : 5) {
    matrix<T> x(rows, n, test::values::hostile, 33);
    std::copy(needle.row(0), needle.row(0) + n, x.row(place));
    matrix<T> out1(rows, n), out2(rows, n);
    REQUIRE(ref::rms_norm(rms_args(x, weight, out1), 1));
    REQUIRE(ref::rms_norm(rms_args(x, weight, out2), 2));
    REQUIRE(test::difference(out1.data, out2.data) == "");
    REQUIRE(test::difference(out1.row(place), rms.row(0), n) == "");
    REQUIRE(ref::layer_norm(layer_args(x, weight.data(), bias.data(), out1), 1));
    REQUIRE(ref::layer_norm(layer_args(x, weight.data(), bias.data(), out2), 2));
    REQUIRE(test::difference(out1.data, out2.data) == "");
    REQUIRE(test::difference(out1.row(place), layer.row(0), n) == "");
    // In place.
    auto in_place = layer_args(x, weight.data(), bias.data(), x);
    REQUIRE(ref::layer_norm(in_place, 2));
    REQUIRE(test::difference(x.row(place), layer.row(0), n) == "");
  }
}

TEMPLATE_TEST_CASE("qk_norm is rms_norm of each head", "[reference][norm]", bi::bf16, bi::fp16, float) {
  using T = TestType;
  for (const std::int64_t dim : {1, 64, 96, 128}) {
    // The k part of a fused projection: 5 heads between others.
    constexpr std::int64_t tokens = 7, heads = 5;
    const std::int64_t head_stride = dim + 2, token_stride = 9 * head_stride;
    auto fused = test::random_vector<T>(tokens * token_stride, test::values::normal, 34);
    const auto before = fused;
    const auto weight = test::random_vector<T>(dim, test::values::normal, 35);
    auto packed = test::poisoned<T>(tokens * heads * dim);
    bi::qk_norm_args<T> a;
    a.x = fused.data() + 2 * head_stride;
    a.x_token_stride = token_stride;
    a.x_head_stride = head_stride;
    a.weight = weight.data();
    a.tokens = tokens;
    a.heads = heads;
    a.head_dim = dim;
    a.out = packed.data();
    REQUIRE(ref::qk_norm(a, 2));
    auto in_place = a;
    in_place.out = fused.data() + 2 * head_stride;
    in_place.out_token_stride = token_stride;
    in_place.out_head_stride = head_stride;
    REQUIRE(ref::qk_norm(in_place, 1));
    auto expected = before;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t offset = t * token_stride + (2 + h) * head_stride;
        bi::rms_norm_args<T> one;
        one.x = before.data() + offset;
        one.weight = weight.data();
        one.rows = 1;
        one.cols = dim;
        one.out = expected.data() + offset;
        REQUIRE(ref::rms_norm(one));
        REQUIRE(test::difference(packed.data() + (t * heads + h) * dim, expected.data() + offset, dim) == "");
      }
    }
    REQUIRE(test::difference(fused, expected) == "");  // and the other heads are as they were
  }
}

TEST_CASE("norms: infinities, NaN, overflow and zeros", "[reference][norm]") {
  const auto bits = [](const matrix<float>& m, std::int64_t i) { return bi::bits_of(m.row(0)[i]); };
  const std::vector<float> ones(16, 1.0f);
  matrix<float> x(1, 16, test::values::normal, 36), y(1, 16);
  x.row(0)[0] = -1.0f;
  x.row(0)[3] = bi::inf_f32();
  REQUIRE(ref::rms_norm(rms_args(x, ones, y)));
  REQUIRE(bits(y, 3) == bi::nan_bits);  // r = 0, and Inf times 0
  REQUIRE(bits(y, 0) == 0x80000000u);
  REQUIRE(ref::layer_norm(layer_args(x, ones.data(), ones.data(), y)));
  for (std::int64_t i = 0; i < 16; ++i) REQUIRE(bits(y, i) == bi::nan_bits);
  x.row(0)[3] = 1e30f;  // its square overflows
  REQUIRE(ref::rms_norm(rms_args(x, ones, y)));
  for (std::int64_t i = 0; i < 16; ++i) REQUIRE((bits(y, i) & 0x7fffffffu) == 0u);
  x.row(0)[3] = bi::float_of(0xff800001u);
  REQUIRE(ref::rms_norm(rms_args(x, ones, y)));
  for (std::int64_t i = 0; i < 16; ++i) REQUIRE(bits(y, i) == bi::nan_bits);
  for (std::int64_t i = 0; i < 16; ++i) x.row(0)[i] = 0.0f;
  REQUIRE(ref::rms_norm(rms_args(x, ones, y)));
  for (std::int64_t i = 0; i < 16; ++i) REQUIRE(bits(y, i) == 0u);
  auto a = rms_args(x, ones, y);
  a.eps = 0.0f;
  REQUIRE(ref::rms_norm(a));
  for (std::int64_t i = 0; i < 16; ++i) REQUIRE(bits(y, i) == bi::nan_bits);
  // A bias that is absent is not +0: 0 - mean stays -0 where it is.
  auto b = layer_args<float>(x, nullptr, nullptr, y);
  const std::vector<float> minus(16, -1.0f);
  b.weight = minus.data();
  REQUIRE(ref::layer_norm(b));
  REQUIRE(bits(y, 0) == 0x80000000u);
  const std::vector<float> zeros(16, 0.0f);
  b.bias = zeros.data();
  REQUIRE(ref::layer_norm(b));
  REQUIRE(bits(y, 0) == 0u);
}

TEMPLATE_TEST_CASE("norms: error against double", "[reference][norm]", bi::bf16, bi::fp16, float) {
  using T = TestType;
  constexpr std::int64_t rows = 4, n = 4096;
  const matrix<T> x(rows, n, test::values::normal, 40);
  const auto weight = test::random_vector<T>(n, test::values::normal, 41);
  matrix<T> rms(rows, n), layer(rows, n);
  REQUIRE(ref::rms_norm(rms_args(x, weight, rms)));
  REQUIRE(ref::layer_norm(layer_args<T>(x, weight.data(), nullptr, layer)));
  double worst_rms = 0, worst_layer = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto v = [&](std::int64_t i) { return static_cast<double>(bi::to_f32(x.row(r)[i])); };
    double sum = 0, squares = 0, centred = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += v(i), squares += v(i) * v(i);
    const double mean = sum / n;
    for (std::int64_t i = 0; i < n; ++i) centred += (v(i) - mean) * (v(i) - mean);
    for (std::int64_t i = 0; i < n; ++i) {
      const double w = static_cast<double>(bi::to_f32(weight[at(i)]));
      const double scale = 1 / std::sqrt(squares / n + static_cast<double>(eps));
      worst_rms = std::max(worst_rms, ulps<T>(rms.row(r)[i], v(i) * scale * w));
      // Relative to the larger of x and mean: x - mean cancels where they are close.
      const double exact = (v(i) - mean) / std::sqrt(centred / n + static_cast<double>(eps)) * w;
      if (std::fabs(v(i) - mean) > 0.25) worst_layer = std::max(worst_layer, ulps<T>(layer.row(r)[i], exact));
    }
  }
  REQUIRE(worst_rms < (sizeof(T) == 2 ? 0.51 : 6.0));
  REQUIRE(worst_layer < (sizeof(T) == 2 ? 0.51 : 6.0));
}
