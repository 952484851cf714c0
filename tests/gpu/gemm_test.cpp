// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bi/gemm.hpp"
#include "bi/schedule/gemm.hpp"
#include "golden/cases_gemm.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/manifest_gemm.hpp"

using bi::bf16;
using bi::fp16;
using bi::weight_layout;
using test::values;

namespace {

// Bytes of the GPU against those of the reference; returns how many outputs were compared.
template <class T, class Epilogue, class Out>
std::int64_t compare(const test::gemm_case& c, std::uint64_t seed) {
  test::host_backend host;
  test::gpu_backend gpu;
  const auto expected = test::run_gemm<T, Epilogue, Out>(host, c, seed);
  const auto got = test::run_gemm<T, Epilogue, Out>(gpu, c, seed);
  gpu.clear();
  INFO(test::to_string(c));
  CHECK(test::difference(got, expected) == "");
  return static_cast<std::int64_t>(expected.size());
}

// D of a plain bf16 product with the given A rows.
std::vector<bf16> product(test::gpu_backend& gpu, const bf16* a, std::int64_t m, const bf16* b, std::int64_t n,
                          std::int64_t k, int slices) {
  test::gemm_call<bf16, bi::epilogue::none, bf16> call;
  call.limits = {n, k, m, slices};
  bf16* d = gpu.output<bf16>(m * n);
  call.args.a = a;
  call.args.b = b;
  call.args.d = d;
  call.args.m = m;
  gpu.run(test::gemm_op{}, call);
  return gpu.read(d);
}

}  // namespace

TEST_CASE("gemm: GPU bytes equal the reference's", "[gpu]") {
  using none = bi::epilogue::none;
  std::int64_t outputs = 0;
  std::uint64_t seed = 1;
  for (const values kind : test::all_values) {
    for (const weight_layout layout : {weight_layout::nk, weight_layout::kn}) {
      for (const int slices : {1, 2, 4, 8}) {
        // Tails in every direction; aligned and misaligned; both tile heights.
        outputs += compare<bf16, none, bf16>({70, 136, 1032, slices, layout, kind}, seed++);
        outputs += compare<fp16, none, fp16>({16, 136, 1032, slices, layout, kind}, seed++);
        outputs += compare<bf16, none, float>({67, 77, 531, slices, layout, kind, 3, 1}, seed++);
        outputs += compare<fp16, none, float>({9, 77, 531, slices, layout, kind, 1, 1, 3}, seed++);
      }
    }
  }
  for (const std::int64_t k : {0, 1, 2, 3, 15, 16, 17, 63, 64, 65}) {
    outputs += compare<bf16, none, bf16>({33, 40, k, 1, weight_layout::nk, values::normal, 1}, seed++);
    outputs += compare<bf16, none, bf16>({33, 40, k, 8, weight_layout::kn, values::normal}, seed++);
  }
  CHECK(outputs >= 300000);
}

TEST_CASE("gemm: every epilogue equals the reference's", "[gpu]") {
  std::uint64_t seed = 100;
  for (const int slices : {1, 4}) {
    for (const std::int64_t m : {5, 80}) {
      for (const float alpha : {1.0f, 0.37f}) {
        test::gemm_case c{m, 98, 600, slices, weight_layout::nk, values::normal, 2, 0, 2};
        c.alpha = alpha;
        compare<bf16, bi::epilogue::bias, bf16>(c, seed++);
        compare<bf16, bi::epilogue::residual, bf16>(c, seed++);
        compare<bf16, bi::epilogue::bias_residual, bf16>(c, seed++);
        compare<fp16, bi::epilogue::bias_residual, fp16>(c, seed++);
        compare<bf16, bi::epilogue::silu_gate, bf16>(c, seed++);
        compare<bf16, bi::epilogue::bias_silu_gate, bf16>(c, seed++);
      }
    }
  }
}

namespace {

// Every schedule's bytes are the reference's.
template <class T, class Epilogue, class Out>
void force(const test::gemm_case& c) {
  if (test::small_run() && c.m > 70 && c.batch == 1) return;
  bi::schedule::gemm_problem p;
  p.m = c.m, p.n = c.n, p.k = c.k, p.batch = c.batch, p.slices = c.slices;
  p.kn = c.layout == weight_layout::kn;
  p.aligned = true;
  test::host_backend host;
  const auto expected = test::run_gemm<T, Epilogue, Out>(host, c, 31);
  test::gpu_backend gpu;
  const auto g = test::prepare_gemm<T, Epilogue, Out>(gpu, c, 31);
  const auto op = bi::gemm<T, Epilogue, Out>::prepare(g.call.limits);
  for (const auto& entry : test::manifest({test::gemm_operation<T>()}, test::gemm_schedules(p))) {
    INFO(to_string(entry) << ": " << test::to_string(c));
    gpu.poison(g.d, g.d_size);
    REQUIRE(bi::describe(op.launch_with(entry.schedule, g.call.args, {}, gpu.stream())) == "ok");
    REQUIRE(test::difference(gpu.read(g.d), expected) == "");
  }
  gpu.clear();
}

}  // namespace

TEST_CASE("gemm: every schedule gives the reference's bytes", "[gpu]") {
  using none = bi::epilogue::none;
  for (const int slices : {1, 2, 4, 8}) {
    for (const std::int64_t m : {1, 20, 70, 130, 300}) force<bf16, none, bf16>({m, 328, 1096, slices});
    force<bf16, none, bf16>({130, 131, 648, slices, weight_layout::nk, values::hostile, 8});
    force<bf16, none, bf16>({40, 200, 1000, slices, weight_layout::nk, values::wide, 0, 0, 3});  // a batch
    force<bf16, none, float>({150, 137, 520, slices});
    force<bf16, none, float>({150, 328, 520, slices});
    force<fp16, none, fp16>({90, 264, 1032, slices, weight_layout::nk, values::cancelling});
    force<bf16, none, bf16>({140, 328, 712, slices, weight_layout::kn});
    force<fp16, none, fp16>({9, 72, 712, slices, weight_layout::kn, values::hostile});
  }
  // Fewer k than slices have room for: empty slices.
  for (const std::int64_t k : {8, 64, 136, 200}) force<bf16, none, bf16>({33, 72, k, 8});
}

TEST_CASE("gemm: every epilogue of every schedule gives the reference's bytes", "[gpu]") {
  for (const int slices : {1, 2, 4}) {
    for (const std::int64_t m : {7, 140}) {
      test::gemm_case c{m, 264, 584, slices};
      force<bf16, bi::epilogue::bias, bf16>(c);
      force<bf16, bi::epilogue::residual, bf16>(c);
      force<bf16, bi::epilogue::silu_gate, bf16>(c);
      c.alpha = 0.37f;
      force<fp16, bi::epilogue::bias_residual, fp16>(c);
      c.pad = 8;
      force<bf16, bi::epilogue::bias_silu_gate, bf16>(c);
      force<bf16, bi::epilogue::bias_residual, bf16>({m, 131, 584, slices});  // D's rows are not aligned
    }
    force<bf16, bi::epilogue::partial, float>({50, 100, 1024, slices});
  }
}

TEST_CASE("gemm: a schedule that the arguments don't allow is an error", "[gpu]") {
  test::gpu_backend gpu;
  test::gemm_call<bf16, bi::epilogue::none, bf16> call;
  call.limits = {64, 64, 64, 1};
  call.args.a = call.args.b = gpu.input(test::random_vector<bf16>(64 * 64, values::normal, 1));
  bf16* d = gpu.output<bf16>(64 * 64);
  call.args.d = d;
  call.args.m = 64;
  bi::schedule::gemm_schedule s;
  s.kernel = bi::schedule::gemm_kernel::wgmma;
  s.block_m = 100, s.blocks = 1;
  const auto op = bi::gemm<bf16>::prepare(call.limits);
  CHECK(bi::describe(op.launch_with(s, call.args, {}, gpu.stream())).find("schedule.block_m = 100") !=
        std::string::npos);
  CHECK(test::difference(gpu.read(d), test::poisoned<bf16>(64 * 64)) == "");
  gpu.clear();
}

TEST_CASE("gemm: weights that the kernel before writes", "[gpu]") {
  // The second product's B is the first one's D, which is late: without b_is_constant no weight may be read before.
  const std::int64_t m = 5, n = 264, k = 512, depth = 8192;
  test::gpu_backend gpu;
  const auto a1 = test::random_vector<bf16>(n * depth, values::normal, 1);
  const auto b1 = test::random_vector<bf16>(k * depth, values::normal, 2);
  const auto a2 = test::random_vector<bf16>(m * k, values::normal, 3);
  bf16 *weights = gpu.output<bf16>(n * k), *d = gpu.output<bf16>(m * n);
  const auto first = bi::gemm<bf16>::prepare({k, depth, n, 1}), second = bi::gemm<bf16>::prepare({n, k, m, 1});
  bi::gemm_args<bf16> x, y;
  x.a = gpu.input(a1), x.b = gpu.input(b1), x.d = weights, x.m = n;
  y.a = gpu.input(a2), y.b = weights, y.d = d, y.m = m;
  std::vector<bf16> host_weights(static_cast<std::size_t>(n * k)), expected(static_cast<std::size_t>(m * n));
  bi::gemm_args<bf16> hx = x, hy = y;
  hx.a = a1.data(), hx.b = b1.data(), hx.d = host_weights.data();
  hy.a = a2.data(), hy.b = host_weights.data(), hy.d = expected.data();
  REQUIRE(bi::describe(bi::reference::gemm(first.limits(), hx)) == "ok");
  REQUIRE(bi::describe(bi::reference::gemm(second.limits(), hy)) == "ok");
  // With another product between them the weights are not the kernel before's: b_is_constant may be said, and the kernel
  // between must not let the second start before the first is over.
  const auto between = bi::gemm<bf16>::prepare({n, k, m, 1});
  bi::gemm_args<bf16> z = y;
  z.b = gpu.input(test::random_vector<bf16>(n * k, values::normal, 4));
  z.d = gpu.output<bf16>(m * n);
  z.b_is_constant = true;
  for (int i = 0; i < 40; ++i) {
    gpu.poison(weights, n * k);
    gpu.poison(d, m * n);
    REQUIRE(bi::describe(first(x, {}, gpu.stream())) == "ok");
    y.b_is_constant = i % 2 == 1;
    if (y.b_is_constant) REQUIRE(bi::describe(between(z, {}, gpu.stream())) == "ok");
    REQUIRE(bi::describe(second(y, {}, gpu.stream())) == "ok");
    REQUIRE(test::difference(gpu.read(d), expected) == "");
  }
  gpu.clear();
}

TEST_CASE("gemm: a row alone equals the row in batches of 1..300", "[gpu]") {
  const std::int64_t n = 264, k = 1096, most = 300;
  for (const int slices : {1, 2, 4, 8}) {
    test::gpu_backend gpu;
    const auto rows = test::random_vector<bf16>(most * k, values::normal, 7);
    const bf16* a = gpu.input(rows);
    const bf16* b = gpu.input(test::random_vector<bf16>(n * k, values::normal, 8));
    std::vector<bf16> alone;
    for (std::int64_t r = 0; r < most; ++r) {
      const auto d = product(gpu, a + r * k, 1, b, n, k, slices);
      alone.insert(alone.end(), d.begin(), d.end());
    }
    for (std::int64_t m = 1; m <= most; ++m) {
      INFO("m = " << m);
      const auto d = product(gpu, a, m, b, n, k, slices);
      REQUIRE(test::difference(d.data(), alone.data(), m * n) == "");
      // The same rows at other places: the batch that ends with the last row.
      const auto last = product(gpu, a + (most - m) * k, m, b, n, k, slices);
      REQUIRE(test::difference(last.data(), alone.data() + (most - m) * n, m * n) == "");
    }
    // Control: slices that follow m, as a split-K heuristic chooses them, change bits.
    const auto split = product(gpu, a, most, b, n, k, slices == 1 ? 4 : 1);
    CHECK(test::difference(split.data(), alone.data(), most * n) != "");
    gpu.clear();
  }
}

TEST_CASE("gemm: shards of k, one after another, equal the whole", "[gpu]") {
  const std::int64_t m = 40, n = 64, k = 2048;
  test::gpu_backend gpu;
  const bf16* a = gpu.input(test::random_vector<bf16>(m * k, values::normal, 3));
  const bf16* b = gpu.input(test::random_vector<bf16>(n * k, values::normal, 4));
  const auto whole = product(gpu, a, m, b, n, k, 8);
  for (const int ranks : {1, 2, 4, 8}) {
    float* partial = gpu.output<float>(ranks * m * n);
    for (int rank = 0; rank < ranks; ++rank) {
      test::gemm_call<bf16, bi::epilogue::partial, float> call;
      call.limits = {n, k / ranks, m, bi::contract::rank_slices(8, ranks, rank).count};
      call.args.a = a + rank * (k / ranks);
      call.args.lda = k;
      call.args.b = b + rank * (k / ranks);
      call.args.ldb = k;
      call.args.d = partial + rank * m * n;
      call.args.m = m;
      gpu.run(test::gemm_op{}, call);
    }
    bi::gemm_finish_args<bf16> finish;
    finish.partial = partial;
    finish.ranks = ranks;
    finish.m = m;
    finish.n = n;
    bf16* d = gpu.output<bf16>(m * n);
    finish.d = d;
    gpu.run(test::gemm_finish_op{}, finish);
    INFO("ranks = " << ranks);
    CHECK(test::difference(gpu.read(d), whole) == "");
  }
  // Control: the roots of halves that are not subtrees (one slice each) give other bits.
  CHECK(test::difference(product(gpu, a, m, b, n, k, 2), whole) != "");
  // A shard that cuts a slice is refused.
  const auto odd = bi::gemm<bf16, bi::epilogue::partial, float>::prepare({n, 1000, m, 4});
  CHECK(bi::describe(odd.prepared()) == "gemm: k = 1000 must be a multiple of 64 * slices = 256");
  gpu.clear();
}

TEST_CASE("gemm: 50 replays of a graph over changed inputs", "[gpu]") {
  const std::int64_t m = 19, n = 130, k = 700;
  test::gpu_backend gpu;
  const bi::gemm_limits limits{n, k, m, 4};
  const auto op = bi::gemm<bf16>::prepare(limits);
  bf16* a = gpu.output<bf16>(m * k);
  const auto weights = test::random_vector<bf16>(n * k, values::normal, 5);
  const bf16* b = gpu.input(weights);
  bf16* d = gpu.output<bf16>(m * n);
  bi::gemm_args<bf16> args;
  args.a = a;
  args.b = b;
  args.d = d;
  args.m = m;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeGlobal));
  const bi::status st = op(args, {}, gpu.stream());
  BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
  REQUIRE(bi::describe(st) == "ok");
  BI_REQUIRE_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  for (std::uint64_t i = 0; i < 50; ++i) {
    const auto x = test::random_vector<bf16>(m * k, i % 5 == 4 ? values::hostile : values::normal, 1000 + i);
    gpu.write(a, x);
    gpu.poison(d, m * n);
    BI_REQUIRE_CUDA(cudaGraphLaunch(exec, gpu.stream()));
    std::vector<bf16> expected(static_cast<std::size_t>(m * n));
    bi::gemm_args<bf16> host;
    host.a = x.data();
    host.b = weights.data();
    host.d = expected.data();
    host.m = m;
    REQUIRE(bi::describe(bi::reference::gemm(limits, host)) == "ok");
    REQUIRE(test::difference(gpu.read(d), expected) == "");
  }
  BI_REQUIRE_CUDA(cudaGraphExecDestroy(exec));
  BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
  gpu.clear();
}

TEST_CASE("gemm: bad input launches nothing", "[gpu]") {
  test::gpu_backend gpu;
  const bf16* a = gpu.input(test::random_vector<bf16>(64, values::normal, 1));
  bf16* d = gpu.output<bf16>(64);
  bi::gemm_args<bf16> args;
  args.a = a;
  args.b = a;
  args.d = d;
  args.m = 4;
  args.lda = 4;
  const auto op = bi::gemm<bf16>::prepare({8, 8, 8, 1});
  CHECK(bi::describe(op(args, {}, gpu.stream())) == "gemm: lda = 4 must be at least k = 8");
  args.lda = 8;
  args.m = 9;
  CHECK(bi::describe(op(args, {}, gpu.stream())) == "gemm: m = 9 must be at most max_m = 8");
  args.m = 0;
  args.a = nullptr;
  CHECK(bi::describe(op(args, {}, gpu.stream())) == "ok");
  CHECK(test::difference(gpu.read(d), test::poisoned<bf16>(64)) == "");
  gpu.clear();
}

TEST_CASE("gemm_f32: GPU bytes equal the reference's", "[gpu]") {
  std::uint64_t seed = 1;
  std::int64_t outputs = 0;
  for (const values kind : test::all_values) {
    for (const bool transposed : {false, true}) {
      for (const std::int64_t k : {0, 1, 17, 1023, 1024, 1025, 2500}) {
        test::host_backend host;
        test::gpu_backend gpu;
        const test::gemm_f32_case c{37, 45, k, transposed, kind};
        const auto expected = test::run_gemm_f32(host, c, seed);
        INFO("k = " << k << ", transposed = " << transposed << ", values = " << static_cast<int>(kind));
        CHECK(test::difference(test::run_gemm_f32(gpu, c, seed), expected) == "");
        outputs += c.m * c.n;
        ++seed;
        gpu.clear();
      }
    }
  }
  CHECK(outputs >= 100000);
}

TEST_CASE("gemm_f32: a row alone equals the row in a batch", "[gpu]") {
  const std::int64_t m = 70, n = 33, k = 2050;
  test::gpu_backend gpu;
  const float* a = gpu.input(test::random_vector<float>(m * k, values::normal, 1));
  const float* b = gpu.input(test::random_vector<float>(n * k, values::normal, 2));
  const auto run = [&](std::int64_t first, std::int64_t rows) {
    bi::gemm_f32_args args;
    args.a = a + first * k;
    args.a_row_stride = k;
    args.b = b;
    args.b_row_stride = k;
    args.m = rows, args.n = n, args.k = k;
    float* d = gpu.output<float>(rows * n);
    args.d = d;
    gpu.run(test::gemm_f32_op{}, args);
    return gpu.read(d);
  };
  const auto all = run(0, m);
  for (std::int64_t r = 0; r < m; ++r) CHECK(test::difference(run(r, 1).data(), all.data() + r * n, n) == "");
  gpu.clear();
}
