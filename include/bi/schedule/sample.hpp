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
  int cluster = 1;            // thread blocks that share a row, 1..16; more than 1 needs sm_90
  int slots = 0;              // of 16 KB that a row passes through on its way, 3..10, which needs sm_90; 0: none
  std::int64_t blocks = 0;    // clusters; rows are dealt out round after round
  bool programmatic = false;  // may start while the kernel before it ends; sm_90
  bool once = false;          // one pass may be enough for top-p, min-p and a top-k that is not small

  friend constexpr bool operator==(const sample_schedule& a, const sample_schedule& b) {
    return a.cluster == b.cluster && a.slots == b.slots && a.blocks == b.blocks && a.programmatic == b.programmatic &&
           a.once == b.once;
  }
  friend constexpr bool operator!=(const sample_schedule& a, const sample_schedule& b) { return !(a == b); }
};

inline std::string to_string(const sample_schedule& s) {
  char text[128];
  std::snprintf(text, sizeof text, "sample_schedule{cluster=%d, slots=%d, blocks=%lld%s%s}", s.cluster, s.slots,
                static_cast<long long>(s.blocks), s.programmatic ? ", programmatic" : "", s.once ? ", once" : "");
  return text;
}

inline constexpr std::int64_t sample_block = 8192;  // of the row tree: a thread block folds whole ones
inline constexpr int sample_least_part = 2048;      // logits, of a cluster's thread blocks
inline constexpr int sample_slots = 3;              // for two thread blocks on an SM

// Logits of a row that each thread block has; the last may have less, or none. `folds`: with a log-probability.
constexpr std::int64_t sample_part(const sample_schedule& s, std::int64_t vocab, bool folds) {
  const std::int64_t unit = folds ? sample_block : 8;
  return ((vocab + unit - 1) / unit + s.cluster - 1) / s.cluster * unit;
}

// Clusters that are on an H100 at once: those of more than one thread block have the 16 SMs of a part of it to share. Of
// one and of two, two thread blocks are on an SM; of more, one was.
constexpr std::int64_t sample_clusters_at_once(int cluster) {
  return cluster == 1 ? 264 : cluster == 2 ? 128 : 8 * (16 / cluster);
}

constexpr sample_schedule pick_sample_schedule(std::int64_t rows, std::int64_t vocab,
                                               [[maybe_unused]] int element_bytes, bool clusters) {
  sample_schedule s;
  s.once = true;
  if (!clusters) {
    s.blocks = rows < max_row_blocks ? rows : max_row_blocks;
    return s;
  }
  s.slots = sample_slots;
  s.programmatic = true;
  // The cluster that is done first: a row costs something, however small the parts are.
  std::int64_t least = INT64_MAX;
  for (int cluster = 1; cluster <= max_wide_cluster; ++cluster) {
    if (cluster > max_row_cluster && (cluster != max_wide_cluster || rows > 4)) continue;
    if (cluster > 1 && vocab < cluster * sample_least_part) break;
    const std::int64_t at_once = sample_clusters_at_once(cluster), each = (vocab + cluster - 1) / cluster;
    const std::int64_t rounds = rows / at_once + (rows % at_once != 0 ? 1 : 0);
    const std::int64_t time = rounds > (std::int64_t{1} << 40) ? INT64_MAX : rounds * (each + 4096);
    if (time >= least) continue;
    least = time;
    s.cluster = cluster;
    s.blocks = rows < at_once ? rows : at_once;
  }
  if (s.blocks == 0) s.blocks = rows < 264 ? rows : 264;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
