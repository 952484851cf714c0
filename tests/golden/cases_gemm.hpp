// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

#include "support/backend.hpp"
#include "support/ops_gemm.hpp"

namespace test {

struct gemm_case {
  std::int64_t m, n, k;
  int slices;
  bi::weight_layout layout = bi::weight_layout::nk;
  values kind = values::normal;
  std::int64_t pad = 0;     // added to every leading dimension
  std::int64_t offset = 0;  // elements before A and B, to misalign them
  std::int64_t batch = 1;
  float alpha = 1.0f;
};

inline std::string to_string(const gemm_case& c) {
  return "m=" + std::to_string(c.m) + ",n=" + std::to_string(c.n) + ",k=" + std::to_string(c.k) +
         ",slices=" + std::to_string(c.slices) + (c.layout == bi::weight_layout::kn ? ",kn" : "") +
         ",values=" + std::to_string(static_cast<int>(c.kind)) + (c.pad != 0 ? ",pad=" + std::to_string(c.pad) : "") +
         (c.offset != 0 ? ",offset=" + std::to_string(c.offset) : "") +
         (c.batch != 1 ? ",batch=" + std::to_string(c.batch) : "") + (c.alpha != 1.0f ? ",alpha" : "");
}

template <class T, class Epilogue, class Out>
struct prepared_gemm {
  gemm_call<T, Epilogue, Out> call;
  Out* d;
  std::int64_t d_size;
};
template <class T, class Epilogue, class Out, class Backend>
prepared_gemm<T, Epilogue, Out> prepare_gemm(Backend& b, const gemm_case& c, std::uint64_t seed) {
  const bool nk = c.layout == bi::weight_layout::nk;
  const std::int64_t lda = c.k + c.pad, ldb = (nk ? c.k : c.n) + c.pad, b_rows = nk ? c.n : c.k;
  const std::int64_t d_cols = Epilogue::has_gate ? c.n / 2 : c.n, ldd = d_cols + c.pad, ldr = c.n + c.pad;
  gemm_call<T, Epilogue, Out> call;
  call.limits = {c.n, c.k, c.m, c.slices, c.layout};
  auto& a = call.args;
  a.a = b.input(random_vector<T>(c.batch * c.m * lda + c.offset, c.kind, seed)) + c.offset;
  a.b = b.input(random_vector<T>(c.batch * b_rows * ldb + c.offset, c.kind, seed + 1)) + c.offset;
  a.lda = lda;
  a.ldb = ldb;
  if constexpr (Epilogue::has_bias) a.bias = b.input(random_vector<T>(c.n, values::normal, seed + 2));
  if constexpr (Epilogue::has_residual) {
    a.residual = b.input(random_vector<T>(c.batch * c.m * ldr, values::normal, seed + 3));
    a.ldr = ldr;
  }
  Out* d = b.template output<Out>(c.batch * c.m * ldd);
  a.d = d;
  a.ldd = ldd;
  a.m = c.m;
  a.batch = c.batch;
  a.alpha = c.alpha;
  return {call, d, c.batch * c.m * ldd};
}
// D as stored, padding included: what the operation may not write must stay poisoned.
template <class T, class Epilogue, class Out, class Backend>
std::vector<Out> run_gemm(Backend& b, const gemm_case& c, std::uint64_t seed = 1) {
  const auto prepared = prepare_gemm<T, Epilogue, Out>(b, c, seed);
  b.run(gemm_op{}, prepared.call);
  return b.read(prepared.d);
}

struct gemm_f32_case {
  std::int64_t m, n, k;
  bool transposed;  // A and B are stored column by column
  values kind = values::normal;
};

template <class Backend>
std::vector<float> run_gemm_f32(Backend& b, const gemm_f32_case& c, std::uint64_t seed = 1) {
  bi::gemm_f32_args a;
  a.m = c.m, a.n = c.n, a.k = c.k;
  a.a = b.input(random_vector<float>(c.m * c.k, c.kind, seed));
  a.b = b.input(random_vector<float>(c.n * c.k, c.kind, seed + 1));
  a.a_row_stride = c.transposed ? 1 : c.k, a.a_col_stride = c.transposed ? c.m : 1;
  a.b_row_stride = c.transposed ? 1 : c.k, a.b_col_stride = c.transposed ? c.n : 1;
  float* d = b.template output<float>(c.m * c.n);
  a.d = d;
  b.run(gemm_f32_op{}, a);
  return b.read(d);
}

template <class Backend, class Sink>
void golden_gemm(Backend& b, Sink&& sink) {
  const auto emit = [&](const std::string& name, std::uint64_t contract, const auto& out) {
    sink(golden_entry{name, contract, digest_of(out), static_cast<std::int64_t>(out.size())});
    b.clear();
  };
  const auto both = [&](const gemm_case& c) {
    const bi::contract::gemm_v1<bi::bf16> nb{c.slices};
    const bi::contract::gemm_v1<bi::fp16> nf{c.slices};
    using none = bi::epilogue::none;
    emit("gemm/bf16/none/" + to_string(c), nb.id(), run_gemm<bi::bf16, none, bi::bf16>(b, c));
    emit("gemm/fp16/none/" + to_string(c), nf.id(), run_gemm<bi::fp16, none, bi::fp16>(b, c));
    emit("gemm/bf16/f32/" + to_string(c), nb.id(), run_gemm<bi::bf16, none, float>(b, c));
    emit("gemm/fp16/f32/" + to_string(c), nf.id(), run_gemm<bi::fp16, none, float>(b, c));
  };
  for (const values kind : all_values) both({5, 33, 150, 1, bi::weight_layout::nk, kind});
  for (const int slices : {2, 4, 8}) both({17, 70, 1000, slices, bi::weight_layout::nk, values::normal, 3, 1});
  both({9, 40, 77, 1, bi::weight_layout::kn, values::wide, 5, 1, 2, 0.37f});
  const gemm_case c{12, 64, 520, 2, bi::weight_layout::nk};
  const auto bf = [&](auto epilogue, const char* name) {
    emit(std::string("gemm/bf16/") + name + "/" + to_string(c), bi::contract::gemm_v1<bi::bf16>{c.slices}.id(),
         run_gemm<bi::bf16, decltype(epilogue), bi::bf16>(b, c));
  };
  bf(bi::epilogue::bias{}, "bias");
  bf(bi::epilogue::residual{}, "residual");
  bf(bi::epilogue::bias_residual{}, "bias_residual");
  bf(bi::epilogue::silu_gate{}, "silu_gate");
  bf(bi::epilogue::bias_silu_gate{}, "bias_silu_gate");
  for (const values kind : {values::normal, values::subnormal, values::hostile}) {
    for (const bool transposed : {false, true}) {
      const gemm_f32_case f{7, 20, 2100, transposed, kind};
      emit("gemm_f32/" + std::string(transposed ? "transposed" : "plain") +
               "/values=" + std::to_string(static_cast<int>(kind)),
           bi::contract::gemm_f32_draft::id(), run_gemm_f32(b, f));
    }
  }
}

}  // namespace test
