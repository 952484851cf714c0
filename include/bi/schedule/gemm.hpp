// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"
#include "bi/schedule/gemm_table.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {

enum class gemm_kernel : std::uint8_t {
  mma,    // bi/kernel/gemm_mma.cuh: every shape, alignment and architecture from sm_80
  wgmma,  // bi/kernel/gemm_wgmma.cuh: sm_90a, 16-byte rows
};

inline constexpr int gemm_max_stages = 16;  // of the wgmma kernel's ring

// How a matrix product is spread over the GPU. No field changes a bit.
struct gemm_schedule {
  gemm_kernel kernel = gemm_kernel::mma;
  bool weights_first = false;  // wgmma: the weights are the tensor core's rows
  int block_m = 64;            // tile of D: tokens x weights
  int block_n = 64;
  int cluster_m = 1;  // thread blocks of a cluster along m, n and the slices
  int cluster_n = 1;
  int cluster_k = 1;
  int residents = 1;         // thread blocks that fit an SM at once, 1 or 2; one may be the next kernel's
  int stages = 0;            // of the ring in shared memory; 0: as many as fit
  int group = 1;             // tiles along the tensor core's rows that are walked together
  std::int64_t blocks = 0;   // thread blocks; tiles are dealt out round after round
  bool programmatic = true;  // wgmma: may start while the kernel before it ends

  friend constexpr bool operator==(const gemm_schedule& a, const gemm_schedule& b) {
    return a.kernel == b.kernel && a.weights_first == b.weights_first && a.block_m == b.block_m &&
           a.block_n == b.block_n && a.cluster_m == b.cluster_m && a.cluster_n == b.cluster_n &&
           a.cluster_k == b.cluster_k && a.residents == b.residents && a.stages == b.stages && a.group == b.group &&
           a.blocks == b.blocks && a.programmatic == b.programmatic;
  }
  friend constexpr bool operator!=(const gemm_schedule& a, const gemm_schedule& b) { return !(a == b); }
};

inline std::string to_string(const gemm_schedule& s) {
  char text[256];
  std::snprintf(
      text, sizeof text,
      "gemm_schedule{%s%s, block_m=%d, block_n=%d, cluster=%dx%dx%d, residents=%d, stages=%d, group=%d, blocks=%lld%s}",
      s.kernel == gemm_kernel::mma ? "mma" : "wgmma", s.weights_first ? ", weights first" : "", s.block_m, s.block_n,
      s.cluster_m, s.cluster_n, s.cluster_k, s.residents, s.stages, s.group, static_cast<long long>(s.blocks),
      s.programmatic ? ", programmatic" : "");
  return text;
}

// Tiles of a stack of `batch` products.
constexpr std::int64_t gemm_tiles(std::int64_t m, std::int64_t n, std::int64_t batch, int block_m, int block_n) {
  return (m / block_m + (m % block_m != 0 ? 1 : 0)) * (n / block_n + (n % block_n != 0 ? 1 : 0)) * batch;
}

// What a schedule may depend on.
struct gemm_problem {
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  int slices = 1;
  bool kn = false;       // weights as [k, n]
  bool aligned = false;  // every row of A and B starts at a multiple of 16 bytes
};
struct gemm_device {
  int processors = 132;
  bool wgmma = false;  // the program has code for sm_90a, and this is such a device
};

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Clusters that run at once. Those of more than 2 leave processors idle: a cluster's are neighbours, in groups that differ
// from GPU to GPU. Measured on an H100 of 132; other GPUs have as many in proportion.
constexpr std::int64_t resident_clusters(const gemm_device& d, int cluster) {
  constexpr int measured[] = {132, 66, 39, 30, 22, 17, 15, 15};
  if (cluster < 1 || cluster > 8) return 1;  // no GPU promises those
  const std::int64_t room = std::int64_t{measured[cluster - 1]} * d.processors / 132;
  return room > 0 ? room : 1;
}

// Fills in the grid.
constexpr gemm_schedule with_blocks(gemm_schedule s, const gemm_problem& p, const gemm_device& d) {
  const int cluster = s.cluster_m * s.cluster_n * s.cluster_k;
  const std::int64_t tiles = gemm_tiles(p.m, p.n, p.batch, s.block_m * s.cluster_m, s.block_n * s.cluster_n);
  const std::int64_t resident = resident_clusters(d, cluster);
  s.blocks = (tiles < resident ? tiles : resident) * cluster;
  return s;
}

// Whether two thread blocks fit an SM: small tiles of one consumer warpgroup.
constexpr bool gemm_may_share(const gemm_schedule& s) {
  return s.weights_first ? s.block_n <= 64 : s.block_m == 64 && s.block_n <= 128;
}

// With few tokens, tiles with the same 128 weights are neighbours, and read them at once; not where a cluster has more weights.
constexpr int gemm_group(const gemm_schedule& s, const gemm_problem& p) {
  if (s.weights_first && (s.block_n <= 64 || (s.cluster_n == 1 && p.m <= 1024))) return 1;
  return 4;
}

// Whether a kernel had better start when the one before it is over. Thread blocks that each start when they find room ask
// the L2 cache for lines that they share at different times, which costs more than the gap between kernels: where tiles of
// 128 rows times fewer wait for the cache and not for the tensor core, on almost every processor. Clusters keep together.
constexpr bool gemm_starts_alone(const gemm_schedule& s, const gemm_problem& p, const gemm_device& d) {
  const int block_x = s.weights_first ? s.block_n : s.block_m, block_y = s.weights_first ? s.block_m : s.block_n;
  return s.cluster_m * s.cluster_n * s.cluster_k == 1 && p.m > s.block_m && block_x == 128 && block_y < 128 &&
         10 * s.blocks >= 9 * d.processors;
}

// Calls f with every schedule of the wgmma kernel that is legal for a problem.
template <class F>
constexpr void for_each_gemm_schedule(const gemm_problem& p, const gemm_device& d, F f) {
  const auto emit = [&](bool weights_first, int block_m, int block_n, int cluster_m, int cluster_n, int cluster_k) {
    gemm_schedule s;
    s.kernel = gemm_kernel::wgmma;
    s.weights_first = weights_first;
    s.block_m = block_m, s.block_n = block_n;
    s.cluster_m = cluster_m, s.cluster_n = cluster_n, s.cluster_k = cluster_k;
    s.group = gemm_group(s, p);
    s = with_blocks(s, p, d);
    s.programmatic = !gemm_starts_alone(s, p, d);
    f(s);
    if (gemm_may_share(s)) {
      s.residents = 2;
      f(s);
      const std::int64_t tiles = gemm_tiles(p.m, p.n, p.batch, block_m, block_n) * cluster_k;
      if (s.blocks < tiles && cluster_m * cluster_n == 1) {
        s.blocks = tiles < 2 * s.blocks ? tiles : 2 * s.blocks;
        f(s);
      }
    }
  };
  // Weights first, tokens padded to block_m, up to 64 weights: some, or as many as give every processor one tile.
  constexpr int token_blocks[] = {8, 16, 32, 64, 96, 128};
  for (const int block_m : token_blocks) {
    if (p.kn && block_m != 8 && block_m != 32 && block_m != 64) continue;
    if (p.slices == 8 && block_m > 32) continue;
    const std::int64_t share = ceil_div(p.n * ceil_div(p.m, block_m), resident_clusters(d, p.slices));
    const int even = static_cast<int>(share < 64 ? ceil_div(share, 8) * 8 : 64);
    const int widths[] = {32, 64, even};
    for (int w = 0; w < 3; ++w) {
      const int block_n = widths[w];
      if (w == 2 && (even == 32 || even == 64)) continue;  // is there already
      if (p.kn && block_n != 64) continue;
      if (p.slices > 1) {
        emit(true, block_m, block_n, 1, 1, p.slices);
        continue;
      }
      for (const int cluster_n : {1, 2, 4}) {
        for (const int cluster_m : {1, 2}) {
          if (block_m / cluster_n % 8 != 0 || block_n / cluster_m % 8 != 0) continue;
          if (p.kn && cluster_m > 1) continue;  // a block of 64 weights is copied as one
          emit(true, block_m, block_n, cluster_m, cluster_n, 1);
        }
      }
    }
  }
  // Weights first, 128 weights: numbers of tokens between those of other tiles, subtrees that wait, clusters of 3. Of clusters
  // along the slices those stand here that were the fastest somewhere.
  for (const int block_m : {88, 104, 128, 136, 160, 192}) {
    if (p.kn && block_m != 192) continue;
    for (int cluster_k = 1; cluster_k <= p.slices && cluster_k <= (block_m <= 88 ? 4 : 1); cluster_k *= 2) {
      const int in_block = p.slices / cluster_k;
      if (block_m == 136 || block_m == 160 ? in_block > 1 : block_m == 128 ? in_block != 4 : in_block > 2) continue;
      for (const int cluster_n : {1, 2}) {
        for (const int cluster_m : {1, 2, 3, 4}) {
          const int shared = cluster_m * cluster_n;
          if (p.kn && cluster_m > 2) continue;  // weights are copied in blocks of 64
          if (cluster_k == 4   ? shared > 2
              : cluster_k == 2 ? cluster_m != 2 || cluster_n != 2
                               : cluster_m > 2 && shared != 3 && shared != 8) {
            continue;
          }
          emit(true, block_m, 128, cluster_m, cluster_n, cluster_k);
        }
      }
    }
  }
  // Tokens first. Each thread block has slices / cluster_k of the slices.
  const auto tokens_first = [&](int block_m, int block_n, int cluster_k) {
    for (const int cluster_n : {1, 2}) {
      for (const int cluster_m : {1, 2}) {
        if (cluster_m > 1 && p.kn && block_n % 128 != 0) continue;
        if (cluster_k > 1 && cluster_n > cluster_m) continue;  // never the fastest
        emit(false, block_m, block_n, cluster_m, cluster_n, cluster_k);
      }
    }
    // Few rounds of a short k, which lose less by the processors that clusters of 4 leave idle than they gain.
    if (block_n == 192 && !p.kn) emit(false, block_m, block_n, 4, 1, cluster_k);
  };
  if (p.slices == 1) {
    if (!p.kn) {
      for (const int block_n : {96, 128}) tokens_first(64, block_n, 1);
      for (const int block_n : {80, 96, 112, 160, 224}) tokens_first(128, block_n, 1);
    } else {
      tokens_first(128, 64, 1);
    }
    for (const int block_n : {128, 192, 256}) tokens_first(128, block_n, 1);
  } else {
    if (p.slices == 2) {
      if (!p.kn) {
        for (const int block_n : {96, 128}) tokens_first(64, block_n, 2);
        tokens_first(128, 80, 1);
      }
    }
    for (const int cluster_k : {1, 2}) {
      tokens_first(128, 64, cluster_k);
      if (p.slices / cluster_k <= 2) tokens_first(128, 128, cluster_k);
      if (!p.kn && p.slices / cluster_k <= 2) tokens_first(128, 160, cluster_k);
      if (!p.kn && p.slices / cluster_k <= 4) tokens_first(128, 96, cluster_k);
    }
  }
}

// What the wgmma kernel can take at all: 16-byte rows, and sizes below its ints' limits.
constexpr bool gemm_takes_wgmma(const gemm_problem& p) {
  constexpr std::int64_t most = std::int64_t{1} << 30;
  return p.aligned && p.k >= 1 && p.m <= most && p.n <= most && p.k <= most &&
         gemm_tiles(p.m, p.n, p.batch, 8, 8) <= most;
}

// Whether a kernel can run a schedule: one of those above but for the number of thread blocks, whole clusters of it, the
// stages and the kind of launch; or the generic kernel.
inline bool gemm_is_legal(gemm_schedule s, const gemm_problem& p) {
  if (s.blocks < 1) return false;
  if (s.kernel == gemm_kernel::mma) return (s.block_m == 16 || s.block_m == 64) && s.block_n == 64;
  const int cluster = s.cluster_m * s.cluster_n * s.cluster_k;
  if (!gemm_takes_wgmma(p) || cluster < 1 || s.blocks % cluster != 0) return false;
  if (s.stages < 0 || s.stages == 1 || s.stages > gemm_max_stages || s.group < 1) return false;
  bool found = false;
  for_each_gemm_schedule(p, gemm_device{}, [&](const gemm_schedule& x) {
    gemm_schedule y = x;
    y.blocks = s.blocks, y.stages = s.stages, y.group = s.group, y.programmatic = s.programmatic;
    y.residents = s.residents;
    if (s.residents != 1 && (s.residents != 2 || !gemm_may_share(s))) return;
    if (s.weights_first && x.weights_first && s.block_n % 8 == 0 && s.block_n >= 8 && s.block_n <= 64 &&
        x.block_n <= 64 && s.block_n / s.cluster_m % 8 == 0) {
      y.block_n = s.block_n;  // any number of weights
    }
    if (s == y && (!p.kn || s.block_n == x.block_n)) found = true;
  });
  return found;
}

// A model of a schedule's time on an H100, in microseconds. The tensor core, a processor's way to the L2 cache, the L2
// cache, the latency of a ring's copies and memory all take their time, the longest counts most; launch and ends come on
// top. Its constants were fitted to benchmarks/results/h100/gemm_schedules.jsonl.
inline double gemm_cost(const gemm_schedule& s, const gemm_problem& p, const gemm_device& d) {
  constexpr double clock = 1689.0;                  // a microsecond
  constexpr double memory = 3.2705e6;               // bytes a microsecond
  constexpr double l2 = 6795.6, port = 145.2;       // bytes a clock, of all and of one processor
  constexpr double latency = 1223.3, loop = 210.0;  // clocks: of a copy; of the least tile of k
  constexpr double sharpness = 3.194;
  const int block_x = s.weights_first ? s.block_n : s.block_m, block_y = s.weights_first ? s.block_m : s.block_n;
  const int cluster_x = s.weights_first ? s.cluster_n : s.cluster_m,
            cluster_y = s.weights_first ? s.cluster_m : s.cluster_n;
  const int cluster = cluster_x * cluster_y * s.cluster_k, blocks_64 = (block_x + 63) / 64;
  const double tiles =
      static_cast<double>(gemm_tiles(p.m, p.n, p.batch, s.block_m * s.cluster_m, s.block_n * s.cluster_n));
  const double clusters = static_cast<double>(s.blocks / cluster),
               residents = static_cast<double>(ceil_div(s.blocks, d.processors));
  const double rounds = static_cast<double>(static_cast<std::int64_t>((tiles - 1.0) / clusters) + 1);
  const double depth =
      rounds * static_cast<double>(ceil_div(ceil_div(p.k, 64), s.cluster_k));  // tiles of k, of a block
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);

  // Stages of the ring, and whether the next kernel's blocks fit beside these.
  const int stage_bytes = (block_x + block_y) * 128;
  const int share = static_cast<int>(ceil_div(block_y, 8 * s.cluster_k));  // where others send partial results
  const int waiting = s.cluster_k > 1 ? 8 * share : block_y <= 192 ? block_y : block_y / 2;  // columns of results
  const int staging = 1024 + (s.cluster_k - 1) * share * blocks_64 * 2048 +
                      (s.weights_first ? block_y * block_x * 2 : block_x * 2 * waiting);
  const int room = ((s.residents == 2 ? 112 : 226) * 1024 - staging) / stage_bytes;
  const int stages = room < gemm_max_stages ? room : gemm_max_stages;
  const bool overlaps = stages * stage_bytes + staging <= 113 * 1024 && block_x <= 64 && block_y <= 128;

  const auto larger = [](double x, double y) { return x > y ? x : y; };
  const double tensor = 2.0 * blocks_64 * block_y * (block_x >= 128 ? 0.9096 : 0.8);
  const double uneven = p.k % 64 != 0 ? 2.057 : 1.0;  // rows that start inside a line of memory
  // Rows that the L2 cache gives a block: sharing saves a part of them. The larger operand comes from memory, and is more
  // work; that are the weights but for very many tokens.
  const bool x_is_larger = s.weights_first == (p.m <= 2 * p.n);
  const auto copied = [](int block, int sharers, bool is_larger) {
    const double saved = block - 8.0 * static_cast<double>(ceil_div(block, 8 * sharers));
    return is_larger ? 1.168 * (block - 0.8466 * saved) : block - 0.5328 * saved;
  };
  const double from_l2 = copied(block_x, cluster_y, x_is_larger) + copied(block_y, cluster_x, !x_is_larger);
  const double terms[] = {
      depth * larger(tensor, loop) * residents / clock,
      depth * stage_bytes * uneven * residents / port / clock,
      depth * from_l2 * 128.0 * uneven * larger(0.0, tiles < clusters ? tiles : clusters) * cluster / l2 / clock,
      depth * latency / (stages > 1 ? stages - 1 : 1) * (cluster_x * cluster_y > 1 ? 1.187 : 1.0) / clock,
      2.0 * static_cast<double>(p.batch) * (n * k + m * k + m * n) / memory,
  };
  double sum = 0.0;
  for (const double t : terms) sum += std::pow(t, sharpness);
  double body = std::pow(sum, 1.0 / sharpness);
  if (!s.weights_first && s.block_m == 128 && s.block_n == 160 && s.cluster_k == p.slices) body *= 1.045;
  if (s.weights_first && s.block_n > 64) body *= cluster == 1 && s.group == 1 ? 0.974 : 1.028;

  double ends = block_y * (s.weights_first ? 0.005044 : 0.003982) * (block_x > 128 ? 2 : 1);
  if (s.cluster_k > 1) ends += 0.8407 + 0.006672 * block_y * blocks_64 * (s.cluster_k - 1) / s.cluster_k;
  if (overlaps) ends -= 0.105;
  if (cluster > 1) ends += 0.06954;
  return body + ends + 1.91 * static_cast<double>(s.blocks) / d.processors / residents;
}

// Schedules that are hopeless, or were never the best by more than noise where others were.
constexpr bool gemm_is_plausible(const gemm_schedule& s, const gemm_problem& p) {
  if (s.cluster_m > 1 && p.m <= s.block_m) return false;
  // A cluster meets at both ends of a tile: not for stacks of chains of a few tiles of k.
  if (p.batch > 1 && p.k <= 256 && s.cluster_m * s.cluster_n > 1) return false;
  if (!s.weights_first) return p.m >= 48;
  if (s.block_n > 64) {
    const bool one_round = gemm_tiles(p.m, p.n, p.batch, s.block_m, s.block_n) * s.cluster_k <= s.blocks;
    return p.batch == 1 && p.m > 128 && (p.m <= 1024 || p.slices > 1 || one_round || p.kn);
  }
  if (p.m > 512 || p.m > 8 * s.block_m || (s.cluster_k == 4 && s.block_m > 64)) return false;
  return s.block_m < 2 * (p.m > 8 ? p.m : 8) && (s.block_m >= 32 || s.cluster_n == 1);
}

// A measured choice, for a device like the one it was measured on.
inline bool tuned_gemm_schedule(const gemm_problem& p, const gemm_device& d, gemm_schedule& s) {
  if (d.processors != 132 || p.kn || p.batch != 1) return false;
  for (const gemm_table_row& row : gemm_table) {
    if (row.n != p.n || row.k != p.k || row.slices != p.slices || p.m < row.first_m || p.m > row.last_m) continue;
    gemm_schedule t;
    t.kernel = gemm_kernel::wgmma;
    t.weights_first = row.weights_first;
    t.block_m = row.block_m, t.block_n = row.block_n;
    t.cluster_m = row.cluster_m, t.cluster_n = row.cluster_n, t.cluster_k = row.cluster_k;
    t.residents = row.residents;
    t.group = gemm_group(t, p);
    t = with_blocks(t, p, d);
    t.programmatic = !gemm_starts_alone(t, p, d);
    if (row.two_rounds_at_once) {
      const std::int64_t tiles = gemm_tiles(p.m, p.n, 1, t.block_m, t.block_n) * t.cluster_k;
      t.blocks = tiles < 2 * t.blocks ? tiles : 2 * t.blocks;
    }
    s = t;
    return true;
  }
  return false;
}

// The measured schedule, else that of the least cost; the generic one where there is no other.
inline gemm_schedule pick_gemm_schedule(const gemm_problem& p, const gemm_device& d) {
  gemm_schedule best;
  best.block_m = p.m <= 16 ? 16 : 64;
  best.programmatic = false;
  const std::int64_t tiles = gemm_tiles(p.m, p.n, p.batch, best.block_m, best.block_n);
  constexpr std::int64_t most = std::int64_t{1} << 30;  // below the limit of gridDim.x
  best.blocks = tiles < most ? tiles : most;
  if (!d.wgmma || !gemm_takes_wgmma(p)) return best;
  if (tuned_gemm_schedule(p, d, best)) return best;
  double least = 0.0;
  bool found = false;
  for_each_gemm_schedule(p, d, [&](const gemm_schedule& s) {
    if (!gemm_is_plausible(s, p)) return;
    const double cost = gemm_cost(s, p, d);
    if (!found || cost < least) best = s, least = cost, found = true;
  });
  return best;
}

}  // namespace schedule
BI_NAMESPACE_END
