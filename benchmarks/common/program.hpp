// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "timing.hpp"

// What the programs that time kernels with Google Benchmark have in common.
namespace bench {

// f(state) sets the time of one iteration: what it reports was measured elsewhere, in graphs.
template <class F>
void add_benchmark(const std::string& name, F f) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(f))
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

// Of a program that has no other option than --commit, which the results then name.
inline std::string parse_commit(int argc, char** argv) {
  std::string commit = "unknown";
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name.rfind("--commit=", 0) == 0) {
      commit = name.substr(9);
    } else if (name == "--commit" && i + 1 < argc) {
      commit = argv[++i];
    } else {
      throw std::invalid_argument("unknown option " + name);
    }
  }
  return commit;
}

inline void add_context(const std::string& commit) {
  cudaDeviceProp properties = {};
  int device = 0;
  BENCH_REQUIRE(cudaGetDevice(&device));
  BENCH_REQUIRE(cudaGetDeviceProperties(&properties, device));
  benchmark::AddCustomContext("commit", commit);
  benchmark::AddCustomContext("gpu", properties.name);
  benchmark::AddCustomContext("sm_count", std::to_string(properties.multiProcessorCount));
}

// The exit status. failed(): whether a benchmark reported an error.
template <class Failed>
int run_benchmarks(Failed failed) {
  const std::size_t matched = benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return matched == 0 || failed() ? 1 : 0;
}

// A main function: body(argc, argv, lists) gets the arguments that Google Benchmark leaves, and whether names are only
// listed, which needs no GPU.
template <class Body>
int run_program(const char* program, const char* usage, int argc, char** argv, Body body) {
  bool lists = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      std::fputs(usage, stdout);
      return 0;
    }
    lists = lists || argument.substr(0, 22) == "--benchmark_list_tests";
  }
  try {
    benchmark::Initialize(&argc, argv);
    return body(argc, argv, lists);
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "%s: %s (--help lists the options)\n", program, e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", program, e.what());
    return 1;
  }
}

}  // namespace bench
