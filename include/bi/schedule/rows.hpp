// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

// How an operation over rows is spread over the GPU. Free in every respect: no field changes a bit.
struct row_schedule {
  int threads_per_row = 256;  // of one thread block. 32: a warp; 256: the whole block
  int rows_per_block = 1;     // 4 with one warp a row, else 1
  std::int64_t blocks = 0;    // thread blocks, a multiple of `cluster`; rows are dealt out round after round
  int held = 0;     // vectors of 8 elements that a thread has in registers at once, so that a row is read once;
                    // 0: any row, an element at a time where it must be, and read again where it is needed
  int cluster = 1;  // thread blocks that share a row and are a cluster
  bool programmatic = false;  // may start while the kernel before it ends; sm_90

  friend constexpr bool operator==(const row_schedule& a, const row_schedule& b) {
    return a.threads_per_row == b.threads_per_row && a.rows_per_block == b.rows_per_block && a.blocks == b.blocks &&
           a.held == b.held && a.cluster == b.cluster && a.programmatic == b.programmatic;
  }
  friend constexpr bool operator!=(const row_schedule& a, const row_schedule& b) { return !(a == b); }
};

inline std::string to_string(const row_schedule& s) {
  char text[160];
  std::snprintf(text, sizeof text,
                "row_schedule{threads_per_row=%d, rows_per_block=%d, blocks=%lld, held=%d, cluster=%d%s}",
                s.threads_per_row, s.rows_per_block, static_cast<long long>(s.blocks), s.held, s.cluster,
                s.programmatic ? ", programmatic" : "");
  return text;
}

// Of a call and of where it runs, what its schedule may depend on besides rows and columns.
struct row_traits {
  int element_bytes = 2;  // of the input
  bool vectors = false;   // rows are whole vectors of 8 elements, all of them aligned to 16 bytes
  bool hopper = false;    // the program has code for sm_90, and this is such a device
};

// Enough thread blocks to fill any GPU of today several times; more rows are dealt out in rounds. The hardware deals
// them out better (2% at 8192 rows of 4096) where a thread block is over soon, as those are that hold their rows.
inline constexpr std::int64_t max_row_blocks = 132 * 32;
inline constexpr std::int64_t max_held_row_blocks = std::int64_t{1} << 20;
inline constexpr int max_row_cluster = 8;
inline constexpr int max_wide_cluster = 16;  // of kernels that ask for more than the 8 that every device has

// Blocks of the row tree, of which a thread block folds one at a time.
constexpr std::int64_t tree_blocks(std::int64_t cols) { return cols / 8192 + (cols % 8192 != 0 ? 1 : 0); }

// Thread blocks for all rows, or as many as there may be.
constexpr std::int64_t blocks_for_rows(std::int64_t rows, const row_schedule& s) {
  const std::int64_t groups = rows / s.rows_per_block + (rows % s.rows_per_block != 0 ? 1 : 0);
  const std::int64_t most = s.held > 0 ? max_held_row_blocks : max_row_blocks;
  return (groups < most ? groups : most) * s.cluster;
}

// Rows that are read again where they are needed again. Short ones take a warp each, long ones a thread block.
constexpr row_schedule pick_row_schedule(std::int64_t rows, std::int64_t cols) {
  row_schedule s;
  if (cols <= 1024) {
    s.threads_per_row = 32;
    s.rows_per_block = 4;
  }
  s.blocks = blocks_for_rows(rows, s);
  return s;
}

// ---- norms: bi/kernel/rms_norm.cuh, layer_norm.cuh

// Vectors that a thread may hold, which take 128 bytes of its registers.
constexpr int most_held(int element_bytes) { return 16 / element_bytes; }

// Whether the kernels take such rows under this schedule.
constexpr bool fits_norm(const row_schedule& s, std::int64_t cols, const row_traits& t) {
  if (s.programmatic && (!t.hopper || s.held == 0)) return false;
  if (s.held == 0) return s.cluster == 1;
  if (!t.vectors || s.held > most_held(t.element_bytes)) return false;
  if (s.cluster > 1) {
    return t.hopper && s.threads_per_row == 256 && s.held == 4 && s.cluster <= max_row_cluster &&
           s.cluster == tree_blocks(cols);
  }
  if (s.threads_per_row == 32 ? s.held != 1 && s.held != most_held(t.element_bytes)
                              : s.held != 2 && s.held != 4 && s.held != most_held(t.element_bytes)) {
    return false;
  }
  return cols <= std::int64_t{8} * s.held * s.threads_per_row;
}

// Rows in registers as long as they fit, those of more than a block of the tree in a cluster's. A few rows get as many
// threads as they can use, many get fewer, which meet at no barrier.
constexpr row_schedule pick_norm_schedule(std::int64_t rows, std::int64_t cols, const row_traits& t) {
  row_schedule s;
  s.programmatic = t.hopper;
  const int most = most_held(t.element_bytes);
  const std::int64_t vectors = cols / 8;
  const bool few = rows <= 132 * 4;
  s.threads_per_row = vectors <= 32 || (!few && vectors <= 32 * most) ? 32 : 256;
  s.rows_per_block = s.threads_per_row == 32 ? 4 : 1;
  if (s.threads_per_row == 32) {
    s.held = vectors <= 32 ? 1 : most;
  } else if (vectors <= 256 * 2) {
    s.held = 2;
  } else if (vectors <= 256 * 4) {
    s.held = 4;
  } else if (vectors <= 256 * most && !few) {
    s.held = most;
  } else {
    s.held = 4;
    if (cols > 8192 * max_row_cluster) return pick_row_schedule(rows, cols);
    s.cluster = static_cast<int>(tree_blocks(cols));
  }
  if (!fits_norm(s, cols, t)) return pick_row_schedule(rows, cols);
  s.blocks = blocks_for_rows(rows, s);
  return s;
}

// ---- softmax, log_softmax, logsumexp: bi/kernel/softmax_held.cuh. A thread block folds the row's blocks of 8192

inline constexpr std::int64_t most_log_sum_blocks = 32;

// `keep`: the row is needed again after its sum. 4 vectors a thread are a block; three blocks of a row that stays take
// too many registers if they are of floats.
constexpr bool fits_log_sum(const row_schedule& s, std::int64_t cols, const row_traits& t, bool keep) {
  if (s.held == 0) return s.cluster == 1 && !s.programmatic;
  const std::int64_t blocks = tree_blocks(cols);
  if (!t.vectors || !t.hopper || s.threads_per_row != 256 || s.cluster > blocks || blocks > most_log_sum_blocks) {
    return false;
  }
  if (!keep) return s.cluster <= max_row_cluster && (s.held == 4 || s.held == 16);
  if (s.held != 4 && s.held != 8 && (s.held != 12 || t.element_bytes != 2)) return false;
  return s.cluster <= (s.held == 4 ? max_row_cluster : max_wide_cluster) && blocks <= s.cluster * (s.held / 4);
}

// The cluster under which thread blocks that read rows through, four to an SM, are done first. Each row costs about
// half a block more for what ends it.
constexpr int pick_log_sum_cluster(std::int64_t rows, std::int64_t blocks) {
  if (rows > 1 << 20) return 1;  // and no overflow below
  int best = 1;
  std::int64_t least = INT64_MAX;
  for (int cluster = 1; cluster <= max_row_cluster && cluster <= blocks; ++cluster) {
    const std::int64_t at_once = 132 * 4 / cluster, each = (blocks + cluster - 1) / cluster;
    const std::int64_t time = (rows / at_once + (rows % at_once != 0 ? 1 : 0)) * (2 * each + 1);
    if (time < least) {
      least = time;
      best = cluster;
    }
  }
  return best;
}

// Blocks of a row that stays in registers, a thread block. One while thread blocks are few; else two, as many of which
// fit an SM and have fewer clusters to wait for; three where two would take a cluster of more than 8.
constexpr int pick_kept_blocks(std::int64_t rows, std::int64_t blocks, int element_bytes) {
  const bool few = rows <= 264 && rows * ((blocks + 1) / 2) <= 264;
  if (blocks == 1 || (blocks <= max_row_cluster && (few || element_bytes == 4))) return 1;
  const bool three = !few && element_bytes == 2 && blocks > 2 * max_row_cluster && blocks <= 3 * max_row_cluster;
  return three ? 3 : 2;
}

// Rows too short to fill a thread block are read through by a warp each, and from the L1 cache again.
constexpr row_schedule pick_log_sum_schedule(std::int64_t rows, std::int64_t cols, const row_traits& t, bool keep) {
  const std::int64_t blocks = tree_blocks(cols);
  row_schedule s;
  s.programmatic = true;
  s.held = 4;
  if (cols <= 1024 || blocks > most_log_sum_blocks) return pick_row_schedule(rows, cols);
  if (keep) {
    const int each = pick_kept_blocks(rows, blocks, t.element_bytes);
    s.held = 4 * each;
    s.cluster = static_cast<int>((blocks + each - 1) / each);
  } else {
    s.cluster = pick_log_sum_cluster(rows, blocks);
    // Four blocks at once, while there is an SM for each thread block.
    if (rows <= 66 / s.cluster && blocks > s.cluster) s.held = 16;
  }
  if (!fits_log_sum(s, cols, t, keep)) return pick_row_schedule(rows, cols);
  s.blocks = blocks_for_rows(rows, s);
  return s;
}

// ---- reductions: bi/kernel/reduce_blocks.cuh, reduce_cluster.cuh

inline constexpr std::int64_t short_row = 256;            // a vector for each thread of a warp
inline constexpr std::int64_t most_cluster_blocks = 256;  // a vector of results for each thread of a warp

// 8 vectors a thread: a warp folds one block of 8192; rows of more blocks need the workspace. 1: a warp has four short
// rows at once. 4, by 256 threads: a cluster has a row, each thread block two blocks at once.
constexpr bool fits_reduce(const row_schedule& s, std::int64_t cols, const row_traits& t, bool workspace) {
  if (s.programmatic && (!t.hopper || s.held == 0)) return false;
  if (s.held == 0) return s.cluster == 1;
  if (s.threads_per_row == 256) {
    return t.hopper && s.held == 4 && s.cluster <= max_wide_cluster && s.cluster <= tree_blocks(cols) &&
           tree_blocks(cols) <= most_cluster_blocks;
  }
  if (s.cluster != 1 || cols == 0) return false;
  return s.held == 1 ? cols <= short_row : s.held == 8 && (cols <= 8192 || workspace);
}

// A cluster for a few rows that are not short, in one launch instead of two. Without a workspace it is what there is.
constexpr row_schedule pick_reduce_schedule(std::int64_t rows, std::int64_t cols, const row_traits& t, bool workspace) {
  const std::int64_t blocks = tree_blocks(cols), most = workspace ? 64 : most_cluster_blocks;
  const std::int64_t cluster = blocks < max_wide_cluster ? blocks : max_wide_cluster;
  row_schedule s;
  s.programmatic = t.hopper;
  if (blocks > 1 && blocks <= most && rows <= (workspace ? 264 / cluster : max_row_blocks)) {
    s.held = 4;
    s.cluster = static_cast<int>(cluster);
    if (fits_reduce(s, cols, t, workspace)) {
      s.blocks = blocks_for_rows(rows, s);
      return s;
    }
    s.cluster = 1;
  }
  s.threads_per_row = 32;
  s.rows_per_block = 4;
  s.held = cols <= short_row ? 1 : 8;
  if (!fits_reduce(s, cols, t, workspace)) return pick_row_schedule(rows, cols);
  if (s.held == 1) {
    s.blocks = blocks_for_rows(rows / 4 + (rows % 4 != 0 ? 1 : 0), s);
  } else {
    s.blocks = blocks_for_rows(rows > INT64_MAX / blocks ? INT64_MAX : rows * blocks, s);
  }
  return s;
}

// argmax, argmin: 8 vectors a thread, a warp a block, for rows of more than one, whose bests need the workspace.
constexpr bool fits_arg_reduce(const row_schedule& s, std::int64_t cols, const row_traits& t, bool workspace) {
  // A row of one block needs no workspace, and gets none.
  return fits_reduce(s, cols, t, workspace) && (s.held == 0 || (s.held == 8 && workspace && tree_blocks(cols) > 1));
}
constexpr row_schedule pick_arg_reduce_schedule(std::int64_t rows, std::int64_t cols, const row_traits& t,
                                                bool workspace) {
  row_schedule s;
  s.threads_per_row = 32;
  s.rows_per_block = 4;
  s.held = 8;
  s.programmatic = t.hopper;
  const std::int64_t blocks = tree_blocks(cols);
  if (blocks <= 1 || !fits_arg_reduce(s, cols, t, workspace)) return pick_row_schedule(rows, cols);
  s.blocks = blocks_for_rows(rows > INT64_MAX / blocks ? INT64_MAX : rows * blocks, s);
  return s;
}

// One float for each of a row's `blocks` results, and the rows aligned for vectors.
constexpr std::int64_t reduce_results_stride(std::int64_t blocks) { return (blocks + 7) / 8 * 8; }

// How an operation is spread that gives each row a whole thread block of its own size. No field changes a bit.
struct block_schedule {
  std::int64_t blocks = 0;  // thread blocks; rows are dealt out round after round

  friend constexpr bool operator==(const block_schedule& a, const block_schedule& b) { return a.blocks == b.blocks; }
  friend constexpr bool operator!=(const block_schedule& a, const block_schedule& b) { return !(a == b); }
};

inline std::string to_string(const block_schedule& s) {
  return "block_schedule{blocks=" + std::to_string(s.blocks) + "}";
}

// Digests: a thread block each, or, where these would leave the GPU idle, several that add up.
struct digest_schedule {
  std::int64_t blocks = 0;    // thread blocks; digests, or parts of them, are dealt out round after round
  int parts = 1;              // of a digest
  bool programmatic = false;  // may start while the kernel before it ends; sm_90

  friend constexpr bool operator==(const digest_schedule& a, const digest_schedule& b) {
    return a.blocks == b.blocks && a.parts == b.parts && a.programmatic == b.programmatic;
  }
  friend constexpr bool operator!=(const digest_schedule& a, const digest_schedule& b) { return !(a == b); }
};

inline std::string to_string(const digest_schedule& s) {
  return "digest_schedule{blocks=" + std::to_string(s.blocks) + ", parts=" + std::to_string(s.parts) +
         (s.programmatic ? ", programmatic}" : "}");
}

// `bytes`: the most that a digest may be of. A part has a vector of 16 bytes for each thread, or more.
constexpr digest_schedule pick_digest_schedule(std::int64_t digests, std::int64_t bytes, bool hopper) {
  digest_schedule s;
  while (digests * s.parts <= 132 && s.parts <= 128 && bytes / 8192 >= 2 * s.parts) s.parts *= 2;
  const std::int64_t blocks = s.parts > 1 ? digests * s.parts : digests;
  s.blocks = blocks < max_row_blocks ? blocks : max_row_blocks;
  s.programmatic = hopper;
  return s;
}

}  // namespace schedule
BI_NAMESPACE_END
