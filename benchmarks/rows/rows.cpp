// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times operations over rows. A graph holds launches on data of their own, far more than the L2 cache holds; all
// implementations of a point take turns, so that they see the same clocks.
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/program.hpp"
#include "../common/timing.hpp"
#include "bi/digest.hpp"
#include "bi/layer_norm.hpp"
#include "bi/reduce.hpp"
#include "bi/rms_norm.hpp"
#include "bi/softmax.hpp"
#include "peers.hpp"

namespace {

using bench::buffer;
using bench::row_op;
constexpr int rounds = 7;
constexpr double pool_bytes = 400e6;  // of inputs; H100 has 50 MB of L2

struct point {
  row_op op;
  bool bf16;
  std::int64_t rows, cols;
  std::int64_t inner = 0;  // sums over the middle of [rows, cols, inner], if not 0
  std::int64_t sums() const { return rows * std::max<std::int64_t>(inner, 1); }
};

std::vector<point> points() {
  std::vector<point> all;
  for (const row_op op : {row_op::rms_norm, row_op::add_rms_norm, row_op::layer_norm}) {
    for (const std::int64_t cols : {2048, 4096, 5120, 8192, 16384}) {
      for (const std::int64_t rows : {1, 16, 64, 256, 1024, 8192, 32768}) {
        if (op == row_op::layer_norm && cols != 4096 && cols != 8192) continue;
        if (rows * cols <= std::int64_t{1} << 28) all.push_back({op, true, rows, cols});
      }
    }
  }
  for (const std::int64_t cols : {128, 65536})
    all.push_back({row_op::rms_norm, true, cols == 128 ? 262144 : 2048, cols});
  for (const std::int64_t rows : {1, 8192}) all.push_back({row_op::rms_norm, false, rows, 4096});
  for (const row_op op : {row_op::softmax, row_op::log_softmax, row_op::logsumexp}) {
    for (const std::int64_t cols : {32000, 128256, 151936}) {
      for (const std::int64_t rows : {1, 16, 64, 256, 1024}) {
        for (const bool bf16 : {true, false}) {
          if (op != row_op::logsumexp && !bf16 && rows > 256) continue;
          all.push_back({op, bf16, rows, cols});
        }
      }
    }
  }
  all.push_back({row_op::softmax, true, 8192, 4096});
  for (int power = 12; power <= 30; power += 3) all.push_back({row_op::sum, false, 1, std::int64_t{1} << power});
  all.push_back({row_op::sum, true, 1, std::int64_t{1} << 30});
  for (const std::int64_t cols : {256, 4096, 65536})
    all.push_back({row_op::sum, false, (std::int64_t{1} << 27) / cols, cols});
  for (const std::int64_t cols : {4096, 131072})
    all.push_back({row_op::sum, false, 1, cols, (std::int64_t{1} << 27) / cols});
  all.push_back({row_op::sum, false, 64, 2048, 1024});
  all.push_back({row_op::sum, true, 1, 4096, 32768});
  for (const std::int64_t cols : {4096, 151936}) {
    for (const std::int64_t rows : {1, 16, 64, 256, 1024, 8192}) {
      for (const bool bf16 : {true, false}) {
        if (rows * cols <= std::int64_t{1} << 28) all.push_back({row_op::digest, bf16, rows, cols});
      }
    }
  }
  return all;
}

std::vector<const char*> implementations(const point& p) {
  std::vector<const char*> names = {"bi"};
  if (p.inner > 0) return names;
  if (p.op < row_op::logsumexp) names.push_back("copy");
  if (p.rows <= 0x7fffffff) names.push_back("free");
  if (p.op == row_op::sum && !p.bf16) {
    names.push_back(p.rows == 1 ? "cub" : "cub_segmented");
    if (p.rows == 1) {
      names.push_back("cub_run_to_run");
      names.push_back("cub_gpu_to_gpu");
    }
  }
  return names;
}

std::string name_of(const point& p, const std::string& implementation) {
  std::string name(bench::row_op_names[static_cast<int>(p.op)]);
  name.append("/").append(implementation).append(p.bf16 ? "/bf16/" : "/fp32/");
  if (p.op != row_op::sum || p.rows > 1 || p.inner > 0) name.append(std::to_string(p.rows)).append("x");
  name.append(std::to_string(p.cols));
  if (p.inner > 0) name.append("x").append(std::to_string(p.inner));
  return name;
}

// Read and written once.
double bytes_of(const point& p) {
  const double each = p.bf16 ? 2 : 4, matrix = static_cast<double>(p.sums()) * static_cast<double>(p.cols) * each;
  switch (p.op) {
    case row_op::add_rms_norm:
      return 4 * matrix;
    case row_op::logsumexp:
    case row_op::sum:
    case row_op::digest:
      return matrix + 4.0 * static_cast<double>(p.sums());
    default:
      return 2 * matrix;
  }
}

void require(const bi::status& st) {
  if (!st) throw std::runtime_error(bi::describe(st));
}

template <class T>
void launch_bi(row_op op, const bench::row_problem<T>& p, std::int64_t inner, bi::workspace ws, cudaStream_t stream) {
  if (inner > 0) {
    bi::reduce_columns_args<T, float> a;
    a.x = p.x, a.outer = p.rows, a.cols = p.cols, a.inner = inner, a.out = p.result;
    require(bi::reduce_columns(a, bi::reduction::sum, ws, stream));
  } else if (op == row_op::rms_norm || op == row_op::add_rms_norm) {
    bi::rms_norm_args<T> a;
    a.x = p.x, a.weight = p.weight, a.rows = p.rows, a.cols = p.cols, a.out = p.out;
    if (op == row_op::add_rms_norm) a.residual = a.residual_out = p.residual;
    require(bi::rms_norm(a, stream));
  } else if (op == row_op::layer_norm) {
    bi::layer_norm_args<T> a;
    a.x = p.x, a.weight = p.weight, a.bias = p.bias, a.rows = p.rows, a.cols = p.cols, a.out = p.out;
    require(bi::layer_norm(a, stream));
  } else if (op == row_op::sum) {
    bi::reduce_args<T, float> a;
    a.x = p.x, a.rows = p.rows, a.cols = p.cols, a.out = p.result;
    require(bi::reduce(a, bi::reduction::sum, ws, stream));
  } else if (op == row_op::digest) {
    bi::digest_rows_args a;
    a.data = p.x, a.rows = p.rows, a.row_bytes = p.cols * static_cast<std::int64_t>(sizeof(T));
    a.out = reinterpret_cast<std::uint64_t*>(p.result);
    require(bi::digest_rows(a, stream));
  } else if (op == row_op::logsumexp) {
    bi::logsumexp_args<T> a;
    a.x = p.x, a.rows = p.rows, a.cols = p.cols, a.out = p.result;
    require(bi::logsumexp(a, stream));
  } else {
    bi::softmax_args<T> a;
    a.x = p.x, a.rows = p.rows, a.cols = p.cols, a.out = p.out;
    require(op == row_op::softmax ? bi::softmax(a, stream) : bi::log_softmax(a, stream));
  }
}

using times = std::map<std::string, double>;  // microseconds; a mode that CUB has not is not here

template <class T>
times measure(const point& p) {
  const bench::owned_stream stream;
  const std::int64_t matrix = p.sums() * p.cols, most = std::int64_t{1} << 31;
  // Launches: some milliseconds of them. Each has its own data as far as the pool goes; a launch's data are cold
  // because as much as the pool is moved before they come again, by the launches or by a memset between the graphs.
  const double us = bytes_of(p) / 2.5e6 + 3.0;
  const std::int64_t launches = std::clamp<std::int64_t>(static_cast<std::int64_t>(2000.0 / us), 1, 400);
  const std::int64_t sets =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(pool_bytes / bytes_of(p)) + 1, 1, launches);
  if (sets * matrix > most) throw std::runtime_error("too large");
  const std::int64_t padded = (matrix + 127) / 128 * 128, weights = (p.cols + 127) / 128 * 128;
  const bool norm = p.op <= row_op::layer_norm, writes = p.op <= row_op::log_softmax;
  const buffer<T> x(sets * padded), residual(p.op == row_op::add_rms_norm ? sets * padded : 1);
  const buffer<T> out(writes ? sets * padded : 1), weight(norm ? sets * weights : 1), bias(norm ? sets * weights : 1);
  const buffer<float> result(2 * p.sums());
  constexpr std::int64_t flush_bytes = 200000000;
  const buffer<unsigned char> flush(flush_bytes);
  bench::fill_normal(x.get(), sets * padded, 1, p.op > row_op::layer_norm ? 3.0f : 1.0f, stream.get());
  if (norm) {
    bench::fill_normal(weight.get(), sets * weights, 2, 1.0f, stream.get());
    bench::fill_normal(bias.get(), sets * weights, 3, 1.0f, stream.get());
  }
  if (p.op == row_op::add_rms_norm) BENCH_REQUIRE(cudaMemset(residual.get(), 0, sets * padded * sizeof(T)));
  std::size_t ws_bytes = p.op == row_op::sum ? bi::reduce_workspace_bytes(p.rows, p.cols) : 0;
  if (p.inner > 0) ws_bytes = bi::reduce_columns_workspace_bytes(p.rows, p.cols, p.inner);
  const buffer<unsigned char> memory(static_cast<std::int64_t>(std::max<std::size_t>(ws_bytes, 1)));
  const bi::workspace ws = ws_bytes > 0 ? bi::workspace{memory.get(), ws_bytes} : bi::workspace{};
  std::size_t cub_bytes = 0;
  if constexpr (std::is_same_v<T, float>) {
    if (p.op == row_op::sum && p.inner == 0)
      bench::cub_sum(nullptr, cub_bytes, x.get(), result.get(), p.rows, p.cols, stream.get());
  }
  const buffer<unsigned char> cub_memory(static_cast<std::int64_t>(std::max<std::size_t>(cub_bytes, 1)));

  const auto problem = [&](std::int64_t turn) {
    const std::int64_t set = turn % sets;
    bench::row_problem<T> q;
    q.rows = p.rows, q.cols = p.cols;
    q.x = x.get() + set * padded;
    if (p.op == row_op::add_rms_norm) q.residual = residual.get() + set * padded;
    if (norm) q.weight = weight.get() + set * weights, q.bias = bias.get() + set * weights;
    if (writes) q.out = out.get() + set * padded;
    q.result = result.get();
    return q;
  };
  const auto launch = [&](const std::string& name, std::int64_t turn) {
    const bench::row_problem<T> q = problem(turn);
    if (name == "bi") {
      launch_bi(p.op, q, p.inner, ws, stream.get());
    } else if (name == "free") {
      bench::launch_free(p.op, q, stream.get());
    } else if (name == "copy") {
      const std::size_t half = static_cast<std::size_t>(matrix) * sizeof(T);
      BENCH_REQUIRE(cudaMemcpyAsync(q.out, q.x, half, cudaMemcpyDeviceToDevice, stream.get()));
      if (p.op == row_op::add_rms_norm) {
        const T* other = x.get() + (turn + sets / 2) % sets * padded;
        BENCH_REQUIRE(cudaMemcpyAsync(q.residual, other, half, cudaMemcpyDeviceToDevice, stream.get()));
      }
    } else if constexpr (std::is_same_v<T, float>) {
      if (name == "cub" || name == "cub_segmented") {
        bench::cub_sum(cub_memory.get(), cub_bytes, q.x, q.result, p.rows, p.cols, stream.get());
      } else {
        const auto mode = name == "cub_run_to_run" ? bench::cub_mode::run_to_run : bench::cub_mode::gpu_to_gpu;
        return bench::cub_sum_mode(mode, q.x, q.result, p.cols, stream.get());
      }
    }
    return true;
  };

  std::vector<bench::graph> graphs;
  std::vector<std::string> names;
  graphs.emplace_back(stream.get(), [&] {
    BENCH_REQUIRE(cudaMemsetAsync(flush.get(), 0, static_cast<std::size_t>(flush_bytes), stream.get()));
  });
  for (const std::string name : implementations(p)) {
    if (!launch(name, 0)) continue;
    BENCH_REQUIRE(cudaStreamSynchronize(stream.get()));
    graphs.emplace_back(stream.get(), [&] {
      for (std::int64_t turn = 0; turn < launches; ++turn) launch(name, turn);
    });
    names.push_back(name);
  }
  std::vector<const bench::graph*> order;
  for (std::size_t i = 1; i < graphs.size(); ++i) {
    order.push_back(&graphs[0]);
    order.push_back(&graphs[i]);
  }
  const std::vector<double> all = bench::median_us(stream.get(), order, rounds);
  times t;
  for (std::size_t i = 0; i < names.size(); ++i) t[names[i]] = all[2 * i + 1] / static_cast<double>(launches);
  return t;
}

struct measured {
  times us;
  std::string error;
};

class measurements {
 public:
  void report(benchmark::State& state, std::size_t index, const point& p, const std::string& implementation) {
    auto found = points_.find(index);
    if (found == points_.end()) {
      measured m;
      try {
        m.us = p.bf16 ? measure<bi::bf16>(p) : measure<float>(p);
      } catch (const std::exception& e) {
        m.error = e.what();
        failed_ = true;
      }
      found = points_.emplace(index, m).first;
    }
    const measured& m = found->second;
    const auto mine = m.us.find(implementation);
    if (mine == m.us.end()) {
      state.SkipWithError(m.error.empty() ? "this CUB has no such mode" : m.error.c_str());
      return;
    }
    for (auto _ : state) state.SetIterationTime(mine->second * 1e-6);
    state.counters["GB/s"] = bytes_of(p) / mine->second * 1e-3;
  }
  bool failed() const { return failed_; }

 private:
  std::map<std::size_t, measured> points_;
  bool failed_ = false;
};

constexpr const char* usage =
    "bench_rows [--commit TEXT] [options of Google Benchmark]\n"
    "Benchmarks are called OPERATION/IMPLEMENTATION/TYPE/ROWSxCOLUMNS/iterations:1/manual_time, a sum of one row\n"
    "reduce/IMPLEMENTATION/TYPE/ELEMENTS, one over the middle of three dimensions .../OUTERxCOLUMNSxINNER.\n"
    "Implementations: bi, copy (the same bytes), free (a thread block a row, any\n"
    "order; of digest_rows only a read), cub, cub_run_to_run, cub_gpu_to_gpu, cub_segmented. GB/s: read once and written once.\n";

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program("bench_rows", usage, argc, argv, [](int rest, char** arguments, bool lists) {
    const std::string commit = bench::parse_commit(rest, arguments);
    if (!lists) bench::add_context(commit);
    measurements all;
    const std::vector<point> every = points();
    for (std::size_t index = 0; index < every.size(); ++index) {
      for (const std::string implementation : implementations(every[index])) {
        const point p = every[index];
        bench::add_benchmark(name_of(p, implementation), [&all, index, p, implementation](benchmark::State& state) {
          all.report(state, index, p, implementation);
        });
      }
    }
    return bench::run_benchmarks([&] { return all.failed(); });
  });
}
