// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bi/attention.hpp"
#include "golden/cases_attention.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/manifest.hpp"

// What a row's bytes must not depend on, each asked of every way to run a call: launch() with a workspace and without,
// and every schedule of tests/support/manifest.hpp that the call may have. One that is added there is tested here.

// The launcher that takes a schedule, instantiated in tests/gpu/instantiate_attention.cu.
BI_NAMESPACE_BEGIN
namespace launch_detail {
template <class Contract, int HeadDim, class T>
status launch_attention(const attention_args<T>&, const schedule::attention_schedule&, workspace, cuda_stream);
}
BI_NAMESPACE_END

using bi::bf16;
using bi::fp16;
using test::attention_case;
using test::attention_result;
using test::generator;
using test::gpu_backend;
using test::host_backend;
using test::values;
using test::view_storage;

namespace {

using cap = bi::contract::attention_soft_cap_v1<bf16>;
template <class T>
using plain = bi::contract::attention_v1<T>;

constexpr std::int64_t leaf = bi::contract::attention_order::leaf;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
std::int32_t narrow(std::int64_t i) { return static_cast<std::int32_t>(i); }

// check(name, result) after each way to run the call. a.out and a.lse are the starts of buffers.
template <int HeadDim, class Contract, class T, class Check>
void each_way(gpu_backend& gpu, const bi::attention_args<T>& a, Check check) {
  using attention = bi::attention<T, HeadDim, Contract>;
  const auto out_elements = static_cast<std::int64_t>(gpu.read(a.out).size());
  const auto lse_elements = static_cast<std::int64_t>(gpu.read(a.lse).size());
  bi::workspace ws;
  ws.bytes = attention::workspace_bytes(a.limits);
  ws.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
  const auto run = [&](const std::string& name, auto launch) {
    gpu.poison(a.out, out_elements);
    gpu.poison(a.lse, lse_elements);
    gpu.poison(static_cast<unsigned char*>(ws.data), static_cast<std::int64_t>(ws.bytes));
    test::require_ok(launch());
    INFO(name);
    check(name, attention_result<T>{gpu.read(a.out), gpu.read(a.lse)});
  };
  run("with a workspace", [&] { return attention::launch(a, ws, gpu.stream()); });
  run("without a workspace", [&] { return attention::launch(a, {}, gpu.stream()); });
  const std::int64_t packed = a.limits.max_q_len * (a.limits.heads_q / a.limits.heads_kv);
  auto schedules = test::attention_schedules(HeadDim, packed);
  const std::int64_t leaves = Contract::end_leaf(a.limits.max_view);
  for (const auto& s : test::attention_cluster_schedules(HeadDim, packed, a.requests * a.limits.heads_kv, leaves)) {
    schedules.push_back(s);
  }
  for (const auto& s : test::attention_long_schedules(HeadDim, packed, a.requests)) schedules.push_back(s);
  for (const auto& s : schedules) {
    run(to_string(s), [&] { return bi::launch_detail::launch_attention<Contract, HeadDim>(a, s, ws, gpu.stream()); });
  }
}
template <int HeadDim, class Contract, class T>
void each_way_gives(gpu_backend& gpu, const bi::attention_args<T>& a, const attention_result<T>& expected) {
  each_way<HeadDim, Contract>(gpu, a, [&](const std::string&, const attention_result<T>& got) {
    REQUIRE(test::difference(got.out, expected.out) == "");
    REQUIRE(test::difference(got.lse, expected.lse) == "");
  });
}

// Requests over one pool of slots, each with a view of its own.
template <class T>
struct batch {
  std::int64_t heads_q = 4, heads_kv = 2, head_dim = 128, page_size = 16;
  std::vector<T> k, v;  // [slots, heads_kv, head_dim]
  std::vector<T> q;
  std::vector<std::int32_t> len, q_start = {0}, start = {0};
  std::vector<bi::kv_run> runs;     // run lists, or
  std::vector<std::int32_t> pages;  // pages in CSR
  bi::attention_mask mask = bi::attention_mask::causal;
  std::int64_t window = 0, max_view = 0;
  float soft_cap = 0;

  std::int64_t requests() const { return static_cast<std::int64_t>(len.size()); }
  std::int64_t rows() const { return q_start.back(); }
  std::int64_t row_width() const { return heads_q * head_dim; }
  std::int64_t token_width() const { return heads_kv * head_dim; }

  // Slots of normal values. Whole pages.
  void fill(std::int64_t slots, std::uint64_t seed) {
    slots = (slots + page_size - 1) / page_size * page_size;
    k = test::random_vector<T>(slots * token_width(), values::normal, seed);
    v = test::random_vector<T>(slots * token_width(), values::normal, seed + 1);
  }
  void add(std::int64_t tokens, std::int64_t q_len) {
    len.push_back(narrow(tokens));
    q_start.push_back(narrow(rows() + q_len));
    start.push_back(narrow(static_cast<std::int64_t>(pages.empty() ? runs.size() : pages.size())));
  }
  void add(std::vector<bi::kv_run> view, std::int64_t q_len) {
    std::int64_t tokens = 0;
    for (const bi::kv_run& r : view) tokens += r.length;
    runs.insert(runs.end(), view.begin(), view.end());
    add(tokens, q_len);
  }
  // The first tokens of a sequence of pages.
  void add_pages(const std::vector<std::int32_t>& sequence, std::int64_t tokens, std::int64_t q_len) {
    pages.insert(pages.end(), sequence.begin(), sequence.begin() + (tokens + page_size - 1) / page_size);
    add(tokens, q_len);
  }

  template <class Backend>
  bi::attention_args<T> args(Backend& b) const {
    bi::attention_args<T> a;
    a.q = b.input(q);
    a.cache.k = b.input(k);
    a.cache.v = b.input(v);
    a.cache.num_pages = static_cast<std::int64_t>(k.size()) / token_width() / page_size;
    a.cache.page_size = page_size, a.cache.heads = heads_kv, a.cache.head_dim = head_dim;
    const std::int32_t* s = b.input(start);
    if (pages.empty()) {
      a.view = bi::run_list{b.input(runs), s};
    } else {
      a.view = bi::page_csr{b.input(pages), s};
    }
    a.len = b.input(len);
    a.q_start = b.input(q_start);
    a.requests = requests();
    a.rows = rows();
    a.mask = mask, a.window = window, a.soft_cap = soft_cap;
    a.scale = bi::rsqrt_rn(bi::float_from_int64(head_dim));
    std::int64_t longest = max_view, most = 1;
    for (std::size_t i = 0; i < len.size(); ++i) {
      longest = std::max<std::int64_t>(longest, len[i]);
      most = std::max<std::int64_t>(most, q_start[i + 1] - q_start[i]);
    }
    a.limits = {a.requests, a.rows, most, longest, heads_q, heads_kv, head_dim};
    a.out = b.template output<T>(a.rows * row_width());
    a.lse = b.template output<float>(a.rows * heads_q);
    return a;
  }
  template <class Contract>
  attention_result<T> expected() const {
    host_backend host;
    const auto a = args(host);
    test::require_ok(bi::reference::attention<Contract>(a));
    return {host.read(a.out), host.read(a.lse)};
  }
};

std::vector<std::int32_t> shuffled(std::int64_t n, std::uint64_t seed) {
  std::vector<std::int32_t> order;
  for (std::int64_t i = 0; i < n; ++i) order.push_back(narrow(i));
  generator g(seed);
  for (std::int64_t i = n; i > 1; --i) std::swap(order[at(i - 1)], order[at(g.below(i))]);
  return order;
}

// One sequence, every token of which is a row, in chunks: chunk i has the tokens up to (i + 1) * chunk for its view.
// All chunks are requests of one call, so the output is that of the whole, whatever the chunk.
template <class T>
batch<T> sequence_in_chunks(const batch<T>& of, std::int64_t tokens, std::int64_t chunk, std::uint64_t shuffle) {
  batch<T> b = of;
  const auto order = shuffled(static_cast<std::int64_t>(b.k.size()) / b.token_width() / b.page_size, shuffle);
  for (std::int64_t done = 0; done < tokens; done += chunk) {
    const std::int64_t end = std::min(done + chunk, tokens);
    b.add_pages(order, end, end - done);
  }
  return b;
}

template <class T, int HeadDim, class Contract = plain<T>>
void check_every_chunk(std::int64_t tokens, std::int64_t heads_q, std::int64_t heads_kv, std::int64_t window,
                       std::initializer_list<std::int64_t> chunks) {
  batch<T> of;
  of.heads_q = heads_q, of.heads_kv = heads_kv, of.head_dim = HeadDim;
  of.window = window;
  if (Contract::has_soft_cap) of.soft_cap = 20.0f;
  of.fill(tokens, 11);
  of.q = test::random_vector<T>(tokens * of.row_width(), values::normal, 12);
  const auto expected = sequence_in_chunks(of, tokens, tokens, 13).template expected<Contract>();
  gpu_backend gpu;
  for (const std::int64_t chunk : chunks) {
    INFO("head_dim " << HeadDim << ", heads " << heads_q << "/" << heads_kv << ", chunks of " << chunk);
    const auto b = sequence_in_chunks(of, tokens, chunk, 13);
    each_way_gives<HeadDim, Contract>(gpu, b.args(gpu), expected);
    gpu.clear();
  }
}

// A row of each view length, against the reference; the views are the first tokens of one sequence.
template <class T, int HeadDim, class Contract = plain<T>>
void check_lengths(const std::vector<std::int64_t>& lengths, std::int64_t q_len, std::int64_t heads_q) {
  batch<T> b;
  b.heads_q = heads_q, b.heads_kv = 1, b.head_dim = HeadDim;
  b.fill(*std::max_element(lengths.begin(), lengths.end()), 21);
  const auto order = shuffled(static_cast<std::int64_t>(b.k.size()) / b.token_width() / b.page_size, 22);
  for (const std::int64_t n : lengths) b.add_pages(order, n, std::min(n, q_len));
  b.q = test::random_vector<T>(b.rows() * b.row_width(), values::normal, 23);
  if (Contract::has_soft_cap) b.soft_cap = 20.0f;
  gpu_backend gpu;
  INFO("head_dim " << HeadDim << ", " << heads_q << " heads, q_len " << q_len);
  each_way_gives<HeadDim, Contract>(gpu, b.args(gpu), b.template expected<Contract>());
  gpu.clear();
}
std::vector<std::int64_t> all_to_two_leaves() {
  std::vector<std::int64_t> all;
  for (std::int64_t n = 1; n <= 2 * leaf + 1; ++n) all.push_back(n);
  for (const std::int64_t n : {3 * leaf, 4 * leaf}) all.insert(all.end(), {n - 1, n, n + 1});
  return all;
}

template <class T, int HeadDim, class Contract = plain<T>>
void check_storage(const attention_case& shape, std::initializer_list<std::int64_t> page_sizes) {
  attention_case c = shape;
  c.head_dim = HeadDim;
  host_backend host;
  const auto expected = test::run_attention<T, HeadDim, Contract>(host, c, 31);
  gpu_backend gpu;
  int turn = 0;
  for (const std::int64_t page_size : page_sizes) {
    for (const view_storage storage : test::all_storages) {
      c.page_size = page_size;
      c.storage = storage;
      c.head_major = turn++ % 2 != 0;
      INFO(test::to_string(c));
      const auto d = test::make_attention_data<T>(c, 31);
      each_way_gives<HeadDim, Contract>(gpu, test::make_attention_args<T>(gpu, c, d), expected);
      gpu.clear();
    }
  }
}

// The rows of request `request` are those of `alone`, in every way.
template <int HeadDim, class T>
void check_needle(gpu_backend& gpu, const batch<T>& b, std::int64_t request, const attention_result<T>& alone) {
  const std::int64_t first = b.q_start[at(request)], rows = b.q_start[at(request + 1)] - first;
  each_way<HeadDim, plain<T>>(gpu, b.args(gpu), [&](const std::string&, const attention_result<T>& got) {
    REQUIRE(test::difference(got.out.data() + first * b.row_width(), alone.out.data(), rows * b.row_width()) == "");
    REQUIRE(test::difference(got.lse.data() + first * b.heads_q, alone.lse.data(), rows * b.heads_q) == "");
  });
  gpu.clear();
}

}  // namespace

TEST_CASE("attention invariance: view lengths 1..2L+1, around 3L and 4L, and 65537", "[gpu][attention][invariance]") {
  const auto lengths = all_to_two_leaves();
  SECTION("decode") {
    check_lengths<bf16, 128>(lengths, 1, 4);
    check_lengths<fp16, 128>(lengths, 1, 1);
    check_lengths<bf16, 64>(lengths, 1, 8);
    check_lengths<bf16, 256>(lengths, 1, 2);
    check_lengths<bf16, 128, cap>(lengths, 1, 2);
  }
  SECTION("verification and chunks") {
    check_lengths<bf16, 128>(lengths, 4, 4);
    check_lengths<bf16, 128>(lengths, 5, 5);
    check_lengths<bf16, 128>({255, 256, 257, 511, 512, 513, 768, 1025}, 200, 4);
  }
  SECTION("65537 tokens") {
    check_lengths<bf16, 128>({65537}, 1, 4);
    check_lengths<bf16, 128>({65535, 65536, 65537}, 2, 4);
    check_lengths<bf16, 128>({65537}, 17, 4);
    check_lengths<fp16, 128>({65537}, 1, 8);
    check_lengths<bf16, 64>({65537}, 1, 4);
    check_lengths<bf16, 256>({65537}, 1, 2);
  }
}

TEST_CASE("attention invariance: decode, verification, chunks and prefill", "[gpu][attention][invariance]") {
  check_every_chunk<bf16, 128>(4 * leaf + 6, 4, 2, 0, {1, 2, 3, 4, 8, 16, 17, 64, 100, 256, 257, 1030});
  check_every_chunk<bf16, 128>(2 * leaf + 10, 6, 1, 0, {1, 2, 5, 10, 11, 128, 522});
  check_every_chunk<bf16, 128>(2 * leaf + 10, 2, 2, 300, {1, 7, 16, 64, 522});
  check_every_chunk<fp16, 128>(2 * leaf + 10, 4, 1, 0, {1, 4, 16, 64, 522});
  check_every_chunk<bf16, 64>(2 * leaf + 10, 8, 1, 0, {1, 2, 8, 64, 522});
  check_every_chunk<bf16, 256>(2 * leaf + 10, 2, 1, 0, {1, 8, 16, 64, 522});
  check_every_chunk<bf16, 128, cap>(2 * leaf + 10, 2, 1, 0, {1, 8, 64, 522});
}

TEST_CASE("attention invariance: page sizes, storage and layout", "[gpu][attention][invariance]") {
  attention_case decode, verification, chunk;
  decode.len = {1000, 1, 0, 64, 513, 255};
  decode.q_len.assign(6, 1);
  verification.len = {700, 3, 257, 520};
  verification.q_len = {4, 3, 4, 2};
  chunk.len = {600, 40, 1};
  chunk.q_len = {130, 40, 1};
  for (const attention_case& c : {decode, verification, chunk}) {
    check_storage<bf16, 128>(c, {1, 7, 8, 16, 24, 32, 64, 128, 1000});
    check_storage<bf16, 64>(c, {8, 24, 128});
  }
  check_storage<fp16, 128>(decode, {16, 24});
  check_storage<bf16, 256>(decode, {1, 16, 64});
}

TEST_CASE("attention invariance: a run may end at any token", "[gpu][attention][invariance]") {
  // Two copies of a sequence at slots of no alignment; a request for each cut takes what is before it from one copy.
  constexpr std::int64_t tokens = 2 * leaf + 90, second = tokens + 13, cuts = 2 * leaf + 1;
  for (const std::int64_t q_len : {1, 4, 20}) {
    batch<bf16> b;
    b.fill(second + tokens, 41);
    std::copy_n(b.k.begin(), tokens * b.token_width(), b.k.begin() + second * b.token_width());
    std::copy_n(b.v.begin(), tokens * b.token_width(), b.v.begin() + second * b.token_width());
    const auto own_q = test::random_vector<bf16>(q_len * b.row_width(), values::normal, 42);
    const auto run = [](std::int64_t first, std::int64_t end) {
      return bi::kv_run{narrow(first), narrow(end - first)};
    };
    batch<bf16> flat = b;
    flat.add({run(0, tokens)}, q_len);
    flat.q = own_q;
    const auto expected = flat.expected<plain<bf16>>();
    generator g(43);
    for (std::int64_t cut = 0; cut < cuts; ++cut) {
      if (q_len == 20 && cut % 7 != 0) continue;  // enough of the long ones
      std::vector<bi::kv_run> view = {run(0, cut), run(second + cut, second + tokens)};
      if (cut % 3 == 1) {  // and pieces of a few tokens
        view = {run(0, cut)};
        for (std::int64_t done = cut, end = 0; done < tokens; done = end) {
          end = std::min(tokens, done + g.between(0, 60));
          view.push_back(g.chance(50) ? run(done, end) : run(second + done, second + end));
        }
      }
      b.add(view, q_len);
      b.q.insert(b.q.end(), own_q.begin(), own_q.end());
    }
    attention_result<bf16> all;
    for (std::int64_t i = 0; i < b.requests(); ++i) {
      all.out.insert(all.out.end(), expected.out.begin(), expected.out.end());
      all.lse.insert(all.lse.end(), expected.lse.begin(), expected.lse.end());
    }
    INFO("q_len " << q_len);
    gpu_backend gpu;
    each_way_gives<128, plain<bf16>>(gpu, b.args(gpu), all);
    gpu.clear();
    // Control: the two runs the other way round are another view.
    flat.runs = {run(300, tokens), run(0, 300)};
    flat.start = {0, 2};
    flat.mask = bi::attention_mask::full;
    batch<bf16> in_order = flat;
    in_order.runs = {run(0, 300), run(300, tokens)};
    const auto moved = flat.args(gpu), kept = in_order.args(gpu);
    test::require_ok(bi::attention<bf16, 128>::launch(moved, {}, gpu.stream()));
    test::require_ok(bi::attention<bf16, 128>::launch(kept, {}, gpu.stream()));
    CHECK(test::difference(gpu.read(moved.out), gpu.read(kept.out)) != "");
    gpu.clear();
  }
}

TEST_CASE("attention invariance: neighbours", "[gpu][attention][invariance]") {
  // The needle's tokens are pages 0..43, those of the others follow; 20 of its first pages are shared by some.
  constexpr std::int64_t page_size = 16, own_pages = 44, own = 700, most = 4096 + 16;
  constexpr std::int64_t pool_pages = own_pages + most / page_size;
  std::vector<std::int32_t> needle, others;
  for (std::int64_t i = 0; i < pool_pages; ++i) (i < own_pages ? needle : others).push_back(narrow(i));
  auto sharing = others;
  std::copy_n(needle.begin(), 20, sharing.begin());
  batch<bf16> of;
  of.heads_q = 4, of.heads_kv = 1;
  of.page_size = page_size;
  of.fill(pool_pages * page_size, 51);
  struct neighbour {
    std::int64_t len, q_len;
    bool shares;
  };
  const std::vector<neighbour> neighbourhoods[] = {
      {{1, 1, false}, {0, 1, false}, {most, 1, false}, {350, 1, true}, {5, 1, false}},
      {{most, 16, false}, {0, 0, false}, {40, 16, true}, {700, 1, true}},
      {{64, 64, false}, {most, 64, false}, {1, 1, false}},
      {{4096, 4096, false}, {600, 1, true}},
  };
  gpu_backend gpu;
  for (const std::int64_t q_len : {1, 4, 16, 60}) {
    const auto own_q = test::random_vector<bf16>(q_len * of.row_width(), values::normal, 52);
    batch<bf16> alone = of;
    alone.add_pages(needle, own, q_len);
    alone.q = own_q;
    alone.max_view = most;
    const auto expected = alone.expected<plain<bf16>>();
    check_needle<128>(gpu, alone, 0, expected);
    for (const auto& all : neighbourhoods) {
      const auto count = static_cast<std::int64_t>(all.size());
      for (const bool poisoned : {false, true}) {
        for (const std::int64_t place : {std::int64_t{0}, count / 2, count}) {
          batch<bf16> b = of;
          if (poisoned) {  // what isn't the needle's is NaN, queries too
            std::fill(b.k.begin() + own_pages * page_size * b.token_width(), b.k.end(), bf16{0x7fff});
            std::fill(b.v.begin() + own_pages * page_size * b.token_width(), b.v.end(), bf16{0x7fff});
          }
          for (std::int64_t i = 0; i <= count; ++i) {
            if (i == place) {
              b.add_pages(needle, own, q_len);
              b.q.insert(b.q.end(), own_q.begin(), own_q.end());
            }
            if (i == count) break;
            const neighbour& n = all[at(i)];
            b.add_pages(n.shares ? sharing : others, n.len, n.q_len);
            const auto q = test::random_vector<bf16>(n.q_len * b.row_width(), values::normal, 60);
            for (const bf16 x : q) b.q.push_back(poisoned ? bf16{0x7fff} : x);
          }
          INFO("q_len " << q_len << ", place " << place << " of " << count << (poisoned ? ", poisoned" : ""));
          check_needle<128>(gpu, b, place, expected);
        }
      }
    }
  }
}

TEST_CASE("attention invariance: slots that nobody sees", "[gpu][attention][invariance]") {
  // The rest of the last page, and a page id that is never used.
  gpu_backend gpu;
  for (const std::int64_t q_len : {1, 4, 33}) {
    attention_result<bf16> first;
    for (const std::uint16_t dead : std::initializer_list<std::uint16_t>{0x0000, 0x7fff, 0x7f80, 0xff80}) {
      batch<bf16> b;
      b.fill(640, 61);
      for (const std::int64_t n : {300, 257, 33, 583}) b.add_pages(shuffled(40, 62), n, std::min(q_len, n));
      b.q = test::random_vector<bf16>(b.rows() * b.row_width(), values::normal, 63);
      std::vector<bool> seen(at(640));
      for (std::int64_t i = 0; i < b.requests(); ++i) {
        for (std::int64_t j = 0; j < b.len[at(i)]; ++j) {
          seen[at(b.pages[at(b.start[at(i)] + j / 16)] * 16 + j % 16)] = true;
        }
      }
      std::int64_t filled = 0;
      for (std::int64_t s = 0; s < 640; ++s) {
        if (seen[at(s)]) continue;
        ++filled;
        std::fill_n(b.k.begin() + s * b.token_width(), b.token_width(), bf16{dead});
        std::fill_n(b.v.begin() + s * b.token_width(), b.token_width(), bf16{dead});
      }
      REQUIRE(filled == 640 - 583);
      if (first.out.empty()) first = b.expected<plain<bf16>>();
      INFO("q_len " << q_len << ", dead slots hold " << dead);
      each_way_gives<128, plain<bf16>>(gpu, b.args(gpu), first);
      gpu.clear();
    }
  }
}

TEST_CASE("attention invariance: a bad V of a later token", "[gpu][attention][invariance]") {
  gpu_backend gpu;
  const std::uint16_t bad[] = {0x7f80, 0xff80, 0x7fc1};
  for (const std::int64_t q_len : {4, 16, 100}) {
    constexpr std::int64_t tokens = leaf + 60;
    batch<bf16> clean;
    clean.heads_q = 4, clean.heads_kv = 1;
    clean.fill(tokens, 71);
    clean.add_pages(shuffled(20, 72), tokens, q_len);
    clean.q = test::random_vector<bf16>(clean.rows() * clean.row_width(), values::normal, 73);
    const auto undisturbed = clean.expected<plain<bf16>>();
    int which = 0;
    for (const std::int64_t back : {std::int64_t{1}, std::int64_t{2}, q_len / 2, q_len - 1, q_len}) {
      const std::int64_t j = tokens - back, earlier = std::max<std::int64_t>(0, q_len - back);  // rows before token j
      batch<bf16> b = clean;
      const std::int64_t slot = b.pages[at(j / 16)] * 16 + j % 16;
      b.v[at(slot * b.token_width() + which * 37 % 128)] = bf16{bad[which % 3]};
      ++which;
      INFO("q_len " << q_len << ", token " << j);
      const auto expected = b.expected<plain<bf16>>();
      each_way_gives<128, plain<bf16>>(gpu, b.args(gpu), expected);
      CHECK(test::difference(expected.out.data(), undisturbed.out.data(), earlier * b.row_width()) == "");
      for (std::int64_t row = earlier; row < q_len; ++row) {  // control: those that see it change
        const std::int64_t first = row * b.row_width();
        CHECK(test::difference(expected.out.data() + first, undisturbed.out.data() + first, b.row_width()) != "");
      }
      gpu.clear();
    }
  }
}

TEST_CASE("attention invariance: splits by count, restarts at a run and masks in the middle would show",
          "[gpu][attention][invariance]") {
  // Tokens with a score of -Inf and V = 0 take part in nothing but the places of those after them. With them between,
  // the same tokens fall on the tiles and leaves that a kernel would use which split by count, began a leaf with each
  // run, or masked a tree's other branches instead of leaving them out.
  constexpr std::int64_t tokens = leaf + 244, masked = leaf;
  const auto run = [](std::int64_t first, std::int64_t end) { return bi::kv_run{narrow(first), narrow(end - first)}; };
  const auto holes = [&](std::int64_t n) { return run(tokens, tokens + n); };
  const std::vector<bi::kv_run> views[] = {
      {run(0, tokens)},
      {run(0, 130), run(130, 131), run(131, tokens)},          // a run's end alone
      {run(0, leaf - 12), holes(12), run(leaf - 12, tokens)},  // by count
      {run(0, 100), holes(leaf - 100), run(100, tokens)},      // a leaf for each run
      {run(0, 130), holes(40), run(130, tokens)},              // masked in the middle
  };
  gpu_backend gpu;
  for (const std::int64_t q_len : {1, 16}) {  // of one token each: a causal row would see fewer
    std::vector<attention_result<bf16>> results;
    batch<bf16> of;
    of.heads_q = 8, of.heads_kv = 2;
    of.fill(tokens + masked, 81);
    test::pair_tokens(of.k, of.v, of.token_width(), 0, tokens);
    of.mask = bi::attention_mask::full;
    of.q = test::random_vector<bf16>(q_len * of.row_width(), values::normal, 82);
    for (std::int64_t i = 0; i < q_len * of.heads_q; ++i) of.q[at(i * 128)] = bf16{0x3f80};
    for (std::int64_t s = 0; s < tokens + masked; ++s) {
      for (std::int64_t h = 0; h < of.heads_kv; ++h) {
        const std::int64_t i = s * of.token_width() + h * 128;
        of.k[at(i)] = s < tokens ? bf16{0} : bf16{0xff80};
        if (s >= tokens) std::fill_n(of.v.begin() + i, 128, bf16{0});
      }
    }
    for (const auto& view : views) {
      batch<bf16> b = of;
      b.add(view, q_len);
      results.push_back(b.expected<plain<bf16>>());
      each_way_gives<128, plain<bf16>>(gpu, b.args(gpu), results.back());
      gpu.clear();
    }
    INFO("q_len " << q_len);
    CHECK(test::difference(results[1].out, results[0].out) == "");
    CHECK(test::difference(results[1].lse, results[0].lse) == "");
    for (std::size_t i = 2; i < results.size(); ++i) {
      std::int64_t differing = 0;
      const std::int64_t rows = q_len * of.heads_q;
      for (std::int64_t r = 0; r < rows; ++r) {
        differing += test::difference(results[i].out.data() + r * 128, results[0].out.data() + r * 128, 128) != "";
      }
      INFO("view " << i << ": " << differing << " of " << rows << " rows differ");
      CHECK(differing > rows / 2);
    }
  }
}

TEST_CASE("attention invariance: replays with a workspace, from decode to chunks", "[gpu][attention][invariance]") {
  // The graph is captured once for its limits; lengths, rows, pages and queries change on the device.
  constexpr std::int64_t requests = 5, pool_pages = 120, tokens = 1500;
  for (const std::int64_t max_q_len : {1, 8, 300}) {
    generator g(91);
    batch<bf16> of;
    of.heads_q = 8;
    of.fill(pool_pages * 16, 92);
    const std::int64_t rows = std::min<std::int64_t>(requests * max_q_len, 512);
    gpu_backend gpu;
    bi::attention_args<bf16> a;
    bf16* q = gpu.output<bf16>(rows * of.row_width());
    auto* len = gpu.output<std::int32_t>(requests);
    auto* q_start = gpu.output<std::int32_t>(requests + 1);
    auto* start = gpu.output<std::int32_t>(requests + 1);
    auto* pages = gpu.output<std::int32_t>(requests * pool_pages);
    a.q = q, a.len = len, a.q_start = q_start;
    a.cache.k = gpu.input(of.k), a.cache.v = gpu.input(of.v);
    a.cache.num_pages = pool_pages, a.cache.heads = of.heads_kv, a.cache.head_dim = 128;
    a.view = bi::page_csr{pages, start};
    a.requests = requests, a.rows = rows;
    a.scale = bi::rsqrt_rn(bi::float_from_int64(128));
    a.limits = {requests, rows, max_q_len, tokens, of.heads_q, of.heads_kv, 128};
    a.out = gpu.output<bf16>(rows * of.row_width());
    a.lse = gpu.output<float>(rows * of.heads_q);
    bi::workspace ws;
    ws.bytes = bi::attention<bf16, 128>::workspace_bytes(a.limits);
    ws.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal));
    const bi::status st = bi::attention<bf16, 128>::launch(a, ws, gpu.stream());
    BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
    INFO(bi::describe(st));
    REQUIRE(st);
    BI_REQUIRE_CUDA(cudaGraphInstantiateWithFlags(&replay, graph, 0));
    for (std::uint64_t i = 0; i < 12; ++i) {
      batch<bf16> b = of;
      std::int64_t left = rows;
      for (std::int64_t r = 0; r < requests; ++r) {
        const std::int64_t n = g.chance(20) ? 0 : g.chance(50) ? g.between(1, 300) : g.between(1, tokens);
        const std::int64_t q_len = std::min({left, g.between(0, max_q_len), std::max<std::int64_t>(n, 1)});
        left -= q_len;
        b.add_pages(shuffled(pool_pages, 100 * i + static_cast<std::uint64_t>(r)), n, q_len);
      }
      b.q = test::random_vector<bf16>(b.rows() * b.row_width(), values::normal, 93 + i);
      gpu.poison(q, rows * of.row_width());
      gpu.poison(a.out, rows * of.row_width());
      gpu.poison(a.lse, rows * of.heads_q);
      gpu.poison(pages, requests * pool_pages);
      gpu.write(q, b.q);
      gpu.write(len, b.len);
      gpu.write(q_start, b.q_start);
      gpu.write(start, b.start);
      gpu.write(pages, b.pages);
      BI_REQUIRE_CUDA(cudaGraphLaunch(replay, gpu.stream()));
      const auto expected = b.expected<plain<bf16>>();
      auto out = test::poisoned<bf16>(rows * of.row_width());
      auto lse = test::poisoned<float>(rows * of.heads_q);
      std::copy(expected.out.begin(), expected.out.end(), out.begin());
      std::copy(expected.lse.begin(), expected.lse.end(), lse.begin());
      INFO("max_q_len " << max_q_len << ", replay " << i);
      REQUIRE(test::difference(gpu.read(a.out), out) == "");
      REQUIRE(test::difference(gpu.read(a.lse), lse) == "");
    }
    BI_REQUIRE_CUDA(cudaGraphExecDestroy(replay));
    BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
    gpu.clear();
  }
}
