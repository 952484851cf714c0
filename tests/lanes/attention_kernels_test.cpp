// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/attention_hopper.hpp"
// Words of lanes and of Hopper come first.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bi/kernel/attention_leaves.cuh"
#include "bi/kernel/attention_mma.cuh"
// That kernel's shared memory has a size of its own.
#undef __shared__
#define __shared__ static
#include "bi/kernel/attention_fold.cuh"
#include "lanes/attention_case.hpp"

// Attention's kernels on the CPU: the one that takes every shape, and decode's, with the kernel that folds what was cut.
// Products by the model of the tensor core, barriers and copies by what the machine promises of them.

namespace {

using bi::bf16;
using test::attention_case;
namespace k = bi::kernel;

template <class T, int HeadDim>
void by_mma(const attention_case<T, HeadDim>& c, int blocks, test::generator& g) {
  using contract = typename attention_case<T, HeadDim>::contract;
  k::attention_params<T> p = c.params();
  p.batch.tile_rows = 64;
  lanes::launch(blocks, k::attention_mma_shape<HeadDim, 4>::threads, k::attention_mma_kernel<contract, T, HeadDim, 4>,
                p, g);
  c.check("mma, " + std::to_string(blocks) + " blocks");
}

template <class T, int HeadDim>
void by_leaves(const attention_case<T, HeadDim>& c, int blocks, int slots, test::generator& g) {
  using contract = typename attention_case<T, HeadDim>::contract;
  k::attention_split_params<T> p = c.split_params(slots);
  const test::split_workspace workspace(c, p, blocks);
  const std::int64_t rows = p.partials.rows, items = p.a.batch.requests * p.a.heads_kv;
  p.partials.by_item = items <= blocks;
  REQUIRE((k::attention_leaves_bytes<contract, HeadDim>(slots)) <= static_cast<int>(sizeof k::shared));
  lanes::launch(blocks, k::attention_leaves_threads, k::attention_leaves_kernel<contract, T, HeadDim>, p, g);
  const std::int64_t units = (p.partials.by_item ? items : blocks) * rows * (HeadDim / k::attention_fold_columns);
  const k::attention_fold_params<T> fold = {p.a, p.partials, blocks, units <= 3};
  lanes::launch(static_cast<int>(std::min<std::int64_t>(units, 3)), k::attention_fold_threads,
                k::attention_fold_kernel<contract, T, HeadDim>, fold, g);
  c.check("leaves, " + std::to_string(blocks) + " blocks, " + std::to_string(slots) + " slots");
}

}  // namespace

TEST_CASE("attention: the kernel for every shape has the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(1);
  by_mma(attention_case<bf16, 64>({{70, 3, 300}, {5, 1, 30}, 1, 2, 0, true}, g), 3, g);
  by_mma(attention_case<bi::fp16, 128>({{130, 90}, {1, 40}, 2, 3, 100, true}, g), 2, g);
}

TEST_CASE("attention: decode's kernels have the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(2);
  attention_case<bf16, 128> few({{700, 0, 1, 300}, {1, 1, 1, 1}, 1, 4, 0, true}, g);
  by_leaves(few, 1, 4, g);
  by_leaves(few, 5, 5, g);
  by_leaves(attention_case<bf16, 128>({{2000, 80}, {1, 1}, 1, 8, 0, true}, g), 6, 4, g);  // one item in several parts
  by_leaves(attention_case<bf16, 128>({{383, 127, 63}, {1, 1, 1}, 1, 2, 0, true}, g), 3, 4, g);  // a tile lacks a key
  by_leaves(attention_case<bf16, 128>({{320, 64}, {2, 2}, 1, 8, 0, true, false, true}, g), 3, 4, g);
  by_leaves(attention_case<bf16, 64>({{256 * 34 + 9}, {1}, 1, 1, 0, true, true}, g), 5, 4,
            g);  // sections of partial results
  by_leaves(attention_case<bf16, 64>({{1100, 513}, {3, 2}, 2, 2, 300, true}, g), 7, 4, g);
  by_leaves(attention_case<bi::fp16, 128>({{257, 256, 65, 64, 900}, {2, 1, 4, 3, 2}, 1, 4, 0, false}, g), 4, 6, g);
}
