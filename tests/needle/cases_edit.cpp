// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "golden/cases_edit.hpp"
#include "bi/schedule/logits_edit.hpp"
#include "needle/build.hpp"
#include "support/manifest.hpp"
#include "support/ops_edit.hpp"
#ifdef BI_NEEDLE_GPU
#include "gpu/support/forced_edit.hpp"
#endif

namespace test::needle {
namespace {

constexpr const char* contract = bi::contract::logits_edit_draft::name;

template <class T, class Out>
void add_edit(case_list& all, std::int64_t vocab) {
  const auto make = [vocab](std::uint64_t seed) {
    edit_case e;
    e.rows = pool_rows, e.vocab = vocab;
    const auto d = make_edit_data<T>(e, seed);
    table t;
    t.in = {values_column<T>("logits", vocab, seed), own_column("params", d.params)};
    t.shared = {bytes_of(d.count), bytes_of(d.output),  bytes_of(d.prompt), bytes_of(d.draft),
                bytes_of(d.bias),  bytes_of(d.bias_id), bytes_of(d.mask)};
    t.out = {output_column<Out>("out", vocab)};
    const std::int64_t slots = d.slots, masks = d.masks, drafts = static_cast<std::int64_t>(d.draft.size()),
                       biases = static_cast<std::int64_t>(d.bias.size());
    const auto schedules = [](const call&) { return edit_schedules(false); };
    bind<logits_edit_op>(t, schedules, [=](const call& c) {
      bi::logits_edit_args<T, Out> a;
      a.logits = c.input<T>(0), a.logits_stride = c.input_stride<T>(0);
      a.params = c.input<bi::logits_edit_params>(1);
      a.rows = c.rows, a.vocab = vocab;
      // No kernel writes them.
      a.counts.count = const_cast<std::int32_t*>(c.array<std::int32_t>(0));
      a.counts.output = const_cast<std::uint32_t*>(c.array<std::uint32_t>(1));
      a.counts.prompt = const_cast<std::uint32_t*>(c.array<std::uint32_t>(2));
      a.counts.slots = slots, a.counts.vocab = vocab;
      a.draft = c.array<std::int32_t>(3), a.drafts = drafts;
      a.bias = c.array<float>(4), a.bias_id = c.array<std::int32_t>(5), a.biases = biases;
      a.mask = c.array<std::int32_t>(6), a.masks = masks;
      a.out = c.output<Out>(0), a.out_stride = c.output_stride<Out>(0);
      return a;
    });
    set_schedule(t, [vocab](std::int64_t rows) { return bi::schedule::pick_logits_edit_schedule(rows, vocab, false); });
    return t;
  };
  const std::string types = std::is_same_v<T, Out> ? type_name<T>() : type_name<T>() + "-" + type_name<Out>();
  all.push_back({"logits_edit", contract, types, shape_of("vocab", vocab), make});
}

// A row of the table is a slot's counts, which are read and written.
constexpr std::int64_t vocab = 203;
void add_counts(table& t, std::uint64_t seed) {
  counts_case c{pool_rows, vocab, 0};
  host_backend b;
  const bi::token_counts counts = random_counts(b, c, seed);
  const auto read = [&](const char* name, auto* p) {
    auto out = own_column(name, b.read(p));
    out.element_bytes = 4;
    return out;
  };
  t.out = {read("count", counts.count), read("output", counts.output), read("prompt", counts.prompt)};
}
bi::token_counts counts_of(const call& c) {
  bi::token_counts t;
  t.count = c.output<std::int32_t>(0), t.output = c.output<std::uint32_t>(1), t.prompt = c.output<std::uint32_t>(2);
  t.slots = c.rows, t.vocab = vocab;
  return t;
}
std::vector<std::int32_t> own_tokens(std::int64_t each, std::uint64_t seed) {
  return random_ids(pool_rows * each, -1, vocab + 2, seed);
}

void add_clear(case_list& all) {
  const auto make = [](std::uint64_t seed) {
    table t;
    add_counts(t, seed);
    t.shared = {places<std::int32_t>(t.most_rows)};
    bind<clear_counts_op>(t, always(flat_schedules), [](const call& c) {
      bi::clear_counts_args a;
      a.counts = counts_of(c);
      a.slot = c.array<std::int32_t>(0);
      a.requests = c.rows;
      return a;
    });
    return t;
  };
  all.push_back({"clear_counts", contract, "counts", shape_of("vocab", vocab), make});
}

void add_count_tokens(case_list& all, bi::token_part part) {
  constexpr std::int64_t each = 8;
  const auto make = [part](std::uint64_t seed) {
    table t;
    add_counts(t, seed);
    t.in = {own_column("token", own_tokens(each, seed + 1))};
    std::vector<std::int32_t> slot;
    for (std::int64_t i = 0; i < t.most_rows * each; ++i) slot.push_back(static_cast<std::int32_t>(i / each));
    t.shared = {bytes_of(slot)};
    bind<count_tokens_op>(t, always(flat_schedules), [part](const call& c) {
      bi::count_tokens_args a;
      a.counts = counts_of(c);
      a.token = c.input<std::int32_t>(0), a.slot = c.array<std::int32_t>(0);
      a.tokens = c.rows * each;
      a.part = part;
      return a;
    });
    return t;
  };
  all.push_back({"count_tokens", contract, "counts",
                 shape_of("vocab", vocab) + (part == bi::token_part::prompt ? ",prompt" : ",output"), make});
}

void add_count_view(case_list& all) {
  constexpr std::int64_t num_pages = 40, page = 16, each = 6;
  const auto make = [](std::uint64_t seed) {
    table t;
    add_counts(t, seed);
    generator g(seed);
    std::vector<std::int32_t> first, count;
    for (std::int64_t r = 0; r < pool_rows; ++r) {
      first.push_back(static_cast<std::int32_t>(g.below(each * page)));
      count.push_back(static_cast<std::int32_t>(g.between(0, each * page - first.back())));
    }
    t.in = {own_column("pages", random_ids(pool_rows * each, 0, num_pages, seed + 1)), own_column("first", first),
            own_column("count", count)};
    t.shared = {bytes_of(random_ids(num_pages * page, -1, vocab + 1, seed + 2)), places<std::int32_t>(t.most_rows)};
    bind<count_view_op>(t, always(flat_schedules), [](const call& c) {
      bi::count_view_args a;
      a.counts = counts_of(c);
      a.view = bi::page_table{c.input<std::int32_t>(0), each};
      a.num_pages = num_pages, a.page_size = page;
      a.token = c.array<std::int32_t>(0), a.slot = c.array<std::int32_t>(1);
      a.first = c.input<std::int32_t>(1), a.count = c.input<std::int32_t>(2);
      a.requests = c.rows;
      return a;
    });
    return t;
  };
  all.push_back({"count_view", contract, "counts", shape_of("vocab", vocab), make});
}

}  // namespace

void add_edit_cases(case_list& all) {
  for (const std::int64_t n : {777, 20000}) {
    add_edit<bi::bf16, bi::bf16>(all, n);
    add_edit<bi::fp16, bi::fp16>(all, n);
    add_edit<float, float>(all, n);
    add_edit<bi::bf16, float>(all, n);
    add_edit<bi::fp16, float>(all, n);
  }
  add_clear(all);
  add_count_tokens(all, bi::token_part::output);
  add_count_tokens(all, bi::token_part::prompt);
  add_count_view(all);
}

}  // namespace test::needle
