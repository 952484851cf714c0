// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/logits_edit.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "bi/reference/sample.hpp"
#include "golden/cases_edit.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::bf16;
using bi::fp16;
using test::edit_case;
using test::values;

namespace {

// The steps once more, element by element, in other words.
template <class T, class Out>
Out expected(const bi::logits_edit_args<T, Out>& a, std::int64_t r, std::int64_t i) {
  const T logit = a.logits[r * a.logits_stride + i];
  const bi::logits_edit_params& p = a.params[r];
  const auto bit = [&](const auto* words, std::int64_t row) {
    const auto* of_row = words + row * a.counts.bits_stride;
    return (static_cast<std::uint32_t>(of_row[i / 32]) & (1u << (i % 32))) != 0;
  };
  const auto is_normal = [](float x) { return bi::is_finite(x) && !bi::less(x, 0x1p-126f); };
  const bool penalties = p.slot >= 0;
  if (p.mask >= a.masks || p.slot >= a.counts.slots) return bi::cvt_rn<Out>(bi::nan_f32());
  if (penalties && (!is_normal(p.repetition) || !bi::is_finite(p.frequency) || !bi::is_finite(p.presence))) {
    return bi::cvt_rn<Out>(bi::nan_f32());
  }
  if (p.mask >= 0 && !bit(a.mask, p.mask)) return bi::cvt_rn<Out>(bi::neg_inf_f32());
  float x = bi::to_f32(logit);
  bool same = true;
  if (penalties) {
    std::int64_t n = bit(a.counts.output, p.slot) ? a.counts.count[p.slot * a.counts.count_stride + i] : 0;
    n = std::max<std::int64_t>(n, 0) + std::count(a.draft + p.draft_begin, a.draft + p.draft_end, i);
    const bool in_prompt = a.counts.prompt != nullptr && bit(a.counts.prompt, p.slot);
    const auto step = [&](bool applies, float y) {
      if (!applies) return;
      x = y;
      same = false;
    };
    step((n > 0 || in_prompt) && bi::bits_of(p.repetition) != 0x3f800000u,
         bi::less(0.0f, x) ? bi::div_rn(x, p.repetition) : bi::mul_rn(x, p.repetition));
    step(n > 0 && bi::abs(p.frequency) > 0, bi::sub_rn(x, bi::mul_rn(p.frequency, bi::float_from_int64(n))));
    step(n > 0 && bi::abs(p.presence) > 0, bi::sub_rn(x, p.presence));
  }
  for (std::int32_t b = p.bias_begin; b < p.bias_end; ++b) {
    if (a.bias_id[b] != i) continue;
    x = bi::add_rn(x, a.bias[b]);
    same = false;
  }
  if constexpr (std::is_same_v<T, Out>) return same ? logit : bi::cvt_rn<Out>(x);
  return bi::cvt_rn<Out>(x);
}

template <class T, class Out>
std::int64_t check_edit(const edit_case& c, std::uint64_t seed) {
  test::host_backend host;
  const test::edit_data<T> d = test::make_edit_data<T>(c, seed);
  Out* out = nullptr;
  auto a = test::make_edit_args<T, Out>(host, c, d, out);
  host.run(test::logits_edit_op{}, a);
  const auto got = host.read(out);
  // In place the logits are gone.
  const std::vector<T> logits = d.logits;
  a.logits = logits.data() + c.offset;
  auto all = test::poisoned<Out>(static_cast<std::int64_t>(got.size()));
  if constexpr (std::is_same_v<T, Out>) {
    if (c.in_place) all = logits;
  }
  const bi::reference::fp_environment environment;
  std::int64_t changed = 0;
  for (std::int64_t r = 0; r < c.rows; ++r) {
    for (std::int64_t i = 0; i < c.vocab; ++i) {
      const auto at = static_cast<std::size_t>(r * a.out_stride + i + c.offset);
      all[at] = expected<T, Out>(a, r, i);
      if constexpr (std::is_same_v<T, Out>) changed += std::memcmp(&all[at], &logits[at], sizeof(T)) != 0 ? 1 : 0;
    }
  }
  INFO(to_string(c));
  REQUIRE(test::difference(got, all) == "");
  return changed;
}

}  // namespace

TEST_CASE("logits_edit: the steps, element by element", "[reference][logits_edit]") {
  std::int64_t changed = 0;
  std::uint64_t seed = 1;
  for (const values kind : test::all_values) {
    for (const bool in_place : {false, true}) {
      for (const std::int64_t vocab : {1, 5, 31, 32, 33, 1000, 1025}) {
        const edit_case c{
            29, vocab, kind, in_place, vocab % 4, vocab % 3, vocab < 100 ? 30 : 3, seed % 2 == 0, seed % 5 != 0};
        changed += check_edit<float, float>(c, seed);
        changed += check_edit<bf16, bf16>(c, seed);
        changed += check_edit<fp16, fp16>(c, seed);
        if (!in_place) {
          check_edit<bf16, float>(c, seed);
          check_edit<fp16, float>(c, seed);
        }
        ++seed;
      }
    }
  }
  CHECK(changed > 100000);
}

TEST_CASE("logits_edit: a row alone equals the row in a batch", "[reference][logits_edit]") {
  const edit_case c{40, 300, values::hostile};
  test::host_backend host;
  const auto d = test::make_edit_data<bf16>(c, 5);
  bf16* out = nullptr;
  auto a = test::make_edit_args<bf16, bf16>(host, c, d, out);
  host.run(test::logits_edit_op{}, a);
  const auto all = host.read(out);
  for (std::int64_t r = 0; r < c.rows; ++r) {
    auto one = a;
    std::vector<bf16> alone(static_cast<std::size_t>(c.vocab));
    one.rows = 1, one.logits += r * c.vocab, one.params += r, one.out = alone.data();
    REQUIRE(ref::logits_edit(one));
    REQUIRE(test::difference(alone.data(), all.data() + r * c.vocab, c.vocab) == "");
  }
  // Control: another slot gives other bytes.
  auto params = d.params;
  for (auto& p : params) {
    if (p.slot >= 0) p.slot = static_cast<std::int32_t>((p.slot + 1) % d.slots);
  }
  auto other = a;
  other.params = params.data();
  REQUIRE(ref::logits_edit(other));
  CHECK(test::difference(host.read(out), all) != "");
}

TEST_CASE("logits_edit: rows without parameters keep their bytes, NaN payloads and all", "[reference][logits_edit]") {
  const auto x = test::random_vector<bf16>(3000, values::hostile, 2);
  std::vector<bi::logits_edit_params> params(3);
  bi::logits_edit_args<bf16> a;
  auto out = test::poisoned<bf16>(3000);
  a.logits = x.data(), a.out = out.data(), a.params = params.data(), a.rows = 3, a.vocab = 1000;
  REQUIRE(ref::logits_edit(a));
  CHECK(test::difference(out, x) == "");
  bi::logits_edit_args<bf16, float> wide;
  std::vector<float> fp32(3000);
  wide.logits = x.data(), wide.out = fp32.data(), wide.params = params.data(), wide.rows = 3, wide.vocab = 1000;
  REQUIRE(ref::logits_edit(wide));
  for (std::size_t i = 0; i < x.size(); ++i) {
    REQUIRE(bi::bits_of(fp32[i]) == static_cast<std::uint32_t>(x[i].bits) << 16);
  }
}

TEST_CASE("logits_edit: biases of one token are added in the list's order", "[reference][logits_edit]") {
  const std::vector<float> x = {1.0f, 2.0f, 3.0f};
  const std::vector<std::int32_t> id = {1, 1, -1, 1, 3, 2};
  const std::vector<float> bias = {1e8f, -1e8f, 5.0f, 1.0f, 7.0f, bi::neg_inf_f32()};
  std::vector<float> out(3);
  std::vector<bi::logits_edit_params> params(1);
  params[0].bias_end = 6;
  bi::logits_edit_args<float> a;
  a.logits = x.data(), a.out = out.data(), a.params = params.data(), a.rows = 1, a.vocab = 3;
  a.bias_id = id.data(), a.bias = bias.data(), a.biases = 6;
  REQUIRE(ref::logits_edit(a));
  CHECK(out == std::vector<float>{1.0f, 1.0f, bi::neg_inf_f32()});  // ((2 + 1e8) - 1e8) + 1; any sum of biases gives 3
}

TEST_CASE("logits_edit: drafts count as if they had been drawn", "[reference][logits_edit]") {
  // Request 0 has rows 0 .. 3 after drafts 4, 4, 7; what a table gives that has counted them one by one.
  const std::int64_t vocab = 40, rows = 4;
  const std::vector<std::int32_t> draft = {4, 4, 7, 9};
  const auto x = test::random_vector<float>(rows * vocab, values::normal, 3);
  const std::int64_t words = bi::contract::token_words(vocab);
  std::vector<std::int32_t> count(static_cast<std::size_t>(vocab)), slot = {0};
  std::vector<std::uint32_t> output(static_cast<std::size_t>(words));
  count[4] = 2, output[0] = 1u << 4;
  bi::token_counts t;
  t.count = count.data(), t.output = output.data(), t.slots = 1, t.vocab = vocab;
  std::vector<bi::logits_edit_params> params(4);
  for (std::int32_t r = 0; r < 4; ++r) {
    params[static_cast<std::size_t>(r)] = {1.3f, 0.4f, 0.2f, 0};
    params[static_cast<std::size_t>(r)].draft_end = r;
  }
  auto out = x;
  bi::logits_edit_args<float> a;
  a.logits = a.out = out.data(), a.params = params.data(), a.rows = rows, a.vocab = vocab, a.counts = t;
  a.draft = draft.data(), a.drafts = 4;
  REQUIRE(ref::logits_edit(a));
  for (std::int64_t r = 0; r < rows; ++r) {
    std::vector<float> one(x.begin() + r * vocab, x.begin() + (r + 1) * vocab);
    bi::logits_edit_params p = {1.3f, 0.4f, 0.2f, 0};
    a.logits = a.out = one.data(), a.params = &p, a.rows = 1;
    REQUIRE(ref::logits_edit(a));
    REQUIRE(test::difference(one.data(), out.data() + r * vocab, vocab) == "");
    bi::count_tokens_args add;
    add.counts = t, add.token = draft.data() + r, add.slot = slot.data(), add.tokens = 1;
    REQUIRE(ref::count_tokens(add));
  }
  CHECK(count[4] == 4);
  CHECK(count[9] == 1);
}

TEST_CASE("logits_edit: an invalid row is NaN and sample reports it", "[reference][logits_edit]") {
  const std::int64_t vocab = 50;
  auto x = test::random_vector<float>(2 * vocab, values::normal, 3);
  const auto before = x;
  std::vector<bi::logits_edit_params> params(2);
  params[0].mask = 0;  // there is none
  bi::logits_edit_args<float> a;
  a.logits = a.out = x.data(), a.params = params.data(), a.rows = 2, a.vocab = vocab;
  REQUIRE(ref::logits_edit(a));
  CHECK(test::difference(x.data() + vocab, before.data() + vocab, vocab) == "");
  std::vector<bi::sample_params> settings(2);
  std::vector<std::int32_t> token(2);
  std::vector<std::uint32_t> flags(2);
  bi::sample_args<float> s;
  s.logits = x.data(), s.rows = 2, s.vocab = vocab, s.params = settings.data(), s.token = token.data();
  s.flags = flags.data();
  REQUIRE(ref::sample(s));
  CHECK(token[0] == -1);
  CHECK(flags[0] == (bi::sample_saw_nan | bi::sample_no_candidate));
  CHECK(token[1] >= 0);
  CHECK(flags[1] == 0);
}

// ---- counts

namespace {

struct table {
  std::vector<std::int32_t> count;
  std::vector<std::uint32_t> output, prompt;
  bi::token_counts t;
  table(std::int64_t slots, std::int64_t vocab) {
    const std::int64_t words = bi::contract::token_words(vocab);
    count.resize(static_cast<std::size_t>(slots * vocab));
    output.resize(static_cast<std::size_t>(slots * words));
    prompt = output;
    t.count = count.data(), t.output = output.data(), t.prompt = prompt.data();
    t.slots = slots, t.vocab = vocab;
  }
  // Slot s, as sets and multisets.
  std::map<std::int64_t, std::int32_t> counts(std::int64_t s) const {
    std::map<std::int64_t, std::int32_t> all;
    for (std::int64_t i = 0; i < t.vocab; ++i) {
      const std::int32_t n = count[static_cast<std::size_t>(s * t.vocab + i)];
      if (n != 0) all[i] = n;
    }
    return all;
  }
  std::set<std::int64_t> set(const std::vector<std::uint32_t>& bits, std::int64_t s) const {
    std::set<std::int64_t> all;
    for (std::int64_t i = 0; i < t.vocab; ++i) {
      const auto word = static_cast<std::size_t>(s * bi::contract::token_words(t.vocab) + i / 32);
      if ((bits[word] >> (i % 32) & 1) != 0) all.insert(i);
    }
    return all;
  }
};

}  // namespace

TEST_CASE("count_tokens: counts, takes back, leaves foreign tokens out", "[reference][logits_edit]") {
  table b(3, 70);
  const std::vector<std::int32_t> token = {5, 69, 5, 5, 70, -1, 33, 6, 5};
  const std::vector<std::int32_t> slot = {2, 2, 2, 0, 2, 2, 2, -1, 2};
  bi::count_tokens_args a;
  a.counts = b.t, a.token = token.data(), a.slot = slot.data(), a.tokens = 9;
  REQUIRE(ref::count_tokens(a));
  CHECK(b.counts(2) == std::map<std::int64_t, std::int32_t>{{5, 3}, {33, 1}, {69, 1}});
  CHECK(b.counts(0) == std::map<std::int64_t, std::int32_t>{{5, 1}});
  CHECK(b.counts(1).empty());
  CHECK(b.set(b.output, 2) == std::set<std::int64_t>{5, 33, 69});
  CHECK(b.set(b.prompt, 2).empty());
  a.tokens = 2, a.times = -1;
  REQUIRE(ref::count_tokens(a));
  CHECK(b.counts(2) == std::map<std::int64_t, std::int32_t>{{5, 2}, {33, 1}});
  CHECK(b.set(b.output, 2) == std::set<std::int64_t>{5, 33, 69});  // it may have been
  a.tokens = 9, a.times = 1, a.part = bi::token_part::prompt;
  const auto before = b.count;
  REQUIRE(ref::count_tokens(a));
  CHECK(b.count == before);
  CHECK(b.set(b.prompt, 2) == std::set<std::int64_t>{5, 33, 69});
  CHECK(b.set(b.prompt, 0) == std::set<std::int64_t>{5});
  bi::clear_counts_args clear;
  const std::vector<std::int32_t> slots = {2, -1, 2};
  clear.counts = b.t, clear.slot = slots.data(), clear.requests = 3;
  REQUIRE(ref::clear_counts(clear));
  CHECK(b.counts(2).empty());
  CHECK(b.set(b.output, 2).empty());
  CHECK(b.set(b.prompt, 2).empty());
  CHECK(b.counts(0).size() == 1);
}

TEST_CASE("count_view: a merged view counts the multiset of its branches, however it is stored",
          "[reference][logits_edit]") {
  const std::int64_t page_size = 4, num_pages = 20, vocab = 90;
  const auto token = test::random_ids(num_pages * page_size, 0, 12, 3);
  // Prefix of 6 tokens, three branches of 5, 1 and 9, a conclusion of 2.
  const std::vector<bi::kv_run> runs = {{8, 6}, {40, 5}, {17, 1}, {60, 9}, {2, 2}};
  std::map<std::int64_t, std::int32_t> all;
  for (std::size_t r = 1; r < runs.size(); ++r) {
    for (std::int32_t i = 0; i < runs[r].length; ++i) ++all[token[static_cast<std::size_t>(runs[r].slot + i)]];
  }
  const auto count = [&](const std::vector<bi::kv_run>& view, bi::token_part part, std::int32_t first, std::int32_t n,
                         table& b) {
    const std::vector<std::int32_t> start = {0, static_cast<std::int32_t>(view.size())}, slot = {1};
    bi::run_list list;
    list.runs = view.data(), list.start = start.data();
    bi::count_view_args a;
    a.counts = b.t, a.view = list, a.num_pages = num_pages, a.page_size = page_size, a.token = token.data();
    a.first = &first, a.count = &n, a.slot = slot.data(), a.requests = 1, a.part = part;
    REQUIRE(bi::describe(ref::count_view(a)) == "ok");
  };
  table merged(2, vocab), one_by_one(2, vocab), reordered(2, vocab);
  count(runs, bi::token_part::prompt, 0, 6, merged);
  count(runs, bi::token_part::output, 6, 17, merged);
  CHECK(merged.counts(1) == all);
  CHECK(merged.counts(0).empty());
  std::set<std::int64_t> prompt;
  for (int i = 0; i < 6; ++i) prompt.insert(token[static_cast<std::size_t>(8 + i)]);
  CHECK(merged.set(merged.prompt, 1) == prompt);
  // Each branch counted as it was written, then the counts of the tokens drawn one by one.
  count({runs[0]}, bi::token_part::prompt, 0, 6, one_by_one);
  for (std::size_t r = 1; r < runs.size(); ++r) {
    count({runs[r]}, bi::token_part::output, 0, runs[r].length, one_by_one);
  }
  count({runs[0], runs[3], runs[4], runs[1], runs[2]}, bi::token_part::output, 6, 17, reordered);
  CHECK(one_by_one.count == merged.count);
  CHECK(one_by_one.output == merged.output);
  CHECK(one_by_one.prompt == merged.prompt);
  CHECK(reordered.count == merged.count);
  CHECK(reordered.output == merged.output);
}

TEST_CASE("count_view: tables, CSR and runs of the same tokens count the same", "[reference][logits_edit]") {
  const test::counts_case c{5, 77, 9, 2};
  test::host_backend host;
  const auto table = test::run_count_view(host, c, bi::view_kind::page_table, false);
  CHECK(test::difference(test::run_count_view(host, c, bi::view_kind::page_csr, false), table) == "");
  CHECK(test::difference(test::run_count_view(host, c, bi::view_kind::run_list, false), table) == "");
  CHECK(test::difference(test::run_count_view(host, c, bi::view_kind::run_list, true), table) != "");
}
