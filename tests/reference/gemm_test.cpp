// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/reference/gemm.hpp"

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bi/activation.hpp"
#include "bi/gemm.hpp"
#include "bi/reference/activation.hpp"
#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace {

using bi::bf16;
using bi::fp16;
using bi::weight_layout;
namespace epilogue = bi::epilogue;
namespace reference = bi::reference;
using test::values;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// One problem in memory, with gaps of NaN between rows and entries.
template <class T, class Epilogue, class Out>
struct problem {
  bi::gemm_limits limits;
  bi::gemm_args<T, Epilogue, Out> args;
  std::vector<T> a, b, bias, residual;
  std::vector<Out> d;

  problem(std::int64_t m, std::int64_t n, std::int64_t k, int slices, weight_layout layout = weight_layout::nk,
          values kind = values::normal, std::int64_t gap = 0, std::int64_t batch = 1) {
    const std::int64_t b_rows = layout == weight_layout::nk ? n : k, b_cols = layout == weight_layout::nk ? k : n;
    const std::int64_t d_cols = Epilogue::has_gate ? n / 2 : n;
    limits.n = n;
    limits.k = k;
    limits.max_m = m + 3;
    limits.slices = slices;
    limits.layout = layout;
    args.m = m;
    args.batch = batch;
    if (gap != 0) {
      args.lda = k + gap;
      args.ldb = b_cols + gap + 2;
      args.ldr = n + gap + 4;
      args.ldd = d_cols + gap + 6;
      args.a_batch_stride = m * args.lda + 5;
      args.b_batch_stride = b_rows * args.ldb + 7;
      args.residual_batch_stride = m * args.ldr + 9;
      args.d_batch_stride = m * args.ldd + 11;
    }
    a = matrix(batch, m, k, args.lda, args.a_batch_stride, kind, 1);
    b = matrix(batch, b_rows, b_cols, args.ldb, args.b_batch_stride, kind, 2);
    residual = matrix(batch, m, n, args.ldr, args.residual_batch_stride, kind, 3);
    bias = test::random_vector<T>(n, kind, 4);
    d = test::poisoned<Out>(batch * (m * (d_cols + gap + 6) + 11));
    args.a = a.data();
    args.b = b.data();
    args.d = d.data();
    if (Epilogue::has_bias) args.bias = bias.data();
    if (Epilogue::has_residual) args.residual = residual.data();
  }

  problem(const problem&) = delete;  // args point into the vectors
  problem& operator=(const problem&) = delete;

  std::int64_t or_else(std::int64_t stride, std::int64_t dense) const { return stride != 0 ? stride : dense; }
  T a_at(std::int64_t e, std::int64_t r, std::int64_t i) const {
    const std::int64_t ld = or_else(args.lda, limits.k);
    return a[at(e * or_else(args.a_batch_stride, args.m * ld) + r * ld + i)];
  }
  T b_at(std::int64_t e, std::int64_t i, std::int64_t c) const {
    const bool nk = limits.layout == weight_layout::nk;
    const std::int64_t ld = or_else(args.ldb, nk ? limits.k : limits.n);
    const std::int64_t entry = or_else(args.b_batch_stride, (nk ? limits.n : limits.k) * ld);
    return b[at(e * entry + (nk ? c * ld + i : i * ld + c))];
  }
  T residual_at(std::int64_t e, std::int64_t r, std::int64_t c) const {
    const std::int64_t ld = or_else(args.ldr, limits.n);
    return residual[at(e * or_else(args.residual_batch_stride, args.m * ld) + r * ld + c)];
  }
  std::size_t d_place(std::int64_t e, std::int64_t r, std::int64_t c) const {
    const std::int64_t ld = or_else(args.ldd, Epilogue::has_gate ? limits.n / 2 : limits.n);
    return at(e * or_else(args.d_batch_stride, args.m * ld) + r * ld + c);
  }

 private:
  static std::vector<T> matrix(std::int64_t batch, std::int64_t rows, std::int64_t cols, std::int64_t ld,
                               std::int64_t batch_stride, values kind, std::uint64_t seed) {
    if (ld == 0) ld = cols;
    if (batch_stride == 0) batch_stride = rows * ld;
    std::vector<T> out(at(batch * batch_stride), T{0x7fff});
    const auto data = test::random_vector<T>(batch * rows * cols, kind, seed);
    for (std::int64_t e = 0; e < batch; ++e) {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < cols; ++c)
          out[at(e * batch_stride + r * ld + c)] = data[at((e * rows + r) * cols + c)];
      }
    }
    return out;
  }
};

// One root, by the contract's words: slices from the last to the first, exact steps, the tree level by level.
template <class P>
float root(const P& p, std::int64_t e, std::int64_t r, std::int64_t c, int slices) {
  using T = std::remove_cv_t<std::remove_reference_t<decltype(p.a[0])>>;
  const std::int64_t k = p.limits.k, length = (k + 64 * slices - 1) / (64 * slices) * 64;
  std::vector<float> partial(at(slices));
  for (int s = slices - 1; s >= 0; --s) {
    float acc = 0.0f;
    for (std::int64_t step = s * length; step < (s + 1) * length && step < k; step += 16) {
      T x[16] = {}, y[16] = {};
      for (std::int64_t i = step; i < step + 16 && i < k; ++i) {
        x[i - step] = p.a_at(e, r, i);
        y[i - step] = p.b_at(e, i, c);
      }
      acc = reference::mma_step_exact(acc, x, y);
    }
    partial[at(s)] = acc;
  }
  for (std::size_t distance = 1; distance < partial.size(); distance *= 2) {
    for (std::size_t i = 0; i < partial.size(); i += 2 * distance) {
      partial[i] = bi::add_rn(partial[i], partial[i + distance]);
    }
  }
  return partial[0];
}

// What D must hold, gaps included.
template <class T, class Epilogue, class Out>
std::vector<Out> expected(const problem<T, Epilogue, Out>& p, int slices) {
  std::vector<Out> d = test::poisoned<Out>(static_cast<std::int64_t>(p.d.size()));
  for (std::int64_t e = p.args.batch - 1; e >= 0; --e) {
    for (std::int64_t c = 0; c < p.limits.n; ++c) {
      for (std::int64_t r = p.args.m - 1; r >= 0; --r) {
        float v = root(p, e, r, c, slices);
        if (bi::bits_of(p.args.alpha) != 0x3f800000u) v = bi::mul_rn(v, p.args.alpha);
        if (Epilogue::has_bias) v = bi::add_rn(v, bi::to_f32(p.bias[at(c)]));
        Out out = bi::cvt_rn<Out>(v);
        if (Epilogue::has_residual) {
          out = bi::cvt_rn<Out>(bi::add_rn(bi::to_f32(out), bi::to_f32(p.residual_at(e, r, c))));
        }
        if (!Epilogue::has_gate) {
          d[p.d_place(e, r, c)] = out;
        } else if (c % 2 == 0) {
          d[p.d_place(e, r, c / 2)] = out;
        } else {
          const Out gate = d[p.d_place(e, r, c / 2)];
          d[p.d_place(e, r, c / 2)] = bi::cvt_rn<Out>(bi::mul_rn(bi::silu(bi::to_f32(gate)), bi::to_f32(out)));
        }
      }
    }
  }
  return d;
}

template <class P>
void run(P& p, int threads = 2) {
  const bi::status st = reference::gemm(p.limits, p.args, threads);
  INFO(bi::describe(st));
  REQUIRE(static_cast<bool>(st));
}

template <class T, class Epilogue, class Out>
void compare(problem<T, Epilogue, Out>&& p) {
  run(p);
  const reference::fp_environment environment;
  INFO(bi::dtype_traits<T>::name << " m " << p.args.m << " n " << p.limits.n << " k " << p.limits.k << " slices "
                                 << p.limits.slices);
  CHECK(test::difference(p.d, expected(p, bi::resolved_slices(p.limits))) == "");
}

TEST_CASE("gemm equals steps taken one by one, in another order", "[gemm]") {
  struct shape {
    std::int64_t m, n, k;
  };
  for (const shape s : {shape{1, 1, 1}, {3, 34, 100}, {2, 66, 257}, {67, 3, 64}, {2, 5, 1100}, {1, 33, 640}}) {
    for (const int slices : {0, 1, 2, 4, 8}) {
      for (const weight_layout layout : {weight_layout::nk, weight_layout::kn}) {
        compare(problem<bf16, epilogue::none, bf16>(s.m, s.n, s.k, slices, layout));
        compare(problem<fp16, epilogue::none, float>(s.m, s.n, s.k, slices, layout, values::cancelling, 3));
      }
    }
  }
}

TEST_CASE("gemm keeps the contract for hostile values", "[gemm]") {
  for (const values kind : test::all_values) {
    compare(problem<bf16, epilogue::none, float>(5, 37, 300, 4, weight_layout::nk, kind));
    compare(problem<fp16, epilogue::bias, fp16>(5, 37, 300, 2, weight_layout::kn, kind));
    compare(problem<bf16, epilogue::bias_residual, bf16>(4, 34, 70, 1, weight_layout::nk, kind, 1));
  }
}

template <class T, class Epilogue>
void every_form() {
  for (const float alpha : {1.0f, -0.7f}) {
    for (const std::int64_t gap : {0, 5}) {
      problem<T, Epilogue, T> narrow(4, 38, 150, 2, weight_layout::nk, values::normal, gap, 3);
      narrow.args.alpha = alpha;
      compare(std::move(narrow));
      problem<T, Epilogue, float> wide(3, 36, 90, 1, weight_layout::kn, values::ties, gap, 2);
      wide.args.alpha = alpha;
      compare(std::move(wide));
    }
  }
}

TEST_CASE("every epilogue, dense and with gaps, one product and a batch", "[gemm]") {
  every_form<bf16, epilogue::none>();
  every_form<bf16, epilogue::bias>();
  every_form<bf16, epilogue::residual>();
  every_form<bf16, epilogue::bias_residual>();
  every_form<bf16, epilogue::silu_gate>();
  every_form<bf16, epilogue::bias_silu_gate>();
  every_form<fp16, epilogue::bias_residual>();
  every_form<fp16, epilogue::bias_silu_gate>();
}

// ---- fusion is a schedule

template <class T>
void fused_residual(values kind) {
  problem<T, epilogue::bias, T> plain(6, 70, 200, 2, weight_layout::nk, kind);
  problem<T, epilogue::bias_residual, T> fused(6, 70, 200, 2, weight_layout::nk, kind);
  run(plain);
  bi::add_args<T> add;
  add.x = plain.d.data();
  add.y = plain.residual.data();
  add.out = plain.d.data();
  add.rows = 6;
  add.cols = 70;
  REQUIRE(static_cast<bool>(reference::add(add)));
  // In place: the residual is the output.
  fused.d.assign(fused.residual.begin(), fused.residual.end());
  fused.d.resize(plain.d.size(), test::poisoned<T>(1)[0]);
  fused.args.residual = fused.d.data();
  fused.args.d = fused.d.data();
  run(fused);
  CHECK(test::difference(fused.d, plain.d) == "");
}

template <class T>
void fused_gate(values kind) {
  problem<T, epilogue::bias, T> plain(6, 70, 200, 2, weight_layout::nk, kind);
  problem<T, epilogue::bias_silu_gate, T> fused(6, 70, 200, 2, weight_layout::nk, kind);
  run(plain);
  run(fused);
  std::vector<T> out(6 * 35);
  bi::gate_mul_args<T> gate;
  gate.gate = plain.d.data();
  gate.up = plain.d.data() + 1;
  gate.column_step = 2;
  gate.rows = 6;
  gate.cols = 35;
  gate.out = out.data();
  REQUIRE(static_cast<bool>(reference::silu_mul(gate)));
  CHECK(test::difference(fused.d.data(), out.data(), 6 * 35) == "");
}

TEST_CASE("a fused epilogue gives the bytes of the separate calls", "[gemm]") {
  for (const values kind : test::all_values) {
    fused_residual<bf16>(kind);
    fused_residual<fp16>(kind);
    fused_gate<bf16>(kind);
    fused_gate<fp16>(kind);
  }
}

// ---- invariance

TEST_CASE("a row's bytes depend on that row alone", "[gemm]") {
  constexpr std::int64_t n = 65, k = 700;
  // Of fp32: rounding to 16 bits would hide another order of the sums.
  problem<bf16, epilogue::bias, float> all(130, n, k, 4);
  run(all, 1);
  for (const std::int64_t row : {0, 63, 64, 65, 129}) {
    for (const std::int64_t m : {1, 2, 65}) {
      // The row stands last, its neighbours are hostile.
      problem<bf16, epilogue::bias, float> few(m, n, k, 4);
      few.a = test::random_vector<bf16>(m * k, values::hostile, 9);
      std::copy(all.a.begin() + row * k, all.a.begin() + (row + 1) * k, few.a.begin() + (m - 1) * k);
      few.args.a = few.a.data();
      run(few, 2);
      CHECK(test::difference(few.d.data() + (m - 1) * n, all.d.data() + row * n, n) == "");
    }
  }
}

TEST_CASE("slices chosen by m would be seen", "[gemm]") {
  problem<bf16, epilogue::none, float> one(4, 64, 2048, 1), two(4, 64, 2048, 2), eight(4, 64, 2048, 8);
  run(one);
  run(two);
  run(eight);
  const auto differing = [&](const std::vector<float>& x, const std::vector<float>& y) {
    int count = 0;
    for (std::size_t i = 0; i < 256; ++i) count += bi::bits_of(x[i]) != bi::bits_of(y[i]) ? 1 : 0;
    return count;
  };
  CHECK(differing(one.d, two.d) > 100);
  CHECK(differing(two.d, eight.d) > 100);
}

// ---- tensor parallelism

template <class T, class Epilogue>
void tensor_parallel(values kind) {
  constexpr std::int64_t m = 3, n = 70, k = 2048;
  constexpr int slices = 8;
  problem<T, Epilogue, T> whole(m, n, k, slices, weight_layout::nk, kind);
  whole.args.alpha = 0.5f;
  run(whole);
  for (const int ranks : {1, 2, 4, 8}) {
    std::vector<float> partial(at(ranks * m * n));
    for (int rank = ranks - 1; rank >= 0; --rank) {
      bi::gemm_limits limits = whole.limits;
      limits.k = k / ranks;
      limits.slices = bi::contract::rank_slices(slices, ranks, rank).count;
      bi::gemm_args<T, epilogue::partial, float> args;
      args.a = whole.a.data() + k / ranks * rank;
      args.lda = k;
      args.b = whole.b.data() + k / ranks * rank;
      args.ldb = k;
      args.m = m;
      args.d = partial.data() + rank * m * n;
      const bi::status st = reference::gemm(limits, args);
      INFO(bi::describe(st));
      REQUIRE(static_cast<bool>(st));
    }
    auto d = test::poisoned<T>(static_cast<std::int64_t>(whole.d.size()));
    bi::gemm_finish_args<T, Epilogue> finish;
    finish.partial = partial.data();
    finish.ranks = ranks;
    finish.bias = whole.args.bias;
    finish.residual = whole.args.residual;
    finish.alpha = 0.5f;
    finish.d = d.data();
    finish.m = m;
    finish.n = n;
    const bi::status st = reference::gemm_finish(finish);
    INFO(bi::describe(st));
    REQUIRE(static_cast<bool>(st));
    CHECK(test::difference(d, whole.d) == "");
  }
}

TEST_CASE("tensor parallelism of degree 1, 2, 4 and 8 gives equal bytes", "[gemm]") {
  for (const values kind : {values::normal, values::wide, values::hostile}) {
    tensor_parallel<bf16, epilogue::none>(kind);
    tensor_parallel<bf16, epilogue::bias_residual>(kind);
    tensor_parallel<fp16, epilogue::bias_silu_gate>(kind);
  }
}

// ---- sizes of zero

TEST_CASE("k = 0 is the epilogue of +0, m, n or batch = 0 writes nothing", "[gemm]") {
  for (const weight_layout layout : {weight_layout::nk, weight_layout::kn}) {
    for (const int slices : {0, 1, 8}) {
      problem<bf16, epilogue::none, bf16> p(3, 40, 0, slices, layout);
      p.args.a = p.args.b = nullptr;
      run(p);
      for (std::size_t i = 0; i < 120; ++i) CHECK(p.d[i].bits == 0);
      compare(problem<bf16, epilogue::bias_residual, bf16>(3, 40, 0, slices, layout, values::ties, 2, 2));
      compare(problem<bf16, epilogue::none, bf16>(0, 40, 50, slices, layout));
      compare(problem<bf16, epilogue::none, bf16>(4, 0, 50, slices, layout));
      compare(problem<bf16, epilogue::silu_gate, bf16>(4, 0, 50, slices, layout));
      compare(problem<bf16, epilogue::none, bf16>(4, 8, 50, slices, layout, values::normal, 0, 0));
    }
  }
  bi::gemm_args<bf16> nothing;
  CHECK(static_cast<bool>(reference::gemm(bi::gemm_limits{}, nothing)));
  CHECK(static_cast<bool>(reference::gemm_finish(bi::gemm_finish_args<bf16>{})));
  CHECK(static_cast<bool>(reference::gemm_f32(bi::gemm_f32_args{})));
}

// ---- bad arguments

template <class Change>
std::string refusal(Change change) {
  problem<bf16, epilogue::bias_residual, bf16> p(4, 40, 50, 1, weight_layout::nk, values::normal, 2, 2);
  change(p);
  const bi::status st = reference::gemm(p.limits, p.args);
  CHECK_FALSE(static_cast<bool>(st));
  CHECK(test::difference(p.d, test::poisoned<bf16>(static_cast<std::int64_t>(p.d.size()))) == "");
  return bi::describe(st);
}

TEST_CASE("gemm refuses bad arguments by name and writes nothing", "[gemm]") {
  CHECK(refusal([](auto& p) { p.args.lda = 49; }) == "gemm: lda = 49 must be at least k = 50");
  CHECK(refusal([](auto& p) { p.args.lda = -1; }) == "gemm: lda = -1 must be at least k = 50");
  CHECK(refusal([](auto& p) { p.args.ldb = 3; }) == "gemm: ldb = 3 must be at least k = 50");
  CHECK(refusal([](auto& p) { p.args.ldr = 39; }) == "gemm: ldr = 39 must be at least n = 40");
  CHECK(refusal([](auto& p) { p.args.ldd = 39; }) == "gemm: ldd = 39 must be at least n = 40");
  CHECK(refusal([](auto& p) { p.args.m = 8; }) == "gemm: m = 8 must be at most max_m = 7");
  CHECK(refusal([](auto& p) { p.args.m = -1; }) == "gemm: m = -1 must be at least 0");
  CHECK(refusal([](auto& p) { p.args.batch = -1; }) == "gemm: batch = -1 must be at least 0");
  CHECK(refusal([](auto& p) { p.args.d_batch_stride = 100; }) ==
        "gemm: d_batch_stride = 100 must be at least the width of one entry = 184");
  CHECK(refusal([](auto& p) { p.args.a_batch_stride = INT64_MAX / 2; }) ==
        "gemm: a_batch_stride = 4611686018427387903 makes offsets that overflow 64 bits");
  CHECK(refusal([](auto& p) { p.limits.slices = 3; }) ==
        "gemm: slices = 3 is not supported; supported: 0 (default), 1, 2, 4, 8");
  CHECK(refusal([](auto& p) { p.limits.k = -5; }) == "gemm: k = -5 must be at least 0");
  CHECK(refusal([](auto& p) { p.args.alpha = bi::nan_f32(); }) == "gemm: alpha = nan must be finite");
  CHECK(refusal([](auto& p) { p.args.a = nullptr; }) == "gemm: a is null");
  CHECK(refusal([](auto& p) { p.args.bias = nullptr; }) == "gemm: bias is null");
  CHECK(refusal([](auto& p) { p.args.residual = nullptr; }) == "gemm: residual is null");
  CHECK(refusal([](auto& p) { p.args.d = nullptr; }) == "gemm: d is null");
  CHECK(refusal([](auto& p) { p.args.residual = p.args.d; }) == "gemm: d overlaps residual");  // ldr is not ldd
  CHECK(refusal([](auto& p) { p.args.bias = p.args.d + 3; }) == "gemm: d overlaps bias");
}

TEST_CASE("shards must be whole slices", "[gemm]") {
  using partial = epilogue::partial;
  bi::gemm_limits limits;
  limits.n = 64;
  limits.k = 512;
  limits.max_m = 1;
  limits.slices = 8;
  CHECK(static_cast<bool>(bi::check_limits<partial>(limits)));
  limits.k = 512 + 64;
  CHECK(bi::describe(bi::check_limits<partial>(limits)) == "gemm: k = 576 must be a multiple of 64 * slices = 512");
  limits.slices = 0;
  CHECK(bi::describe(bi::check_limits<partial>(limits)) ==
        "gemm: slices = 0 is not supported; supported: 1, 2, 4, 8 (a shard has no default)");
  limits.slices = 1;
  bi::gemm_args<bf16, partial, float> args;
  args.alpha = 2.0f;
  CHECK(bi::describe(bi::check(limits, args)) == "gemm: alpha = 2 must be 1 for partial results");
  limits.n = 63;
  CHECK(bi::describe(bi::check_limits<epilogue::silu_gate>(limits)) == "gemm: n = 63 must be a multiple of 2");

  bi::gemm_finish_args<bf16> finish;
  finish.ranks = 3;
  CHECK(bi::describe(bi::check(finish)) == "gemm_finish: ranks = 3 is not supported; supported: 1, 2, 4, 8");
}

TEST_CASE("a plan resolves its slices and keeps what is wrong", "[gemm]") {
  bi::gemm_limits limits;
  limits.n = 512;
  limits.k = 4096;
  limits.max_m = 16;
  const auto plan = bi::gemm<bf16>::prepare(limits);
  CHECK(static_cast<bool>(plan.prepared()));
  CHECK(plan.limits().slices == 4);
  CHECK(plan.numerics().id() == bi::contract::gemm_v1<bf16>{4}.id());
  limits.slices = 5;
  CHECK_FALSE(static_cast<bool>(bi::gemm<bf16>::prepare(limits).prepared()));
}

// ---- fp32

TEST_CASE("gemm_f32: chains of 1024, folded left to right, any strides", "[gemm]") {
  const reference::fp_environment environment;
  for (const std::int64_t k : {0, 1, 7, 1024, 1025, 2500}) {
    for (const values kind : test::all_values) {
      constexpr std::int64_t m = 3, n = 5;
      // A is stored transposed, B backwards.
      const auto a = test::random_vector<float>(k * m + 1, kind, 1), b = test::random_vector<float>(k * n + 1, kind, 2);
      auto d = test::poisoned<float>(m * 7), e = d;
      bi::gemm_f32_args args;
      args.a = a.data();
      args.a_row_stride = 1;
      args.a_col_stride = m;
      args.b = b.data() + (k * n > 0 ? k * n - 1 : 0);
      args.b_row_stride = -k;
      args.b_col_stride = -1;
      args.m = m;
      args.n = n;
      args.k = k;
      args.d = d.data();
      args.d_row_stride = 7;
      REQUIRE(static_cast<bool>(reference::gemm_f32(args)));
      for (std::int64_t r = 0; r < m; ++r) {
        for (std::int64_t c = 0; c < n; ++c) {
          std::vector<float> chains;
          for (std::int64_t i = 0; i < k; ++i) {
            if (i % 1024 == 0) chains.push_back(0.0f);
            chains.back() = bi::fma_rn(a[at(i * m + r)], b[at(k * n - 1 - c * k - i)], chains.back());
          }
          float total = chains.empty() ? 0.0f : chains[0];
          for (std::size_t s = 1; s < chains.size(); ++s) total = bi::add_rn(total, chains[s]);
          e[at(r * 7 + c)] = total;
        }
      }
      CHECK(test::difference(d, e) == "");
    }
  }
}

TEST_CASE("gemm_f32 refuses bad arguments", "[gemm]") {
  std::vector<float> x(100);
  bi::gemm_f32_args args;
  args.a = x.data();
  args.b = x.data() + 20;
  args.d = x.data() + 40;
  args.m = args.n = args.k = 4;
  args.a_row_stride = args.b_row_stride = 4;
  CHECK(static_cast<bool>(bi::check(args)));
  const auto with = [&](auto change) {
    bi::gemm_f32_args changed = args;
    change(changed);
    return bi::describe(bi::check(changed));
  };
  CHECK(with([](auto& g) { g.k = -1; }) == "gemm_f32: k = -1 must be at least 0");
  CHECK(with([](auto& g) { g.b = nullptr; }) == "gemm_f32: b is null");
  CHECK(with([](auto& g) { g.d_row_stride = 3; }) == "gemm_f32: d_row_stride = 3 must be at least n = 4");
  CHECK(with([](auto& g) { g.a_row_stride = 13; }) == "gemm_f32: d overlaps a");
  CHECK(with([](auto& g) { g.b = g.d + 16 + 12, g.b_row_stride = -4; }) == "ok");
  CHECK(with([](auto& g) { g.b = g.d + 16 + 11, g.b_row_stride = -4; }) == "gemm_f32: d overlaps b");
  CHECK(with([](auto& g) { g.a_row_stride = INT64_MAX / 2; }) ==
        "gemm_f32: a_row_stride = 4611686018427387903 makes offsets that overflow 64 bits");
  CHECK(with([](auto& g) { g.b_col_stride = INT64_MIN; }) ==
        "gemm_f32: b_col_stride = -9223372036854775808 makes offsets that overflow 64 bits");
}

}  // namespace
