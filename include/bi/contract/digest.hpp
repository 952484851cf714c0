// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/id.hpp"

// Digests say whether two computations gave the same bytes. They are sums modulo 2^64 of one term a word, so they don't
// depend on who adds what in which order. They find faults, not forgers: whoever may choose the data can make two rows
// with equal digests.

BI_NAMESPACE_BEGIN
namespace contract {

inline constexpr std::uint64_t digest_step = 0x9E3779B97F4A7C15u;

// Bytes are cut into little-endian words of 8, the last one filled up with zeros:
//   digest = mix64(bytes) + sum over words of (2^32 + low half + low key) * (2^32 + high half + high key),
// each half and its key added modulo 2^32. The keys depend on the word's index alone and can be made before the
// word is there; they repeat after 2^32 words, 32 GiB. The length has a term of its own, so rows that differ in trailing
// zeros have different digests, and a thread adds up its words' terms with no step at the end.
// A term takes four 32-bit instructions, and its keys three from the seed on. Whatever becomes of one half of a word changes
// the term: both factors lie between 2^32 and 2^33, so where one of them changes by d, the product changes by d times the
// other, which is no multiple of 2^64 for 0 < |d| < 2^32. Other changes are missed where products of unrelated numbers happen
// to cancel out: one in about 2^32 if two words each change in one half.
struct BI_TYPE digest_key {
  std::uint32_t low, high;
};
inline constexpr std::uint32_t digest_word_step = 0x9E3779B9u, digest_flip = 0x5851F42Cu;
// Seeds are as far apart as indices are; that of a word some way on is this one's plus so many steps.
BI_HD constexpr std::uint32_t digest_seed(std::uint32_t word) { return (word + 1) * digest_word_step; }
// Were keys as far apart as seeds are, or squares, then changes at the corners of a parallelogram of indices, or of a cube,
// as tokens, heads and words make them, would cancel out where words are alike, 1 of 9 and 1 of 50. The upper half of a product
// of two factors that do not keep step lets 1 of 10^7 through.
BI_HD constexpr digest_key digest_key_of(std::uint32_t seed) {
  const std::uint64_t product = static_cast<std::uint64_t>(seed) * (seed ^ digest_flip);
  const auto high = static_cast<std::uint32_t>(product >> 32);
  return {high, high * seed};
}
// The sum and one more term; 2^64 falls away.
BI_HD constexpr std::uint64_t digest_add(std::uint64_t sum, std::uint32_t low, std::uint32_t high,
                                         const digest_key& key) {
  low += key.low, high += key.high;
  sum += static_cast<std::uint64_t>(low) * high;
  const std::uint32_t upper = static_cast<std::uint32_t>(sum >> 32) + low + high;
  return static_cast<std::uint64_t>(upper) << 32 | static_cast<std::uint32_t>(sum);
}
BI_HD constexpr std::uint64_t digest_term(std::uint64_t word, std::uint64_t index) {
  return digest_add(0, static_cast<std::uint32_t>(word), static_cast<std::uint32_t>(word >> 32),
                    digest_key_of(digest_seed(static_cast<std::uint32_t>(index))));
}
BI_HD constexpr std::uint64_t digest_length_term(std::uint64_t bytes) { return mix64(bytes); }

// Words that hold this many bytes.
BI_HD constexpr std::uint64_t digest_words(std::uint64_t bytes) { return bytes / 8 + (bytes % 8 != 0 ? 1 : 0); }

// The word at p, of which `count` <= 8 bytes exist.
BI_HD inline std::uint64_t digest_word(const unsigned char* p, int count) {
  std::uint64_t word = 0;
  for (int i = 0; i < count; ++i) word |= static_cast<std::uint64_t>(p[i]) << (8 * i);
  return word;
}

// The terms of `bytes` bytes whose first word has index `first`: those of the parts of a row or run, cut at whole
// words, add up to those of the whole.
BI_HD inline std::uint64_t digest_terms(const void* data, std::uint64_t bytes, std::uint64_t first = 0) {
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < bytes; i += 8) {
    sum += digest_term(digest_word(p + i, bytes - i < 8 ? static_cast<int>(bytes - i) : 8), first + i / 8);
  }
  return sum;
}

// The digest of a run of KV tokens: each token's bytes in the order K then V, head, element, filled up with zeros to
// whole words; token t of the run (not of its view: the same run has the same digest wherever it stands) starts at word
// t * digest_words(token bytes). The length term counts the bytes without the filling.
BI_HD constexpr std::uint64_t kv_token_bytes(std::int64_t heads, std::int64_t head_dim, int element_bytes) {
  return 2 * static_cast<std::uint64_t>(heads) * static_cast<std::uint64_t>(head_dim) *
         static_cast<std::uint64_t>(element_bytes);
}
BI_HD constexpr std::uint64_t kv_token_word(std::uint64_t token, std::uint64_t token_bytes) {
  return token * digest_words(token_bytes);
}

struct BI_TYPE digest_words_draft {
  static constexpr const char* name = "digest_words_draft";
  static constexpr std::uint64_t id() { return contract_id(name, digest_step, digest_word_step, digest_flip); }
};

// ---- the digest of a request: a chain over what it did, one for each branch

struct BI_TYPE request_digest {
  std::uint64_t low = 0, high = 0;
};
BI_HD constexpr bool operator==(const request_digest& a, const request_digest& b) {
  return a.low == b.low && a.high == b.high;
}
BI_HD constexpr bool operator!=(const request_digest& a, const request_digest& b) { return !(a == b); }

// One word. A bijection of the state for each word, and of the word for each state.
BI_HD constexpr request_digest absorb(request_digest d, std::uint64_t word) {
  const std::uint64_t x = mix64((d.low ^ word) + digest_step);
  const std::uint64_t y = mix64((d.high ^ x) + digest_step);
  return {y, x};
}

// Each kind of event begins with its own word, so that no sequence of one kind reads as another.
enum class request_event : std::uint64_t { start = 1, token = 2, fork = 3, merge = 4 };
BI_HD constexpr request_digest absorb(request_digest d, request_event e, std::uint64_t argument) {
  return absorb(absorb(d, static_cast<std::uint64_t>(e)), argument);
}

// `header` stands for everything that must be equal from the start: contract ids, weights, sampling parameters, prompt.
BI_HD constexpr request_digest digest_start(std::uint64_t header) { return absorb({}, request_event::start, header); }
// One step: the token that was chosen and the digest of its row of logits.
BI_HD constexpr request_digest digest_token(request_digest d, std::int32_t token, std::uint64_t row) {
  return absorb(absorb(d, request_event::token, static_cast<std::uint32_t>(token)), row);
}
// Where branch `index` of a request or branch begins.
BI_HD constexpr request_digest digest_fork(request_digest parent, std::uint64_t index) {
  return absorb(parent, request_event::fork, index);
}
// Where branches join again: the parent's state at the fork, then each branch's last state and length in tokens in the
// order of their indices, whenever they finished, and the position that follows them all.
BI_HD constexpr request_digest digest_merge(request_digest parent, const request_digest* branches,
                                            const std::int64_t* lengths, std::int64_t count, std::int64_t position) {
  request_digest d = absorb(parent, request_event::merge, static_cast<std::uint64_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    d = absorb(absorb(d, branches[i].low), branches[i].high);
    d = absorb(d, static_cast<std::uint64_t>(lengths[i]));
  }
  return absorb(d, static_cast<std::uint64_t>(position));
}

}  // namespace contract
BI_NAMESPACE_END
