// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// D1, "1000 -> 1": equal requests in batches that never are the same. How many different answers come out?

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "demos.hpp"

namespace engine {
namespace {

using sequence = std::vector<std::int32_t>;

struct outcome {
  std::int64_t sequences = 0, digests = 0;          // different ones
  std::int64_t smallest_variety = 0;                // different batch sizes of the request that saw fewest
  request_digest digest;                            // of the first request
  std::map<std::int64_t, std::int64_t> divergence;  // first token that differs from the most common answer: how often
  std::vector<std::int64_t> unique_by_position;     // different answers up to each position
  server_stats stats;
  double seconds = 0;
};

// `equal` times the first request, then the others.
outcome serve(backend& b, const weights& w, const model_limits& l, const schedule& how, std::int64_t equal,
              const std::vector<request>& requests, progress_bar& bar, const std::string& label) {
  std::int64_t tokens = 0;
  for (const request& r : requests) tokens += tokens_drawn(r.what);
  bar.begin(label, tokens);
  model m(b, w, l);
  server s(m, how, requests);
  const stopwatch watch;
  s.run([&](std::int64_t done) { bar.show(done); });
  outcome o;
  o.seconds = watch.seconds();
  o.stats = s.stats();
  o.digest = s.records().front().digest;
  std::map<sequence, std::int64_t> answers;
  std::set<std::pair<std::uint64_t, std::uint64_t>> digests;
  o.smallest_variety = static_cast<std::int64_t>(s.batch_sizes().front().size());
  for (std::size_t i = 0; i < static_cast<std::size_t>(equal); ++i) {
    ++answers[s.records()[i].tokens()];
    digests.insert({s.records()[i].digest.high, s.records()[i].digest.low});
    o.smallest_variety = std::min(o.smallest_variety, static_cast<std::int64_t>(s.batch_sizes()[i].size()));
  }
  o.sequences = static_cast<std::int64_t>(answers.size());
  o.digests = static_cast<std::int64_t>(digests.size());
  const auto common = std::max_element(answers.begin(), answers.end(),
                                       [](const auto& x, const auto& y) { return x.second < y.second; });
  for (const auto& [answer, count] : answers) {
    const auto [x, y] = std::mismatch(answer.begin(), answer.end(), common->first.begin());
    if (x != answer.end()) o.divergence[x - answer.begin()] += count;
  }
  // In lexicographic order, answers with equal beginnings stand side by side.
  std::vector<std::int64_t> first_difference(common->first.size(), 0);
  for (auto at = answers.begin(); std::next(at) != answers.end(); ++at) {
    const sequence &here = at->first, &next = std::next(at)->first;
    ++first_difference[static_cast<std::size_t>(std::mismatch(here.begin(), here.end(), next.begin()).first -
                                                here.begin())];
  }
  std::int64_t unique = 1;
  for (const std::int64_t n : first_difference) o.unique_by_position.push_back(unique += n);
  return o;
}

std::vector<request> traffic(const d1_form& f, const sampling_mode& mode, std::int64_t equal, std::int64_t tokens,
                             std::int64_t background, std::uint64_t seed, std::int64_t vocab) {
  random_source random(seed);
  const std::vector<std::int32_t> prompt = random_tokens(random, f.prompt, vocab);
  std::vector<request> all(static_cast<std::size_t>(equal), plain_request(prompt, tokens, mode.with(seed)));
  for (std::int64_t i = 0; i < background; ++i) {
    // As many short ones as long ones on a logarithmic scale.
    std::int64_t length = std::int64_t{1}
                          << random.between(0, 62 - __builtin_clzll(static_cast<unsigned long long>(f.longest)));
    length = random.between(length, std::min(2 * length, f.longest) - 1);
    const std::int64_t drawn = random.between(1, std::max<std::int64_t>(1, std::min(length / 2, tokens)));
    const std::int64_t fed = std::max<std::int64_t>(1, length - drawn);
    all.push_back(plain_request(random_tokens(random, fed, vocab), drawn, mode.with(random.next())));
  }
  return all;
}

json describe(const outcome& o) {
  json j = json::object();
  j.set("unique_sequences", o.sequences).set("unique_digests", o.digests).set("digest", hex(o.digest));
  j.set("batch_sizes_seen", o.smallest_variety).set("steps", o.stats.steps).set("rows", o.stats.rows);
  j.set("cached", o.stats.cached).set("recomputed", o.stats.recomputed).set("preemptions", o.stats.preemptions);
  j.set("recomputed_unlike_record", o.stats.unlike_record).set("seconds", o.seconds);
  json histogram = json::array();
  for (const auto& [position, count] : o.divergence) {
    histogram.push(json::object().set("position", position).set("requests", count));
  }
  j.set("first_divergence", histogram);
  json unique = json::array();
  for (const std::int64_t n : o.unique_by_position) unique.push(n);
  return j.set("unique_by_position", unique);
}

void print(const char* mode, const std::string& arm, std::int64_t equal, const outcome& o) {
  const std::string first = o.divergence.empty() ? "-" : "token " + std::to_string(o.divergence.begin()->first);
  std::printf("%-5s %-18s %5lld requests: %5lld answers, %5lld digests, first divergence %-10s %8.1f s\n", mode,
              arm.c_str(), static_cast<long long>(equal), static_cast<long long>(o.sequences),
              static_cast<long long>(o.digests), first.c_str(), o.seconds);
  std::fflush(stdout);
}

}  // namespace

d1_form d1_form::small() {
  d1_form f;
  f.equal = 32;
  f.tokens = f.warm_baseline_tokens = 56;
  f.prompt = 20;
  f.background = 16;
  f.longest = 80;
  f.ablation_equal = 16;
  f.ablation_tokens = 16;
  f.seeds = 24;
  f.seed_tokens = 8;
  f.batch_sizes = 16;
  f.limits = {.rows = 96, .requests = 32, .pages = 200, .page_size = 8, .max_view = 128};
  f.how.preempt_percent = 5;
  f.how.short_percent = 100;
  return f;
}

json run_d1(const host& h, const d1_form& f) {
  const std::unique_ptr<backend> bi = h.make({});
  const weights w(*bi, h.config, h.seed);
  json report = begin_report("d1", h, *bi, w);
  const std::int64_t vocab = h.config.vocab;
  bool passed = true;
  std::int64_t sequences = 0, digests = 0, baseline = f.equal;
  double ratio = 0;
  std::int64_t variety = std::int64_t{1} << 62;
  json modes = json::array();
  schedule how = f.how;
  how.seed = h.seed;
  for (const sampling_mode& mode : {greedy, warm}) {
    json m = json::object();
    m.set("mode", mode.name);
    const std::vector<request> all = traffic(f, mode, f.equal, f.tokens, f.background, h.seed, vocab);
    const std::string label = std::string(mode.name) + ", ";
    const outcome o = serve(*bi, w, f.limits, how, f.equal, all, *h.bar, label + "bi");
    print(mode.name, "bi", f.equal, o);
    schedule calm;
    calm.calm = true;
    const outcome alone = serve(*bi, w, f.limits, calm, 1, {all.front()}, *h.bar, label + "one request alone");
    const bool same = alone.digest == o.digest;
    std::printf("%-5s %-18s     1 request:  %s\n", mode.name, "bi, served alone",
                same ? "the same digest" : "ANOTHER DIGEST");
    const bool timed = mode.temperature == 0;
    const std::int64_t tokens = timed ? f.tokens : f.warm_baseline_tokens;
    const std::unique_ptr<backend> other = h.make({true, true, true});
    const std::vector<request> shorter = traffic(f, mode, f.equal, tokens, f.background, h.seed, vocab);
    const outcome x = serve(*other, w, f.limits, how, f.equal, shorter, *h.bar, label + "baseline");
    print(mode.name, "baseline", f.equal, x);
    m.set("bi", describe(o)).set("equal_to_solo", same).set("baseline", describe(x));
    modes.push(m.set("baseline_tokens", tokens));
    sequences = std::max(sequences, o.sequences);
    digests = std::max(digests, o.digests);
    baseline = std::min(baseline, x.sequences);
    variety = std::min(variety, o.smallest_variety);
    if (timed) ratio = o.seconds / x.seconds;
    passed = passed && o.sequences == 1 && o.digests == 1 && o.stats.unlike_record == 0 && same;
  }
  // One operation alone that follows the batch.
  json ablations = json::array();
  const std::vector<request> fewer =
      traffic(f, greedy, f.ablation_equal, f.ablation_tokens, f.background / 4, h.seed, vocab);
  for (const batch_dependent& d : {batch_dependent{.norm = true}, {.gemm = true}, {.attention = true}}) {
    const std::unique_ptr<backend> swapped = h.make(d);
    const outcome a = serve(*swapped, w, f.limits, how, f.ablation_equal, fewer, *h.bar, arm_name(d));
    print(greedy.name, arm_name(d), f.ablation_equal, a);
    json j = describe(a);
    ablations.push(j.set("arm", arm_name(d)));
  }
  std::vector<request> seeds;
  for (std::int64_t i = 0; i < f.seeds; ++i) {
    const std::uint64_t seed = h.seed + static_cast<std::uint64_t>(i);
    seeds.push_back(traffic(f, warm, 1, f.seed_tokens, 0, h.seed, vocab).front());
    seeds.back().sampling = warm.with(seed);
  }
  const outcome s = serve(*bi, w, f.limits, how, f.seeds, seeds, *h.bar, "seeds");
  std::printf("%-5s %-18s %5lld seeds:    %5lld answers\n", warm.name, "bi", static_cast<long long>(f.seeds),
              static_cast<long long>(s.sequences));
  std::printf("each of the equal requests was part of batches of at least %lld sizes\n",
              static_cast<long long>(variety));
  passed = passed && baseline >= 2 && variety >= f.batch_sizes && s.sequences == f.seeds;
  report.set("passed", passed).set("requests", f.equal).set("tokens", f.tokens);
  report.set("unique_sequences", sequences).set("unique_digests", digests);
  report.set("baseline_unique_sequences", baseline).set("batch_sizes_seen", variety);
  report.set("seeds", f.seeds).set("seed_outputs", s.sequences);
  report.set("time_ratio_to_baseline", ratio).set("modes", modes);
  report.set("ablations", ablations);
  return report;
}

}  // namespace engine
