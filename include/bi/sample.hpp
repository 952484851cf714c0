// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// How one row is sampled. Lives on the device, one per row; nothing in it may come from the batch. Out-of-domain values
// don't stop the batch: they set a flag on their own row (see sample_flag).
struct sample_params {
  float temperature = 0;           // 0: greedy; otherwise finite and > 0
  std::int32_t top_k = 0;          // keep the k largest; <= 0 or >= vocab: off
  float top_p = 1;                 // keep the smallest prefix that holds this share of the weight; >= 1: off
  float min_p = 0;                 // drop tokens below min_p times the largest probability; <= 0: off
  std::uint64_t seed = 0;
  std::uint64_t branch = 0;        // hash of the branch path, 0 for a plain request
  std::uint32_t sample_index = 0;  // n-th sample of one prompt
  std::uint32_t ordinal = 0;       // token ordinal, counted from the prompt's start
};

enum sample_flag : std::uint32_t {
  sample_ok = 0,
  sample_saw_nan = 1,        // NaN logits were taken as -Inf
  sample_no_candidate = 2,   // every logit is -Inf or NaN: token is -1, logprob NaN
  sample_bad_params = 4,     // temperature, top_p or min_p is NaN, or temperature is negative or infinite: token is -1
};

// One token per row of logits. Contract: contract::sample_draft (bi/contract/sample.hpp). T is bf16, fp16 or float.
// vocab must be at least 1 and at most 2^24. Outputs that are null are skipped, except token.
template <class T>
struct sample_args {
  const T* logits = nullptr;       // [rows, vocab]
  std::int64_t logits_stride = 0;  // elements between rows, 0: vocab
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
  const sample_params* params = nullptr;  // [rows]
  std::int32_t* token = nullptr;          // [rows]
  float* logprob = nullptr;               // [rows] log_softmax of the row as given, at the token
  std::uint32_t* flags = nullptr;         // [rows] sample_flag bits
};

template <class T>
status check(const sample_args<T>& a) {
  checker c("sample");
  c.at_least("rows", a.rows, 0);
  if (!c.ok() || a.rows == 0) return c.result();
  c.at_least("vocab", a.vocab, 1).at_most("vocab", a.vocab, std::int64_t{1} << 24);
  c.stride("logits_stride", a.logits_stride, a.vocab, "vocab", a.rows, sizeof(T));
  c.pointer("logits", a.logits).pointer("params", a.params).pointer("token", a.token);
  c.optional_pointer("logprob", a.logprob).optional_pointer("flags", a.flags);
  if (!c.ok()) return c.result();
  const std::int64_t logits_bytes = span_bytes(a.rows, a.logits_stride, a.vocab, sizeof(T));
  c.disjoint("token", a.token, a.rows * 4, "logits", a.logits, logits_bytes);
  c.disjoint("logprob", a.logprob, a.rows * 4, "logits", a.logits, logits_bytes);
  c.disjoint("flags", a.flags, a.rows * 4, "logits", a.logits, logits_bytes);
  return c.result();
}

BI_NAMESPACE_END
