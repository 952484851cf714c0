// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/check.hpp"
#include "bi/contract/logits_edit.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"
#include "bi/token_counts.hpp"

BI_NAMESPACE_BEGIN

// What happens to one row. Lives on the device, one per row; nothing in it may come from the batch but where its data
// lie. As it stands here the row stays as it is. Values out of their domain don't stop the batch: their row becomes
// NaN, and sample() reports it.
struct BI_TYPE logits_edit_params {
  float repetition = 1;         // normal, finite and > 0; 1: off. Of tokens put out or in the prompt
  float frequency = 0;          // finite; 0: off. Times how often a token was put out
  float presence = 0;           // finite; 0: off. Of tokens put out
  std::int32_t slot = -1;       // of the row's request in the counts, < 0: no penalties, whatever the numbers above
  std::int32_t mask = -1;       // row of the mask, < 0: every token is allowed
  std::int32_t bias_begin = 0;  // entries [begin, end) of the list of biases
  std::int32_t bias_end = 0;
  std::int32_t draft_begin = 0;  // tokens [begin, end) of `draft` count as put out, on top of the slot's
  std::int32_t draft_end = 0;
};

// Penalties, biases and a grammar's mask, in this order, on each row of logits. Contract: contract::logits_edit_draft
// (bi/contract/logits_edit.hpp). T is bf16, fp16 or float, Out is T or float. No workspace.
//
// In place (out == logits, the same stride and type) only logits that change are read or written, and a row that stays
// as it is costs nothing. 16-bit logits in place are rounded again: of large ones small penalties get lost, and ties
// appear. Out = float avoids that.
//
// Speculative decoding: rows start[i] + j of verify_args take draft_begin = start[i], draft_end = start[i] + j with the
// same `draft`; so they are edited as if the drafts before them had been drawn.
//
// No alignment beyond that of the elements is required. Alias: out may be logits itself (the same type and stride); apart from this out overlaps
// nothing. Nothing is written when the returned status is not ok.
//
// Entries of the list of biases whose id is not in the vocabulary are left out; several of one id are added in the
// order of the list. Lists of some hundreds are what the kernel is made for, sorted by id best.
template <class T, class Out = T>
struct BI_TYPE logits_edit_args {
  const T* logits = nullptr;       // [rows, vocab]
  std::int64_t logits_stride = 0;  // elements between rows, 0: vocab
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
  const logits_edit_params* params = nullptr;  // [rows]
  token_counts counts{};                       // slots = 0: no row has a slot. counts.vocab is at least vocab
  const std::int32_t* draft = nullptr;         // [drafts]
  std::int64_t drafts = 0;
  const std::int32_t* bias_id = nullptr;  // [biases]
  const float* bias = nullptr;            // [biases]
  std::int64_t biases = 0;
  const std::int32_t* mask = nullptr;  // [masks, ceil(vocab / 32)] bit id % 32 of word id / 32: the token is allowed
  std::int64_t mask_stride = 0;        // words between rows, 0: ceil(vocab / 32)
  std::int64_t masks = 0;
  Out* out = nullptr;           // [rows, vocab]
  std::int64_t out_stride = 0;  // as logits_stride
};

template <class T, class Out>
status check(const logits_edit_args<T, Out>& a) {
  static_assert(std::is_same_v<T, Out> || std::is_same_v<Out, float>, "the result has the logits' type or is fp32");
  checker c("logits_edit");
  constexpr std::int64_t most = (std::int64_t{1} << 31) - 1, params_bytes = sizeof(logits_edit_params);
  c.at_least("rows", a.rows, 0).at_least("vocab", a.vocab, 1).at_most("vocab", a.vocab, most);
  if (!c.ok()) return c.result();
  const std::int64_t words = contract::token_words(a.vocab);
  c.stride("logits_stride", a.logits_stride, a.vocab, "vocab", a.rows, sizeof(T));
  c.stride("out_stride", a.out_stride, a.vocab, "vocab", a.rows, sizeof(Out));
  c.stride("rows", a.rows, 0, nullptr, 1, params_bytes);
  token_counts_detail::check(c, a.counts);
  if (a.counts.slots > 0) c.at_least("counts.vocab", a.counts.vocab, a.vocab, "vocab");
  c.at_least("drafts", a.drafts, 0).at_most("drafts", a.drafts, most);
  c.at_least("biases", a.biases, 0).at_most("biases", a.biases, most);
  c.at_least("masks", a.masks, 0).at_most("masks", a.masks, most);
  c.stride("mask_stride", a.mask_stride, words, "ceil(vocab / 32)", a.masks, 4);
  if (!c.ok() || a.rows == 0) return c.result();
  c.pointer("logits", a.logits).pointer("params", a.params).pointer("out", a.out);
  if (a.drafts > 0) c.pointer("draft", a.draft);
  if (a.biases > 0) c.pointer("bias_id", a.bias_id).pointer("bias", a.bias);
  if (a.masks > 0) c.pointer("mask", a.mask);
  if (!c.ok()) return c.result();
  const auto stride = [&](std::int64_t s) { return s == 0 ? a.vocab : s; };
  const bool same = std::is_same_v<T, Out> && (a.rows == 1 || stride(a.logits_stride) == stride(a.out_stride));
  const token_counts_detail::bytes_of_counts counts = token_counts_detail::bytes(a.counts);
  const struct {
    const char* name;
    const void* data;
    std::int64_t bytes;
    bool same;
  } inputs[] = {
      {"logits", a.logits, span_bytes(a.rows, a.logits_stride, a.vocab, sizeof(T)), same},
      {"params", a.params, a.rows * params_bytes, false},
      {"counts.count", a.counts.count, counts.count, false},
      {"counts.output", a.counts.output, counts.bits, false},
      {"counts.prompt", a.counts.prompt, counts.bits, false},
      {"draft", a.draft, a.drafts * 4, false},
      {"bias_id", a.bias_id, a.biases * 4, false},
      {"bias", a.bias, a.biases * 4, false},
      {"mask", a.mask, span_bytes(a.masks, a.mask_stride, words, 4), false},
  };
  const std::int64_t out_bytes = span_bytes(a.rows, a.out_stride, a.vocab, sizeof(Out));
  for (const auto& in : inputs) c.disjoint("out", a.out, out_bytes, in.name, in.data, in.bytes, in.same);
  return c.result();
}

// Enqueued on `stream`; defined in bi/logits_edit.cuh.
template <class T, class Out = T, class Contract = contract::logits_edit_draft>
status logits_edit(const logits_edit_args<T, Out>& args, cuda_stream stream);

BI_NAMESPACE_END
