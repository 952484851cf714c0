// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_softmax.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_scores.cuh"
#include "bi/kernel/attention_leaves_source.cuh"
#include "bi/kernel/attention_leaves_values.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Attention of requests of at most 16 packed rows over long views: decode. The leaves of all requests and heads are dealt
// out evenly (bi/device/attention_split.cuh); what a block can't finish by itself attention_fold.cuh folds.
//
// Three groups of warps walk a block's share, each at its own pace. One copies tiles of K and V into rings, as far ahead as
// there is room. One makes scores of a leaf's K, half a tile a warp, and weights of them. One adds up V by the weights of the
// leaf before, some of the columns a warp, and folds.

BI_NAMESPACE_BEGIN
namespace kernel {

// Whole items' results are written; of others the workspace has a place for leaves folded, and one for each leaf apart.
template <class Contract, class T, int HeadDim>
struct attention_leaves_results {
  static constexpr int blocks = attention_leaves_shape<HeadDim>::blocks;
  const attention_split_params<T>& p;

  BI_D bool folds(const attention_leaves_run& of) const {
    return !attention_leaves_apart<Contract> || of.walk.run.is_first();
  }
  BI_D void begin(const attention_leaves_run&) const {}
  BI_D void before_leaf(const attention_leaves_run&, int) const {}
  BI_D void after_leaf(const attention_leaves_run&, int) const {}
  BI_D void end(const attention_leaves_run&) const {}
  template <class Value>
  BI_D void leaf(const attention_leaves_run& of, int i, int row, int column, int lane, float m, float l,
                 const Value& o) const {
    const bool stays = device::attention_stays(of.walk.run.count, of.rows.rows, HeadDim);
    attention_give<HeadDim, blocks>(p.partials, p.partials.places.leaf(blockIdx.x, i), row, column, lane, m, l, o,
                                    stays);
  }
  template <class Value>
  BI_D void folded(const attention_leaves_run& of, int row, int column, int lane, float m, float l,
                   const Value& o) const {
    const device::attention_run& run = of.walk.run;
    if (run.is_whole()) {
      attention_write<Contract, blocks>(p.a, of.rows, run.head, row, column, lane, m, l, o);
      return;
    }
    const device::attention_places& places = p.partials.places;
    const std::int64_t place = run.is_first() ? places.folded(blockIdx.x) : places.leaf(blockIdx.x, 0);
    attention_give<HeadDim, blocks>(p.partials, place, row, column, lane, m, l, o);
  }
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_leaves_shape<HeadDim>::threads,
                            1) void attention_leaves_kernel([[maybe_unused]] const attention_split_params<T> p) {
#if BI_WGMMA_CODE  // for sm_90a: elsewhere registers cannot move, and the warps that add up V would spill
  using shape = attention_leaves_shape<HeadDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_leaves_memory<Contract, HeadDim>*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_leaves_ring_at<Contract, HeadDim>);
  const int thread = static_cast<int>(threadIdx.x), slots = p.stages;
  device::launch_dependents();  // whoever folds waits for the end of this kernel
  memory.init(thread, slots);
  const bool copies = thread >= shape::score_threads + shape::value_threads;
  if (copies) attention_leaves_prefetch(p.a, thread - shape::score_threads - shape::value_threads, shape::copy_warps);
  __syncthreads();
  device::attention_walk walk;
  const bool alone = p.a.batch.requests <= attention_share_requests && attention_leaves_guess(p.a);
  if (!(copies && alone)) {
    // One warp waits for all where none of them has a guess to check: 0.2 us less of 100 than if each does.
    if (!alone || thread < 32) device::wait_for_dependencies();
    if (alone) device::named_barrier(4, shape::score_threads + shape::value_threads);
    attention_share_start<Contract>(p.a, memory.share, walk);
    if (walk.run.count == 0) {
      if (thread == 0 && !p.partials.by_item) p.partials.cuts[blockIdx.x].request = -1;
      return;
    }
  }
  if (thread < shape::score_threads) {
    attention_leaves_scores<Contract, T, HeadDim>(p, memory, ring, slots)
        .walk(walk, {}, [&](const attention_leaves_run& run) {
          attention_tell_cut(p.partials, p.a.heads_kv, run.walk, run.rows, run.len, memory.share.end,
                             memory.share.total);
        });
  } else if (!copies) {
    attention_leaves_move_registers<152>();
    using results = attention_leaves_results<Contract, T, HeadDim>;
    attention_leaves_values<Contract, T, HeadDim, results>(p, memory, ring, slots, {p}).walk(walk, {});
  } else {
    attention_leaves_move_registers<104>();
    using share = attention_listed_share<Contract, T>;
    attention_leaves_source<Contract, T, HeadDim, share>(p.a, memory, ring, slots, walk, {}, {p.a, thread % 32})
        .copy_all(alone);
  }
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
