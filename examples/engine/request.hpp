// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bi/contract/digest.hpp"
#include "bi/sample.hpp"

namespace engine {

using bi::contract::request_digest;

// What a request or branch does, one phase after the other: `forced` tokens (a prompt, control tokens) are fed, then
// `sampled` tokens are drawn one by one, then the view forks into branches, each with a script of its own. Models that
// emit control tokens decide this as they go; models of random weights need it said.
//
//   paths    each branch sees what the parent saw and itself, begins at the parent's next position and draws with its own
//            path. When all have ended, the next phase sees the branches' tokens in the order of the branches and begins
//            at the largest position that any has reached: Map, Process, Reduce.
//   samples  as paths, but branches are samples of one prompt: same path, own sample index. Nothing joins them.
struct phase {
  enum class fork { paths, samples };
  std::vector<std::int32_t> forced;
  std::int64_t sampled = 0;
  std::vector<std::vector<phase>> branches;
  fork kind = fork::paths;
};
using script = std::vector<phase>;

struct request {
  script what;
  bi::sample_params sampling;  // ordinal, branch and sample_index are the server's to fill in
};

// A plain request.
inline request plain_request(std::vector<std::int32_t> prompt, std::int64_t new_tokens, const bi::sample_params& p) {
  request r;
  r.what.push_back({std::move(prompt), new_tokens, {}, phase::fork::paths});
  r.sampling = p;
  return r;
}

// What the server noted down about one stretch of tokens that follow one another.
struct segment_record {
  std::int64_t first_position = 0;
  std::vector<std::int32_t> tokens;
  std::int64_t computed = 0;          // of them, those with K and V
  std::vector<std::uint64_t> kv;      // [layers] digests of these
  std::vector<std::uint64_t> row_kv;  // [computed, layers] each token's part, where the schedule asks for it
};
struct step_record {
  std::int32_t token = 0;
  float logprob = 0;
  std::uint64_t logits = 0;  // digest of the row that the token was drawn from
};
struct branch_record {
  std::string name;  // "", "0", "0.2", ...: the indices that lead to it
  std::vector<segment_record> segments;
  std::vector<step_record> steps;
  std::vector<std::int32_t> step_position;
  request_digest digest;  // at its end
};
struct request_record {
  std::vector<branch_record> branches;  // in the order of the tree, parents first
  std::vector<std::string> events;      // what happened to it, not what it computed
  request_digest digest;                // of all that it computed

  std::vector<std::int32_t> tokens() const {  // drawn, in the order of branches and steps
    std::vector<std::int32_t> all;
    for (const branch_record& b : branches) {
      for (const step_record& s : b.steps) all.push_back(s.token);
    }
    return all;
  }
};

// All that a request's results may depend on: weights, contracts, sampling parameters and what it does.
std::uint64_t header_of(std::uint64_t identity, const request& r);
// Digest of chain, tokens and KV of all branches.
request_digest digest_of(const request_record& r);

}  // namespace engine
