// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/logits_edit.hpp"

#include <cstdint>
#include <type_traits>
#include <vector>

#include "bi/reference/logits_edit.hpp"
#include "bi/reference/token_counts.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::error;
using test::bad_row;
using test::byte_after;
using test::require_complaints;
using T = bi::bf16;

namespace {

constexpr std::int64_t huge = std::int64_t{1} << 61, too_many = std::int64_t{1} << 31;

static_assert(std::is_same_v<bi::status, decltype(bi::logits_edit(bi::logits_edit_args<T>{}, bi::cuda_stream{}))>);
static_assert(std::is_same_v<bi::status, decltype(bi::count_tokens(bi::count_tokens_args{}, bi::cuda_stream{}))>);
static_assert(std::is_trivially_copyable_v<bi::logits_edit_params> && sizeof(bi::logits_edit_params) == 36);

// All arrays lie in one buffer of 32-bit words. Zeros are valid numbers of all of them.
struct buffer {
  std::vector<std::int32_t> data = std::vector<std::int32_t>(2048, 0);
  template <class P>
  P* place(int word) {
    return reinterpret_cast<P*>(data.data() + word);
  }
};

bi::token_counts good_counts(buffer& b) {
  bi::token_counts t;  // 3 slots of 70 tokens, 72 and 4 words apart: 214 and 11 words
  t.count = b.place<std::int32_t>(1000);
  t.output = b.place<std::uint32_t>(1300);
  t.prompt = b.place<std::uint32_t>(1320);
  t.count_stride = 72, t.bits_stride = 4, t.slots = 3, t.vocab = 70;
  return t;
}
bi::logits_edit_args<T> good_args(buffer& b) {
  bi::logits_edit_args<T> a;  // 4 rows of 70 logits, 80 apart: 310 elements, 155 words
  a.logits = b.place<T>(0);
  a.logits_stride = 80;
  a.rows = 4, a.vocab = 70;
  a.params = b.place<bi::logits_edit_params>(200);  // 36 words
  a.counts = good_counts(b);
  a.draft = b.place<std::int32_t>(300);
  a.drafts = 5;
  a.bias_id = b.place<std::int32_t>(310);
  a.bias = b.place<float>(320);
  a.biases = 6;
  a.mask = b.place<std::int32_t>(330);  // 2 masks of 3 words
  a.masks = 2;
  a.out = b.place<T>(400);
  a.out_stride = 90;  // 340 elements, 170 words
  return a;
}

}  // namespace

TEST_CASE("logits_edit: bad input", "[public][logits_edit]") {
  using args = bi::logits_edit_args<T>;
  buffer b;
  const args good = good_args(b);
  REQUIRE(bi::describe(check(good)) == "ok");
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.rows = huge; }, {error::overflow, "logits_stride", 80}},
      {[](args& a) { a.vocab = 0; }, {error::too_small, "vocab", 0}},
      {[](args& a) { a.vocab = too_many, a.logits_stride = 0; }, {error::too_large, "vocab", too_many}},
      {[](args& a) { a.logits_stride = 69; }, {error::too_small, "logits_stride", 69}},
      {[](args& a) { a.logits_stride = huge; }, {error::overflow, "logits_stride", huge}},
      {[](args& a) { a.out_stride = 69; }, {error::too_small, "out_stride", 69}},
      {[](args& a) { a.out_stride = -80; }, {error::too_small, "out_stride", -80}},
      {[](args& a) { a.out_stride = huge; }, {error::overflow, "out_stride", huge}},
      {[](args& a) { a.counts.slots = -1; }, {error::too_small, "counts.slots", -1}},
      {[](args& a) { a.counts.slots = huge; }, {error::too_large, "counts.slots", huge}},
      {[](args& a) { a.counts.vocab = 69; }, {error::too_small, "counts.vocab", 69}},
      {[](args& a) { a.counts.count_stride = 69; }, {error::too_small, "counts.count_stride", 69}},
      {[](args& a) { a.counts.bits_stride = 2; }, {error::too_small, "counts.bits_stride", 2}},
      {[](args& a) { a.counts.bits_stride = huge; }, {error::overflow, "counts.bits_stride", huge}},
      {[](args& a) { a.drafts = -1; }, {error::too_small, "drafts", -1}},
      {[](args& a) { a.drafts = too_many; }, {error::too_large, "drafts", too_many}},
      {[](args& a) { a.biases = -1; }, {error::too_small, "biases", -1}},
      {[](args& a) { a.biases = too_many; }, {error::too_large, "biases", too_many}},
      {[](args& a) { a.masks = -1; }, {error::too_small, "masks", -1}},
      {[](args& a) { a.masks = too_many; }, {error::too_large, "masks", too_many}},
      {[](args& a) { a.mask_stride = 2; }, {error::too_small, "mask_stride", 2}},
      {[](args& a) { a.logits = nullptr; }, {error::null_pointer, "logits"}},
      {[](args& a) { a.params = nullptr; }, {error::null_pointer, "params"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.counts.count = nullptr; }, {error::null_pointer, "counts.count"}},
      {[](args& a) { a.counts.output = nullptr; }, {error::null_pointer, "counts.output"}},
      {[](args& a) { a.draft = nullptr; }, {error::null_pointer, "draft"}},
      {[](args& a) { a.bias_id = nullptr; }, {error::null_pointer, "bias_id"}},
      {[](args& a) { a.bias = nullptr; }, {error::null_pointer, "bias"}},
      {[](args& a) { a.mask = nullptr; }, {error::null_pointer, "mask"}},
      {[](args& a) { a.logits = byte_after(a.logits); }, {error::misaligned, "logits"}},
      {[](args& a) { a.params = byte_after(a.params); }, {error::misaligned, "params"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[](args& a) { a.counts.count = byte_after(a.counts.count); }, {error::misaligned, "counts.count"}},
      {[](args& a) { a.counts.output = byte_after(a.counts.output); }, {error::misaligned, "counts.output"}},
      {[](args& a) { a.counts.prompt = byte_after(a.counts.prompt); }, {error::misaligned, "counts.prompt"}},
      {[](args& a) { a.draft = byte_after(a.draft); }, {error::misaligned, "draft"}},
      {[](args& a) { a.bias_id = byte_after(a.bias_id); }, {error::misaligned, "bias_id"}},
      {[](args& a) { a.bias = byte_after(a.bias); }, {error::misaligned, "bias"}},
      {[](args& a) { a.mask = byte_after(a.mask); }, {error::misaligned, "mask"}},
      {[&](args& a) { a.out = b.place<T>(154); }, {error::overlap, "out"}},
      {[&](args& a) { a.out = b.place<T>(0); }, {error::overlap, "out"}},  // in place, but another stride
      {[&](args& a) { a.params = b.place<bi::logits_edit_params>(569); }, {error::overlap, "out"}},
      {[&](args& a) { a.counts.count = b.place<std::int32_t>(569); }, {error::overlap, "out"}},
      {[&](args& a) { a.counts.output = b.place<std::uint32_t>(390); }, {error::overlap, "out"}},
      {[&](args& a) { a.counts.prompt = b.place<std::uint32_t>(400); }, {error::overlap, "out"}},
      {[&](args& a) { a.draft = b.place<std::int32_t>(396); }, {error::overlap, "out"}},
      {[&](args& a) { a.bias_id = b.place<std::int32_t>(569); }, {error::overlap, "out"}},
      {[&](args& a) { a.bias = b.place<float>(450); }, {error::overlap, "out"}},
      {[&](args& a) { a.mask = b.place<std::int32_t>(395); }, {error::overlap, "out"}},
      {[](args& a) { a.rows = 0, a.biases = -1; }, {error::too_small, "biases", -1}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::logits_edit(a); });
  args a = good;
  a.counts.vocab = 69;
  REQUIRE(bi::describe(check(a)) == "logits_edit: counts.vocab = 69 must be at least vocab = 70");
  a = good;
  a.mask_stride = 2;
  REQUIRE(bi::describe(check(a)) == "logits_edit: mask_stride = 2 must be at least ceil(vocab / 32) = 3");
}

TEST_CASE("logits_edit: what may be left out, and in place", "[public][logits_edit]") {
  buffer b;
  bi::logits_edit_args<T> a = good_args(b);
  a.counts = {};
  a.draft = nullptr, a.drafts = 0, a.bias_id = nullptr, a.bias = nullptr, a.biases = 0, a.mask = nullptr, a.masks = 0;
  REQUIRE(check(a));
  a = good_args(b);
  a.counts.prompt = nullptr;
  REQUIRE(check(a));
  a.out = b.place<T>(0), a.out_stride = a.logits_stride;
  REQUIRE(check(a));
  a.out_stride = 90, a.rows = 1;
  REQUIRE(check(a));
  bi::logits_edit_args<T, float> wide;
  wide.logits = b.place<T>(0), wide.rows = 4, wide.vocab = 70;
  wide.params = b.place<bi::logits_edit_params>(200), wide.out = b.place<float>(0);
  REQUIRE(bi::describe(check(wide)) == "logits_edit: out overlaps logits");
  wide.out = b.place<float>(400);
  REQUIRE(check(wide));
  bi::logits_edit_args<T> none;
  none.vocab = 10;
  REQUIRE(ref::logits_edit(none));
}

TEST_CASE("count_tokens: bad input", "[public][logits_edit]") {
  using args = bi::count_tokens_args;
  buffer b;
  args good;
  good.counts = good_counts(b);
  good.token = b.place<std::int32_t>(0);
  good.slot = b.place<std::int32_t>(20);
  good.tokens = 8;
  REQUIRE(check(good));
  b.data[27] = 3;  // one past the last slot: only the last row of the table gets there
  using bi::token_part;
  const bad_row<args> rows[] = {
      {[](args& a) { a.tokens = -1; }, {error::too_small, "tokens", -1}},
      {[](args& a) { a.tokens = huge; }, {error::too_large, "tokens", huge}},
      {[](args& a) { a.counts.slots = 0; }, {error::too_small, "counts.slots", 0}},
      {[](args& a) { a.counts.slots = -2; }, {error::too_small, "counts.slots", -2}},
      {[](args& a) { a.counts.vocab = 0; }, {error::too_small, "counts.vocab", 0}},
      {[](args& a) { a.counts.vocab = too_many; }, {error::too_large, "counts.vocab", too_many}},
      {[](args& a) { a.counts.count_stride = 69; }, {error::too_small, "counts.count_stride", 69}},
      {[](args& a) { a.counts.count_stride = huge; }, {error::overflow, "counts.count_stride", huge}},
      {[](args& a) { a.counts.bits_stride = 2; }, {error::too_small, "counts.bits_stride", 2}},
      {[](args& a) { a.counts.count = nullptr; }, {error::null_pointer, "counts.count"}},
      {[](args& a) { a.counts.output = nullptr; }, {error::null_pointer, "counts.output"}},
      {[](args& a) { a.counts.prompt = nullptr, a.part = token_part::prompt; }, {error::null_pointer, "counts.prompt"}},
      {[](args& a) { a.token = nullptr; }, {error::null_pointer, "token"}},
      {[](args& a) { a.slot = nullptr; }, {error::null_pointer, "slot"}},
      {[](args& a) { a.counts.count = byte_after(a.counts.count); }, {error::misaligned, "counts.count"}},
      {[](args& a) { a.counts.output = byte_after(a.counts.output); }, {error::misaligned, "counts.output"}},
      {[](args& a) { a.counts.prompt = byte_after(a.counts.prompt); }, {error::misaligned, "counts.prompt"}},
      {[](args& a) { a.token = byte_after(a.token); }, {error::misaligned, "token"}},
      {[](args& a) { a.slot = byte_after(a.slot); }, {error::misaligned, "slot"}},
      {[](args& a) { a.part = static_cast<token_part>(2); }, {error::not_supported, "part", 2}},
      {[](args& a) { a.times = 0; }, {error::not_supported, "times", 0}},
      {[](args& a) { a.times = 2; }, {error::not_supported, "times", 2}},
      {[](args& a) { a.times = -1, a.part = token_part::prompt; }, {error::not_supported, "times", -1}},
      {[&](args& a) { a.counts.output = b.place<std::uint32_t>(1213); }, {error::overlap, "counts.output"}},
      {[&](args& a) { a.counts.prompt = b.place<std::uint32_t>(990); }, {error::overlap, "counts.prompt"}},
      {[](args& a) { a.counts.prompt = a.counts.output; }, {error::overlap, "counts.prompt"}},
      {[&](args& a) { a.token = b.place<std::int32_t>(993); }, {error::overlap, "counts.count"}},
      {[&](args& a) { a.slot = b.place<std::int32_t>(1310); }, {error::overlap, "counts.output"}},
      {[&](args& a) { a.slot = b.place<std::int32_t>(1330); }, {error::overlap, "counts.prompt"}},
      {[](args&) {}, {error::index_out_of_range, "slot", 3}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::count_tokens(a); });
  args a = good;
  REQUIRE(bi::describe(ref::count_tokens(a)) ==
          "count_tokens: slot[7] = 3 must be at least 0 and below counts.slots = 3");
  a.times = 5;
  REQUIRE(bi::describe(check(a)) == "count_tokens: times = 5 is not supported; supported: 1, -1");
  args none;
  REQUIRE(ref::count_tokens(none));
}

TEST_CASE("clear_counts: bad input", "[public][logits_edit]") {
  using args = bi::clear_counts_args;
  buffer b;
  args good;
  good.counts = good_counts(b);
  good.slot = b.place<std::int32_t>(20);
  good.requests = 8;
  REQUIRE(check(good));
  b.data[27] = 3;
  const bad_row<args> rows[] = {
      {[](args& a) { a.requests = -1; }, {error::too_small, "requests", -1}},
      {[](args& a) { a.requests = huge; }, {error::too_large, "requests", huge}},
      {[](args& a) { a.counts.slots = 0; }, {error::too_small, "counts.slots", 0}},
      {[](args& a) { a.counts.count = nullptr; }, {error::null_pointer, "counts.count"}},
      {[](args& a) { a.slot = nullptr; }, {error::null_pointer, "slot"}},
      {[](args& a) { a.slot = byte_after(a.slot); }, {error::misaligned, "slot"}},
      {[&](args& a) { a.slot = b.place<std::int32_t>(1000); }, {error::overlap, "counts.count"}},
      {[](args& a) { a.counts.output = reinterpret_cast<std::uint32_t*>(a.counts.count); },
       {error::overlap, "counts.output"}},
      {[](args&) {}, {error::index_out_of_range, "slot", 3}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::clear_counts(a); });
  args none;
  REQUIRE(ref::clear_counts(none));
}

TEST_CASE("count_view: bad input", "[public][logits_edit]") {
  using args = bi::count_view_args;
  buffer b;
  args good;
  good.counts = good_counts(b);
  bi::page_table table;
  table.pages = b.place<std::int32_t>(0), table.row_stride = 3;
  good.view = table;
  good.num_pages = 5, good.page_size = 4;
  good.token = b.place<std::int32_t>(40);  // 20
  good.first = b.place<std::int32_t>(80);
  good.count = b.place<std::int32_t>(90);
  good.slot = b.place<std::int32_t>(100);
  good.requests = 2;
  b.data[90] = 12, b.data[91] = 5;
  REQUIRE(check(good));
  b.data[5] = 5;  // a page that is no page, which request 1 does not reach before the last row
  const bad_row<args> rows[] = {
      {[](args& a) { a.requests = -1; }, {error::too_small, "requests", -1}},
      {[](args& a) { a.requests = huge; }, {error::too_large, "requests", huge}},
      {[](args& a) { a.counts.slots = 0; }, {error::too_small, "counts.slots", 0}},
      {[](args& a) { a.counts.count = nullptr; }, {error::null_pointer, "counts.count"}},
      {[](args& a) { a.part = static_cast<bi::token_part>(7); }, {error::not_supported, "part", 7}},
      {[](args& a) { a.num_pages = -1; }, {error::too_small, "num_pages", -1}},
      {[](args& a) { a.num_pages = huge; }, {error::too_large, "num_pages", huge}},
      {[](args& a) { a.page_size = 0; }, {error::too_small, "page_size", 0}},
      {[](args& a) { a.page_size = huge; }, {error::too_large, "page_size", huge}},
      {[](args& a) { a.num_pages = a.page_size = too_many; }, {error::overflow, "page_size", too_many}},
      {[](args& a) { a.token = nullptr; }, {error::null_pointer, "token"}},
      {[](args& a) { a.token = byte_after(a.token); }, {error::misaligned, "token"}},
      {[](args& a) { a.view = {}; }, {error::not_supported, "view", 0}},
      {[](args& a) { a.view.table.pages = nullptr; }, {error::null_pointer, "view.pages"}},
      {[](args& a) { a.view.table.row_stride = -1; }, {error::too_small, "view.row_stride", -1}},
      {[](args& a) { a.first = byte_after(a.first); }, {error::misaligned, "first"}},
      {[](args& a) { a.count = nullptr; }, {error::null_pointer, "count"}},
      {[](args& a) { a.count = byte_after(a.count); }, {error::misaligned, "count"}},
      {[](args& a) { a.slot = nullptr; }, {error::null_pointer, "slot"}},
      {[&](args& a) { a.token = b.place<std::int32_t>(981); }, {error::overlap, "counts.count"}},
      {[&](args& a) { a.first = b.place<std::int32_t>(1299); }, {error::overlap, "counts.output"}},
      {[&](args& a) { a.count = b.place<std::int32_t>(1319); }, {error::overlap, "counts.prompt"}},
      {[&](args& a) { a.slot = b.place<std::int32_t>(1001); }, {error::overlap, "counts.count"}},
      {[&](args& a) { a.slot = b.place<std::int32_t>(90); }, {error::index_out_of_range, "slot", 12}},
      {[&](args& a) { a.first = b.place<std::int32_t>(90); }, {error::too_large, "first + count", 24}},
      {[](args& a) { a.view.table.pages += 3; }, {error::index_out_of_range, "view.pages", 5}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::count_view(a); });
  args none;
  REQUIRE(ref::count_view(none));
  REQUIRE(ref::count_view(good));
}
