// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "serving.hpp"

#include <algorithm>
#include <chrono>
#include <set>
#include <tuple>

namespace demo {
namespace {

std::vector<std::int32_t> random_prompt(random_source& random, std::int64_t length, std::int64_t vocab) {
  std::vector<std::int32_t> p(static_cast<std::size_t>(length));
  for (std::int32_t& t : p) t = static_cast<std::int32_t>(random.between(0, vocab - 1));
  return p;
}

// The first index at which two logs differ, or -1.
template <class T>
std::int64_t first_difference(const std::vector<T>& a, const std::vector<T>& b) {
  const auto [x, y] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return x == a.end() && y == b.end() ? -1 : x - a.begin();
}
void keep_first(std::int64_t& first, std::int64_t found) {
  if (found >= 0 && (first < 0 || found < first)) first = found;
}

using full_digest = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;
full_digest digest_of(const sequence& s) { return {s.digest.low, s.digest.high, s.kv_digest}; }

}  // namespace

std::vector<request> make_requests(const traffic& t, const sampling_mode& mode, std::int64_t vocab) {
  random_source random(t.seed);
  request r;
  r.prompt = random_prompt(random, t.prompt, vocab);
  r.new_tokens = t.new_tokens;
  r.sampling.temperature = mode.temperature;
  r.sampling.top_p = mode.top_p;
  r.sampling.top_k = mode.top_k;
  r.sampling.seed = t.seed;
  std::vector<request> all(static_cast<std::size_t>(t.equal), r);
  for (std::int64_t i = 0; i < t.seeds; ++i) {
    r.sampling.seed = t.seed + 1 + static_cast<std::uint64_t>(i);
    all.push_back(r);
  }
  for (std::int64_t i = 0; i < t.background; ++i) {
    r.prompt = random_prompt(random, random.between(1, t.prompt), vocab);
    r.new_tokens = random.between(1, t.new_tokens);
    r.sampling.seed = random.next();
    all.push_back(r);
  }
  return all;
}

std::int64_t tokens_of(const std::vector<request>& requests) {
  std::int64_t sum = 0;
  // The last token is sampled and never fed back.
  for (const request& r : requests) sum += static_cast<std::int64_t>(r.prompt.size()) + r.new_tokens - 1;
  return sum;
}

sequence serve_alone(backend& b, const weights& w, const model_limits& limits, const request& r) {
  model m(b, w, limits);
  schedule calm;
  calm.calm = true;
  const std::vector<request> one = {r};
  engine e(m, calm, one);
  e.run();
  sequence s = e.sequences().front();
  s.what = nullptr;  // `one` ends here
  return s;
}

outcome serve(backend& b, const weights& w, const model_limits& limits, const traffic& t, const sampling_mode& mode,
              const schedule& s, const std::function<void(std::int64_t tokens)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<request> requests = make_requests(t, mode, w.config.vocab);
  model m(b, w, limits);
  engine e(m, s, requests);
  e.run(progress);

  outcome o;
  o.mode = mode.name;
  o.arm = b.name();
  o.stats = e.stats();
  const auto equal = static_cast<std::size_t>(t.equal), seeds = static_cast<std::size_t>(t.seeds);
  const sequence& first = e.sequences().front();
  const std::vector<std::int32_t> completion = first.completion();
  std::set<std::vector<std::int32_t>> completions, seed_completions;
  std::set<full_digest> digests;
  std::set<std::int64_t> sizes;
  for (std::size_t i = 0; i < e.sequences().size(); ++i) {
    const sequence& q = e.sequences()[i];
    for (const std::uint64_t word : {q.digest.low, q.digest.high, q.kv_digest}) {
      o.end_to_end = bi::contract::absorb(o.end_to_end, word);
    }
    if (i < equal) {
      completions.insert(q.completion());
      digests.insert(digest_of(q));
      sizes.insert(q.batch_rows.begin(), q.batch_rows.end());
      keep_first(o.first_logits, first_difference(first.logits_digest, q.logits_digest));
      keep_first(o.first_token, first_difference(completion, q.completion()));
    } else if (i < equal + seeds) {
      seed_completions.insert(q.completion());
    }
  }
  o.completions = static_cast<std::int64_t>(completions.size());
  o.digests = static_cast<std::int64_t>(digests.size());
  o.seed_completions = static_cast<std::int64_t>(seed_completions.size());
  o.batch_sizes = static_cast<std::int64_t>(sizes.size());
  o.smallest_batch = *sizes.begin();
  o.largest_batch = *sizes.rbegin();
  o.request_digest = first.digest;
  o.kv_digest = first.kv_digest;

  o.alone = digests == std::set<full_digest>{digest_of(serve_alone(b, w, limits, requests.front()))};
  const std::vector<std::int32_t> fed(first.tokens.begin(), first.tokens.end() - 1);
  o.prefill = score(m, fed, t.prompt - 1) == first.logits_digest;
  o.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return o;
}

}  // namespace demo
