// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.hpp"
#include "pages.hpp"
#include "request.hpp"

namespace engine {

// How requests are served. All of it may change from run to run, and none of it may change a bit.
struct schedule {
  enum class order { parallel, sequential, reverse, staggered };  // of sibling branches
  enum class check { off, reduce, full };  // KV against its record: never, where branches join, or before each use

  std::uint64_t seed = 1;
  bool calm = false;             // all arrive at once and nothing is random: a request alone, or a benchmark
  std::int64_t arrival_gap = 3;  // mean steps between bursts
  std::int64_t chunk = 0;        // most tokens of one view that one step computes, 0: as many as fit
  int short_percent = 100;       // chance that a step computes a random number of tokens and no more
  int preempt_percent = 2;       // chance that a step throws a request out of the cache
  int evict_percent = 0;         // chance that a step throws one segment out
  int fallback_percent = 0;      // chance that a fork falls back to one branch at a time
  bool prefix_cache = true;
  bool grouped = false;     // attention reads once what views share: pays from some hundred tokens on
  std::int64_t pad_to = 0;  // decode steps are padded to multiples of this and replayed as graphs, 0: never
  order branches = order::parallel;
  check checked = check::off;
  bool keep_rows = false;    // records have each token's KV digests, so that a replay can name a layer
  std::int64_t running = 0;  // most requests at a time, 0: the model's limit
};

struct server_stats {
  std::int64_t steps = 0;
  std::int64_t rows = 0;        // tokens computed
  std::int64_t cached = 0;      // tokens found in the prefix cache
  std::int64_t recomputed = 0;  // thrown out, to be computed again
  std::int64_t preemptions = 0;
  std::int64_t evictions = 0;  // of single segments
  std::int64_t forks = 0, reduces = 0, fallbacks = 0;
  std::int64_t checks = 0, repairs = 0;
  std::int64_t unlike_record = 0;  // segments whose K and V, computed again, were others
};

// Tokens that follow one another, and where their K and V are. What they see is `before` and themselves; once another
// segment sees them, they are frozen.
struct segment {
  std::vector<std::shared_ptr<segment>> before;
  std::string name;  // of the branch
  std::int64_t first_position = 0;
  std::vector<std::int32_t> tokens;
  std::int64_t computed = 0;        // tokens whose K and V are in the cache
  std::vector<std::int32_t> pages;  // of these, each held once by this segment
  std::vector<std::uint64_t> kv;    // [layers] sums of the computed tokens' digests
  std::vector<std::uint64_t> row_kv;
  std::vector<std::uint64_t> page_start_kv;  // kv where the last page began
  std::vector<prefix_cache::key> page_keys;  // begins with the key of the view before
  std::int64_t thrown_out = 0;               // tokens that an eviction took, and their digests, which must come back
  std::vector<std::uint64_t> thrown_out_kv;

  std::int64_t pending() const { return static_cast<std::int64_t>(tokens.size()) - computed; }
};
using segment_ptr = std::shared_ptr<segment>;

// A bit that the KV cache holds is not the one that was written, and computing it again did not help.
class damaged : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Continuous batching: each step computes some of the pending tokens of some of the segments, prefill chunks, decodes and
// branches mixed. Whatever decides about a request's results reads that request's own tokens and script alone.
class server {
 public:
  // All must outlive the server.
  server(model& m, const schedule& s, const std::vector<request>& requests);

  bool step();  // false: all have finished
  void run(const std::function<void(std::int64_t sampled)>& progress = {});

  const std::vector<request_record>& records() const { return records_; }  // in the order of the requests
  const std::vector<std::set<std::int64_t>>& batch_sizes() const { return batch_sizes_; }  // that each was part of
  const server_stats& stats() const { return stats_; }
  std::int64_t sampled() const { return sampled_; }

  // For faults that are injected: the segments that are now in the cache, those of a request in the order of the tree,
  // and mistakes that a reduce may be made to make.
  std::vector<segment_ptr> segments(std::size_t request) const;
  std::vector<bi::kv_run> runs_of(const segment& s, std::int64_t count) const;
  void lose_page(segment& s);
  struct mistakes {
    bool swap_branches = false;       // a reduce takes the last branch first
    std::int64_t shift_position = 0;  // and goes on at another position
    bool token_keys = false;          // the prefix cache's keys are tokens alone
    bool one_stream = false;          // all branches and samples draw with the same noise
  } mistake;

 private:
  struct live;
  struct branch {
    live* owner = nullptr;
    branch* parent = nullptr;
    std::size_t index = 0;
    const script* plan = nullptr;
    std::size_t phase = 0;
    std::int64_t left = 0;  // tokens that the phase has yet to draw
    std::uint64_t path = 0;
    std::uint32_t sample = 0;
    std::vector<segment_ptr> view;  // the last one is its own
    std::vector<std::unique_ptr<branch>> children;
    std::size_t first_child = 0;  // of the fork that is open
    std::int64_t open = 0;        // branches that have not ended
    std::int64_t forked_at = 0;   // step
    bool forked = false, ended = false;
    request_digest digest;
    branch_record record;

    segment& own() const { return *view.back(); }
    std::int64_t next_position() const { return own().first_position + static_cast<std::int64_t>(own().tokens.size()); }
  };
  struct live {
    const request* what = nullptr;
    std::size_t number = 0;
    std::int64_t arrival = 0;
    branch root;
    std::vector<segment_ptr> segments;
    std::vector<branch*> writers;  // of the segments; null: frozen
    std::vector<std::string> events;
    std::int64_t preemptions = 0;
    bool sequential = false, waiting = true, finished = false;
  };
  struct part {  // of a step
    live* owner;
    segment_ptr s;
    branch* writer;
    std::int64_t count;
  };

  // What a request computes.
  void begin_segment(branch& b, std::int64_t first_position);
  void enter_phase(branch& b);
  void settle(branch& b);
  void fork(branch& b);
  void reduce(branch& b);
  void end(branch& b);
  void freeze(branch& b);
  void forget(live& r, const segment& s);
  void finish(live& r);
  static void collect(const branch& b, request_record& to);

  // When, and where.
  void admit();
  void disturb();
  bool may_run(const branch& b) const;
  std::vector<part> choose();
  batch assemble(const std::vector<part>& parts);
  void commit(const std::vector<part>& parts, const batch& s, const step_result& r);
  void add_row(segment& s, const step_result& r, std::int64_t row, std::int64_t rows);
  void use_cached_pages(segment& s);
  bool reserve(const part& p, const std::vector<part>& parts);
  const prefix_cache::key& page_key(segment& s, std::size_t page) const;
  bool make_room(const live& owner, const std::vector<part>& parts);
  void throw_out(segment& s);
  void preempt(live& r);
  std::vector<bool> intact(const std::vector<segment_ptr>& segments);
  void repair(live& r, segment& s);
  std::vector<part> with_intact_views(std::vector<part> parts);

  model& model_;
  const schedule schedule_;
  random_source random_;
  page_pool pool_;
  prefix_cache cache_;
  std::vector<std::unique_ptr<live>> requests_;
  std::deque<live*> arriving_, waiting_;
  std::vector<live*> running_;
  std::vector<request_record> records_;
  std::vector<std::set<std::int64_t>> batch_sizes_;
  server_stats stats_;
  std::int64_t clock_ = 0, sampled_ = 0, idle_ = 0;
};

// Most tokens of a view of the request, and pages that it needs at most.
std::int64_t longest_view(const script& s);
std::int64_t pages_needed(const script& s, std::int64_t page_size);
// The limits with no more pages than all of them can need at a time, and a few to lose.
model_limits limits_for(model_limits l, const std::vector<request>& all);
// Tokens that the script draws in all branches.
std::int64_t tokens_drawn(const script& s);

}  // namespace engine
