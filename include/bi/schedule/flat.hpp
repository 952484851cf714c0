// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How independent items are spread over the GPU: a thread each, dealt out round after round. No field changes a bit.
struct flat_schedule {
  int threads = 256;        // of a thread block: a multiple of 32, at most 256
  std::int64_t blocks = 0;  // 0: nothing to do

  friend constexpr bool operator==(const flat_schedule& a, const flat_schedule& b) {
    return a.threads == b.threads && a.blocks == b.blocks;
  }
  friend constexpr bool operator!=(const flat_schedule& a, const flat_schedule& b) { return !(a == b); }
};

inline std::string to_string(const flat_schedule& s) {
  char text[96];
  std::snprintf(text, sizeof text, "flat_schedule{threads=%d, blocks=%lld}", s.threads,
                static_cast<long long>(s.blocks));
  return text;
}

// Items that take `width` threads each: 1, or 32 for a warp.
constexpr flat_schedule pick_flat_schedule(std::int64_t items, int width = 1) {
  constexpr std::int64_t most = 132 * 32;  // fills any GPU of today several times
  flat_schedule s;
  const std::int64_t in_block = s.threads / width;
  const std::int64_t blocks = items / in_block + (items % in_block != 0 ? 1 : 0);
  s.blocks = blocks < most ? blocks : most;
  return s;
}

// How items are spread that all threads of a block share, a block each. No field changes a bit.
struct shared_schedule {
  int threads = 256;          // of a thread block: a multiple of 32, at most 512
  std::int64_t blocks = 0;    // items are dealt out round after round
  int parts = 1;              // thread blocks of an item: the first has what its digest covers, the others the rest
  bool programmatic = false;  // may start while the kernel before it ends; sm_90

  friend constexpr bool operator==(const shared_schedule& a, const shared_schedule& b) {
    return a.threads == b.threads && a.blocks == b.blocks && a.parts == b.parts && a.programmatic == b.programmatic;
  }
  friend constexpr bool operator!=(const shared_schedule& a, const shared_schedule& b) { return !(a == b); }
};

inline std::string to_string(const shared_schedule& s) {
  return "shared_schedule{threads=" + std::to_string(s.threads) + ", blocks=" + std::to_string(s.blocks) +
         ", parts=" + std::to_string(s.parts) + (s.programmatic ? ", programmatic}" : "}");
}

// Processors of an H100, the warps that one has room for, and those of a thread block, at most.
inline constexpr std::int64_t shared_processors = 132, shared_resident_warps = 32, shared_most_warps = 16;

// Whether an H100 has room for all items at once, each with a thread block that does its work in one round.
constexpr bool has_room_at_once(std::int64_t items, std::int64_t threads) {
  const std::int64_t warps = threads < 1 ? 1 : threads / 32 + (threads % 32 != 0 ? 1 : 0);
  return warps <= shared_most_warps && items <= shared_processors * (shared_resident_warps / warps);
}

// Thread blocks that the processor with the most of them gets.
constexpr std::int64_t blocks_of_a_processor(std::int64_t blocks) {
  return blocks / shared_processors + (blocks % shared_processors != 0 ? 1 : 0);
}

// A warp more, without work, if then a processor has no room for one thread block more: that would be the next launch's, and
// take turns from those that work. Up to 14% of kv_append's time; 6% of 256 tokens of 64 heads of q and 8 of k and v.
constexpr shared_schedule fill_processors(shared_schedule s) {
  const std::int64_t a_processor = blocks_of_a_processor(s.blocks * s.parts), warps = s.threads / 32;
  if (warps < 2 || warps >= shared_most_warps) return s;
  if (shared_resident_warps / warps > a_processor && shared_resident_warps / (warps + 1) == a_processor)
    s.threads += 32;
  return s;
}

// `threads`: what an item has work for at once. With no more items than an H100 has processors each gets what it can use
// and a warp more: without work, it runs ahead of those that wait for data, which are faster for it (0.1 of 3.7 us,
// kv_append of 64 tokens of K and V with digests). More items get as many warps as leave room for all of them at once, in
// equal rounds, but at least one or two: small blocks wait for each other less.
constexpr shared_schedule pick_shared_schedule(std::int64_t items, std::int64_t threads, bool hopper) {
  constexpr std::int64_t processors = shared_processors, most_warps = shared_most_warps,
                         most_blocks = std::int64_t{1} << 20;
  const std::int64_t wanted = threads < 1 ? 1 : threads;
  shared_schedule s;
  s.blocks = items < most_blocks ? items : most_blocks;
  s.programmatic = hopper;
  if (items <= processors) {
    s.threads = wanted > 32 * (most_warps - 1) ? 32 * most_warps : static_cast<int>(wanted + 31) / 32 * 32 + 32;
  } else {
    const std::int64_t room = shared_resident_warps / blocks_of_a_processor(items), least = wanted > 128 ? 2 : 1;
    const std::int64_t warps = room < least ? least : room < most_warps ? room : most_warps;
    std::int64_t rounds = (wanted + 32 * warps - 1) / (32 * warps);
    if (rounds == 2 && wanted > 64 && wanted <= 96) rounds = 3;  // of one warp: a second one would have little to do
    const std::int64_t in_round = (wanted + rounds - 1) / rounds;
    s.threads = static_cast<int>(in_round + 31) / 32 * 32;
    s = fill_processors(s);
  }
  return s;
}

// Few items, of `first` threads' work that the digest covers and `rest` other threads', all at once: no thread has more
// than one piece. No blocks, if they don't fit an H100, or a half more of small ones, whose places are soon free again.
constexpr shared_schedule pick_divided_schedule(std::int64_t items, std::int64_t first, std::int64_t rest,
                                                bool hopper) {
  constexpr std::int64_t room = shared_processors * shared_resident_warps;  // warps
  constexpr std::int64_t most_threads = 32 * shared_most_warps;
  shared_schedule s;
  if (items < 1 || items > room || first < 1 || first > most_threads || rest > 32 * room) return s;
  const std::int64_t whole_warps = (first + 31) / 32 * 32, threads = rest > 0 && whole_warps < 64 ? 64 : whole_warps;
  const std::int64_t parts = 1 + (rest + threads - 1) / threads;
  if (items * parts * (threads / 32) > (threads > 64 ? room : room + room / 2)) return s;
  s.threads = static_cast<int>(threads);
  s.parts = static_cast<int>(parts);
  s.blocks = items;
  s.programmatic = hopper;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
