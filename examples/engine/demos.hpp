// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend.hpp"
#include "json.hpp"
#include "model.hpp"
#include "report.hpp"
#include "server.hpp"

namespace engine {

// Where a demonstration runs, and what it says while it does.
struct host {
  std::function<std::unique_ptr<backend>(const batch_dependent&)> make;
  model_config config;
  std::uint64_t seed = 1;    // of weights, traffic and schedules
  std::string commit;        // of the program, for the report
  std::string folder = ".";  // for logs
  progress_bar* bar = nullptr;
};

struct sampling_mode {
  const char* name;
  float temperature, top_p;
  std::int32_t top_k;
  bi::sample_params with(std::uint64_t seed) const {
    bi::sample_params p;
    p.temperature = temperature;
    p.top_p = top_p;
    p.top_k = top_k;
    p.seed = seed;
    return p;
  }
};
inline constexpr sampling_mode greedy{"T=0", 0.0f, 1.0f, 0}, warm{"T=1", 1.0f, 0.95f, 50};

std::vector<std::int32_t> random_tokens(random_source& random, std::int64_t count, std::int64_t vocab);
// A report begins with what every report has.
json begin_report(const char* what, const host& h, const backend& b, const weights& w);

// D1: many equal requests among others give one answer.
struct d1_form {
  std::int64_t equal = 1000, tokens = 1000, prompt = 64;  // tokens: new ones
  std::int64_t background = 400, longest = 4096;          // tokens of a background request at most
  std::int64_t warm_baseline_tokens = 250;                // at T=1 the baseline is not timed, and differs early
  std::int64_t ablation_equal = 256, ablation_tokens = 200;
  std::int64_t seeds = 1000, seed_tokens = 100;
  std::int64_t batch_sizes = 50;  // that each equal request must have been part of
  model_limits limits{.rows = 2048, .requests = 512, .pages = 24000, .page_size = 16, .max_view = 4096};
  schedule how{.arrival_gap = 2, .short_percent = 25, .preempt_percent = 1, .pad_to = 8};
  static d1_form small();
};
json run_d1(const host& h, const d1_form& f);

// D2: branches joined without a copy give one result under every schedule.
struct d2_form {
  std::int64_t schedules = 200, most_others = 255, other_tokens = 16, other_prompt = 64;
  std::int64_t prompt = 300, drawn = 6;  // drawn: tokens of a branch that are not forced, at most
  std::vector<std::int64_t> lengths{1, 15, 16, 17, 255, 256, 257, 1000};
  std::int64_t wide = 16, samples = 8, sample_tokens = 8;
  std::int64_t controls = 2;  // schedules for what must fail
  std::vector<std::int64_t> page_sizes{16, 32, 64};
  model_limits limits{.rows = 4096, .requests = 256, .pages = 0, .page_size = 0, .max_view = 4096};
  std::int64_t cache_tokens = 60000;
  static d2_form small();
};
json run_d2(const host& h, const d2_form& f);

// D3: a log that says what happened, and finds out what did not.
struct d3_form {
  std::int64_t requests = 500, replayed = 100, tokens = 32, prompt = 100;
  std::int64_t faults = 20;  // of each kind
  model_limits limits{.rows = 2048, .requests = 256, .pages = 12000, .page_size = 16, .max_view = 2048};
  static d3_form small();
};
json run_d3(const host& h, const d3_form& f);

// D4: one prefill of what was decoded gives the same log-probabilities.
struct d4_form {
  std::int64_t sequences = 64, tokens = 4096, prompt = 64;
  std::int64_t baseline_sequences = 16, baseline_tokens = 512;
  model_limits limits{.rows = 2048, .requests = 256, .pages = 18500, .page_size = 16, .max_view = 8192};
  static d4_form small();
};
json run_d4(const host& h, const d4_form& f);

// Tokens a second, against the baseline.
struct bench_form {
  std::int64_t many = 1000, many_prompt = 16, many_tokens = 100;  // the shape of Thinking Machines' measurement
  std::int64_t long_prompt = 512, long_tokens = 512;              // at each of `batches`
  std::vector<std::int64_t> batches{64, 256};
  std::vector<std::int64_t> branches{1, 2, 4, 8};
  std::int64_t branch_tokens = 256;
  double most = 1.10;  // of bi's time by the baseline's, 0: whatever it is
  model_limits limits{.rows = 8192, .requests = 256, .pages = 18000, .page_size = 16, .max_view = 4096};
  static bench_form small();
};
json run_bench(const host& h, const bench_form& f);

}  // namespace engine
