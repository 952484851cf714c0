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
           a.cluster_k == b.cluster_k && a.residents == b.residents && a.stages == b.stages && a.group == b.group && a.blocks == b.blocks &&
           a.programmatic == b.programmatic;
  }
  friend constexpr bool operator!=(const gemm_schedule& a, const gemm_schedule& b) { return !(a == b); }
};

inline std::string to_string(const gemm_schedule& s) {
  char text[256];
  std::snprintf(text, sizeof text,
                "gemm_schedule{%s%s, block_m=%d, block_n=%d, cluster=%dx%dx%d, residents=%d, stages=%d, group=%d, blocks=%lld%s}",
                s.kernel == gemm_kernel::mma ? "mma" : "wgmma", s.weights_first ? ", weights first" : "", s.block_m,
                s.block_n, s.cluster_m, s.cluster_n, s.cluster_k, s.residents, s.stages, s.group, static_cast<long long>(s.blocks),
                s.programmatic ? ", programmatic" : "");
  return text;
}

// Tiles of a stack of `batch` products.
constexpr std::int64_t gemm_tiles(std::int64_t m, std::int64_t n, std::int64_t batch, int block_m, int block_n) {
  return (m / block_m + (m % block_m != 0 ? 1 : 0)) * (n / block_n + (n % block_n != 0 ? 1 : 0)) * batch;
}

// The generic mma.sync schedule: every shape, alignment and architecture from sm_80.
constexpr gemm_schedule pick_gemm_schedule(std::int64_t m, std::int64_t n, std::int64_t batch) {
  gemm_schedule s;
  s.block_m = m <= 16 ? 16 : 64;
  const std::int64_t tiles = gemm_tiles(m, n, batch, s.block_m, s.block_n);
  constexpr std::int64_t most = std::int64_t{1} << 30;  // below the limit of gridDim.x
  s.blocks = tiles < most ? tiles : most;
  return s;
}

// What a schedule may depend on.
struct gemm_problem {
  std::int64_t m, n, k, batch;
  int slices;
  bool kn;  // weights as [k, n]
};
struct gemm_device {
  int processors = 132;
};

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Thread blocks that run at once, in whole clusters. Clusters of more than 2 leave processors idle: those of one are
// neighbours, in groups of 16 or 18.
constexpr std::int64_t resident_clusters(const gemm_device& d, int cluster) {
  return cluster <= 2 ? d.processors / cluster : d.processors / 16 * 16 / cluster;
}

// Fills in the grid.
constexpr gemm_schedule with_blocks(gemm_schedule s, const gemm_problem& p, const gemm_device& d) {
  const int cluster = s.cluster_m * s.cluster_n * s.cluster_k;
  const std::int64_t tiles = gemm_tiles(p.m, p.n, p.batch, s.block_m * s.cluster_m, s.block_n * s.cluster_n);
  const std::int64_t resident = resident_clusters(d, cluster);
  s.blocks = (tiles < resident ? tiles : resident) * cluster;
  return s;
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
    if (weights_first && block_n <= 64) {
      s.residents = 2;
      f(s);
      const std::int64_t tiles = gemm_tiles(p.m, p.n, p.batch, block_m, block_n) * cluster_k;
      if (s.blocks < tiles && cluster_m * cluster_n == 1) {
        s.blocks = tiles < 2 * s.blocks ? tiles : 2 * s.blocks;
        f(s);
      }
    }
  };
  // Weights first, tokens padded to block_m. Up to 64 weights for one warpgroup, up to 128 for two; also as many as give
  // every processor one tile.
  const std::int64_t shares = ceil_div(p.n, d.processors / p.slices);
  const int even = static_cast<int>(shares <= 128 ? ceil_div(shares, 8) * 8 : 128);
  constexpr int token_blocks[] = {8, 16, 32, 64, 96, 128};
  for (const int block_m : token_blocks) {
    if (p.kn && block_m != 8 && block_m != 32 && block_m != 128) continue;
    const int widths[] = {32, 64, 128, even};
    for (int w = 0; w < 4; ++w) {
      const int block_n = widths[w];
      if (w == 3 && (even == 32 || even == 64 || even == 128)) continue;  // is there already
      if (p.kn && block_n != 64) continue;
      if (block_n > 64 && block_m != 64 && block_m != 128) continue;
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
  // Tokens first.
  const auto tokens_first = [&](int block_m, int block_n, int cluster_k) {
    for (const int group : {4, 8, 16}) {
      emit(false, block_m, block_n, 1, 1, cluster_k, group);
      if (cluster_k > 1) continue;
      if (block_n % (p.kn ? 128 : 16) == 0) emit(false, block_m, block_n, 2, 1, 1, group);
      emit(false, block_m, block_n, 1, 2, 1, group);
    }
  };
  if (p.slices == 1) {
    tokens_first(128, 256, 1);
    tokens_first(128, 128, 1);
    if (!p.kn) {
      tokens_first(128, 160, 1);
      tokens_first(128, 192, 1);
      tokens_first(256, 128, 1);
    }
  } else {
    for (int cluster_k = 1; cluster_k <= p.slices; cluster_k *= 2) {
      tokens_first(128, 64, cluster_k);
      if (!p.kn && p.slices / cluster_k <= 2) tokens_first(128, 160, cluster_k);
      if (!p.kn && p.slices / cluster_k <= 4) tokens_first(128, 96, cluster_k);
    }
  }
}

}  // namespace schedule
BI_NAMESPACE_END
