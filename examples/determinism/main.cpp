// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A small server: many equal requests among others, in batches whose sizes change at every step. How many different
// answers come out? Start reading at model.cpp (what is computed) and engine.cpp (when).

#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.hpp"
#include "invariance.hpp"
#include "options.hpp"
#include "report.hpp"
#include "serving.hpp"

namespace demo {
namespace {

struct arms {
  std::unique_ptr<backend> bi, baseline;
};
arms make_arms(const options& o) {
#ifdef DETERMINISM_GPU
  if (o.backend == "gpu") return {make_gpu(), o.baseline ? make_gpu_baseline() : nullptr};
#endif
  return {make_reference(o.threads), o.baseline ? make_baseline(o.threads) : nullptr};
}

results run(const options& o, const weights& w) {
  const auto start = std::chrono::steady_clock::now();
  const arms a = make_arms(o);
  results r;
  const std::int64_t tokens = tokens_of(make_requests(o.serve, greedy, o.model.vocab));
  progress_bar bar(tokens * (o.baseline ? 4 : 2));
  for (const sampling_mode& mode : {greedy, sampled}) {
    for (backend* b : {a.bi.get(), a.baseline.get()}) {
      if (b == nullptr) continue;
      const std::string label = std::string(mode.name) + ", " + (b == a.bi.get() ? "bi" : b->name());
      r.outcomes.push_back(
          serve(*b, w, o.limits, o.serve, mode, o.how, [&](std::int64_t done) { bar.show(label, done); }));
      bar.finish_part(tokens);
    }
    if (o.backend == "reference") continue;
    const std::unique_ptr<backend> cpu = make_reference(o.threads);
    const request equal = make_requests(o.serve, mode, o.model.vocab).front();
    const sequence alone = serve_alone(*cpu, w, o.limits, equal);
    const outcome& served = r.outcomes[r.outcomes.size() - (o.baseline ? 2 : 1)];
    r.checks.emplace_back(std::string("the CPU reference gives the same digest at ") + mode.name,
                          alone.digest == served.request_digest && alone.kv_digest == served.kv_digest);
  }
  r.operations = check_operations(*a.bi, a.baseline.get(), o.model, o.how.seed);
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

int main(const std::vector<std::string>& arguments) {
  const options o = parse(arguments);
  if (o.help) {
    std::fputs(usage().c_str(), stdout);
    return 0;
  }
  const weights w = make_weights(o.model);
  record theirs;
  if (!o.check.empty()) {
    theirs = load_record(o.check);
    const std::string other = difference(make_record(o, w), theirs);
    if (!other.empty()) throw std::invalid_argument("can't compare with " + o.check + ": " + other);
  }
  std::fputs(header_text(o, w).c_str(), stdout);
  std::fflush(stdout);
  results r = run(o, w);

  const record ours = make_record(o, w, r);
  if (!o.check.empty()) {
    const std::string other = difference(ours, theirs);
    r.checks.emplace_back(other.empty() ? "the digests are those of " + o.check : "unlike " + o.check + ": " + other,
                          other.empty());
  }
  if (!o.save.empty()) save_record(o.save, ours);
  if (!o.json.empty()) write_file(o.json, json_text(o, w, r));
  std::fputs(results_text(o, r).c_str(), stdout);
  return held(r, o.serve) ? 0 : 1;
}

}  // namespace
}  // namespace demo

int main(int argc, char** argv) {
  try {
    return demo::main({argv + 1, argv + argc});
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "determinism: %s (--help lists the options)\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "determinism: %s\n", e.what());
    return 1;
  }
}
