// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/schedule/rows.hpp"
#include "bi/schedule/sample.hpp"
#include "golden/cases_tokens.hpp"
#include "needle/build.hpp"
#include "support/manifest.hpp"
#include "support/ops_tokens.hpp"
#ifdef BI_NEEDLE_GPU
#include "gpu/support/forced_tokens.hpp"
#endif

namespace test::needle {
namespace {

template <class T>
void add_sample(case_list& all, std::int64_t vocab) {
  const auto make = [vocab](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("logits", vocab, seed), own_column("params", sample_settings(pool_rows, vocab, seed + 1))};
    t.out = {output_column<std::int32_t>("token", 1, true), output_column<float>("logprob", 1, true),
             output_column<std::uint32_t>("flags", 1, true)};
    bind<sample_op>(t, unless_fp16<T>(always(sample_schedules)), [vocab](const call& c) {
      bi::sample_args<T> a;
      a.logits = c.input<T>(0), a.logits_stride = c.input_stride<T>(0);
      a.rows = c.rows, a.vocab = vocab;
      a.params = c.input<bi::sample_params>(1);
      a.token = c.output<std::int32_t>(0), a.logprob = c.output<float>(1), a.flags = c.output<std::uint32_t>(2);
      return a;
    });
    set_schedule(
        t, [vocab](std::int64_t rows) { return bi::schedule::pick_sample_schedule(rows, vocab, sizeof(T), true); });
    return t;
  };
  all.push_back({"sample", bi::contract::sample_draft::name, type_name<T>(), shape_of("vocab", vocab), make});
}

// A row of the table is a request of `each` rows of logits.
template <class T>
void add_verify(case_list& all, std::int64_t each, std::int64_t vocab) {
  const auto make = [each, vocab](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("logits", each * vocab, seed)};
    const auto params = sample_settings(pool_rows * each, vocab, seed + 1);
    // Most drafts are what is drawn there.
    std::vector<std::int32_t> draft(params.size());
    bi::sample_args<T> drawn;
    drawn.rows = pool_rows * each, drawn.vocab = vocab;
    drawn.logits = reinterpret_cast<const T*>(t.in[0].pool.data());
    drawn.params = params.data(), drawn.token = draft.data();
    if (const bi::status st = bi::reference::sample(drawn); !st) throw std::runtime_error(bi::describe(st));
    generator g(seed + 2);
    for (std::int32_t& d : draft) {
      if (const std::int64_t fate = g.below(20); fate < 3) d = fate == 0 ? -1 : fate == 1 ? d ^ 1 : -5;
    }
    t.in.push_back(own_column("params", params));
    t.in.push_back(own_column("draft", draft));
    t.in[0].packed = true;
    t.few_rows = 1;
    t.shared = {places<std::int32_t>(t.most_rows + 1, each)};
    t.out = {output_column<std::int32_t>("token", each, true), output_column<float>("logprob", each, true),
             output_column<std::uint32_t>("flags", each, true), output_column<std::int32_t>("accepted", 1, true)};
    bind<verify_op>(t, unless_fp16<T>(always(sample_schedules)), [each, vocab](const call& c) {
      bi::verify_args<T> a;
      a.sample.logits = c.input<T>(0);
      a.sample.rows = c.rows * each, a.sample.vocab = vocab;
      a.sample.params = c.input<bi::sample_params>(1);
      a.sample.token = c.output<std::int32_t>(0), a.sample.logprob = c.output<float>(1);
      a.sample.flags = c.output<std::uint32_t>(2);
      a.draft = c.input<std::int32_t>(2), a.start = c.array<std::int32_t>(0);
      a.requests = c.rows;
      a.accepted = c.output<std::int32_t>(3);
      return a;
    });
    set_schedule(t, [each, vocab](std::int64_t rows) {
      return bi::schedule::pick_sample_schedule(rows * each, vocab, sizeof(T), true);
    });
    return t;
  };
  all.push_back({"verify", bi::contract::sample_draft::name, type_name<T>(),
                 "rows=" + std::to_string(each) + ",vocab=" + std::to_string(vocab), make});
}

template <class T>
void add_of(case_list& all) {
  for (const std::int64_t vocab : {777, 20000}) add_sample<T>(all, vocab);
  add_verify<T>(all, 3, 777);
}

}  // namespace

void add_sample_cases(case_list& all) {
  add_of<bi::bf16>(all);
  add_of<bi::fp16>(all);
  add_of<float>(all);
}

}  // namespace test::needle
