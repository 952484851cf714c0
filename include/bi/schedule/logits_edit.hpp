// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How rows of logits that are edited are spread over the GPU. No field changes a bit.
struct logits_edit_schedule {
  int words = 1;  // of each set of tokens, a thread: 1, or 4 in place; a thread block takes 8192 tokens or 32768
  std::int64_t blocks = 0;  // thread blocks, dealt out round after round

  friend constexpr bool operator==(const logits_edit_schedule& a, const logits_edit_schedule& b) {
    return a.words == b.words && a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const logits_edit_schedule& a, const logits_edit_schedule& b) { return !(a == b); }
};

inline std::string to_string(const logits_edit_schedule& s) {
  char text[96];
  std::snprintf(text, sizeof text, "logits_edit_schedule{words=%d, blocks=%lld}", s.words,
                static_cast<long long>(s.blocks));
  return text;
}

inline constexpr std::int64_t logits_edit_span = 8192;  // tokens of a thread block with a word a thread

constexpr std::int64_t logits_edit_spans(std::int64_t vocab, int words) {
  const std::int64_t span = logits_edit_span * words;
  return vocab / span + (vocab % span != 0 ? 1 : 0);
}

// Few rows are cut small, so that all of the GPU has a part; of many, each thread block has more under way at once,
// where the call is in place: a copy fills its registers.
constexpr logits_edit_schedule pick_logits_edit_schedule(std::int64_t rows, std::int64_t vocab, bool in_place) {
  constexpr std::int64_t most = std::int64_t{1} << 20, many = 132 * 8;
  logits_edit_schedule s;
  if (in_place && (rows > many || rows * logits_edit_spans(vocab, 1) > many)) s.words = 4;
  const std::int64_t spans = logits_edit_spans(vocab, s.words);
  s.blocks = rows > most / spans ? most : rows * spans;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
