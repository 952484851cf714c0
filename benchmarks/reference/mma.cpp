// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/reference/mma.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "bi/gemm.hpp"
#include "bi/reference/fp_env.hpp"
#include "bi/reference/gemm.hpp"
#include "tests/support/data.hpp"

// How fast the tensor-core model runs: items are k16 steps of one output element.

namespace {

namespace reference = bi::reference;
constexpr std::int64_t depth = 1024, steps = depth / reference::mma_depth;

template <class T>
void exact(benchmark::State& state) {
  const reference::fp_environment environment;
  const auto a = test::random_vector<T>(depth, test::values::normal, 1);
  const auto b = test::random_vector<T>(depth, test::values::normal, 2);
  float c = 0.0f;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < depth; i += 16) c = reference::mma_step_exact(c, a.data() + i, b.data() + i);
    benchmark::DoNotOptimize(c);
  }
  state.SetItemsProcessed(state.iterations() * steps);
}

template <class T, bool Widest>
void chain(benchmark::State& state) {
  const reference::fp_environment environment;
  const auto a = test::random_vector<T>(depth, test::values::normal, 1);
  const auto b = test::random_vector<T>(32 * depth, test::values::normal, 2);
  std::vector<reference::mma_row_block> row(steps);
  std::vector<reference::mma_panel_block> panel(steps);
  reference::mma_pack_row<T>(row.data(), depth, [&](std::int64_t i) { return a[static_cast<std::size_t>(i)]; });
  reference::mma_pack_panel<T>(panel.data(), depth, 32,
                               [&](std::int64_t i, int j) { return b[static_cast<std::size_t>(j * depth + i)]; });
  for (auto _ : state) {
    float c[32] = {};
    reference::mma_chain<T>(c, row.data(), panel.data(), steps, Widest);
    benchmark::DoNotOptimize(c);
  }
  state.SetItemsProcessed(state.iterations() * steps * 32);
}

template <class T>
void pack_panel(benchmark::State& state) {
  const auto b = test::random_vector<T>(32 * depth, test::values::normal, 2);
  std::vector<reference::mma_panel_block> panel(steps);
  for (auto _ : state) {
    reference::mma_pack_panel<T>(panel.data(), depth, 32,
                                 [&](std::int64_t i, int j) { return b[static_cast<std::size_t>(j * depth + i)]; });
    benchmark::DoNotOptimize(panel.data());
  }
  state.SetItemsProcessed(state.iterations() * steps * 32);
}

// One thread; n = 1024, k = 1024, m the argument.
void gemm(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = 1024;
  const auto a = test::random_vector<bi::bf16>(m * depth, test::values::normal, 1);
  const auto b = test::random_vector<bi::bf16>(n * depth, test::values::normal, 2);
  std::vector<bi::bf16> d(static_cast<std::size_t>(m * n));
  bi::gemm_limits limits;
  limits.n = n;
  limits.k = depth;
  limits.max_m = m;
  bi::gemm_args<bi::bf16> args;
  args.a = a.data();
  args.b = b.data();
  args.d = d.data();
  args.m = m;
  for (auto _ : state) {
    if (!reference::gemm(limits, args, 1)) state.SkipWithError("gemm failed");
    benchmark::DoNotOptimize(d.data());
  }
  state.SetItemsProcessed(state.iterations() * m * n * steps);
}

BENCHMARK_TEMPLATE(exact, bi::bf16);
BENCHMARK_TEMPLATE(exact, bi::fp16);
BENCHMARK_TEMPLATE(chain, bi::bf16, true);
BENCHMARK_TEMPLATE(chain, bi::fp16, true);
BENCHMARK_TEMPLATE(chain, bi::bf16, false);  // baseline x86-64
BENCHMARK_TEMPLATE(pack_panel, bi::bf16);
BENCHMARK_TEMPLATE(pack_panel, bi::fp16);
BENCHMARK(gemm)->Arg(1)->Arg(8)->Arg(64);

}  // namespace
