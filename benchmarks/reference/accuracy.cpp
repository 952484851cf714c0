// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "bi/contract/trig.hpp"
#include "bi/reference/activation.hpp"
#include "bi/reference/attention.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/layer_norm.hpp"
#include "bi/reference/reduce.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/rope.hpp"
#include "bi/reference/softmax.hpp"
#include "tests/support/data.hpp"

// The errors of the reference operations against float64, as the Markdown tables of docs/accuracy.md. The data is the
// same everywhere and the reference's bits are too, so the figures change only with a contract.
//   accuracy          seconds
//   accuracy --long   adds attention over 131072 tokens

namespace {

namespace contract = bi::contract;
namespace reference = bi::reference;

template <class T>
double wide(T x) {
  return static_cast<double>(bi::to_f32(x));
}

// A unit in the last place of T at `x`.
template <class T>
double ulp_at(double x) {
  constexpr int fraction = test::format_of<T>::fraction, lowest = 2 - (1 << (test::format_of<T>::exponent - 1));
  return std::ldexp(1.0, (x == 0 ? lowest : std::max(std::ilogb(x), lowest)) - fraction);
}

// Errors in some unit; prints the largest and the mean.
class unit_errors {
 public:
  void add(double got, double exact, double unit) {
    const double error = std::fabs(got - exact) / unit;
    largest_ = error <= largest_ ? largest_ : error;  // NaN stays
    sum_ += error;
    ++count_;
  }
  template <class T>
  void add_ulp(T got, double exact) {
    add(wide(got), exact, ulp_at<T>(exact));
  }
  std::string text() const {
    char out[64];
    std::snprintf(out, sizeof out, "%.3g (%.2g)", largest_, sum_ / static_cast<double>(count_));
    return out;
  }

 private:
  double largest_ = 0, sum_ = 0;
  std::int64_t count_ = 0;
};

// sqrt(sum of squared errors / sum of squared exact values).
class relative_l2 {
 public:
  void add(double got, double exact) {
    error_ += (got - exact) * (got - exact);
    size_ += exact * exact;
  }
  std::string text() const {
    char out[32];
    std::snprintf(out, sizeof out, "%.2e", std::sqrt(error_ / size_));
    return out;
  }

 private:
  double error_ = 0, size_ = 0;
};

// Filled one column after another; a row begins where its name is new.
class table {
 public:
  table(const char* title, const char* corner) : title_(title), head_({corner}) {}
  void column(const std::string& name) { head_.push_back(name); }
  void cell(const std::string& row, const std::string& text) {
    auto at = std::find_if(rows_.begin(), rows_.end(), [&](const auto& r) { return r.front() == row; });
    if (at == rows_.end()) at = rows_.insert(at, {row});
    at->resize(head_.size() - 1);
    at->push_back(text);
  }
  void print() {
    std::printf("%s\n\n", title_);
    line(head_);
    line(std::vector<std::string>(head_.size(), "---"));
    for (const auto& r : rows_) line(r);
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  static void line(const std::vector<std::string>& cells) {
    for (const std::string& c : cells) std::printf("| %s ", c.c_str());
    std::printf("|\n");
  }
  const char* title_;
  std::vector<std::string> head_;
  std::vector<std::vector<std::string>> rows_;
};

void require(const bi::status& st) {
  if (st) return;
  std::fprintf(stderr, "%s\n", bi::describe(st).c_str());
  std::exit(1);
}

template <class T>
std::vector<T> buffer(std::int64_t n) {
  return std::vector<T>(static_cast<std::size_t>(n));
}

template <class T>
std::vector<T> normal(std::int64_t n, float deviation, std::uint64_t seed) {
  const std::vector<float> x = test::random_vector<float>(n, test::values::normal, seed);
  std::vector<T> out;
  out.reserve(x.size());
  for (const float v : x) out.push_back(bi::cvt_rn<T>(bi::mul_rn(v, deviation)));
  return out;
}

template <class T>
std::string name_of() {
  return bi::dtype_traits<T>::name;
}

// ---- rows

template <class T>
void norms(table& t, std::int64_t rows, std::int64_t cols) {
  t.column(name_of<T>() + ", " + std::to_string(cols));
  const auto x = normal<T>(rows * cols, 1, 1), weight = normal<T>(cols, 1, 2), bias = normal<T>(cols, 1, 3);
  auto result = buffer<T>(rows * cols);
  const T *w = weight.data(), *b = bias.data();

  const auto rms_norm = [&](const char* name, auto form, double offset) {
    bi::rms_norm_args<T> a{.x = x.data(), .weight = w, .rows = rows, .cols = cols, .out = result.data()};
    require(reference::rms_norm<decltype(form)>(a));
    unit_errors e;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T *in = x.data() + r * cols, *out = result.data() + r * cols;
      double squares = 0;
      for (std::int64_t i = 0; i < cols; ++i) squares += wide(in[i]) * wide(in[i]);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(cols) + wide(a.eps));
      for (std::int64_t i = 0; i < cols; ++i) e.add_ulp(out[i], wide(in[i]) * scale * (offset + wide(w[i])));
    }
    t.cell(name, e.text());
  };
  rms_norm("rms_norm", contract::rms_norm_draft{}, 0);
  rms_norm("rms_norm_one_plus", contract::rms_norm_one_plus_draft{}, 1);
  rms_norm("rms_norm_hf (two roundings)", contract::rms_norm_hf_draft{}, 0);

  bi::layer_norm_args<T> a{.x = x.data(), .weight = w, .bias = b, .rows = rows, .cols = cols, .out = result.data()};
  require(reference::layer_norm(a));
  unit_errors e;
  for (std::int64_t r = 0; r < rows; ++r) {
    const T *in = x.data() + r * cols, *out = result.data() + r * cols;
    double sum = 0, squares = 0;
    for (std::int64_t i = 0; i < cols; ++i) sum += wide(in[i]);
    const double mean = sum / static_cast<double>(cols);
    for (std::int64_t i = 0; i < cols; ++i) squares += (wide(in[i]) - mean) * (wide(in[i]) - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(cols) + wide(a.eps));
    for (std::int64_t i = 0; i < cols; ++i) {
      const double y = (wide(in[i]) - mean) * scale * wide(w[i]);
      e.add(wide(out[i]), y + wide(b[i]), ulp_at<T>(std::fabs(y) + std::fabs(wide(b[i]))));
    }
  }
  t.cell("layer_norm, in ulp of \\|y - b\\| + \\|b\\|", e.text());
}

void sums(table& t, std::int64_t rows, std::int64_t cols) {
  t.column(std::to_string(cols));
  const auto x = normal<float>(rows * cols, 1, 10);
  auto sum = buffer<float>(rows), mean = buffer<float>(rows), results = buffer<float>(contract::row_blocks(cols));
  bi::reduce_args<float> a{.x = x.data(), .rows = rows, .cols = cols, .out = sum.data()};
  require(reference::reduce(a, bi::reduction::sum));
  a.out = mean.data();
  require(reference::reduce(a, bi::reduction::mean));
  unit_errors sum_error, mean_error, serial_error, squares_error;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* in = x.data() + r * cols;
    const float squares =
        contract::reduce_row(in, cols, 0.0f, contract::square_step{}, contract::add_step{}, results.data());
    float serial = 0;
    double exact = 0, magnitude = 0, exact_squares = 0;
    for (std::int64_t i = 0; i < cols; ++i) {
      serial = bi::add_rn(serial, in[i]);
      exact += wide(in[i]);
      magnitude += std::fabs(wide(in[i]));
      exact_squares += wide(in[i]) * wide(in[i]);
    }
    const double n = static_cast<double>(cols);
    sum_error.add(wide(sum.data()[r]), exact, 0x1p-24 * magnitude);
    mean_error.add(wide(mean.data()[r]), exact / n, 0x1p-24 * magnitude / n);
    serial_error.add(wide(serial), exact, 0x1p-24 * magnitude);
    squares_error.add(wide(squares), exact_squares, 0x1p-24 * exact_squares);
  }
  t.cell("sum, in 2^-24 * sum of \\|x\\|", sum_error.text());
  t.cell("mean, in 2^-24 * mean of \\|x\\|", mean_error.text());
  t.cell("a left-to-right sum, for comparison", serial_error.text());
  t.cell("sum of squares, relative, in 2^-24", squares_error.text());
}

template <class T>
void softmaxes(table& t, std::int64_t rows, std::int64_t cols, int deviation) {
  t.column(name_of<T>() + ", " + std::to_string(cols) + ", " + std::to_string(deviation));
  const auto x = normal<T>(rows * cols, static_cast<float>(deviation), 5);
  auto p = buffer<T>(rows * cols), log_p = p;
  auto lse = buffer<float>(rows);
  bi::softmax_args<T> a{.x = x.data(), .rows = rows, .cols = cols, .out = p.data()};
  require(reference::softmax(a));
  a.out = log_p.data();
  require(reference::log_softmax(a));
  bi::logsumexp_args<T> l{.x = x.data(), .rows = rows, .cols = cols, .out = lse.data()};
  require(reference::logsumexp(l));
  unit_errors p_error, log_error, scaled_log_error, lse_error;
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* in = x.data() + r * cols;
    double m = wide(in[0]), sum = 0;
    for (std::int64_t i = 0; i < cols; ++i) m = std::max(m, wide(in[i]));
    for (std::int64_t i = 0; i < cols; ++i) sum += std::exp(wide(in[i]) - m);
    for (std::int64_t i = 0; i < cols; ++i) {
      const double below = wide(in[i]) - m, exact = below - std::log(sum);
      p_error.add_ulp(p.data()[r * cols + i], std::exp(exact));
      log_error.add_ulp(log_p.data()[r * cols + i], exact);
      scaled_log_error.add(wide(log_p.data()[r * cols + i]), exact, ulp_at<T>(std::max(1.0, std::fabs(exact))));
    }
    lse_error.add_ulp(lse.data()[r], m + std::log(sum));
  }
  t.cell("softmax", p_error.text());
  t.cell("log_softmax", log_error.text());
  t.cell("log_softmax, in ulp of max(1, \\|y\\|)", scaled_log_error.text());
  t.cell("logsumexp (fp32 out)", lse_error.text());
}

// ---- elementwise

template <class T>
void elementwise(table& t) {
  t.column(name_of<T>());
  constexpr std::int64_t tokens = 4096, dim = 128, n = tokens * dim;
  const auto gate = normal<T>(n, 3, 20), up = normal<T>(n, 1, 21);
  const T *g = gate.data(), *u = up.data();
  auto result = buffer<T>(n);
  const T* out = result.data();

  bi::gate_mul_args<T> a{.gate = g, .up = u, .rows = tokens, .cols = dim, .out = result.data()};
  unit_errors silu, gelu, gelu_tanh, add, rope;
  require(reference::silu_mul(a));
  for (std::int64_t i = 0; i < n; ++i) silu.add_ulp(out[i], wide(g[i]) / (1 + std::exp(-wide(g[i]))) * wide(u[i]));
  require(reference::gelu_mul(a));
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = wide(g[i]), y = wide(u[i]);
    gelu.add(wide(out[i]), x / 2 * std::erfc(-x * std::sqrt(0.5)) * y, ulp_at<T>(x * y));
  }
  require(reference::gelu_tanh_mul(a));
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = wide(g[i]), y = wide(u[i]), inner = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
    gelu_tanh.add(wide(out[i]), x / (1 + std::exp(-2 * inner)) * y, ulp_at<T>(x * y));
  }

  bi::add_args<T> s{.x = g, .y = u, .rows = tokens, .cols = dim, .out = result.data()};
  require(reference::add(s));
  for (std::int64_t i = 0; i < n; ++i) add.add_ulp(out[i], wide(g[i]) + wide(u[i]));

  auto cos = buffer<float>(n / 2), sin = buffer<float>(n / 2);
  require(bi::make_rope_table(1e6, dim, tokens, cos.data(), sin.data()));
  auto position = buffer<std::int32_t>(tokens);
  for (std::int32_t i = 0; i < tokens; ++i) position.data()[i] = i;
  const bi::rope_table angles{.cos = cos.data(), .sin = sin.data(), .positions = tokens, .rotary_dim = dim};
  bi::rope_args<T> r{.x = u, .position = position.data(), .table = angles, .tokens = tokens, .heads = 1};
  r.head_dim = dim;
  r.out = result.data();
  require(reference::rope(r));
  for (std::int64_t i = 0; i < n / 2; ++i) {
    const std::int64_t p = i / (dim / 2) * dim + i % (dim / 2), q = p + dim / 2;
    const double c = wide(cos.data()[i]), d = wide(sin.data()[i]), x1 = wide(u[p]), x2 = wide(u[q]);
    rope.add(wide(out[p]), x1 * c - x2 * d, ulp_at<T>(std::fabs(x1 * c) + std::fabs(x2 * d)));
    rope.add(wide(out[q]), x2 * c + x1 * d, ulp_at<T>(std::fabs(x2 * c) + std::fabs(x1 * d)));
  }
  t.cell("silu_mul", silu.text());
  t.cell("gelu_mul, in ulp of \\|gate * up\\|", gelu.text());
  t.cell("gelu_tanh_mul, in ulp of \\|gate * up\\|", gelu_tanh.text());
  t.cell("add", add.text());
  t.cell("rope, in ulp of \\|x1 cos\\| + \\|x2 sin\\|", rope.text());
}

// ---- matrix products

constexpr std::int64_t gemm_m = 16, gemm_n = 256;

// What every form of the product is compared with; `chain` is one fp32 fma an element of k.
struct products {
  std::vector<double> exact = buffer<double>(gemm_m * gemm_n);
  std::vector<float> chain = buffer<float>(gemm_m * gemm_n);

  template <class T>
  products(const std::vector<T>& a, const std::vector<T>& b, std::int64_t k) {
    std::vector<float> wide_a, wide_b;
    for (const T x : a) wide_a.push_back(bi::to_f32(x));
    for (const T x : b) wide_b.push_back(bi::to_f32(x));
    reference::parallel_for(gemm_m * gemm_n, 0, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float *x = wide_a.data() + i / gemm_n * k, *y = wide_b.data() + i % gemm_n * k;
        double sum = 0;
        float chained = 0;
        for (std::int64_t j = 0; j < k; ++j) {
          sum += wide(x[j]) * wide(y[j]);
          chained = bi::fma_rn(x[j], y[j], chained);
        }
        exact.data()[i] = sum;
        chain.data()[i] = chained;
      }
    });
  }

  // Each exact value is compared with got(i).
  template <class Got>
  std::string error(Got&& got) const {
    relative_l2 e;
    for (std::size_t i = 0; i < exact.size(); ++i) e.add(wide(got(i)), exact[i]);
    return e.text();
  }
};

template <class T, class Out>
std::vector<Out> product(const std::vector<T>& a, const std::vector<T>& b, std::int64_t k, int slices) {
  auto d = buffer<Out>(gemm_m * gemm_n);
  bi::gemm_limits limits{.n = gemm_n, .k = k, .max_m = gemm_m, .slices = slices};
  bi::gemm_args<T, bi::epilogue::none, Out> args{.a = a.data(), .b = b.data(), .d = d.data(), .m = gemm_m};
  require(reference::gemm(limits, args));
  return d;
}

template <class T>
void gemms(table& t, std::int64_t k, bool positive) {
  auto a = normal<T>(gemm_m * k, 1, 30), b = normal<T>(gemm_n * k, 1, 31);
  if (positive) {
    for (T& x : a) x = bi::cvt_rn<T>(bi::abs(bi::to_f32(x)));
    for (T& x : b) x = bi::cvt_rn<T>(bi::abs(bi::to_f32(x)));
  }
  const products p(a, b, k);
  const std::string data = positive ? ", positive data" : "";
  if constexpr (std::is_same_v<T, float>) {
    auto d = buffer<float>(gemm_m * gemm_n);
    bi::gemm_f32_args args{.a = a.data(), .a_row_stride = k, .b = b.data(), .b_row_stride = k};
    args.m = gemm_m;
    args.n = gemm_n;
    args.k = k;
    args.d = d.data();
    require(reference::gemm_f32(args));
    t.cell("gemm_f32" + data, p.error([&](std::size_t i) { return d[i]; }));
    t.cell("an fp32 fma chain of fp32" + data, p.error([&](std::size_t i) { return p.chain[i]; }));
  } else {
    const auto one = product<T, float>(a, b, k, 1), sliced = product<T, float>(a, b, k, 0);
    const auto rounded = product<T, T>(a, b, k, 0);
    const std::string in = name_of<T>();
    t.cell(in + " to fp32, 1 slice" + data, p.error([&](std::size_t i) { return one[i]; }));
    t.cell(in + " to fp32, default slices" + data, p.error([&](std::size_t i) { return sliced[i]; }));
    t.cell("an fp32 fma chain of " + in + data, p.error([&](std::size_t i) { return p.chain[i]; }));
    if (positive) return;
    t.cell(in + " to " + in + ", default slices", p.error([&](std::size_t i) { return rounded[i]; }));
    t.cell("exact, rounded to " + in,
           p.error([&](std::size_t i) { return bi::cvt_rn<T>(static_cast<float>(p.exact[i])); }));
  }
}

// ---- attention

// 16 tokens of 4 query heads see all of `length` tokens of one KV head; v has deviation 1. q_deviation is that of the
// scores too.
template <class T>
void attentions(table& t, std::int64_t length, int q_deviation) {
  constexpr std::int64_t tokens = 16, heads = 4, dim = 128, rows = tokens * heads;
  const auto q = normal<T>(rows * dim, static_cast<float>(q_deviation), 40);
  const auto k = normal<T>(length * dim, 1, 41), v = normal<T>(length * dim, 1, 42);
  auto out = buffer<T>(rows * dim);
  auto lse = buffer<float>(rows);
  const std::int32_t page = 0, q_start[] = {0, tokens}, len = static_cast<std::int32_t>(length);
  bi::attention_args<T> a;
  a.q = q.data();
  a.cache = {.k = k.data(), .v = v.data(), .num_pages = 1, .page_size = length, .heads = 1, .head_dim = dim};
  a.view = bi::page_table{&page, 1};
  a.len = &len;
  a.q_start = q_start;
  a.requests = 1;
  a.rows = tokens;
  a.mask = bi::attention_mask::full;
  a.scale = bi::rsqrt_rn(static_cast<float>(dim));
  a.limits = {.max_requests = 1, .max_rows = tokens, .max_q_len = tokens, .max_view = length};
  a.limits.heads_q = heads;
  a.limits.heads_kv = 1;
  a.lse = lse.data();
  a.out = out.data();
  require(reference::attention(a));

  auto exact = buffer<double>(rows * dim), exact_lse = buffer<double>(rows);
  reference::parallel_for(rows, 0, [&](std::int64_t begin, std::int64_t end) {
    auto weight = buffer<double>(length);
    for (std::int64_t r = begin; r < end; ++r) {
      double m = -HUGE_VAL, sum = 0;
      for (std::int64_t j = 0; j < length; ++j) {
        double s = 0;
        for (std::int64_t d = 0; d < dim; ++d) s += wide(q.data()[r * dim + d]) * wide(k.data()[j * dim + d]);
        m = std::max(m, weight.data()[j] = s * wide(a.scale));
      }
      for (double& w : weight) sum += w = std::exp(w - m);
      double* o = exact.data() + r * dim;
      for (std::int64_t j = 0; j < length; ++j) {
        for (std::int64_t d = 0; d < dim; ++d) o[d] += weight.data()[j] / sum * wide(v.data()[j * dim + d]);
      }
      exact_lse.data()[r] = m + std::log(sum);
    }
  });

  relative_l2 error, rounding;
  unit_errors lse_error;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error.add(wide(out[i]), exact[i]);
    rounding.add(wide(bi::cvt_rn<T>(static_cast<float>(exact[i]))), exact[i]);
  }
  for (std::size_t r = 0; r < lse.size(); ++r) lse_error.add_ulp(lse[r], exact_lse[r]);
  const std::string setting = name_of<T>() + ", scores of deviation " + std::to_string(q_deviation);
  t.cell(setting, error.text());
  t.cell("exact, rounded: " + setting, rounding.text());
  t.cell("lse in fp32 ulp: " + setting, lse_error.text());
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_long = argc == 2 && std::strcmp(argv[1], "--long") == 0;
  if (argc > 1 && !is_long) {
    std::fprintf(stderr, "usage: accuracy [--long]\n");
    return 2;
  }
  const reference::fp_environment environment;

  table norm("### Norms: largest (mean) error in ulp", "operation");
  norms<bi::bf16>(norm, 64, 4096);
  norms<bi::fp16>(norm, 64, 4096);
  norms<float>(norm, 512, 128);
  norms<float>(norm, 64, 4096);
  norms<float>(norm, 16, 16384);
  norm.print();

  table sum("### Sums in fp32: largest (mean) error by columns", "operation");
  sums(sum, 200, 4096);
  sums(sum, 200, 7168);
  sums(sum, 50, 131072);
  sums(sum, 10, 1048576);
  sum.print();

  table softmax("### Softmax: largest (mean) error in ulp by type, columns, deviation of x", "operation");
  for (const int deviation : {1, 4, 10}) softmaxes<float>(softmax, 64, 4096, deviation);
  for (const int deviation : {1, 4, 10}) softmaxes<float>(softmax, 4, 151936, deviation);
  softmaxes<bi::bf16>(softmax, 4, 151936, 4);
  softmax.print();

  table element("## Elementwise: largest (mean) error in ulp", "operation");
  elementwise<bi::bf16>(element);
  elementwise<bi::fp16>(element);
  elementwise<float>(element);
  element.print();

  table gemm("## Matrix products: relative L2 error by k", "product");
  for (const std::int64_t k : {512, 4096, 12288}) {
    gemm.column(std::to_string(k));
    for (const bool positive : {false, true}) {
      gemms<bi::bf16>(gemm, k, positive);
      gemms<bi::fp16>(gemm, k, positive);
      gemms<float>(gemm, k, positive);
    }
  }
  gemm.print();

  table attention("## Attention: relative L2 error by tokens", "setting");
  for (const std::int64_t length : {1024, 16384, 131072}) {
    if (length > 16384 && !is_long) break;
    attention.column(std::to_string(length));
    for (const int deviation : {1, 4}) attentions<bi::bf16>(attention, length, deviation);
    attentions<bi::fp16>(attention, length, 1);
  }
  attention.print();
  return 0;
}
