// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/data.hpp"
#include "../common/owned.hpp"
#include "../common/timing.hpp"
#include "bi/attention.hpp"

// Decode of requests that share their first tokens, each with 256 to 512 of its own: with groups, without, and the time
// that reading as many bytes as K and V have takes, shared ones counted once. bf16, head_dim 128, pages of 16 tokens in
// random order; caches take turns as in attention.cpp.

namespace bench {

// Reads so many bytes of each and does nothing else (shared.cu).
void read_memory(const void* k, const void* v, std::int64_t bytes, cudaStream_t stream);

struct shared_point {
  int heads_q, heads_kv, batch;
  std::int64_t prefix;

  std::int64_t length(std::int64_t i) const { return prefix + 256 + (batch > 1 ? i * 256 / (batch - 1) : 0); }
  std::string name() const {
    return std::to_string(heads_q) + "/" + std::to_string(heads_kv) + "/" + std::to_string(batch) + "/" +
           std::to_string(prefix);
  }
};
inline constexpr shared_point shared_points[] = {
    {32, 8, 32, 16384}, {32, 8, 8, 4096},   {32, 8, 8, 16384},  {32, 8, 64, 16384},
    {32, 8, 32, 4096},  {64, 8, 32, 16384}, {16, 2, 32, 16384}, {32, 8, 2, 65536},
};

struct shared_times {
  double us, alone_us, read_us;
  double bytes;  // of K and V, each once
};

// Throws if an output with groups differs from that without in any bit.
inline shared_times measure_shared(const shared_point& point, double most_bytes = 4e9) {
  using attention = bi::attention<bi::bf16, 128>;
  constexpr std::int64_t head_dim = 128, page_size = 16;
  const auto pages_of = [](std::int64_t tokens) { return (tokens + page_size - 1) / page_size; };
  std::int64_t tokens = 0, views = 0, pages_each = pages_of(point.prefix);
  for (std::int64_t i = 0; i < point.batch; ++i) {
    views += point.length(i);
    tokens += point.length(i) - point.prefix;
    pages_each += pages_of(point.length(i)) - pages_of(point.prefix);
  }
  const std::int64_t width = point.heads_kv * head_dim;
  shared_times times = {};
  times.bytes = static_cast<double>((tokens + point.prefix) * width) * 2 * sizeof(bi::bf16);
  const auto copies = static_cast<std::int64_t>(most_bytes / times.bytes) + 1;
  const std::int64_t pages = copies * pages_each, row_stride = pages_of(point.length(point.batch - 1));
  std::vector<std::int32_t> order(static_cast<std::size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(2));
  std::vector<std::int32_t> table(static_cast<std::size_t>(copies * point.batch * row_stride), -1), len, member;
  std::size_t next = 0;
  for (std::int64_t c = 0; c < copies; ++c) {
    std::int32_t* const first = table.data() + c * point.batch * row_stride;
    for (std::int64_t i = 0; i < point.batch; ++i) {
      for (std::int64_t p = 0; p < pages_of(point.length(i)); ++p) {
        first[i * row_stride + p] = i > 0 && p < pages_of(point.prefix) ? first[p] : order[next++];
      }
    }
  }
  for (int i = 0; i < point.batch; ++i) {
    len.push_back(static_cast<std::int32_t>(point.length(i)));
    member.push_back(i);
  }

  const owned_stream stream;
  const std::int64_t cache = pages * page_size * width, outputs = point.batch * point.heads_q * head_dim;
  const buffer<bi::bf16> q(outputs), k(cache), v(cache), out(outputs), expected(outputs);
  const buffer<std::int32_t> d_table(static_cast<std::int64_t>(table.size())), d_len(point.batch);
  const buffer<std::int32_t> d_member(point.batch), d_start(2), d_shared(1);
  const buffer<unsigned long long> differences(1);
  fill_normal(q.get(), outputs, 1, 1.0f, stream.get());
  fill_normal(k.get(), cache, 2, 1.0f, stream.get());
  fill_normal(v.get(), cache, 3, 1.0f, stream.get());
  const auto upload = [](const buffer<std::int32_t>& to, const std::vector<std::int32_t>& from) {
    BENCH_REQUIRE(cudaMemcpy(to.get(), from.data(), from.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice));
  };
  upload(d_table, table);
  upload(d_len, len);
  upload(d_member, member);
  upload(d_start, {0, static_cast<std::int32_t>(point.batch)});
  upload(d_shared, {static_cast<std::int32_t>(point.prefix)});
  BENCH_REQUIRE(cudaDeviceSynchronize());

  bi::attention_args<bi::bf16> a;
  a.q = q.get();
  a.cache.k = k.get(), a.cache.v = v.get(), a.cache.num_pages = pages, a.cache.page_size = page_size;
  a.cache.heads = point.heads_kv, a.cache.head_dim = head_dim;
  a.len = d_len.get();
  a.requests = a.rows = point.batch;
  a.scale = 0.08838834764f;
  a.limits = {point.batch,   point.batch,    1,        point.length(point.batch - 1),
              point.heads_q, point.heads_kv, head_dim, views};
  a.limits.max_groups = 1;
  a.out = out.get();
  const std::size_t workspace_bytes = attention::workspace_bytes(a.limits);
  const buffer<unsigned char> memory(static_cast<std::int64_t>(workspace_bytes));
  const auto launch = [&](std::int64_t turn, bool groups) {
    a.view = bi::page_table{d_table.get() + turn % copies * point.batch * row_stride, row_stride};
    a.sharing = {};
    if (groups) a.sharing = {d_start.get(), d_member.get(), d_shared.get(), 1};
    const bi::status st = attention::launch(a, {memory.get(), workspace_bytes}, stream.get());
    if (!st) throw std::runtime_error(bi::describe(st));
  };
  // Reads as many bytes in another place each time.
  const auto half = static_cast<std::int64_t>(times.bytes / 2);
  const auto read = [&](std::int64_t turn) {
    const std::int64_t first = turn % copies * (half / static_cast<std::int64_t>(sizeof(bi::bf16)));
    read_memory(k.get() + first, v.get() + first, half, stream.get());
  };

  const auto output_bytes = static_cast<std::size_t>(outputs) * sizeof(bi::bf16);
  launch(0, false);
  BENCH_REQUIRE(cudaMemcpyAsync(expected.get(), out.get(), output_bytes, cudaMemcpyDeviceToDevice, stream.get()));
  BENCH_REQUIRE(cudaMemsetAsync(out.get(), 0x7f, output_bytes, stream.get()));
  launch(0, true);
  BENCH_REQUIRE(cudaMemsetAsync(differences.get(), 0, sizeof(unsigned long long), stream.get()));
  count_differences<bi::bf16>(out.get(), expected.get(), outputs, differences.get(), stream.get());
  unsigned long long wrong = 0;
  BENCH_REQUIRE(cudaMemcpyAsync(&wrong, differences.get(), sizeof wrong, cudaMemcpyDeviceToHost, stream.get()));
  BENCH_REQUIRE(cudaStreamSynchronize(stream.get()));
  if (wrong != 0) throw std::runtime_error(std::to_string(wrong) + " outputs differ from those without groups");
  read(0);

  const auto launches = [&](double bytes) {
    const auto wanted = static_cast<std::int64_t>(2000.0 / (bytes / 2e6 + 10.0)) + 1;
    return std::max<std::int64_t>(wanted, 2);
  };
  const std::int64_t turns = launches(times.bytes);
  const std::int64_t alone_turns = launches(static_cast<double>(views * width) * 2 * sizeof(bi::bf16));
  const auto repeat = [](std::int64_t n, const auto& f) {
    for (std::int64_t turn = 0; turn < n; ++turn) f(turn);
  };
  const graph shared(stream.get(), [&] { repeat(turns, [&](std::int64_t turn) { launch(turn, true); }); });
  const graph alone(stream.get(), [&] { repeat(alone_turns, [&](std::int64_t turn) { launch(turn, false); }); });
  const graph reads(stream.get(), [&] { repeat(turns, read); });
  const std::vector<double> us = median_us(stream.get(), {&shared, &alone, &reads}, 7);
  times.us = us[0] / static_cast<double>(turns);
  times.alone_us = us[1] / static_cast<double>(alone_turns);
  times.read_us = us[2] / static_cast<double>(turns);
  return times;
}

}  // namespace bench
