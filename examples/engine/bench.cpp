// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// How much time the promise takes: the same engine and schedule with bi's operations and with those that follow the
// batch.

#include <algorithm>
#include <cstdio>

#include "demos.hpp"

namespace engine {
namespace {

// The better of two turns, after a short one that loads kernels and records graphs.
double seconds_for(backend& b, const weights& w, const model_limits& l, const std::vector<request>& all,
                   progress_bar& bar, const std::string& label) {
  schedule how;
  how.calm = true;
  how.prefix_cache = false;
  how.pad_to = 8;
  std::vector<request> shorter = all;
  for (request& r : shorter) {
    for (phase& p : r.what) {
      p.sampled = (p.sampled + 7) / 8;
      for (script& s : p.branches) s.front().sampled = (s.front().sampled + 7) / 8;
    }
  }
  std::int64_t tokens = 0;
  for (const request& r : all) tokens += tokens_drawn(r.what);
  bar.begin(label, 2 * tokens);
  model m(b, w, l);
  server(m, how, shorter).run();
  double best = 1e30;
  for (int turn = 0; turn < 2; ++turn) {
    server s(m, how, all);
    const stopwatch watch;
    s.run([&](std::int64_t done) { bar.show(turn * tokens + done); });
    best = std::min(best, watch.seconds());
  }
  return best;
}

std::vector<request> shape(const host& h, std::int64_t count, std::int64_t prompt, std::int64_t tokens) {
  random_source random(h.seed + 6);
  std::vector<request> all;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t drawn = tokens - tokens / 10 + i % std::max<std::int64_t>(1, tokens / 5);  // about as many
    all.push_back(plain_request(random_tokens(random, prompt, h.config.vocab), drawn, warm.with(random.next())));
  }
  return all;
}

}  // namespace

bench_form bench_form::small() {
  bench_form f;
  f.many = 20;
  f.many_prompt = 4;
  f.many_tokens = 10;
  f.long_prompt = 12;
  f.long_tokens = 12;
  f.batches = {4, 8};
  f.branches = {1, 4};
  f.branch_tokens = 12;
  f.most = 0;
  f.limits = {.rows = 64, .requests = 16, .pages = 120, .page_size = 4, .max_view = 128};
  return f;
}

json run_bench(const host& h, const bench_form& f) {
  const std::unique_ptr<backend> bi = h.make({}), other = h.make({true, true, true});
  const weights w(*bi, h.config, h.seed);
  json report = begin_report("bench", h, *bi, w);
  json shapes = json::array();
  double worst = 0;
  const auto measure = [&](const std::string& name, std::int64_t count, std::int64_t running, std::int64_t prompt,
                           std::int64_t tokens) {
    const std::vector<request> all = shape(h, count, prompt, tokens);
    std::int64_t drawn = 0;
    for (const request& r : all) drawn += tokens_drawn(r.what);
    model_limits l = f.limits;
    l.requests = std::min(l.requests, running);
    const double best[] = {seconds_for(*bi, w, l, all, *h.bar, name + ", bi"),
                           seconds_for(*other, w, l, all, *h.bar, name + ", baseline")};
    worst = std::max(worst, best[0] / best[1]);
    json j = json::object();
    j.set("shape", name).set("tokens", drawn).set("seconds", best[0]).set("baseline_seconds", best[1]);
    j.set("tokens_per_second", static_cast<double>(drawn) / best[0]);
    shapes.push(j.set("time_ratio_to_baseline", best[0] / best[1]));
    std::printf("%-44s bi %8.2f s, %9.0f tokens/s; baseline %8.2f s; ratio %.3f\n", name.c_str(), best[0],
                static_cast<double>(drawn) / best[0], best[1], best[0] / best[1]);
    std::fflush(stdout);
  };
  measure(std::to_string(f.many) + " sequences of about " + std::to_string(f.many_tokens) + " tokens", f.many,
          f.limits.requests, f.many_prompt, f.many_tokens);
  for (const std::int64_t batch : f.batches) {
    measure(std::to_string(f.long_prompt) + " in, " + std::to_string(f.long_tokens) + " out, batch " +
                std::to_string(batch),
            batch, batch, f.long_prompt, f.long_tokens);
  }

  json branches = json::array();
  double one = 0;
  random_source random(h.seed);
  const std::vector<std::int32_t> prompt = random_tokens(random, f.long_prompt, h.config.vocab);
  for (const std::int64_t n : f.branches) {
    request r = plain_request(prompt, 1, warm.with(h.seed));
    for (std::int64_t i = 0; i < n; ++i) {
      r.what.front().branches.push_back({{{static_cast<std::int32_t>(i)}, f.branch_tokens, {}, phase::fork::paths}});
    }
    const double best = seconds_for(*bi, w, f.limits, {r}, *h.bar, std::to_string(n) + " branches");
    const double ms = 1e3 * best / static_cast<double>(n * f.branch_tokens);
    one = one == 0 ? ms : one;
    json j = json::object();
    branches.push(j.set("branches", n).set("ms_per_token", ms).set("of_one_branch", ms / one));
    std::printf("%lld branches of one request: %.3f ms a token, %.2f of one branch's\n", static_cast<long long>(n), ms,
                ms / one);
  }
  report.set("passed", f.most == 0 || worst <= f.most).set("time_ratio_to_baseline", worst);
  return report.set("shapes", shapes).set("branches", branches);
}

}  // namespace engine
