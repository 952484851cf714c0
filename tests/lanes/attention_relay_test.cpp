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
#include "bi/kernel/attention_relay.cuh"
#include "lanes/attention_case.hpp"

// Decode of a few long items on the CPU: clusters whose blocks take leaves in turns, and blocks by themselves beside them.

namespace {

using bi::bf16;
using test::attention_case;
namespace k = bi::kernel;

// Says whether the clusters had an item each. Together: the blocks by themselves run side by side; else one after the other.
template <class T, int HeadDim>
bool by_relay(const attention_case<T, HeadDim>& c, const bi::device::attention_relay_shape& shape, int slots,
              test::generator& g, bool together = true) {
  using contract = typename attention_case<T, HeadDim>::contract;
  k::attention_relay_params<T> p = {};
  p.split = c.split_params(slots);
  p.shape = shape;
  const test::split_workspace workspace(c, p.split, shape.blocks(), shape.blocks() + shape.singles + 1);
  p.rest_cuts = p.split.partials.cuts + shape.blocks();
  p.through = reinterpret_cast<std::int32_t*>(p.rest_cuts + shape.singles);
  REQUIRE((k::attention_relay_bytes<contract, HeadDim>(slots)) <= 227 * 1024);
  lanes::launch_clusters(shape.clusters, shape.cluster, k::attention_leaves_threads,
                         k::attention_relay_kernel<contract, T, HeadDim>, p, g);
  p.is_single = true;
  if (together) {
    lanes::launch_clusters(1, shape.blocks(), k::attention_leaves_threads,
                           k::attention_relay_kernel<contract, T, HeadDim>, p, g);
  } else {
    lanes::shared_memory() = k::shared;
    lanes::launch(shape.blocks(), k::attention_leaves_threads, k::attention_relay_kernel<contract, T, HeadDim>, p, g);
  }
  c.check(std::to_string(shape.clusters) + " clusters of " + std::to_string(shape.cluster) + ", " +
          std::to_string(shape.singles));
  return p.split.partials.cuts[0].request == 0x5a5a5a5a;  // or they have told what they cut
}

}  // namespace

TEST_CASE("attention: leaves in turns in clusters have the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(1);
  CHECK(by_relay(attention_case<bf16, 128>({{256 * 11 + 3}, {1}, 1, 4, 0, true}, g), {1, 4, 1}, 4, g));
  CHECK(by_relay(attention_case<bf16, 64>({{256 * 23}, {1}, 3, 8, 0, true, true}, g), {2, 2, 2}, 4, g));
  CHECK(by_relay(attention_case<bf16, 128>({{256 * 9 + 1, 256 * 8}, {2, 2}, 1, 8, 0, true}, g), {2, 4, 1}, 5, g));
  CHECK(by_relay(attention_case<bf16, 128>({{600}, {1}, 2, 3, 0, true}, g), {2, 4, 1}, 4,
                 g));  // fewer leaves than blocks
  CHECK(by_relay(attention_case<bf16, 64>({{256 * 20, 256 * 20 + 7, 256 * 19}, {3, 2, 3}, 1, 2, 2000, true}, g),
                 {2, 4, 4}, 4, g));
  CHECK(by_relay(attention_case<bi::fp16, 128>({{256 * 6}, {4}, 1, 2, 0, false}, g), {1, 16, 1}, 4, g));
}

// More units of the rest than the last block has halves.
TEST_CASE("attention: whoever of the blocks beside clusters comes last folds for those that went",
          "[lanes][attention]") {
  test::generator g(2);
  const attention_case<bf16, 128> many({{256 * 6, 256 * 6, 256 * 6}, {1, 1, 1}, 2, 8, 0, true}, g);
  CHECK(by_relay(many, {4, 2, 4}, 4, g, false));
  CHECK(by_relay(many, {4, 2, 4}, 4, g));
}

// For blocks by themselves too, where there are many leaves: those have parts of one item here.
TEST_CASE("attention: lengths that differ, or few leaves, are equal shares in clusters and beside them",
          "[lanes][attention]") {
  test::generator g(3);
  CHECK_FALSE(
      by_relay(attention_case<bf16, 64>({{256 * 20, 256, 700, 0}, {1, 1, 2, 1}, 1, 4, 0, true}, g), {2, 4, 3}, 4, g));
  CHECK_FALSE(by_relay(attention_case<bf16, 64>({{300, 256 * 17, 1}, {1, 1, 2}, 2, 4, 0, true}, g), {3, 2, 2}, 4, g));
  CHECK_FALSE(by_relay(attention_case<bf16, 128>({{256 * 11 + 3}, {1}, 1, 4, 0, true}, g), {1, 4, 1, 4}, 4, g));
  const attention_case<bf16, 64> uneven({{256 * 60, 256}, {1, 1}, 1, 4, 0, true}, g);
  CHECK_FALSE(by_relay(uneven, {1, 4, 2}, 4, g));
  CHECK_FALSE(by_relay(uneven, {1, 4, 2}, 4, g, false));
}
