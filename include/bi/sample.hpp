// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/check.hpp"
#include "bi/contract/sample.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// How one row is sampled. Lives on the device, one per row; nothing in it may come from the batch. Out-of-domain values
// don't stop the batch: they set a flag on their own row (see sample_flag).
struct BI_TYPE sample_params {
  float temperature = 0;   // 0: greedy; otherwise normal, finite and > 0
  std::int32_t top_k = 0;  // keep the k largest; <= 0 or >= vocab: off
  float top_p = 1;         // keep the fewest that hold this share of the weight, at least one; >= 1: off
  float min_p = 0;         // drop tokens below min_p times the largest probability; <= 0: off
  std::uint64_t seed = 0;
  std::uint64_t branch = 0;        // contract::branch_path of the branch, 0 for a plain request
  std::uint32_t sample_index = 0;  // n-th sample of one prompt
  std::uint32_t ordinal = 0;       // of the token to be drawn, counted from the prompt's start
};

enum sample_flag : std::uint32_t {
  sample_ok = 0,
  sample_saw_nan = 1,       // NaN logits were taken as -Inf
  sample_no_candidate = 2,  // every logit, or its multiple by 1 / temperature, is -Inf or NaN: token -1, logprob NaN
  sample_bad_params = 4,    // a NaN, or a temperature that is negative, subnormal or infinite: token -1, logprob NaN
};

// One token per row of logits. Contract: contract::sample_draft (bi/contract/sample.hpp). T is bf16, fp16 or float.
// vocab must be at least 1 and at most contract::sample_max_vocab. Outputs that are null are skipped, except token.
// No workspace, and no alignment beyond that of the elements; rows that start at multiples of 16 bytes are read faster.
// Outputs overlap neither the inputs nor each other. Nothing is written when the returned status is not ok.
template <class T>
struct BI_TYPE sample_args {
  const T* logits = nullptr;       // [rows, vocab]
  std::int64_t logits_stride = 0;  // elements between rows, 0: vocab
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
  const sample_params* params = nullptr;  // [rows]
  std::int32_t* token = nullptr;          // [rows]
  float* logprob = nullptr;               // [rows] log_softmax (fp32 result) of the row as given, at the token
  std::uint32_t* flags = nullptr;         // [rows] sample_flag bits
};

// Speculative decoding. Row start[i] + j holds the logits that follow the first j draft tokens of request i, and its
// params the ordinal at which the next one is drawn; draft[row] is the token proposed there, < 0: none. A draft token
// is accepted if and only if sample() draws it there and all before it were accepted, so the tokens that come out are
// those of drawing one after another: token[start[i]] ... token[start[i] + accepted[i]], the last of them not proposed
// (it is missing where the last row had a proposal and all were accepted).
template <class T>
struct BI_TYPE verify_args {
  sample_args<T> sample{};
  const std::int32_t* draft = nullptr;  // [rows]
  const std::int32_t* start = nullptr;  // [requests + 1] first row of each request, not decreasing
  std::int64_t requests = 0;
  std::int32_t* accepted = nullptr;  // [requests]
};

namespace sample_detail {
template <class T>
void check(checker& c, const sample_args<T>& a) {
  c.at_least("rows", a.rows, 0);
  c.at_least("vocab", a.vocab, 1).at_most("vocab", a.vocab, contract::sample_max_vocab);
  c.stride("logits_stride", a.logits_stride, a.vocab, "vocab", a.rows, sizeof(T));
  c.stride("rows", a.rows, 0, nullptr, 1, sizeof(sample_params));
  if (!c.ok() || a.rows == 0) return;
  c.pointer("logits", a.logits).pointer("params", a.params).pointer("token", a.token);
  c.optional_pointer("logprob", a.logprob).optional_pointer("flags", a.flags);
  if (!c.ok()) return;
  const std::int64_t logits_bytes = span_bytes(a.rows, a.logits_stride, a.vocab, sizeof(T));
  const std::int64_t params_bytes = a.rows * static_cast<std::int64_t>(sizeof(sample_params));
  const struct {
    const char* name;
    const void* p;
  } outputs[] = {{"token", a.token}, {"logprob", a.logprob}, {"flags", a.flags}};
  for (const auto& o : outputs) {
    c.disjoint(o.name, o.p, a.rows * 4, "logits", a.logits, logits_bytes);
    c.disjoint(o.name, o.p, a.rows * 4, "params", a.params, params_bytes);
  }
  c.disjoint("logprob", a.logprob, a.rows * 4, "token", a.token, a.rows * 4);
  c.disjoint("flags", a.flags, a.rows * 4, "token", a.token, a.rows * 4);
  c.disjoint("flags", a.flags, a.rows * 4, "logprob", a.logprob, a.rows * 4);
}
}  // namespace sample_detail

template <class T>
status check(const sample_args<T>& a) {
  checker c("sample");
  sample_detail::check(c, a);
  return c.result();
}

template <class T>
status check(const verify_args<T>& a) {
  checker c("verify");
  sample_detail::check(c, a.sample);
  c.at_least("requests", a.requests, 0).at_most("requests", a.requests, std::int64_t{1} << 31);
  c.at_most("rows", a.sample.rows, (std::int64_t{1} << 31) - 1);
  if (!c.ok() || a.requests == 0) return c.result();
  if (a.sample.rows > 0) c.pointer("draft", a.draft);
  c.pointer("start", a.start).pointer("accepted", a.accepted);
  const std::int64_t bytes = a.requests * 4, rows = a.sample.rows;
  c.disjoint("accepted", a.accepted, bytes, "draft", a.draft, rows * 4);
  c.disjoint("accepted", a.accepted, bytes, "start", a.start, bytes + 4);
  c.disjoint("accepted", a.accepted, bytes, "token", a.sample.token, rows * 4);
  c.disjoint("accepted", a.accepted, bytes, "logprob", a.sample.logprob, rows * 4);
  c.disjoint("accepted", a.accepted, bytes, "flags", a.sample.flags, rows * 4);
  c.disjoint("accepted", a.accepted, bytes, "params", a.sample.params,
             rows * static_cast<std::int64_t>(sizeof(sample_params)));
  c.disjoint("accepted", a.accepted, bytes, "logits", a.sample.logits,
             span_bytes(rows, a.sample.logits_stride, a.sample.vocab, sizeof(T)));
  const struct {
    const char* name;
    const void* p;
  } outputs[] = {{"token", a.sample.token}, {"logprob", a.sample.logprob}, {"flags", a.sample.flags}};
  for (const auto& o : outputs) {
    c.disjoint(o.name, o.p, rows * 4, "draft", a.draft, rows * 4);
    c.disjoint(o.name, o.p, rows * 4, "start", a.start, bytes + 4);
  }
  return c.result();
}

// Enqueued on `stream`; defined in bi/sample.cuh.
template <class T, class Contract = contract::sample_draft>
status sample(const sample_args<T>& args, cuda_stream stream);
template <class T, class Contract = contract::sample_draft>
status verify(const verify_args<T>& args, cuda_stream stream);

BI_NAMESPACE_END
