// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

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

// Thread blocks that run at once, in whole clusters. Clusters of more than 2 leave processors idle: those of one are
// neighbours, in groups that differ from GPU to GPU. An H100 of 132 had room for 30 of 4 and 15 of 8.
constexpr std::int64_t resident_clusters(const gemm_device& d, int cluster) {
  return (cluster <= 2 ? d.processors : d.processors / 11 * 10) / cluster;
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

// Calls f with every schedule of the wgmma kernel that is legal for a problem.
template <class F>
constexpr void for_each_gemm_schedule(const gemm_problem& p, const gemm_device& d, F f) {
  const auto emit = [&](bool weights_first, int block_m, int block_n, int cluster_m, int cluster_n, int cluster_k,
                        int group) {
    gemm_schedule s;
    s.kernel = gemm_kernel::wgmma;
    s.weights_first = weights_first;
    s.block_m = block_m, s.block_n = block_n;
    s.cluster_m = cluster_m, s.cluster_n = cluster_n, s.cluster_k = cluster_k;
    s.group = group;
    s = with_blocks(s, p, d);
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
    if (p.kn && block_m != 8 && block_m != 32 && block_m != 128) continue;
    const std::int64_t share = ceil_div(p.n * ceil_div(p.m, block_m), resident_clusters(d, p.slices));
    const int even = static_cast<int>(share < 64 ? ceil_div(share, 8) * 8 : 64);
    const int widths[] = {32, 64, even};
    for (int w = 0; w < 3; ++w) {
      const int block_n = widths[w];
      if (w == 2 && (even == 32 || even == 64)) continue;  // is there already
      if (p.kn && block_n != 64) continue;
      if (p.slices > 1) {
        emit(true, block_m, block_n, 1, 1, p.slices, 1);
        continue;
      }
      for (const int cluster_n : {1, 2, 4}) {
        for (const int cluster_m : {1, 2}) {
          if (block_m / cluster_n % 8 != 0 || block_n / cluster_m % 8 != 0) continue;
          if (p.kn && cluster_m > 1) continue;  // a block of 64 weights is copied as one
          emit(true, block_m, block_n, cluster_m, cluster_n, 1, 1);
        }
      }
    }
  }
  if (p.slices == 1 && !p.kn) {  // for tokens that fill three blocks of 112 better than three of 128
    for (const int cluster_n : {1, 2}) {
      for (const int cluster_m : {1, 2}) emit(true, 112, 128, cluster_m, cluster_n, 1, 1);
    }
  }
  // Tokens first. Each thread block has slices / cluster_k of the slices.
  const auto tokens_first = [&](int block_m, int block_n, int cluster_k) {
    constexpr int group = 4;
    emit(false, block_m, block_n, 1, 1, cluster_k, group);
    const bool shares_weights = block_n % (p.kn ? 128 : 16) == 0;
    if (shares_weights) emit(false, block_m, block_n, 2, 1, cluster_k, group);
    if (cluster_k > 1) return;
    emit(false, block_m, block_n, 1, 2, 1, group);
    if (shares_weights) emit(false, block_m, block_n, 2, 2, 1, group);
  };
  if (p.slices == 1) {
    if (!p.kn) {
      for (const int block_n : {80, 96, 128, 160, 192, 256}) tokens_first(64, block_n, 1);
      for (const int block_n : {160, 192, 224}) tokens_first(128, block_n, 1);
      tokens_first(256, 128, 1);
    }
    tokens_first(128, 128, 1);
    tokens_first(128, 256, 1);
  } else {
    if (p.slices == 2) {
      if (!p.kn) {
        for (const int block_n : {80, 96, 128, 160}) tokens_first(64, block_n, 2);
      }
      tokens_first(128, 128, 2);
    }
    for (const int cluster_k : {1, 2}) {
      tokens_first(128, 64, cluster_k);
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
    if (s.weights_first && x.weights_first && s.block_n % 8 == 0 && s.block_n >= 8 && s.block_n <= 64 && x.block_n <= 64 &&
        s.block_n / s.cluster_m % 8 == 0) {
      y.block_n = s.block_n;  // any number of weights
    }
    if (s == y && (!p.kn || s.block_n == x.block_n)) found = true;
  });
  return found;
}

// A model of a schedule's time on an H100, in microseconds; benchmarks/gemm/retune measures what it predicts. A tile of k
// takes as long as the tensor core, the shared memory or the loop around them; memory is read meanwhile.
inline double gemm_cost(const gemm_schedule& s, const gemm_problem& p, const gemm_device& d) {
  constexpr double clocks = 1650.0, memory = 2.9e6;  // a microsecond: clocks, bytes
  constexpr double shared = 117.0;                   // bytes a clock
  const int block_x = s.weights_first ? s.block_n : s.block_m, block_y = s.weights_first ? s.block_m : s.block_n;
  const int blocks_64 = static_cast<int>(ceil_div(block_x, 64));
  const int cluster = s.cluster_m * s.cluster_n * s.cluster_k;
  const double tiles =
      static_cast<double>(gemm_tiles(p.m, p.n, p.batch, s.block_m * s.cluster_m, s.block_n * s.cluster_n));
  const double clusters = static_cast<double>(s.blocks / cluster);
  const double rounds =
      tiles <= clusters ? 1.0 : static_cast<double>(static_cast<std::int64_t>((tiles - 1) / clusters) + 1);
  const double resident = static_cast<double>(s.blocks) / d.processors;
  const double tensor = 4.0 * blocks_64 * (block_y < 40 ? 20.0 : block_y / 2.0) + 20.0;
  const double bytes = (block_x + block_y) * 128.0 + 4.0 * blocks_64 * (2048.0 + block_y * 32.0);
  const auto larger = [](double a, double b) { return a > b ? a : b; };
  const double busy = larger(tensor, bytes / shared);
  double step = larger(busy, 160.0);
  if (resident > 1.0) step = larger(step, busy * resident);
  const double compute = rounds * static_cast<double>(ceil_div(ceil_div(p.k, 64), s.cluster_k)) * step / clocks;
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  const double traffic = 2.0 * static_cast<double>(p.batch) * (n * k + m * k + m * n) / memory;
  const double end = 0.5 + block_y * 0.004 + (s.cluster_k > 1 ? 0.8 + block_y * 0.006 : 0.0);
  const double pair = s.cluster_m * s.cluster_n == 1 ? 0.0 : s.weights_first ? -0.3 : 0.2;
  return 1.5 + larger(compute, traffic) + (compute < traffic ? compute : traffic) / 8.0 + pair +
         end * (rounds + 1.0) / 2.0;
}

// Schedules that were never the best by more than noise, where others were.
constexpr bool gemm_is_plausible(const gemm_schedule& s, const gemm_problem& p) {
  constexpr int widths[] = {8, 16, 32, 64, 96, 128};
  int padded = 128;
  for (int i = 5; i >= 0; --i) {
    if (p.m <= widths[i]) padded = widths[i];
  }
  if (p.kn) padded = padded <= 8 ? 8 : padded <= 32 ? 32 : 128;
  if (!s.weights_first) {
    const bool pairs = p.slices == 1 && p.m > 128 && p.m <= 512 && (!p.kn || s.block_n % 128 == 0);
    return p.m > 96 && s.cluster_n == 1 && (s.cluster_m == 2) == pairs;
  }
  if (p.m > 512 || s.cluster_n > 1) return false;
  if (s.block_m != padded && !(p.m > 64 && s.block_m == 64)) return false;
  if (s.cluster_m > 1 && p.m <= s.block_m) return false;
  // Two thread blocks an SM: only where clusters of many blocks find no room otherwise.
  const bool crowded = s.cluster_k >= 4 && s.blocks > 100;
  return (s.residents == 2) == crowded;
}

// The schedule of the least cost; the generic one where there is no other.
inline gemm_schedule pick_gemm_schedule(const gemm_problem& p, const gemm_device& d) {
  gemm_schedule best;
  best.block_m = p.m <= 16 ? 16 : 64;
  best.programmatic = false;
  const std::int64_t tiles = gemm_tiles(p.m, p.n, p.batch, best.block_m, best.block_n);
  constexpr std::int64_t most = std::int64_t{1} << 30;  // below the limit of gridDim.x
  best.blocks = tiles < most ? tiles : most;
  if (!d.wgmma || !gemm_takes_wgmma(p)) return best;
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
