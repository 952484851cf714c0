// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "runtime/stub/cuda_runtime_api.h"
// The kernels' words come first.
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "bi/kernel/gemm_wgmma_tiles.cuh"
#include "bi/schedule/gemm.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/sanitized.hpp"

// Which tile of a product is whose: the kernel's own functions, called on the host for every thread block.

using namespace bi::kernel;
using bi::schedule::ceil_div;

namespace {

using params = gemm_wgmma_params<bi::bf16, bi::bf16>;

int count_up(std::vector<int>& seen, int i) { return ++seen[static_cast<std::size_t>(i)]; }

// Blocks of `x` by `y` rows of a grid of clusters: whether each comes up once, walked in groups of so many.
template <class Shape>
bool walks_each_tile_once(int grid_x, int grid_y, int batch, int group, int cluster_x, int cluster_y, int load_x) {
  params p = {};
  p.grid_x = grid_x, p.grid_y = grid_y;
  p.group = group < grid_x ? group : grid_x;
  p.tiles = grid_x * grid_y * batch;
  p.cluster_x = cluster_x, p.cluster_y = cluster_y;
  p.load_x = load_x;
  const int blocks_x = grid_x * cluster_x, blocks_y = grid_y * cluster_y;
  std::vector<int> seen(static_cast<std::size_t>(blocks_x * blocks_y * batch));
  for (int index = 0; index < p.tiles; ++index) {
    for (int x = 0; x < cluster_x; ++x) {
      for (int y = 0; y < cluster_y; ++y) {
        const auto t = gemm_wgmma::find_tile<Shape>(p, index, x, y);
        if (t.x % load_x != 0 || t.y % Shape::block_y != 0 || t.x < 0 || t.y < 0) return false;
        const int bx = t.x / load_x, by = t.y / Shape::block_y;
        if (bx >= blocks_x || by >= blocks_y || t.entry < 0 || t.entry >= batch) return false;
        if (count_up(seen, (t.entry * blocks_y + by) * blocks_x + bx) > 1) return false;
      }
    }
  }
  for (const int n : seen) {
    if (n != 1) return false;
  }
  return true;
}

using few_tokens = gemm_wgmma_shape<true, 1, 8, 0>;
using many_tokens = gemm_wgmma_shape<false, 2, 192, 0>;

}  // namespace

TEST_CASE("gemm tiles: every grid of up to 1024 rows each way is walked once", "[schedule][gemm]") {
  for (int x = 1; x <= 128; ++x) {
    for (int y = 1; y <= 128; y += test::sanitized ? 5 : 1) {
      const int batch = (x + y) % 7 == 0 ? 3 : 1;
      if (!walks_each_tile_once<few_tokens>(x, y, batch, (x + y) % 2 == 0 ? 4 : 1, 1, 1, 8)) {
        FAIL("grid " << x << " x " << y << ", batch " << batch);
      }
    }
  }
  for (int x = 1; x <= 24; ++x) {
    for (int y = 1; y <= 24; ++y) {
      for (const int group : {1, 2, 3, 4, 5, 8, 1000}) {
        for (const int batch : {1, 2}) {
          for (const int cluster : {1, 2, 3, 4}) {
            INFO("grid " << x << " x " << y << ", group " << group << ", batch " << batch << ", cluster " << cluster);
            REQUIRE(walks_each_tile_once<many_tokens>(x, y, batch, group, cluster, 4 / cluster, 128));
          }
        }
      }
    }
  }
}

TEST_CASE("gemm tiles: random large grids are walked once", "[schedule][gemm]") {
  test::generator g(3);
  for (int i = 0; i < 40; ++i) {
    const int x = static_cast<int>(g.between(1, 3000)), y = static_cast<int>(g.between(1, 300000 / x + 1));
    const int group = static_cast<int>(g.between(1, 40));
    INFO("grid " << x << " x " << y << ", group " << group);
    REQUIRE(walks_each_tile_once<many_tokens>(x, y, 1, group, 1, 1, 128));
  }
}

TEST_CASE("gemm tiles: as many as cover the product, none outside", "[schedule][gemm]") {
  // Counted row by row: the first tile of each row that no tile before it has.
  const int sizes[] = {8, 16, 32, 64, 80, 88, 96, 104, 112, 128, 136, 160, 192, 224, 256};
  for (const int block : sizes) {
    std::int64_t tiles = 0, end = 0;
    for (std::int64_t m = 0; m <= 1024; ++m) {
      if (m > end) ++tiles, end += block;
      REQUIRE(ceil_div(m, block) == tiles);
      for (const int other : {8, 64, 256}) {
        for (std::int64_t n = 1; n <= 1024; n += 31) {
          const std::int64_t across = (n - 1) / other + 1;
          REQUIRE(bi::schedule::gemm_tiles(m, n, 3, block, other) == 3 * tiles * across);
          REQUIRE(bi::schedule::gemm_tiles(n, m, 1, other, block) == tiles * across);
        }
      }
    }
  }
  // Beyond 2^31 and 2^32.
  constexpr std::int64_t large = std::int64_t{1} << 38;
  CHECK(bi::schedule::gemm_tiles(large + 1, 64, 1, 64, 64) == large / 64 + 1);
  CHECK(bi::schedule::gemm_tiles(large, large, 1, 128, 128) == (large / 128) * (large / 128));
}

TEST_CASE("gemm tiles: the shares of a cluster copy each row of a tile", "[schedule][gemm]") {
  for (int tile = 8; tile <= 256; tile += 8) {
    for (int blocks = 1; blocks <= 8; ++blocks) {
      const int share = static_cast<int>(ceil_div(tile, 8 * blocks)) * 8;
      if (share > tile) continue;
      std::vector<int> seen(static_cast<std::size_t>(tile));
      for (int i = 0; i < blocks; ++i) {
        const int first = gemm_wgmma::share_begin(tile, share, i);
        REQUIRE((first >= 0 && first % 8 == 0 && first + share <= tile));
        for (int r = first; r < first + share; ++r) count_up(seen, r);
      }
      INFO("tile " << tile << ", blocks " << blocks);
      for (const int n : seen) REQUIRE(n >= 1);  // the last ones may overlap, and write the same bytes
    }
  }
}

TEST_CASE("gemm tiles: the slices of a cluster are all of k, once, in order", "[schedule][gemm]") {
  for (std::int64_t k = 1; k <= 4096; k += k < 300 ? 1 : 61) {
    for (const int slices : {1, 2, 4, 8}) {
      params p = {};
      for (int i = 0; i <= slices; ++i) {
        p.slice_tile[i] = static_cast<int>(ceil_div(bi::contract::slice_begin(k, slices, i), 64));
      }
      for (int cluster = 1; cluster <= slices; cluster *= 2) {
        p.slices_in_block = slices / cluster;
        int at = 0;
        for (int rank = 0; rank < cluster; ++rank) {
          const auto s = gemm_wgmma::find_slices(p, rank);
          REQUIRE((s.begin == at && s.end >= s.begin && s.first == rank * p.slices_in_block));
          at = s.end;
        }
        REQUIRE(at == ceil_div(k, 64));
      }
    }
  }
}

TEST_CASE("gemm schedule: 100000 random problems get a legal one", "[schedule][gemm]") {
  test::generator g(17);
  for (int i = 0; i < (test::sanitized ? 10000 : 100000); ++i) {
    bi::schedule::gemm_problem p;
    const auto size = [&] { return g.chance(50) ? g.between(1, 300) : g.between(1, 1 << g.between(8, 18)); };
    p.m = size(), p.n = size(), p.k = size();
    p.batch = g.chance(20) ? g.between(1, 64) : 1;
    p.slices = 1 << g.between(0, 3);
    p.kn = g.chance(30);
    p.aligned = g.chance(90);
    const bi::schedule::gemm_device d = {static_cast<int>(g.chance(50) ? 132 : g.between(1, 200)), g.chance(90)};
    const auto s = bi::schedule::pick_gemm_schedule(p, d);
    INFO(to_string(s) << ", m " << p.m << ", n " << p.n << ", k " << p.k << ", batch " << p.batch << ", slices "
                      << p.slices << ", kn " << p.kn << ", processors " << d.processors);
    if (!bi::schedule::gemm_is_legal(s, p)) FAIL("is not legal");
  }
}
