// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// D2, "lossless merge": Map, Process, Reduce. Branches run in any order, beside anything, are thrown out and computed
// again; what comes out is one digest of tokens, logits, K and V.

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "demos.hpp"

namespace engine {
namespace {

using digest_set = std::set<std::string>;

// Tokens that a script forces stand for what a model would emit as tags, outlines and goals. Equal lengths have equal
// tokens: a cache that looked at tokens alone would confuse them.
std::vector<std::int32_t> control_tokens(std::int64_t count, std::int64_t vocab) {
  random_source random(77);
  return random_tokens(random, count, vocab);
}

struct workload {
  std::vector<request> tested, others;
};
workload make_workload(const host& h, const d2_form& f) {
  random_source random(h.seed + 2);
  const std::int64_t vocab = h.config.vocab;
  const auto path = [&](std::int64_t length) {
    const std::int64_t drawn = std::min(length - 1, f.drawn);
    return script{{control_tokens(length - drawn, vocab), drawn, {}, phase::fork::paths}};
  };
  const auto conclusion = [&](std::int64_t drawn) {
    return phase{control_tokens(2, vocab), drawn, {}, phase::fork::paths};
  };
  workload w;
  request r;

  // Ragged branches, and a second block of some of the same lengths.
  r.sampling = warm.with(h.seed);
  phase map{random_tokens(random, f.prompt, vocab), 4, {}, phase::fork::paths}, again = conclusion(f.drawn);
  for (const std::int64_t n : f.lengths) map.branches.push_back(path(n));
  for (std::size_t i = f.lengths.size() - std::min<std::size_t>(3, f.lengths.size()); i < f.lengths.size(); ++i) {
    again.branches.push_back(path(f.lengths[i]));
  }
  r.what = {map, again, conclusion(f.drawn)};
  w.tested.push_back(r);

  // Many branches, greedy.
  r.sampling = greedy.with(0);
  map = {random_tokens(random, f.prompt / 2 + 1, vocab), 2, {}, phase::fork::paths};
  for (std::int64_t i = 0; i < f.wide; ++i) map.branches.push_back(path(1 + i * f.drawn / f.wide + i % 3));
  r.what = {map, conclusion(f.drawn)};
  w.tested.push_back(r);

  // Branches of branches of branches.
  r.sampling = warm.with(h.seed + 1);
  script deep = path(f.drawn + 2);
  for (int depth = 0; depth < 3; ++depth) {
    phase fork{control_tokens(3 + depth, vocab), std::max<std::int64_t>(1, f.drawn / 4), {}, phase::fork::paths};
    fork.branches = {deep, path(f.drawn / 2 + depth + 1)};
    deep = {fork, conclusion(std::max<std::int64_t>(1, f.drawn / 4))};
  }
  deep.front().forced = random_tokens(random, f.prompt / 3 + 1, vocab);
  r.what = deep;
  w.tested.push_back(r);

  // Samples of one prompt.
  map = {random_tokens(random, f.prompt, vocab), 2, {}, phase::fork::samples};
  for (std::int64_t i = 0; i < f.samples; ++i) {
    map.branches.push_back({{control_tokens(1, vocab), f.sample_tokens, {}, phase::fork::paths}});
  }
  r.what = {map};
  w.tested.push_back(r);

  for (std::int64_t i = 0; i < f.most_others; ++i) {
    const std::vector<std::int32_t> prompt = random_tokens(random, random.between(1, f.other_prompt), vocab);
    w.others.push_back(plain_request(prompt, random.between(1, f.other_tokens), warm.with(random.next())));
  }
  return w;
}

struct plan {
  schedule how;
  model_limits limits;
  std::int64_t others = 0;
};
// Every second one throws segments out, every fourth one falls back.
plan draw_plan(random_source& random, const d2_form& f, std::int64_t number) {
  using order = schedule::order;
  plan p;
  p.limits = f.limits;
  p.limits.page_size =
      f.page_sizes[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(f.page_sizes.size()) - 1))];
  p.limits.pages = f.cache_tokens / p.limits.page_size;
  if (random.chance(30)) p.limits.rows = std::max<std::int64_t>(p.limits.rows / 8, 24);
  p.how.seed = random.next();
  p.how.branches = static_cast<order>(random.between(0, 3));
  p.how.chunk = random.chance(50) ? 0 : random.between(16, p.limits.rows);
  p.how.arrival_gap = random.between(0, 1);
  p.how.short_percent = random.chance(50) ? 100 : 25;
  p.how.preempt_percent = random.chance(50) ? 0 : 4;
  p.how.evict_percent = number % 2 == 0 ? 0 : 8;
  p.how.fallback_percent = number % 4 == 1 ? 100 : 0;
  p.how.prefix_cache = random.chance(70);
  p.how.grouped = random.chance(50);
  p.how.pad_to = random.chance(50) ? 0 : std::int64_t{1} << random.between(0, 4);
  p.how.checked = random.chance(50) ? schedule::check::reduce : schedule::check::off;
  p.others = random.chance(20) ? 0 : random.between(0, f.most_others);
  return p;
}

// The same vote and the same best sample, wherever and whenever the samples ran.
std::int32_t vote(const request_record& r) {
  std::map<std::int32_t, std::int64_t> votes;
  std::vector<std::int32_t> answers;  // of each sample: an answer is one of four
  for (std::size_t i = 1; i < r.branches.size(); ++i) {
    answers.push_back(r.branches[i].steps.back().token % 4);
    ++votes[answers.back()];
  }
  std::int32_t best = answers.front();  // on a tie the one that a sample of a smaller index gave
  for (const std::int32_t a : answers) best = votes[a] > votes[best] ? a : best;
  return best;
}
std::size_t best_sample(const request_record& r) {
  std::size_t best = 1;
  const auto sum = [&](std::size_t i) {
    double s = 0;
    for (const step_record& x : r.branches[i].steps) s += static_cast<double>(x.logprob);
    return s;
  };
  for (std::size_t i = 2; i < r.branches.size(); ++i) best = sum(i) > sum(best) ? i : best;
  return best - 1;
}

struct totals {
  digest_set digests;  // of all tested requests together
  std::map<std::size_t, digest_set> others;
  server_stats stats;
  std::int64_t recomputed_uninvited = 0;  // by schedules that throw nothing out
  std::int64_t fallback_events = 0;
  std::set<std::pair<std::int32_t, std::size_t>> votes;
  std::set<std::vector<std::int32_t>> samples;
};

void serve(backend& b, const weights& w, const workload& load, const plan& p, const server::mistakes& mistake,
           totals& t) {
  model m(b, w, p.limits);
  std::vector<request> all = load.tested;
  all.insert(all.end(), load.others.begin(), load.others.begin() + static_cast<std::ptrdiff_t>(p.others));
  server s(m, p.how, all);
  s.mistake = mistake;
  s.run();
  std::string together;
  std::int64_t computed = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const request_record& r = s.records()[i];
    for (const branch_record& x : r.branches) {
      for (const segment_record& g : x.segments) computed += g.computed;
    }
    for (const std::string& e : r.events) t.fallback_events += e.rfind("fallback", 0) == 0 ? 1 : 0;
    if (i < load.tested.size()) {
      together += hex(r.digest);
    } else {
      t.others[i].insert(hex(r.digest));
    }
  }
  t.digests.insert(together);
  const request_record& sampled = s.records()[load.tested.size() - 1];
  t.votes.insert({vote(sampled), best_sample(sampled)});
  for (std::size_t i = 1; i < sampled.branches.size(); ++i) {
    std::vector<std::int32_t> tokens;
    for (const step_record& x : sampled.branches[i].steps) tokens.push_back(x.token);
    t.samples.insert(tokens);
  }
  const server_stats& x = s.stats();
  // Each token is computed once, or found in the cache, or was thrown out before.
  if (x.recomputed == 0) t.recomputed_uninvited += x.rows + x.cached - computed;
  for (auto field :
       {&server_stats::steps, &server_stats::rows, &server_stats::cached, &server_stats::recomputed,
        &server_stats::preemptions, &server_stats::evictions, &server_stats::forks, &server_stats::reduces,
        &server_stats::fallbacks, &server_stats::checks, &server_stats::repairs, &server_stats::unlike_record}) {
    t.stats.*field += x.*field;
  }
}

}  // namespace

d2_form d2_form::small() {
  d2_form f;
  f.schedules = 16;
  f.most_others = 12;
  f.other_tokens = 6;
  f.other_prompt = 12;
  f.prompt = 21;
  f.drawn = 5;
  f.lengths = {1, 15, 16, 17, 40};
  f.wide = 6;
  f.samples = 4;
  f.sample_tokens = 6;
  f.controls = 2;
  f.page_sizes = {3, 8, 16};
  f.limits = {.rows = 96, .requests = 24, .pages = 0, .page_size = 0, .max_view = 256};
  f.cache_tokens = 900;
  return f;
}

json run_d2(const host& h, const d2_form& f) {
  const std::unique_ptr<backend> bi = h.make({});
  const weights w(*bi, h.config, h.seed);
  json report = begin_report("d2", h, *bi, w);
  const workload load = make_workload(h, f);

  // The first schedule throws nothing out: what is computed is computed once.
  random_source random(h.seed);
  totals t;
  plan calm = draw_plan(random, f, 0);
  calm.how = {};
  calm.how.calm = true;
  calm.how.prefix_cache = false;
  calm.others = 0;
  h.bar->begin("schedules", f.schedules);
  const stopwatch watch;
  serve(*bi, w, load, calm, {}, t);
  for (std::int64_t i = 1; i < f.schedules; ++i) {
    serve(*bi, w, load, draw_plan(random, f, i), {}, t);
    h.bar->show(i + 1);
  }
  const double seconds = watch.seconds();
  bool others = true;
  for (const auto& [number, digests] : t.others) others = others && digests.size() == 1;
  const bool merged = t.digests.size() == 1 && t.votes.size() == 1 && others && t.recomputed_uninvited == 0 &&
                      t.stats.unlike_record == 0 && t.stats.repairs == 0 && t.stats.reduces > 0 &&
                      t.fallback_events > 0 && t.stats.evictions > 0;
  const auto samples = static_cast<std::int64_t>(t.samples.size());
  std::printf(
      "%lld schedules: %zu digest%s of tokens, logits, K and V; %lld joins, %lld evictions, %lld preemptions, %lld "
      "fallbacks to one branch at a time\n",
      static_cast<long long>(f.schedules), t.digests.size(), t.digests.size() == 1 ? "" : "s",
      static_cast<long long>(t.stats.reduces), static_cast<long long>(t.stats.evictions),
      static_cast<long long>(t.stats.preemptions), static_cast<long long>(t.stats.fallbacks));
  std::printf(
      "tokens computed again where nothing was thrown out: %lld; %lld samples of one prompt gave %lld answers, one "
      "vote\n",
      static_cast<long long>(t.recomputed_uninvited), static_cast<long long>(f.samples),
      static_cast<long long>(samples));

  // What must fail.
  json controls = json::object();
  bool caught = true;
  const auto control = [&](const char* name, const batch_dependent& d, const server::mistakes& mistake) {
    const std::unique_ptr<backend> b = h.make(d);
    random_source again(h.seed + 5);
    totals x;
    if (!d.any()) x.digests = t.digests;
    for (std::int64_t i = 0; i < f.controls; ++i) {
      plan p = draw_plan(again, f, i);
      p.how.prefix_cache = true;
      p.how.checked = schedule::check::off;
      serve(*b, w, load, p, mistake, x);
    }
    controls.set(name, static_cast<std::int64_t>(x.digests.size()));
    caught = caught && x.digests.size() >= 2;
    std::printf("%-42s %zu digests\n", name, x.digests.size());
  };
  control("batch-dependent operations", {true, true, true}, {});
  control("branches joined in another order", {}, {.swap_branches = true});
  control("a cache whose keys are tokens alone", {}, {.token_keys = true});
  control("one stream of noise for all branches", {}, {.one_stream = true});

  report.set("passed", merged && caught && samples == f.samples).set("schedules", f.schedules);
  report.set("unique_digests", static_cast<std::int64_t>(t.digests.size())).set("digest", *t.digests.begin());
  // The backend has no operation that could copy K or V.
  report.set("kv_bytes_copied_at_reduce", 0).set("tokens_recomputed_without_eviction", t.recomputed_uninvited);
  report.set("reduces", t.stats.reduces).set("evictions", t.stats.evictions).set("preemptions", t.stats.preemptions);
  report.set("fallbacks", t.stats.fallbacks).set("consistency_checks", t.stats.checks);
  report.set("tokens_computed", t.stats.rows).set("tokens_from_the_cache", t.stats.cached);
  report.set("other_requests_with_one_digest", others).set("samples", f.samples).set("different_samples", samples);
  report.set("seconds", seconds).set("control_digests", controls);
  return report;
}

}  // namespace engine
