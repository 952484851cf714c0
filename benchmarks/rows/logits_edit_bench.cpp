// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times logits_edit() beside a kernel that reads and writes every logit, and a device copy. Each launch of a graph
// has its own logits and counts, more than the L2 cache holds; all of a shape take turns in one measurement.
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/program.hpp"
#include "../common/timing.hpp"
#include "bi/logits_edit.hpp"
#include "logits_edit_kernels.hpp"

namespace {

constexpr std::int64_t vocab = 151936, words = vocab / 32;
constexpr int rounds = 9;
// Of a request: prompt and output, in tokens that are drawn with the cube of a uniform number, for many are of low ids.
constexpr std::int64_t prompt_tokens = 2000, output_tokens = 1000, biases = 300;

void require(const bi::status& st) {
  if (!st) throw std::runtime_error(bi::describe(st));
}

struct draws {
  std::uint64_t state;
  double uniform() {
    std::uint64_t x = state += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
  }
  std::int32_t token() {
    const double u = uniform();
    return static_cast<std::int32_t>(static_cast<double>(vocab) * u * u * u);
  }
};

template <class E>
std::unique_ptr<bench::buffer<E>> on_device(const std::vector<E>& v) {
  auto b = std::make_unique<bench::buffer<E>>(static_cast<std::int64_t>(v.size()));
  BENCH_REQUIRE(cudaMemcpy(b->get(), v.data(), v.size() * sizeof(E), cudaMemcpyHostToDevice));
  return b;
}

using times = std::map<std::string, double>;  // microseconds
constexpr const char* implementations[] = {"bi",        "bi_neutral",    "bi_open_mask", "bi_mask", "bi_bias", "bi_all",
                                           "bi_copied", "bi_copied_f32", "count_tokens", "dense",   "copy"};

template <class T>
times measure(std::int64_t rows) {
  const std::int64_t elements = rows * vocab, each = elements * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t sets = std::clamp<std::int64_t>(1'200'000'000 / (each + elements * 4), 3, 200);
  const bench::owned_stream stream;
  const bench::buffer<T> logits(sets * elements), out(sets * elements);
  const bench::buffer<float> wide(std::is_same_v<T, float> ? 1 : elements);
  const bench::buffer<std::int32_t> count(sets * elements);
  const bench::buffer<std::uint32_t> output(sets * rows * words), prompt(sets * rows * words);
  bench::fill_normal(logits.get(), sets * elements, 1, 2.0f, stream.get());
  BENCH_REQUIRE(cudaMemsetAsync(count.get(), 0, static_cast<std::size_t>(sets * elements) * 4, stream.get()));
  for (std::uint32_t* bits : {output.get(), prompt.get()}) {
    BENCH_REQUIRE(cudaMemsetAsync(bits, 0, static_cast<std::size_t>(sets * rows * words) * 4, stream.get()));
  }
  const auto counts_of = [&](std::int64_t set) {
    bi::token_counts t;
    t.count = count.get() + set * elements;
    t.output = output.get() + set * rows * words, t.prompt = prompt.get() + set * rows * words;
    t.slots = rows, t.vocab = vocab;
    return t;
  };

  draws d{7};
  std::vector<std::int32_t> token, slot, bias_id, slots, mask(static_cast<std::size_t>(2 * words), -1);
  for (std::int64_t r = 0; r < rows; ++r) {
    slots.push_back(static_cast<std::int32_t>(r));
    for (std::int64_t i = 0; i < prompt_tokens + output_tokens; ++i) {
      token.push_back(d.token());
      slot.push_back(static_cast<std::int32_t>(r));
    }
  }
  std::vector<float> bias;
  for (std::int64_t i = 0; i < biases; ++i) {
    bias_id.push_back(d.token());
    bias.push_back(-1.0f);
  }
  std::sort(bias_id.begin(), bias_id.end());
  // All tokens but a few, and no more than a few.
  for (int i = 0; i < 100; ++i) mask[static_cast<std::size_t>(d.token() / 32)] &= ~2;
  std::fill_n(mask.begin() + words, words, 0);
  for (int i = 0; i < 100; ++i) mask[static_cast<std::size_t>(words + d.token() / 32)] |= 2;
  const auto tokens = on_device(token), slot_of_token = on_device(slot), slot_of_row = on_device(slots);
  const auto device_mask = on_device(mask), device_bias_id = on_device(bias_id);
  const auto device_bias = on_device(bias);
  // prompt_tokens of each request are its prompt, the others its output.
  for (std::int64_t set = 0; set < sets; ++set) {
    for (std::int64_t r = 0; r < rows; ++r) {
      bi::count_tokens_args a;
      a.counts = counts_of(set);
      a.token = tokens->get() + r * (prompt_tokens + output_tokens);
      a.slot = slot_of_token->get() + r * (prompt_tokens + output_tokens);
      a.tokens = prompt_tokens, a.part = bi::token_part::prompt;
      require(bi::count_tokens(a, stream.get()));
      a.token += prompt_tokens, a.slot += prompt_tokens;
      a.tokens = output_tokens, a.part = bi::token_part::output;
      require(bi::count_tokens(a, stream.get()));
    }
  }

  std::vector<std::unique_ptr<bench::buffer<bi::logits_edit_params>>> params;
  std::vector<bench::graph> graphs;
  std::vector<std::string> names;
  const auto add = [&](const std::string& name, const std::function<void(std::int64_t)>& launch) {
    names.push_back(name);
    graphs.emplace_back(stream.get(), [&] {
      for (std::int64_t set = 0; set < sets; ++set) launch(set);
    });
  };
  const auto add_bi = [&](const std::string& name, bool penalties, int mask_row, bool biased, auto* result) {
    using Out = std::remove_pointer_t<decltype(result)>;
    std::vector<bi::logits_edit_params> all(static_cast<std::size_t>(rows));
    for (std::size_t r = 0; r < all.size(); ++r) {
      if (penalties) {
        all[r].slot = static_cast<std::int32_t>(r);
        all[r].repetition = 1.1f, all[r].frequency = 0.2f, all[r].presence = 0.1f;
      }
      all[r].mask = mask_row;
      if (biased) all[r].bias_end = static_cast<std::int32_t>(biases);
    }
    params.push_back(on_device(all));
    const bi::logits_edit_params* const of_rows = params.back()->get();
    add(name, [&, of_rows, result](std::int64_t set) {
      bi::logits_edit_args<T, Out> a;
      a.logits = logits.get() + set * elements, a.rows = rows, a.vocab = vocab, a.params = of_rows;
      a.counts = counts_of(set);
      a.bias_id = device_bias_id->get(), a.bias = device_bias->get(), a.biases = biases;
      a.mask = device_mask->get(), a.masks = 2;
      if constexpr (std::is_same_v<T, Out>) {
        a.out = (result == nullptr ? logits.get() : result) + set * elements;
      } else {
        a.out = result;
      }
      require(bi::logits_edit(a, stream.get()));
    });
  };
  T* const in_place = nullptr;
  add_bi("bi", true, -1, false, in_place);
  add_bi("bi_neutral", false, -1, false, in_place);
  add_bi("bi_open_mask", false, 0, false, in_place);
  add_bi("bi_mask", false, 1, false, in_place);
  add_bi("bi_bias", false, -1, true, in_place);
  add_bi("bi_all", true, 0, true, in_place);
  add_bi("bi_copied", true, -1, false, out.get());
  if (!std::is_same_v<T, float>) add_bi("bi_copied_f32", true, -1, false, wide.get());
  add("count_tokens", [&](std::int64_t set) {
    bi::count_tokens_args a;
    a.counts = counts_of(set), a.token = tokens->get(), a.slot = slot_of_row->get(), a.tokens = rows;
    require(bi::count_tokens(a, stream.get()));
  });
  add("dense", [&](std::int64_t set) {
    const bi::token_counts t = counts_of(set);
    bench::dense_penalties(logits.get() + set * elements, t.count, t.prompt, rows, vocab, 1.1f, 0.2f, 0.1f,
                           stream.get());
  });
  add("copy", [&](std::int64_t set) {
    BENCH_REQUIRE(cudaMemcpyAsync(out.get() + set * elements, logits.get() + set * elements,
                                  static_cast<std::size_t>(each), cudaMemcpyDeviceToDevice, stream.get()));
  });
  std::vector<const bench::graph*> order;
  for (const bench::graph& g : graphs) order.push_back(&g);
  const std::vector<double> us = bench::median_us(stream.get(), order, rounds);
  times all;
  for (std::size_t i = 0; i < names.size(); ++i) all[names[i]] = us[i] / static_cast<double>(sets);
  return all;
}

template <class T>
void add_benchmarks(const char* dtype, bool& failed) {
  for (const std::int64_t rows : {1, 16, 64, 256}) {
    const auto found = std::make_shared<times>();
    for (const std::string name : implementations) {
      if (name == "bi_copied_f32" && std::is_same_v<T, float>) continue;
      const std::string full =
          "logits_edit/" + name + "/" + dtype + "/" + std::to_string(rows) + "x" + std::to_string(vocab);
      bench::add_benchmark(full, [=, &failed](benchmark::State& state) {
        try {
          if (found->empty()) *found = measure<T>(rows);
        } catch (const std::exception& e) {
          failed = true;
          state.SkipWithError(e.what());
          return;
        }
        const double us = found->at(name);
        for (auto _ : state) state.SetIterationTime(us * 1e-6);
        if (name == "copy" || name == "dense" || name.rfind("bi_copied", 0) == 0) {
          const double result = name == "bi_copied_f32" ? sizeof(float) : sizeof(T);
          state.counters["GB/s"] = static_cast<double>(rows * vocab) * (sizeof(T) + result) / us * 1e-3;
        }
        state.counters["of_copy"] = us / found->at("copy");
      });
    }
  }
}

constexpr const char* usage =
    "bench_logits_edit [--commit TEXT] [options of Google Benchmark]\n"
    "Benchmarks are called logits_edit/IMPLEMENTATION/TYPE/ROWSxVOCABULARY/iterations:1/manual_time. In place: bi has\n"
    "penalties, of 2000 tokens of a prompt and 1000 put out; bi_neutral nothing to do; bi_open_mask a mask of all tokens\n"
    "but 100; bi_mask one of 100 tokens; bi_bias 300 biases; bi_all penalties, biases and the open mask. bi_copied: as bi,\n"
    "not in place; bi_copied_f32: to fp32; dense: a kernel that reads all logits and counts and writes all logits, in\n"
    "place; copy: a device copy of the logits. GB/s: of logits, read once and written once, by those that do so. of_copy:\n"
    "the time over that of copy.\n";

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program("bench_logits_edit", usage, argc, argv, [](int rest, char** arguments, bool lists) {
    const std::string commit = bench::parse_commit(rest, arguments);
    if (!lists) bench::add_context(commit);
    bool failed = false;
    add_benchmarks<float>("fp32", failed);
    add_benchmarks<bi::bf16>("bf16", failed);
    return bench::run_benchmarks([&] { return failed; });
  });
}
