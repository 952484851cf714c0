// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/logits_edit.hpp"
#include "bi/kv_cache.hpp"
#include "bi/status.hpp"

// Which tokens a request's view holds and how often, for the penalties of logits_edit (bi/logits_edit.hpp). Sums of
// integers and sets: no order and no launch shape can change them, so a branch, a merged view, a request that was
// preempted and one that was not have the counts of the tokens that they see. All operations leave token ids outside
// the vocabulary out, -1 for instance, which sample() gives a row without a candidate.
//
// Contract: contract::logits_edit_draft (bi/contract/logits_edit.hpp). No workspace, no alignment beyond that of the elements.
// The counts' three arrays must overlap neither one another nor what a call reads. Nothing is written when the returned
// status is not ok. A slot past the counts is the caller's mistake: the reference refuses the call, kernels take it for
// padding. On the GPU see bi/token_counts.cuh, on the CPU bi/reference/token_counts.hpp.

BI_NAMESPACE_BEGIN

// The counts of `slots` requests, on the device. The sets hold a bit for each token: bit id % 32 of word id / 32. All
// of it starts as zeros, which is the caller's to see to, once.
struct BI_TYPE token_counts {
  std::int32_t* count = nullptr;    // [slots, vocab] how often a token was put out
  std::uint32_t* output = nullptr;  // [slots, ceil(vocab / 32)] tokens that may have been; nobody reads others' counts
  std::uint32_t* prompt = nullptr;  // as output, of the prompt; null: prompts don't count
  std::int64_t count_stride = 0;    // elements from slot to slot, at least vocab; 0: vocab
  std::int64_t bits_stride = 0;     // words from slot to slot, at least ceil(vocab / 32); 0: that
  std::int64_t slots = 0;
  std::int64_t vocab = 0;
};
enum class token_part : std::uint8_t { output, prompt };

BI_HD inline std::int64_t count_stride(const token_counts& t) { return t.count_stride == 0 ? t.vocab : t.count_stride; }
BI_HD inline std::int64_t bits_stride(const token_counts& t) {
  return t.bits_stride == 0 ? contract::token_words(t.vocab) : t.bits_stride;
}

// Empties slot[i], for each i.
struct BI_TYPE clear_counts_args {
  token_counts counts{};
  const std::int32_t* slot = nullptr;  // [requests], < 0: padding
  std::int64_t requests = 0;
};

// Counts token[t] for slot[t], or takes it back: for tokens of the prompt only its bit is set, which nothing but
// clear_counts takes back.
struct BI_TYPE count_tokens_args {
  token_counts counts{};
  const std::int32_t* token = nullptr;  // [tokens]
  const std::int32_t* slot = nullptr;   // [tokens], < 0: padding
  std::int64_t tokens = 0;
  token_part part = token_part::output;
  std::int32_t times = 1;  // 1, or -1 to take back what was counted
};

// Counts the tokens at view indices [first[i], first[i] + count[i]) of request i's view for slot[i]: of a merged view
// the tokens of all its branches. count[i] <= 0: none. The view must hold as many: the reference refuses other calls,
// kernels leave out tokens whose page is none of the cache's.
struct BI_TYPE count_view_args {
  token_counts counts{};
  kv_view view{};
  std::int64_t num_pages = 0;           // of the cache that the view leads into
  std::int64_t page_size = 16;          // tokens
  const std::int32_t* token = nullptr;  // [num_pages * page_size] the token whose K and V are in that slot of the cache
  const std::int32_t* first = nullptr;  // [requests], null: 0
  const std::int32_t* count = nullptr;  // [requests]
  const std::int32_t* slot = nullptr;   // [requests] of the counts, < 0: padding
  std::int64_t requests = 0;
  token_part part = token_part::output;
};

namespace token_counts_detail {

struct bytes_of_counts {
  std::int64_t count = 0, bits = 0;
};
inline bytes_of_counts bytes(const token_counts& t) {
  bytes_of_counts b;
  b.count = span_bytes(t.slots, count_stride(t), t.vocab, 4);
  b.bits = span_bytes(t.slots, bits_stride(t), contract::token_words(t.vocab), 4);
  return b;
}

inline void check(checker& c, const token_counts& t) {
  c.at_least("counts.slots", t.slots, 0).at_most("counts.slots", t.slots, std::int64_t{1} << 31);
  c.at_least("counts.vocab", t.vocab, t.slots > 0 ? 1 : 0);
  c.at_most("counts.vocab", t.vocab, (std::int64_t{1} << 31) - 1);
  if (!c.ok()) return;
  c.stride("counts.count_stride", t.count_stride, t.vocab, "counts.vocab", t.slots, 4);
  c.stride("counts.bits_stride", t.bits_stride, contract::token_words(t.vocab), "ceil(counts.vocab / 32)", t.slots, 4);
  if (!c.ok() || t.slots == 0) return;
  c.pointer("counts.count", t.count).pointer("counts.output", t.output).optional_pointer("counts.prompt", t.prompt);
}

// Of operations that write them.
inline void check_written(checker& c, const token_counts& t, token_part part) {
  check(c, t);
  c.at_least("counts.slots", t.slots, 1);
  c.supported("part", static_cast<int>(part), part <= token_part::prompt, "output, prompt");
  if (!c.ok()) return;
  if (part == token_part::prompt) c.pointer("counts.prompt", t.prompt);
  const bytes_of_counts b = bytes(t);
  c.disjoint("counts.output", t.output, b.bits, "counts.count", t.count, b.count);
  c.disjoint("counts.prompt", t.prompt, b.bits, "counts.count", t.count, b.count);
  c.disjoint("counts.prompt", t.prompt, b.bits, "counts.output", t.output, b.bits);
}

// `name` of `size` bytes, read by an operation that writes counts.
inline void check_apart(checker& c, const token_counts& t, const char* name, const void* p, std::int64_t size) {
  if (!c.ok()) return;
  const bytes_of_counts b = bytes(t);
  c.disjoint("counts.count", t.count, b.count, name, p, size);
  c.disjoint("counts.output", t.output, b.bits, name, p, size);
  c.disjoint("counts.prompt", t.prompt, b.bits, name, p, size);
}

}  // namespace token_counts_detail

inline status check(const clear_counts_args& a) {
  checker c("clear_counts");
  c.at_least("requests", a.requests, 0).at_most("requests", a.requests, std::int64_t{1} << 31);
  if (!c.ok() || a.requests == 0) return c.result();
  token_counts_detail::check_written(c, a.counts, token_part::output);
  c.pointer("slot", a.slot);
  token_counts_detail::check_apart(c, a.counts, "slot", a.slot, a.requests * 4);
  return c.result();
}

inline status check(const count_tokens_args& a) {
  checker c("count_tokens");
  c.at_least("tokens", a.tokens, 0).at_most("tokens", a.tokens, std::int64_t{1} << 40);
  if (!c.ok() || a.tokens == 0) return c.result();
  token_counts_detail::check_written(c, a.counts, a.part);
  const bool back = a.times == -1 && a.part == token_part::output;
  c.supported("times", a.times, a.times == 1 || back, a.part == token_part::output ? "1, -1" : "1 for a prompt");
  c.pointer("token", a.token).pointer("slot", a.slot);
  token_counts_detail::check_apart(c, a.counts, "token", a.token, a.tokens * 4);
  token_counts_detail::check_apart(c, a.counts, "slot", a.slot, a.tokens * 4);
  return c.result();
}

inline status check(const count_view_args& a) {
  checker c("count_view");
  constexpr std::int64_t large = std::int64_t{1} << 31;
  c.at_least("requests", a.requests, 0).at_most("requests", a.requests, large);
  if (!c.ok() || a.requests == 0) return c.result();
  token_counts_detail::check_written(c, a.counts, a.part);
  c.at_least("num_pages", a.num_pages, 0).at_most("num_pages", a.num_pages, large);
  c.at_least("page_size", a.page_size, 1).at_most("page_size", a.page_size, large);
  if (c.ok()) c.stride("page_size", a.page_size, 0, nullptr, a.num_pages, 4);
  if (a.num_pages > 0) c.pointer("token", a.token);
  if (c.ok()) check_view(c, a.view, a.requests);
  c.optional_pointer("first", a.first).pointer("count", a.count).pointer("slot", a.slot);
  if (!c.ok()) return c.result();
  token_counts_detail::check_apart(c, a.counts, "token", a.token, a.num_pages * a.page_size * 4);
  token_counts_detail::check_apart(c, a.counts, "first", a.first, a.requests * 4);
  token_counts_detail::check_apart(c, a.counts, "count", a.count, a.requests * 4);
  token_counts_detail::check_apart(c, a.counts, "slot", a.slot, a.requests * 4);
  return c.result();
}

// Enqueued on `stream`; defined in bi/token_counts.cuh.
template <class Contract = contract::logits_edit_draft>
status clear_counts(const clear_counts_args& args, cuda_stream stream);
template <class Contract = contract::logits_edit_draft>
status count_tokens(const count_tokens_args& args, cuda_stream stream);
template <class Contract = contract::logits_edit_draft>
status count_view(const count_view_args& args, cuda_stream stream);

BI_NAMESPACE_END
