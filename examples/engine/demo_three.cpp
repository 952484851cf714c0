// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// D3, audit: requests are served in a crowd and logged; any of them, replayed alone, has the digests of the log. Then
// faults are injected, and each has to be found.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <iterator>
#include <optional>

#include "audit.hpp"
#include "demos.hpp"

namespace engine {
namespace {

request make_plain(random_source& random, const d3_form& f, std::int64_t vocab, const sampling_mode& mode) {
  const std::int64_t prompt = random.between(f.prompt / 2 + 1, f.prompt);
  return plain_request(random_tokens(random, prompt, vocab), random.between(2, f.tokens), mode.with(random.next()));
}
request make_branching(random_source& random, const d3_form& f, std::int64_t vocab, bool samples) {
  request r = make_plain(random, f, vocab, warm);
  phase& map = r.what.front();
  map.sampled = 2;
  map.kind = samples ? phase::fork::samples : phase::fork::paths;
  for (std::int64_t i = samples ? 8 : random.between(2, 5); i > 0; --i) {
    // Lengths differ, so no order of branches looks like another.
    map.branches.push_back(
        {{random_tokens(random, 2 + i, vocab), random.between(1, f.tokens), {}, phase::fork::paths}});
  }
  if (!samples)
    r.what.push_back({random_tokens(random, 2, vocab), random.between(2, f.tokens), {}, phase::fork::paths});
  return r;
}
request make_any(random_source& random, const d3_form& f, std::int64_t vocab) {
  const std::int64_t kind = random.between(0, 3);
  if (kind < 2) return make_plain(random, f, vocab, kind == 0 ? greedy : warm);
  return make_branching(random, f, vocab, kind == 2);
}

struct tally {
  std::int64_t injected = 0, detected = 0, restored = 0, named = 0;
  std::string example;
};

class fault_bench {
 public:
  fault_bench(const host& h, const d3_form& f, backend& b, weights& w)
      : h_(h), form_(f), backend_(b), weights_(w), random_(h.seed + 9) {}

  // A clean run has to have no finding.
  bool false_alarm() {
    const request r = make_any(random_, form_, h_.config.vocab);
    return audit(entry(r, serve({r}, full(), {}, {}).front()), r).has_value();
  }

  // A bit of K or a page goes while the request is served, checks are on.
  void damage(tally& t, bool lose) {
    const request r = make_any(random_, form_, h_.config.vocab);
    const request_record truth = serve({r}, unchecked(), {}, {}).front();
    const std::int64_t when = random_.between(1, steps_ - 1);
    std::string branch = "?";
    const auto inject = [&](server& s, model& m, std::int64_t step) {
      if (step != when) return;
      const segment_ptr victim = pick_segment(s);
      branch = victim->name;
      if (lose) return s.lose_page(*victim);
      m.flip_bit(random_.between(0, h_.config.layers - 1), slot_of(m, *victim), random_.next() & 0xfff,
                 static_cast<int>(random_.between(0, 15)));
    };
    account(t, serve({r}, full(), inject, {}).front(), truth, branch);
  }

  // A cached page goes bad between two requests that share it.
  void stale_page(tally& t) {
    request a = make_plain(random_, form_, h_.config.vocab, warm);
    a.what.front().forced = random_tokens(random_, form_.prompt + 2 * form_.limits.page_size, h_.config.vocab);
    request b = a;
    b.sampling.seed = random_.next();
    const request_record truth = replay(backend_, weights_, form_.limits, b);
    std::int64_t slot = -1;
    bool done = false;
    const auto inject = [&](server& s, model& m, std::int64_t) {
      if (!s.segments(0).empty() && s.segments(0).front()->computed > 0)
        slot = slot_of(m, *s.segments(0).front(), true);
      if (done || s.records()[0].branches.empty()) return;
      done = true;
      m.flip_bit(random_.between(0, h_.config.layers - 1), slot, random_.next() & 0xfff,
                 static_cast<int>(random_.between(0, 15)));
    };
    schedule how = full();
    how.running = 1;
    account(t, serve({a, b}, how, inject, {}).back(), truth, "");
  }

  // A join that goes wrong.
  void wrong_join(tally& t, const server::mistakes& mistake) {
    const request r = make_branching(random_, form_, h_.config.vocab, false);
    find(t, entry(r, serve({r}, full(), {}, mistake).front()), r);
  }

  // The log says, or the server did, something else than was asked for.
  void other_sampling(tally& t, bool seed) {
    const request asked = make_plain(random_, form_, h_.config.vocab, warm);
    request done = asked;
    if (seed) done.sampling.seed ^= std::uint64_t{1} << random_.between(0, 63);
    if (!seed) done.sampling.top_p = 0.5f + 0.01f * static_cast<float>(random_.between(0, 40));
    find(t, entry(done, serve({done}, full(), {}, {}).front()), asked);
  }
  void other_contract(tally& t) {
    const request r = make_any(random_, form_, h_.config.vocab);
    log_entry e = entry(r, serve({r}, full(), {}, {}).front());
    for (auto& [name, id] : e.header.contracts) {
      if (name == "attention") id = hex(from_hex(id) ^ random_.next());
    }
    find(t, e, r);
  }
  void other_weight(tally& t) {
    const request r = make_any(random_, form_, h_.config.vocab);
    const std::uint64_t place = random_.next();
    const int bit = static_cast<int>(random_.between(0, 14));
    weights_.flip_bit(place, bit);
    weights_.measure();
    const log_entry e = entry(r, serve({r}, full(), {}, {}).front());
    weights_.flip_bit(place, bit);
    weights_.measure();
    find(t, e, r);
  }
  void dropped_token(tally& t) {
    const request r = make_any(random_, form_, h_.config.vocab);
    log_entry e = entry(r, serve({r}, full(), {}, {}).front());
    std::vector<branch_record*> drew;
    for (branch_record& b : e.record.branches) {
      if (!b.steps.empty()) drew.push_back(&b);
    }
    branch_record& b = *drew[static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(drew.size()) - 1))];
    const std::int64_t at = random_.between(0, static_cast<std::int64_t>(b.steps.size()) - 1);
    b.steps.erase(b.steps.begin() + at);
    b.step_position.erase(b.step_position.begin() + at);
    find(t, e, r);
  }

  // No checks: the digests of what is computed from the damaged bytes differ, and the replay says where it begins.
  void silent_flip(tally& t) {
    const request r = make_any(random_, form_, h_.config.vocab);
    const request_record truth = serve({r}, unchecked(), {}, {}).front();
    const std::int64_t when = random_.between(1, steps_ - 1), layer = random_.between(0, h_.config.layers - 1);
    const auto inject = [&](server& s, model& m, std::int64_t step) {
      // By 2^16: higher bits of the exponent make scores of which attention says nothing, NaN among them.
      if (step == when) m.flip_bit(layer, slot_of(m, *pick_segment(s)), random_.next() & 0xfff, 11);
    };
    const std::optional<finding> f = first_difference(serve({r}, unchecked(), inject, {}).front(), truth);
    ++t.injected;
    if (!f) return;  // too small a difference to be seen in bf16
    ++t.detected;
    // Attention of that layer is the first to see it; the next layer's K and V, or the logits, tell.
    const std::int64_t expected = layer + 1 < h_.config.layers ? layer + 1 : -1;
    t.named += f->layer == expected ? 1 : 0;
    t.example = f->text();
  }

 private:
  using injection = std::function<void(server&, model&, std::int64_t step)>;

  static schedule unchecked() {
    schedule s;
    s.calm = true;
    s.keep_rows = true;
    return s;
  }
  static schedule full() {
    schedule s = unchecked();
    s.checked = schedule::check::full;
    return s;
  }

  std::vector<request_record> serve(const std::vector<request>& all, const schedule& how, const injection& inject,
                                    const server::mistakes& mistake) {
    model m(backend_, weights_, limits_for(form_.limits, all));
    server s(m, how, all);
    s.mistake = mistake;
    std::int64_t step = 0;
    do {
      if (inject) inject(s, m, step);
      ++step;
    } while (s.step());
    steps_ = step - 1;
    return s.records();
  }

  segment_ptr pick_segment(const server& s) {
    std::vector<segment_ptr> computed;
    for (const segment_ptr& x : s.segments(0)) {
      if (x->computed > 0) computed.push_back(x);
    }
    return computed.at(static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(computed.size()) - 1)));
  }
  std::int64_t slot_of(const model& m, const segment& s, bool first_page = false) {
    const std::int64_t size = m.limits().page_size, last = first_page ? std::min(size, s.computed) : s.computed;
    const std::int64_t token = random_.between(0, last - 1);
    return s.pages[static_cast<std::size_t>(token / size)] * size + token % size;
  }

  log_entry entry(const request& r, const request_record& record) { return {0, header_for(weights_, r), record}; }

  // What the auditor does with a line: header, chain, replay.
  std::optional<finding> audit(const log_entry& e, const request& asked) {
    if (auto f = check_header(e.header, header_for(weights_, asked))) return f;
    if (auto f = check_chain(e, weights_.identity)) return f;
    return first_difference(e.record, replay(backend_, weights_, form_.limits, asked));
  }
  void find(tally& t, const log_entry& e, const request& asked) {
    ++t.injected;
    const std::optional<finding> f = audit(e, asked);
    if (!f) return;
    ++t.detected;
    t.example = f->text();
  }
  static void account(tally& t, const request_record& got, const request_record& truth, const std::string& branch) {
    ++t.injected;
    bool repaired = false, named = false;
    for (const std::string& e : got.events) {
      const bool repair = e.rfind("repair", 0) == 0;
      repaired = repaired || repair;
      named = named || (repair && e.find("branch \"" + branch + "\"") != std::string::npos);
      if (repair) t.example = e;
    }
    t.detected += repaired ? 1 : 0;
    t.named += named ? 1 : 0;
    t.restored += repaired && got.digest == truth.digest ? 1 : 0;
  }

  const host& h_;
  const d3_form& form_;
  backend& backend_;
  weights& weights_;
  random_source random_;
  std::int64_t steps_ = 0;  // of the last serve
};

}  // namespace

d3_form d3_form::small() {
  d3_form f;
  f.requests = 24;
  f.replayed = 12;
  f.tokens = 8;
  f.prompt = 12;
  f.faults = 4;
  f.limits = {.rows = 64, .requests = 16, .pages = 120, .page_size = 4, .max_view = 128};
  return f;
}

json run_d3(const host& h, const d3_form& f) {
  const std::unique_ptr<backend> bi = h.make({});
  weights w(*bi, h.config, h.seed);
  json report = begin_report("d3", h, *bi, w);

  // A crowd is served and logged.
  random_source random(h.seed + 3);
  std::vector<request> all;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < f.requests; ++i) {
    all.push_back(make_any(random, f, h.config.vocab));
    tokens += tokens_drawn(all.back().what);
  }
  std::string log;
  {
    schedule how;
    how.seed = h.seed;
    how.evict_percent = 2;
    how.fallback_percent = 10;
    how.checked = schedule::check::reduce;
    how.keep_rows = h.config.layers <= 8;  // 600 bytes a token at 36 layers
    how.grouped = true;
    model m(*bi, w, f.limits);
    server s(m, how, all);
    h.bar->begin("serving", tokens);
    s.run([&](std::int64_t done) { h.bar->show(done); });
    request_digest chain;
    for (std::size_t i = 0; i < all.size(); ++i) {
      log += log_line({static_cast<std::int64_t>(i), header_for(w, all[i]), s.records()[i]}, chain);
    }
  }
  write_file(h.folder + "/engine_d3.jsonl", log);

  // Some are replayed alone, from the log's own text.
  const std::vector<log_entry> entries = read_log(log);
  std::int64_t equal = 0;
  h.bar->begin("replaying", f.replayed);
  for (std::int64_t i = 0; i < f.replayed; ++i) {
    const log_entry& e = entries[static_cast<std::size_t>(i * f.requests / f.replayed)];
    const bool whole =
        !check_header(e.header, header_for(w, all[static_cast<std::size_t>(e.number)])) && !check_chain(e, w.identity);
    const request_record again = replay(*bi, w, f.limits, e.header.what);
    equal += whole && again.digest == e.record.digest ? 1 : 0;
    h.bar->show(i + 1);
  }
  std::printf("%lld requests served and logged; %lld of %lld replayed alone have the digests of the log\n",
              static_cast<long long>(f.requests), static_cast<long long>(equal), static_cast<long long>(f.replayed));

  // Faults.
  fault_bench bench(h, f, *bi, w);
  std::int64_t alarms = 0;
  for (std::int64_t i = 0; i < f.faults; ++i) alarms += bench.false_alarm() ? 1 : 0;
  const struct {
    const char* name;
    bool recoverable;
    std::function<void(tally&)> inject;
  } kinds[] = {
      {"a bit of a page flips", true, [&](tally& t) { bench.damage(t, false); }},
      {"a run is lost", true, [&](tally& t) { bench.damage(t, true); }},
      {"a cached page is stale", true, [&](tally& t) { bench.stale_page(t); }},
      {"branches in another order", false, [&](tally& t) { bench.wrong_join(t, {.swap_branches = true}); }},
      {"another position after a join", false, [&](tally& t) { bench.wrong_join(t, {.shift_position = 1}); }},
      {"another contract (leaf length)", false, [&](tally& t) { bench.other_contract(t); }},
      {"another top-p", false, [&](tally& t) { bench.other_sampling(t, false); }},
      {"another seed", false, [&](tally& t) { bench.other_sampling(t, true); }},
      {"a bit of a weight flips", false, [&](tally& t) { bench.other_weight(t); }},
      {"a token is dropped", false, [&](tally& t) { bench.dropped_token(t); }},
  };
  json faults = json::array();
  bool good = true;
  std::int64_t injected = 0, detected = 0, restored = 0, recoverable = 0;
  h.bar->begin("faults", f.faults * static_cast<std::int64_t>(std::size(kinds)));
  for (const auto& kind : kinds) {
    tally t;
    for (std::int64_t i = 0; i < f.faults; ++i) {
      kind.inject(t);
      h.bar->show(++injected);
    }
    const bool found = t.detected == f.faults && (!kind.recoverable || (t.restored == f.faults && t.named == f.faults));
    good = good && found;
    detected += t.detected;
    restored += t.restored;
    recoverable += kind.recoverable ? f.faults : 0;
    json j = json::object();
    j.set("fault", kind.name).set("injected", t.injected).set("detected", t.detected);
    if (kind.recoverable) j.set("restored", t.restored).set("branch_named", t.named);
    faults.push(j.set("example", t.example));
    std::printf("%-32s %3lld of %3lld found%s   %s\n", kind.name, static_cast<long long>(t.detected),
                static_cast<long long>(t.injected),
                kind.recoverable ? (", " + std::to_string(t.restored) + " restored").c_str() : "            ",
                t.example.c_str());
    std::fflush(stdout);
  }
  tally silent;
  for (std::int64_t i = 0; i < f.faults; ++i) bench.silent_flip(silent);
  std::printf("%-32s %3lld of %3lld seen in the digests, the layer named of %lld   %s\n", "a bit flips, checks off",
              static_cast<long long>(silent.detected), static_cast<long long>(silent.injected),
              static_cast<long long>(silent.named), silent.example.c_str());
  bool tamper = false;
  try {
    std::string changed = log;
    const std::size_t at = changed.find("\"logits\": \"") + 12;
    changed[at] = changed[at] == '0' ? '1' : '0';
    (void)read_log(changed);
  } catch (const std::invalid_argument&) {
    tamper = true;
  }

  report.set("passed", good && equal == f.replayed && alarms == 0 && tamper && silent.named == silent.detected);
  report.set("requests", f.requests).set("replayed", f.replayed).set("replays_equal", equal);
  report.set("false_alarms", alarms).set("faults_injected", injected).set("faults_detected", detected);
  report.set("faults_recoverable", recoverable).set("faults_restored", restored).set("faults", faults);
  report.set("changed_log_refused", tamper).set("log_bytes", static_cast<std::int64_t>(log.size()));
  json s = json::object();
  s.set("injected", silent.injected).set("seen", silent.detected).set("layer_named", silent.named);
  return report.set("silent_flips", s.set("example", silent.example));
}

}  // namespace engine
