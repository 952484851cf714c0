// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "bi/attention.hpp"
#include "golden/cases_attention.hpp"
#include "gpu/support/forced_attention.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

// The kernel of bi/kernel/attention_prefill.cuh, forced on shapes of every kind.

using bi::bf16;
using bi::fp16;
using test::all_storages;
using test::attention_case;
using test::attention_data;
using test::attention_result;
using test::generator;
using test::values;
using test::view_storage;

namespace {

using cap = bi::contract::attention_soft_cap_v1<bf16>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

bi::schedule::attention_schedule prefill(std::int64_t blocks) {
  return {8, false, blocks, bi::schedule::attention_kernel::prefill};
}

// Bytes against the reference's, in grids that give a block many items, some, and one at most.
template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>>
void compare(const attention_case& c, std::uint64_t seed) {
  INFO(test::to_string(c) << ", seed " << seed);
  test::host_backend host;
  test::forced_backend<bi::schedule::attention_schedule> gpu;
  const auto expected = test::run_attention<T, HeadDim, Contract>(host, c, seed);
  for (const std::int64_t blocks : {1, 3, 132, 5000}) {
    INFO(blocks << " blocks");
    gpu.schedule = prefill(blocks);
    const auto got = test::run_attention<T, HeadDim, Contract>(gpu, c, seed);
    gpu.clear();
    REQUIRE(test::difference(got.out, expected.out) == "");
    REQUIRE(test::difference(got.lse, expected.lse) == "");
  }
}

attention_case random_case(generator& g, std::int64_t head_dim) {
  attention_case c;
  const auto pick = [&](std::initializer_list<std::int64_t> of) {
    return of.begin()[g.below(std::int64_t(of.size()))];
  };
  const std::int64_t requests = g.between(1, 3);
  for (std::int64_t i = 0; i < requests; ++i) {
    const std::int64_t q_len = g.chance(10) ? 0 : g.chance(30) ? g.between(1, 20) : g.between(1, 300);
    std::int64_t len = g.chance(50) ? q_len : q_len + g.between(0, 600);
    if (g.chance(10)) len = g.between(0, 300);  // more rows than tokens, or no tokens
    c.len.push_back(static_cast<std::int32_t>(len));
    c.q_len.push_back(static_cast<std::int32_t>(q_len));
  }
  c.heads_kv = g.between(1, 2);
  c.heads_q = c.heads_kv * pick({1, 1, 2, 4, 6, 8});
  c.head_dim = head_dim;
  c.page_size = pick({1, 7, 8, 16, 24, 32, 64, 192, 256});
  c.storage = all_storages[g.below(3)];
  c.kind = test::all_values[g.below(6)];
  c.mask = g.chance(25) ? bi::attention_mask::full : bi::attention_mask::causal;
  c.window = g.chance(50) ? 0 : pick({1, 5, 64, 100, 256, 300});
  c.head_major = g.chance(30);
  c.gap = g.chance(60) ? 0 : 8;
  c.spare_rows = g.chance(20) ? 3 : 0;
  return c;
}

template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>>
void compare_random_cases(int count, std::uint64_t seed) {
  generator g(seed);
  for (int i = 0; i < count; ++i) {
    attention_case c = random_case(g, HeadDim);
    if (Contract::has_soft_cap) c.soft_cap = g.chance(50) ? 30.0f : 0.7f;
    compare<T, HeadDim, Contract>(c, seed + static_cast<std::uint64_t>(i));
  }
}

// Where K or V of view index j, of the request's first head, lies in a case's data. One request, pages in a table.
std::size_t place_of(const attention_case& c, const attention_data<bf16>& d, std::int64_t j) {
  const std::int64_t slot = d.pages[at(j / c.page_size)] * c.page_size + j % c.page_size;
  return at(slot * c.heads_kv * c.head_dim);
}

template <int HeadDim>
void check_hidden_tokens(std::int64_t window) {
  attention_case c;
  c.len = {330};
  c.q_len = {230};
  c.heads_q = 3, c.heads_kv = 1, c.head_dim = HeadDim;
  c.window = window;
  const std::int64_t before = c.len[0] - c.q_len[0], width = c.heads_q * HeadDim;
  const auto clean = test::make_attention_data<bf16>(c, 31);
  test::host_backend host;
  test::forced_backend<bi::schedule::attention_schedule> gpu;
  gpu.schedule = prefill(132);
  const auto run = [&](auto& backend, const attention_data<bf16>& d) {
    const auto a = test::make_attention_args<bf16>(backend, c, d);
    backend.run(test::attention_op<bf16, HeadDim>{}, a);
    return attention_result<bf16>{backend.read(a.out), backend.read(a.lse)};
  };
  const auto undisturbed = run(gpu, clean);
  const std::uint16_t bad[] = {0x7f80, 0xff80, 0x7fc1};  // Inf, -Inf, NaN
  int which = 0;
  for (const std::int64_t j : {0, 63, 99, 100, 101, 127, 128, 130, 191, 200, 255, 256, 257, 329}) {
    for (const bool in_v : {true, false}) {
      auto d = clean;
      (in_v ? d.v : d.k)[place_of(c, d, j) + at((which * 37) % HeadDim)] = bf16{bad[which % 3]};
      ++which;
      const auto got = run(gpu, d), expected = run(host, d);
      INFO("token " << j << (in_v ? ", V" : ", K") << ", window " << window);
      REQUIRE(test::difference(got.out, expected.out) == "");
      REQUIRE(test::difference(got.lse, expected.lse) == "");
      const std::int64_t earlier = std::max<std::int64_t>(0, j - before);  // rows that don't see token j
      CHECK(test::difference(got.out.data(), undisturbed.out.data(), earlier * width) == "");
      // Control: it does change rows that see it.
      const bool seen = window == 0 || j > before - window;
      CHECK((test::difference(got.out, undisturbed.out) != "") == seen);
      host.clear();
      gpu.clear();
    }
  }
}

// Scores that rise by level(tile) in some keys of each tile, of rows whose q has one sign, and fall in the others': maxima
// move in either tile of a pair, in both, or in neither.
template <int HeadDim, class Level>
void check_moving_maxima(const Level& level, std::int64_t window) {
  attention_case c;
  c.len = {900};
  c.q_len = {333};
  c.heads_q = c.heads_kv = 1, c.head_dim = HeadDim;
  c.window = window;
  auto d = test::make_attention_data<bf16>(c, 51);
  for (std::size_t i = 0; i < d.q.size(); ++i) {
    const float sign = i / HeadDim % 3 == 0 ? -1.0f : 1.0f;
    d.q[i] = bi::cvt_rn<bf16>(bi::add_rn(bi::to_f32(d.q[i]), sign));
  }
  const float unit = 0.6931472f / std::sqrt(static_cast<float>(HeadDim));  // of K, for 1 in a score's exponent
  for (std::int64_t j = 0; j < c.len[0]; ++j) {
    if (j % 7 != 3) continue;
    const float by = bi::mul_rn(static_cast<float>(level(j / 64)), unit);
    for (std::size_t i = 0; i < HeadDim; ++i) {
      bf16& x = d.k[place_of(c, d, j) + i];
      x = bi::cvt_rn<bf16>(bi::add_rn(bi::to_f32(x), by));
    }
  }
  test::host_backend host;
  test::forced_backend<bi::schedule::attention_schedule> gpu;
  gpu.schedule = prefill(132);
  const auto run = [&](auto& backend) {
    const auto a = test::make_attention_args<bf16>(backend, c, d);
    backend.run(test::attention_op<bf16, HeadDim>{}, a);
    return attention_result<bf16>{backend.read(a.out), backend.read(a.lse)};
  };
  const auto got = run(gpu), expected = run(host);
  REQUIRE(test::difference(got.out, expected.out) == "");
  REQUIRE(test::difference(got.lse, expected.lse) == "");
  host.clear();
  gpu.clear();
}

}  // namespace

TEST_CASE("attention prefill: one tile of rows after another", "[gpu][attention][prefill]") {
  for (const std::int32_t q_len : {1, 2, 63, 64, 65, 127, 128, 129, 255, 257, 300}) {
    for (const std::int32_t cached : {0, 1, 64, 255, 600}) {
      attention_case c;
      c.q_len = {q_len};
      c.len = {q_len + cached};
      c.heads_q = c.heads_kv = 1;
      compare<bf16, 128>(c, 7000);
    }
  }
}

TEST_CASE("attention prefill: ends of pairs of tiles and of leaves", "[gpu][attention][prefill]") {
  for (const std::int64_t window : {0, 64, 70, 200}) {
    for (const std::int32_t len : {127, 128, 129, 191, 192, 193, 255, 256, 257, 320, 383, 384, 385, 511, 512, 513}) {
      attention_case c;
      c.q_len = {1, 66, 127};
      c.len = {len, len, len};
      c.heads_q = c.heads_kv = 1;
      c.window = window;
      compare<bf16, 128>(c, 7050);
    }
  }
}

TEST_CASE("attention prefill: few rows of a long view", "[gpu][attention][prefill]") {
  for (const std::int32_t q_len : {1, 63, 65, 130}) {
    for (const std::int64_t window : {0, 700, 1300}) {
      attention_case c;
      c.q_len = {q_len, 5};
      c.len = {2100, 1500};
      c.heads_q = c.heads_kv = 1;
      c.window = window;
      compare<bf16, 128>(c, 7060);
      c.head_dim = 64;
      compare<bf16, 64>(c, 7061);
    }
  }
}

// Rows of one token see all of their first tile, which is not a leaf's first; the block had another item before.
TEST_CASE("attention prefill: windows that begin with a tile", "[gpu][attention][prefill]") {
  attention_case c;
  c.q_len = {1, 1, 1};
  c.len = {1020, 1340, 892};
  c.heads_q = 256, c.heads_kv = 2;
  c.window = 700;
  test::forced_backend<bi::schedule::attention_schedule> gpu;
  gpu.schedule = prefill(1);
  test::host_backend host;
  const auto expected = test::run_attention<bf16, 128>(host, c, 7062);
  const auto got = test::run_attention<bf16, 128>(gpu, c, 7062);
  CHECK(test::difference(got.out, expected.out) == "");
  CHECK(test::difference(got.lse, expected.lse) == "");
}

// A group that read a tile of V before it had come gave wrong bytes in one of many launches.
TEST_CASE("attention prefill: long items again and again", "[gpu][attention][prefill]") {
  for (const std::int64_t page_size : {16, 7}) {  // by the copy engine and by cp.async
    attention_case c;
    c.len = c.q_len = {3000, 2100};
    c.heads_q = c.heads_kv = 8;
    c.page_size = page_size;
    test::forced_backend<bi::schedule::attention_schedule> gpu;
    gpu.schedule = {4, false, 132};
    const auto expected = test::run_attention<bf16, 128>(gpu, c, 7070);
    gpu.clear();
    gpu.schedule = prefill(132);
    for (int i = 0; i < 8; ++i) {
      const auto got = test::run_attention<bf16, 128>(gpu, c, 7070);
      gpu.clear();
      REQUIRE(test::difference(got.out, expected.out) == "");
      REQUIRE(test::difference(got.lse, expected.lse) == "");
    }
  }
}

TEST_CASE("attention prefill: maxima that move anywhere in a pair of tiles", "[gpu][attention][prefill]") {
  using levels = int (*)(std::int64_t tile);
  const levels all[] = {[](std::int64_t t) { return t % 2 == 1 ? 14 : 0; },
                        [](std::int64_t t) { return static_cast<int>(12 * t); },
                        [](std::int64_t t) { return static_cast<int>(t / 2 * 20); },
                        [](std::int64_t t) { return static_cast<int>(-15 * t); },
                        [](std::int64_t t) { return t % 4 == 3   ? 30
                                                    : t % 4 == 2 ? 15
                                                                 : 0; },
                        [](std::int64_t t) { return t % 3 == 0 ? 25 : -25; }};
  for (const levels level : all) {
    for (const std::int64_t window : {0, 150}) {
      check_moving_maxima<64>(level, window);
      check_moving_maxima<128>(level, window);
    }
  }
}

TEST_CASE("attention prefill: groups of heads", "[gpu][attention][prefill]") {
  for (const std::int64_t group : {1, 2, 3, 4, 6, 8, 17}) {
    attention_case c;
    c.q_len = {70, 130, 1};
    c.len = {200, 130, 90};
    c.heads_kv = 2, c.heads_q = 2 * group;
    compare<bf16, 128>(c, 7100);
    c.head_dim = 64;
    compare<bf16, 64>(c, 7101);
  }
}

TEST_CASE("attention prefill: GPU bytes equal the reference's", "[gpu][attention][prefill]") {
  SECTION("bf16, 64") { compare_random_cases<bf16, 64>(25, 7200); }
  SECTION("bf16, 128") { compare_random_cases<bf16, 128>(40, 7300); }
  SECTION("fp16, 64") { compare_random_cases<fp16, 64>(15, 7600); }
  SECTION("fp16, 128") { compare_random_cases<fp16, 128>(25, 7400); }
  SECTION("bf16, 128, soft cap") { compare_random_cases<bf16, 128, cap>(25, 7500); }
}

TEST_CASE("attention prefill: tokens that a row does not see cannot change it", "[gpu][attention][prefill]") {
  for (const std::int64_t window : {0, 1, 40, 100, 300}) {
    check_hidden_tokens<64>(window);
    check_hidden_tokens<128>(window);
  }
}

TEST_CASE("attention prefill: arrays that it does not take are an error", "[gpu][attention][prefill]") {
  attention_case c;
  c.len = c.q_len = {200};
  c.offset = 1;
  test::gpu_backend gpu;
  const auto a = test::make_attention_args<bf16>(gpu, c, test::make_attention_data<bf16>(c, 41));
  const bi::status st = test::launch_with(test::attention_op<bf16, 128>{}, a, prefill(132), gpu.stream());
  CHECK(bi::describe(st).find("schedule.kernel") != std::string::npos);
  gpu.clear();
}
