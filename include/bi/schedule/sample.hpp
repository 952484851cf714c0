// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"
#include "bi/schedule/rows.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How the rows of sample() are spread over the GPU. No field changes a bit.
struct sample_schedule {
  int cluster = 1;          // thread blocks that share a row, 1..8; more than 1 needs sm_90
  bool hold = false;        // copies rows that are cut to shared memory, where it has room
  std::int64_t blocks = 0;  // clusters; rows are dealt out round after round

  friend constexpr bool operator==(const sample_schedule& a, const sample_schedule& b) {
    return a.cluster == b.cluster && a.hold == b.hold && a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const sample_schedule& a, const sample_schedule& b) { return !(a == b); }
};

inline std::string to_string(const sample_schedule& s) {
  char text[96];
  std::snprintf(text, sizeof text, "sample_schedule{cluster=%d, hold=%d, blocks=%lld}", s.cluster, s.hold ? 1 : 0,
                static_cast<long long>(s.blocks));
  return text;
}

inline constexpr std::int64_t sample_block = 8192;  // of the row tree: a thread block has whole ones
inline constexpr std::int64_t sample_most_shared_bytes = 227 * 1024;
inline constexpr std::int64_t sample_held_bytes = 96 * 1024;  // of a part, for two thread blocks on an SM

constexpr std::int64_t sample_blocks_of(std::int64_t vocab) { return (vocab + sample_block - 1) / sample_block; }
// Logits of a row that each thread block has; the last may have less.
constexpr std::int64_t sample_part(const sample_schedule& s, std::int64_t vocab) {
  return (sample_blocks_of(vocab) + s.cluster - 1) / s.cluster * sample_block;
}
// The most thread blocks, up to `most`, that all have some of the row.
constexpr int sample_cluster(std::int64_t vocab, int most) {
  const std::int64_t blocks = sample_blocks_of(vocab), each = (blocks + most - 1) / most;
  return static_cast<int>((blocks + each - 1) / each);
}

constexpr sample_schedule pick_sample_schedule(std::int64_t rows, std::int64_t vocab, int element_bytes,
                                               bool clusters) {
  sample_schedule s;
  if (clusters) {
    s.cluster = sample_cluster(vocab, 8);
    s.hold = sample_part(s, vocab) * element_bytes <= sample_held_bytes;
  }
  s.blocks = rows < max_row_blocks ? rows : max_row_blocks;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
