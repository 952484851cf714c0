// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A small engine on bi's kernels. Start reading at model.cpp (what is computed), then server.cpp (when, and where), then
// the demonstrations.

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "audit.hpp"
#include "demos.hpp"
#include "options.hpp"

namespace engine {
namespace {

template <class Form>
Form form(bool small) {
  return small ? Form::small() : Form{};
}

json run_replay(const host& h, const options& o) {
  const std::unique_ptr<backend> bi = h.make({});
  const weights w(*bi, h.config, h.seed);
  json report = begin_report("replay", h, *bi, w);
  const std::vector<log_entry> log = read_log(read_file(o.log));
  if (o.request >= static_cast<std::int64_t>(log.size())) {
    throw std::invalid_argument("--request = " + std::to_string(o.request) + " must be below the log's " +
                                std::to_string(log.size()));
  }
  const d3_form f = form<d3_form>(o.small);
  std::int64_t equal = 0, all = 0;
  for (const log_entry& e : log) {
    if (o.request >= 0 && e.number != o.request) continue;
    std::optional<finding> found = check_header(e.header, header_for(w, e.header.what));
    if (!found) found = check_chain(e, w.identity);
    if (!found) found = first_difference(e.record, replay(*bi, w, f.limits, e.header.what));
    ++all;
    equal += found ? 0 : 1;
    std::printf("request %lld: %s\n", static_cast<long long>(e.number), found ? found->text().c_str() : "as logged");
  }
  return report.set("passed", equal == all && all > 0).set("replayed", all).set("replays_equal", equal);
}

int run(const std::vector<std::string>& arguments) {
  const options o = parse(arguments);
  if (o.help) {
    std::fputs(usage().c_str(), stdout);
    return 0;
  }
#ifdef ENGINE_GPU
  if (o.backend == "gpu" && !gpu_is_here()) {
    std::fputs("engine: there is no GPU here; --small --backend reference needs none\n", stderr);
    return 77;
  }
#endif
  progress_bar bar;
  host h;
  h.make = [&o](const batch_dependent& d) {
#ifdef ENGINE_GPU
    if (o.backend == "gpu") return make_gpu(d);
#endif
    return make_reference(static_cast<int>(o.threads), d);
  };
  const std::string bundled = std::string(ENGINE_CONFIGS) + (o.small ? "/tiny.json" : "/qwen3-8b.json");
  h.config = load_config(o.config.empty() ? bundled : o.config);
  h.seed = static_cast<std::uint64_t>(o.seed);
  h.commit = o.commit;
  h.folder = o.folder;
  h.bar = &bar;
  const stopwatch watch;
  json report = o.what == "d1"      ? run_d1(h, form<d1_form>(o.small))
                : o.what == "d2"    ? run_d2(h, form<d2_form>(o.small))
                : o.what == "d3"    ? run_d3(h, form<d3_form>(o.small))
                : o.what == "d4"    ? run_d4(h, form<d4_form>(o.small))
                : o.what == "bench" ? run_bench(h, form<bench_form>(o.small))
                                    : run_replay(h, o);
  report.set("small", o.small).set("total_seconds", watch.seconds());
  const std::string file = h.folder + "/engine_" + o.what + ".json";
  write_file(file, report.pretty());
  const bool passed = report.at("passed").boolean();
  std::printf("%s: %s, %.0f s, %s\n", o.what.c_str(), passed ? "passed" : "THE PROMISE DID NOT HOLD", watch.seconds(),
              file.c_str());
  return passed ? 0 : 1;
}

}  // namespace
}  // namespace engine

int main(int argc, char** argv) {
  try {
    return engine::run({argv + 1, argv + argc});
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "engine: %s (--help lists the options)\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "engine: %s\n", e.what());
    return 1;
  }
}
