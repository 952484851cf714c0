// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times bi's matrix product beside cuBLASLt's. A point is a shape with a number of tokens; all implementations of a
// point are measured together, replay by replay in turn, when the first of them is asked for. Each reports its own
// median.
#include "bi/gemm.hpp"

#include <benchmark/benchmark.h>
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/program.hpp"
#include "../common/timing.hpp"
#include "bi/schedule/gemm.hpp"
#include "cublaslt.hpp"
#include "shapes.hpp"

namespace {

using bench::buffer;
using bench::flops;
using bench::owned_stream;
using bench::product_shape;

constexpr std::size_t workspace_bytes = std::size_t{64} << 20;
constexpr int rounds = 7;

enum implementation : std::size_t { bi_programmatic, bi_serial, cublaslt, cublaslt_best8, cublaslt_nows, count };
constexpr std::array<const char*, count> names = {"bi", "bi_serial", "cublaslt", "cublaslt_best8", "cublaslt_nows"};

struct result {
  double us = 0.0;
  std::string label, error;
};
using results = std::array<result, count>;

void require(const bi::status& st) {
  if (!st) throw std::runtime_error(bi::describe(st));
}

// How every shape is to be multiplied.
struct form {
  std::int64_t batch = 1;
  bool kn = false;  // weights as [k, n]
};

// The matrices of one shape, for its largest number of tokens, and copies of the weights that take turns.
template <class T>
class operands {
 public:
  operands(const product_shape& s, const form& f, cudaStream_t stream)
      : n_(s.n),
        k_(s.k),
        max_m_(*std::max_element(s.m.begin(), s.m.end())),
        form_(f),
        weights_(f.batch * n_ * k_),
        copies_(bench::weight_copies(f.batch * n_, k_)),
        stream_(stream),
        a_(f.batch * max_m_ * k_),
        b_(copies_ * weights_),
        d_(f.batch * max_m_ * n_),
        expected_(f.batch * max_m_ * n_),
        differences_(1),
        workspace_(static_cast<std::int64_t>(workspace_bytes)) {
    bench::fill_normal(a_.get(), f.batch * max_m_ * k_, 1, 1.0f, stream);
    bench::fill_normal(b_.get(), copies_ * weights_, 2, 0.02f, stream);
  }

  results measure(std::int64_t m) const {
    results r;
    const double guess_us = bench::expected_us(m, form_.batch * n_, k_);
    const std::int64_t launches = std::max(copies_, static_cast<std::int64_t>(200.0 / guess_us) + 1);
    std::vector<bench::graph> graphs;
    std::vector<implementation> owners;
    const auto capture = [&](implementation i, auto launch) {
      launch(b_.get());  // loads the kernel, which a capture doesn't allow everywhere
      graphs.emplace_back(stream_, [&] {
        for (std::int64_t turn = 0; turn < launches; ++turn) launch(b_.get() + turn % copies_ * weights_);
      });
      owners.push_back(i);
    };
    const auto attempt = [&](implementation i, auto f) {
      try {
        f();
      } catch (const std::exception& e) {
        r[i].error = e.what();
      }
    };

    const auto layout = form_.kn ? bi::weight_layout::kn : bi::weight_layout::nk;
    const auto op = bi::gemm<T>::prepare({n_, k_, max_m_, 0, layout});
    bi::gemm_args<T> args;
    args.a = a_.get(), args.b = b_.get(), args.d = d_.get(), args.m = m;
    args.batch = form_.batch;
    args.b_is_constant = true;
    bi::schedule::gemm_schedule programmatic;
    require(op.pick(args, programmatic));
    auto serial = programmatic;
    serial.programmatic = false;
    r[bi_programmatic].label = to_string(programmatic);
    r[bi_serial].label = to_string(serial);

    // What the last launch of a replay must leave, from the generic kernel.
    {
      const auto generic =
          bi::schedule::pick_gemm_schedule({m, n_, k_, form_.batch, op.limits().slices, form_.kn, false}, {});
      auto last = args;
      last.b = b_.get() + (launches - 1) % copies_ * weights_;
      last.d = expected_.get();
      require(op.launch_with(generic, last, {}, stream_));
    }
    const auto launch_bi = [&](implementation i, auto launch) {
      attempt(i, [&] {
        capture(i, [&](const T* weights) {
          auto now = args;
          now.b = weights;
          require(launch(now));
        });
        if (const std::int64_t wrong = wrong_elements(graphs.back(), m); wrong != 0) {
          throw std::runtime_error(std::to_string(wrong) + " of " + std::to_string(form_.batch * m * n_) +
                                   " elements differ from the generic kernel's");
        }
      });
    };
    launch_bi(bi_programmatic, [&](const auto& now) { return op(now, {}, stream_); });
    launch_bi(bi_serial, [&](const auto& now) { return op.launch_with(serial, now, {}, stream_); });

    std::vector<std::unique_ptr<bench::cublaslt_product<T>>> peers;
    const auto launch_peer = [&](implementation i, std::size_t bytes, int most) {
      attempt(i, [&] {
        const auto& peer = *peers.emplace_back(std::make_unique<bench::cublaslt_product<T>>(
            bench::product{m, n_, k_, form_.batch, form_.kn}, bytes, most));
        for (int algorithm = 0; algorithm < peer.algorithms(); ++algorithm) {
          capture(i, [&](const T* weights) {
            peer.run(algorithm, a_.get(), weights, d_.get(), workspace_.get(), stream_);
          });
        }
      });
    };
    launch_peer(cublaslt, workspace_bytes, 1);
    launch_peer(cublaslt_best8, workspace_bytes, 8);
    launch_peer(cublaslt_nows, 0, 1);

    std::vector<const bench::graph*> turns;
    for (const bench::graph& g : graphs) turns.push_back(&g);
    const std::vector<double> medians = bench::median_us(stream_, turns, rounds);
    for (std::size_t i = 0; i < medians.size(); ++i) {
      result& of = r[owners[i]];
      const double us = medians[i] / static_cast<double>(launches);
      if (of.us == 0.0 || us < of.us) of.us = us;
    }
    return r;
  }

 private:
  std::int64_t wrong_elements(const bench::graph& g, std::int64_t m) const {
    const std::int64_t outputs = form_.batch * m * n_;
    const auto bytes = static_cast<std::size_t>(outputs) * sizeof(T);
    BENCH_REQUIRE(cudaMemsetAsync(d_.get(), 0x7f, bytes, stream_));
    g.replay(stream_);
    BENCH_REQUIRE(cudaMemsetAsync(differences_.get(), 0, sizeof(unsigned long long), stream_));
    bench::count_differences<T>(d_.get(), expected_.get(), outputs, differences_.get(), stream_);
    unsigned long long wrong = 0;
    BENCH_REQUIRE(cudaMemcpyAsync(&wrong, differences_.get(), sizeof wrong, cudaMemcpyDeviceToHost, stream_));
    BENCH_REQUIRE(cudaStreamSynchronize(stream_));
    return static_cast<std::int64_t>(wrong);
  }

  std::int64_t n_, k_, max_m_;
  form form_;
  std::int64_t weights_, copies_;  // elements of all entries' weights; how often they are there
  cudaStream_t stream_;
  buffer<T> a_, b_, d_, expected_;
  buffer<unsigned long long> differences_;
  buffer<char> workspace_;
};

// Holds the operands of one shape at a time, and what was measured.
template <class T>
class measurements {
 public:
  measurements(const std::vector<product_shape>& shapes, const form& f)
      : shapes_(shapes), form_(f), points_(shapes.size()) {
    for (std::size_t s = 0; s < shapes.size(); ++s) points_[s].resize(shapes[s].m.size());
  }

  const results& at(std::size_t shape, std::size_t tokens) {
    std::optional<results>& point = points_[shape][tokens];
    if (!point) point = measure(shape, tokens);
    return *point;
  }
  bool failed() const { return failed_; }

  void report(benchmark::State& state, std::size_t shape, std::size_t tokens, implementation i) {
    const results& all = at(shape, tokens);
    const result& mine = all[i];
    if (!mine.error.empty()) {
      failed_ = true;
      state.SkipWithError(mine.error.c_str());
      return;
    }
    for (auto _ : state) state.SetIterationTime(mine.us * 1e-6);
    const product_shape& s = shapes_[shape];
    const std::int64_t m = s.m[tokens];
    const auto batch = static_cast<double>(form_.batch);
    const double bytes = 2.0 * batch * static_cast<double>(s.n * s.k + m * s.k + m * s.n);
    state.counters["TFLOP/s"] = batch * flops(m, s.n, s.k) / mine.us * 1e-6;
    state.counters["GB/s"] = bytes / mine.us * 1e-3;
    if (i == bi_programmatic) {
      double peer = std::numeric_limits<double>::infinity();
      for (const result& other : {all[cublaslt], all[cublaslt_nows]}) {
        if (other.error.empty()) peer = std::min(peer, other.us);
      }
      if (peer < std::numeric_limits<double>::infinity()) state.counters["ratio"] = peer / mine.us;
    }
    state.SetLabel(mine.label);
  }

 private:
  results measure(std::size_t shape, std::size_t tokens) {
    try {
      if (!stream_) stream_.emplace();
      if (!operands_ || shape_ != shape) {
        operands_.reset();
        operands_ = std::make_unique<operands<T>>(shapes_[shape], form_, stream_->get());
        shape_ = shape;
      }
      return operands_->measure(shapes_[shape].m[tokens]);
    } catch (const std::exception& e) {
      results r;
      for (result& each : r) each.error = e.what();
      return r;
    }
  }

  const std::vector<product_shape>& shapes_;
  form form_;
  std::vector<std::vector<std::optional<results>>> points_;
  std::optional<owned_stream> stream_;
  std::unique_ptr<operands<T>> operands_;
  std::size_t shape_ = 0;
  bool failed_ = false;
};

struct options {
  std::vector<product_shape> shapes;
  form of;
  std::string dtype = "bf16", commit = "unknown";
};

constexpr const char* usage =
    "bench_gemm [OPTION VALUE]...\n"
    "  --dtype bf16|fp16     the type of A, B and D (bf16)\n"
    "  --shapes FILE         lines \"N K M [M...]\" instead of the built-in shapes\n"
    "  --config FILE         the projections of a Hugging Face config.json instead\n"
    "  --layout nk|kn        how the weights lie in memory (nk)\n"
    "  --batch B             stacks of B such products (1)\n"
    "  --commit TEXT         stored in the output's context\n"
    "  --benchmark_filter=REGEX, --benchmark_list_tests, --benchmark_out=FILE, --benchmark_out_format=json\n"
    "                        and the other options of Google Benchmark\n"
    "Benchmarks are called gemm/IMPLEMENTATION/DTYPE/NxK/M/iterations:1/manual_time; with --layout kn gemm_kn/..., with\n"
    "--batch bmm/IMPLEMENTATION/DTYPE/BxNxK/M/... or bmm_kn/... Implementations: bi, bi_serial, cublaslt, cublaslt_best8,\n"
    "cublaslt_nows. ratio: the lesser time of cublaslt and cublaslt_nows, over bi's.\n";

options parse(int argc, char** argv) {
  options o;
  for (int i = 1; i < argc; ++i) {
    std::string name = argv[i], value;
    const auto equals = name.find('=');
    const bool known = [&] {
      const auto bare = name.substr(0, equals);
      return bare == "--dtype" || bare == "--shapes" || bare == "--config" || bare == "--layout" || bare == "--batch" ||
             bare == "--commit";
    }();
    if (!known) throw std::invalid_argument("unknown option " + name);
    if (equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    } else {
      if (i + 1 == argc) throw std::invalid_argument(name + " needs a value");
      value = argv[++i];
    }
    if (name == "--dtype") {
      if (value != "bf16" && value != "fp16") throw std::invalid_argument("--dtype is bf16 or fp16, not " + value);
      o.dtype = value;
    }
    if (name == "--layout") {
      if (value != "nk" && value != "kn") throw std::invalid_argument("--layout is nk or kn, not " + value);
      o.of.kn = value == "kn";
    }
    if (name == "--batch") {
      const auto batch = bench::parse_size(value);
      if (!batch) throw std::invalid_argument("--batch is a whole number from 1 to 2147483647, not " + value);
      o.of.batch = *batch;
    }
    if (name == "--shapes") bench::add_shapes_file(o.shapes, value);
    if (name == "--config") bench::add_config(o.shapes, value);
    if (name == "--commit") o.commit = value;
  }
  if (o.shapes.empty()) o.shapes = bench::default_shapes();
  return o;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

void add_context(const options& o) {
  bench::add_context(o.commit);
  int device = 0, runtime = 0, driver = 0, clock_khz = 0;
  BENCH_REQUIRE(cudaGetDevice(&device));
  BENCH_REQUIRE(cudaRuntimeGetVersion(&runtime));
  BENCH_REQUIRE(cudaDriverGetVersion(&driver));
  BENCH_REQUIRE(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, device));
  std::string module = "unknown";
  std::ifstream("/sys/module/nvidia/version") >> module;
  benchmark::AddCustomContext("sm_clock_max_mhz", std::to_string(clock_khz / 1000));
  benchmark::AddCustomContext("driver", module);
  benchmark::AddCustomContext("driver_cuda", version_text(driver));
  benchmark::AddCustomContext("cuda_runtime", version_text(runtime));
  benchmark::AddCustomContext("cublaslt", std::to_string(cublasLtGetVersion()));
}

template <class T>
int run(const options& o) {
  measurements<T> all(o.shapes, o.of);
  const std::string stack = o.of.batch > 1 ? std::to_string(o.of.batch) + "x" : "";
  const std::string kind = std::string(o.of.batch > 1 ? "bmm" : "gemm") + (o.of.kn ? "_kn/" : "/");
  for (std::size_t shape = 0; shape < o.shapes.size(); ++shape) {
    const product_shape& s = o.shapes[shape];
    for (std::size_t tokens = 0; tokens < s.m.size(); ++tokens) {
      for (std::size_t i = 0; i < count; ++i) {
        const std::string name = kind + names[i] + "/" + o.dtype + "/" + stack + std::to_string(s.n) + "x" +
                                 std::to_string(s.k) + "/" + std::to_string(s.m[tokens]);
        bench::add_benchmark(name, [&all, shape, tokens, i](benchmark::State& state) {
          all.report(state, shape, tokens, static_cast<implementation>(i));
        });
      }
    }
  }
  return bench::run_benchmarks([&] { return all.failed(); });
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program("bench_gemm", usage, argc, argv, [](int rest, char** arguments, bool lists) {
    const options o = parse(rest, arguments);
    if (!lists) add_context(o);
    return o.dtype == "bf16" ? run<bi::bf16>(o) : run<bi::fp16>(o);
  });
}
