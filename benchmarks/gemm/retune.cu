// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times every legal schedule of the matrix products asked for, and cuBLASLt beside them; checks that all schedules give
// the same bytes. Prints one JSON object a line. The figures in bi/schedule/gemm.hpp come from this program.
//
//   retune [--slices S] [--quick] N K M [M...]  [/ N K M...]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bi/gemm.cuh"
#include "bi/launch_gemm.cuh"
#include "cublaslt.hpp"
#include "data.cuh"
#include "timing.hpp"

namespace {

using T = bi::bf16;
using bi::schedule::gemm_schedule;

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::vector<std::int64_t>> shapes(1);
  int slices = 0;
  bool quick = false;
  const char* only = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--slices") == 0) slices = std::atoi(argv[++i]);
    else if (std::strcmp(argv[i], "--quick") == 0) quick = true;
    else if (std::strcmp(argv[i], "--only") == 0) only = argv[++i];
    else if (std::strcmp(argv[i], "/") == 0) shapes.emplace_back();
    else shapes.back().push_back(std::atoll(argv[i]));
  }
  cudaStream_t stream;
  BENCH_REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  void* workspace = nullptr;
  constexpr std::size_t workspace_bytes = 64 << 20;
  BENCH_REQUIRE(cudaMalloc(&workspace, workspace_bytes));
  unsigned long long* differences = nullptr;
  BENCH_REQUIRE(cudaMallocManaged(&differences, sizeof *differences));
  int wrong = 0;
  for (const auto& shape : shapes) {
    const std::int64_t n = shape.at(0), k = shape.at(1);
    const std::int64_t max_m = *std::max_element(shape.begin() + 2, shape.end());
    // Weights take turns, 200 MB and more of them.
    const std::int64_t weight_bytes = n * k * 2, copies = std::max<std::int64_t>(2, 200000000 / weight_bytes + 1);
    T *a, *b, *d, *expected;
    BENCH_REQUIRE(cudaMalloc(&a, max_m * k * 2));
    BENCH_REQUIRE(cudaMalloc(&b, copies * weight_bytes));
    BENCH_REQUIRE(cudaMalloc(&d, max_m * n * 2));
    BENCH_REQUIRE(cudaMalloc(&expected, max_m * n * 2));
    bench::fill_normal(a, max_m * k, 1, 1.0f, stream);
    bench::fill_normal(b, copies * n * k, 2, 0.02f, stream);
    for (std::size_t im = 2; im < shape.size(); ++im) {
      const std::int64_t m = shape[im];
      const int s = slices != 0 ? slices : bi::contract::default_slices(n, k);
      const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
      const double guess_us = std::max(flops / 7e8, static_cast<double>(weight_bytes) / 2.5e6);
      std::int64_t launches = std::max<std::int64_t>(copies, static_cast<std::int64_t>(200.0 / guess_us));
      if (guess_us > 300) launches = 2;
      const int replays = quick ? 3 : 7;
      bi::kernel::gemm_params<T, T> p = {};
      p.a = a, p.b = b, p.d = d;
      p.lda = p.ldb = k, p.ldd = n;
      p.m = m, p.n = n, p.k = k, p.batch = 1, p.slices = s, p.alpha = 1.0f, p.a_aligned = p.b_aligned = p.d_pairs = true;
      const auto launch = [&](const gemm_schedule& choice) {
        const bi::status st =
            bi::launch_detail::gemm_with<T, bi::epilogue::none, T, false>(p, choice, true, stream);
        if (!st) throw std::runtime_error(bi::describe(st));
      };
      p.d = expected;
      launch(bi::schedule::pick_gemm_schedule({m, n, k, 1, s}, {}));  // the generic kernel
      p.d = d;
      const auto line = [&](const char* name, double us, const char* more) {
        std::printf("{\"n\": %lld, \"k\": %lld, \"m\": %lld, \"slices\": %d, \"name\": \"%s\", \"us\": %.3f%s}\n",
                    static_cast<long long>(n), static_cast<long long>(k), static_cast<long long>(m), s, name, us, more);
      };
      const auto peer = [&](const char* name, std::size_t bytes, int most) {
        const bench::cublaslt_product<T> product(m, n, k, bytes, most);
        double best = 1e30;
        for (int algorithm = 0; algorithm < product.algorithms(); ++algorithm) {
          const bench::graph g(stream, [&] {
            for (std::int64_t i = 0; i < launches; ++i)
              product.run(algorithm, a, b + i % copies * n * k, d, workspace, stream);
          });
          best = std::min(best, bench::median_us(stream, {&g}, replays)[0] / static_cast<double>(launches));
        }
        line(name, best, "");
      };
      peer("cublaslt", workspace_bytes, 1);
      peer("cublaslt_nows", 0, 1);
      if (!quick) peer("cublaslt_best8", workspace_bytes, 8);
      const bi::schedule::gemm_problem problem{m, n, k, 1, s, false, true};
      bi::schedule::for_each_gemm_schedule(problem, {}, [&](const gemm_schedule& candidate) {
        if (only != nullptr && bi::schedule::to_string(candidate).find(only) == std::string::npos) return;
        // Not those that must lose: far too many or too few tokens in a tile.
        if (candidate.weights_first && (candidate.block_m >= 2 * std::max<std::int64_t>(m, 8) ||
                                        (m > 8 * candidate.block_m) || (m > 512))) return;
        if (!candidate.weights_first && m < 48) return;
        if (candidate.cluster_m > 1 && m <= candidate.block_m) return;
        if (candidate.weights_first && candidate.block_m < 32 && candidate.cluster_n > 1) return;
        for (const bool programmatic : {true, false}) {
          if (!programmatic && (m > 64 || quick)) continue;
          gemm_schedule choice = candidate;
          choice.programmatic = programmatic;
          BENCH_REQUIRE(cudaMemsetAsync(d, 0x7f, m * n * 2, stream));
          p.b = b;
          launch(choice);
          *differences = 0;
          BENCH_REQUIRE(cudaStreamSynchronize(stream));
          bench::count_differences(d, expected, m * n, differences, stream);
          const cudaError_t code = cudaStreamSynchronize(stream);
          if (code != cudaSuccess) {
            std::printf("FAILED %s: %s\n", bi::schedule::to_string(choice).c_str(), cudaGetErrorString(code));
            std::exit(1);
          }
          if (*differences != 0) {
            std::printf("WRONG m=%lld n=%lld k=%lld slices=%d %s: %llu of %lld\n", static_cast<long long>(m),
                        static_cast<long long>(n), static_cast<long long>(k), s,
                        bi::schedule::to_string(choice).c_str(), *differences, static_cast<long long>(m * n));
            if (++wrong > 40) std::exit(1);
            continue;
          }
          const bench::graph g(stream, [&] {
            for (std::int64_t i = 0; i < launches; ++i) {
              p.b = b + i % copies * n * k;
              launch(choice);
            }
          });
          p.b = b;
          char more[400];
          std::snprintf(more, sizeof more,
                        ", \"weights_first\": %d, \"block_m\": %d, \"block_n\": %d, \"cluster_m\": %d, \"cluster_n\": %d, "
                        "\"cluster_k\": %d, \"group\": %d, \"programmatic\": %d, \"residents\": %d, \"blocks\": %d",
                        choice.weights_first, choice.block_m, choice.block_n, choice.cluster_m, choice.cluster_n,
                        choice.cluster_k, choice.group, choice.programmatic, choice.residents,
                        static_cast<int>(choice.blocks));
          line("bi", bench::median_us(stream, {&g}, replays)[0] / static_cast<double>(launches), more);
        }
      });
      std::fflush(stdout);
    }
    BENCH_REQUIRE(cudaStreamSynchronize(stream));
    (void)cudaFree(a), (void)cudaFree(b), (void)cudaFree(d), (void)cudaFree(expected);
  }
  std::printf("%d wrong\n", wrong);
  return wrong != 0;
}
