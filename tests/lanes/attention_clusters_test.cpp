// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/attention_hopper.hpp"
// Words of lanes and of Hopper come first.
#include <string>

#include "bi/kernel/attention_clusters.cuh"
#include "lanes/attention_case.hpp"

// The kernel of decode that has a cluster for each request and KV head, on the CPU: blocks side by side, at any speeds, and what
// they send to each other on its way for any time.

namespace {

using bi::bf16;
using test::attention_case;
namespace k = bi::kernel;

template <class T, int HeadDim>
void by_clusters(const attention_case<T, HeadDim>& c, int cluster, int slots, test::generator& g) {
  using contract = typename attention_case<T, HeadDim>::contract;
  const bi::attention_args<T>& a = c.args();
  const k::attention_split_params<T> p = c.split_params(slots);
  REQUIRE(c.leaves() <= k::attention_cluster_leaves_a_block * cluster);
  REQUIRE((k::attention_cluster_bytes<contract, HeadDim>(slots)) <= static_cast<int>(sizeof k::shared));
  lanes::launch_clusters(static_cast<int>(a.requests * a.limits.heads_kv), cluster, k::attention_leaves_threads,
                         k::attention_clusters_kernel<contract, T, HeadDim>, p, g);
  c.check("clusters of " + std::to_string(cluster));
}

}  // namespace

TEST_CASE("attention: a cluster for each request and head has the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(1);
  attention_case<bf16, 128> few({{700, 0, 1, 1000}, {1, 1, 1, 1}, 1, 4, 0, true}, g);
  by_clusters(few, 2, 4, g);
  by_clusters(few, 4, 5, g);
  by_clusters(attention_case<bf16, 128>({{256 * 8, 80}, {1, 1}, 1, 8, 0, true}, g), 8, 4, g);
  by_clusters(attention_case<bf16, 64>({{256 * 7 + 9}, {1}, 2, 1, 0, true, true}, g), 4, 4, g);
  by_clusters(attention_case<bf16, 64>({{1000, 513}, {3, 2}, 2, 2, 300, true}, g), 2, 4, g);
  by_clusters(attention_case<bi::fp16, 128>({{257, 256, 65, 64, 900}, {2, 1, 4, 3, 2}, 1, 4, 0, false}, g), 2, 5, g);
}
