// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/attention.hpp"

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "bi/reference/attention.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace {

using bi::error;
using T = bi::bf16;
using args = bi::attention_args<T>;
using capped = bi::contract::attention_soft_cap_v1<T>;

// A call that is right in every way: requests of 2, 1 and 0 rows with 20, 5 and 0 tokens, 4/2 heads of 64, pages of 8.
struct call {
  static constexpr std::int64_t dim = 64, pages = 6;
  std::vector<T> q = test::random_vector<T>(3 * 4 * dim, test::values::normal, 1);
  std::vector<T> k = test::random_vector<T>(pages * 8 * 2 * dim, test::values::normal, 2);
  std::vector<T> v = test::random_vector<T>(pages * 8 * 2 * dim, test::values::normal, 3);
  std::vector<std::int32_t> table = {3, 0, 5, -1, 2, -1, -1, -1, -1, -1, -1, -1};
  std::vector<std::int32_t> csr_pages = {3, 0, 5, 2}, csr_start = {0, 3, 4, 4};
  std::vector<bi::kv_run> runs = {{24, 8}, {0, 8}, {40, 4}, {16, 5}};
  std::vector<std::int32_t> run_start = {0, 3, 4, 4};
  std::vector<std::int32_t> len = {20, 5, 0}, q_start = {0, 2, 3, 3};
  std::vector<std::int32_t> group_start = {0, 2, 3}, member = {2, 0, 1}, shared = {12, 5};
  std::vector<T> out = test::poisoned<T>(3 * 4 * dim);
  std::vector<float> lse = test::poisoned<float>(3 * 4);
  args a;

  call() {
    a.q = q.data();
    a.cache.k = k.data();
    a.cache.v = v.data();
    a.cache.num_pages = pages;
    a.cache.page_size = 8;
    a.cache.heads = 2;
    a.cache.head_dim = dim;
    a.view = bi::page_table{table.data(), 4};
    a.len = len.data();
    a.q_start = q_start.data();
    a.requests = 3;
    a.rows = 3;
    a.scale = 0.125f;
    a.limits = {4, 8, 2, 32, 4, 2, dim};
    a.limits.max_groups = 2;
    a.sharing = {group_start.data(), member.data(), shared.data(), 2};
    a.lse = lse.data();
    a.out = out.data();
  }
  call(const call&) = delete;
  call& operator=(const call&) = delete;

  bool untouched() const {
    return test::difference(out, test::poisoned<T>(3 * 4 * dim)).empty() &&
           test::difference(lse, test::poisoned<float>(3 * 4)).empty();
  }
};

struct expected_status {
  error code;
  const char* argument;
  std::int64_t value = 0;
  std::int64_t bound = 0;
  std::int64_t position = -1;
};

struct bad_input {
  std::function<void(call&)> change;
  expected_status expected;
};

// Compares and says which case it was; the sentence must exist and name the argument.
void require_status(const bi::status& got, const expected_status& e, std::size_t row) {
  INFO("row " << row << ": " << bi::describe(got));
  CHECK(got.code == e.code);
  CHECK(std::string(got.operation) == "attention");
  CHECK(std::string(got.argument != nullptr ? got.argument : "") == e.argument);
  CHECK(got.position == e.position);
  if (e.code != error::misaligned && e.code != error::not_valid) CHECK(got.value == e.value);
  if (e.code != error::misaligned) CHECK(got.bound == e.bound);
  CHECK(bi::describe(got).find(e.argument) != std::string::npos);
}

template <class U>
U* odd(U* p) {
  return reinterpret_cast<U*>(reinterpret_cast<std::uintptr_t>(p) + 1);
}

constexpr std::int64_t large = std::int64_t{1} << 31, huge = std::int64_t{1} << 60;
const float not_number = bi::nan_f32(), plus_inf = bi::inf_f32();

const std::vector<bad_input>& bad_arguments() {
  static const std::vector<bad_input> rows = {
      {[](call& c) { c.a.q = nullptr; }, {error::null_pointer, "q"}},
      {[](call& c) { c.a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](call& c) { c.a.len = nullptr; }, {error::null_pointer, "len"}},
      {[](call& c) { c.a.cache.k = nullptr; }, {error::null_pointer, "cache.k"}},
      {[](call& c) { c.a.cache.v = nullptr; }, {error::null_pointer, "cache.v"}},
      {[](call& c) {
         c.a.view = bi::page_table{nullptr, 4};
       },
       {error::null_pointer, "view.pages"}},
      {[](call& c) {
         c.a.view = bi::page_csr{nullptr, c.csr_start.data()};
       },
       {error::null_pointer, "view.pages"}},
      {[](call& c) {
         c.a.view = bi::page_csr{c.csr_pages.data(), nullptr};
       },
       {error::null_pointer, "view.start"}},
      {[](call& c) {
         c.a.view = bi::run_list{nullptr, c.run_start.data()};
       },
       {error::null_pointer, "view.runs"}},
      {[](call& c) {
         c.a.view = bi::run_list{c.runs.data(), nullptr};
       },
       {error::null_pointer, "view.start"}},
      {[](call& c) { c.a.view = bi::kv_view{}; }, {error::not_supported, "view", 0}},
      {[](call& c) { c.a.q = odd(c.a.q); }, {error::misaligned, "q"}},
      {[](call& c) { c.a.out = odd(c.a.out); }, {error::misaligned, "out"}},
      {[](call& c) { c.a.lse = odd(c.a.lse); }, {error::misaligned, "lse"}},
      {[](call& c) { c.a.len = odd(c.a.len); }, {error::misaligned, "len"}},
      {[](call& c) { c.a.q_start = odd(c.a.q_start); }, {error::misaligned, "q_start"}},
      {[](call& c) { c.a.cache.k = odd(c.a.cache.k); }, {error::misaligned, "cache.k"}},
      {[](call& c) {
         c.a.view = bi::page_table{odd(c.table.data()), 4};
       },
       {error::misaligned, "view.pages"}},
      {[](call& c) { c.a.requests = -1; }, {error::too_small, "requests", -1, 0}},
      {[](call& c) { c.a.requests = 5; }, {error::too_large, "requests", 5, 4}},
      {[](call& c) { c.a.rows = -1; }, {error::too_small, "rows", -1, 0}},
      {[](call& c) { c.a.rows = 9; }, {error::too_large, "rows", 9, 8}},
      {[](call& c) { c.a.q_start = nullptr, c.a.rows = 2; }, {error::too_small, "rows", 2, 3}},
      {[](call& c) { c.a.q_start = nullptr, c.a.rows = 4; }, {error::too_large, "rows", 4, 3}},
      {[](call& c) { c.a.limits.head_dim = 96; }, {error::not_supported, "limits.head_dim", 96}},
      {[](call& c) { c.a.limits.heads_kv = 0; }, {error::too_small, "limits.heads_kv", 0, 1}},
      {[](call& c) { c.a.limits.heads_q = 0; }, {error::too_small, "limits.heads_q", 0, 1}},
      {[](call& c) { c.a.limits.heads_q = 5; }, {error::not_multiple, "limits.heads_q", 5, 2}},
      {[](call& c) { c.a.limits.heads_q = large; }, {error::too_large, "limits.heads_q", large, large - 1}},
      {[](call& c) { c.a.limits.max_q_len = 0; }, {error::too_small, "limits.max_q_len", 0, 1}},
      {[](call& c) { c.a.limits.max_view = -1; }, {error::too_small, "limits.max_view", -1, 0}},
      {[](call& c) { c.a.limits.max_view = large; }, {error::too_large, "limits.max_view", large, large - 1}},
      {[](call& c) { c.a.limits.max_rows = large; }, {error::too_large, "limits.max_rows", large, large - 1}},
      {[](call& c) { c.a.limits.max_requests = -1; }, {error::too_small, "limits.max_requests", -1, 0}},
      {[](call& c) { c.a.limits.max_groups = -1, c.a.sharing.groups = 0; },
       {error::too_small, "limits.max_groups", -1, 0}},
      {[](call& c) { c.a.limits.max_groups = large; }, {error::too_large, "limits.max_groups", large, large - 1}},
      {[](call& c) { c.a.sharing.groups = -1; }, {error::too_small, "sharing.groups", -1, 0}},
      {[](call& c) { c.a.sharing.groups = 3; }, {error::too_large, "sharing.groups", 3, 2}},
      {[](call& c) { c.a.limits.max_groups = 0; }, {error::too_large, "sharing.groups", 2, 0}},
      {[](call& c) { c.a.sharing.start = nullptr; }, {error::null_pointer, "sharing.start"}},
      {[](call& c) { c.a.sharing.member = nullptr; }, {error::null_pointer, "sharing.member"}},
      {[](call& c) { c.a.sharing.shared = nullptr; }, {error::null_pointer, "sharing.shared"}},
      {[](call& c) { c.a.sharing.start = odd(c.a.sharing.start); }, {error::misaligned, "sharing.start"}},
      {[](call& c) { c.a.sharing.member = odd(c.a.sharing.member); }, {error::misaligned, "sharing.member"}},
      {[](call& c) { c.a.sharing.shared = odd(c.a.sharing.shared); }, {error::misaligned, "sharing.shared"}},
      {[](call& c) { c.a.lse = reinterpret_cast<float*>(c.group_start.data()); }, {error::overlap, "lse"}},
      {[](call& c) { c.a.lse = reinterpret_cast<float*>(c.member.data()); }, {error::overlap, "lse"}},
      {[](call& c) { c.a.out = reinterpret_cast<T*>(c.shared.data()); }, {error::overlap, "out"}},
      {[](call& c) { c.a.window = -1; }, {error::too_small, "window", -1, 0}},
      {[](call& c) { c.a.mask = static_cast<bi::attention_mask>(2); }, {error::not_supported, "mask", 2}},
      {[](call& c) { c.a.scale = 0.0f; }, {error::not_valid, "scale"}},
      {[](call& c) { c.a.scale = -1.0f; }, {error::not_valid, "scale"}},
      {[](call& c) { c.a.scale = not_number; }, {error::not_valid, "scale"}},
      {[](call& c) { c.a.scale = plus_inf; }, {error::not_valid, "scale"}},
      {[](call& c) { c.a.scale = 0x1.fffffep127f; }, {error::not_valid, "scale"}},
      {[](call& c) { c.a.soft_cap = 50.0f; }, {error::not_valid, "soft_cap"}},
      {[](call& c) { c.a.soft_cap = not_number; }, {error::not_valid, "soft_cap"}},
      {[](call& c) { c.a.sink = c.lse.data(); }, {error::not_supported, "sink", 1}},
      {[](call& c) { c.a.k_scale = c.lse.data(); }, {error::not_supported, "k_scale", 1}},
      {[](call& c) { c.a.v_scale = c.lse.data(); }, {error::not_supported, "v_scale", 1}},
      {[](call& c) { c.a.q_head_stride = 63; }, {error::too_small, "q_head_stride", 63, 64}},
      {[](call& c) { c.a.q_token_stride = 255; }, {error::too_small, "q_token_stride", 255, 256}},
      {[](call& c) { c.a.q_token_stride = -256; }, {error::too_small, "q_token_stride", -256, 64}},
      {[](call& c) { c.a.q_token_stride = huge * 4; }, {error::overflow, "q_token_stride", huge * 4}},
      {[](call& c) { c.a.q_head_stride = huge; }, {error::overflow, "q_head_stride", huge}},
      {[](call& c) { c.a.out_head_stride = 1; }, {error::too_small, "out_head_stride", 1, 64}},
      {[](call& c) { c.a.out_token_stride = 200; }, {error::too_small, "out_token_stride", 200, 256}},
      {[](call& c) { c.a.out_token_stride = huge; }, {error::overflow, "out_token_stride", huge}},
      {[](call& c) { c.a.lse_token_stride = 3; }, {error::too_small, "lse_token_stride", 3, 4}},
      {[](call& c) { c.a.cache.k_head_stride = huge * 4; }, {error::overflow, "cache.k_head_stride", huge * 4}},
      {[](call& c) { c.a.cache.v_head_stride = 32; }, {error::too_small, "cache.v_head_stride", 32, 64}},
      {[](call& c) { c.a.cache.k_token_stride = huge; }, {error::overflow, "cache.k_token_stride", huge}},
      {[](call& c) { c.a.cache.v_page_stride = huge; }, {error::overflow, "cache.v_page_stride", huge}},
      {[](call& c) { c.a.cache.page_size = 0; }, {error::too_small, "cache.page_size", 0, 1}},
      {[](call& c) { c.a.cache.num_pages = -1; }, {error::too_small, "cache.num_pages", -1, 0}},
      {[](call& c) { c.a.cache.heads = 1; }, {error::too_small, "cache.heads", 1, 2}},
      {[](call& c) { c.a.cache.heads = 4; }, {error::too_large, "cache.heads", 4, 2}},
      {[](call& c) { c.a.cache.head_dim = 32; }, {error::too_small, "cache.head_dim", 32, 64}},
      {[](call& c) { c.a.cache.head_dim = 128; }, {error::too_large, "cache.head_dim", 128, 64}},
      {[](call& c) { c.a.view.table.row_stride = -1; }, {error::too_small, "view.row_stride", -1, 0}},
      {[](call& c) { c.a.view.table.row_stride = huge; }, {error::overflow, "view.row_stride", huge}},
      {[](call& c) { c.a.out = c.q.data() + 64; }, {error::overlap, "out"}},
      {[](call& c) { c.a.out = c.q.data(), c.a.out_head_stride = 65; }, {error::overlap, "out"}},
      {[](call& c) { c.a.out = c.k.data(); }, {error::overlap, "out"}},
      {[](call& c) { c.a.out = c.v.data() + 5 * 8 * 128; }, {error::overlap, "out"}},
      {[](call& c) { c.a.out = reinterpret_cast<T*>(c.len.data()); }, {error::overlap, "out"}},
      {[](call& c) { c.a.lse = reinterpret_cast<float*>(c.out.data()); }, {error::overlap, "lse"}},
      {[](call& c) { c.a.lse = reinterpret_cast<float*>(c.q.data()); }, {error::overlap, "lse"}},
      {[](call& c) { c.a.lse = reinterpret_cast<float*>(c.q_start.data()); }, {error::overlap, "lse"}},
  };
  return rows;
}

void use_csr(call& c) { c.a.view = bi::page_csr{c.csr_pages.data(), c.csr_start.data()}; }
void use_runs(call& c) { c.a.view = bi::run_list{c.runs.data(), c.run_start.data()}; }

// What only the arrays say: found by the CPU reference.
const std::vector<bad_input>& bad_arrays() {
  static const std::vector<bad_input> rows = {
      {[](call& c) { c.len[1] = -1; }, {error::too_small, "len", -1, 0, 1}},
      {[](call& c) { c.len[1] = 33; }, {error::too_large, "len", 33, 32, 1}},
      {[](call& c) { c.q_start[0] = -1; }, {error::too_small, "q_start", -1, 0, 0}},
      {[](call& c) { c.q_start[2] = 1; }, {error::too_small, "q_start", 1, 2, 2}},
      {[](call& c) { c.q_start[3] = 4; }, {error::too_large, "q_start", 4, 3, 3}},
      {[](call& c) { c.q_start[1] = 3; }, {error::too_large, "q_len", 3, 2, 0}},
      {[](call& c) { c.table[2] = 6; }, {error::index_out_of_range, "view.pages", 6, 6, 2}},
      {[](call& c) { c.table[4] = -1; }, {error::index_out_of_range, "view.pages", -1, 6, 4}},
      {[](call& c) { c.a.view.table.row_stride = 2; }, {error::too_large, "len", 20, 16, 0}},
      {[](call& c) { c.group_start[0] = -1; }, {error::too_small, "sharing.start", -1, 0, 0}},
      {[](call& c) { c.group_start[2] = 1; }, {error::too_small, "sharing.start", 1, 2, 2}},
      {[](call& c) { c.member[1] = 3; }, {error::index_out_of_range, "sharing.member", 3, 3, 1}},
      {[](call& c) { c.member[2] = -1; }, {error::index_out_of_range, "sharing.member", -1, 3, 2}},
      {[](call& c) { c.member[2] = 0; }, {error::overlap, "sharing.member", 0, 0, 2}},
      {[](call& c) { c.shared[1] = -1; }, {error::too_small, "sharing.shared", -1, 0, 1}},
      {[](call& c) { c.shared[1] = 6; }, {error::too_large, "sharing.shared", 6, 5, 1}},
      {[](call& c) {
         c.group_start = {0, 3, 3}, c.shared[0] = 5;
       },
       {error::too_large, "sharing.shared", 5, 0, 0}},
      {[](call& c) { use_csr(c), c.csr_pages[3] = 100; }, {error::index_out_of_range, "view.pages", 100, 6, 3}},
      {[](call& c) { use_csr(c), c.csr_start[0] = -2; }, {error::too_small, "view.start", -2, 0, 0}},
      {[](call& c) { use_csr(c), c.csr_start[2] = 2; }, {error::too_small, "view.start", 2, 3, 2}},
      {[](call& c) { use_csr(c), c.csr_start[1] = 2; }, {error::too_large, "len", 20, 16, 0}},
      {[](call& c) { use_runs(c), c.run_start[3] = 3; }, {error::too_small, "view.start", 3, 4, 3}},
      {[](call& c) { use_runs(c), c.runs[1].length = -1; }, {error::too_small, "view.runs.length", -1, 0, 1}},
      {[](call& c) { use_runs(c), c.runs[2].length = 3; }, {error::too_large, "len", 20, 19, 0}},
      {[](call& c) { use_runs(c), c.runs[2].slot = 45; }, {error::index_out_of_range, "view.runs.slot", 48, 48, 2}},
      {[](call& c) { use_runs(c), c.runs[0].slot = -1; }, {error::index_out_of_range, "view.runs.slot", -1, 48, 0}},
      {[](call& c) {
         use_runs(c), c.runs[3] = {0x7fffffff, 0x7fffffff};
       },
       {error::index_out_of_range, "view.runs.slot", 0x80000003, 48, 3}},
  };
  return rows;
}

}  // namespace

static_assert(std::is_trivially_copyable_v<args>);
static_assert(args{.q = nullptr}.rows == 0);  // no member without a default

TEST_CASE("attention: bad arguments have exact errors, and nothing is written", "[public][attention]") {
  CHECK(bad_arguments().size() >= 25);
  for (std::size_t i = 0; i < bad_arguments().size(); ++i) {
    call c;
    bad_arguments()[i].change(c);
    require_status(bi::check(c.a), bad_arguments()[i].expected, i);
    require_status(bi::reference::attention(c.a, 1), bad_arguments()[i].expected, i);
    CHECK(c.untouched());
  }
}

TEST_CASE("attention: bad arrays have exact errors, and nothing is written", "[public][attention]") {
  for (std::size_t i = 0; i < bad_arrays().size(); ++i) {
    call c;
    bad_arrays()[i].change(c);
    CHECK(bi::check(c.a));
    require_status(bi::reference::attention(c.a, 1), bad_arrays()[i].expected, i);
    CHECK(c.untouched());
  }
}

TEST_CASE("attention: the soft cap belongs to its contract", "[public][attention]") {
  const auto status = [](float scale, float cap) {
    call c;
    c.a.scale = scale;
    c.a.soft_cap = cap;
    const bi::status s = bi::reference::attention<capped>(c.a, 1);
    CHECK(c.untouched() == !s);
    return s;
  };
  CHECK(status(0.125f, 50.0f));
  require_status(status(0.125f, 0.0f), {error::not_valid, "soft_cap"}, 0);
  require_status(status(0.125f, -1.0f), {error::not_valid, "soft_cap"}, 1);
  require_status(status(0.125f, plus_inf), {error::not_valid, "soft_cap"}, 2);
  require_status(status(0.125f, not_number), {error::not_valid, "soft_cap"}, 3);
  require_status(status(1.0f, 0x1p-149f), {error::not_valid, "scale"}, 4);
  require_status(status(0x1p-100f, 0x1p100f), {error::not_valid, "scale"}, 5);
  CHECK(status(0x1.fffffep127f, 50.0f));  // the product with log2(e) belongs to the other contract
}

TEST_CASE("attention: what is allowed", "[public][attention]") {
  const std::function<void(call&)> good[] = {
      [](call&) {},
      [](call& c) { c.a.lse = nullptr; },
      [](call& c) { c.a.out = c.q.data(); },
      [](call& c) { c.a.q_start = nullptr; },
      [](call& c) { use_csr(c); },
      [](call& c) { use_runs(c); },
      [](call& c) { use_runs(c), c.runs[2].length = 1000; },                 // more than len: the rest is not looked at
      [](call& c) { c.a.window = 3, c.table[0] = -5, c.table[1] = 77; },     // pages below every window
      [](call& c) { use_runs(c), c.a.window = 3, c.runs[0].slot = -1000; },  // runs below every window
      [](call& c) { c.a.q_head_stride = 3 * 64, c.a.q_token_stride = 64; },  // heads outside, tokens inside
      [](call& c) {
        c.q_start = {0, 0, 0, 0};
      },  // nobody has a row
      [](call& c) {
        c.len = {0, 0, 0}, c.a.cache.num_pages = 0;
      },
      [](call& c) { c.a.soft_cap = -0.0f; },
      [](call& c) {
        c.group_start = {0, 3, 3}, c.table[4] = 3, c.shared[0] = 5;
      },  // the same page
      [](call& c) {
        c.group_start = {1, 2, 2}, c.shared[1] = 1000;
      },  // a group of none
      [](call& c) { c.shared[0] = 0, c.a.window = 3; },
      [](call& c) { c.a.sharing = {}; },
  };
  int i = 0;
  for (const auto& change : good) {
    call c;
    change(c);
    const bi::status s = bi::reference::attention(c.a, 1);
    INFO("case " << i++ << ": " << bi::describe(s));
    CHECK(s);
  }
}

TEST_CASE("attention: of size 0 nothing is read or written", "[public][attention]") {
  for (const bool no_rows : {false, true}) {
    call c;
    (no_rows ? c.a.rows : c.a.requests) = 0;
    c.a.q = nullptr;
    c.a.out = nullptr;
    c.a.lse = nullptr;
    c.a.len = nullptr;
    c.a.cache.k = c.a.cache.v = nullptr;
    c.a.view = bi::kv_view{};
    CHECK(bi::check(c.a));
    CHECK(bi::reference::attention(c.a));
    CHECK(c.untouched());
    c.a.scale = not_number;  // values must be valid all the same
    require_status(bi::check(c.a), {error::not_valid, "scale"}, 0);
  }
}

TEST_CASE("attention: random argument structs never crash the checks", "[public][attention]") {
  test::generator g(77);
  const std::int64_t sizes[] = {0, 1, 2, 3, 64, 65, 128, 256, large, huge, huge * 4, -1, -huge, INT64_MIN, INT64_MAX};
  const auto size = [&] { return sizes[g.below(15)]; };
  int good = 0;
  const call base;
  for (int i = 0; i < 20000; ++i) {
    args a = base.a;
    for (std::int64_t n = g.between(0, 3); n > 0; --n) {
      std::int64_t* const fields[] = {&a.q_token_stride,
                                      &a.q_head_stride,
                                      &a.requests,
                                      &a.rows,
                                      &a.window,
                                      &a.lse_token_stride,
                                      &a.out_token_stride,
                                      &a.out_head_stride,
                                      &a.cache.num_pages,
                                      &a.cache.page_size,
                                      &a.cache.heads,
                                      &a.cache.head_dim,
                                      &a.cache.k_page_stride,
                                      &a.cache.k_token_stride,
                                      &a.cache.k_head_stride,
                                      &a.cache.v_page_stride,
                                      &a.cache.v_token_stride,
                                      &a.cache.v_head_stride,
                                      &a.limits.max_requests,
                                      &a.limits.max_rows,
                                      &a.limits.max_q_len,
                                      &a.limits.max_view,
                                      &a.limits.heads_q,
                                      &a.limits.heads_kv,
                                      &a.limits.head_dim,
                                      &a.limits.max_groups,
                                      &a.sharing.groups,
                                      &a.view.table.row_stride};
      std::int64_t* const field = fields[g.below(28)];
      *field = size();
    }
    const bi::status s = bi::check(a);
    good += s ? 1 : 0;
    if (!s) REQUIRE(!bi::describe(s).empty());
  }
  CHECK(good > 3000);
  CHECK(good < 18000);
}
