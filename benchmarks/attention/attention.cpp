// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times prefill (prefill.hpp), decode of requests that share tokens (shared.hpp) and decode attention. Decode: a query
// token a request, bf16, head_dim 128, pages of 16 tokens in random order. bi has a workspace, bi_generic has none and
// walks each view in one thread block; bi_free folds whatever leaves a thread block has, so its bits depend on the batch:
// what bi loses to it is what invariance costs. All of a point are measured when the first of them is asked for, one
// after the other: in turn, the GPU would still be hot from the generic kernel. The outputs of bi and bi_generic must be
// equal bit by bit.
//
// The peers' times were recorded with one cache, used again and again: of up to 50 MB K and V came from the L2 cache. So
// caches of at most 40 MB stay in place here too, and bi_cold times bi with copies of them that take turns. Larger ones take
// turns: what the L2 cache could keep of one depends on how a kernel reads it.
#include "bi/attention.hpp"

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iterator>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/program.hpp"
#include "../common/timing.hpp"
#include "free_split.hpp"
#include "peers.hpp"
#include "prefill.hpp"
#include "shared.hpp"

namespace {

using bench::buffer;
using bi::bf16;
using attention = bi::attention<bf16, 128>;
using free_attention = bi::attention<bf16, 128, bench::free_split>;

constexpr std::int64_t head_dim = 128, page_size = 16;
constexpr int rounds = 7;
constexpr std::array<const char*, 4> names = {"bi", "bi_free", "bi_cold", "bi_generic"};
constexpr std::size_t free_form = 1, cold = 2, generic = 3;
constexpr double most_in_place = 4e7;  // bytes of K and V

struct result {
  double us = 0.0;
  std::string error;
};
using results = std::array<result, names.size()>;

void require(const bi::status& st) {
  if (!st) throw std::runtime_error(bi::describe(st));
}

std::vector<std::int32_t> lengths(const bench::peer_time& point) {
  std::vector<std::int32_t> len(static_cast<std::size_t>(point.batch), static_cast<std::int32_t>(point.tokens));
  if (point.tokens == bench::skew) {
    std::fill(len.begin(), len.end(), 1024);
    len[len.size() / 2] = 65536;
  } else if (point.tokens == bench::mix) {
    std::mt19937 random(bench::mix_seed);
    for (std::int32_t& n : len) {
      n = static_cast<std::int32_t>(512.0 * std::exp2(5.0 * static_cast<double>(random()) * 0x1p-32));
    }
  }
  return len;
}

double kv_bytes(const bench::peer_time& point) {
  double tokens = 0;
  for (const std::int32_t n : lengths(point)) tokens += n;
  return tokens * static_cast<double>(point.heads_kv * head_dim) * 2 * sizeof(bf16);
}

template <class T>
void upload(const buffer<T>& to, const std::vector<T>& from) {
  BENCH_REQUIRE(cudaMemcpy(to.get(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
}

results measure(const bench::peer_time& point) {
  const std::vector<std::int32_t> len = lengths(point);
  std::int64_t pages_each = 0, longest = 0, tokens = 0;
  for (const std::int32_t n : len) {
    pages_each += (n + page_size - 1) / page_size;
    longest = std::max<std::int64_t>(longest, n);
    tokens += n;
  }
  // Equal batches with pages of their own take turns, so that none is in the L2 cache when its turn comes. bi asks the
  // cache to give up K and V first, and then some of it may keep the same lines for as many turns as there are: of this
  // much, they are hardly more than 1%. bi_generic does not ask, and would take too long.
  const double bytes = kv_bytes(point);
  const auto copies_of = [&](double most) { return bytes > most ? 1 : static_cast<std::int64_t>(most / bytes) + 1; };
  const std::int64_t copies = copies_of(4e9);
  const bool in_place = bytes <= most_in_place;
  std::array<std::int64_t, names.size()> turns = {};
  for (std::size_t i = 0; i < names.size(); ++i) turns[i] = in_place && i != cold ? 1 : copies;
  if (!in_place) turns[generic] = copies_of(4e8);
  const std::int64_t pages = copies * pages_each, row_stride = (longest + page_size - 1) / page_size;
  std::vector<std::int32_t> order(static_cast<std::size_t>(pages));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::shuffle(order.begin(), order.end(), std::mt19937(2));
  std::vector<std::int32_t> table(static_cast<std::size_t>(copies * point.batch * row_stride), -1);
  std::size_t next = 0;
  for (std::int64_t row = 0; row < copies * point.batch; ++row) {
    const std::int64_t used = (len[static_cast<std::size_t>(row % point.batch)] + page_size - 1) / page_size;
    for (std::int64_t i = 0; i < used; ++i) table[static_cast<std::size_t>(row * row_stride + i)] = order[next++];
  }

  const bench::owned_stream stream;
  const std::int64_t cache = pages * page_size * point.heads_kv * head_dim;
  const std::int64_t outputs = point.batch * point.heads_q * head_dim;
  const buffer<bf16> q(outputs), k(cache), v(cache), out(outputs), expected(outputs);
  const buffer<std::int32_t> d_len(point.batch), d_table(static_cast<std::int64_t>(table.size()));
  const buffer<unsigned long long> differences(1);
  bench::fill_normal(q.get(), outputs, 1, 1.0f, stream.get());
  bench::fill_normal(k.get(), cache, 2, 1.0f, stream.get());
  bench::fill_normal(v.get(), cache, 3, 1.0f, stream.get());
  upload(d_len, len);
  upload(d_table, table);
  BENCH_REQUIRE(cudaDeviceSynchronize());

  bi::attention_args<bf16> a;
  a.q = q.get();
  a.cache.k = k.get(), a.cache.v = v.get(), a.cache.num_pages = pages, a.cache.page_size = page_size;
  a.cache.heads = point.heads_kv, a.cache.head_dim = head_dim;
  a.len = d_len.get();
  a.requests = a.rows = point.batch;
  a.scale = 0.08838834764f;
  a.limits = {point.batch, point.batch, 1, longest, point.heads_q, point.heads_kv, head_dim, tokens};
  a.out = out.get();
  const std::size_t workspace_bytes = attention::workspace_bytes(a.limits);
  const buffer<unsigned char> memory(static_cast<std::int64_t>(workspace_bytes));
  const bi::workspace with = {memory.get(), workspace_bytes};

  // A graph takes some milliseconds, of which its launch is little, and ends with the last of the batches.
  const double of_split = bytes / 2.5e6 + 10.0;
  const double of_generic = std::max(bytes / 2e6, 0.12 * static_cast<double>(longest)) + 5.0;
  std::array<std::int64_t, names.size()> launches = {};
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto wanted = static_cast<std::int64_t>(2000.0 / (i == generic ? of_generic : of_split)) + 1;
    launches[i] = (wanted + turns[i] - 1) / turns[i] * turns[i];
  }
  if (!in_place) turns[cold] = launches[cold] = 1;  // nobody asks
  std::vector<bench::graph> graphs;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto launch = [&](std::int64_t turn) {
      const std::int64_t batch = copies - turns[i] + turn % turns[i];
      a.view = bi::page_table{d_table.get() + batch * point.batch * row_stride, row_stride};
      require(i == free_form ? free_attention::launch(a, with, stream.get())
              : i == generic ? attention::launch(a, {}, stream.get())
                             : attention::launch(a, with, stream.get()));
    };
    launch(0);  // loads the kernels, which a capture doesn't allow everywhere
    graphs.emplace_back(stream.get(), [&] {
      for (std::int64_t turn = 0; turn < launches[i]; ++turn) launch(turn);
    });
  }
  const auto output_bytes = static_cast<std::size_t>(outputs) * sizeof(bf16);
  graphs[generic].replay(stream.get());
  BENCH_REQUIRE(cudaMemcpyAsync(expected.get(), out.get(), output_bytes, cudaMemcpyDeviceToDevice, stream.get()));
  BENCH_REQUIRE(cudaMemsetAsync(out.get(), 0x7f, output_bytes, stream.get()));
  graphs[0].replay(stream.get());
  BENCH_REQUIRE(cudaMemsetAsync(differences.get(), 0, sizeof(unsigned long long), stream.get()));
  bench::count_differences<bf16>(out.get(), expected.get(), outputs, differences.get(), stream.get());
  unsigned long long wrong = 0;
  BENCH_REQUIRE(cudaMemcpyAsync(&wrong, differences.get(), sizeof wrong, cudaMemcpyDeviceToHost, stream.get()));
  BENCH_REQUIRE(cudaStreamSynchronize(stream.get()));

  results r;
  for (std::size_t i = 0; i < r.size(); ++i) {
    r[i].us = bench::median_us(stream.get(), {&graphs[i]}, rounds)[0] / static_cast<double>(launches[i]);
  }
  if (wrong != 0) r[0].error = std::to_string(wrong) + " outputs differ from the generic kernel's";
  return r;
}

class measurements {
 public:
  void report(benchmark::State& state, std::size_t index, std::size_t implementation) {
    const bench::peer_time& point = bench::peer_times[index];
    auto found = points_.find(index);
    if (found == points_.end()) {
      results r;
      try {
        r = measure(point);
      } catch (const std::exception& e) {
        for (result& each : r) each.error = e.what();
      }
      found = points_.emplace(index, r).first;
    }
    const result& mine = found->second[implementation];
    if (!mine.error.empty()) {
      failed_ = true;
      state.SkipWithError(mine.error.c_str());
      return;
    }
    for (auto _ : state) state.SetIterationTime(mine.us * 1e-6);
    state.counters["GB/s"] = kv_bytes(point) / mine.us * 1e-3;
    state.counters["ratio"] = point.fastest / mine.us;
    state.counters["ratio_invariant"] = point.invariant / mine.us;
  }
  void report(benchmark::State& state, const bench::prefill_point& point) {
    try {
      const double us = bench::measure_prefill(point);
      for (auto _ : state) state.SetIterationTime(us * 1e-6);
      state.counters["TFLOP/s"] = point.flops() / us * 1e-6;
    } catch (const std::exception& e) {
      failed_ = true;
      state.SkipWithError(e.what());
    }
  }
  // ratio_alone: of the time without groups; ratio_read: of that of reading K and V, shared tokens once.
  void report(benchmark::State& state, const bench::shared_point& point) {
    try {
      const bench::shared_times t = bench::measure_shared(point);
      for (auto _ : state) state.SetIterationTime(t.us * 1e-6);
      state.counters["GB/s"] = t.bytes / t.us * 1e-3;
      state.counters["ratio_alone"] = t.us / t.alone_us;
      state.counters["ratio_read"] = t.us / t.read_us;
    } catch (const std::exception& e) {
      failed_ = true;
      state.SkipWithError(e.what());
    }
  }
  bool failed() const { return failed_; }

 private:
  std::map<std::size_t, results> points_;
  bool failed_ = false;
};

constexpr const char* usage =
    "bench_attention [--commit TEXT] [options of Google Benchmark]\n"
    "Benchmarks are called decode/IMPLEMENTATION/HEADS_Q/HEADS_KV/BATCH/TOKENS/iterations:1/manual_time; TOKENS is a\n"
    "number, mix or skew. Implementations: bi, bi_free, bi_generic, of small caches bi_cold. GB/s: of K and V. ratio,\n"
    "ratio_invariant: FlashInfer's time as recorded on an H100 (peers.hpp), of its fastest kernel and of its fastest\n"
    "batch-invariant form, over this one's. Others are called prefill/bi/HEADS_Q/HEADS_KV/TOKENS/iterations:1/manual_time\n"
    "and shared/bi/HEADS_Q/HEADS_KV/BATCH/PREFIX/iterations:1/manual_time.\n";

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program("bench_attention", usage, argc, argv, [](int rest, char** arguments, bool lists) {
    const std::string commit = bench::parse_commit(rest, arguments);
    if (!lists) bench::add_context(commit);
    measurements all;
    for (std::size_t index = 0; index < std::size(bench::peer_times); ++index) {
      const bench::peer_time& p = bench::peer_times[index];
      const std::string tokens = p.tokens == bench::mix    ? "mix"
                                 : p.tokens == bench::skew ? "skew"
                                                           : std::to_string(p.tokens);
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (i == cold && kv_bytes(p) > most_in_place) continue;  // bi is cold
        const std::string name = std::string("decode/") + names[i] + "/" + std::to_string(p.heads_q) + "/" +
                                 std::to_string(p.heads_kv) + "/" + std::to_string(p.batch) + "/" + tokens;
        bench::add_benchmark(name, [&all, index, i](benchmark::State& state) { all.report(state, index, i); });
      }
    }
    for (const bench::prefill_point& point : bench::prefill_points) {
      bench::add_benchmark("prefill/bi/" + point.name(),
                           [&all, &point](benchmark::State& state) { all.report(state, point); });
    }
    for (const bench::shared_point& point : bench::shared_points) {
      bench::add_benchmark("shared/bi/" + point.name(),
                           [&all, &point](benchmark::State& state) { all.report(state, point); });
    }
    return bench::run_benchmarks([&] { return all.failed(); });
  });
}
