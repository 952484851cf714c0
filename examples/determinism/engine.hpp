// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <set>
#include <vector>

#include "bi/contract/digest.hpp"
#include "model.hpp"
#include "random.hpp"

namespace demo {

struct request {
  std::vector<std::int32_t> prompt;
  std::int64_t new_tokens = 0;
  bi::sample_params sampling;  // the engine fills in the ordinal
};

// A request in the engine and, when it has finished, its log.
struct sequence {
  const request* what = nullptr;
  std::int64_t arrival = 0;          // step
  std::vector<std::int32_t> tokens;  // the prompt and what has been sampled
  std::vector<std::int32_t> pages;   // its view of the cache
  std::int64_t computed = 0;         // tokens whose K and V are in the cache
  std::int64_t most_computed = 0;    // the same, preemptions forgotten
  std::int64_t preemptions = 0;
  std::set<std::int64_t> batch_rows;         // sizes of the batches that it was part of
  std::vector<std::uint64_t> logits_digest;  // one for each sampled token
  bi::contract::request_digest digest;       // chained over tokens and logits
  std::uint64_t kv_digest = 0;
  bool finished = false;

  std::vector<std::int32_t> completion() const {
    return {tokens.begin() + static_cast<std::ptrdiff_t>(what->prompt.size()), tokens.end()};
  }
};

// Hands out pages of the KV cache in random order, and checks that nobody gets what another one has.
class page_pool {
 public:
  page_pool(std::int64_t count, random_source& random);
  bool empty() const { return free_.empty(); }
  std::int32_t take(const sequence& owner);
  void give_back(std::vector<std::int32_t>& pages, const sequence& owner);

 private:
  random_source& random_;
  std::vector<std::int32_t> free_;
  std::vector<const sequence*> owner_;
};

// What may change from run to run and must not change a bit.
struct schedule {
  std::uint64_t seed = 1;
  bool calm = false;             // all arrive at once, nothing is random: for a request alone
  int preempt_percent = 2;       // chance that a step throws a request out of the cache
  std::int64_t arrival_gap = 3;  // mean steps between bursts
};

struct engine_stats {
  std::int64_t steps = 0;
  std::int64_t rows = 0;        // tokens computed
  std::int64_t recomputed = 0;  // of these, thrown away by a preemption
  std::int64_t preemptions = 0;
  std::int64_t preemptions_for_pages = 0;
};

// Continuous batching: each step computes some of the pending tokens of some of the running requests, prefill chunks and
// decodes mixed, in an order that the schedule's seed draws.
class engine {
 public:
  // Both must outlive the engine.
  engine(model& m, const schedule& s, const std::vector<request>& requests);

  bool step();  // false: all have finished
  void run(const std::function<void(std::int64_t tokens)>& progress = {});

  // In the order of the requests.
  const std::vector<sequence>& sequences() const { return sequences_; }
  const engine_stats& stats() const { return stats_; }

 private:
  struct part {  // of a batch
    sequence* s;
    std::int64_t count;
  };

  void admit();
  void preempt(sequence& s);
  void preempt_at_random();
  bool reserve(sequence& s, std::int64_t tokens, const std::vector<part>& batch);
  std::vector<part> choose();
  batch assemble(const std::vector<part>& parts);
  void commit(const std::vector<part>& parts, const step_result& r);

  model& model_;
  schedule schedule_;
  random_source random_;
  page_pool pool_;
  std::vector<sequence> sequences_;
  std::deque<sequence*> arriving_, waiting_;
  std::vector<sequence*> running_;
  engine_stats stats_;
  std::int64_t clock_ = 0;
};

// The digests of the logits that `tokens` gets from one prefill of it all, for the positions from first on.
std::vector<std::uint64_t> score(model& m, const std::vector<std::int32_t>& tokens, std::int64_t first);

// Pages that a view of this many tokens takes.
inline std::int64_t pages_for(std::int64_t tokens, std::int64_t page_size) {
  return (tokens + page_size - 1) / page_size;
}

}  // namespace demo
