// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
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

// Causal prefill of one request that has nothing in the cache before, bf16, head_dim 128, pages of 16 tokens in random
// order.

namespace bench {

// The kernel that every GPU runs, whatever the launcher would take (kernels.cu).
bi::status launch_generic_attention(const bi::attention_args<bi::bf16>& a, cudaStream_t stream);

struct prefill_point {
  int heads_q, heads_kv;
  std::int64_t tokens;

  // Of the products of Q and K and of P and V that the causal mask leaves.
  double flops() const { return 2.0 * 128 * heads_q * static_cast<double>(tokens) * static_cast<double>(tokens + 1); }
  std::string name() const {
    return std::to_string(heads_q) + "/" + std::to_string(heads_kv) + "/" + std::to_string(tokens);
  }
};
inline constexpr prefill_point prefill_points[] = {
    {32, 32, 1024}, {32, 32, 2048}, {32, 32, 4096}, {32, 32, 8192}, {32, 32, 16384},
    {32, 8, 1024},  {32, 8, 2048},  {32, 8, 4096},  {32, 8, 8192},  {32, 8, 16384},
};

// Microseconds of a launch. Throws if an output differs from the generic kernel's in any bit.
inline double measure_prefill(const prefill_point& point) {
  constexpr std::int64_t head_dim = 128, page_size = 16;
  const std::int64_t pages = point.tokens / page_size, outputs = point.tokens * point.heads_q * head_dim;
  const std::int64_t cache = point.tokens * point.heads_kv * head_dim;
  std::vector<std::int32_t> order(static_cast<std::size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(2));
  const auto tokens = static_cast<std::int32_t>(point.tokens);
  const std::vector<std::int32_t> start = {0, tokens};

  const owned_stream stream;
  const buffer<bi::bf16> q(outputs), k(cache), v(cache), out(outputs), expected(outputs);
  const buffer<std::int32_t> d_table(pages), d_len(1), d_start(2);
  const buffer<unsigned long long> differences(1);
  fill_normal(q.get(), outputs, 1, 1.0f, stream.get());
  fill_normal(k.get(), cache, 2, 1.0f, stream.get());
  fill_normal(v.get(), cache, 3, 1.0f, stream.get());
  BENCH_REQUIRE(cudaMemcpy(d_table.get(), order.data(), order.size() * sizeof(order[0]), cudaMemcpyHostToDevice));
  BENCH_REQUIRE(cudaMemcpy(d_len.get(), &tokens, sizeof tokens, cudaMemcpyHostToDevice));
  BENCH_REQUIRE(cudaMemcpy(d_start.get(), start.data(), start.size() * sizeof(start[0]), cudaMemcpyHostToDevice));

  bi::attention_args<bi::bf16> a;
  a.q = q.get();
  a.cache.k = k.get(), a.cache.v = v.get(), a.cache.num_pages = pages, a.cache.page_size = page_size;
  a.cache.heads = point.heads_kv, a.cache.head_dim = head_dim;
  a.view = bi::page_table{d_table.get(), pages};
  a.len = d_len.get(), a.q_start = d_start.get();
  a.requests = 1, a.rows = point.tokens;
  a.scale = 0.08838834764f;
  a.limits = {1, point.tokens, point.tokens, point.tokens, point.heads_q, point.heads_kv, head_dim, point.tokens};
  const auto check = [](const bi::status& st) {
    if (!st) throw std::runtime_error(bi::describe(st));
  };
  a.out = expected.get();
  check(launch_generic_attention(a, stream.get()));
  a.out = out.get();
  const auto launch = [&] { check(bi::attention<bi::bf16, 128>::launch(a, {}, stream.get())); };
  BENCH_REQUIRE(cudaMemsetAsync(out.get(), 0x7f, static_cast<std::size_t>(outputs) * 2, stream.get()));
  launch();
  BENCH_REQUIRE(cudaMemsetAsync(differences.get(), 0, sizeof(unsigned long long), stream.get()));
  count_differences<bi::bf16>(out.get(), expected.get(), outputs, differences.get(), stream.get());
  unsigned long long wrong = 0;
  BENCH_REQUIRE(cudaMemcpyAsync(&wrong, differences.get(), sizeof wrong, cudaMemcpyDeviceToHost, stream.get()));
  BENCH_REQUIRE(cudaStreamSynchronize(stream.get()));
  if (wrong != 0) throw std::runtime_error(std::to_string(wrong) + " outputs differ from the generic kernel's");

  const int launches = static_cast<int>(6e11 / point.flops()) + 1;  // about 2 ms or more
  const graph replayed(stream.get(), [&] {
    for (int i = 0; i < launches; ++i) launch();
  });
  return median_us(stream.get(), {&replayed}, 7)[0] / launches;
}

}  // namespace bench
