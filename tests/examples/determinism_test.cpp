// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The demo in a size that takes a moment: does it keep the promise, and would it see a broken one?

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine.hpp"
#include "invariance.hpp"
#include "options.hpp"
#include "report.hpp"
#include "serving.hpp"
#include "support/catch.hpp"

namespace {

demo::options tiny() {
  demo::options o =
      demo::parse({"--backend=reference", "--layers=1", "--hidden=128", "--heads=2", "--kv-heads=1", "--mlp=128",
                   "--vocab=256", "--equal=6", "--seeds=2", "--background=4", "--prompt=36", "--tokens=12",
                   "--batch-tokens=28", "--batch-requests=6", "--pages=10", "--threads=1"});
  o.how.preempt_percent = 10;
  return o;
}

demo::outcome serve(const demo::options& o, demo::backend& b, const demo::sampling_mode& mode) {
  return demo::serve(b, demo::make_weights(o.model), o.limits, o.serve, mode, o.how);
}

std::string message_of(const std::vector<std::string>& arguments) {
  try {
    (void)demo::parse(arguments);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("demo: equal requests get one digest under every schedule") {
  const auto bi = demo::make_reference(1);
  for (const demo::sampling_mode& mode : {demo::greedy, demo::sampled}) {
    INFO(mode.name);
    demo::options o = tiny();
    const demo::outcome first = serve(o, *bi, mode);
    CHECK(first.held(o.serve));
    CHECK(first.completions == 1);
    CHECK(first.digests == 1);
    CHECK(first.seed_completions == (mode.temperature > 0 ? 2 : 1));
    CHECK(first.stats.preemptions_for_pages > 0);
    CHECK(first.stats.preemptions > first.stats.preemptions_for_pages);
    CHECK(first.batch_sizes >= 12);

    o.how.seed = 99;
    o.limits = {.rows = 61, .requests = 9, .pages = 31, .page_size = 5};
    const demo::outcome second = serve(o, *bi, mode);
    CHECK(second.stats.steps != first.stats.steps);
    CHECK(second.request_digest == first.request_digest);
    CHECK(second.kv_digest == first.kv_digest);
    CHECK(second.end_to_end == first.end_to_end);
  }
}

TEST_CASE("demo: operations that follow the batch are caught") {
  demo::options o = tiny();
  o.model =
      demo::model_config{.layers = 1, .mlp = 1024, .vocab = 64, .max_positions = o.model.max_positions};  // deep sums
  o.serve.seeds = 0;
  o.serve.background = 2;
  o.limits.rows = 90;
  const auto baseline = demo::make_baseline(1);
  const demo::outcome x = serve(o, *baseline, demo::greedy);
  CHECK(x.digests > 1);
  CHECK(x.first_logits >= 0);
  CHECK_FALSE(x.held(o.serve));

  demo::results r;
  r.outcomes = {x};
  CHECK(demo::held(r, o.serve));  // the baseline has no say
  r.outcomes.front().arm = "bi";
  CHECK_FALSE(demo::held(r, o.serve));
}

TEST_CASE("demo: operations alone and in batches") {
  const auto bi = demo::make_reference(1), baseline = demo::make_baseline(1);
  demo::model_config c = tiny().model;
  std::int64_t caught = 0;
  for (const demo::invariance& i : demo::check_operations(*bi, baseline.get(), c, 1, 2)) {
    INFO(i.operation);
    CHECK(i.batches == 2);
    CHECK(i.differs == 0);
    caught += i.baseline_differs > 0 ? 1 : 0;
  }
  CHECK(caught >= 2);
}

TEST_CASE("demo: the engine computes each token once, and pages have one owner") {
  const demo::options o = tiny();
  const auto bi = demo::make_reference(1);
  const demo::weights w = demo::make_weights(o.model);
  demo::model m(*bi, w, o.limits);
  const std::vector<demo::request> requests = demo::make_requests(o.serve, demo::sampled, o.model.vocab);
  demo::engine e(m, o.how, requests);
  bool shared = false, beyond = false;
  while (e.step()) {
    std::set<std::int32_t> seen;
    for (const demo::sequence& s : e.sequences()) {
      for (const std::int32_t page : s.pages) shared = shared || !seen.insert(page).second;
      beyond = beyond ||
               s.computed > static_cast<std::int64_t>(s.pages.size()) * o.limits.page_size + (s.finished ? 999 : 0);
    }
  }
  CHECK_FALSE(shared);
  CHECK_FALSE(beyond);
  std::int64_t once = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const demo::sequence& s = e.sequences()[i];
    CHECK(s.finished);
    CHECK(s.pages.empty());
    CHECK(static_cast<std::int64_t>(s.completion().size()) == requests[i].new_tokens);
    CHECK(s.most_computed == static_cast<std::int64_t>(s.tokens.size()) - 1);
    once += s.most_computed;
  }
  CHECK(once == demo::tokens_of(requests));
  CHECK(e.stats().rows == once + e.stats().recomputed);
  CHECK(e.stats().recomputed > 0);
  CHECK_FALSE(e.step());

  std::vector<demo::request> too_long = requests;
  too_long.back().new_tokens = 1000;
  CHECK_THROWS_AS(demo::engine(m, o.how, too_long), std::invalid_argument);
}

TEST_CASE("demo: the page pool notices wrong owners") {
  demo::random_source random(1);
  demo::page_pool pool(3, random);
  const demo::sequence a, b;
  std::vector<std::int32_t> pages = {pool.take(a), pool.take(a), pool.take(a)};
  CHECK(pool.empty());
  CHECK(std::set<std::int32_t>(pages.begin(), pages.end()).size() == 3);
  CHECK_THROWS_AS(pool.take(b), std::logic_error);
  std::vector<std::int32_t> twice = pages;
  CHECK_THROWS_AS(pool.give_back(twice, b), std::logic_error);
  pool.give_back(pages, a);
  CHECK(pages.empty());
  CHECK_THROWS_AS(pool.give_back(twice, a), std::logic_error);
}

TEST_CASE("demo: digests are saved and compared") {
  demo::options o = tiny();
  const demo::weights w = demo::make_weights(o.model);
  demo::results r;
  demo::outcome x;
  x.mode = demo::greedy.name;
  x.arm = "reference";
  x.request_digest = {1, 2};
  r.outcomes = {x};
  const std::string file =
      (std::filesystem::temp_directory_path() / ("bi-determinism-" + std::to_string(std::random_device{}()))).string();
  demo::save_record(file, demo::make_record(o, w, r));
  const demo::record saved = demo::load_record(file);
  CHECK(demo::difference(demo::make_record(o, w, r), saved).empty());
  CHECK(demo::difference(demo::make_record(o, w), saved).empty());

  o.how.seed = 7;  // the schedule is free
  o.limits.pages = 77;
  CHECK(demo::difference(demo::make_record(o, w, r), saved).empty());

  r.outcomes.front().request_digest.low ^= 1;
  CHECK(demo::difference(demo::make_record(o, w), saved).empty());
  CHECK(demo::difference(demo::make_record(o, w, r), saved).find("digest T=0 request is ") == 0);
  o.serve.seed = 7;
  CHECK(demo::difference(demo::make_record(o, w), saved).find("traffic is ") == 0);
  CHECK(demo::difference(saved, {}) == "it ends before format");

  demo::write_file(file, "something else\n");
  CHECK_THROWS_AS(demo::load_record(file), std::invalid_argument);
  std::remove(file.c_str());
  CHECK_THROWS_AS(demo::load_record(file), std::invalid_argument);
}

TEST_CASE("demo: the report") {
  const demo::options o = tiny();
  demo::results r;
  r.operations = {{"gemm", 4, 1, -1}};
  r.checks = {{"a \"quoted\" check", true}};
  CHECK(demo::json_text(o, {}, r).find("\"a \\\"quoted\\\" check\": true") != std::string::npos);
  CHECK(demo::results_text(o, r).find("1 of 4 DIFFER") != std::string::npos);
  CHECK(demo::results_text(o, r).find("THE PROMISE DID NOT HOLD") != std::string::npos);
  CHECK_FALSE(demo::held(r, o.serve));
}

TEST_CASE("demo: options") {
  CHECK(demo::parse({"--equal", "17"}).serve.equal == 17);
  CHECK(demo::parse({"--equal=17", "--save=a=b"}).save == "a=b");
  CHECK(demo::parse({"--help"}).help);
  CHECK(demo::parse({"--prompt=10", "--tokens=20"}).model.max_positions == 30);
  CHECK(demo::usage().find("--schedule-seed") != std::string::npos);
  CHECK(message_of({"--equal", "x"}) == "--equal = \"x\" must be a number from 2 to 100000");
  CHECK(message_of({"--equal=1"}) == "--equal = \"1\" must be a number from 2 to 100000");
  CHECK(message_of({"--equal"}) == "--equal needs a value");
  CHECK(message_of({"--save="}) == "--save needs a value");
  CHECK(message_of({"--nonsense=1"}) == "there is no option --nonsense");
  CHECK(message_of({"--heads=3"}) == "--heads = 3 must be a multiple of --kv-heads = 2");
  CHECK(message_of({"--head-dim=65"}) == "--head-dim = 65 must be 64, 128 or 256");
  CHECK(message_of({"--pages=1"}).find("--pages = 1 must be at least") == 0);
  CHECK(message_of({"--backend=tpu"}) == "--backend = \"tpu\" must be reference or gpu");
}
