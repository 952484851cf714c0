// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "bi/attention.hpp"
#include "bi/schedule/attention_shared.hpp"
#include "golden/cases_attention.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "gpu/support/late_copy.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/manifest.hpp"

// Requests that share leading tokens: bytes with groups, without, of every grid, and of the reference.

// The launcher that takes a schedule, instantiated in tests/gpu/instantiate_attention.cu.
BI_NAMESPACE_BEGIN
namespace launch_detail {
template <class Contract, int HeadDim, class T>
status launch_attention_shared(const attention_args<T>&, const schedule::attention_shared_schedule&, workspace,
                               cuda_stream);
}
BI_NAMESPACE_END

using bi::bf16;
using bi::fp16;
using test::all_storages;
using test::generator;
using test::gpu_backend;
using test::host_backend;
using test::values;
using test::view_storage;

namespace {

using cap = bi::contract::attention_soft_cap_v1<bf16>;
template <class T>
using plain = bi::contract::attention_v1<T>;

constexpr std::int32_t leaf = bi::contract::attention_order::leaf;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
std::int32_t narrow(std::int64_t i) { return static_cast<std::int32_t>(i); }

struct shared_case {
  std::vector<std::int32_t> len, q_len;
  std::vector<std::vector<std::int32_t>> groups;
  std::vector<std::int32_t> shared;  // tokens, of each group
  std::int64_t heads_q = 8, heads_kv = 2, head_dim = 128, page_size = 16;
  view_storage storage = view_storage::table;
  values kind = values::normal;
  bi::attention_mask mask = bi::attention_mask::causal;
  std::int64_t window = 0;
  float soft_cap = 0;
  std::int64_t gap = 0;            // elements between heads
  std::vector<std::int32_t> says;  // what the call says is shared, if that is something else

  // n requests of one group.
  void one_group(std::int32_t n, std::int32_t tokens, std::int32_t own, std::int32_t rows) {
    std::vector<std::int32_t> members(at(n));
    std::iota(members.begin(), members.end(), 0);
    groups = {members};
    shared = {tokens};
    for (std::int32_t i = 0; i < n; ++i) {
      len.push_back(tokens + own + i % 3);
      q_len.push_back(rows);
    }
  }
};

std::string to_string(const shared_case& c) {
  std::string s;
  for (std::size_t i = 0; i < c.len.size(); ++i) {
    s += (i == 0 ? "" : "+") + std::to_string(c.q_len[i]) + "of" + std::to_string(c.len[i]);
  }
  for (std::size_t g = 0; g < c.groups.size(); ++g) {
    s += ",shared=" + std::to_string(c.shared[g]) + ":";
    for (const std::int32_t m : c.groups[g]) s += " " + std::to_string(m);
  }
  s += ",heads=" + std::to_string(c.heads_q) + "/" + std::to_string(c.heads_kv) + "x" + std::to_string(c.head_dim);
  s += ",page=" + std::to_string(c.page_size) + ",storage=" + std::to_string(static_cast<int>(c.storage));
  s += ",values=" + std::to_string(static_cast<int>(c.kind)) + ",window=" + std::to_string(c.window);
  if (c.mask == bi::attention_mask::full) s += ",full";
  return s;
}

template <class T>
struct shared_data {
  std::vector<T> q, k, v;
  std::vector<std::int32_t> pages, start, q_start, group_start, member, shared;
  std::vector<bi::kv_run> runs;
  std::int64_t num_pages = 0, row_stride = 0, rows = 0;
};

// A group's members have its pages first, in full; pages lie in random order, tokens that no view has hold NaN.
template <class T>
shared_data<T> make_data(const shared_case& c, std::uint64_t seed) {
  shared_data<T> d;
  generator g(seed);
  const auto pages_of = [&](std::int64_t tokens) { return (tokens + c.page_size - 1) / c.page_size; };
  std::int64_t most = 2;
  for (const std::int32_t n : c.len) most += pages_of(n), d.row_stride = std::max(d.row_stride, pages_of(n));
  for (const std::int32_t n : c.shared) most += pages_of(n);
  d.num_pages = most;
  std::vector<std::int32_t> order(at(most));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i-- > 1;)
    std::swap(order[i], order[at(g.below(static_cast<std::int64_t>(i) + 1))]);
  std::size_t next = 0;
  std::vector<std::vector<std::int32_t>> prefix;
  std::vector<std::int32_t> group_of(c.len.size(), -1);
  d.group_start.push_back(0);
  for (std::size_t i = 0; i < c.groups.size(); ++i) {
    prefix.emplace_back();
    for (std::int64_t p = pages_of(c.shared[i]); p > 0; --p) prefix.back().push_back(order[next++]);
    for (const std::int32_t m : c.groups[i]) group_of[at(m)] = narrow(static_cast<std::int64_t>(i));
    d.member.insert(d.member.end(), c.groups[i].begin(), c.groups[i].end());
    d.group_start.push_back(narrow(static_cast<std::int64_t>(d.member.size())));
  }
  d.shared = c.says.empty() ? c.shared : c.says;

  const std::int64_t token = c.heads_kv * c.head_dim;
  d.k = test::random_vector<T>(d.num_pages * c.page_size * token, c.kind, seed + 1);
  d.v = test::random_vector<T>(d.num_pages * c.page_size * token, c.kind, seed + 2);
  std::vector<bool> seen(at(d.num_pages * c.page_size));
  d.start.push_back(0);
  d.q_start.push_back(0);
  for (std::size_t r = 0; r < c.len.size(); ++r) {
    if (c.storage == view_storage::table) d.pages.resize(r * at(d.row_stride), -1);
    const std::int64_t n = c.len[r];
    for (std::int64_t p = 0; p < pages_of(n); ++p) {
      const bool is_shared = group_of[r] >= 0 && at(p) < prefix[at(group_of[r])].size();
      const std::int32_t page = is_shared ? prefix[at(group_of[r])][at(p)] : order[next++];
      d.pages.push_back(page);
      const std::int64_t here = std::min(c.page_size, n - p * c.page_size);
      const std::int64_t cut = g.below(here + 1), slot = page * c.page_size;
      d.runs.push_back({narrow(slot), narrow(cut)});
      d.runs.push_back({narrow(slot + cut), narrow(here - cut)});
      std::fill(seen.begin() + slot, seen.begin() + slot + here, true);
    }
    d.start.push_back(
        narrow(static_cast<std::int64_t>(c.storage == view_storage::runs ? d.runs.size() : d.pages.size())));
    d.rows += c.q_len[r];
    d.q_start.push_back(narrow(d.rows));
  }
  if (c.storage == view_storage::table) d.pages.resize(c.len.size() * at(d.row_stride), -1);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (seen[i]) continue;
    const auto first = static_cast<std::int64_t>(i) * token;
    std::fill(d.k.begin() + first, d.k.begin() + first + token, test::from_bits<T>(0x7fffu));
    std::fill(d.v.begin() + first, d.v.begin() + first + token, test::from_bits<T>(0x7fffu));
  }
  d.q = test::random_vector<T>(d.rows * c.heads_q * c.head_dim, c.kind, seed + 3);
  return d;
}

template <class T, class Backend>
bi::attention_args<T> make_args(Backend& b, const shared_case& c, const shared_data<T>& d) {
  bi::attention_args<T> a;
  const std::int64_t stride = c.head_dim + c.gap;
  test::attention_case spread;
  spread.head_dim = c.head_dim, spread.gap = c.gap;
  a.q = b.input(d.q);
  a.cache.k = b.input(test::spread_heads(spread, d.k));
  a.cache.v = b.input(test::spread_heads(spread, d.v));
  a.cache.k_head_stride = stride;
  a.cache.num_pages = d.num_pages, a.cache.page_size = c.page_size;
  a.cache.heads = c.heads_kv, a.cache.head_dim = c.head_dim;
  const auto* const start = b.input(d.start);
  if (c.storage == view_storage::table) {
    a.view = bi::page_table{b.input(d.pages), d.row_stride};
  } else if (c.storage == view_storage::csr) {
    a.view = bi::page_csr{b.input(d.pages), start};
  } else {
    a.view = bi::run_list{b.input(d.runs), start};
  }
  a.len = b.input(c.len);
  a.q_start = b.input(d.q_start);
  a.requests = static_cast<std::int64_t>(c.len.size());
  a.rows = d.rows;
  a.mask = c.mask, a.window = c.window, a.soft_cap = c.soft_cap;
  a.scale = bi::rsqrt_rn(bi::float_from_int64(c.head_dim));
  a.limits = {a.requests, a.rows, 1, 0, c.heads_q, c.heads_kv, c.head_dim};
  for (const std::int32_t n : c.q_len) a.limits.max_q_len = std::max<std::int64_t>(a.limits.max_q_len, n);
  for (const std::int32_t n : c.len) {
    a.limits.max_view = std::max<std::int64_t>(a.limits.max_view, n);
    a.limits.max_view_sum += n;
  }
  a.limits.max_groups = static_cast<std::int64_t>(c.groups.size()) + 1;
  a.sharing = {b.input(d.group_start), b.input(d.member), b.input(d.shared), a.limits.max_groups - 1};
  a.lse = b.template output<float>(a.rows * c.heads_q);
  a.out = b.template output<T>(a.rows * c.heads_q * c.head_dim);
  return a;
}

template <class T>
using result = test::attention_result<T>;

template <class T>
void require_equal(const result<T>& got, const result<T>& expected) {
  REQUIRE(test::difference(got.out, expected.out) == "");
  REQUIRE(test::difference(got.lse, expected.lse) == "");
}

// One launch over poisoned memory.
template <class T, int HeadDim, class Contract>
class runner {
  using attention = bi::attention<T, HeadDim, Contract>;

 public:
  runner(gpu_backend& gpu, const bi::attention_args<T>& a) : gpu_(gpu), a_(a) {
    ws_.bytes = attention::workspace_bytes(a.limits);
    ws_.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws_.bytes));
  }
  result<T> launched() {
    return run([&] { return attention::launch(a_, ws_, gpu_.stream()); });
  }
  result<T> alone() {
    bi::attention_args<T> without = a_;
    without.sharing = {};
    return run([&] { return attention::launch(without, ws_, gpu_.stream()); });
  }
  result<T> forced(const bi::schedule::attention_shared_schedule& s) {
    return run(
        [&] { return bi::launch_detail::launch_attention_shared<Contract, HeadDim>(a_, s, ws_, gpu_.stream()); });
  }

 private:
  template <class Launch>
  result<T> run(Launch launch) {
    gpu_.poison(a_.out, a_.rows * a_.limits.heads_q * HeadDim);
    gpu_.poison(a_.lse, a_.rows * a_.limits.heads_q);
    gpu_.poison(static_cast<unsigned char*>(ws_.data), static_cast<std::int64_t>(ws_.bytes));
    test::require_ok(launch());
    return {gpu_.read(a_.out), gpu_.read(a_.lse)};
  }

  gpu_backend& gpu_;
  const bi::attention_args<T>& a_;
  bi::workspace ws_;
};

template <class T, int HeadDim, class Contract = plain<T>>
void compare(shared_case c, std::uint64_t seed) {
  c.head_dim = HeadDim;
  if (Contract::has_soft_cap) c.soft_cap = 20.0f;
  INFO(to_string(c) << ", seed " << seed);
  const auto d = make_data<T>(c, seed);
  host_backend host;
  const auto on_host = make_args<T>(host, c, d);
  host.run(test::attention_op<T, HeadDim, Contract>{}, on_host);
  const result<T> expected = {host.read(on_host.out), host.read(on_host.lse)};
  gpu_backend gpu;
  const auto a = make_args<T>(gpu, c, d);
  runner<T, HeadDim, Contract> run(gpu, a);
  require_equal(run.launched(), expected);
  require_equal(run.alone(), expected);
  for (const auto& s : test::attention_shared_schedules()) {
    INFO(to_string(s));
    require_equal(run.forced(s), expected);
  }
  gpu.clear();
}

shared_case random_case(generator& g) {
  shared_case c;
  const auto pick = [&](std::initializer_list<std::int64_t> of) {
    return of.begin()[g.below(static_cast<std::int64_t>(of.size()))];
  };
  const auto requests = narrow(g.between(2, 14));
  std::vector<std::int32_t> ids(at(requests));
  std::iota(ids.begin(), ids.end(), 0);
  for (std::size_t i = ids.size(); i-- > 1;) std::swap(ids[i], ids[at(g.below(static_cast<std::int64_t>(i) + 1))]);
  c.len.resize(ids.size());
  const std::int64_t most_rows = pick({1, 1, 2, 4});
  for (std::size_t i = 0; i < ids.size(); ++i) {
    c.len[i] = narrow(g.chance(10) ? 0 : g.between(1, 3 * leaf));
    c.q_len.push_back(narrow(g.chance(10) ? 0 : g.between(1, most_rows)));
  }
  std::size_t next = 0;
  for (std::int64_t n = g.between(1, 3); n > 0; --n) {
    const std::int64_t tokens = g.chance(50)
                                    ? pick({0, 1, leaf - 1, leaf, leaf + 1, 2 * leaf - 1, 2 * leaf, 2 * leaf + 1})
                                    : g.between(0, 4 * leaf);
    c.groups.emplace_back();
    c.shared.push_back(narrow(tokens));
    for (std::int64_t m = g.between(0, 7); m > 0 && next < ids.size(); --m) {
      const std::int32_t id = ids[next++];
      c.groups.back().push_back(id);
      if (c.len[at(id)] > 0) c.len[at(id)] = narrow(tokens + (g.chance(20) ? 0 : g.between(0, 400)));
    }
  }
  c.heads_kv = g.between(1, 3);
  c.heads_q = c.heads_kv * pick({1, 3, 4, 8, 16});
  c.page_size = pick({1, 7, 8, 16, 24, 32, 64, 128});
  c.storage = all_storages[g.below(3)];
  c.kind = test::all_values[g.below(6)];
  c.mask = g.chance(25) ? bi::attention_mask::full : bi::attention_mask::causal;
  c.window = g.chance(70) ? 0 : pick({1, 100, 600, 3000});
  c.gap = g.chance(80) ? 0 : 8;
  return c;
}

template <class T, int HeadDim, class Contract = plain<T>>
void compare_random_cases(int count, std::uint64_t seed) {
  generator g(seed);
  for (int i = 0; i < count; ++i) compare<T, HeadDim, Contract>(random_case(g), seed + static_cast<std::uint64_t>(i));
}

}  // namespace

TEST_CASE("attention sharing: any number of members and shared tokens", "[gpu][attention][shared]") {
  for (const std::int32_t members : {1, 2, 3, 8, 33}) {
    for (const std::int32_t tokens : {0, 100, leaf - 1, leaf, leaf + 1, 2 * leaf - 1, 2 * leaf, 2 * leaf + 1}) {
      if (members == 33 && tokens < 2 * leaf) continue;
      for (const std::int32_t own : {0, 1, 130}) {
        shared_case c;
        c.one_group(members, tokens, own, 1);
        compare<bf16, 128>(c, 8000);
      }
    }
  }
}

TEST_CASE("attention sharing: rows, heads and tiles of rows", "[gpu][attention][shared]") {
  for (const std::int32_t rows : {1, 2, 3, 4}) {
    for (const std::int64_t group : {1, 4, 6, 16}) {
      shared_case c;
      c.one_group(5, 2 * leaf + 3, 20, rows);
      c.heads_q = c.heads_kv * group;
      c.q_len[3] = rows - 1;
      compare<bf16, 128>(c, 8100);
    }
  }
  for (const std::int32_t members : {16, 32, 40, 65}) {  // 64 to 260 rows
    shared_case c;
    c.one_group(members, 5 * leaf, 40, 1);
    compare<bf16, 128>(c, 8200);
  }
}

TEST_CASE("attention sharing: several groups, padding, and requests of none", "[gpu][attention][shared]") {
  for (const view_storage storage : all_storages) {
    for (const std::int64_t page_size : {1, 8, 16, 24, 64}) {
      shared_case c;
      c.len = {1200, 0, 700, 3, 530, 1030, 0, 2000, 640, 515, 1024, 12};
      c.q_len = {1, 1, 2, 1, 3, 1, 0, 1, 4, 1, 2, 2};
      c.groups = {{7, 0, 1, 10}, {}, {4, 8, 6}, {2}, {5, 9}};
      c.shared = {1024, 5, 530, 300, 513};
      c.storage = storage;
      c.page_size = page_size;
      compare<bf16, 128>(c, 8300);
      c.kind = values::hostile;
      compare<bf16, 64>(c, 8301);
    }
  }
}

TEST_CASE("attention sharing: GPU bytes equal the reference's", "[gpu][attention][shared]") {
  SECTION("bf16, 64") { compare_random_cases<bf16, 64>(30, 8400); }
  SECTION("bf16, 128") { compare_random_cases<bf16, 128>(50, 8500); }
  SECTION("fp16, 128") { compare_random_cases<fp16, 128>(20, 8600); }
  SECTION("bf16, 128, soft cap") { compare_random_cases<bf16, 128, cap>(20, 8700); }
}

TEST_CASE("attention sharing: more requests than a block has threads", "[gpu][attention][shared]") {
  shared_case c;
  generator g(8);
  for (std::int32_t r = 0; r < 700; ++r) {
    if (r % 5 == 0) {
      c.groups.emplace_back();
      c.shared.push_back(r % 2 == 0 ? leaf + r % 7 : 10);
    }
    if (r % 5 != 4) c.groups.back().push_back(r);
    c.len.push_back(r % 31 == 0 ? 0 : narrow(c.shared.back() + g.below(300)));
    c.q_len.push_back(1);
  }
  c.heads_q = c.heads_kv = 1;
  compare<bf16, 64>(c, 8800);
}

// A call that says that views are the same which are not shows whose tokens were read.
TEST_CASE("attention sharing: shared leaves are read once", "[gpu][attention][shared]") {
  shared_case c;
  c.one_group(4, 3 * leaf, 90, 1);
  c.groups = {{0, 1}, {2, 3}};
  c.shared = {3 * leaf, 3 * leaf};
  const auto d = make_data<bf16>(c, 8900);
  gpu_backend gpu;
  auto a = make_args<bf16>(gpu, c, d);
  runner<bf16, 128, plain<bf16>> run(gpu, a);
  const auto expected = run.launched();
  require_equal(run.alone(), expected);
  // Requests 2 and 3 with the leading leaf of 0 and 1.
  auto mixed = d;
  for (const std::int64_t r : {2, 3}) {
    std::copy_n(d.pages.begin(), leaf / c.page_size, mixed.pages.begin() + r * d.row_stride);
  }
  auto b = make_args<bf16>(gpu, c, mixed);
  b.sharing = {};
  const auto other = runner<bf16, 128, plain<bf16>>(gpu, b).launched();
  a.sharing = {gpu.input(std::vector<std::int32_t>{0, 4}), gpu.input(std::vector<std::int32_t>{1, 2, 0, 3}),
               gpu.input(std::vector<std::int32_t>{leaf + 5}), 1};
  const auto got = run.launched();
  require_equal(got, other);
  CHECK(test::difference(got.out, expected.out) != "");
  // Less than a leaf is no leaf.
  a.sharing.shared = gpu.input(std::vector<std::int32_t>{leaf - 1});
  require_equal(run.launched(), expected);
  gpu.clear();
}

TEST_CASE("attention sharing: no member shares more than it sees", "[gpu][attention][shared]") {
  for (const std::int32_t rows : {1, 3}) {
    shared_case c;
    c.one_group(4, 3 * leaf, 0, rows);
    c.len[1] = 2 * leaf + 1;
    c.says = {0x7fffffff};
    const auto d = make_data<bf16>(c, 9000);
    gpu_backend gpu;
    const auto a = make_args<bf16>(gpu, c, d);
    runner<bf16, 128, plain<bf16>> run(gpu, a);
    const auto expected = run.alone();
    require_equal(run.launched(), expected);
    for (const auto& s : test::attention_shared_schedules()) require_equal(run.forced(s), expected);
    gpu.clear();
  }
}

TEST_CASE("attention sharing: arrays that break the rules make no kernel write elsewhere", "[gpu][attention][shared]") {
  shared_case c;
  c.one_group(6, 2 * leaf, 50, 2);
  c.groups = {{0, 1, 2}, {3, 4}, {5}};
  c.shared = {2 * leaf, 2 * leaf, 2 * leaf};
  const auto d = make_data<bf16>(c, 9100);
  gpu_backend gpu;
  auto a = make_args<bf16>(gpu, c, d);
  runner<bf16, 128, plain<bf16>> run(gpu, a);
  const auto expected = run.alone();
  const std::vector<std::int32_t> starts[] = {{0, 3, 5, 6}, {-7, 3, 0x7fffffff, 6}, {5, 4, 2, 0}, {0, 6, 0, 6}};
  const std::vector<std::int32_t> members[] = {
      {0, 1, 2, 3, 4, 5}, {0, 0, 0, 0, 1, 1}, {-1, 6, 0x7fffffff, -0x7fffffff - 1, 1, 2}, {5, 4, 3, 2, 1, 0}};
  const std::vector<std::int32_t> shared[] = {{2 * leaf, 0, -5}, {-0x7fffffff - 1, 0x7fffffff, leaf}};
  for (const auto& s : starts) {
    for (const auto& m : members) {
      for (const auto& n : shared) {
        a.sharing = {gpu.input(s), gpu.input(m), gpu.input(n), 3};
        (void)run.launched();  // guard zones are looked at
        (void)run.forced({1});
      }
    }
  }
  a.sharing = {};
  require_equal(run.launched(), expected);
  // More tokens than the limits say.
  a = make_args<bf16>(gpu, c, d);
  a.limits.max_view = leaf + 1, a.limits.max_view_sum = leaf;
  runner<bf16, 128, plain<bf16>> small(gpu, a);
  (void)small.forced({1});
  (void)small.forced({132});
  gpu.clear();
}

TEST_CASE("attention sharing: where there is no kernel for it, it is ignored", "[gpu][attention][shared]") {
  shared_case c;
  c.one_group(3, 2 * leaf, 50, 2);
  const auto check = [&](const auto& run, auto head_dim) {
    using T = bf16;
    c.head_dim = head_dim();
    const auto d = make_data<T>(c, 9200);
    host_backend host;
    const auto on_host = make_args<T>(host, c, d);
    host.run(test::attention_op<T, head_dim()>{}, on_host);
    const result<T> expected = {host.read(on_host.out), host.read(on_host.lse)};
    gpu_backend gpu;
    const auto a = make_args<T>(gpu, c, d);
    run(gpu, a);
    require_equal<T>({gpu.read(a.out), gpu.read(a.lse)}, expected);
    gpu.clear();
  };
  const std::integral_constant<int, 128> usual{};
  const auto launch = [](gpu_backend& gpu, const bi::attention_args<bf16>& a) {
    runner<bf16, 128, plain<bf16>>(gpu, a).launched();
  };
  check(
      [](gpu_backend& gpu, const auto& a) { test::require_ok(bi::attention<bf16, 128>::launch(a, {}, gpu.stream())); },
      usual);
  c.gap = 1;  // heads are not aligned
  check(launch, usual);
  c.gap = 0;
  c.heads_q = 66 * c.heads_kv;  // 132 packed rows
  check(launch, usual);
  c.heads_q = 8;
  check([](gpu_backend& gpu, const auto& a) { runner<bf16, 256, plain<bf16>>(gpu, a).launched(); },
        std::integral_constant<int, 256>{});
  // Without groups the workspace is as before.
  bi::attention_limits l = {64, 64, 1, 4096, 32, 8, 128, 65536};
  const std::size_t before = bi::attention<bf16, 128>::workspace_bytes(l);
  l.max_groups = 1;
  CHECK(bi::attention<bf16, 128>::workspace_bytes(l) >= before);
  l.head_dim = 256;
  const std::size_t wide = bi::attention<bf16, 256>::workspace_bytes(l);
  l.max_groups = 0;
  CHECK(bi::attention<bf16, 256>::workspace_bytes(l) == wide);
}

// A graph that a program captured with the largest limits; everything that decides changes on the device, right before the
// kernel, by one that lets it begin early.
TEST_CASE("attention sharing: replays with changed lengths and groups", "[gpu][attention][shared]") {
  constexpr std::int64_t requests = 12, heads = 8, heads_kv = 2, dim = 128, most = 6;
  shared_case full;  // of which each replay has some
  full.one_group(requests, 4 * leaf, 300, 3);
  full.groups.resize(at(most));
  full.shared.resize(at(most), 0);
  const auto d = make_data<bf16>(full, 9300);
  gpu_backend gpu;
  host_backend host;
  auto a = make_args<bf16>(gpu, full, d);
  auto on_host = make_args<bf16>(host, full, d);
  auto* const len = gpu.output<std::int32_t>(requests);
  auto* const q_start = gpu.output<std::int32_t>(requests + 1);
  auto* const start = gpu.output<std::int32_t>(most + 1);
  auto* const member = gpu.output<std::int32_t>(requests);
  auto* const shared = gpu.output<std::int32_t>(most);
  a.len = len, a.q_start = q_start;
  a.sharing = {start, member, shared, most};
  bi::workspace ws;
  ws.bytes = bi::attention<bf16, dim>::workspace_bytes(a.limits);
  ws.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
  std::vector<std::pair<std::int32_t*, std::int64_t>> targets = {
      {len, requests}, {q_start, requests + 1}, {start, most + 1}, {member, requests}, {shared, most}};
  std::vector<std::int32_t*> sources;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  for (const auto& t : targets) sources.push_back(gpu.output<std::int32_t>(t.second));
  BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    test::require_ok(test::copy_late({targets[i].first, sources[i], targets[i].second, 5}, gpu.stream()));
  }
  const bi::status st = bi::attention<bf16, dim>::launch(a, ws, gpu.stream());
  BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
  test::require_ok(st);
  BI_REQUIRE_CUDA(cudaGraphInstantiateWithFlags(&replay, graph, 0));
  generator g(93);
  int shared_calls = 0;
  for (int i = 0; i < 25; ++i) {
    std::vector<std::int32_t> lens, starts = {0}, ids(at(requests)), group_start = {0}, members, tokens;
    std::iota(ids.begin(), ids.end(), 0);
    for (std::size_t k = ids.size(); k-- > 1;) std::swap(ids[k], ids[at(g.below(static_cast<std::int64_t>(k) + 1))]);
    for (std::int64_t r = 0; r < requests; ++r) {
      lens.push_back(g.chance(10) ? 0 : narrow(g.between(leaf, 4 * leaf + 300)));
      starts.push_back(starts.back() + narrow(g.between(0, 3)));
    }
    std::size_t next = 0;
    for (std::int64_t k = 0; k < most; ++k) {
      std::int32_t least = 4 * leaf;
      for (std::int64_t m = g.below(5); m > 0 && next < ids.size(); --m) {
        members.push_back(ids[next++]);
        if (lens[at(members.back())] > 0) least = std::min(least, lens[at(members.back())]);
      }
      group_start.push_back(narrow(static_cast<std::int64_t>(members.size())));
      tokens.push_back(g.chance(20) ? 0 : narrow(g.between(0, least)));
      shared_calls += tokens.back() >= leaf ? 1 : 0;
    }
    on_host.len = host.input(lens), on_host.q_start = host.input(starts);
    on_host.sharing = {host.input(group_start), host.input(members), host.input(tokens), most};
    host.run(test::attention_op<bf16, dim>{}, on_host);
    members.resize(at(requests), -1);
    const std::vector<std::int32_t>* const contents[] = {&lens, &starts, &group_start, &members, &tokens};
    for (std::size_t k = 0; k < sources.size(); ++k) gpu.write(sources[k], *contents[k]);
    gpu.poison(a.out, a.rows * heads * dim);
    gpu.poison(a.lse, a.rows * heads);
    BI_REQUIRE_CUDA(cudaGraphLaunch(replay, gpu.stream()));
    const auto out = gpu.read(a.out), expected = host.read(on_host.out);
    const auto lse = gpu.read(a.lse), expected_lse = host.read(on_host.lse);
    INFO("replay " << i);
    const std::int64_t rows = starts.back() * heads;
    REQUIRE(test::difference(out.data(), expected.data(), rows * dim) == "");
    REQUIRE(test::difference(lse.data(), expected_lse.data(), rows) == "");
  }
  CHECK(shared_calls > 20);
  CHECK(heads_kv == full.heads_kv);
  BI_REQUIRE_CUDA(cudaGraphExecDestroy(replay));
  BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
  gpu.clear();
}
