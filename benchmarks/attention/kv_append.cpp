// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Times kv_append: qk-norm, RoPE and the write to pages of 16 tokens, bf16, head_dim 128. bi is the one kernel,
// bi_digest makes each token's digest too, separate is qk_norm and rope of q and of k, then a plain append, and copy is
// a device copy of the same number of bytes. The outputs of bi, bi_digest and separate must be equal bit by bit. Without
// query heads q is left out. And digest_kv, which reads the cache again.
#include "bi/kv_cache.hpp"

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iterator>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/program.hpp"
#include "../common/timing.hpp"
#include "bi/contract/trig.hpp"
#include "bi/digest.hpp"
#include "bi/rms_norm.hpp"
#include "bi/schedule/flat.hpp"

// Instantiated in kv_append_kernels.cu.
BI_NAMESPACE_BEGIN
namespace launch_detail {
template <class Norm, class Rope, class T>
status launch_kv_append(const kv_append_args<T>&, const schedule::shared_schedule&, cuda_stream);
}
BI_NAMESPACE_END

namespace {

using bench::buffer;
using bi::bf16;

constexpr std::int64_t head_dim = 128, page_size = 16, positions = 32768;
constexpr int rounds = 9;
constexpr std::array<const char*, 4> names = {"bi", "bi_digest", "separate", "copy"};

struct point {
  std::int64_t heads_q, heads_kv, tokens;
};
constexpr point points[] = {{32, 8, 1},     {32, 8, 16},  {32, 8, 64},   {32, 8, 256},  {32, 8, 2048}, {32, 8, 8192},
                            {32, 8, 32768}, {0, 8, 64},   {0, 8, 2048},  {0, 8, 8192},  {0, 8, 32768}, {8, 1, 64},
                            {8, 1, 2048},   {8, 1, 8192}, {8, 1, 32768}, {64, 8, 8192}, {32, 32, 8192}};

struct run_point {
  std::int64_t requests, tokens;  // a run of so many tokens each, 8 KV heads
};
constexpr run_point run_points[] = {{1, 256}, {1, 4096}, {1, 32768}, {64, 256}, {64, 1024}};

struct result {
  double us = 0.0;
  std::string error;
};
using results = std::array<result, names.size()>;

void require(const bi::status& st) {
  if (!st) throw std::runtime_error(bi::describe(st));
}
template <class T>
void upload(const buffer<T>& to, const std::vector<T>& from) {
  BENCH_REQUIRE(cudaMemcpy(to.get(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
}

// Read or written once: q, k, v, q_out, the cache, slots and positions, a token's row of the table.
double bytes_of(const point& p) {
  const double rows = static_cast<double>(p.heads_q + 2 * p.heads_kv) * head_dim * sizeof(bf16);
  return static_cast<double>(p.tokens) * (2 * rows + head_dim * sizeof(float) + 8 + 4);
}

struct angle_table {
  std::vector<float> cos = std::vector<float>(static_cast<std::size_t>(positions * head_dim / 2)), sin = cos;
};
const angle_table& angles() {
  static const angle_table all = [] {
    angle_table t;
    require(bi::make_rope_table(1e6, head_dim, positions, t.cos.data(), t.sin.data()));
    return t;
  }();
  return all;
}

// A call's buffers. Those of many calls take turns, so that none is in the L2 cache when its turn comes, unless a call
// has few tokens: theirs fit.
class calls {
 public:
  calls(const point& p, const bench::owned_stream& stream)
      : p_(p),
        copies_(std::clamp<std::int64_t>(static_cast<std::int64_t>(3e8 / bytes_of(p)), 1, 512)),
        q_width_(p.heads_q * head_dim),
        kv_width_(p.heads_kv * head_dim),
        pages_((p.tokens + page_size - 1) / page_size),
        x_(copies_ * p.tokens * (q_width_ + 2 * kv_width_)),
        q_out_(std::max<std::int64_t>(1, copies_ * p.tokens * q_width_)),
        cache_k_(copies_ * cache_elements()),
        cache_v_(copies_ * cache_elements()),
        digest_(p.tokens),
        weight_(head_dim),
        q_weight_(head_dim),
        cos_(positions * head_dim / 2),
        sin_(positions * head_dim / 2),
        slot_(p.tokens),
        position_(p.tokens),
        run_index_(p.tokens) {
    bench::fill_normal(x_.get(), copies_ * p.tokens * (q_width_ + 2 * kv_width_), 1, 1.0f, stream.get());
    bench::fill_normal(weight_.get(), head_dim, 2, 1.0f, stream.get());
    bench::fill_normal(q_weight_.get(), head_dim, 3, 1.0f, stream.get());
    upload(cos_, angles().cos);
    upload(sin_, angles().sin);
    std::vector<std::int64_t> page(static_cast<std::size_t>(pages_)), slot;
    for (std::size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::int64_t>(i);
    std::shuffle(page.begin(), page.end(), std::mt19937(4));
    std::vector<std::int32_t> position;
    for (std::int64_t t = 0; t < p.tokens; ++t) {
      slot.push_back(page[static_cast<std::size_t>(t / page_size)] * page_size + t % page_size);
      // A chunk of a prompt is consecutive, decode's tokens are anywhere.
      position.push_back(static_cast<std::int32_t>((p.tokens > 256 ? t : t * 7919) % positions));
    }
    upload(slot_, slot);
    upload(position_, position);
    upload(run_index_, position);
    BENCH_REQUIRE(cudaDeviceSynchronize());
  }

  std::int64_t copies() const { return copies_; }
  const buffer<bf16>& q_out() const { return q_out_; }
  const buffer<bf16>& cache_k() const { return cache_k_; }
  const buffer<bf16>& cache_v() const { return cache_v_; }
  std::int64_t q_elements() const { return p_.tokens * q_width_; }
  std::int64_t cache_elements() const { return pages_ * page_size * kv_width_; }

  bi::kv_append_args<bf16> args(std::int64_t turn) const {
    const std::int64_t row = q_width_ + 2 * kv_width_, i = turn % copies_;
    bi::kv_append_args<bf16> a;
    bf16* x = x_.get() + i * p_.tokens * row;
    a.k = x + q_width_;
    a.v = x + q_width_ + kv_width_;
    a.k_token_stride = row;
    a.cache.k = cache_k_.get() + i * cache_elements();
    a.cache.v = cache_v_.get() + i * cache_elements();
    a.cache.num_pages = pages_, a.cache.page_size = page_size, a.cache.heads = p_.heads_kv;
    a.cache.head_dim = head_dim;
    a.slot = slot_.get();
    a.tokens = p_.tokens;
    a.norm_weight = weight_.get();
    a.position = position_.get();
    a.table = {cos_.get(), sin_.get(), positions, head_dim, bi::rope_style::half};
    if (p_.heads_q == 0) return a;
    a.q = x;
    a.heads_q = p_.heads_q;
    a.q_token_stride = row;
    a.q_norm_weight = q_weight_.get();
    a.q_out = q_out_.get() + i * q_elements();
    return a;
  }
  bi::kv_append_args<bf16> args_with_digest(std::int64_t turn) const {
    bi::kv_append_args<bf16> a = args(turn);
    a.digest = digest_.get();
    a.run_index = run_index_.get();
    return a;
  }
  // q to q_out, and k to its own place: the data of a turn is spoilt, so this comes last.
  void separate(std::int64_t turn, cudaStream_t stream) const {
    bi::kv_append_args<bf16> a = args(turn);
    const auto both = [&](const bf16* from, bf16* to, std::int64_t heads, std::int64_t to_stride, const bf16* weight) {
      bi::qk_norm_args<bf16> n;
      n.x = from, n.out = to, n.weight = weight, n.tokens = a.tokens, n.heads = heads, n.head_dim = head_dim;
      n.x_token_stride = a.k_token_stride, n.out_token_stride = to_stride;
      require(bi::qk_norm(n, stream));
      bi::rope_args<bf16> r;
      r.x = r.out = to, r.position = a.position, r.table = a.table, r.tokens = a.tokens, r.heads = heads;
      r.head_dim = head_dim, r.x_token_stride = r.out_token_stride = to_stride;
      require(bi::rope(r, stream));
    };
    if (a.q != nullptr) both(a.q, a.q_out, a.heads_q, q_width_, a.q_norm_weight);
    both(a.k, const_cast<bf16*>(a.k), p_.heads_kv, a.k_token_stride, a.norm_weight);
    a.q = nullptr, a.q_out = nullptr, a.norm_weight = nullptr;
    a.table = {};
    require(bi::kv_append(a, stream));
  }
  // Half the bytes, read and written.
  void copy(std::int64_t turn, cudaStream_t stream) const {
    const std::int64_t i = turn % copies_, n = p_.tokens * kv_width_, width = q_width_ + 2 * kv_width_;
    const bf16* from = x_.get() + i * p_.tokens * width;
    const auto bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(bf16); };
    const auto part = [&](bf16* to, const bf16* source, std::int64_t elements) {
      BENCH_REQUIRE(cudaMemcpyAsync(to, source, bytes(elements), cudaMemcpyDeviceToDevice, stream));
    };
    part(cache_k_.get() + i * cache_elements(), from, n);
    part(cache_v_.get() + i * cache_elements(), from + n, n);
    if (p_.heads_q > 0) part(q_out_.get() + i * q_elements(), from + 2 * n, p_.tokens * q_width_);
  }

 private:
  point p_;
  std::int64_t copies_, q_width_, kv_width_, pages_;
  buffer<bf16> x_, q_out_, cache_k_, cache_v_;
  buffer<std::uint64_t> digest_;
  buffer<bf16> weight_, q_weight_;
  buffer<float> cos_, sin_;
  buffer<std::int64_t> slot_;
  buffer<std::int32_t> position_, run_index_;
};

// Enough that a graph takes a millisecond and more, and whole turns of the buffers.
std::int64_t launches_of(const point& p, std::int64_t copies) {
  const double us = bytes_of(p) / 2.5e6 + 2.5;
  return (static_cast<std::int64_t>(1500.0 / us) / copies + 1) * copies;
}

results measure(const point& p) {
  const bench::owned_stream stream;
  const calls all(p, stream);
  const std::int64_t launches = launches_of(p, all.copies());
  const auto launch = [&](std::size_t implementation, std::int64_t turn) {
    if (implementation == 0) require(bi::kv_append(all.args(turn), stream.get()));
    if (implementation == 1) require(bi::kv_append(all.args_with_digest(turn), stream.get()));
    if (implementation == 2) all.separate(turn, stream.get());
    if (implementation == 3) all.copy(turn, stream.get());
  };
  // Outputs of turn 0.
  const buffer<unsigned long long> differences(1);
  const std::int64_t q_n = all.q_elements(), kv_n = all.cache_elements();
  const buffer<bf16> expected(q_n + 2 * kv_n);
  results r;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto poison = [&](const buffer<bf16>& b, std::int64_t n) {
      BENCH_REQUIRE(cudaMemsetAsync(b.get(), 0x7f, static_cast<std::size_t>(n) * sizeof(bf16), stream.get()));
    };
    poison(all.q_out(), q_n);
    poison(all.cache_k(), kv_n);
    poison(all.cache_v(), kv_n);
    launch(i, 0);
    BENCH_REQUIRE(cudaMemsetAsync(differences.get(), 0, sizeof(unsigned long long), stream.get()));
    std::int64_t done = 0;
    const auto compare = [&](const buffer<bf16>& b, std::int64_t n) {
      if (n == 0) return;
      if (i == 0) {
        BENCH_REQUIRE(cudaMemcpyAsync(expected.get() + done, b.get(), static_cast<std::size_t>(n) * sizeof(bf16),
                                      cudaMemcpyDeviceToDevice, stream.get()));
      }
      bench::count_differences<bf16>(b.get(), expected.get() + done, n, differences.get(), stream.get());
      done += n;
    };
    compare(all.q_out(), q_n);
    compare(all.cache_k(), kv_n);
    compare(all.cache_v(), kv_n);
    unsigned long long wrong = 0;
    BENCH_REQUIRE(cudaMemcpyAsync(&wrong, differences.get(), sizeof wrong, cudaMemcpyDeviceToHost, stream.get()));
    BENCH_REQUIRE(cudaStreamSynchronize(stream.get()));
    if (wrong != 0) r[i].error = std::to_string(wrong) + " outputs differ from those of the one kernel";
  }
  std::vector<bench::graph> graphs;
  for (std::size_t i = 0; i < names.size(); ++i) {
    launch(i, 0);  // loads the kernels, which a capture doesn't allow everywhere
    graphs.emplace_back(stream.get(), [&] {
      for (std::int64_t turn = 0; turn < launches; ++turn) launch(i, turn);
    });
  }
  const std::vector<double> us =
      bench::median_us(stream.get(), {&graphs[0], &graphs[1], &graphs[2], &graphs[3]}, rounds);
  for (std::size_t i = 0; i < names.size(); ++i) r[i].us = us[i] / static_cast<double>(launches);
  return r;
}

double run_bytes(const run_point& p) {
  return static_cast<double>(p.requests * p.tokens * 2 * 8 * head_dim) * sizeof(bf16);
}

// Microseconds of digest_kv of a run for each request. Each launch has tokens of its own, in a cache that is larger than
// the L2 cache by far.
double measure_digest_kv(const run_point& p) {
  const std::int64_t tokens = p.requests * p.tokens, launches = std::max<std::int64_t>(1, 65536 / tokens);
  const std::int64_t elements = launches * tokens * 8 * head_dim, pages = launches * tokens / page_size;
  const bench::owned_stream stream;
  const buffer<bf16> k(elements), v(elements);
  const buffer<std::int32_t> table(pages), count(p.requests);
  const buffer<std::uint64_t> out(p.requests);
  bench::fill_normal(k.get(), elements, 1, 1.0f, stream.get());
  bench::fill_normal(v.get(), elements, 2, 1.0f, stream.get());
  std::vector<std::int32_t> order(static_cast<std::size_t>(pages));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::shuffle(order.begin(), order.end(), std::mt19937(4));
  upload(table, order);
  upload(count, std::vector<std::int32_t>(static_cast<std::size_t>(p.requests), static_cast<std::int32_t>(p.tokens)));
  const auto launch = [&](std::int64_t turn) {
    bi::digest_kv_args<bf16> a;
    a.cache.k = k.get(), a.cache.v = v.get(), a.cache.num_pages = pages, a.cache.page_size = page_size;
    a.cache.heads = 8, a.cache.head_dim = head_dim;
    a.view = bi::page_table{table.get() + turn * tokens / page_size, p.tokens / page_size};
    a.count = count.get(), a.requests = p.requests, a.out = out.get();
    require(bi::digest_kv(a, stream.get()));
  };
  launch(0);
  BENCH_REQUIRE(cudaDeviceSynchronize());
  const bench::graph g(stream.get(), [&] {
    for (std::int64_t turn = 0; turn < launches; ++turn) launch(turn);
  });
  return bench::median_us(stream.get(), {&g}, rounds)[0] / static_cast<double>(launches);
}

// Times of the one kernel in grids and blocks of other sizes.
void sweep() {
  for (const point& p : {point{32, 8, 64}, point{32, 8, 8192}, point{0, 8, 8192}, point{8, 1, 8192}}) {
    const bench::owned_stream stream;
    const calls all(p, stream);
    const std::int64_t launches = launches_of(p, all.copies());
    for (const bool with_digest : {false, true}) {
      for (int threads = 32; threads <= 512; threads += 32) {
        for (const std::int64_t resident : {1024, 2048, 1 << 20}) {
          const std::int64_t blocks = std::min(p.tokens, 132 * (resident / threads));
          if (blocks == p.tokens && resident < 1 << 20) continue;
          const bi::schedule::shared_schedule s = {threads, blocks, 1, true};
          const bench::graph g(stream.get(), [&] {
            for (std::int64_t turn = 0; turn < launches; ++turn) {
              const auto a = with_digest ? all.args_with_digest(turn) : all.args(turn);
              require(bi::launch_detail::launch_kv_append<bi::contract::rms_norm_draft, bi::contract::rope_draft>(
                  a, s, stream.get()));
            }
          });
          const double us = bench::median_us(stream.get(), {&g}, 5)[0] / static_cast<double>(launches);
          std::printf("%lld/%lld/%lld digest=%d threads=%d blocks=%lld %.2f us %.0f GB/s\n",
                      static_cast<long long>(p.heads_q), static_cast<long long>(p.heads_kv),
                      static_cast<long long>(p.tokens), with_digest ? 1 : 0, threads, static_cast<long long>(blocks),
                      us, bytes_of(p) / us * 1e-3);
        }
      }
    }
  }
}

class measurements {
 public:
  void report(benchmark::State& state, std::size_t index, std::size_t implementation) {
    auto found = points_.find(index);
    if (found == points_.end()) {
      results r;
      try {
        r = measure(points[index]);
      } catch (const std::exception& e) {
        for (result& each : r) each.error = e.what();
      }
      found = points_.emplace(index, r).first;
    }
    const result& mine = found->second[implementation];
    if (!mine.error.empty()) {
      failed_ = true;
      state.SkipWithError(mine.error.c_str());
      return;
    }
    for (auto _ : state) state.SetIterationTime(mine.us * 1e-6);
    state.counters["GB/s"] = bytes_of(points[index]) / mine.us * 1e-3;
    state.counters["of_bi"] = mine.us / found->second[0].us;
  }
  bool failed() const { return failed_; }

 private:
  std::map<std::size_t, results> points_;
  bool failed_ = false;
};

constexpr const char* usage =
    "bench_kv_append [--sweep] [--commit TEXT] [options of Google Benchmark]\n"
    "Benchmarks are called kv_append/IMPLEMENTATION/HEADS_Q/HEADS_KV/TOKENS/iterations:1/manual_time.\n"
    "Implementations: bi, bi_digest, separate, copy. GB/s: of what the one kernel reads and writes. of_bi: the time\n"
    "over bi's. --sweep times the one kernel under other schedules instead. Others are called\n"
    "digest_kv/bi/HEADS_KV/REQUESTS/TOKENS, GB/s of what is read.\n";

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program("bench_kv_append", usage, argc, argv, [](int rest, char** arguments, bool lists) {
    if (rest == 2 && std::string_view(arguments[1]) == "--sweep") {
      sweep();
      return 0;
    }
    const std::string commit = bench::parse_commit(rest, arguments);
    if (!lists) bench::add_context(commit);
    measurements all;
    for (std::size_t index = 0; index < std::size(points); ++index) {
      const point& p = points[index];
      for (std::size_t i = 0; i < names.size(); ++i) {
        const std::string name = std::string("kv_append/") + names[i] + "/" + std::to_string(p.heads_q) + "/" +
                                 std::to_string(p.heads_kv) + "/" + std::to_string(p.tokens);
        bench::add_benchmark(name, [&all, index, i](benchmark::State& state) { all.report(state, index, i); });
      }
    }
    bool failed = false;
    for (const run_point& p : run_points) {
      const std::string name = "digest_kv/bi/8/" + std::to_string(p.requests) + "/" + std::to_string(p.tokens);
      bench::add_benchmark(name, [p, &failed](benchmark::State& state) {
        try {
          const double us = measure_digest_kv(p);
          for (auto _ : state) state.SetIterationTime(us * 1e-6);
          state.counters["GB/s"] = run_bytes(p) / us * 1e-3;
        } catch (const std::exception& e) {
          failed = true;
          state.SkipWithError(e.what());
        }
      });
    }
    return bench::run_benchmarks([&] { return failed || all.failed(); });
  });
}
