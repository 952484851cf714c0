// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The engine's parts on a model of a few thousand weights: do they keep the promise, and would they see a broken one?

#include <cstdint>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "engine/audit.hpp"
#include "engine/config.hpp"
#include "engine/json.hpp"
#include "engine/options.hpp"
#include "engine/pages.hpp"
#include "engine/report.hpp"
#include "engine/score.hpp"
#include "engine/server.hpp"
#include "engine/weights.hpp"
#include "support/catch.hpp"

namespace {

namespace e = engine;

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const std::exception& x) {
    return x.what();
  }
  return "";
}

std::string parse_error(const std::string& text) {
  return message_of([&] { (void)e::parse_json(text, "f"); });
}

const std::string tiny_text = R"({"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "intermediate_size": 64, "vocab_size": 64,
  "max_position_embeddings": 512, "rope_theta": 10000, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
  "initializer_range": 0.3})";

std::string with(const std::string& from, const std::string& to) {
  std::string s = tiny_text;
  s.replace(s.find(from), from.size(), to);
  return s;
}
std::string config_error(const std::string& text) {
  return message_of([&] { (void)e::read_config(text, "f"); });
}

struct world {
  std::unique_ptr<e::backend> b = e::make_reference(1);
  e::weights w{*b, e::read_config(tiny_text, "tiny"), 1};
  e::model_limits limits{.rows = 40, .requests = 8, .pages = 60, .page_size = 4, .max_view = 128};

  std::vector<e::request_record> serve(const std::vector<e::request>& all, const e::schedule& s) {
    e::model m(*b, w, limits);
    e::server v(m, s, all);
    v.run();
    stats = v.stats();
    return v.records();
  }
  e::server_stats stats;
};

e::schedule calm() {
  e::schedule s;
  s.calm = true;
  return s;
}

bi::sample_params warm(std::uint64_t seed) {
  bi::sample_params p;
  p.temperature = 1;
  p.top_k = 20;
  p.seed = seed;
  return p;
}

e::script path(const std::vector<std::int32_t>& forced, std::int64_t sampled) {
  return {{forced, sampled, {}, e::phase::fork::paths}};
}
// Two branches, one of which forks again, and a conclusion.
e::request branching() {
  e::request r;
  r.sampling = warm(3);
  e::phase inner{{4, 5}, 2, {path({6}, 0), path({7}, 9)}, e::phase::fork::paths};
  e::phase map{
      {1, 2, 3, 1, 2, 3, 1}, 3, {path({8}, 5), {inner, {{9}, 2, {}, e::phase::fork::paths}}}, e::phase::fork::paths};
  r.what = {map, {{10, 11}, 6, {}, e::phase::fork::paths}};
  return r;
}

}  // namespace

TEST_CASE("engine: json reads what it wrote") {
  const std::string text =
      R"({"a": [1, -2.5e3, true, false, null, "x\"\\\n\u00e9\ud83d\ude00"], "b": {}, "c": [], "d": {"e": [[0]]}})";
  const e::json j = e::parse_json(text, "f");
  CHECK(j.at("a").items().size() == 6);
  CHECK(j.at("a").items()[0].integer() == 1);
  CHECK(j.at("a").items()[1].real() == -2500.0);
  CHECK(j.at("a").items()[2].boolean());
  CHECK(j.at("a").items()[4].is_null());
  CHECK(j.at("a").items()[5].text() == "x\"\\\n\xc3\xa9\xf0\x9f\x98\x80");
  CHECK(j.find("z") == nullptr);
  CHECK(e::parse_json(j.dump(), "f").dump() == j.dump());
  CHECK(e::parse_json(j.pretty(), "f").dump() == j.dump());
  CHECK(e::json(0.1).dump() == "0.1");
  CHECK(e::json(std::int64_t{1} << 62).dump() == "4611686018427387904");
  CHECK(e::json(std::uint64_t{0} - 1).dump() == "18446744073709551615");
  CHECK(e::json(1.0 / 0.0).is_null());
  e::json o = e::json::object();
  o.set("x", 1).set("y", "z").set("x", 2);
  CHECK(o.dump() == R"({"x": 2, "y": "z"})");
}

TEST_CASE("engine: json refuses what is none") {
  CHECK(parse_error("") == "f, line 1: no value begins here");
  CHECK(parse_error("[1,\n2,]") == "f, line 2: no value begins here");
  CHECK(parse_error("[1 2]") == "f, line 1: an array must go on with a comma or end with ]");
  CHECK(parse_error("{\"a\" 1}") == "f, line 1: a colon must follow the name \"a\"");
  CHECK(parse_error("{\"a\": 1 \"b\": 2}") == "f, line 1: an object must go on with a comma or end with }");
  CHECK(parse_error("{\"a\": 1, \"a\": 2}") == "f, line 1: the name \"a\" stands twice");
  CHECK(parse_error("{a: 1}") == "f, line 1: a member must begin with its name in quotes");
  CHECK(parse_error("{\"a\": 1}\n\nx") == "f, line 3: something follows the value");
  CHECK(parse_error("\"a") == "f, line 1: a string doesn't end");
  CHECK(parse_error("\"a\tb\"") == "f, line 1: a control character in a string");
  CHECK(parse_error("\"\\x\"") == "f, line 1: no escape of JSON's follows the backslash");
  CHECK(parse_error("\"\\u12g4\"") == "f, line 1: four hexadecimal digits must follow \\u");
  CHECK(parse_error("\"\\ud800\"") == "f, line 1: half of a surrogate pair");
  CHECK(parse_error(std::string(200, '[')) == "f, line 1: more than 100 levels");
  for (const char* bad : {"01", "1.", ".5", "1e", "+1", "-", "nul", "tru", "NaN", "//x\n1"}) {
    INFO(bad);
    CHECK_FALSE(parse_error(bad).empty());
  }
  CHECK(message_of([] { (void)e::parse_json("[1.5]", "f").items()[0].integer(); }) ==
        "= 1.5 must be a whole number of 64 bits");
  CHECK(message_of([] { (void)e::parse_json("{}", "f").at("a"); }) == "has no member \"a\"");
  CHECK(message_of([] { (void)e::parse_json("1", "f").text(); }) == "is a number, must be a string");
}

TEST_CASE("engine: model shapes from config.json") {
  const e::model_config c = e::load_config(std::string(ENGINE_CONFIGS) + "/qwen3-8b.json");
  CHECK(c.hidden == 4096);
  CHECK(c.layers == 36);
  CHECK(c.heads_q == 32);
  CHECK(c.heads_kv == 8);
  CHECK(c.head_dim == 128);
  CHECK(c.mlp == 12288);
  CHECK(c.vocab == 151936);
  CHECK(c.rope_theta == 1e6);
  CHECK_FALSE(c.tied);
  CHECK(c.parameters() == 8190735360);  // the model card's 8.2 billion
  CHECK(c.kv_bytes() == 147456);
  CHECK_NOTHROW(e::load_config(std::string(ENGINE_CONFIGS) + "/tiny.json"));

  const std::string newer =
      with("\"rope_theta\": 10000", "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 7}");
  CHECK(e::read_config(newer, "f").rope_theta == 7);
  CHECK(config_error("[]") == "f: must hold an object");
  CHECK(config_error(with("\"hidden_size\": 64, ", "")) == "f: hidden_size is missing");
  CHECK(config_error(with("\"hidden_size\": 64", "\"hidden_size\": \"x\"")) ==
        "f: hidden_size is a string, must be a number");
  CHECK(config_error(with("\"hidden_size\": 64", "\"hidden_size\": 4")) ==
        "f: hidden_size = 4 must lie between 8 and 1048576");
  CHECK(config_error(with("\"num_attention_heads\": 2", "\"num_attention_heads\": 1").replace(0, 1, "{")).empty());
  CHECK(config_error(with("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3")) ==
        "f: num_attention_heads = 2 must be a multiple of num_key_value_heads = 3");
  CHECK(config_error(with("\"head_dim\": 64", "\"head_dim\": 65")) ==
        "f: head_dim = 65 is not supported; supported: 64, 128, 256");
  CHECK(config_error(with("qwen3", "llama")) == "f: model_type = \"llama\" is not supported; supported: \"qwen3\"");
  CHECK(config_error(with("\"rms_norm_eps\": 1e-6", "\"rms_norm_eps\": 0")) ==
        "f: rms_norm_eps = 0 must be greater than 0 and a float");
  CHECK(config_error(with("\"rope_theta\"", "\"rope_scaling\": {}, \"rope_theta\"")) ==
        "f: rope_scaling must be null: scaled positions are not supported");
  CHECK(message_of([] { (void)e::load_config("/nowhere/config.json"); }) == "can't read /nowhere/config.json");
}

TEST_CASE("engine: weights are the same everywhere") {
  const world a, b;
  CHECK(a.w.digest == b.w.digest);
  CHECK(a.w.digest == 0x221E6E6DBC264043u);
  const e::weights other(*a.b, a.w.config, 2);
  CHECK(other.digest != a.w.digest);
  e::model_config c = a.w.config;
  c.norm_eps = 2e-6f;
  CHECK(e::weights(*a.b, c, 1).digest != a.w.digest);

  double sum = 0, squares = 0;
  constexpr int count = 20000;
  for (int i = 0; i < count; ++i) {
    const double x = bi::to_f32(e::random_weight(1, 2, static_cast<std::uint64_t>(i), e::weight_scale(0.02f)));
    sum += x;
    squares += x * x;
  }
  CHECK(sum / count == Approx(0).margin(0.001));
  CHECK(squares / count == Approx(0.0004).epsilon(0.05));
}

TEST_CASE("engine: a bit of a weight shows in the digest") {
  world x;
  const std::uint64_t before = x.w.digest, identity = x.w.identity;
  for (const std::uint64_t place : {std::uint64_t{0}, std::uint64_t{5000}, std::uint64_t{123456789}}) {
    x.w.flip_bit(place, 3);
    x.w.measure();
    CHECK(x.w.digest != before);
    CHECK(x.w.identity != identity);
    x.w.flip_bit(place, 3);
    x.w.measure();
    CHECK(x.w.digest == before);
  }
}

TEST_CASE("engine: pages are counted, and the cache lets go of what nobody holds") {
  e::random_source random(1);
  e::page_pool pool(3, random);
  const std::int32_t a = pool.take(), b = pool.take();
  pool.hold(a);
  pool.drop(a);
  CHECK(pool.free() == 1);
  CHECK(pool.holders(a) == 1);
  pool.drop(a);
  CHECK(pool.free() == 2);
  CHECK_THROWS_AS(pool.drop(a), std::logic_error);
  CHECK_THROWS_AS(pool.hold(a), std::logic_error);

  e::prefix_cache cache(pool);
  cache.insert({1, 2}, {b, {7}, {}, 0});
  cache.insert({1, 2}, {b, {7}, {}, 0});  // a second of the same key is not kept
  CHECK(pool.holders(b) == 2);
  CHECK(cache.find({2, 1}) == nullptr);
  REQUIRE(cache.find({1, 2}) != nullptr);
  CHECK_FALSE(cache.evict_some());  // somebody else holds its page
  pool.drop(b);
  CHECK(cache.evict_some());
  CHECK(pool.free() == 3);
  CHECK_THROWS_AS((pool.take(), pool.take(), pool.take(), pool.take()), std::logic_error);
}

TEST_CASE("engine: one record under every schedule") {
  world x;
  std::vector<e::request> all;
  for (int i = 0; i < 6; ++i) all.push_back(e::plain_request({1, 2, 3, 4, 5, 6, 7, 8, 9}, 7, warm(1)));
  all.push_back(branching());
  const std::vector<e::request_record> first = x.serve(all, calm());
  CHECK(x.stats.forks == 2);
  CHECK(x.stats.reduces == 2);
  CHECK(x.stats.recomputed == 0);
  std::int64_t computed = 0;
  for (const e::request_record& r : first) {
    for (const e::branch_record& b : r.branches) {
      for (const e::segment_record& s : b.segments) computed += s.computed;
    }
  }
  CHECK(x.stats.rows + x.stats.cached == computed);  // nothing is computed twice, at a join least of all
  for (int i = 1; i < 6; ++i) CHECK(first[static_cast<std::size_t>(i)].digest == first[0].digest);

  std::int64_t recomputed = 0, fallbacks = 0, cached = 0, preemptions = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    INFO(seed);
    e::schedule s;
    s.seed = seed;
    s.preempt_percent = 5;
    s.evict_percent = 10;
    s.fallback_percent = seed % 3 == 0 ? 100 : 0;
    s.prefix_cache = seed % 2 == 0;
    s.grouped = seed % 4 < 2;
    s.pad_to = static_cast<std::int64_t>(seed % 5);
    s.branches = static_cast<e::schedule::order>(seed % 4);
    s.checked = static_cast<e::schedule::check>(seed % 3);
    x.limits = {.rows = 20 + static_cast<std::int64_t>(seed),
                .requests = 7,
                .pages = 40,
                .page_size = 3 + static_cast<std::int64_t>(seed % 3),
                .max_view = 100};
    const std::vector<e::request_record> again = x.serve(all, s);
    for (std::size_t i = 0; i < all.size(); ++i) {
      CHECK(again[i].digest == first[i].digest);
      CHECK(again[i].tokens() == first[i].tokens());
    }
    CHECK(x.stats.unlike_record == 0);
    CHECK(x.stats.repairs == 0);
    recomputed += x.stats.recomputed;
    fallbacks += x.stats.fallbacks;
    cached += x.stats.cached;
    preemptions += x.stats.preemptions;
  }
  CHECK(recomputed > 0);
  CHECK(fallbacks > 0);
  CHECK(cached > 0);
  CHECK(preemptions > 0);
}

TEST_CASE("engine: positions and names of branches") {
  world x;
  const e::request_record r = x.serve({branching()}, calm()).front();
  REQUIRE(r.branches.size() == 5);
  std::vector<std::string> names;
  for (const e::branch_record& b : r.branches) names.push_back(b.name);
  CHECK(names == std::vector<std::string>{"", "0", "1", "1.0", "1.1"});
  // 7 + 3 tokens, then branches of 6 and of 4 + max(1, 10) + 3.
  CHECK(r.branches[0].segments[0].tokens.size() == 10);
  CHECK(r.branches[1].segments[0].first_position == 10);
  CHECK(r.branches[2].segments[0].first_position == 10);
  CHECK(r.branches[3].segments[0].first_position == 14);
  CHECK(r.branches[4].segments[0].first_position == 14);
  CHECK(r.branches[2].segments[1].first_position == 24);
  CHECK(r.branches[0].segments[1].first_position == 27);
  CHECK(r.branches[0].segments[1].computed == 7);  // the last token's K and V nobody needs
  CHECK(e::longest_view(branching().what) == 10 + 6 + 4 + 1 + 10 + 3 + 8);
  CHECK(e::tokens_drawn(branching().what) == 3 + 5 + 2 + 0 + 9 + 2 + 6);
}

TEST_CASE("engine: samples of one prompt have streams of their own") {
  world x;
  e::request r;
  r.sampling = warm(5);
  r.what = {{{1, 2, 3, 4, 5}, 1, {}, e::phase::fork::samples}};
  for (int i = 0; i < 4; ++i) r.what.front().branches.push_back(path({6}, 8));
  const e::request_record a = x.serve({r}, calm()).front();
  std::set<std::vector<std::int32_t>> different;
  for (std::size_t i = 1; i < a.branches.size(); ++i) {
    std::vector<std::int32_t> tokens;
    for (const e::step_record& s : a.branches[i].steps) tokens.push_back(s.token);
    different.insert(tokens);
  }
  CHECK(different.size() == 4);
}

TEST_CASE("engine: operations that follow the batch are caught") {
  const auto bi = e::make_reference(1);
  const e::weights w(*bi, e::load_config(std::string(ENGINE_CONFIGS) + "/tiny.json"), 1);
  const std::vector<e::request> all(12, e::plain_request({1, 2, 3, 4, 5}, 8, warm(1)));
  const e::batch_dependent arms[] = {{}, {.gemm = true}, {.norm = true, .gemm = true, .attention = true}};
  for (const e::batch_dependent& d : arms) {
    INFO(e::arm_name(d));
    const auto b = e::make_reference(1, d);
    e::model m(*b, w, {.rows = 60, .requests = 12, .pages = 80, .page_size = 4, .max_view = 32});
    e::schedule s;
    s.prefix_cache = false;
    e::server v(m, s, all);
    v.run();
    std::set<std::uint64_t> digests;
    for (const e::request_record& r : v.records()) digests.insert(r.digest.low);
    CHECK((digests.size() == 1) == !d.any());
  }
}

TEST_CASE("engine: one prefill scores as decoding did") {
  world x;
  const std::vector<e::request> all = {branching(), e::plain_request({1, 2, 3}, 40, warm(9))};
  const std::vector<e::request_record> drawn = x.serve(all, {});
  for (std::size_t i = 0; i < all.size(); ++i) {
    e::model m(*x.b, x.w, x.limits);
    const std::vector<e::step_record> scored = e::score(m, all[i], drawn[i]);
    std::size_t next = 0;
    for (const e::branch_record& b : drawn[i].branches) {
      for (const e::step_record& s : b.steps) {
        CHECK(bi::bits_of(s.logprob) == bi::bits_of(scored.at(next).logprob));
        CHECK(s.logits == scored[next].logits);
        ++next;
      }
    }
    CHECK(next == scored.size());
  }
}

TEST_CASE("engine: the log is read back, and a change is refused") {
  world x;
  e::schedule s = calm();
  s.keep_rows = true;
  const std::vector<e::request> all = {branching(), e::plain_request({1, 2, 3}, 5, warm(9))};
  const std::vector<e::request_record> records = x.serve(all, s);
  std::string log;
  e::request_digest chain;
  for (std::size_t i = 0; i < all.size(); ++i) {
    log += e::log_line({static_cast<std::int64_t>(i), e::header_for(x.w, all[i]), records[i]}, chain);
  }
  const std::vector<e::log_entry> read = e::read_log(log);
  REQUIRE(read.size() == 2);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK_FALSE(e::check_header(read[i].header, e::header_for(x.w, all[i])));
    CHECK_FALSE(e::check_chain(read[i], x.w.identity));
    const e::request_record again = e::replay(*x.b, x.w, x.limits, read[i].header.what);
    CHECK_FALSE(e::first_difference(read[i].record, again));
  }
  CHECK(message_of([&] { (void)e::read_log(log.substr(log.find('\n') + 1)); }) ==
        "log line 1: was changed, or a line before it was changed, lost or moved");
  std::string changed = log;
  changed.replace(changed.find("\"token\": ") + 9, 1, "6");
  CHECK_FALSE(message_of([&] { (void)e::read_log(changed); }).empty());
  CHECK(message_of([&] { (void)e::read_log("{}"); }) == "log line 1: a value has no member \"header\"");

  e::log_entry wrong = read[0];
  ++wrong.record.branches[1].steps[2].token;
  REQUIRE(e::check_chain(wrong, x.w.identity));
  CHECK(e::check_chain(wrong, x.w.identity)->text() == "token differs, branch 0, step 2, position 13");
  wrong = read[0];
  wrong.header.what.sampling.seed ^= 1;
  CHECK(e::check_header(wrong.header, read[0].header)->what == "header: seed");
  CHECK(e::check_chain(wrong, x.w.identity).has_value());
  wrong = read[0];
  wrong.record.branches[4].segments[0].row_kv[2 * 3 + 1] ^= 1;  // token 3, layer 1
  CHECK(e::first_difference(wrong.record, read[0].record)->text() ==
        "K and V differs, branch 1.1, step 3, position 18, layer 1");
}

TEST_CASE("engine: a page that goes bad is found, named and restored") {
  world x;
  const e::request r = branching();
  e::schedule s = calm();
  s.checked = e::schedule::check::full;
  const e::request_record truth = x.serve({r}, s).front();
  CHECK(x.stats.repairs == 0);
  for (const bool lose : {false, true}) {
    e::model m(*x.b, x.w, x.limits);
    const std::vector<e::request> one = {r};
    e::server v(m, s, one);
    for (int i = 0; i < 8; ++i) REQUIRE(v.step());
    e::segment& victim = *v.segments(0).at(1);
    REQUIRE(victim.name == "0");
    REQUIRE(victim.computed > 2);
    if (lose) {
      v.lose_page(victim);
    } else {
      m.flip_bit(1, victim.pages[0] * x.limits.page_size + 1, 17, 0);
    }
    v.run();
    CHECK(v.stats().repairs == 1);
    CHECK(v.records()[0].digest == truth.digest);
    REQUIRE(v.records()[0].events.size() == 1);
    CHECK(v.records()[0].events[0].find("repair: K or V of branch \"0\", positions 10 to ") == 0);
  }
}

TEST_CASE("engine: a cache that lost the pages that a request needs ends with an error") {
  world x;
  const std::vector<e::request> one = {e::plain_request({1, 2, 3, 4, 5}, 9, {})};
  x.limits.pages = e::pages_needed(one.front().what, x.limits.page_size);
  e::schedule s = calm();
  s.checked = e::schedule::check::full;
  e::model m(*x.b, x.w, x.limits);
  e::server v(m, s, one);
  REQUIRE(v.step());
  v.lose_page(*v.segments(0).front());
  CHECK(message_of([&] { v.run(); }) == "no request can go on: pages of the cache were lost");
}

TEST_CASE("engine: digests of many lists of runs are those of each alone") {
  world x;
  e::model m(*x.b, x.w, x.limits);
  const std::vector<e::request> one = {e::plain_request({1, 2, 3, 4, 5, 6, 7, 8, 9}, 20, warm(3))};
  e::server v(m, calm(), one);
  while (v.sampled() < 15) REQUIRE(v.step());
  std::vector<std::vector<bi::kv_run>> lists;
  for (std::int64_t i = 1; i <= 20; ++i) lists.push_back(v.runs_of(*v.segments(0).front(), i));
  REQUIRE(static_cast<std::int64_t>(lists.size()) > 2 * x.limits.requests);
  const std::vector<std::vector<std::uint64_t>> together = m.digest_kv(lists);
  std::set<std::uint64_t> different;
  for (std::size_t i = 0; i < lists.size(); ++i) {
    CHECK(m.digest_kv({lists[i]}).front() == together[i]);
    different.insert(together[i].begin(), together[i].end());
  }
  CHECK(different.size() == lists.size() * static_cast<std::size_t>(m.config().layers));
}

TEST_CASE("engine: requests that can't be served are refused") {
  world x;
  const auto error = [&](const e::request& r) { return message_of([&] { (void)x.serve({r}, calm()); }); };
  CHECK(error({}) == "request 0 must begin with a token");
  CHECK(error(e::plain_request({}, 3, {})) == "request 0 must begin with a token");
  CHECK(error(e::plain_request({64}, 3, {})) == "request 0 has token 64, which is none of the vocabulary's");
  CHECK(error(e::plain_request({1}, -1, {})) == "request 0 draws a negative number of tokens");
  CHECK(error(e::plain_request({1}, 128, {})) == "request 0 has a view of 129 tokens, more than max_view = 128");
  x.limits.pages = 8;
  CHECK(error(e::plain_request({1}, 40, {})) == "request 0 needs 11 pages of the cache's 8");
  e::request r = branching();
  r.what.back().forced.clear();
  CHECK(error(r) == "request 0 draws a token where none has been fed");
  r.what.front().kind = e::phase::fork::samples;
  CHECK(error(r).find("request 0 goes on after a fork into samples") == 0);
}

TEST_CASE("engine: options") {
  const auto error = [](const std::vector<std::string>& a) { return message_of([&] { (void)e::parse(a); }); };
  CHECK(e::parse({"d2", "--small", "--backend=reference", "--seed", "7"}).seed == 7);
  CHECK(e::parse({"--help"}).help);
  CHECK(error({}) == "which demonstration? d1, d2, d3, d4, bench or replay");
  CHECK(error({"d9"}) == "there is no demonstration \"d9\"");
  CHECK(error({"d1", "d2"}) == "there is no demonstration \"d2\"");
  CHECK(error({"d1", "--nonsense", "1"}) == "there is no option --nonsense");
  CHECK(error({"d1", "--seed"}) == "--seed needs a value");
  CHECK(error({"d1", "--seed=x"}).find("--seed = \"x\" must be a number from 0 to ") == 0);
  CHECK(error({"d1", "--backend=tpu"}) == "--backend = \"tpu\" must be reference or gpu");
  CHECK(error({"d1", "--backend=reference"}) == "the CPU reference would take days at full size: add --small");
  CHECK(error({"replay", "--small", "--backend=reference"}) == "replay needs --log FILE");
}
