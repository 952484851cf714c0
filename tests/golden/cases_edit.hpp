// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "golden/cases_tokens.hpp"
#include "support/backend.hpp"
#include "support/ops_edit.hpp"

namespace test {

// ---- logits_edit

struct edit_case {
  std::int64_t rows, vocab;
  values kind = values::normal;
  bool in_place = false;
  std::int64_t pad = 0;      // added to every stride
  std::int64_t offset = 0;   // elements before logits and out
  int seen_percent = 2;      // of the vocabulary, in the prompt and in the output
  bool sorted_bias = false;  // lists of biases are sorted by id
  bool prompts = true;       // the table has bits of prompts
};
inline std::string to_string(const edit_case& c) {
  return "rows=" + std::to_string(c.rows) + ",vocab=" + std::to_string(c.vocab) +
         ",values=" + std::to_string(static_cast<int>(c.kind)) + (c.in_place ? ",in_place" : "") +
         (c.pad != 0 ? ",pad=" + std::to_string(c.pad) : "") +
         (c.offset != 0 ? ",offset=" + std::to_string(c.offset) : "") + ",seen=" + std::to_string(c.seen_percent) +
         (c.sorted_bias ? ",sorted" : "") + (c.prompts ? "" : ",no_prompts");
}

// Everything that a call reads. Slots, lists and masks are fewer than rows, so rows share them.
template <class T>
struct edit_data {
  std::vector<T> logits;
  std::vector<bi::logits_edit_params> params;
  std::vector<std::int32_t> count;
  std::vector<std::uint32_t> output, prompt;
  std::vector<std::int32_t> draft, bias_id, mask;
  std::vector<float> bias;
  std::int64_t slots = 0, masks = 0;
};

// Every step alone, all of them together, none, and what makes a row invalid.
inline std::vector<bi::logits_edit_params> edit_settings(std::int64_t rows, std::int64_t slots, std::int64_t masks,
                                                         std::int64_t biases, std::int64_t drafts, std::uint64_t seed) {
  generator g(seed);
  const auto pick = [&](std::int64_t n) { return static_cast<std::int32_t>(n > 0 ? g.below(n) : -1); };
  std::vector<bi::logits_edit_params> out(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < out.size(); ++r) {
    bi::logits_edit_params& row = out[r];
    const std::size_t turn = r % 13;
    const bool all = turn == 0 || turn > 9;
    row.slot = pick(slots);
    if (all || turn == 1) row.repetition = bi::div_rn(bi::float_from_int64(g.between(300, 2000)), 1000.0f);
    if (all || turn == 2) row.frequency = bi::div_rn(bi::float_from_int64(g.between(-2000, 2000)), 1000.0f);
    if (all || turn == 3) row.presence = bi::div_rn(bi::float_from_int64(g.between(-2000, 2000)), 1000.0f);
    if (all || turn == 4) row.mask = pick(masks);
    if (all || turn == 5 || turn == 6) {
      row.bias_begin = static_cast<std::int32_t>(g.between(0, biases));
      row.bias_end = static_cast<std::int32_t>(g.between(row.bias_begin, biases));
    }
    if (all || turn == 2 || turn == 6) {
      row.draft_begin = static_cast<std::int32_t>(g.between(0, drafts));
      row.draft_end = static_cast<std::int32_t>(g.between(row.draft_begin, drafts));
    }
    if (turn == 7) row.slot = -3, row.repetition = bi::nan_f32();  // not looked at
    if (turn == 8 && r % 2 == 0) row.repetition = r % 4 == 0 ? 0.0f : bi::inf_f32();
    if (turn == 8 && r % 2 == 1) row.mask = static_cast<std::int32_t>(masks);
  }
  return out;
}

// Tokens of a set of about percent % of them; some whole words, as grammars have.
inline void random_bits(generator& g, std::uint32_t* words, std::int64_t n, int percent) {
  for (std::int64_t w = 0; w < n; ++w) {
    words[w] = g.chance(2) ? ~0u : 0;
    for (int b = 0; b < 32; ++b) words[w] |= g.chance(percent) ? 1u << b : 0;
  }
}

template <class T>
edit_data<T> make_edit_data(const edit_case& c, std::uint64_t seed) {
  generator g(seed + 17);
  edit_data<T> d;
  const std::int64_t words = bi::contract::token_words(c.vocab), count_stride = c.vocab + c.pad;
  const std::int64_t bits_stride = words + c.pad, biases = c.vocab < 300 ? c.vocab : 300, drafts = 12;
  d.logits = random_vector<T>(c.rows * (c.vocab + c.pad) + c.offset, c.kind, seed);
  d.slots = c.rows / 2 + 1, d.masks = c.rows / 3 + 1;
  d.params = edit_settings(c.rows, d.slots, d.masks, biases, drafts, seed + 1);
  d.count.assign(static_cast<std::size_t>(d.slots * count_stride), 0);
  d.output.assign(static_cast<std::size_t>(d.slots * bits_stride), 0);
  d.prompt = d.output;
  d.mask.assign(static_cast<std::size_t>(d.masks * bits_stride), 0);
  std::vector<std::uint32_t> mask(d.mask.size());
  for (std::int64_t s = 0; s < d.slots; ++s) {
    random_bits(g, d.output.data() + s * bits_stride, bits_stride, c.seen_percent);
    random_bits(g, d.prompt.data() + s * bits_stride, bits_stride, c.seen_percent);
    // Counts that nobody may read are there too, and some that were taken back, to zero or below.
    for (std::int64_t i = 0; i < count_stride; ++i) {
      d.count[static_cast<std::size_t>(s * count_stride + i)] = static_cast<std::int32_t>(g.between(-1, 40));
    }
  }
  for (std::int64_t m = 0; m < d.masks; ++m) {
    random_bits(g, mask.data() + m * bits_stride, bits_stride, m % 3 == 0 ? 1 : m % 3 == 1 ? 50 : 98);
  }
  if (!mask.empty()) std::memcpy(d.mask.data(), mask.data(), mask.size() * 4);
  for (std::int64_t i = 0; i < drafts; ++i) {
    d.draft.push_back(static_cast<std::int32_t>(g.chance(20) ? -1 : g.below(g.chance(50) ? c.vocab : 9)));
  }
  for (std::int64_t i = 0; i < biases; ++i) {
    // Many of one tile, some twice, some outside the vocabulary.
    const std::int64_t id = g.chance(50) ? g.below(c.vocab) : g.between(-3, c.vocab < 64 ? c.vocab + 3 : 60);
    d.bias_id.push_back(static_cast<std::int32_t>(g.chance(3) ? c.vocab + g.below(40) : id));
    d.bias.push_back(g.chance(4) ? bi::neg_inf_f32() : bi::mul_rn(g.normal_24(), 4.0f));
  }
  if (c.sorted_bias) std::sort(d.bias_id.begin(), d.bias_id.end());
  return d;
}

template <class T, class Out, class Backend>
bi::logits_edit_args<T, Out> make_edit_args(Backend& b, const edit_case& c, const edit_data<T>& d, Out*& out) {
  const std::int64_t bits_stride = bi::contract::token_words(c.vocab) + c.pad;
  bi::logits_edit_args<T, Out> a;
  a.rows = c.rows, a.vocab = c.vocab;
  a.logits_stride = a.out_stride = c.vocab + c.pad;
  T* const logits = b.input(d.logits);
  a.logits = logits + c.offset;
  a.params = b.input(d.params);
  a.counts.count = b.input(d.count);
  a.counts.output = b.input(d.output);
  a.counts.prompt = c.prompts ? b.input(d.prompt) : nullptr;
  a.counts.count_stride = c.vocab + c.pad, a.counts.bits_stride = bits_stride;
  a.counts.slots = d.slots, a.counts.vocab = c.vocab;
  a.draft = b.input(d.draft), a.drafts = static_cast<std::int64_t>(d.draft.size());
  a.bias_id = b.input(d.bias_id), a.bias = b.input(d.bias), a.biases = static_cast<std::int64_t>(d.bias.size());
  a.mask = b.input(d.mask), a.mask_stride = bits_stride, a.masks = d.masks;
  if constexpr (std::is_same_v<T, Out>) {
    if (c.in_place) out = logits;
  }
  if (!c.in_place) out = b.template output<Out>(c.rows * a.out_stride + c.offset);
  a.out = out + c.offset;
  return a;
}

template <class T, class Out, class Backend>
std::vector<Out> run_logits_edit(Backend& b, const edit_case& c, std::uint64_t seed = 1) {
  Out* out = nullptr;
  const auto a = make_edit_args<T, Out>(b, c, make_edit_data<T>(c, seed), out);
  b.run(logits_edit_op{}, a);
  return b.read(out);
}

// ---- counts

struct counts_case {
  std::int64_t slots, vocab, tokens;  // tokens, or requests
  std::int64_t pad = 0;
  bi::token_part part = bi::token_part::output;
};
inline std::string to_string(const counts_case& c) {
  return "slots=" + std::to_string(c.slots) + ",vocab=" + std::to_string(c.vocab) +
         ",tokens=" + std::to_string(c.tokens) + (c.pad != 0 ? ",pad=" + std::to_string(c.pad) : "") +
         (c.part == bi::token_part::prompt ? ",prompt" : "");
}

// A table that is in use: where a bit is 0 the count is.
template <class Backend>
bi::token_counts random_counts(Backend& b, const counts_case& c, std::uint64_t seed) {
  generator g(seed);
  bi::token_counts t;
  t.slots = c.slots, t.vocab = c.vocab;
  t.count_stride = c.vocab + c.pad, t.bits_stride = bi::contract::token_words(c.vocab) + c.pad;
  std::vector<std::int32_t> count(static_cast<std::size_t>(t.slots * t.count_stride));
  std::vector<std::uint32_t> output(static_cast<std::size_t>(t.slots * t.bits_stride)), prompt = output;
  for (std::int64_t s = 0; s < c.slots; ++s) {
    for (std::int64_t i = 0; i < c.vocab; ++i) {
      if (g.chance(4)) prompt[static_cast<std::size_t>(s * t.bits_stride + i / 32)] |= 1u << i % 32;
      if (!g.chance(4)) continue;
      output[static_cast<std::size_t>(s * t.bits_stride + i / 32)] |= 1u << i % 32;
      count[static_cast<std::size_t>(s * t.count_stride + i)] = static_cast<std::int32_t>(g.below(9));
    }
  }
  t.count = b.input(count);
  t.output = b.input(output);
  t.prompt = b.input(prompt);
  return t;
}
// Counts, then bits of the output, then of the prompt.
template <class Backend>
std::vector<std::uint32_t> read_counts(Backend& b, const bi::token_counts& t) {
  std::vector<std::uint32_t> out;
  for (const std::int32_t n : b.read(t.count)) out.push_back(static_cast<std::uint32_t>(n));
  for (const std::uint32_t* bits : {t.output, t.prompt}) {
    const auto words = b.read(bits);
    out.insert(out.end(), words.begin(), words.end());
  }
  return out;
}
inline std::vector<std::int32_t> random_ids(std::int64_t n, std::int64_t low, std::int64_t below, std::uint64_t seed) {
  generator g(seed);
  std::vector<std::int32_t> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(static_cast<std::int32_t>(g.between(low, below - 1)));
  return out;
}

template <class Backend>
std::vector<std::uint32_t> run_clear_counts(Backend& b, const counts_case& c, std::uint64_t seed = 1) {
  bi::clear_counts_args a;
  a.counts = random_counts(b, c, seed);
  a.slot = b.input(random_ids(c.tokens, -1, c.slots, seed + 1));
  a.requests = c.tokens;
  b.run(clear_counts_op{}, a);
  return read_counts(b, a.counts);
}
template <class Backend>
std::vector<std::uint32_t> run_count_tokens(Backend& b, const counts_case& c, std::uint64_t seed = 1) {
  bi::count_tokens_args a;
  a.counts = random_counts(b, c, seed);
  const auto token = random_ids(c.tokens, -2, c.vocab + 2, seed + 1);
  const auto slot = random_ids(c.tokens, -1, c.slots, seed + 2);
  a.token = b.input(token);
  a.slot = b.input(slot);
  a.tokens = c.tokens, a.part = c.part;
  b.run(count_tokens_op{}, a);
  if (c.part == bi::token_part::output) {
    a.tokens = c.tokens / 3, a.times = -1;
    b.run(count_tokens_op{}, a);
  }
  return read_counts(b, a.counts);
}
// Requests' views, of which each takes a part.
template <class Backend>
std::vector<std::uint32_t> run_count_view(Backend& b, const counts_case& c, bi::view_kind kind, bool loose_runs,
                                          std::uint64_t seed = 1) {
  bi::count_view_args a;
  a.counts = random_counts(b, c, seed);
  a.num_pages = 50, a.page_size = 12;
  a.token = b.input(random_ids(a.num_pages * a.page_size, -1, c.vocab + 1, seed + 1));
  const view_data v = random_views(c.tokens, a.num_pages, a.page_size, loose_runs, seed + 2);
  a.view = make_view(b, v, kind);
  a.first = b.input(v.first);
  a.count = b.input(v.count);
  a.slot = b.input(random_ids(c.tokens, -1, c.slots, seed + 3));
  a.requests = c.tokens, a.part = c.part;
  b.run(count_view_op{}, a);
  return read_counts(b, a.counts);
}

// ---- golden

template <class Backend, class Sink>
void golden_edit(Backend& b, Sink&& sink) {
  constexpr std::uint64_t id = bi::contract::logits_edit_draft::id();
  const auto emit = [&](const std::string& name, const auto& out) {
    sink(golden_entry{name, id, digest_of(out), static_cast<std::int64_t>(out.size())});
    b.clear();
  };
  const auto edits = [&](auto type, auto result) {
    using T = decltype(type);
    using Out = decltype(result);
    const std::string types = std::string(bi::dtype_traits<T>::name) +
                              (std::is_same_v<T, Out> ? "" : std::string("-") + bi::dtype_traits<Out>::name);
    for (const values kind : all_values) {
      const edit_case c{26, 2203, kind, std::is_same_v<T, Out>, 5, 1};
      emit("logits_edit/" + types + "/" + to_string(c), run_logits_edit<T, Out>(b, c));
    }
  };
  edits(bi::bf16{}, bi::bf16{});
  edits(bi::fp16{}, bi::fp16{});
  edits(float{}, float{});
  edits(bi::bf16{}, float{});
  for (const bi::token_part part : {bi::token_part::output, bi::token_part::prompt}) {
    const counts_case c{7, 1003, 500, 3, part};
    emit("count_tokens/" + to_string(c), run_count_tokens(b, c));
    const counts_case v{7, 1003, 9, 3, part};
    emit("count_view/" + to_string(v), run_count_view(b, v, bi::view_kind::run_list, true));
  }
  const counts_case c{7, 1003, 4, 3};
  emit("clear_counts/" + to_string(c), run_clear_counts(b, c));
}

}  // namespace test
