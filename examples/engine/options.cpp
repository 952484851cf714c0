// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <stdexcept>

namespace engine {
namespace {

#ifdef ENGINE_GPU
constexpr bool have_gpu = true;
#else
constexpr bool have_gpu = false;
#endif

std::int64_t number(const std::string& name, const std::string& text, std::int64_t high) {
  std::int64_t v = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, v);
  if (error != std::errc() || stop != end || v < 0 || v > high) {
    throw std::invalid_argument(name + " = \"" + text + "\" must be a number from 0 to " + std::to_string(high));
  }
  return v;
}

}  // namespace

options parse(const std::vector<std::string>& arguments) {
  options o;
  const auto known = [](const std::string& s) {
    const std::vector<std::string> all = {"d1", "d2", "d3", "d4", "bench", "replay"};
    return std::find(all.begin(), all.end(), s) != all.end();
  };
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& a = arguments[i];
    if (a == "--help" || a == "-h") {
      o.help = true;
      return o;
    }
    if (a == "--small") {
      o.small = true;
      continue;
    }
    if (a.rfind("--", 0) != 0) {
      if (!o.what.empty() || !known(a)) throw std::invalid_argument("there is no demonstration \"" + a + "\"");
      o.what = a;
      continue;
    }
    const std::size_t equals = a.find('=');
    const std::string name = a.substr(0, equals);
    std::string* const text = name == "--config"    ? &o.config
                              : name == "--backend" ? &o.backend
                              : name == "--out"     ? &o.folder
                              : name == "--commit"  ? &o.commit
                              : name == "--log"     ? &o.log
                                                    : nullptr;
    std::int64_t* const count = name == "--threads"   ? &o.threads
                                : name == "--seed"    ? &o.seed
                                : name == "--request" ? &o.request
                                                      : nullptr;
    if (text == nullptr && count == nullptr) throw std::invalid_argument("there is no option " + name);
    if (equals == std::string::npos && i + 1 == arguments.size()) throw std::invalid_argument(name + " needs a value");
    const std::string value = equals != std::string::npos ? a.substr(equals + 1) : arguments[++i];
    if (value.empty()) throw std::invalid_argument(name + " needs a value");
    if (text != nullptr) *text = value;
    if (count != nullptr)
      *count = number(name, value, name == "--threads" ? 1024 : std::numeric_limits<std::int64_t>::max());
  }
  if (o.what.empty()) throw std::invalid_argument("which demonstration? d1, d2, d3, d4, bench or replay");
  if (o.backend.empty()) o.backend = have_gpu ? "gpu" : "reference";
  if (o.backend != "gpu" && o.backend != "reference") {
    throw std::invalid_argument("--backend = \"" + o.backend + "\" must be reference or gpu");
  }
  if (o.backend == "gpu" && !have_gpu)
    throw std::invalid_argument("--backend gpu: this program was built without CUDA");
  if (o.backend == "reference" && !o.small && o.what != "replay") {
    throw std::invalid_argument("the CPU reference would take days at full size: add --small");
  }
  if (o.what == "replay" && o.log.empty()) throw std::invalid_argument("replay needs --log FILE");
  return o;
}

std::string usage() {
  return "usage: engine d1|d2|d3|d4|bench|replay [--small] [OPTIONS]\n\n"
         "  d1      equal requests in batches that never are the same give one answer\n"
         "  d2      branches that run in any order, and are thrown out and computed again, join without a copy or a change\n"
         "  d3      a log of digests: requests replayed alone agree with it, injected faults don't\n"
         "  d4      one prefill gives the log-probabilities that decoding gave\n"
         "  bench   tokens a second, against operations that follow the batch\n"
         "  replay  requests of d3's log, compared with it\n\n"
         "Each writes engine_NAME.json. Exit code: 0 the promise held, 1 it did not, 2 the options are wrong, 77 there"
         " is no GPU.\n\n"
         "  --small           a tiny model, for a CPU\n"
         "  --config FILE     a Hugging Face config.json of a Qwen3 model; default: Qwen3-8B, with --small a tiny one\n"
         "  --backend NAME    gpu, where built with CUDA, or reference: what the kernels compute bit by bit, on the CPU\n"
         "  --out FOLDER      for the reports; default .\n"
         "  --seed N          of weights, traffic and schedules; default 1\n"
         "  --threads N       of the reference; default 0, as many as there are cores\n"
         "  --commit TEXT     for the reports\n"
         "  --log FILE        replay: the log\n"
         "  --request N       replay: one request of it; default: all\n";
}

}  // namespace engine
