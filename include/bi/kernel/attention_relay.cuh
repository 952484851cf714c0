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

// Attention of a few requests of at most 16 packed rows over long views. It is launched twice. First, a cluster of thread blocks has
// an item, whose leaves its blocks take in turns, walked as in attention_leaves.cuh, and fold on their way, in shared memory. Then, on
// processors beside the clusters, blocks by themselves deal out the leaves of what items are left, which are fewer for each, and fold
// them when all of these blocks are through.
//
// That is for long items of about equal lengths, which only the lengths tell. Where they are not, the blocks have equal shares of all
// leaves, as in attention_leaves.cuh, and those of the second launch fold what was cut, as attention_fold.cuh does. It has more blocks
// for that, which begin as processors come free.

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
  BI_D device::attention_all_requests requests() const { return {}; }
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

struct attention_relay_list : attention_list {
  bool relays = false;       // whether clusters have whole items
  std::int32_t sharing = 0;  // blocks that share the list
  std::int32_t halves = 0;   // of blocks by themselves, that have something to fold
};

template <class Contract, int HeadDim>
struct attention_relay_memory : attention_leaves_memory<Contract, HeadDim, attention_relay_run> {
  using order_type = attention_leaves_in_steps;
  std::int32_t steps[attention_leaves_shape<HeadDim>::copy_warps];  // of warps that copy
  attention_relay_exchange<HeadDim> exchange;
  attention_relay_list list;  // of blocks by themselves
};
template <class Contract, int HeadDim>
inline constexpr int attention_relay_ring_at = attention_rings_begin(sizeof(attention_relay_memory<Contract, HeadDim>));
template <class Contract, int HeadDim>
constexpr int attention_relay_bytes(int slots) {
  return attention_rings_end<HeadDim>(attention_relay_ring_at<Contract, HeadDim>, slots);
}

// How a warp by itself finds what the block has.
template <class Contract, class T, int HeadDim>
struct attention_relay_share {
  static constexpr bool one_run = false, one_waits = false;
  const attention_relay_params<T>& p;
  int lane;

  BI_D attention_lane_lengths read() const { return attention_read_lane_lengths(p.split.a, lane); }
  BI_D attention_lengths of(const attention_lane_lengths& l, std::int64_t request) const { return l.of(request); }

  BI_D attention_relay_list find(const attention_lane_lengths& lengths, device::attention_walk& walk) const {
    const attention_params<T>& a = p.split.a;
    const device::attention_relay_shape& shape = p.shape;
    const auto leaves = attention_lane_leaves::find<Contract>(a, lengths, lane);
    // A launcher has seen that so many items fit an int.
    const int heads = static_cast<int>(a.heads_kv), items = static_cast<int>(a.batch.requests) * heads;
    const std::int64_t total = std::int64_t{leaves.all()} * heads;
    std::int64_t rest = total;  // first leaf of the items that have no cluster
    if (shape.clusters < items) {
      const int request = shape.clusters / heads;
      rest = std::int64_t{leaves.before(request)} * heads +
             std::int64_t{shape.clusters - request * heads} * leaves.of(request);
    }
    const auto has_cluster = [&](int request) { return request * heads < shape.clusters; };
    int longest = has_cluster(lane) ? leaves.low : 0;
    if (has_cluster(32 + lane) && leaves.high > longest) longest = leaves.high;
    longest = __reduce_max_sync(device::full_warp, longest);

    attention_relay_list list;
    list.relays = shape.pays(longest, total - rest, total);
    list.halves = 2 * shape.singles;
    walk.left = 0;
    walk.run = {};
    const int block = static_cast<int>(blockIdx.x);
    if (p.is_single && list.relays) {
      list.number = block;
      list.sharing = shape.singles;
      if (block < shape.singles) start(leaves, rest, total - rest, walk, list);
    } else if (!list.relays) {
      list.sharing = shape.sharing(total, p.split.partials.places.a_block);
      list.number = p.is_single ? shape.in_clusters() + block : block;
      if (list.number < list.sharing) start(leaves, 0, total, walk, list);
      if (p.is_single) {
        const int most = __reduce_max_sync(device::full_warp, leaves.low > leaves.high ? leaves.low : leaves.high);
        list.halves = halves(most, items);
      }
    } else {
      const int item = block / shape.cluster, rank = block - item * shape.cluster;
      list.step = shape.cluster;
      if (item >= items) return list;
      const int request = item / heads, of_item = leaves.of(request);
      walk.run = {request, item - request * heads, rank, 0, of_item};
      if (rank < of_item) walk.run.count = (of_item - rank + shape.cluster - 1) / shape.cluster;
    }
    return list;
  }

 private:
  // Of items with at most so many leaves: the first blocks have a unit for each half, as far as they go.
  BI_D int halves(int leaves, int items) const {
    const int teams = attention_fold_warps / attention_fold_team(leaves, false),
              pairs = static_cast<int>(p.split.partials.rows) * (HeadDim / attention_fold_columns);
    const std::int64_t units = std::int64_t{items} * ((pairs + teams - 1) / teams), all = 2 * gridDim.x;
    const int least = 2 * p.shape.singles, most = static_cast<int>(units < all ? units : all);
    return most > least ? most : least;
  }
  // The block's share of the leaves first, first + 1, and so on.
  BI_D void start(const attention_lane_leaves& leaves, std::int64_t first, std::int64_t total,
                  device::attention_walk& walk, attention_relay_list& list) const {
    const std::int64_t heads = p.split.a.heads_kv;
    const device::attention_shares shares(total, list.sharing);
    const std::int64_t begin = shares.begin(list.number);
    list.total = total;
    list.end = shares.begin(list.number + 1);
    if (begin == list.end) return;
    const std::int64_t request = leaves.find_request(static_cast<int>(device::attention_divide(first + begin, heads)));
    walk.start(first + begin, first + list.end, request, leaves.before(request) * heads, leaves.of(request), false,
               heads, [&](std::int64_t i) { return leaves.of(i); });
  }
};

// Where whoever folds is told of a block: its last run may be of an item that others go on with.
template <class T>
BI_D device::attention_cut& attention_relay_cut(const attention_relay_params<T>& p, const attention_list& list) {
  const bool of_rest = p.is_single && list.number < p.shape.in_clusters();
  return (of_rest ? p.rest_cuts : p.split.partials.cuts)[list.number];
}
template <class T>
BI_D void attention_relay_tell(const attention_relay_params<T>& p, const attention_relay_run& run) {
  if (run.walk.more() || run.is_relayed()) return;
  attention_relay_cut(p, run.list) =
      device::make_attention_cut(run.walk.run, run.list.number, run.list.end, run.list.total, run.rows.first_row,
                                 run.rows.first_row + run.rows.q_len, run.len);
}

// Half of a thread block, which folds by itself.
struct attention_relay_half {
  static constexpr bool takes = true;  // where some blocks may be missing
  BI_D static int number() { return static_cast<int>(threadIdx.x) / attention_fold_threads; }
  BI_D static int thread() { return static_cast<int>(threadIdx.x) % attention_fold_threads; }
  BI_D static void meet() { device::named_barrier(1 + number(), attention_fold_threads); }
  BI_D static bool any(bool x) { return device::named_barrier_any(1 + number(), attention_fold_threads, x); }
};

// Whether all blocks by themselves have left what they have. Some may not run before others end: who has waited long goes, and the
// last one is never among them.
template <class T>
BI_D bool attention_relay_all_through(const attention_relay_params<T>& p) {
  bool all = false;
  if (attention_relay_half::thread() == 0) {
    for (int i = 0; i < 1000 && !all; ++i) {
      all = device::load_flag(p.through) >= p.shape.singles;
      if (!all) device::sleep_ns(100);
    }
  }
  return attention_relay_half::any(all);
}

// Folds what blocks have left, in the rings, of which nobody needs anything any more. By all threads.
template <class Contract, class T, int HeadDim>
BI_D void attention_relay_fold(const attention_relay_params<T>& p, T* ring, const attention_relay_list& list) {
  using half = attention_relay_half;
  static_assert(attention_leaves_shape<HeadDim>::threads == 2 * attention_fold_threads);
  static_assert(2 * sizeof(attention_fold_memory) <=
                2 * attention_leaves_least_slots * attention_leaves_shape<HeadDim>::slot_values * sizeof(T));
  auto& memory = reinterpret_cast<attention_fold_memory*>(ring)[half::number()];
  attention_fold_params<T> fold = {p.split.a, p.split.partials, list.sharing, false};
  if (list.relays) fold.partials.cuts = p.rest_cuts;
  // Where some blocks by themselves may be missing, those who are there when all are through take units one after the other; else
  // each half has its own.
  const bool takes = list.relays || list.sharing > p.shape.in_clusters();
  const auto after = [&](int unit) {
    if (!takes) return unit + list.halves;
    // The address is made anew each time: kept, it would spill.
    if (half::thread() == 0) memory.taken = device::take_flag(p.through + device::opaque(1), 1);
    half::meet();
    return memory.taken;
  };
  const auto wait = [&] {
    if (!list.relays) device::wait_for_dependencies();
    return !takes || attention_relay_all_through(p);
  };
  const int own = 2 * static_cast<int>(blockIdx.x) + half::number();
  attention_fold_units<Contract, T, HeadDim, half>(fold, memory, takes ? -1 : own, after, wait);
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
  using share_type = attention_relay_share<Contract, T, HeadDim>;
  const share_type share = {p, thread % 32};
  device::attention_walk walk;
  attention_relay_list list;
  // Blocks by themselves begin when all in clusters have waited.
  const bool alone = !p.is_single && attention_leaves_guess(p.split.a);
  bool has = true;
  if (!(copies && alone)) {
    if (!p.is_single) device::wait_for_dependencies();
    if (thread < 32) {
      if (thread == 0 && blockIdx.x == 0 && !p.is_single) {
        device::store_flag(p.through, 0);
        device::store_flag(p.through + 1, 0);
        device::fence_gpu();
      }
      __syncwarp();
      device::launch_dependents();
    }
    list = share.find(share.read(), walk);
    has = walk.run.count > 0;
    if (p.is_single && 2 * static_cast<std::int32_t>(blockIdx.x) >= list.halves) return;
    if (thread == 0) {
      if (!has && list.number < list.sharing) attention_relay_cut(p, list).request = -1;
      memory.list = list;
    }
  }
  if (thread < shape::score_threads) {
    if (has) {
      attention_leaves_scores<Contract, T, HeadDim, memory_type>(p.split, memory, ring, slots)
          .walk(walk, list, [&](const attention_relay_run& run) { attention_relay_tell(p, run); });
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
    if (p.is_single) device::give_registers<128>();
  } else {
    attention_leaves_move_registers<104>();
    if (has) {
      attention_leaves_source<Contract, T, HeadDim, share_type, memory_type>(p.split.a, memory, ring, slots, walk, list,
                                                                             share)
          .copy_all(alone);
    }
  }
  if (!p.is_single) return;
  __syncthreads();
  // Not before those who add up V have given them back: if these get them first, those wait for theirs for ever.
  if (device::opaque(thread) >= shape::score_threads + shape::value_threads) device::take_registers<128>();
  if (device::opaque(thread) == 0 && static_cast<std::int32_t>(blockIdx.x) < p.shape.singles) {
    device::fence_gpu();
    device::add_flag(p.through, 1);
  }
  attention_relay_fold<Contract, T, HeadDim>(p, ring, memory.list);
  device::wait_for_dependencies();  // so that who waits for these blocks waits for the clusters too
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
