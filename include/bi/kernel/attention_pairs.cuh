// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_scores.cuh"
#include "bi/kernel/attention_leaves_source.cuh"
#include "bi/kernel/attention_leaves_values.cuh"
#include "bi/kernel/attention_relay_exchange.cuh"
#include "bi/kernel/attention_share.cuh"

// As attention_leaves.cuh, but the shares are those of clusters of a few thread blocks, two as a rule. These take the leaves of each
// run in turns: memory answers the processors of a pair unequally, and like this none of them is ahead by more than the exchange has
// places. An item that begins in the share they fold together, in shared memory (attention_relay_exchange.cuh); leaves of one that
// began before go to the workspace, and attention_fold.cuh folds what was cut.

BI_NAMESPACE_BEGIN
namespace kernel {

// Of a run's leaves each block has every step-th. Which block has an item's first leaf differs from item to item, or of items with an odd
// number of leaves the first block would have more.
struct attention_turns {
  std::int32_t step = 1, rank = 0;

  BI_D int phase(const device::attention_run& run) const {
    return static_cast<int>(run.request + run.head) & (step - 1);
  }
  // The block's first leaf of the run, as the item counts, and how many it has.
  BI_D std::int64_t first(const device::attention_run& run) const {
    return run.begin + ((rank - phase(run) - static_cast<int>(run.begin)) & (step - 1));
  }
  BI_D std::int64_t count(const device::attention_run& run) const {
    const std::int64_t left = run.begin + run.count - first(run);
    return left > 0 ? (left + step - 1) / step : 0;
  }
};

struct attention_pairs_run : attention_leaves_run {
  static constexpr bool many = true;
  attention_list list;

  BI_D void set_list(const attention_list& x) { list = x; }
  BI_D attention_turns turns() const { return {list.step, list.rank}; }
  BI_D std::int64_t count() const { return turns().count(walk.run); }
  BI_D std::int64_t leaf(int i) const {
    return item.first_leaf + turns().first(walk.run) + std::int64_t{i} * list.step;
  }
  BI_D bool is_relayed() const { return walk.run.is_first(); }
  BI_D int relayed() const { return static_cast<int>(walk.run.count); }
  BI_D int phase() const { return turns().phase(walk.run); }
  BI_D int place(int i) const { return static_cast<int>(turns().first(walk.run) - walk.run.begin) + i * list.step; }
};

// The same for a warp that copies.
class attention_leaves_in_turns {
 public:
  template <class Memory>
  BI_D attention_leaves_in_turns(Memory& memory, int warp) : turns_(memory.turns[warp]) {}

  BI_D void set_list(const attention_list& list) {
    __syncwarp();  // all have left the one before
    if (threadIdx.x % 32 == 0) turns_ = {list.step, list.rank};
    __syncwarp();
  }
  BI_D bool has(const device::attention_walk& walk) const { return turns_.count(walk.run) > 0; }
  BI_D void enter(const device::attention_item& item, const device::attention_walk& walk) {
    leaf_ = static_cast<std::int32_t>(item.first_leaf + turns_.first(walk.run));
    left_ = static_cast<std::int32_t>(turns_.count(walk.run));
  }
  BI_D bool next() {
    leaf_ += turns_.step;
    return --left_ > 0;
  }
  BI_D std::int64_t leaf() const { return leaf_; }
  BI_D std::int64_t ahead(int n) const { return leaf_ + std::int64_t{n} * turns_.step; }

 private:
  attention_turns& turns_;
  std::int32_t leaf_ = 0, left_ = 0;
};

template <class Contract, int HeadDim>
struct attention_pairs_memory : attention_leaves_memory<Contract, HeadDim, attention_pairs_run> {
  using order_type = attention_leaves_in_turns;
  attention_turns turns[attention_leaves_shape<HeadDim>::copy_warps];  // of warps that copy
  attention_relay_exchange<HeadDim> exchange;
};
template <class Contract, int HeadDim>
inline constexpr int attention_pairs_ring_at = (static_cast<int>(sizeof(attention_pairs_memory<Contract, HeadDim>)) +
                                                127) /
                                               128 * 128;
template <class Contract, int HeadDim>
constexpr int attention_pairs_bytes(int slots) {
  return attention_pairs_ring_at<Contract, HeadDim> + 2 * slots * attention_leaves_shape<HeadDim>::slot_values * 2;
}

// How a warp by itself finds its cluster's share of all leaves.
template <class Contract, class T>
struct attention_pairs_share {
  static constexpr bool one_run = false;
  const attention_relay_params<T>& p;
  int lane;

  BI_D attention_lane_lengths read() const { return attention_read_lane_lengths(p.split.a, lane); }
  BI_D attention_lengths of(const attention_lane_lengths& l, std::int64_t request) const { return l.of(request); }

  BI_D attention_list find(const attention_lane_lengths& lengths, device::attention_walk& walk) const {
    const attention_params<T>& a = p.split.a;
    const auto leaves = attention_lane_leaves::find<Contract>(a, lengths, lane);
    attention_list list;
    list.step = p.shape.cluster;
    list.rank = device::cluster_rank();
    list.number = static_cast<std::int32_t>(blockIdx.x) / p.shape.cluster;
    list.total = std::int64_t{leaves.all()} * a.heads_kv;
    const device::attention_shares shares(list.total, p.shape.clusters);
    const std::int64_t begin = shares.begin(list.number);
    list.end = shares.begin(list.number + 1);
    walk.run.count = 0;
    if (begin == list.end) return list;
    const std::int64_t request = leaves.find_request(static_cast<int>(device::attention_divide(begin, a.heads_kv)));
    walk.start(begin, list.end, request, leaves.before(request) * a.heads_kv, leaves.of(request), false, a.heads_kv,
               [&](std::int64_t i) { return leaves.of(i); });
    return list;
  }
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_leaves_shape<HeadDim>::threads,
                            1) void attention_pairs_kernel([[maybe_unused]] const attention_relay_params<T> p) {
#if BI_WGMMA_CODE  // see attention_leaves_kernel
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = attention_pairs_memory<Contract, HeadDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<memory_type*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_pairs_ring_at<Contract, HeadDim>);
  const int thread = static_cast<int>(threadIdx.x), slots = p.split.stages;
  device::launch_dependents();  // whoever folds waits for the end of this kernel
  memory.init(thread, slots);
  if (thread == shape::threads - 1) {
    memory.exchange.init(p.shape.cluster);
    device::mbarrier_init_fence();
  }
  const bool copies = thread >= shape::score_threads + shape::value_threads;
  if (copies) {
    attention_leaves_prefetch(p.split.a, thread - shape::score_threads - shape::value_threads, shape::copy_warps);
  }
  __syncthreads();
  device::cluster_arrive();
  device::cluster_wait();  // nobody sends before all have their barriers
  using share_type = attention_pairs_share<Contract, T>;
  const share_type share = {p, thread % 32};
  device::attention_walk walk;
  attention_list list;
  const bool alone = attention_leaves_guess(p.split.a);
  bool has = true;
  if (!(copies && alone)) {
    device::wait_for_dependencies();
    list = share.find(share.read(), walk);
    has = walk.run.count > 0;
  }
  if (thread < shape::score_threads) {
    device::attention_cut* const cut = p.split.partials.cuts + static_cast<std::int32_t>(blockIdx.x) / p.shape.cluster;
    if (has) {
      attention_leaves_scores<Contract, T, HeadDim, memory_type>(p.split, memory, ring, slots)
          .walk(walk, list, [&](const attention_pairs_run& run) {
            if (run.walk.more() || run.list.rank != 0) return;
            *cut = device::make_attention_cut(run.walk.run, run.list.number, run.list.end, run.list.total,
                                              run.rows.first_row, run.rows.first_row + run.rows.q_len, run.len);
          });
    } else if (thread == 0 && list.rank == 0) {
      cut->request = -1;
    }
  } else if (!copies) {
    attention_leaves_move_registers<152>();
    if (has) {
      using results = attention_relay_results<Contract, T, HeadDim, attention_pairs_run>;
      attention_leaves_values<Contract, T, HeadDim, results, memory_type>(p.split, memory, ring, slots,
                                                                          results(p, memory.exchange))
          .walk(walk, list);
    }
  } else {
    attention_leaves_move_registers<104>();
    if (has) {
      attention_leaves_source<Contract, T, HeadDim, share_type, memory_type>(p.split.a, memory, ring, slots, walk, list,
                                                                             share)
          .copy_all(alone);
    }
  }
  __syncwarp();
  device::cluster_arrive();
  device::cluster_wait();  // nobody goes while others may still tell it of places
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
