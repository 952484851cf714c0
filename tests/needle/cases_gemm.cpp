// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/schedule/gemm.hpp"
#include "needle/build.hpp"
#include "support/manifest_gemm.hpp"
#include "support/ops_gemm.hpp"

namespace test {

template <class T, class Epilogue, class Out>
bi::status launch_with(const gemm_op&, const gemm_call<T, Epilogue, Out>& c, const bi::schedule::gemm_schedule& s,
                       bi::cuda_stream stream) {
  return bi::gemm<T, Epilogue, Out>::prepare(c.limits).launch_with(s, c.args, {}, stream);
}

}  // namespace test

namespace test::needle {
namespace {

using bi::weight_layout;

template <class T, class Epilogue, class Out>
void add_gemm(case_list& all, const char* epilogue, const bi::gemm_limits& limits, float alpha = 1.0f) {
  const auto make = [limits, alpha](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("a", limits.k, seed)};
    if (Epilogue::has_residual) t.in.push_back(values_column<T>("residual", limits.n, seed + 3));
    t.shared = {shared_values<T>(limits.n * limits.k, seed + 1), shared_values<T>(limits.n, seed + 2)};
    t.out = {output_column<Out>("d", Epilogue::has_gate ? limits.n / 2 : limits.n)};
    bi::schedule::gemm_problem p;
    p.n = limits.n, p.k = limits.k, p.slices = limits.slices;
    p.kn = limits.layout == weight_layout::kn;
    p.aligned = limits.k % 8 == 0 && (!p.kn || limits.n % 8 == 0);
    const auto of_rows = [p](std::int64_t rows) {
      bi::schedule::gemm_problem of = p;
      of.m = rows;
      return of;
    };
    const auto schedules = [of_rows](const call& c) { return gemm_schedules(of_rows(c.rows)); };
    bind<gemm_op>(t, schedules, [limits, alpha](const call& c) {
      gemm_call<T, Epilogue, Out> g;
      g.limits = limits;
      g.args.a = c.input<T>(0), g.args.lda = c.input_stride<T>(0);
      g.args.b = c.array<T>(0);
      if constexpr (Epilogue::has_bias) g.args.bias = c.array<T>(1);
      if constexpr (Epilogue::has_residual) g.args.residual = c.input<T>(1), g.args.ldr = c.input_stride<T>(1);
      g.args.d = c.output<Out>(0), g.args.ldd = c.output_stride<Out>(0);
      g.args.m = c.rows;
      g.args.alpha = alpha;
      return g;
    });
    set_schedule(t, [of_rows](std::int64_t rows) {
      return bi::schedule::pick_gemm_schedule(of_rows(rows), {132, true});
    });
    return t;
  };
  all.push_back({"gemm", bi::contract::gemm_v1<T>::name, type_name<T>() + "-" + type_name<Out>(),
                 std::string(epilogue) + ",n=" + std::to_string(limits.n) + ",k=" + std::to_string(limits.k) +
                     ",slices=" + std::to_string(limits.slices) + (limits.layout == weight_layout::kn ? ",kn" : ""),
                 make});
}

bi::gemm_limits limits_of(std::int64_t n, std::int64_t k, int slices, weight_layout layout = weight_layout::nk) {
  return {n, k, std::int64_t{1} << 20, slices, layout};
}

// Shards of k, one after another.
template <class T>
void add_finish(case_list& all, std::int64_t n, int ranks) {
  const auto make = [n, ranks](std::uint64_t seed) {
    table t;
    for (int r = 0; r < ranks; ++r) {
      t.in.push_back(values_column<float>("partial", n, seed + static_cast<std::uint64_t>(r)));
    }
    t.out = {output_column<T>("d", n)};
    bind<gemm_finish_op>(t, [n, ranks](const call& c) {
      bi::gemm_finish_args<T> a;
      a.partial = c.input<float>(0), a.ldp = c.input_stride<float>(0);
      a.partial_rank_stride = c.input<float>(1) - c.input<float>(0);
      a.ranks = ranks, a.m = c.rows, a.n = n;
      a.d = c.output<T>(0), a.ldd = c.output_stride<T>(0);
      return a;
    });
    return t;
  };
  all.push_back({"gemm_finish", bi::contract::gemm_v1<T>::name, type_name<T>(),
                 "n=" + std::to_string(n) + ",ranks=" + std::to_string(ranks), make});
}

void add_f32(case_list& all, std::int64_t n, std::int64_t k) {
  const auto make = [n, k](std::uint64_t seed) {
    table t;
    t.in = {values_column<float>("a", k, seed)};
    t.shared = {shared_values<float>(n * k, seed + 1)};
    t.out = {output_column<float>("d", n)};
    bind<gemm_f32_op>(t, [n, k](const call& c) {
      bi::gemm_f32_args a;
      a.a = c.input<float>(0), a.a_row_stride = c.input_stride<float>(0);
      a.b = c.array<float>(0), a.b_row_stride = k;
      a.m = c.rows, a.n = n, a.k = k;
      a.d = c.output<float>(0), a.d_row_stride = c.output_stride<float>(0);
      return a;
    });
    return t;
  };
  all.push_back({"gemm_f32", bi::contract::gemm_f32_draft::name, "f32",
                 "n=" + std::to_string(n) + ",k=" + std::to_string(k), make});
}

}  // namespace

void add_gemm_cases(case_list& all) {
  using bi::bf16;
  using bi::fp16;
  namespace e = bi::epilogue;
  for (const int slices : {1, 2, 4, 8}) {
    add_gemm<bf16, e::none, bf16>(all, "none", limits_of(264, 1096, slices));
    add_gemm<fp16, e::none, fp16>(all, "none", limits_of(264, 520, slices));
  }
  add_gemm<bf16, e::none, bf16>(all, "none", limits_of(136, 520, 2, weight_layout::kn));
  add_gemm<bf16, e::none, bf16>(all, "none", limits_of(77, 331, 2));
  add_gemm<fp16, e::none, fp16>(all, "none", limits_of(72, 264, 1, weight_layout::kn));
  add_gemm<bf16, e::none, float>(all, "none", limits_of(136, 520, 2));
  add_gemm<fp16, e::none, float>(all, "none", limits_of(136, 520, 1));
  add_gemm<bf16, e::partial, float>(all, "partial", limits_of(100, 512, 2));
  add_gemm<bf16, e::bias, bf16>(all, "bias", limits_of(136, 328, 2), 0.37f);
  add_gemm<bf16, e::residual, bf16>(all, "residual", limits_of(136, 328, 1));
  add_gemm<bf16, e::bias_residual, bf16>(all, "bias_residual", limits_of(136, 328, 4));
  add_gemm<fp16, e::bias_residual, fp16>(all, "bias_residual", limits_of(136, 328, 1));
  add_gemm<bf16, e::silu_gate, bf16>(all, "silu_gate", limits_of(264, 328, 2));
  add_gemm<bf16, e::bias_silu_gate, bf16>(all, "bias_silu_gate", limits_of(264, 328, 1));
  add_finish<bf16>(all, 131, 2);
  add_finish<fp16>(all, 136, 4);
  add_f32(all, 33, 1100);
}

}  // namespace test::needle
