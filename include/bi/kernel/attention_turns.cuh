// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_team.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_scores.cuh"
#include "bi/kernel/attention_leaves_source.cuh"
#include "bi/kernel/attention_leaves_values.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Attention of a few requests of at most 16 packed rows over very long views: attention_leaves.cuh, whose blocks take the
// leaves of an item that was cut in turns and give all of them away. A second kernel (attention_follow.cuh) folds what has come
// while this one is at it, on processors that are left over. So a partial result is read and dropped a few microseconds after
// it was written, when the L2 cache still has it, and nearly nothing is left to fold at the end.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int attention_reset_threads = 256;

struct attention_reset_params {
  attention_turns_record* records;
  std::int32_t blocks;
};

// Before that kernel: nothing is done.
template <class>  // a program may have it in several files
BI_KERNEL __launch_bounds__(attention_reset_threads) void attention_reset_kernel(
    [[maybe_unused]] const attention_reset_params p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900  // no launcher asks others for it
  device::launch_dependents();              // they wait for the end of this kernel
  device::wait_for_dependencies();
  constexpr int flags = sizeof(attention_turns_record) / sizeof(std::int32_t);
  for (int i = static_cast<int>(threadIdx.x); i < p.blocks * flags; i += attention_reset_threads) {
    p.records[i / flags].done[0][i % flags] = 0;
  }
#endif
}

// Leaves of an item that the block takes in turns with others, and what they are of.
struct attention_turns_run : attention_leaves_run {
  attention_list list;
  device::attention_team team;

  BI_D std::int32_t member() const { return static_cast<std::int32_t>(blockIdx.x - team.block); }
  BI_D std::int64_t leaf(int i) const {
    return item.first_leaf + (team.members > 1 ? team.leaf(member(), i) : walk.run.begin + i);
  }
  BI_D void set_list(const attention_list& x) { list = x; }
  BI_D void find_leaves() { team = team_of(walk, list); }
  BI_D static device::attention_team team_of(const device::attention_walk& walk, const attention_list& list) {
    const std::int64_t begin = list.end - walk.left - walk.run.count - walk.run.begin;
    return device::make_attention_team({list.total, list.blocks}, begin, walk.run.leaves);
  }
};

template <class Contract, int HeadDim>
struct attention_turns_memory;

// The same for a warp that copies. Teams are in shared memory: those warps' registers are few.
template <class Contract, int HeadDim>
class attention_leaves_in_turns {
 public:
  BI_D attention_leaves_in_turns(attention_turns_memory<Contract, HeadDim>& memory, int warp)
      : list_(memory.lists[warp]), team_(memory.teams[warp]) {}

  BI_D void set_list(const attention_list& list) {
    if (threadIdx.x % 32 == 0) list_ = list;
    __syncwarp();
  }
  BI_D void enter(const device::attention_item& item, const device::attention_walk& walk) {
    const device::attention_team team = attention_turns_run::team_of(walk, list_);
    __syncwarp();  // all have left the team before
    if (threadIdx.x % 32 == 0) team_ = team;
    __syncwarp();
    number_ = 0;
    count_ = static_cast<std::int32_t>(walk.run.count);
    first_ = static_cast<std::int32_t>(item.first_leaf);
    leaf_ = leaf_of(0);
  }
  BI_D bool next() {
    if (++number_ >= count_) return false;
    leaf_ = leaf_of(number_);
    return true;
  }
  BI_D std::int64_t leaf() const { return leaf_; }
  BI_D std::int64_t ahead(int n) const { return leaf_of(number_ + n); }

 private:
  BI_D std::int32_t leaf_of(std::int32_t i) const {
    return first_ + (team_.members > 1 ? team_.leaf(static_cast<std::int32_t>(blockIdx.x - team_.block), i) : i);
  }

  attention_list& list_;
  device::attention_team& team_;
  std::int32_t number_ = 0, count_ = 0, first_ = 0, leaf_ = 0;
};

template <class Contract, int HeadDim>
struct attention_turns_memory : attention_leaves_memory<Contract, HeadDim, attention_turns_run> {
  using order_type = attention_leaves_in_turns<Contract, HeadDim>;
  // Of warps that copy.
  attention_list lists[attention_leaves_shape<HeadDim>::copy_warps];
  device::attention_team teams[attention_leaves_shape<HeadDim>::copy_warps];
};
template <class Contract, int HeadDim>
inline constexpr int attention_turns_ring_at = (static_cast<int>(sizeof(attention_turns_memory<Contract, HeadDim>)) +
                                                127) /
                                               128 * 128;
template <class Contract, int HeadDim>
constexpr int attention_turns_bytes(int slots) {
  return attention_turns_ring_at<Contract, HeadDim> + 2 * slots * attention_leaves_shape<HeadDim>::slot_values * 2;
}

// Whole items' results are written; of others each leaf is given away.
template <class Contract, class T, int HeadDim>
struct attention_turns_results {
  static constexpr int blocks = attention_leaves_shape<HeadDim>::blocks;
  static_assert(attention_leaves_shape<HeadDim>::value_warps == attention_turns_record::warps);
  const attention_split_params<T>& p;
  int warp;

  BI_D bool folds(const attention_turns_run& of) const { return of.team.members == 1; }
  template <class Value>
  BI_D void leaf(const attention_turns_run& of, int i, int row, int column, int lane, float m, float l,
                 const Value& o) const {
    const device::attention_team_places places = {p.partials.places.a_block};
    attention_give<HeadDim, blocks>(p.partials, places.leaf(blockIdx.x, of.member() == 0, i), row, column, lane, m, l,
                                    o, true);
  }
  template <class Value>
  BI_D void folded(const attention_turns_run& of, int row, int column, int lane, float m, float l,
                   const Value& o) const {
    attention_write<Contract, blocks>(p.a, of.rows, of.walk.run.head, row, column, lane, m, l, o);
  }
  // Says that so many leaves of the run have been given away: what all lanes have written before is there.
  BI_D void tell_done(const attention_turns_run& of, int leaves, int lane) const {
    if (of.team.members == 1 || leaves == 0) return;
    __syncwarp();
    if (lane != 0) return;
    device::fence_gpu();
    device::store_flag(&p.records[blockIdx.x].done[of.member() == 0 ? 0 : 1][warp], leaves);
  }
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_leaves_shape<HeadDim>::threads,
                            1) void attention_turns_kernel([[maybe_unused]] const attention_split_params<T> p) {
#if BI_WGMMA_CODE  // see attention_leaves_kernel
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = attention_turns_memory<Contract, HeadDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<memory_type*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_turns_ring_at<Contract, HeadDim>);
  const int thread = static_cast<int>(threadIdx.x), slots = p.stages;
  memory.init(thread, slots);
  const bool copies = thread >= shape::score_threads + shape::value_threads;
  if (copies) attention_leaves_prefetch(p.a, thread - shape::score_threads - shape::value_threads, shape::copy_warps);
  __syncthreads();
  using share_type = attention_listed_share<Contract, T>;
  const share_type share = {p.a, thread % 32};
  device::attention_walk walk;
  attention_list list;
  const bool alone = attention_leaves_guess(p.a);
  if (!(copies && alone)) {
    device::wait_for_dependencies();
    // Those who follow look at the records at once, so not before the wait for the kernel that resets them.
    device::launch_dependents();
    list = share.find(share.read(), walk);
    if (walk.run.count == 0) return;
  }
  if (thread < shape::score_threads) {
    attention_leaves_scores<Contract, T, HeadDim, memory_type>(p, memory, ring, slots)
        .walk(walk, list, [](const attention_turns_run&) {});
  } else if (!copies) {
    attention_leaves_move_registers<152>();
    using results = attention_turns_results<Contract, T, HeadDim>;
    attention_leaves_values<Contract, T, HeadDim, results, memory_type>(p, memory, ring, slots,
                                                                        {p, (thread - shape::score_threads) / 32})
        .walk(walk, list);
  } else {
    attention_leaves_move_registers<104>();
    attention_leaves_source<Contract, T, HeadDim, share_type, memory_type>(p.a, memory, ring, slots, walk, list, share)
        .copy_all(alone);
  }
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
