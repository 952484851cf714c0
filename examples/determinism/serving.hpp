// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine.hpp"

namespace demo {

// What the server is asked for: it decides the digests, the schedule must not.
struct traffic {
  std::int64_t equal = 32;       // requests that are all the same
  std::int64_t seeds = 4;        // the same prompt again, each with a sampling seed of its own
  std::int64_t background = 16;  // prompts of random lengths, different from each other
  std::int64_t prompt = 192;     // tokens of the equal requests' prompt, and the most of the others
  std::int64_t new_tokens = 72;
  std::uint64_t seed = 1;

  std::int64_t longest() const { return prompt + new_tokens; }
};

struct sampling_mode {
  const char* name;
  float temperature;
  float top_p;
  std::int32_t top_k;
};
inline constexpr sampling_mode greedy{"T=0", 0.0f, 1.0f, 0};
inline constexpr sampling_mode sampled{"T=1", 1.0f, 0.95f, 50};

// In this order: equal, seeds, background.
std::vector<request> make_requests(const traffic& t, const sampling_mode& mode, std::int64_t vocab);
// Tokens that a run computes at least.
std::int64_t tokens_of(const std::vector<request>& requests);

// What came out of serving the traffic once.
struct outcome {
  std::string mode, arm;
  std::int64_t completions = 0;       // different ones among the equal requests
  std::int64_t digests = 0;           // different digests of tokens, logits and KV among them
  std::int64_t first_logits = -1;     // first new token whose logits differ between two of them, -1: none
  std::int64_t first_token = -1;      // first new token that differs
  std::int64_t seed_completions = 0;  // different completions among the requests with their own seeds
  bool alone = false;                 // a request served alone has the same digest as all the equal ones
  bool prefill = false;               // one prefill of prompt and completion gives the same logits
  std::int64_t batch_sizes = 0;       // different sizes of the batches that equal requests were in
  std::int64_t smallest_batch = 0, largest_batch = 0;
  engine_stats stats;
  bi::contract::request_digest request_digest;  // of the first of the equal requests
  std::uint64_t kv_digest = 0;
  bi::contract::request_digest end_to_end;  // of all requests
  double seconds = 0;

  bool is_baseline() const { return arm == baseline_name; }
  // bi's promise. `t` says how many different seeds there were.
  bool held(const traffic& t) const {
    const std::int64_t different = mode == greedy.name ? (t.seeds > 0 ? 1 : 0) : t.seeds;
    return completions == 1 && digests == 1 && alone && prefill && seed_completions == different;
  }
};

outcome serve(backend& b, const weights& w, const model_limits& limits, const traffic& t, const sampling_mode& mode,
              const schedule& s, const std::function<void(std::int64_t tokens)>& progress = {});

// One of the equal requests, served alone.
sequence serve_alone(backend& b, const weights& w, const model_limits& limits, const request& r);

}  // namespace demo
