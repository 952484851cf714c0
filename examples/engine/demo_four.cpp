// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// D4, "KL = 0": what was drawn token by token is scored by one prefill, as a trainer does. In reinforcement learning the
// two must be one policy.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bi/contract/arithmetic.hpp"
#include "demos.hpp"
#include "score.hpp"

namespace engine {
namespace {

struct agreement {
  std::int64_t tokens = 0, other_bytes = 0, other_logits = 0;
  double largest = 0, kl = 0;  // kl: mean of the sampler's log-probability minus the scorer's
  double seconds_drawn = 0, seconds_scored = 0;
};

// A third of the samples think in branches.
std::vector<request> samples(const host& h, std::int64_t count, std::int64_t tokens, std::int64_t prompt) {
  random_source random(h.seed + 4);
  std::vector<request> all;
  for (std::int64_t i = 0; i < count; ++i) {
    const bi::sample_params p = (i % 4 == 3 ? greedy : warm).with(random.next());
    const auto fed = [&](std::int64_t n) { return random_tokens(random, n, h.config.vocab); };
    if (i % 3 != 2) {
      all.push_back(plain_request(fed(random.between(1, prompt)), tokens, p));
      continue;
    }
    const std::int64_t part = std::max<std::int64_t>(1, tokens / 8);
    phase map{fed(prompt), part, {}, phase::fork::paths}, inner{fed(3), part, {}, phase::fork::paths};
    inner.branches = {{{fed(2), part, {}, phase::fork::paths}},
                      {{fed(2), random.between(1, part), {}, phase::fork::paths}}};
    map.branches = {{{fed(2), part, {}, phase::fork::paths}},
                    {inner, {fed(1), random.between(1, part), {}, phase::fork::paths}},
                    {{fed(2), random.between(1, part), {}, phase::fork::paths}}};
    request r;
    r.sampling = p;
    r.what = {map, {fed(2), part, {}, phase::fork::paths}};
    all.push_back(std::move(r));
  }
  return all;
}

agreement compare(const host& h, backend& b, const weights& w, const model_limits& l, const std::vector<request>& all) {
  schedule how;
  how.seed = h.seed;
  how.pad_to = 8;
  agreement a;
  std::vector<request_record> records;
  {
    model m(b, w, l);
    server s(m, how, all);
    std::int64_t tokens = 0;
    for (const request& r : all) tokens += tokens_drawn(r.what);
    h.bar->begin("drawing, " + b.name(), tokens);
    const stopwatch watch;
    s.run([&](std::int64_t done) { h.bar->show(done); });
    a.seconds_drawn = watch.seconds();
    records = s.records();
  }
  model m(b, w, l);
  h.bar->begin("scoring, " + b.name(), static_cast<std::int64_t>(all.size()));
  const stopwatch watch;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::vector<step_record> scored = score(m, all[i], records[i]);
    std::size_t next = 0;
    for (const branch_record& branch : records[i].branches) {
      for (const step_record& drawn : branch.steps) {
        const step_record& s = scored.at(next++);
        const double difference = static_cast<double>(drawn.logprob) - static_cast<double>(s.logprob);
        ++a.tokens;
        a.other_bytes += bi::bits_of(drawn.logprob) != bi::bits_of(s.logprob) ? 1 : 0;
        a.other_logits += drawn.logits != s.logits ? 1 : 0;
        a.largest = std::max(a.largest, std::abs(difference));
        a.kl += difference;
      }
    }
    if (next != scored.size()) throw std::logic_error("score: more steps than were drawn");
    h.bar->show(static_cast<std::int64_t>(i + 1));
  }
  a.seconds_scored = watch.seconds();
  a.kl /= static_cast<double>(std::max<std::int64_t>(a.tokens, 1));
  std::printf(
      "%-10s %8lld tokens drawn and scored: log-probabilities differ at %lld, largest difference %.3g, KL %.3g\n",
      b.name().c_str(), static_cast<long long>(a.tokens), static_cast<long long>(a.other_bytes), a.largest, a.kl);
  std::fflush(stdout);
  return a;
}

json describe(const agreement& a) {
  json j = json::object();
  j.set("tokens", a.tokens).set("logprobs_that_differ", a.other_bytes).set("logits_that_differ", a.other_logits);
  j.set("largest_difference", a.largest).set("kl", a.kl);
  return j.set("seconds_drawn", a.seconds_drawn).set("seconds_scored", a.seconds_scored);
}

}  // namespace

d4_form d4_form::small() {
  d4_form f;
  f.sequences = 9;
  f.tokens = 64;
  f.prompt = 30;
  f.baseline_sequences = 6;
  f.baseline_tokens = 32;
  f.limits = {.rows = 64, .requests = 16, .pages = 200, .page_size = 8, .max_view = 256};
  return f;
}

json run_d4(const host& h, const d4_form& f) {
  const std::unique_ptr<backend> bi = h.make({}), other = h.make({true, true, true});
  const weights w(*bi, h.config, h.seed);
  json report = begin_report("d4", h, *bi, w);
  const agreement a = compare(h, *bi, w, f.limits, samples(h, f.sequences, f.tokens, f.prompt));
  const agreement x = compare(h, *other, w, f.limits, samples(h, f.baseline_sequences, f.baseline_tokens, f.prompt));
  report.set("passed", a.tokens > 0 && a.other_bytes == 0 && a.other_logits == 0 && x.other_bytes > 0);
  report.set("sequences", f.sequences).set("tokens", a.tokens).set("largest_difference", a.largest).set("kl", a.kl);
  report.set("baseline_largest_difference", x.largest).set("baseline_kl", x.kl);
  return report.set("bi", describe(a)).set("baseline", describe(x));
}

}  // namespace engine
