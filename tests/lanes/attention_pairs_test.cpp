// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/attention_hopper.hpp"
// Words of lanes and of Hopper come first.
#include <cstdint>
#include <string>
#include <vector>

#include "bi/kernel/attention_mma.cuh"
// That kernel's shared memory has a size of its own.
#undef __shared__
#define __shared__ static
#include "bi/kernel/attention_fold.cuh"
#undef __shared__
#define __shared__
#include "bi/kernel/attention_pairs.cuh"
#include "lanes/attention_case.hpp"

// Decode on the CPU: leaves dealt out to clusters, whose blocks take them in turns, and the kernel that folds what was cut.

namespace {

using bi::bf16;
using test::attention_case;
namespace k = bi::kernel;

template <class T, int HeadDim>
void by_pairs(const attention_case<T, HeadDim>& c, int clusters, int cluster, int slots, test::generator& g) {
  using contract = typename attention_case<T, HeadDim>::contract;
  const bi::attention_args<T>& a = c.args();
  k::attention_relay_params<T> p = {};
  p.split = c.split_params(slots);
  p.shape.clusters = clusters, p.shape.cluster = cluster;
  const std::int64_t rows = a.limits.max_q_len * p.split.a.batch.group, items = a.requests * a.limits.heads_kv;
  const auto space = bi::schedule::attention_split_carve(clusters, c.leaves(), c.leaves() * items, rows, HeadDim,
                                                         sizeof(bi::device::attention_cut));
  std::vector<unsigned char> workspace(static_cast<std::size_t>(space.bytes) + 256, 0x5a);
  auto* const bytes =
      reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 255) / 256 * 256);
  p.split.partials.cuts = reinterpret_cast<bi::device::attention_cut*>(bytes);
  p.split.partials.ml = reinterpret_cast<float*>(bytes + space.records);
  p.split.partials.o = reinterpret_cast<float*>(bytes + space.records + space.ml);
  p.split.partials.places.a_block = space.places_a_block;
  p.split.partials.rows = rows;
  REQUIRE((k::attention_pairs_bytes<contract, HeadDim>(slots)) <= 227 * 1024);
  lanes::launch_clusters(clusters, cluster, k::attention_leaves_threads,
                         k::attention_pairs_kernel<contract, T, HeadDim>, p, g);
  const k::attention_fold_params<T> fold = {p.split.a, p.split.partials, clusters, false};
  lanes::shared_memory() = k::shared;
  lanes::launch(3, k::attention_fold_threads, k::attention_fold_kernel<contract, T, HeadDim>, fold, g);
  c.check(std::to_string(clusters) + " clusters of " + std::to_string(cluster));
}

}  // namespace

TEST_CASE("attention: leaves dealt out to clusters have the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(1);
  by_pairs(attention_case<bf16, 128>({{256 * 11 + 3}, {1}, 1, 4, 0, true}, g), 3, 2, 4, g);
  // Whole items, one after the other; few and many leaves of each.
  attention_case<bf16, 64> many({{256 * 3, 256 * 3, 100, 0, 256 * 5 + 1, 256}, {1, 2, 1, 1, 2, 1}, 2, 4, 0, true, true},
                                g);
  by_pairs(many, 1, 2, 4, g);
  by_pairs(many, 2, 2, 5, g);
  by_pairs(many, 3, 4, 4, g);
  by_pairs(many, 40, 2, 4, g);  // more than leaves
  // 16 packed rows: places for two times.
  by_pairs(attention_case<bf16, 128>({{256 * 9 + 1, 256 * 8, 30}, {2, 2, 1}, 1, 8, 0, true}, g), 2, 2, 5, g);
  by_pairs(attention_case<bf16, 64>({{256 * 20, 256 * 20 + 7, 256 * 9}, {3, 2, 3}, 1, 2, 2000, true}, g), 3, 2, 4, g);
  by_pairs(attention_case<bi::fp16, 128>({{256 * 6, 256 * 7}, {4, 1}, 2, 2, 0, false}, g), 2, 4, 4, g);
}
