// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <set>
#include <tuple>
#include <vector>

#include "bi/contract/gemm.hpp"
#include "bi/schedule/gemm.hpp"
#include "support/manifest.hpp"

// The schedules of matrix products; see manifest.hpp.
namespace test {

template <class T>
manifest_operation gemm_operation() {
  return {"gemm", bi::contract::gemm_v1<T>::name};
}

// Every schedule of a problem, in its own grid and in one of grid_limits, with the ring as long as it can be and as short,
// launched programmatically or not.
inline std::vector<bi::schedule::gemm_schedule> gemm_schedules(const bi::schedule::gemm_problem& p) {
  std::vector<bi::schedule::gemm_schedule> all;
  std::size_t turn = 0;
  std::set<std::tuple<bool, int, int, int>> forms;
  bi::schedule::for_each_gemm_schedule(p, bi::schedule::gemm_device{}, [&](bi::schedule::gemm_schedule s) {
    // A small run takes one of each kernel.
    if (!forms.insert({s.weights_first, s.block_m, s.block_n, s.cluster_k}).second && small_run()) return;
    all.push_back(s);
    const std::int64_t cluster = s.cluster_m * s.cluster_n * s.cluster_k;
    const std::int64_t limit = grid_limits[turn++ % 5] / cluster * cluster;
    s.blocks = limit > 0 ? limit : cluster;
    s.programmatic = false;
    s.stages = turn % 2 == 0 ? 2 : 0;
    s.group = s.weights_first ? 1 : 2;
    all.push_back(s);
  });
  for (const int block_m : {16, 64}) {
    for (const std::int64_t blocks : grids()) {
      bi::schedule::gemm_schedule s;
      s.block_m = block_m;
      s.blocks = blocks;
      s.programmatic = false;
      all.push_back(s);
    }
  }
  return all;
}

}  // namespace test
