// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times every legal schedule of the matrix products asked for, and cuBLASLt beside them; compares the bytes of each with
// the generic kernel's. Prints one JSON object a line. The constants of bi/schedule/gemm.hpp's model come from it.
//
//   retune [--slices S] [--quick] [--only TEXT] N K M [M...] [/ N K M [M...]]...
//
// --slices: not the default ones. --quick: fewer replays, launches as bi would only, and only the peer's first algorithm.
// --only: schedules whose text contains TEXT.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/timing.hpp"
#include "bi/gemm.hpp"
#include "bi/schedule/gemm.hpp"
#include "cublaslt.hpp"
#include "shapes.hpp"

namespace {

using T = bi::bf16;
using bi::schedule::gemm_schedule;

struct options {
  int slices = 0;
  bool quick = false;
  std::string only;
  std::vector<std::vector<std::int64_t>> shapes{1};  // N, K, then each M
};

options parse(int argc, char** argv) {
  options o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] {
      if (++i == argc) throw std::invalid_argument(word + " needs a value");
      return argv[i];
    };
    if (word == "--slices") {
      o.slices = std::atoi(value());
    } else if (word == "--quick") {
      o.quick = true;
    } else if (word == "--only") {
      o.only = value();
    } else if (word == "/") {
      o.shapes.emplace_back();
    } else {
      const std::int64_t number = std::atoll(word.c_str());
      if (number < 1) throw std::invalid_argument("'" + word + "' is neither an option nor a size");
      o.shapes.back().push_back(number);
    }
  }
  for (const auto& shape : o.shapes) {
    if (shape.size() < 3) throw std::invalid_argument("a shape is N K M [M...]");
  }
  return o;
}

// Schedules that need no measurement: far too many or too few tokens in a tile.
bool is_hopeless(const gemm_schedule& s, std::int64_t m) {
  if (s.cluster_m > 1 && m <= s.block_m) return true;
  if (!s.weights_first) return m < 48;
  if (s.block_n > 64) return m <= 128;
  return s.block_m >= 2 * std::max<std::int64_t>(m, 8) || m > 8 * s.block_m || m > 512 ||
         (s.block_m < 32 && s.cluster_n > 1);
}

std::string fields(const gemm_schedule& s) {
  char text[400];
  std::snprintf(text, sizeof text,
                ", \"weights_first\": %d, \"block_m\": %d, \"block_n\": %d, \"cluster_m\": %d, \"cluster_n\": %d, "
                "\"cluster_k\": %d, \"group\": %d, \"programmatic\": %d, \"residents\": %d, \"blocks\": %lld",
                s.weights_first, s.block_m, s.block_n, s.cluster_m, s.cluster_n, s.cluster_k, s.group, s.programmatic,
                s.residents, static_cast<long long>(s.blocks));
  return text;
}

// One N x K. Returns how many schedules gave other bytes.
int measure(const options& o, const std::vector<std::int64_t>& shape, void* workspace, std::size_t workspace_bytes,
            unsigned long long* differences, cudaStream_t stream) {
  const std::int64_t n = shape[0], k = shape[1], max_m = *std::max_element(shape.begin() + 2, shape.end());
  const std::int64_t copies = bench::weight_copies(n, k);
  const bench::buffer<T> a(max_m * k), b(copies * n * k), d(max_m * n), expected(max_m * n);
  bench::fill_normal(a.get(), max_m * k, 1, 1.0f, stream);
  bench::fill_normal(b.get(), copies * n * k, 2, 0.02f, stream);
  const auto plan = bi::gemm<T>::prepare({n, k, max_m, o.slices});
  const int slices = plan.limits().slices;
  int wrong = 0;
  for (std::size_t i_m = 2; i_m < shape.size(); ++i_m) {
    const std::int64_t m = shape[i_m];
    const double guess_us = bench::expected_us(m, n, k);
    const std::int64_t launches =
        guess_us > 300.0 ? 2 : std::max<std::int64_t>(copies, static_cast<std::int64_t>(200.0 / guess_us));
    const int replays = o.quick ? 3 : 7;
    const auto weights = [&](std::int64_t i) { return b.get() + i % copies * n * k; };
    const auto launch = [&](const gemm_schedule& s, std::int64_t i, T* out) {
      bi::gemm_args<T> args;
      args.a = a.get(), args.b = weights(i), args.d = out, args.m = m;
      args.b_is_constant = true;
      const bi::status st = plan.launch_with(s, args, {}, stream);
      if (!st) throw std::runtime_error(bi::describe(st));
    };
    const auto time = [&](auto&& call) {
      const bench::graph g(stream, [&] {
        for (std::int64_t i = 0; i < launches; ++i) call(i);
      });
      return bench::median_us(stream, {&g}, replays)[0] / static_cast<double>(launches);
    };
    const auto print = [&](const char* name, double us, const std::string& more) {
      std::printf("{\"n\": %lld, \"k\": %lld, \"m\": %lld, \"slices\": %d, \"name\": \"%s\", \"us\": %.3f%s}\n",
                  static_cast<long long>(n), static_cast<long long>(k), static_cast<long long>(m), slices, name, us,
                  more.c_str());
    };
    const auto peer = [&](const char* name, std::size_t bytes, int most) {
      const bench::cublaslt_product<T> product({m, n, k}, bytes, most);
      double best = 1e30;
      for (int algorithm = 0; algorithm < product.algorithms(); ++algorithm) {
        best = std::min(best, time([&](std::int64_t i) {
                          product.run(algorithm, a.get(), weights(i), d.get(), workspace, stream);
                        }));
      }
      print(name, best, "");
    };
    peer("cublaslt", workspace_bytes, 1);
    peer("cublaslt_nows", 0, 1);
    if (!o.quick) peer("cublaslt_best8", workspace_bytes, 8);

    bi::schedule::gemm_problem problem;
    problem.m = m, problem.n = n, problem.k = k, problem.slices = slices;
    launch(bi::schedule::pick_gemm_schedule(problem, {}), 0, expected.get());  // the generic kernel
    problem.aligned = true;
    bi::schedule::for_each_gemm_schedule(problem, {}, [&](gemm_schedule s) {
      if (is_hopeless(s, m) || bi::schedule::to_string(s).find(o.only) == std::string::npos) return;
      for (int launches_as = 0; launches_as < 2; ++launches_as) {  // as bi would, then the other way
        if (launches_as == 1 && (o.quick || m > 64)) continue;
        if (launches_as == 1) s.programmatic = !s.programmatic;
        BENCH_REQUIRE(cudaMemsetAsync(d.get(), 0x7f, static_cast<std::size_t>(m * n) * sizeof(T), stream));
        BENCH_REQUIRE(cudaMemsetAsync(differences, 0, sizeof *differences, stream));
        launch(s, 0, d.get());
        bench::count_differences(d.get(), expected.get(), m * n, differences, stream);
        BENCH_REQUIRE(cudaStreamSynchronize(stream));
        if (*differences != 0) {
          std::printf("WRONG: m = %lld, n = %lld, k = %lld, slices = %d, %s: %llu of %lld outputs\n",
                      static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k), slices,
                      bi::schedule::to_string(s).c_str(), *differences, static_cast<long long>(m * n));
          ++wrong;
          continue;
        }
        print("bi", time([&](std::int64_t i) { launch(s, i, d.get()); }), fields(s));
      }
    });
    std::fflush(stdout);
  }
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const options o = parse(argc, argv);
    const bench::owned_stream stream;
    constexpr std::size_t workspace_bytes = std::size_t{64} << 20;
    const bench::buffer<char> workspace(static_cast<std::int64_t>(workspace_bytes));
    void* count = nullptr;
    BENCH_REQUIRE(cudaMallocManaged(&count, sizeof(unsigned long long), cudaMemAttachGlobal));
    auto* differences = static_cast<unsigned long long*>(count);
    int wrong = 0;
    for (const auto& shape : o.shapes) {
      wrong += measure(o, shape, workspace.get(), workspace_bytes, differences, stream.get());
    }
    std::printf("%d wrong\n", wrong);
    return wrong == 0 ? 0 : 1;
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "retune: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "retune: %s\n", e.what());
    return 1;
  }
}
