// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "options.hpp"

#include <charconv>
#include <cstdint>
#include <limits>
#include <stdexcept>

namespace demo {
namespace {

struct number_option {
  const char* name;
  const char* what;
  std::int64_t low, high;
  std::int64_t (*get)(const options&);
  void (*set)(options&, std::int64_t);
};

#define FIELD(f)                                                   \
  [](const options& o) { return static_cast<std::int64_t>(o.f); }, \
      [](options& o, std::int64_t v) { o.f = static_cast<decltype(o.f)>(v); }

constexpr std::int64_t any_seed = std::numeric_limits<std::int64_t>::max();

constexpr number_option numbers[] = {
    {"equal", "equal requests", 2, 100000, FIELD(serve.equal)},
    {"seeds", "requests with the same prompt and other sampling seeds", 0, 100000, FIELD(serve.seeds)},
    {"background", "other requests", 0, 100000, FIELD(serve.background)},
    {"prompt", "tokens of the equal requests' prompt", 1, 100000, FIELD(serve.prompt)},
    {"tokens", "new tokens of each equal request", 8, 100000, FIELD(serve.new_tokens)},
    {"seed", "seed of prompts and sampling", 0, any_seed, FIELD(serve.seed)},

    {"layers", "", 1, 1000, FIELD(model.layers)},
    {"hidden", "", 8, 1 << 16, FIELD(model.hidden)},
    {"heads", "query heads", 1, 1024, FIELD(model.heads_q)},
    {"kv-heads", "key and value heads", 1, 1024, FIELD(model.heads_kv)},
    {"head-dim", "64, 128 or 256", 64, 256, FIELD(model.head_dim)},
    {"mlp", "width of the MLP", 8, 1 << 18, FIELD(model.mlp)},
    {"vocab", "", 2, 1 << 20, FIELD(model.vocab)},
    {"weights-seed", "seed of the weights", 0, any_seed, FIELD(model.seed)},

    {"schedule-seed", "seed of arrivals, batches, chunks, pages and preemptions", 0, any_seed, FIELD(how.seed)},
    {"preempt", "chance in percent that a step preempts a request", 0, 50, FIELD(how.preempt_percent)},
    {"batch-tokens", "most tokens of one step", 1, 1 << 16, FIELD(limits.rows)},
    {"batch-requests", "most requests running at a time", 1, 1 << 16, FIELD(limits.requests)},
    {"pages", "pages of the KV cache", 1, 1 << 24, FIELD(limits.pages)},
    {"page-size", "tokens of a page", 1, 1 << 16, FIELD(limits.page_size)},
    {"threads", "0: one for each core", 0, 1024, FIELD(threads)},
};
#undef FIELD

std::int64_t number(const std::string& name, const std::string& text, const number_option& o) {
  std::int64_t v = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, v);
  if (error != std::errc() || stop != end || v < o.low || v > o.high) {
    throw std::invalid_argument(name + " = \"" + text + "\" must be a number from " + std::to_string(o.low) + " to " +
                                std::to_string(o.high));
  }
  return v;
}

void validate(options& o) {
  const model_config& m = o.model;
  if (m.heads_q % m.heads_kv != 0) {
    throw std::invalid_argument("--heads = " + std::to_string(m.heads_q) +
                                " must be a multiple of --kv-heads = " + std::to_string(m.heads_kv));
  }
  if (m.head_dim != 64 && m.head_dim != 128 && m.head_dim != 256) {
    throw std::invalid_argument("--head-dim = " + std::to_string(m.head_dim) + " must be 64, 128 or 256");
  }
  const std::int64_t needed = pages_for(o.serve.longest(), o.limits.page_size);
  if (o.limits.pages < needed) {
    throw std::invalid_argument("--pages = " + std::to_string(o.limits.pages) + " must be at least " +
                                std::to_string(needed) + ", the pages of one request of --prompt + --tokens");
  }
  bool known = o.backend == "reference";
#ifdef DETERMINISM_GPU
  known = known || o.backend == "gpu";
#endif
  if (o.backend == "gpu" && !known) {
    throw std::invalid_argument("--backend gpu: this program was built without CUDA");
  }
  if (!known) throw std::invalid_argument("--backend = \"" + o.backend + "\" must be reference or gpu");
  o.model.max_positions = o.serve.longest();
}

}  // namespace

options parse(const std::vector<std::string>& arguments) {
  options o;
#ifdef DETERMINISM_GPU
  o.backend = "gpu";
#endif
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i], value;
    if (name == "--help" || name == "-h") {
      o.help = true;
      return o;
    }
    if (name == "--no-baseline") {
      o.baseline = false;
      continue;
    }
    const std::size_t equals = name.find('=');
    const std::string given = name.substr(0, equals);
    const number_option* option = nullptr;
    for (const number_option& n : numbers) {
      if (given == std::string("--") + n.name) option = &n;
    }
    std::string* const text = given == "--backend" ? &o.backend
                              : given == "--save"  ? &o.save
                              : given == "--check" ? &o.check
                              : given == "--json"  ? &o.json
                                                   : nullptr;
    if (option == nullptr && text == nullptr) throw std::invalid_argument("there is no option " + given);
    if (equals != std::string::npos) {
      value = name.substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      throw std::invalid_argument(given + " needs a value");
    }
    if (option != nullptr) {
      option->set(o, number(given, value, *option));
    } else if (value.empty()) {
      throw std::invalid_argument(given + " needs a value");
    } else {
      *text = value;
    }
  }
  validate(o);
  return o;
}

std::string usage() {
  const options defaults;
  std::string s =
      "usage: determinism [--OPTION VALUE] ...\n\n"
      "Serves many equal requests among others with dynamic batches, chunked prefill and preemption, and counts how many\n"
      "different answers come out. Exit code: 0 bi's promise held, 1 it did not, 2 the options are wrong.\n\n"
      "  --backend NAME          reference (the CPU) or gpu, where built with CUDA\n"
      "  --no-baseline           leave out the batch-dependent operations\n"
      "  --save FILE             write the digests and what they depend on\n"
      "  --check FILE            compare with a file of another run, process or machine\n"
      "  --json FILE             write all results\n\n";
  for (const number_option& n : numbers) {
    std::string line = "  --" + std::string(n.name);
    line.resize(26, ' ');
    line += *n.what != 0 ? std::string(n.what) + "; " : "";
    s += line + "default " + std::to_string(n.get(defaults)) + "\n";
  }
  return s;
}

}  // namespace demo
