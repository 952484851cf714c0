// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_relay.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/kernel/attention_fold.cuh"
#include "bi/kernel/attention_fold_list.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_scores.cuh"
#include "bi/kernel/attention_leaves_source.cuh"
#include "bi/kernel/attention_leaves_values.cuh"
#include "bi/kernel/attention_relay_exchange.cuh"
#include "bi/kernel/attention_share.cuh"

// Attention of a few requests of at most 16 packed rows over long views. It is launched twice. A cluster of thread blocks has an item,
// whose leaves its blocks take in turns, walked as in attention_leaves.cuh, and fold on their way, in shared memory. On processors
// beside the clusters blocks by themselves deal out the leaves of what items are left, which are fewer for each, and fold them when
// all of these blocks are through: those in clusters wait for nobody else, so if some do not run yet, they will.
//
// That is for items of about equal lengths, which only the lengths tell. Where they are not, all blocks have equal shares of all
// leaves, whether in clusters or not, as in attention_leaves.cuh, and attention_fold.cuh folds what was cut.

BI_NAMESPACE_BEGIN
namespace kernel {

// Leaves of an item that the block takes in turns with the cluster's others, or consecutive ones.
struct attention_relay_run : attention_leaves_run {
  attention_list list;

  BI_D void set_list(const attention_list& x) { list = x; }
  BI_D bool is_relayed() const { return list.step > 1; }
  BI_D std::int64_t leaf(int i) const { return item.first_leaf + walk.run.begin + std::int64_t{i} * list.step; }
};

// The same for a warp that copies.
class attention_leaves_in_steps {
 public:
  template <class Memory>
  BI_D attention_leaves_in_steps(Memory& memory, int warp) : step_(memory.steps[warp]) {}

  BI_D void set_list(const attention_list& list) {
    __syncwarp();  // all have left the one before
    if (threadIdx.x % 32 == 0) step_ = list.step;
    __syncwarp();
  }
  BI_D void enter(const device::attention_item& item, const device::attention_walk& walk) {
    leaf_ = static_cast<std::int32_t>(item.first_leaf + walk.run.begin);
    left_ = static_cast<std::int32_t>(walk.run.count);
  }
  BI_D bool next() {
    leaf_ += step_;
    return --left_ > 0;
  }
  BI_D std::int64_t leaf() const { return leaf_; }
  BI_D std::int64_t ahead(int n) const { return leaf_ + std::int64_t{n} * step_; }

 private:
  std::int32_t& step_;
  std::int32_t leaf_ = 0, left_ = 0;
};

template <class Contract, int HeadDim>
struct attention_relay_memory : attention_leaves_memory<Contract, HeadDim, attention_relay_run> {
  using order_type = attention_leaves_in_steps;
  std::int32_t steps[attention_leaves_shape<HeadDim>::copy_warps];  // of warps that copy
  attention_relay_exchange<HeadDim> exchange;
  std::int32_t folds_rest;  // of the threads that make scores
};
template <class Contract, int HeadDim>
inline constexpr int attention_relay_ring_at = (static_cast<int>(sizeof(attention_relay_memory<Contract, HeadDim>)) +
                                                127) /
                                               128 * 128;
template <class Contract, int HeadDim>
constexpr int attention_relay_bytes(int slots) {
  return attention_relay_ring_at<Contract, HeadDim> + 2 * slots * attention_leaves_shape<HeadDim>::slot_values * 2;
}

// How a warp by itself finds what the block has.
template <class Contract, class T>
struct attention_relay_share {
  static constexpr bool one_run = false;
  const attention_relay_params<T>& p;
  int lane;

  BI_D attention_lane_lengths read() const { return attention_read_lane_lengths(p.split.a, lane); }
  BI_D attention_lengths of(const attention_lane_lengths& l, std::int64_t request) const { return l.of(request); }

  BI_D attention_list find(const attention_lane_lengths& lengths, device::attention_walk& walk) const {
    const attention_params<T>& a = p.split.a;
    const device::attention_relay_shape& shape = p.shape;
    const auto leaves = attention_lane_leaves::find<Contract>(a, lengths, lane);
    const std::int64_t total = leaves.all() * a.heads_kv, items = a.batch.requests * a.heads_kv;
    std::int64_t rest = total;  // first leaf of the items that have no cluster
    if (shape.clusters < items) {
      const std::int64_t request = shape.clusters / static_cast<std::int32_t>(a.heads_kv);
      rest = leaves.before(request) * a.heads_kv + (shape.clusters - request * a.heads_kv) * leaves.of(request);
    }
    const auto has_cluster = [&](std::int64_t request) { return request * a.heads_kv < shape.clusters; };
    int longest = has_cluster(lane) ? leaves.low : 0;
    if (has_cluster(32 + lane) && leaves.high > longest) longest = leaves.high;
    longest = __reduce_max_sync(device::full_warp, longest);

    attention_list list;
    walk.left = 0;
    walk.run = {};
    if (!p.always && !shape.pays(longest, total - rest, total)) {
      list.blocks = shape.blocks();
      start(leaves, 0, total, p.block(), walk, list);
    } else if (p.is_single) {
      list.blocks = shape.singles;
      list.base = shape.first_single();
      start(leaves, rest, total - rest, blockIdx.x, walk, list);
    } else {
      const std::int64_t item = static_cast<std::int32_t>(blockIdx.x) / shape.cluster;
      list.step = shape.cluster;
      if (item >= items) return list;
      const std::int64_t request = static_cast<std::int32_t>(item) / static_cast<std::int32_t>(a.heads_kv),
                         of_item = leaves.of(request);
      const std::int64_t rank = blockIdx.x - item * shape.cluster;
      walk.run = {request, item - request * a.heads_kv, rank, 0, of_item};
      if (rank < of_item) {
        walk.run.count = static_cast<std::int32_t>(of_item - rank + shape.cluster - 1) / shape.cluster;
      }
    }
    return list;
  }

 private:
  // Share `number` of the leaves first, first + 1, and so on.
  BI_D void start(const attention_lane_leaves& leaves, std::int64_t first, std::int64_t total, std::int64_t number,
                  device::attention_walk& walk, attention_list& list) const {
    const std::int64_t heads = p.split.a.heads_kv;
    const device::attention_shares shares(total, list.blocks);
    const std::int64_t begin = shares.begin(number);
    list.total = total;
    list.end = shares.begin(number + 1);
    if (begin == list.end) return;
    const std::int64_t request = leaves.find_request(static_cast<int>(device::attention_divide(first + begin, heads)));
    walk.start(first + begin, first + list.end, request, leaves.before(request) * heads, leaves.of(request), false,
               heads, [&](std::int64_t i) { return leaves.of(i); });
  }
};

// What the folding kernel is told of the block: its last run may be of an item that others go on with.
template <class T>
BI_D void attention_relay_tell(const attention_relay_params<T>& p, const attention_relay_run& run) {
  if (run.walk.more()) return;
  const attention_list& list = run.list;
  device::attention_cut cut;
  if (!run.is_relayed()) {
    cut = device::make_attention_cut(run.walk.run, p.block(), list.end, list.total, run.rows.first_row,
                                     run.rows.first_row + run.rows.q_len, run.len, list.blocks, list.base);
  }
  if (list.base > 0) {
    p.rest_cuts[blockIdx.x] = cut;
    cut = {};
  }
  p.split.partials.cuts[p.block()] = cut;
}

// The threads that make scores.
template <int HeadDim>
struct attention_relay_scorers {
  static_assert(attention_leaves_shape<HeadDim>::score_threads == attention_fold_threads);
  BI_D static void meet() { device::named_barrier(1, attention_fold_threads); }
};

// Blocks by themselves fold the items that have no cluster, when all have left their partial results. By the threads that make
// scores; those that add up V have met them.
template <class Contract, class T, int HeadDim>
BI_D void attention_relay_fold_rest(const attention_relay_params<T>& p, attention_fold_memory& memory) {
  using threads = attention_relay_scorers<HeadDim>;
  if (threadIdx.x == 0) {
    device::fence_gpu();
    device::add_flag(p.through, 1);
    while (device::load_flag(p.through) < p.shape.singles) device::sleep_ns(100);
  }
  threads::meet();
  attention_fold_params<T> rest = {p.split.a, p.split.partials, p.shape.singles, p.shape.blocks(), false};
  rest.partials.cuts = p.rest_cuts;
  attention_fold_list<Contract, T, HeadDim, threads> list(rest, memory);
  attention_fold_row<Contract, T, HeadDim, threads> row(rest, memory);
  list.read();
  for (int unit = static_cast<int>(blockIdx.x); list.find(unit); unit += static_cast<int>(gridDim.x)) {
    row.aim();
    bool more = true;
    for (int round = 0; more; ++round) {
      row.find_section(round);
      row.start();
      more = row.fold(round);
      threads::meet();  // all have left what memory says of the round
    }
  }
}

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_leaves_shape<HeadDim>::threads,
                            1) void attention_relay_kernel([[maybe_unused]] const attention_relay_params<T> p) {
#if BI_WGMMA_CODE  // see attention_leaves_kernel
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = attention_relay_memory<Contract, HeadDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<memory_type*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_relay_ring_at<Contract, HeadDim>);
  const int thread = static_cast<int>(threadIdx.x), slots = p.split.stages;
  memory.init(thread, slots);
  if (thread == shape::threads - 1) {
    memory.exchange.init(p.shape.cluster);
    device::mbarrier_init_fence();
  }
  const bool copies = thread >= shape::score_threads + shape::value_threads;
  if (copies && !p.is_single) {
    attention_leaves_prefetch(p.split.a, thread - shape::score_threads - shape::value_threads, shape::copy_warps);
  }
  __syncthreads();
  if (!p.is_single) {
    device::cluster_arrive();
    device::cluster_wait();  // nobody sends before all have their barriers
  }
  using share_type = attention_relay_share<Contract, T>;
  const share_type share = {p, thread % 32};
  device::attention_walk walk;
  attention_list list;
  // Blocks by themselves begin when all in clusters have waited.
  const bool alone = !p.is_single && attention_leaves_guess(p.split.a);
  bool has = true;
  if (!(copies && alone)) {
    if (!p.is_single) device::wait_for_dependencies();
    if (thread < 32) {
      if (thread == 0 && blockIdx.x == 0 && !p.is_single) {
        device::store_flag(p.through, 0);
        device::fence_gpu();
      }
      __syncwarp();
      device::launch_dependents();
    }
    list = share.find(share.read(), walk);
    has = walk.run.count > 0;
    if (thread == 0) memory.folds_rest = list.base > 0 ? 1 : 0;
    if (!has && thread == 0) {
      p.split.partials.cuts[p.block()].request = -1;
      if (list.base > 0) p.rest_cuts[blockIdx.x].request = -1;
    }
  }
  constexpr int rest_barrier = 4, rest_threads = shape::score_threads + shape::value_threads;
  if (thread < shape::score_threads) {
    if (has) {
      attention_leaves_scores<Contract, T, HeadDim, memory_type>(p.split, memory, ring, slots)
          .walk(walk, list, [&](const attention_relay_run& run) { attention_relay_tell(p, run); });
    }
    if (p.is_single) {
      // In the rings, of which nobody needs anything any more.
      static_assert(sizeof(attention_fold_memory) <= 2 * attention_leaves_least_slots * shape::slot_values * sizeof(T));
      device::named_barrier(rest_barrier, rest_threads);
      if (memory.folds_rest != 0) {
        attention_relay_fold_rest<Contract, T, HeadDim>(p, *reinterpret_cast<attention_fold_memory*>(ring));
      }
    }
  } else if (!copies) {
    attention_leaves_move_registers<152>();
    // Of an item with fewer leaves than blocks all fold some columns.
    if (has || (list.step > 1 && walk.run.leaves > 0)) {
      using results = attention_relay_results<Contract, T, HeadDim, attention_relay_run>;
      attention_leaves_values<Contract, T, HeadDim, results, memory_type>(p.split, memory, ring, slots,
                                                                          results(p, memory.exchange))
          .walk(walk, list);
    }
    if (p.is_single) device::named_arrive(rest_barrier, rest_threads);
  } else {
    attention_leaves_move_registers<104>();
    if (has) {
      attention_leaves_source<Contract, T, HeadDim, share_type, memory_type>(p.split.a, memory, ring, slots, walk, list,
                                                                             share)
          .copy_all(alone);
    }
  }
  if (p.is_single) device::wait_for_dependencies();  // so that who waits for these blocks waits for the clusters too
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
