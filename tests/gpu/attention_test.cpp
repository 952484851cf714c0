// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "bi/attention.hpp"
#include "bi/device/attention_split.cuh"
#include "golden/cases_attention.hpp"
#include "gpu/support/forced_attention.hpp"
#include "gpu/support/forced_backend.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "gpu/support/late_copy.hpp"
#include "support/backend.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"

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

// Bytes of the GPU against those of the reference; returns how many outputs were compared.
template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>>
std::int64_t compare(const attention_case& c, std::uint64_t seed) {
  test::host_backend host;
  test::gpu_backend gpu;
  const auto expected = test::run_attention<T, HeadDim, Contract>(host, c, seed);
  const auto got = test::run_attention<T, HeadDim, Contract>(gpu, c, seed);
  gpu.clear();
  INFO(test::to_string(c) << ", seed " << seed);
  CHECK(test::difference(got.out, expected.out) == "");
  CHECK(test::difference(got.lse, expected.lse) == "");
  return static_cast<std::int64_t>(expected.out.size());
}

// Anything the argument structs can say: padding, requests without rows, more rows than tokens, every mask and storage.
attention_case random_case(generator& g, std::int64_t head_dim) {
  attention_case c;
  const auto pick = [&](std::initializer_list<std::int64_t> of) {
    return of.begin()[g.below(std::int64_t(of.size()))];
  };
  const std::int64_t requests = g.between(1, 4);
  for (std::int64_t i = 0; i < requests; ++i) {
    const std::int64_t len = g.chance(10) ? 0 : g.chance(60) ? g.between(1, 140) : g.between(141, 800);
    std::int64_t q_len = g.chance(40) ? 1 : g.chance(10) ? 0 : g.between(1, 40);
    if (g.chance(80)) q_len = std::min(q_len, std::max<std::int64_t>(len, 1));
    c.len.push_back(static_cast<std::int32_t>(len));
    c.q_len.push_back(static_cast<std::int32_t>(q_len));
  }
  c.heads_kv = g.between(1, 2);
  c.heads_q = c.heads_kv * pick({1, 2, 3, 4, 5, 8});
  c.head_dim = head_dim;
  c.page_size = pick({1, 7, 8, 16, 24, 64});
  c.storage = all_storages[g.below(3)];
  c.kind = test::all_values[g.below(6)];
  c.mask = g.chance(25) ? bi::attention_mask::full : bi::attention_mask::causal;
  c.window = g.chance(50) ? 0 : pick({1, 5, 64, 100, 256, 300});
  c.head_major = g.chance(30);
  c.gap = g.chance(60) ? 0 : pick({1, 8});
  c.offset = g.chance(70) ? 0 : 1;
  c.spare_rows = g.chance(20) ? 3 : 0;
  return c;
}

template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>>
void compare_random_cases(int count, std::uint64_t seed) {
  generator g(seed);
  std::int64_t outputs = 0;
  for (int i = 0; i < count; ++i) {
    attention_case c = random_case(g, HeadDim);
    if (Contract::has_soft_cap) c.soft_cap = g.chance(50) ? 30.0f : 0.7f;
    outputs += compare<T, HeadDim, Contract>(c, seed + static_cast<std::uint64_t>(i));
  }
  CHECK(outputs >= 100000);
}

// The GPU's rows of one request of which every token is a row, computed in chunks of `chunk` rows.
template <int HeadDim, class Contract = bi::contract::attention_v1<bf16>>
attention_result<bf16> in_chunks(test::gpu_backend& gpu, const attention_case& c, const attention_data<bf16>& d,
                                 std::int64_t chunk) {
  auto a = test::make_attention_args<bf16>(gpu, c, d);
  const std::int64_t rows = a.rows, width = c.heads_q * HeadDim;
  const auto whole = a;
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const std::int64_t n = std::min(chunk, rows - first);
    a.q = whole.q + first * width;
    a.out = whole.out + first * width;
    a.lse = whole.lse + first * c.heads_q;
    a.rows = n;
    a.len = gpu.input(std::vector<std::int32_t>{static_cast<std::int32_t>(first + n)});
    a.q_start = n == 1 ? nullptr : gpu.input(std::vector<std::int32_t>{0, static_cast<std::int32_t>(n)});
    a.limits.max_rows = a.limits.max_q_len = n;
    gpu.run(test::attention_op<bf16, HeadDim, Contract>{}, a);
  }
  return {gpu.read(whole.out), gpu.read(whole.lse)};
}

template <int HeadDim, class Contract = bi::contract::attention_v1<bf16>>
void check_chunks(std::int64_t tokens, std::int64_t window, float soft_cap,
                  std::initializer_list<std::int64_t> chunks) {
  attention_case c;
  c.len = c.q_len = {static_cast<std::int32_t>(tokens)};
  c.head_dim = HeadDim;
  c.window = window;
  c.soft_cap = soft_cap;
  test::gpu_backend gpu;
  const auto d = test::make_attention_data<bf16>(c, 21);
  const auto whole = in_chunks<HeadDim, Contract>(gpu, c, d, tokens);
  for (const std::int64_t chunk : chunks) {
    INFO("chunks of " << chunk);
    const auto r = in_chunks<HeadDim, Contract>(gpu, c, d, chunk);
    CHECK(test::difference(r.out, whole.out) == "");
    CHECK(test::difference(r.lse, whole.lse) == "");
    gpu.clear();
  }
}

// Where V of view index j, of the request's first head, lies in a case's data. One request, pages in a table.
std::size_t value_of(const attention_case& c, const attention_data<bf16>& d, std::int64_t j) {
  const std::int64_t slot = d.pages[at(j / c.page_size)] * c.page_size + j % c.page_size;
  return at(slot * c.heads_kv * c.head_dim);
}

template <int HeadDim>
void check_later_tokens(std::int64_t window) {
  attention_case c;
  c.len = {330};
  c.q_len = {230};
  c.heads_q = 3, c.heads_kv = 1, c.head_dim = HeadDim;
  c.window = window;
  const std::int64_t before = c.len[0] - c.q_len[0], width = c.heads_q * HeadDim;
  const auto clean = test::make_attention_data<bf16>(c, 31);
  test::host_backend host;
  test::gpu_backend gpu;
  const auto run = [&](auto& backend, const attention_data<bf16>& d) {
    const auto a = test::make_attention_args<bf16>(backend, c, d);
    backend.run(test::attention_op<bf16, HeadDim>{}, a);
    return attention_result<bf16>{backend.read(a.out), backend.read(a.lse)};
  };
  const auto undisturbed = run(gpu, clean);
  const std::uint16_t bad[] = {0x7f80, 0xff80, 0x7fc1};  // Inf, -Inf, NaN
  int which = 0;
  for (const std::int64_t j : {0, 99, 100, 101, 127, 128, 130, 191, 200, 255, 256, 257, 329}) {
    for (const bool in_v : {true, false}) {
      auto d = clean;
      (in_v ? d.v : d.k)[value_of(c, d, j) + at((which * 37) % HeadDim)] = bf16{bad[which % 3]};
      ++which;
      const auto got = run(gpu, d), expected = run(host, d);
      INFO("token " << j << (in_v ? ", V" : ", K") << ", window " << window);
      CHECK(test::difference(got.out, expected.out) == "");
      CHECK(test::difference(got.lse, expected.lse) == "");
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

std::vector<bi::schedule::attention_schedule> cluster_schedules(const attention_case& c) {
  const std::int64_t longest = *std::max_element(c.len.begin(), c.len.end()),
                     leaf = bi::contract::attention_order::leaf;
  const std::int64_t packed = *std::max_element(c.q_len.begin(), c.q_len.end()) * (c.heads_q / c.heads_kv);
  return test::attention_cluster_schedules(c.head_dim, packed, static_cast<std::int64_t>(c.len.size()) * c.heads_kv,
                                           (longest + leaf - 1) / leaf);
}

std::vector<bi::schedule::attention_schedule> long_schedules(const attention_case& c) {
  const std::int64_t packed = *std::max_element(c.q_len.begin(), c.q_len.end()) * (c.heads_q / c.heads_kv);
  return test::attention_long_schedules(c.head_dim, packed, static_cast<std::int64_t>(c.len.size()));
}

// Under every schedule: decode, requests of one tile each, prefill. False for an operation that is not this one.
template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>>
bool force(const test::manifest_operation& o) {
  if (o.operation != "attention " + std::to_string(HeadDim) || o.contract != Contract::name) return false;
  generator g(91);
  attention_case decode, one_tile, prefill;
  for (int i = 0; i < test::few_rows(80); ++i) {
    decode.len.push_back(static_cast<std::int32_t>(i % 20 == 7 ? 700 : g.below(150)));
    decode.q_len.push_back(1);
  }
  decode.heads_q = 8;
  one_tile.len = {30, 300, 64, 0, 129, 9, 513};
  one_tile.q_len = {9, 9, 1, 1, 7, 9, 8};
  one_tile.heads_q = HeadDim == 256 ? 6 : 12;  // 27 or 54 packed rows
  one_tile.kind = values::hostile;
  prefill.len = {90, 400, 17, 33, 260};
  prefill.q_len = {90, 1, 0, 33, 130};
  prefill.window = 200;
  prefill.spare_rows = 2;
  for (attention_case c : {decode, one_tile, prefill}) {
    c.head_dim = HeadDim;
    if (Contract::has_soft_cap) c.soft_cap = 20.0f;
    const std::int64_t packed = *std::max_element(c.q_len.begin(), c.q_len.end()) * (c.heads_q / c.heads_kv);
    const auto run = [&](auto& b) { return test::run_attention<T, HeadDim, Contract>(b, c, 92); };
    auto schedules = test::attention_schedules(HeadDim, packed);
    for (const auto& s : cluster_schedules(c)) schedules.push_back(s);
    for (const auto& s : long_schedules(c)) schedules.push_back(s);
    test::host_backend host;
    test::check_forced(o, schedules, test::to_string(c), run(host), run);
  }
  return true;
}

// The split schedule in every grid: lengths around a leaf's and long ones in one batch, some rows of which see nothing.
template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>>
void force_split(std::int32_t q_len, std::int64_t group, std::int64_t window, bi::attention_mask mask, values kind,
                 const std::vector<std::int32_t>& lengths = {0, 1, 255, 5000, 256, 257, 0, 1000, 511, 4097},
                 bool few_schedules = false) {
  if (test::small_run() && group > 4) return;
  attention_case c;
  c.len = lengths;
  c.q_len.assign(c.len.size(), q_len);
  c.q_len[4] = 0;
  c.heads_kv = 2, c.heads_q = 2 * group, c.head_dim = HeadDim;
  c.window = window;
  c.mask = mask;
  c.kind = kind;
  c.storage = all_storages[at(group) % 3];
  if (Contract::has_soft_cap) c.soft_cap = 20.0f;
  std::vector<bi::schedule::attention_schedule> schedules;
  for (const auto& s : test::attention_schedules(HeadDim, q_len * group)) {
    const bool taken = !few_schedules || (s.stages == 0 && s.row_warps == 1 && (s.blocks == 66 || s.blocks > 128));
    if (s.kernel == bi::schedule::attention_kernel::split && taken) schedules.push_back(s);
  }
  const auto clusters = cluster_schedules(c);
  if (lengths[3] < 4096) schedules = clusters;
  for (const auto& s : long_schedules(c)) schedules.push_back(s);
  const bool fits_cluster = *std::max_element(c.len.begin(), c.len.end()) <= 32 * bi::contract::attention_order::leaf;
  REQUIRE((HeadDim > 128 || q_len * group > 16 || !fits_cluster || !clusters.empty()));
  const auto run = [&](auto& b) { return test::run_attention<T, HeadDim, Contract>(b, c, 93); };
  test::host_backend host;
  const test::manifest_operation o = {"attention " + std::to_string(HeadDim), Contract::name};
  test::check_forced(o, schedules, test::to_string(c), run(host), run);
}

struct enqueued {
  bi::status st;
  std::size_t nodes;
};
template <class Call>
enqueued enqueue(const test::gpu_backend& gpu, Call call) {
  enqueued e{};
  cudaGraph_t graph = nullptr;
  BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal));
  e.st = call(gpu.stream());
  BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
  BI_REQUIRE_CUDA(cudaGraphGetNodes(graph, nullptr, &e.nodes));
  BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
  return e;
}

}  // namespace

TEST_CASE("attention: GPU bytes equal the reference's", "[gpu][attention]") {
  SECTION("bf16, 64") { compare_random_cases<bf16, 64>(60, 1000); }
  SECTION("bf16, 128") { compare_random_cases<bf16, 128>(60, 2000); }
  SECTION("bf16, 256") { compare_random_cases<bf16, 256>(40, 3000); }
  SECTION("fp16, 128") { compare_random_cases<fp16, 128>(60, 4000); }
  SECTION("bf16, 128, soft cap") { compare_random_cases<bf16, 128, cap>(60, 5000); }
}

TEST_CASE("attention: every schedule gives the reference's bytes", "[gpu][attention][schedule]") {
  for (const test::manifest_operation& o : test::attention_operations()) {
    INFO(o.operation << "/" << o.contract);
    const bool known = force<bf16, 64>(o) || force<bf16, 128>(o) || force<bf16, 256>(o) || force<fp16, 128>(o) ||
                       force<bf16, 128, cap>(o);
    REQUIRE(known);
  }
}

TEST_CASE("attention: leaves dealt out in every grid", "[gpu][attention][schedule][split]") {
  constexpr auto causal = bi::attention_mask::causal, full = bi::attention_mask::full;
  for (const std::int32_t q_len : {1, 4, 16}) {
    for (const std::int64_t group : {1, 4, 8, 6}) {
      force_split<bf16, 128>(q_len, group, 0, causal, values::normal);
    }
  }
  force_split<bf16, 128>(4, 4, 300, causal, values::normal);
  force_split<bf16, 128>(16, 4, 700, causal, values::hostile);
  force_split<bf16, 128>(3, 4, 0, full, values::hostile);
  force_split<bf16, 64>(1, 8, 0, causal, values::normal);
  force_split<bf16, 64>(4, 8, 0, causal, values::hostile);
  force_split<bf16, 256>(1, 4, 0, causal, values::normal);
  force_split<bf16, 256>(4, 8, 300, causal, values::hostile);
  force_split<fp16, 128>(1, 4, 0, causal, values::normal);
  force_split<bf16, 128, cap>(1, 4, 0, causal, values::normal);
}

// Those of one item take one warp of the fold, two, four, all, and all of them twice.
TEST_CASE("attention: an item of many partial results", "[gpu][attention][schedule][split]") {
  if (test::small_run()) return;
  constexpr auto causal = bi::attention_mask::causal;
  force_split<bf16, 64>(1, 1, 0, causal, values::normal, {0, 1, 9000, 5000, 256, 17000, 40000, 511, 70000}, true);
  force_split<bf16, 128>(2, 1, 9000, causal, values::hostile, {0, 1, 9000, 5000, 256, 17000, 0, 511}, true);
}

// A fold drops their lines, which nobody may read after it; the call that follows finds none of them.
TEST_CASE("attention: partial results that stay in the cache until they are folded",
          "[gpu][attention][schedule][split]") {
  attention_case c;
  c.len = {9000, 17000, 320};
  c.q_len = {1, 1, 2};
  c.heads_q = 16, c.heads_kv = 2, c.head_dim = 128;
  std::vector<bi::schedule::attention_schedule> schedules;
  for (const std::int64_t blocks : {2, 3, 7, 66}) {
    schedules.push_back({1, true, blocks, bi::schedule::attention_kernel::split});
  }
  CHECK(bi::device::attention_stays(200 / 7, 8, 128));
  CHECK_FALSE(bi::device::attention_stays(200 / 66, 8, 128));
  const auto run = [&](auto& b) { return test::run_attention<bf16, 128>(b, c, 94); };
  test::host_backend host;
  const test::manifest_operation o = {"attention 128", bi::contract::attention_v1<bf16>::name};
  const auto expected = run(host);
  for (int round = 0; round < 3; ++round) test::check_forced(o, schedules, test::to_string(c), expected, run);
}

// Of a request of two tokens a thread has a row of each. The first does not see the last key, the second not the first one of
// the window: 0 times what V holds there must not become NaN, in tiles either of them sees whole as well.
TEST_CASE("attention: Inf and NaN of a key that one of a thread's rows does not see",
          "[gpu][attention][schedule][split]") {
  attention_case c;
  c.len = {320, 64, 257, 1024, 130, 2};
  c.q_len.assign(c.len.size(), 2);
  c.heads_q = 16, c.heads_kv = 2, c.head_dim = 128;
  const test::manifest_operation o = {"attention 128", bi::contract::attention_v1<bf16>::name};
  const std::int64_t width = c.heads_q * c.head_dim;
  for (const std::int64_t window : {0, 63, 127}) {
    c.window = window;
    const auto clean = test::make_attention_data<bf16>(c, 96);
    for (const bf16 bad : {bf16{0x7f80}, bf16{0x7fc1}}) {
      auto d = clean;
      for (std::size_t i = 0; i < c.len.size(); ++i) {
        // Of a window, the key at its beginning: with these lengths of some requests the first of a tile.
        const std::int64_t key = window == 0 ? c.len[i] - 1 : std::max<std::int64_t>(0, c.len[i] - 1 - window);
        const std::int64_t page = d.pages[i * at(d.max_pages) + at(key / c.page_size)];
        const std::int64_t token = page * c.page_size + key % c.page_size;
        for (std::int64_t e = 0; e < c.heads_kv * c.head_dim; ++e) {
          d.v[at(token * c.heads_kv * c.head_dim + e)] = bad;
        }
      }
      const auto with = [&](const attention_data<bf16>& data) {
        return [&c, &data](auto& b) {
          const auto a = test::make_attention_args<bf16>(b, c, data);
          b.run(test::attention_op<bf16, 128>{}, a);
          return attention_result<bf16>{b.read(a.out), b.read(a.lse)};
        };
      };
      test::host_backend host;
      const auto expected = with(d)(host), undisturbed = with(clean)(host);
      // One of a request's two tokens sees it; the other has the bytes that it had.
      for (std::size_t i = 0; i < c.len.size(); ++i) {
        for (std::int64_t token = 0; token < 2; ++token) {
          const std::int64_t first = (2 * static_cast<std::int64_t>(i) + token) * width;
          const bool differs =
              test::difference(expected.out.data() + first, undisturbed.out.data() + first, width) != "";
          const bool sees = window == 0 ? token == 1 : token == 0 || c.len[i] <= window;
          CHECK(differs == sees);
        }
      }
      INFO("bits " << bad.bits);
      auto schedules = test::attention_schedules(c.head_dim, 16);
      for (const auto& s : cluster_schedules(c)) schedules.push_back(s);
      for (const auto& s : long_schedules(c)) schedules.push_back(s);
      test::check_forced(o, schedules, test::to_string(c), expected, with(d));
    }
  }
}

// Items of about equal lengths: the first have a cluster each, whose blocks take leaves in turns.
TEST_CASE("attention: a few long items in clusters with blocks beside them", "[gpu][attention][schedule][split]") {
  const auto force = [](auto value, auto dim, std::vector<std::int32_t> lengths, std::int32_t q_len, std::int64_t group,
                        std::int64_t window, values kind) {
    using T = decltype(value);
    constexpr int head_dim = decltype(dim)::value;
    attention_case c;
    c.len = std::move(lengths);
    c.q_len.assign(c.len.size(), q_len);
    c.heads_kv = 2, c.heads_q = 2 * group, c.head_dim = head_dim;
    c.window = window;
    c.kind = kind;
    const auto run = [&](auto& b) { return test::run_attention<T, head_dim>(b, c, 95); };
    test::host_backend host;
    const test::manifest_operation o = {"attention " + std::to_string(head_dim), bi::contract::attention_v1<T>::name};
    const auto expected = run(host);
    for (int round = 0; round < 3; ++round) test::check_forced(o, long_schedules(c), test::to_string(c), expected, run);
  };
  using wide = std::integral_constant<int, 128>;
  using narrow = std::integral_constant<int, 64>;
  force(bf16{}, wide{}, {9000}, 1, 8, 0, values::normal);
  if (test::small_run()) return;
  force(bf16{}, wide{}, {9000, 8999, 9000, 8970}, 1, 8, 0, values::hostile);
  force(bf16{}, wide{}, {5000, 5001, 5120}, 4, 4, 0, values::normal);
  force(bf16{}, wide{}, {9000, 9000}, 16, 1, 3000, values::normal);
  force(fp16{}, wide{}, {12000, 12000}, 3, 1, 0, values::normal);
  force(bf16{}, narrow{}, {20000, 19990}, 2, 3, 0, values::hostile);
  force(bf16{}, narrow{}, {700, 700}, 1, 4, 0, values::normal);
}

TEST_CASE("attention: a cluster for each request and head", "[gpu][attention][schedule][split]") {
  constexpr auto causal = bi::attention_mask::causal, full = bi::attention_mask::full;
  const std::vector<std::int32_t> two = {0, 1, 255, 511, 256, 512, 0, 300}, four = {1, 0, 257, 1024, 769, 512, 0, 1000},
                                  eight = {700, 2048, 1, 1793, 256, 0, 1025, 2000};
  for (const auto& lengths : {two, four, eight}) {
    for (const std::int32_t q_len : {1, 4}) {
      for (const std::int64_t group : {1, 4, 3}) {
        force_split<bf16, 128>(q_len, group, 0, causal, values::normal, lengths);
      }
    }
    force_split<bf16, 128>(1, 16, 0, causal, values::normal, lengths);
    force_split<bf16, 128>(4, 4, 300, causal, values::normal, lengths);
    force_split<bf16, 128>(16, 1, 700, causal, values::hostile, lengths);
    force_split<bf16, 128>(3, 5, 0, full, values::hostile, lengths);
    force_split<bf16, 64>(1, 8, 0, causal, values::normal, lengths);
    force_split<bf16, 64>(2, 8, 100, causal, values::hostile, lengths);
    force_split<fp16, 128>(1, 4, 0, causal, values::normal, lengths);
    force_split<bf16, 128, cap>(1, 4, 0, causal, values::normal, lengths);
  }
}

TEST_CASE("attention: clusters that a schedule can't have are an error", "[gpu][attention][split]") {
  attention_case c;
  c.len = {1200};
  c.q_len = {1};
  test::gpu_backend gpu;
  const auto a = test::make_attention_args<bf16>(gpu, c, test::make_attention_data<bf16>(c, 41));
  const std::int64_t items = c.heads_kv;
  const auto launch = [&](int cluster, std::int64_t blocks) {
    const bi::schedule::attention_schedule s = {1, true, blocks, bi::schedule::attention_kernel::split, 0, cluster};
    return bi::describe(test::launch_with(test::attention_op<bf16, 128>{}, a, s, gpu.stream()));
  };
  // Five leaves.
  CHECK(launch(2, 2 * items).find("schedule.cluster = 2") != std::string::npos);
  CHECK(launch(3, 3 * items).find("schedule.cluster = 3") != std::string::npos);
  CHECK(launch(32, 32 * items).find("schedule.cluster = 32") != std::string::npos);
  CHECK(launch(4, 4 * items + 4).find("schedule.blocks = ") != std::string::npos);
  const auto out = gpu.read(a.out);
  CHECK(test::difference(out, test::poisoned<bf16>(static_cast<std::int64_t>(out.size()))) == "");
  gpu.clear();
}

TEST_CASE("attention: rings that a schedule can't have are an error", "[gpu][attention][split]") {
  attention_case c;
  c.len = {700};
  c.q_len = {1};
  test::gpu_backend gpu;
  const auto a = test::make_attention_args<bf16>(gpu, c, test::make_attention_data<bf16>(c, 41));
  bi::schedule::attention_schedule s = {1, true, 2, bi::schedule::attention_kernel::split, 3};
  // A leaf of four tiles doesn't fit three slots.
  const bi::status st = test::launch_with(test::attention_op<bf16, 128>{}, a, s, gpu.stream());
  CHECK(bi::describe(st).find("schedule.stages = 3") != std::string::npos);
  const auto out = gpu.read(a.out);
  CHECK(test::difference(out, test::poisoned<bf16>(static_cast<std::int64_t>(out.size()))) == "");
  gpu.clear();
}

// As decode of one token is launched, or with clusters for a few long items, if lengths are about equal and they have a leaf a block, or
// with a queue.
enum class decode_form { picked, relay, queue };
bi::status launch_decode(const bi::attention_args<bf16>& a, bi::workspace ws, decode_form form, cudaStream_t stream) {
  if (form == decode_form::picked) return bi::attention<bf16, 128>::launch(a, ws, stream);
  bi::schedule::attention_schedule s = {1, true, 3, bi::schedule::attention_kernel::split};
  if (form == decode_form::relay) {
    s.blocks = 132, s.cluster = 8, s.singles = 12, s.least_leaves = 1;
  } else {
    s.queued = true;
  }
  return bi::launch_detail::launch_attention<bi::contract::attention_v1<bf16>, 128>(a, s, ws, stream);
}

TEST_CASE("attention: 30 replays of decode with changed lengths and pages", "[gpu][attention][split]") {
  constexpr std::int64_t heads = 8, heads_kv = 2, dim = 128, num_pages = 1600;
  // Clusters, leaves dealt out, and clusters of a few long items or a queue, or not, as the lengths are.
  const decode_form form = GENERATE(decode_form::picked, decode_form::relay, decode_form::queue);
  const bool relays = form == decode_form::relay;
  const std::int64_t longest = relays                       ? 12288
                               : form == decode_form::queue ? 5120
                                                            : GENERATE(1024, 5120),
                     row_stride = longest / 16, requests = 9;
  constexpr std::int64_t cache = num_pages * 16 * heads_kv * dim;
  test::gpu_backend gpu;
  attention_case c;
  c.heads_q = heads, c.heads_kv = heads_kv;
  c.q_len.assign(at(requests), 1);
  bf16 *q = gpu.output<bf16>(requests * heads * dim), *k = gpu.output<bf16>(cache), *v = gpu.output<bf16>(cache);
  auto* pages = gpu.output<std::int32_t>(requests * row_stride);
  auto* len = gpu.input(std::vector<std::int32_t>(at(requests), 0));
  bi::attention_args<bf16> a;
  a.q = q, a.out = gpu.output<bf16>(requests * heads * dim), a.lse = gpu.output<float>(requests * heads), a.len = len;
  a.cache.k = k, a.cache.v = v, a.cache.num_pages = num_pages, a.cache.heads = heads_kv, a.cache.head_dim = dim;
  a.view = bi::page_table{pages, row_stride};
  a.requests = a.rows = requests;
  a.scale = bi::rsqrt_rn(bi::float_from_int64(dim));
  a.limits = {requests, requests, 1, row_stride * 16, heads, heads_kv, dim, 16 * num_pages};
  bi::workspace ws;
  ws.bytes = bi::attention<bf16, dim>::workspace_bytes(a.limits);
  ws.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal));
  const bi::status st = launch_decode(a, ws, form, gpu.stream());
  BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
  INFO(bi::describe(st));
  REQUIRE(st);
  BI_REQUIRE_CUDA(cudaGraphInstantiateWithFlags(&replay, graph, 0));
  generator g(97);
  for (std::uint64_t i = 0; i < 30; ++i) {
    c.len.clear();
    for (std::int64_t r = 0; r < requests; ++r) {
      const std::int64_t n = g.chance(20)   ? 0
                             : g.chance(40) ? g.between(1, 300)
                                            : g.between(1, std::min<std::int64_t>(longest, 2000));
      c.len.push_back(static_cast<std::int32_t>(relays && i % 2 == 0 ? 2000 + r : r == 3 && i % 3 == 0 ? longest : n));
    }
    const auto d = test::make_attention_data<bf16>(c, 2000 + i);
    gpu.poison(a.out, requests * heads * dim);
    gpu.poison(a.lse, requests * heads);
    gpu.write(q, d.q);
    gpu.write(k, d.k);
    gpu.write(v, d.v);
    gpu.write(len, d.len);
    std::vector<std::int32_t> wide(at(requests * row_stride), 0x7fffffff);
    for (std::int64_t r = 0; r < requests; ++r) {
      std::copy_n(d.pages.begin() + r * d.max_pages, d.max_pages, wide.begin() + r * row_stride);
    }
    gpu.write(pages, wide);
    BI_REQUIRE_CUDA(cudaGraphLaunch(replay, gpu.stream()));
    test::host_backend host;
    const auto expected = test::run_attention<bf16, dim>(host, c, 2000 + i);
    INFO("replay " << i << ": " << test::to_string(c));
    REQUIRE(test::difference(gpu.read(a.out), expected.out) == "");
    REQUIRE(test::difference(gpu.read(a.lse), expected.lse) == "");
  }
  BI_REQUIRE_CUDA(cudaGraphExecDestroy(replay));
  BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
}

TEST_CASE("attention: lengths and pages that change after the kernels have begun", "[gpu][attention][split]") {
  constexpr std::int64_t requests = 5, heads = 8, heads_kv = 2, dim = 128, num_pages = 1600;
  constexpr std::int64_t cache = num_pages * 16 * heads_kv * dim;
  // Clusters with a leaf a block or two, leaves dealt out, and clusters of a few long items or a queue, or not.
  const decode_form form = GENERATE(decode_form::picked, decode_form::relay, decode_form::queue);
  const bool relays = form == decode_form::relay;
  const std::int64_t longest = form != decode_form::picked ? 5120 : GENERATE(1024, 2560, 5120),
                     row_stride = longest / 16, entries = requests * row_stride;
  constexpr std::int32_t last = 0x7fffffff;
  test::gpu_backend gpu;
  attention_case c;
  c.heads_q = heads, c.heads_kv = heads_kv;
  c.q_len.assign(at(requests), 1);
  bf16 *q = gpu.output<bf16>(requests * heads * dim), *k = gpu.output<bf16>(cache), *v = gpu.output<bf16>(cache);
  auto* live = gpu.input(std::vector<std::int32_t>(at(requests + entries), 0));  // lengths, then pages
  auto* later = gpu.input(std::vector<std::int32_t>(at(requests + entries), 0));
  bi::attention_args<bf16> a;
  a.q = q, a.out = gpu.output<bf16>(requests * heads * dim), a.lse = gpu.output<float>(requests * heads), a.len = live;
  a.cache.k = k, a.cache.v = v, a.cache.num_pages = num_pages, a.cache.heads = heads_kv, a.cache.head_dim = dim;
  a.view = bi::page_table{live + requests, row_stride};
  a.requests = a.rows = requests;
  a.scale = bi::rsqrt_rn(bi::float_from_int64(dim));
  a.limits = {requests, requests, 1, row_stride * 16, heads, heads_kv, dim, 16 * num_pages};
  bi::workspace ws;
  ws.bytes = bi::attention<bf16, dim>::workspace_bytes(a.limits);
  ws.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
  generator g(98);
  std::vector<std::int32_t> before(at(requests + entries), 0);
  for (std::uint64_t i = 0; i < 28; ++i) {
    c.len.clear();
    for (std::int64_t r = 0; r < requests; ++r) {
      c.len.push_back(static_cast<std::int32_t>(g.chance(20)   ? 0
                                                : g.chance(50) ? g.between(1, 300)
                                                               : g.between(1, std::min<std::int64_t>(longest, 2000))));
    }
    if (relays && i % 3 > 0) std::fill(c.len.begin(), c.len.end(), 2500 + static_cast<std::int32_t>(i));
    if (i % 4 == 1) c.len[at(g.below(requests))] = static_cast<std::int32_t>(longest);
    const auto d = test::make_attention_data<bf16>(c, 3000 + i);
    std::vector<std::int32_t> now = d.len;
    now.resize(at(requests + entries), last);
    for (std::int64_t r = 0; r < requests; ++r) {
      std::copy_n(d.pages.begin() + r * d.max_pages, d.max_pages, now.begin() + requests + r * row_stride);
    }
    // What the kernels find when they begin.
    std::vector<std::int32_t> first = now;
    const auto some = [&] { return static_cast<std::int32_t>(g.between(0, num_pages - 1)); };
    const std::int64_t which = g.below(requests);
    switch (i % 7) {
      case 0:
        first = before;
        break;  // the call before
      case 1:
        first[at(requests + which * row_stride + g.below(d.max_pages))] = some();
        break;
      case 2:
        std::fill(first.begin() + requests, first.end(), g.chance(50) ? last : -last);
        break;
      case 3:
        first[at(which)] = first[at(which)] / 2 + 300;
        break;
      case 4:
        first[at(which)] = g.chance(50) ? last : -last;
        break;
      case 5:
        std::fill_n(first.begin(), requests, 0);
        break;
      default:
        for (std::int64_t e = 0; e < entries; ++e) first[at(requests + e)] = some();
    }
    before = now;
    gpu.poison(a.out, requests * heads * dim);
    gpu.poison(a.lse, requests * heads);
    // Records of the call before are left to be misread, or garbage.
    if (i % 2 == 0) gpu.poison(static_cast<unsigned char*>(ws.data), static_cast<std::int64_t>(ws.bytes));
    gpu.write(q, d.q);
    gpu.write(k, d.k);
    gpu.write(v, d.v);
    gpu.write(later, now);
    gpu.write(live, first);
    REQUIRE(test::copy_late({live, later, requests + entries, 40}, gpu.stream()));
    REQUIRE(launch_decode(a, ws, form, gpu.stream()));
    test::host_backend host;
    const auto expected = test::run_attention<bf16, dim>(host, c, 3000 + i);
    INFO("call " << i << ": " << test::to_string(c));
    CHECK(test::difference(gpu.read(a.out), expected.out) == "");
    CHECK(test::difference(gpu.read(a.lse), expected.lse) == "");
  }
}

TEST_CASE("attention: views of up to 2^31 - 1 tokens", "[gpu][attention]") {
  // The last tile may end at 2^31. The view is one page of tokens, again and again; a window keeps the work small.
  constexpr std::int64_t page_size = 8192, pages = (std::int64_t{1} << 31) / page_size;
  attention_case c;
  c.len = {page_size};
  c.q_len = {5};
  c.heads_q = 2, c.heads_kv = 1, c.head_dim = 64;
  c.page_size = page_size;
  c.window = 300;
  std::vector<bf16> last;
  for (const view_storage storage : {view_storage::table, view_storage::runs}) {
    c.storage = storage;
    auto d = test::make_attention_data<bf16>(c, 95);
    if (storage == view_storage::table) {
      d.pages.assign(pages, d.pages[0]);
      d.max_pages = pages;
    } else {
      d.runs.assign(pages, {d.runs[0].slot, page_size});
      d.start = {0, pages};
    }
    for (const std::int32_t below : {1, 2, 3, 62, 63, 64, 65}) {
      d.len = {static_cast<std::int32_t>(0x80000000u - static_cast<std::uint32_t>(below))};
      const auto run = [&](auto&& b) {
        auto a = test::make_attention_args<bf16>(b, c, d);
        a.limits.max_view = d.len[0];
        a.limits.max_view_sum = c.window + c.q_len[0];  // what the rows see
        b.run(test::attention_op<bf16, 64>{}, a);
        return attention_result<bf16>{b.read(a.out), b.read(a.lse)};
      };
      INFO("2^31 - " << below << " tokens, storage " << static_cast<int>(storage));
      const auto got = run(test::gpu_backend{});
      CHECK(test::difference(got, run(test::host_backend{})) == "");
      CHECK(test::difference(got.out, last) != "");  // control: one token more is seen
      last = got.out;
    }
  }
}

TEST_CASE("attention: long views, large groups, many rows", "[gpu][attention]") {
  attention_case c;
  c.len = {5000};
  c.q_len = {1};
  c.heads_q = 40, c.heads_kv = 1;
  compare<bf16, 128>(c, 1);
  c.storage = view_storage::runs;
  c.page_size = 3;
  compare<bf16, 128>(c, 2);
  c.window = 1024;
  compare<bf16, 128>(c, 3);
  c = {};
  c.len = {700, 700, 0, 65};
  c.q_len = {300, 1, 1, 65};
  for (const std::int64_t heads : {1, 4}) {
    c.heads_q = heads * 2;
    c.heads_kv = 2;
    compare<bf16, 128>(c, 4);
    compare<fp16, 128>(c, 5);
  }
}

TEST_CASE("attention: decode, chunks and prefill give the same bytes", "[gpu][attention]") {
  check_chunks<128>(600, 0, 0.0f, {1, 7, 64, 100, 256});
  check_chunks<128>(400, 100, 0.0f, {1, 50});
  check_chunks<64>(400, 0, 0.0f, {1, 33});
  check_chunks<256>(300, 0, 0.0f, {1, 9});
  check_chunks<128, cap>(300, 0, 20.0f, {1, 33});
}

TEST_CASE("attention: storage and page size change nothing, order does", "[gpu][attention]") {
  attention_case c;
  c.len = {513, 1, 64};
  c.q_len = {40, 1, 3};
  test::gpu_backend gpu;
  const auto expected = test::run_attention<bf16, 128>(gpu, c, 41);
  for (const std::int64_t page_size : {1, 8, 16, 24, 64, 1000}) {
    for (const view_storage storage : all_storages) {
      for (const bool head_major : {false, true}) {
        c.page_size = page_size;
        c.storage = storage;
        c.head_major = head_major;
        INFO(test::to_string(c));
        const auto got = test::run_attention<bf16, 128>(gpu, c, 41);
        CHECK(test::difference(got.out, expected.out) == "");
        CHECK(test::difference(got.lse, expected.lse) == "");
        gpu.clear();
      }
    }
  }
  // Control: the same tokens, begun elsewhere, are the same sum in another order.
  attention_case whole;
  whole.len = {600};
  whole.q_len = {1};
  whole.page_size = 600;
  whole.storage = view_storage::runs;
  whole.mask = bi::attention_mask::full;
  auto d = test::make_attention_data<bf16>(whole, 42);
  const auto run = [&] {
    const auto a = test::make_attention_args<bf16>(gpu, whole, d);
    gpu.run(test::attention_op<bf16, 128>{}, a);
    return gpu.read(a.out);
  };
  const auto in_order = run();
  const std::int32_t first = d.runs[0].slot;
  d.runs = {{first + 100, 500}, {first, 100}};
  CHECK(test::difference(run(), in_order) != "");
  d.runs = {{first, 100}, {first + 100, 0}, {first + 100, 500}};
  d.start = {0, 3};
  CHECK(test::difference(run(), in_order) == "");
}

TEST_CASE("attention: a row alone equals the row in batches of 1..257", "[gpu][attention]") {
  constexpr std::int64_t most = 257, width = 2 * 64;
  attention_case c;
  c.heads_q = 2, c.heads_kv = 1, c.head_dim = 64;
  generator g(51);
  for (std::int64_t i = 0; i < most; ++i) {
    c.len.push_back(static_cast<std::int32_t>(i % 16 == 5 ? g.between(200, 400) : g.between(1, 90)));
    c.q_len.push_back(1);
  }
  test::gpu_backend gpu;
  const auto all = test::make_attention_args<bf16>(gpu, c, test::make_attention_data<bf16>(c, 52));
  // Requests [first, first + n).
  const auto run = [&](std::int64_t first, std::int64_t n, bool with_q_start) {
    auto a = all;
    a.q += first * width;
    a.len += first;
    a.view.table.pages += first * a.view.table.row_stride;
    if (!with_q_start) a.q_start = nullptr;  // else it begins with 0, 1, 2 ... for any n
    a.requests = a.rows = a.limits.max_requests = a.limits.max_rows = n;
    gpu.run(test::attention_op<bf16, 64>{}, a);
    return gpu.read(a.out);
  };
  std::vector<bf16> alone;
  for (std::int64_t r = 0; r < most; ++r) {
    const auto out = run(r, 1, r % 2 == 0);
    alone.insert(alone.end(), out.begin(), out.begin() + width);
  }
  for (std::int64_t m = 1; m <= most; ++m) {
    INFO("m = " << m);
    REQUIRE(test::difference(run(0, m, m % 2 == 0).data(), alone.data(), m * width) == "");
    REQUIRE(test::difference(run(most - m, m, m % 2 != 0).data(), alone.data() + (most - m) * width, m * width) == "");
  }
}

TEST_CASE("attention: Inf and NaN of tokens that a row does not see do not reach it", "[gpu][attention]") {
  check_later_tokens<64>(0);
  check_later_tokens<128>(0);
  check_later_tokens<128>(70);
  check_later_tokens<256>(0);
}

TEST_CASE("attention: rows that see nothing are +0, whatever q holds", "[gpu][attention]") {
  // So many that the loads of q are slow: none may land in shared memory after the results.
  constexpr std::int64_t requests = 20000, heads = 8, dim = 128;
  test::gpu_backend gpu;
  bi::attention_args<bf16> a;
  a.q = gpu.input(std::vector<bf16>(at(requests * heads * dim), bf16{0x7fc1}));
  a.cache.k = a.cache.v = gpu.output<bf16>(16 * 2 * dim);
  a.cache.num_pages = 1, a.cache.page_size = 16, a.cache.heads = 2, a.cache.head_dim = dim;
  a.view = bi::page_table{gpu.input(std::vector<std::int32_t>(at(requests), 0)), 1};
  a.len = gpu.input(std::vector<std::int32_t>(at(requests), 0));
  a.requests = a.rows = requests;
  a.scale = 0.1f;
  a.limits = {requests, requests, 1, 16, heads, 2, dim};
  a.out = gpu.output<bf16>(requests * heads * dim);
  a.lse = gpu.output<float>(requests * heads);
  const std::vector<bf16> zeros(at(requests * heads * dim), bf16{0});
  const std::vector<float> nothing(at(requests * heads), bi::neg_inf_f32());
  for (int i = 0; i < 5; ++i) {
    gpu.poison(a.out, requests * heads * dim);
    gpu.run(test::attention_op<bf16, dim>{}, a);
    REQUIRE(test::difference(gpu.read(a.out), zeros) == "");
    REQUIRE(test::difference(gpu.read(a.lse), nothing) == "");
  }
}

TEST_CASE("attention: out may be q", "[gpu][attention]") {
  attention_case c;
  c.len = {150, 40, 300};
  c.q_len = {70, 1, 5};
  test::gpu_backend gpu;
  const auto d = test::make_attention_data<bf16>(c, 61);
  auto a = test::make_attention_args<bf16>(gpu, c, d);
  gpu.run(test::attention_op<bf16, 128>{}, a);
  const auto expected = gpu.read(a.out);
  bf16* both = gpu.input(d.q);
  a.q = a.out = both;
  gpu.run(test::attention_op<bf16, 128>{}, a);
  CHECK(test::difference(gpu.read(both), expected) == "");
}

TEST_CASE("attention: 50 replays with changed lengths, rows, pages and tokens", "[gpu][attention]") {
  constexpr std::int64_t requests = 6, rows = 64, num_pages = 200, row_stride = 40, heads = 4, dim = 128;
  for (const view_storage storage : all_storages) {
    generator g(71 + static_cast<std::uint64_t>(storage));
    attention_case c;
    c.storage = storage;
    c.window = storage == view_storage::csr ? 150 : 0;
    test::gpu_backend gpu;
    const std::int64_t cache = num_pages * c.page_size * c.heads_kv * dim;
    bf16 *q = gpu.output<bf16>(rows * heads * dim), *k = gpu.output<bf16>(cache), *v = gpu.output<bf16>(cache);
    bf16* out = gpu.output<bf16>(rows * heads * dim);
    float* lse = gpu.output<float>(rows * heads);
    auto* entries = gpu.output<std::int32_t>(2 * 2 * num_pages);
    auto* start = gpu.output<std::int32_t>(requests + 1);
    auto* len = gpu.input(std::vector<std::int32_t>(requests, 0));
    auto* q_start = gpu.input(std::vector<std::int32_t>(requests + 1, 0));
    bi::attention_args<bf16> a;
    a.q = q, a.out = out, a.lse = lse, a.len = len, a.q_start = q_start;
    a.cache.k = k, a.cache.v = v, a.cache.num_pages = num_pages, a.cache.page_size = c.page_size;
    a.cache.heads = c.heads_kv, a.cache.head_dim = dim;
    if (storage == view_storage::table) a.view = bi::page_table{entries, row_stride};
    if (storage == view_storage::csr) a.view = bi::page_csr{entries, start};
    if (storage == view_storage::runs) a.view = bi::run_list{reinterpret_cast<bi::kv_run*>(entries), start};
    a.requests = requests, a.rows = rows, a.window = c.window;
    a.scale = bi::rsqrt_rn(bi::float_from_int64(dim));
    a.limits = {requests, rows, rows, row_stride * c.page_size, heads, c.heads_kv, dim};

    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal));
    const bi::status st = bi::attention<bf16, dim>::launch(a, {}, gpu.stream());
    BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
    INFO(bi::describe(st));
    REQUIRE(st);
    BI_REQUIRE_CUDA(cudaGraphInstantiateWithFlags(&replay, graph, 0));
    for (std::uint64_t i = 0; i < 50; ++i) {
      c.len.clear();
      c.q_len.clear();
      std::int64_t left = rows;
      for (std::int64_t r = 0; r < requests; ++r) {
        const std::int64_t n = g.chance(20) ? 0 : g.chance(50) ? g.between(1, 60) : g.between(61, row_stride * 16);
        const std::int64_t wanted = g.chance(50) ? 1 : g.between(0, 40);
        const std::int64_t n_rows = std::min({left, std::max<std::int64_t>(n, 1), wanted});
        left -= n_rows;
        c.len.push_back(static_cast<std::int32_t>(n));
        c.q_len.push_back(static_cast<std::int32_t>(n_rows));
      }
      c.kind = i % 5 == 4 ? values::hostile : values::normal;
      const auto d = test::make_attention_data<bf16>(c, 1000 + i);
      // What no row sees holds NaN, and page ids that no cache has.
      gpu.poison(q, rows * heads * dim);
      gpu.poison(out, rows * heads * dim);
      gpu.poison(lse, rows * heads);
      gpu.write(k, std::vector<bf16>(at(cache), bf16{0x7fff}));
      gpu.write(v, std::vector<bf16>(at(cache), bf16{0x7fff}));
      gpu.poison(entries, 2 * 2 * num_pages);
      gpu.write(q, d.q);
      gpu.write(k, d.k);
      gpu.write(v, d.v);
      gpu.write(start, d.start);
      gpu.write(len, d.len);
      gpu.write(q_start, d.q_start);
      if (storage == view_storage::table) {
        std::vector<std::int32_t> wide(at(requests * row_stride), 0x7fffffff);
        for (std::int64_t r = 0; r < requests; ++r) {
          std::copy_n(d.pages.begin() + r * d.max_pages, d.max_pages, wide.begin() + r * row_stride);
        }
        gpu.write(entries, wide);
      } else if (storage == view_storage::csr) {
        gpu.write(entries, d.pages);
      } else {
        gpu.write(reinterpret_cast<bi::kv_run*>(entries), d.runs);
      }
      BI_REQUIRE_CUDA(cudaGraphLaunch(replay, gpu.stream()));
      test::host_backend host;
      const auto expected = test::run_attention<bf16, dim>(host, c, 1000 + i);
      auto all_out = test::poisoned<bf16>(rows * heads * dim);
      auto all_lse = test::poisoned<float>(rows * heads);
      std::copy(expected.out.begin(), expected.out.end(), all_out.begin());
      std::copy(expected.lse.begin(), expected.lse.end(), all_lse.begin());
      INFO("replay " << i << ": " << test::to_string(c));
      REQUIRE(test::difference(gpu.read(out), all_out) == "");
      REQUIRE(test::difference(gpu.read(lse), all_lse) == "");
    }
    BI_REQUIRE_CUDA(cudaGraphExecDestroy(replay));
    BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
    gpu.clear();
  }
}

TEST_CASE("attention: bad input launches nothing", "[gpu][attention]") {
  attention_case c;
  c.len = {30, 20};
  c.q_len = {3, 1};
  test::gpu_backend gpu;
  const auto good = test::make_attention_args<bf16>(gpu, c, test::make_attention_data<bf16>(c, 81));
  const auto launch = [&](auto change, auto attention) {
    auto a = good;
    change(a);
    return enqueue(gpu, [&](bi::cuda_stream stream) { return decltype(attention)::launch(a, {}, stream); });
  };
  using plain = bi::attention<bf16, 128>;
  using capped = bi::attention<bf16, 128, cap>;
  const auto refused = [&](auto change, const test::complaint& expected, auto attention) {
    const enqueued e = launch(change, attention);
    CHECK(test::other_than(expected, e.st) == "");
    CHECK(e.nodes == 0);
  };
  using bi::error;
  refused([](auto& a) { a.out = nullptr; }, {error::null_pointer, "out"}, plain{});
  refused([](auto& a) { a.len = nullptr; }, {error::null_pointer, "len"}, plain{});
  refused([](auto& a) { a.view = {}; }, {error::not_supported, "view"}, plain{});
  refused([](auto& a) { a.rows = -1; }, {error::too_small, "rows", -1}, plain{});
  refused([](auto& a) { a.window = -1; }, {error::too_small, "window", -1}, plain{});
  refused([](auto& a) { a.limits.max_rows = 3; }, {error::too_large, "rows", 4}, plain{});
  refused([](auto& a) { a.limits.heads_q = 3; }, {error::not_multiple, "limits.heads_q", 3}, plain{});
  refused([](auto& a) { a.cache.head_dim = 64; }, {error::too_small, "cache.head_dim", 64}, plain{});
  refused([](auto& a) { a.q_start = nullptr; }, {error::too_large, "rows", 4}, plain{});
  refused([](auto& a) { a.soft_cap = 5.0f; }, {error::not_valid, "soft_cap"}, plain{});
  refused([](auto& a) { a.soft_cap = 0.0f; }, {error::not_valid, "soft_cap"}, capped{});
  refused([](auto& a) { a.scale = 0.0f; }, {error::not_valid, "scale"}, plain{});
  refused([](auto&) {}, {error::not_supported, "limits.head_dim", 128}, bi::attention<bf16, 64>{});
  refused([](auto& a) { a.lse = reinterpret_cast<float*>(const_cast<bf16*>(a.q)); }, {error::overlap, "lse"}, plain{});
  const auto nodes = [&](auto change) {
    const enqueued e = launch(change, plain{});
    INFO(bi::describe(e.st));
    CHECK(e.st);
    return e.nodes;
  };
  CHECK(nodes([](auto&) {}) == 1);
  CHECK(nodes([](auto& a) { a.lse = nullptr; }) == 1);
  CHECK(nodes([](auto& a) { a.rows = 0, a.q = nullptr; }) == 0);
  CHECK(nodes([](auto& a) { a.requests = 0, a.len = nullptr; }) == 0);
  // A workspace is optional, and whole where it is given.
  bi::workspace ws;
  ws.bytes = plain::workspace_bytes(good.limits);
  ws.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
  const auto with = [&](bi::workspace w) {
    return enqueue(gpu, [&](bi::cuda_stream stream) { return plain::launch(good, w, stream); });
  };
  CHECK(with(ws).st);
  --ws.bytes;
  const auto needed = static_cast<std::int64_t>(ws.bytes);
  const test::complaint too_small = {error::workspace_too_small, "workspace", needed};
  CHECK(test::other_than(too_small, with(ws).st) == "");
  CHECK(with(ws).nodes == 0);
  CHECK(test::difference(gpu.read(good.out), test::poisoned<bf16>(4 * 4 * 128)) == "");
}
