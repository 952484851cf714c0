// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit.hpp"

#include <algorithm>
#include <stdexcept>
#include <tuple>

#include "bi/contract/arithmetic.hpp"
#include "report.hpp"
#include "server.hpp"

namespace engine {
namespace {

json numbers(const std::vector<std::int32_t>& v) {
  json j = json::array();
  for (const std::int32_t x : v) j.push(x);
  return j;
}
json words(const std::vector<std::uint64_t>& v) {
  json j = json::array();
  for (const std::uint64_t x : v) j.push(hex(x));
  return j;
}
std::vector<std::int32_t> read_numbers(const json& j) {
  std::vector<std::int32_t> v;
  for (const json& x : j.items()) v.push_back(static_cast<std::int32_t>(x.integer()));
  return v;
}
std::vector<std::uint64_t> read_words(const json& j) {
  std::vector<std::uint64_t> v;
  for (const json& x : j.items()) v.push_back(from_hex(x.text()));
  return v;
}
request_digest read_digest(const json& j) {
  const std::string& text = j.text();
  if (text.size() != 32) throw std::invalid_argument("\"" + text + "\" must be 32 hexadecimal digits");
  return {from_hex(text.substr(16)), from_hex(text.substr(0, 16))};
}
float read_float(const json& j) {  // written as its bits
  return bi::float_of(static_cast<std::uint32_t>(from_hex(j.text())));
}
json write_float(float v) { return hex(std::uint64_t{bi::bits_of(v)}); }

json write_script(const script& s) {
  json all = json::array();
  for (const phase& p : s) {
    json j = json::object();
    j.set("forced", numbers(p.forced)).set("sampled", p.sampled);
    if (!p.branches.empty()) {
      json branches = json::array();
      for (const script& b : p.branches) branches.push(write_script(b));
      j.set(p.kind == phase::fork::paths ? "paths" : "samples", branches);
    }
    all.push(j);
  }
  return all;
}
script read_script(const json& j) {
  script s;
  for (const json& x : j.items()) {
    phase p;
    p.forced = read_numbers(x.at("forced"));
    p.sampled = x.at("sampled").integer();
    for (const char* kind : {"paths", "samples"}) {
      const json* branches = x.find(kind);
      if (branches == nullptr) continue;
      p.kind = kind == std::string("paths") ? phase::fork::paths : phase::fork::samples;
      for (const json& b : branches->items()) p.branches.push_back(read_script(b));
    }
    s.push_back(std::move(p));
  }
  return s;
}

json write_branch(const branch_record& b) {
  json segments = json::array(), steps = json::array();
  for (const segment_record& s : b.segments) {
    json j = json::object();
    j.set("first_position", s.first_position).set("tokens", numbers(s.tokens)).set("computed", s.computed);
    j.set("kv", words(s.kv));
    if (!s.row_kv.empty()) j.set("row_kv", words(s.row_kv));
    segments.push(j);
  }
  for (std::size_t i = 0; i < b.steps.size(); ++i) {
    json j = json::object();
    j.set("token", b.steps[i].token).set("position", b.step_position[i]);
    steps.push(j.set("logprob", write_float(b.steps[i].logprob)).set("logits", hex(b.steps[i].logits)));
  }
  json j = json::object();
  j.set("name", b.name).set("segments", segments).set("steps", steps);
  return j.set("digest", hex(b.digest));
}
branch_record read_branch(const json& j) {
  branch_record b;
  b.name = j.at("name").text();
  b.digest = read_digest(j.at("digest"));
  for (const json& x : j.at("segments").items()) {
    segment_record s;
    s.first_position = x.at("first_position").integer();
    s.tokens = read_numbers(x.at("tokens"));
    s.computed = x.at("computed").integer();
    s.kv = read_words(x.at("kv"));
    if (const json* rows = x.find("row_kv")) s.row_kv = read_words(*rows);
    b.segments.push_back(std::move(s));
  }
  for (const json& x : j.at("steps").items()) {
    b.steps.push_back({static_cast<std::int32_t>(x.at("token").integer()), read_float(x.at("logprob")),
                       from_hex(x.at("logits").text())});
    b.step_position.push_back(static_cast<std::int32_t>(x.at("position").integer()));
  }
  return b;
}

log_entry read_entry(const json& j) {
  log_entry e;
  const json &header = j.at("header"), &sampling = header.at("sampling");
  for (const auto& [contract, id] : header.at("contracts").members())
    e.header.contracts.emplace_back(contract, id.text());
  e.number = j.at("request").integer();
  e.header.model = header.at("model").text();
  e.header.what.what = read_script(header.at("script"));
  bi::sample_params& p = e.header.what.sampling;
  p.temperature = read_float(sampling.at("temperature"));
  p.top_k = static_cast<std::int32_t>(sampling.at("top_k").integer());
  p.top_p = read_float(sampling.at("top_p"));
  p.min_p = read_float(sampling.at("min_p"));
  p.seed = from_hex(sampling.at("seed").text());
  for (const json& x : j.at("events").items()) e.record.events.push_back(x.text());
  for (const json& x : j.at("branches").items()) e.record.branches.push_back(read_branch(x));
  e.record.digest = read_digest(j.at("digest"));
  return e;
}

request_digest absorb_text(request_digest d, std::string_view text) {
  d = bi::contract::absorb(d, text.size());
  return bi::contract::absorb(d, bi::contract::digest_terms(text.data(), text.size()));
}

// The chain of a branch from what the record says was drawn, and its length and end.
class chain_reader {
 public:
  explicit chain_reader(const request_record& r) : record_(r) {}
  struct stretch {
    request_digest digest;
    std::int64_t length = 0, position = 0;
  };

  stretch branch(const script& what, request_digest d) {
    const branch_record& b = record_.branches.at(next_++);
    stretch s;
    std::size_t step = 0, children = 0, segment = 0;
    for (const segment_record& g : b.segments) s.length += static_cast<std::int64_t>(g.tokens.size());
    for (const phase& p : what) {
      for (std::int64_t i = 0; i < p.sampled; ++i, ++step) {
        const step_record& x = b.steps.at(step);
        d = bi::contract::digest_token(d, x.token, x.logits);
        const segment_record& g = b.segments.at(segment);
        const std::int64_t at = b.step_position.at(step) - g.first_position;
        if (at < 0 || g.tokens.at(static_cast<std::size_t>(at)) != x.token)
          note({"token", b.name, static_cast<std::int64_t>(step), b.step_position[step]});
      }
      if (p.branches.empty()) continue;
      std::vector<request_digest> digests;
      std::vector<std::int64_t> lengths;
      std::int64_t position = end_of(b.segments.at(segment++));
      for (const script& child : p.branches) {
        const stretch c = branch(child, bi::contract::digest_fork(d, children++));
        digests.push_back(c.digest);
        lengths.push_back(c.length);
        position = std::max(position, c.position);
      }
      if (p.kind == phase::fork::samples) continue;
      for (const std::int64_t n : lengths) s.length += n;
      d = bi::contract::digest_merge(d, digests.data(), lengths.data(), static_cast<std::int64_t>(lengths.size()),
                                     position);
      if (b.segments.at(segment).first_position != position)
        note({"position after a join", b.name, static_cast<std::int64_t>(step), position});
    }
    if (step != b.steps.size()) note({"tokens that were drawn", b.name, static_cast<std::int64_t>(step)});
    if (d != b.digest) note({"digest of the branch", b.name});
    s.digest = d;
    s.position = end_of(b.segments.back());
    return s;
  }
  const std::optional<finding>& found() const { return found_; }

 private:
  static std::int64_t end_of(const segment_record& g) {
    return g.first_position + static_cast<std::int64_t>(g.tokens.size());
  }
  void note(finding f) {
    if (!found_) found_ = std::move(f);
  }
  const request_record& record_;
  std::size_t next_ = 0;
  std::optional<finding> found_;
};

}  // namespace

std::string finding::text() const {
  std::string s = what + " differs";
  if (!branch.empty()) s += ", branch " + branch;
  if (step >= 0) s += ", step " + std::to_string(step);
  if (position >= 0) s += ", position " + std::to_string(position);
  if (layer >= 0) s += ", layer " + std::to_string(layer);
  return s;
}

log_header header_for(const weights& w, const request& r) {
  log_header h;
  for (const auto& [name, id] : contracts_of(w.config)) h.contracts.emplace_back(name, hex(id));
  h.model = hex(w.digest);
  h.what = r;
  return h;
}

std::string log_line(const log_entry& e, request_digest& chain) {
  json contracts = json::object();
  for (const auto& [name, id] : e.header.contracts) contracts.set(name, id);
  const bi::sample_params& p = e.header.what.sampling;
  json sampling = json::object();
  sampling.set("temperature", write_float(p.temperature)).set("top_k", p.top_k).set("top_p", write_float(p.top_p));
  sampling.set("min_p", write_float(p.min_p)).set("seed", hex(p.seed));
  json header = json::object();
  header.set("contracts", contracts).set("model", e.header.model).set("sampling", sampling);
  header.set("script", write_script(e.header.what.what));
  json branches = json::array(), events = json::array();
  for (const branch_record& b : e.record.branches) branches.push(write_branch(b));
  for (const std::string& s : e.record.events) events.push(s);
  json line = json::object();
  line.set("request", e.number).set("header", header).set("events", events).set("branches", branches);
  line.set("digest", hex(e.record.digest));
  chain = absorb_text(chain, line.dump());
  return line.set("chain", hex(chain)).dump() + "\n";
}

std::vector<log_entry> read_log(std::string_view text) {
  std::vector<log_entry> log;
  request_digest chain;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const std::string name = "log line " + std::to_string(log.size() + 1);
    const json j = parse_json(line, name);
    log_entry e;
    try {
      e = read_entry(j);
    } catch (const std::invalid_argument& wrong) {
      throw std::invalid_argument(name + ": a value " + wrong.what());
    }
    request_digest after = chain;
    if (log_line(e, after) != std::string(line) + "\n") {
      throw std::invalid_argument(name + ": was changed, or a line before it was changed, lost or moved");
    }
    chain = after;
    log.push_back(std::move(e));
  }
  return log;
}

std::optional<finding> check_header(const log_header& found, const log_header& expected) {
  if (found.contracts != expected.contracts) {
    for (std::size_t i = 0; i < std::min(found.contracts.size(), expected.contracts.size()); ++i) {
      if (found.contracts[i] != expected.contracts[i])
        return finding{"header: contract " + expected.contracts[i].first, ""};
    }
    return finding{"header: contracts", ""};
  }
  if (found.model != expected.model) return finding{"header: model digest", ""};
  const bi::sample_params &a = found.what.sampling, &b = expected.what.sampling;
  if (bi::bits_of(a.temperature) != bi::bits_of(b.temperature)) return finding{"header: temperature", ""};
  if (a.top_k != b.top_k) return finding{"header: top_k", ""};
  if (bi::bits_of(a.top_p) != bi::bits_of(b.top_p)) return finding{"header: top_p", ""};
  if (bi::bits_of(a.min_p) != bi::bits_of(b.min_p)) return finding{"header: min_p", ""};
  if (a.seed != b.seed) return finding{"header: seed", ""};
  if (header_of(0, found.what) != header_of(0, expected.what)) return finding{"header: script", ""};
  return {};
}

std::optional<finding> check_chain(const log_entry& e, std::uint64_t identity) {
  try {
    chain_reader r(e.record);
    (void)r.branch(e.header.what.what, bi::contract::digest_start(header_of(identity, e.header.what)));
    if (r.found()) return r.found();
  } catch (const std::out_of_range&) {
    return finding{"the number of tokens, segments or branches", ""};
  }
  if (digest_of(e.record) != e.record.digest) return finding{"digest of the request", ""};
  return {};
}

std::optional<finding> first_difference(const request_record& logged, const request_record& replayed) {
  if (logged.branches.size() != replayed.branches.size()) return finding{"the number of branches", ""};
  std::optional<finding> first;
  const auto note = [&](finding f) {  // K and V of a position come before the logits that are drawn from it
    const auto place = [](const finding& x) { return std::tuple(x.position, x.layer < 0, x.layer); };
    if (!first || place(f) < place(*first)) first = std::move(f);
  };
  for (std::size_t i = 0; i < logged.branches.size(); ++i) {
    const branch_record &a = logged.branches[i], &b = replayed.branches[i];
    for (std::size_t s = 0; s < std::max(a.segments.size(), b.segments.size()); ++s) {
      if (s >= a.segments.size() || s >= b.segments.size()) {
        note({"the number of segments", a.name});
        break;
      }
      const segment_record &x = a.segments[s], &y = b.segments[s];
      if (x.first_position != y.first_position) {
        note({"first position of a segment", a.name, -1, std::min(x.first_position, y.first_position)});
        continue;
      }
      const auto layers = static_cast<std::int64_t>(x.kv.size());
      const auto rows = static_cast<std::int64_t>(std::min(x.row_kv.size(), y.row_kv.size()));
      std::int64_t row = 0;
      while (row < rows && x.row_kv[static_cast<std::size_t>(row)] == y.row_kv[static_cast<std::size_t>(row)]) ++row;
      if (row < rows) {
        // K and V of a token are computed in the step that draws the next one.
        const std::int64_t position = x.first_position + row / layers;
        const auto next = std::find(a.step_position.begin(), a.step_position.end(), position + 1);
        const std::int64_t step = next == a.step_position.end() ? -1 : next - a.step_position.begin();
        note({"K and V", a.name, step, position + 1, row % layers});
      } else if (x.kv != y.kv || x.computed != y.computed) {
        const auto layer = std::mismatch(x.kv.begin(), x.kv.end(), y.kv.begin()).first - x.kv.begin();
        note({"K and V", a.name, -1, x.first_position + std::max(x.computed, y.computed), layer});
      }
    }
    for (std::size_t s = 0; s < std::max(a.steps.size(), b.steps.size()); ++s) {
      const auto step = static_cast<std::int64_t>(s);
      if (s >= a.steps.size() || s >= b.steps.size()) {
        note({"tokens that were drawn", a.name, step});
        break;
      }
      const std::int64_t position = a.step_position[s];
      const step_record &x = a.steps[s], &y = b.steps[s];
      const char* what = x.logits != y.logits                               ? "logits"
                         : x.token != y.token                               ? "token"
                         : bi::bits_of(x.logprob) != bi::bits_of(y.logprob) ? "log-probability"
                                                                            : nullptr;
      if (what == nullptr) continue;
      note({what, a.name, step, position});
      break;
    }
    if (a.digest != b.digest && !first) note({"digest of the branch", a.name, -1, std::int64_t{1} << 40});
  }
  if (!first && logged.digest != replayed.digest) first = finding{"digest of the request", ""};
  return first;
}

request_record replay(backend& b, const weights& w, const model_limits& l, const request& r) {
  schedule alone;
  alone.calm = true;
  alone.prefix_cache = false;
  alone.keep_rows = true;
  const std::vector<request> one = {r};
  model m(b, w, limits_for(l, one));
  server s(m, alone, one);
  s.run();
  return s.records().front();
}

}  // namespace engine
