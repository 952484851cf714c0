// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/attention_hopper.hpp"
// Words of lanes and of Hopper come first.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "bi/kernel/attention_mma.cuh"
// Those kernels' shared memory has a size of its own.
#undef __shared__
#define __shared__ static
#include "bi/kernel/attention_fold.cuh"
#include "bi/kernel/attention_queue_make.cuh"
#undef __shared__
#define __shared__
#include "bi/kernel/attention_queue.cuh"
#include "lanes/attention_case.hpp"

// Decode of whole items from a queue, on the CPU.

namespace {

using bi::bf16;
using test::attention_case;
namespace k = bi::kernel;

// `dealt`: requests whose leaves are dealt out, -1: as many as the kernel says. Together: the blocks run side by side; else one after
// the other, the first of which takes all that is left.
template <class T, int HeadDim>
void by_queue(const attention_case<T, HeadDim>& c, int blocks, int dealt, int slots, test::generator& g,
              bool together = true) {
  using contract = typename attention_case<T, HeadDim>::contract;
  const bi::attention_args<T>& a = c.args();
  k::attention_queue_params<T> p = {};
  p.split = c.split_params(slots);
  p.blocks = blocks;
  const test::split_workspace workspace(c, p.split, blocks, blocks + a.requests);
  p.queue = reinterpret_cast<bi::device::attention_queue*>(p.split.partials.cuts + blocks);
  p.order = reinterpret_cast<std::int32_t*>(p.queue + 1);
  REQUIRE((k::attention_queue_bytes<contract, HeadDim>(slots)) <= 227 * 1024);
  lanes::launch(1, k::attention_queue_threads, k::attention_queue_make_kernel<contract, T>, p, g);
  if (dealt >= 0) {
    p.queue->first = dealt * static_cast<std::int32_t>(a.limits.heads_kv);
    p.queue->dealt = {};
    if (dealt > 0) {
      const std::int32_t last = p.order[dealt - 1];
      p.queue->dealt = {static_cast<std::int32_t>(k::attention_request_item<contract>(p.split.a, last).leaves), last};
    }
  }
  if (together) {
    lanes::launch_clusters(1, blocks, k::attention_leaves_threads, k::attention_queue_kernel<contract, T, HeadDim>, p,
                           g);
  } else {
    lanes::launch(blocks, k::attention_leaves_threads, k::attention_queue_kernel<contract, T, HeadDim>, p, g);
  }
  const k::attention_fold_params<T> fold = {p.split.a, p.split.partials, blocks, false};
  lanes::launch(3, k::attention_fold_threads, k::attention_fold_kernel<contract, T, HeadDim>, fold, g);
  c.check(std::to_string(blocks) + " blocks, " + std::to_string(dealt) + " dealt out");
}

}  // namespace

TEST_CASE("attention: whole items from a queue have the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(1);
  const attention_case<bf16, 128> mixed({{300, 256 * 2, 30, 500, 0}, {1, 1, 2, 1, 1}, 2, 4, 0, true}, g);
  by_queue(mixed, 3, 0, 4, g);
  by_queue(mixed, 2, -1, 5, g, false);
  // Many short ones: nobody is so far ahead that places in the mail run out.
  const attention_case<bf16, 64> tiny({{9, 64, 3, 1, 40, 17, 64}, {1, 1, 1, 1, 1, 1, 1}, 2, 2, 0, true}, g);
  by_queue(tiny, 2, 0, 4, g);
  by_queue(tiny, 1, 0, 4, g, false);
  const attention_case<bi::fp16, 64> window({{2000, 1100, 300}, {2, 3, 0}, 2, 4, 600, true},
                                            g);  // a request without rows
  by_queue(window, 2, 0, 4, g);
  by_queue(attention_case<bf16, 64>({{600, 700, 800}, {4, 4, 4}, 1, 2, 0, false}, g), 1, 0, 4, g);
}

TEST_CASE("attention: leaves of the longest are dealt out before whole items, on the CPU", "[lanes][attention]") {
  test::generator g(2);
  const attention_case<bf16, 64> skewed({{256 * 5, 300, 256, 200}, {1, 1, 1, 1}, 2, 4, 0, true}, g);
  for (const int dealt : {-1, 1, 2, 4}) by_queue(skewed, 4, dealt, 4, g, dealt != 1);
  // Equal ones on both sides of the border; fewer leaves than blocks.
  const attention_case<bf16, 64> equal({{300, 300, 300, 300}, {1, 1, 1, 1}, 1, 2, 0, true}, g);
  for (const int dealt : {1, 2}) by_queue(equal, 3, dealt, 4, g);
  by_queue(equal, 7, 2, 4, g);
  // More requests than a warp finds the share of.
  test::view_case many = {{}, {}, 1, 1, 0, true};
  for (int r = 0; r < 66; ++r) many.len.push_back(r == 40 ? 256 * 4 : 1 + r % 7), many.q_len.push_back(1);
  by_queue(attention_case<bf16, 64>(many, g), 5, 3, 4, g);
}

TEST_CASE("attention: the queue has requests in the order of their lengths, also if these change at the wait",
          "[lanes][attention]") {
  using contract = bi::contract::attention_v1<bf16>;
  test::generator g(3);
  for (int i = 0; i < 60; ++i) {
    const std::int64_t requests = i == 0 ? 256 : g.between(1, 256), heads = g.between(1, 9), blocks = g.between(1, 140);
    std::vector<std::int32_t> now, first, len(static_cast<std::size_t>(requests));
    for (std::int64_t r = 0; r < requests; ++r) {
      const std::int64_t most = g.chance(10) ? 70000 : 3000;
      now.push_back(static_cast<std::int32_t>(g.chance(10) ? 0 : g.between(1, most)));
      first.push_back(static_cast<std::int32_t>(g.between(0, 3000)));
    }
    const bool changes = g.chance(50);
    len = changes ? first : now;
    struct {
      bi::device::attention_queue queue = {-7, -7, {-7, -7}, -7};
      std::int32_t order[256];
    } made;
    std::fill_n(made.order, 256, -1);
    k::attention_queue_params<bf16> p = {};
    p.split.a.len = len.data();
    p.split.a.batch.requests = p.split.a.batch.rows = requests;
    p.split.a.batch.group = 1, p.split.a.batch.tile_rows = 1, p.split.a.batch.one_tile_each = true;
    p.split.a.heads_kv = heads, p.split.a.causal = true;
    p.queue = &made.queue, p.order = made.order;
    p.blocks = static_cast<std::int32_t>(blocks);
    lanes::before_dependencies() = [&] { std::copy(now.begin(), now.end(), len.begin()); };
    lanes::launch(1, k::attention_queue_threads, k::attention_queue_make_kernel<contract, bf16>, p, g);
    lanes::before_dependencies() = {};

    const auto leaves = [&](std::int32_t r) {
      return std::max<std::int64_t>(1, contract::end_leaf(now[static_cast<std::size_t>(r)]));
    };
    std::vector<std::int32_t> order(static_cast<std::size_t>(requests));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return leaves(a) > leaves(b); });
    std::vector<std::int64_t> sorted, before = {0};
    for (const std::int32_t r : order) {
      sorted.push_back(leaves(r));
      before.push_back(before.back() + leaves(r));
    }
    std::int64_t dealt = 0, least = -1;
    for (std::int64_t n = 0; n <= requests; ++n) {
      const std::int64_t cost =
          bi::device::attention_queue_cost(n, requests, heads, blocks, sorted.data(), before.data());
      if (least < 0 || cost < least) dealt = n, least = cost;
    }
    INFO("case " << i << ": " << requests << " requests, " << heads << " heads, " << blocks << " blocks");
    REQUIRE(std::equal(order.begin(), order.end(), made.order));
    REQUIRE((made.queue.items == requests * heads && made.queue.first == dealt * heads));
    REQUIRE(made.queue.dealt.request == (dealt > 0 ? order[static_cast<std::size_t>(dealt) - 1] : -1));
    for (std::int64_t at = 0; at < requests; ++at) {
      const std::int32_t r = order[static_cast<std::size_t>(at)];
      REQUIRE(made.queue.dealt.dealt(r, leaves(r)) == (at < dealt ? leaves(r) : 0));
    }
    REQUIRE(made.queue.taken == 0);
    REQUIRE(std::all_of(made.order + requests, made.order + 256, [](int x) { return x == -1; }));
  }
}
