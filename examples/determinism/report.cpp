// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "report.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <stdexcept>

namespace demo {
namespace {

__attribute__((format(printf, 1, 2))) std::string format(const char* f, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, f);
  std::vsnprintf(text, sizeof text, f, arguments);
  va_end(arguments);
  return text;
}
long long n(std::int64_t v) { return v; }

std::string quoted(const std::string& text) {
  std::string s = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') s += '\\';
    s += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return s + "\"";
}

std::string hex(std::uint64_t v) { return format("%016llx", static_cast<unsigned long long>(v)); }
std::string hex(const bi::contract::request_digest& d) { return hex(d.high) + hex(d.low); }
const char* yes(bool b) { return b ? "yes" : "NO"; }

std::string divergence(const outcome& o) {
  if (o.first_logits < 0) return "none";
  std::string s = format("logits %lld", n(o.first_logits));
  if (o.first_token >= 0) s += format(", token %lld", n(o.first_token));
  return s;
}

}  // namespace

bool held(const results& r, const traffic& t) {
  const bool served =
      std::all_of(r.outcomes.begin(), r.outcomes.end(), [&](const outcome& o) { return o.is_baseline() || o.held(t); });
  const bool alike =
      std::all_of(r.operations.begin(), r.operations.end(), [](const invariance& i) { return i.differs == 0; });
  const bool checked = std::all_of(r.checks.begin(), r.checks.end(), [](const auto& c) { return c.second; });
  return !r.outcomes.empty() && served && alike && checked;
}

progress_bar::progress_bar(std::int64_t total)
    : total_(total), terminal_(isatty(STDERR_FILENO) != 0), shown_(terminal_ ? clock::time_point{} : start_) {}

progress_bar::~progress_bar() {
  if (terminal_) std::fprintf(stderr, "\r\033[K");
}

void progress_bar::show(const std::string& label, std::int64_t done) {
  const auto now = clock::now();
  if (now - shown_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000))) return;
  shown_ = now;
  const double part =
      std::min(1.0, static_cast<double>(before_ + done) / static_cast<double>(std::max<std::int64_t>(total_, 1)));
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string left = part > 0.02 ? format("%3.0f s left", seconds / part - seconds) : "";
  if (!terminal_) {
    std::fprintf(stderr, "%3.0f%%  %s  %s\n", 100 * part, label.c_str(), left.c_str());
    return;
  }
  const auto filled = static_cast<std::size_t>(30 * part);
  const std::string bar = std::string(filled, '#') + std::string(30 - filled, '.');
  std::fprintf(stderr, "\r\033[K[%s] %3.0f%%  %s  %s", bar.c_str(), 100 * part, label.c_str(), left.c_str());
  std::fflush(stderr);
}

std::string header_text(const options& o, const weights& w) {
  const model_config& m = o.model;
  const traffic& t = o.serve;
  std::string s;
  s += format("model     %lld layers, hidden %lld, %lld query and %lld KV heads of %lld, MLP %lld, vocabulary %lld: ",
              n(m.layers), n(m.hidden), n(m.heads_q), n(m.heads_kv), n(m.head_dim), n(m.mlp), n(m.vocab));
  s += format("%.1f million bf16 weights, digest %s\n", static_cast<double>(w.parameters) / 1e6, hex(w.digest).c_str());
  s += format(
      "traffic   %lld equal requests (%lld tokens of prompt, %lld new), %lld with other seeds, %lld others; seed %llu\n",
      n(t.equal), n(t.prompt), n(t.new_tokens), n(t.seeds), n(t.background), static_cast<unsigned long long>(t.seed));
  s += format(
      "schedule  1 to %lld tokens a step, at most %lld requests at a time, %lld pages of %lld tokens; seed %llu\n",
      n(o.limits.rows), n(o.limits.requests), n(o.limits.pages), n(o.limits.page_size),
      static_cast<unsigned long long>(o.how.seed));
  s += format("backend   %s\n",
              o.backend == "gpu" ? "GPU" : "CPU reference: bit for bit what the kernels compute, slowly");
  return s;
}

std::string results_text(const options& o, const results& r) {
  std::string s = "\n";
  s += format("%lld equal requests, different results:\n\n", n(o.serve.equal));
  s += format("%-6s%-17s%12s%9s  %-22s%8s%12s%11s%13s\n", "", "", "completions", "digests", "first divergence", "alone",
              "prefill", "batches", "preemptions");
  for (const outcome& x : r.outcomes) {
    s += format("%-6s%-17s%12lld%9lld  %-22s%8s%12s%11lld%13lld\n", x.mode.c_str(),
                x.is_baseline() ? x.arm.c_str() : "bi", n(x.completions), n(x.digests), divergence(x).c_str(),
                x.alone ? "same" : "differs", x.prefill ? "same" : "differs", n(x.batch_sizes), n(x.stats.preemptions));
  }
  s += "\n"
       "  digests      of all tokens, logits and the KV cache of a request\n"
       "  alone        one of the requests served by itself\n"
       "  prefill      logits of prompt and completion, computed at once instead of one by one\n"
       "  batches      sizes of the batches that the equal requests were in\n";
  s += format("  T=1          top-p %.2f, top-k %d, one seed;", static_cast<double>(sampled.top_p), sampled.top_k);
  for (const outcome& x : r.outcomes) {
    if (!x.is_baseline() && x.mode == sampled.name) {
      s += format(" %lld other seeds gave %lld other completions", n(o.serve.seeds), n(x.seed_completions));
    }
  }
  s += "\n\nOne row alone and in batches, operation by operation:\n\n";
  s += format("  %-34s%16s%20s\n", "", "bi", o.baseline ? baseline_name : "");
  for (const invariance& i : r.operations) {
    const std::string bi = i.differs == 0 ? "same" : format("%lld of %lld DIFFER", n(i.differs), n(i.batches));
    const std::string other = !o.baseline              ? ""
                              : i.baseline_differs < 0 ? "-"
                              : i.baseline_differs == 0
                                  ? "same"
                                  : format("%lld of %lld differ", n(i.baseline_differs), n(i.batches));
    s += format("  %-34s%16s%20s\n", i.operation.c_str(), bi.c_str(), other.c_str());
  }
  s += "  \"a, b | c\": a then b alone, c in a batch\n\n";
  for (const outcome& x : r.outcomes) {
    if (!x.is_baseline()) s += format("end-to-end digest %s  %s\n", x.mode.c_str(), hex(x.end_to_end).c_str());
  }
  for (const auto& [what, ok] : r.checks) s += format("%s: %s\n", what.c_str(), yes(ok));
  for (const outcome& x : r.outcomes) {
    if (x.is_baseline() && x.digests < 2) {
      s += "note: the batch-dependent operations gave equal results too, so this traffic proves little\n";
    }
  }
  s += format("%s (%.0f s)\n", held(r, o.serve) ? "The promise held." : "THE PROMISE DID NOT HOLD.", r.seconds);
  return s;
}

record make_record(const options& o, const weights& w, const results& r) {
  const model_config& m = o.model;
  const traffic& t = o.serve;
  record lines = {
      {"format", "bi-determinism-1"},
      {"model",
       format("layers %lld hidden %lld heads %lld kv-heads %lld head-dim %lld mlp %lld vocab %lld positions %lld",
              n(m.layers), n(m.hidden), n(m.heads_q), n(m.heads_kv), n(m.head_dim), n(m.mlp), n(m.vocab),
              n(m.max_positions))},
      {"weights", hex(w.digest)},
      {"traffic",
       format("equal %lld seeds %lld background %lld prompt %lld tokens %lld seed %llu", n(t.equal), n(t.seeds),
              n(t.background), n(t.prompt), n(t.new_tokens), static_cast<unsigned long long>(t.seed))}};
  for (const auto& [name, id] : contracts_of(m)) lines.emplace_back("contract " + name, hex(id));
  for (const outcome& x : r.outcomes) {
    if (x.is_baseline()) continue;
    lines.emplace_back("digest " + x.mode + " request", hex(x.request_digest));
    lines.emplace_back("digest " + x.mode + " kv", hex(x.kv_digest));
    lines.emplace_back("digest " + x.mode + " end-to-end", hex(x.end_to_end));
  }
  return lines;
}

void write_file(const std::string& file, const std::string& text) {
  std::ofstream out(file);
  out << text;
  out.close();
  if (!out) throw std::runtime_error("can't write " + file);
}

void save_record(const std::string& file, const record& lines) {
  std::string text;
  for (const auto& [key, value] : lines) text += key + ": " + value + "\n";
  write_file(file, text);
}

record load_record(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw std::invalid_argument("can't read " + file);
  record lines;
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) throw std::invalid_argument(file + " is not a file that --save wrote: " + line);
    lines.emplace_back(line.substr(0, colon), line.substr(colon + 2));
  }
  return lines;
}

std::string difference(const record& ours, const record& theirs) {
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (i >= theirs.size()) return "it ends before " + ours[i].first;
    if (ours[i] == theirs[i]) continue;
    return ours[i].first + " is " + ours[i].second + " here, and there " + theirs[i].first + " is " + theirs[i].second;
  }
  return "";
}

std::string json_text(const options& o, const weights& w, const results& r) {
  std::string s = "{\n  \"held\": " + std::string(held(r, o.serve) ? "true" : "false") + ",\n";
  s += format("  \"backend\": \"%s\",\n  \"seconds\": %.3f,\n", o.backend.c_str(), r.seconds);
  s += format(
      "  \"schedule\": {\"seed\": %llu, \"batch_tokens\": %lld, \"batch_requests\": %lld, \"pages\": %lld, \"page_size\": %lld},\n",
      static_cast<unsigned long long>(o.how.seed), n(o.limits.rows), n(o.limits.requests), n(o.limits.pages),
      n(o.limits.page_size));
  s += "  \"record\": {";
  const char* comma = "\n";
  for (const auto& [key, value] : make_record(o, w, r)) {
    s += comma + std::string("    ") + quoted(key) + ": " + quoted(value);
    comma = ",\n";
  }
  s += "\n  },\n  \"served\": [";
  comma = "\n";
  const auto truth = [](bool b) { return b ? "true" : "false"; };
  for (const outcome& x : r.outcomes) {
    s += comma + format("    {\"mode\": \"%s\", \"arm\": \"%s\", \"completions\": %lld, \"digests\": %lld, ",
                        x.mode.c_str(), x.arm.c_str(), n(x.completions), n(x.digests));
    s += format("\"first_logits\": %lld, \"first_token\": %lld, \"seed_completions\": %lld, ", n(x.first_logits),
                n(x.first_token), n(x.seed_completions));
    s += format("\"alone\": %s, \"prefill\": %s, \"batch_sizes\": %lld, \"smallest_batch\": %lld, ", truth(x.alone),
                truth(x.prefill), n(x.batch_sizes), n(x.smallest_batch));
    s += format("\"largest_batch\": %lld, \"steps\": %lld, \"tokens\": %lld, \"recomputed\": %lld, ",
                n(x.largest_batch), n(x.stats.steps), n(x.stats.rows), n(x.stats.recomputed));
    s += format("\"preemptions\": %lld, \"preemptions_for_pages\": %lld, \"end_to_end\": \"%s\", \"seconds\": %.3f}",
                n(x.stats.preemptions), n(x.stats.preemptions_for_pages), hex(x.end_to_end).c_str(), x.seconds);
    comma = ",\n";
  }
  s += "\n  ],\n  \"operations\": [";
  comma = "\n";
  for (const invariance& i : r.operations) {
    s += comma + format("    {\"operation\": \"%s\", \"batches\": %lld, \"differs\": %lld, \"baseline_differs\": %lld}",
                        i.operation.c_str(), n(i.batches), n(i.differs), n(i.baseline_differs));
    comma = ",\n";
  }
  s += "\n  ],\n  \"checks\": {";
  comma = "\n";
  for (const auto& [what, ok] : r.checks) {
    s += comma + std::string("    ") + quoted(what) + ": " + truth(ok);
    comma = ",\n";
  }
  return s + "\n  }\n}\n";
}

}  // namespace demo
