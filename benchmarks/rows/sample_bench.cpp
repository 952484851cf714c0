// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times sample() and digest_rows() on rows of logits that are in no cache, beside a kernel that reads the same bytes
// once. All of a shape take turns in one measurement.
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/program.hpp"
#include "../common/timing.hpp"
#include "bi/digest.hpp"
#include "bi/sample.hpp"
#include "sample_kernels.hpp"

namespace {

constexpr std::int64_t vocab = 151936;
constexpr int rounds = 9;

struct mode {
  const char* name;
  bi::sample_params params;
  bool logprob;
};
bi::sample_params settings(float temperature, int top_k, float top_p, float min_p) {
  bi::sample_params p;
  p.temperature = temperature, p.top_k = top_k, p.top_p = top_p, p.min_p = min_p;
  return p;
}
// Of logits with a standard deviation of 2.
const std::vector<mode>& modes() {
  static const std::vector<mode> all = {{"greedy", settings(0, 0, 1, 0), false},
                                        {"greedy_logprob", settings(0, 0, 1, 0), true},
                                        {"temperature", settings(1, 0, 1, 0), false},
                                        {"temperature_logprob", settings(1, 0, 1, 0), true},
                                        {"temperature_0.3", settings(0.3f, 0, 1, 0), false},
                                        {"top_k_50", settings(1, 50, 1, 0), false},
                                        {"top_k_1000", settings(1, 1000, 1, 0), false},
                                        {"top_p_0.9", settings(1, 0, 0.9f, 0), false},
                                        {"top_k_50_top_p_0.9", settings(1, 50, 0.9f, 0), false},
                                        {"min_p_0.05", settings(1, 0, 1, 0.05f), false}};
  return all;
}

void require(const bi::status& st) {
  if (!st) throw std::runtime_error(bi::describe(st));
}

using times = std::map<std::string, double>;

template <class T>
times measure(std::int64_t rows) {
  const std::int64_t elements = rows * vocab, bytes = elements * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t copies = 400'000'000 / bytes + 1;
  const bench::owned_stream stream;
  const bench::buffer<T> logits(copies * elements);
  const bench::buffer<std::int32_t> token(rows);
  const bench::buffer<float> logprob(rows);
  const bench::buffer<std::uint32_t> flags(rows), largest(1);
  const bench::buffer<std::uint64_t> digest(rows);
  bench::fill_normal(logits.get(), copies * elements, 1, 2.0f, stream.get());
  BENCH_REQUIRE(cudaMemsetAsync(largest.get(), 0, 4, stream.get()));
  std::vector<std::string> names;
  std::vector<std::unique_ptr<bench::buffer<bi::sample_params>>> params;
  std::vector<bench::graph> graphs;
  const auto add = [&](const std::string& name, const std::function<void(const T*)>& launch) {
    names.push_back(name);
    graphs.emplace_back(stream.get(), [&] {
      for (std::int64_t c = 0; c < copies; ++c) launch(logits.get() + c * elements);
    });
  };
  add("sample/read", [&](const T* x) { bench::read_once(x, bytes / 16, largest.get(), stream.get()); });
  for (const mode& m : modes()) {
    std::vector<bi::sample_params> all(static_cast<std::size_t>(rows), m.params);
    for (std::size_t r = 0; r < all.size(); ++r) all[r].seed = 1000 + r, all[r].ordinal = static_cast<std::uint32_t>(r);
    params.push_back(std::make_unique<bench::buffer<bi::sample_params>>(rows));
    bi::sample_params* const on_device = params.back()->get();
    BENCH_REQUIRE(cudaMemcpy(on_device, all.data(), all.size() * sizeof all[0], cudaMemcpyHostToDevice));
    add(std::string("sample/") + m.name, [&, on_device](const T* x) {
      bi::sample_args<T> a;
      a.logits = x, a.rows = rows, a.vocab = vocab, a.params = on_device, a.token = token.get();
      a.logprob = m.logprob ? logprob.get() : nullptr, a.flags = flags.get();
      require(bi::sample(a, stream.get()));
    });
  }
  add("digest_rows/bi", [&](const T* x) {
    bi::digest_rows_args a;
    a.data = x, a.rows = rows, a.row_bytes = vocab * static_cast<std::int64_t>(sizeof(T)), a.out = digest.get();
    require(bi::digest_rows(a, stream.get()));
  });
  std::vector<const bench::graph*> order;
  for (const bench::graph& g : graphs) order.push_back(&g);
  const std::vector<double> us = bench::median_us(stream.get(), order, rounds);
  times all;
  for (std::size_t i = 0; i < names.size(); ++i) all[names[i]] = us[i] / static_cast<double>(copies);
  return all;
}

template <class T>
void add_benchmarks(const char* dtype, bool& failed) {
  for (const std::int64_t rows : {1, 8, 64, 256}) {
    const auto found = std::make_shared<times>();
    std::vector<std::string> names = {"sample/read", "digest_rows/bi"};
    for (const mode& m : modes()) names.push_back(std::string("sample/") + m.name);
    for (const std::string& name : names) {
      const std::string full = name + "/" + dtype + "/" + std::to_string(rows) + "x" + std::to_string(vocab);
      bench::add_benchmark(full, [=, &failed](benchmark::State& state) {
        try {
          if (found->empty()) *found = measure<T>(rows);
        } catch (const std::exception& e) {
          failed = true;
          state.SkipWithError(e.what());
          return;
        }
        const double us = found->at(name), bytes = static_cast<double>(rows * vocab) * sizeof(T);
        for (auto _ : state) state.SetIterationTime(us * 1e-6);
        state.counters["GB/s"] = bytes / us * 1e-3;
        state.counters["of_read"] = us / found->at("sample/read");
      });
    }
  }
}

constexpr const char* usage =
    "bench_sample [--commit TEXT] [options of Google Benchmark]\n"
    "Benchmarks are called sample/MODE/TYPE/ROWSxVOCABULARY/iterations:1/manual_time and digest_rows/bi/...; sample/read\n"
    "is a kernel that reads the logits once. GB/s: of logits. of_read: the time over that of sample/read.\n";

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program("bench_sample", usage, argc, argv, [](int rest, char** arguments, bool lists) {
    const std::string commit = bench::parse_commit(rest, arguments);
    if (!lists) bench::add_context(commit);
    bool failed = false;
    add_benchmarks<float>("fp32", failed);
    add_benchmarks<bi::bf16>("bf16", failed);
    return bench::run_benchmarks([&] { return failed; });
  });
}
