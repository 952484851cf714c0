// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_scores.cuh"
#include "bi/kernel/attention_leaves_source.cuh"
#include "bi/kernel/attention_leaves_values.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Attention of a few requests of at most 16 packed rows over short views: decode where what counts is the time that
// doesn't grow with the views. A cluster of thread blocks has one item, a request and KV head, and its blocks have equal
// parts of the item's leaves, walked as in attention_leaves.cuh. Partial results go straight to the shared memory of those
// that fold them, in leaf order: each block has some of the columns. So there is no search for a share, no workspace and no
// second kernel.

BI_NAMESPACE_BEGIN
namespace kernel {

// Partial results of an item, for each block of its cluster.
inline constexpr int attention_cluster_leaves_a_block = 2, attention_cluster_most_blocks = 16;

template <int HeadDim>
struct attention_cluster_memory {
  static constexpr int rows = 16, most_partials = attention_cluster_leaves_a_block * attention_cluster_most_blocks;
  // Of partial result i, row r and the block's column c: at [(i * 16 + r) * own columns + c].
  float o[attention_cluster_leaves_a_block * rows * HeadDim];
  float2 ml[most_partials][rows];
  device::mbarrier landed;
  // Of those who make scores and those who add up V: loads of 16 bytes take no more than one of them.
  alignas(16) attention_lengths score_guess;
  alignas(16) attention_lengths value_guess;
};

template <class Contract, int HeadDim>
inline constexpr int attention_cluster_ring_at = attention_rings_begin(attention_leaves_ring_at<Contract, HeadDim> +
                                                                       sizeof(attention_cluster_memory<HeadDim>));
template <class Contract, int HeadDim>
constexpr int attention_cluster_bytes(int slots) {
  return attention_rings_end<HeadDim>(attention_cluster_ring_at<Contract, HeadDim>, slots);
}

// The part of its cluster's item that a block has.
template <class Contract, class T>
struct attention_item_share {
  static constexpr bool one_run = true, one_waits = false;
  const attention_params<T>& p;
  int blocks, rank;
  std::int64_t request, head;

  BI_D explicit attention_item_share(const attention_params<T>& params)
      : p(params), blocks(device::cluster_size()), rank(device::cluster_rank()) {
    const std::int64_t item = static_cast<int>(blockIdx.x) / blocks;
    request = device::attention_divide(item, p.heads_kv);
    head = item - request * p.heads_kv;
  }

  BI_D attention_lengths read() const { return attention_read_lengths(p, request); }
  BI_D attention_lengths of(const attention_lengths& l, std::int64_t) const { return l; }
  BI_D attention_list find(const attention_lengths& l, device::attention_walk& walk) const {
    const std::int64_t leaves = attention_request_item<Contract>(p, request, l).leaves;
    const device::attention_shares shares(leaves, blocks);
    walk.left = 0;
    walk.run = {request, head, shares.begin(rank), shares.begin(rank + 1) - shares.begin(rank), leaves};
    return {};
  }
};

// Partial results of a cluster's item: the first block's leaves folded, then leaf after leaf.
template <class Contract, class T, int HeadDim>
class attention_cluster_results {
  using memory_type = attention_cluster_memory<HeadDim>;
  static constexpr int threads = attention_leaves_shape<HeadDim>::value_threads, rows = memory_type::rows;

 public:
  BI_D attention_cluster_results(const attention_params<T>& p, memory_type& memory, int blocks, int rank, int thread)
      : p_(p),
        memory_(memory),
        blocks_(blocks),
        rank_(rank),
        thread_(thread),
        shift_(shift_of(HeadDim / blocks)),
        columns_(1 << shift_) {}

  // Once the item is known, and before this block has anything to wait for.
  BI_D void begin(const attention_leaves_run& of) const {
    if (thread_ != 0) return;
    device::mbarrier_arrive_expect(device::shared_address(&memory_.landed),
                                   partials(of) * of.rows.rows * (columns_ + 2) * static_cast<int>(sizeof(float)));
  }

  // The first block folds its leaves, the others give each away.
  BI_D bool folds(const attention_leaves_run& of) const {
    return !attention_leaves_apart<Contract> || of.walk.run.is_first();
  }
  BI_D void before_leaf(const attention_leaves_run&, int) const {}
  BI_D void after_leaf(const attention_leaves_run&, int) const {}
  BI_D void end(const attention_leaves_run&) const {}
  template <class Value>
  BI_D void leaf(const attention_leaves_run& of, int i, int row, int column, int lane, float m, float l,
                 const Value& o) const {
    const std::int64_t leaf = of.walk.run.begin + i;
    send(number_of(of, leaf), row, column, lane, m, l, o);
  }
  template <class Value>
  BI_D void folded(const attention_leaves_run& of, int row, int column, int lane, float m, float l,
                   const Value& o) const {
    send(attention_leaves_apart<Contract> ? 0 : rank_, row, column, lane, m, l, o);
  }

  // When all have landed: the block's columns of every row.
  BI_D void fold(const attention_leaves_run& of) const {
    if (of.rows.rows == 0) return;
    device::mbarrier_wait_cluster(&memory_.landed, 0);
    for (int at = 4 * thread_; at < of.rows.rows << shift_; at += 4 * threads) {
      fold_row(of, at >> shift_, at & (columns_ - 1));
    }
  }

 private:
  BI_D static int shift_of(int columns) {
    int shift = 0;
    while (1 << shift < columns) ++shift;
    return shift;
  }

  // Leaves of the first block, which are one partial result; leaf `leaf` of the item comes `number_of` after.
  BI_D std::int64_t folded_leaves(const attention_leaves_run& of) const {
    return device::attention_shares(of.walk.run.leaves, blocks_).begin(1);
  }
  BI_D std::int64_t number_of(const attention_leaves_run& of, std::int64_t leaf) const {
    const std::int64_t first = folded_leaves(of);
    return leaf < first ? 0 : leaf - first + 1;
  }
  // Only lengths over the limits make more than there are places for; what is over is left out.
  BI_D int most() const { return attention_cluster_leaves_a_block * blocks_; }
  BI_D int partials(const attention_leaves_run& of) const {
    const std::int64_t leaves = of.walk.run.leaves;
    if (!attention_leaves_apart<Contract>) return leaves < blocks_ ? static_cast<int>(leaves) : blocks_;
    const std::int64_t all = number_of(of, leaves);
    return all < most() ? static_cast<int>(all) : most();
  }

  // A thread's columns of a row, 8 j + 2 t + e from `column` on, to the blocks that fold them. Each needs m and l too.
  template <class Value>
  BI_D void send(std::int64_t number, int row, int column, int lane, float m, float l, const Value& o) const {
    if (number >= most()) return;
    const int at = static_cast<int>(number) * rows + row;
    constexpr int width = attention_leaves_shape<HeadDim>::columns;
#pragma unroll
    for (int j = 0; j < width / 8; ++j) {
      const int c = column + 8 * j + lane % 4 * 2, to = c >> shift_;
      device::store_cluster(device::cluster_address(&memory_.o[(at << shift_) + (c & (columns_ - 1))], to), o(2 * j),
                            o(2 * j + 1), device::cluster_address(&memory_.landed, to));
    }
    const int to = ((column + columns_ - 1) >> shift_) + lane % 4;  // whose first column is the warp's
    if (to << shift_ < column + width) {
      device::store_cluster(device::cluster_address(&memory_.ml[static_cast<int>(number)][row], to), m, l,
                            device::cluster_address(&memory_.landed, to));
    }
  }

  BI_D void fold_row(const attention_leaves_run& of, int row, int column) const {
    const contract::attention_range seen = attention_row_range<Contract>(p_, of.rows, of.len, row);
    int i = 0, end = 0;  // the partial results of leaves that the row sees
    if (seen.lo < seen.see) {
      end = partials(of);
      if (attention_leaves_apart<Contract>) {
        i = static_cast<int>(number_of(of, Contract::first_leaf(seen.lo) - of.item.first_leaf));
        const std::int64_t last = number_of(of, Contract::end_leaf(seen.see) - 1 - of.item.first_leaf);
        if (last + 1 < end) end = static_cast<int>(last) + 1;
      }
    }
    float m = neg_inf_f32(), l = 0.0f, o[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (bool first = true; i < end; ++i, first = false) {
      const float2 ml = memory_.ml[i][row];
      const float4 x = *reinterpret_cast<const float4*>(&memory_.o[((i * rows + row) << shift_) + column]);
      const contract::attention_fold f = Contract::fold(m, ml.x);
      const float right[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int c = 0; c < 4; ++c) o[c] = first ? right[c] : Contract::fold_value(f, o[c], right[c]);
      l = first ? ml.y : Contract::fold_value(f, l, ml.y);
      m = first ? ml.x : f.m;
    }
    attention_write_four<Contract>(p_, of.rows, of.walk.run.head, row, column + rank_ * columns_, m, l, o);
  }

  const attention_params<T>& p_;
  memory_type& memory_;
  const int blocks_, rank_, thread_, shift_, columns_;  // columns_ = 2^shift_
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_leaves_shape<HeadDim>::threads,
                            1) void attention_clusters_kernel([[maybe_unused]] const attention_split_params<T> p) {
#if BI_WGMMA_CODE  // see attention_leaves_kernel
  using shape = attention_leaves_shape<HeadDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_leaves_memory<Contract, HeadDim>*>(shared);
  auto& cluster =
      *reinterpret_cast<attention_cluster_memory<HeadDim>*>(shared + attention_leaves_ring_at<Contract, HeadDim>);
  T* ring = reinterpret_cast<T*>(shared + attention_cluster_ring_at<Contract, HeadDim>);
  const int thread = static_cast<int>(threadIdx.x), slots = p.stages;
  device::launch_dependents();  // they wait for the end of this kernel
  memory.init(thread, slots);
  if (thread == shape::threads - 1) {
    device::mbarrier_init(&cluster.landed, 1);
    device::mbarrier_init_fence();
  }
  __syncthreads();
  device::cluster_arrive();
  const attention_item_share<Contract, T> share(p.a);
  device::cluster_wait();  // nobody sends before all have their barriers
  if (thread < shape::score_threads) {
    attention_leaves_scores<Contract, T, HeadDim>(p, memory, ring, slots).walk_item(share, cluster.score_guess);
  } else if (thread < shape::score_threads + shape::value_threads) {
    attention_leaves_move_registers<152>();
    using results = attention_cluster_results<Contract, T, HeadDim>;
    const results to(p.a, cluster, share.blocks, share.rank, thread - shape::score_threads);
    attention_leaves_values<Contract, T, HeadDim, results>(p, memory, ring, slots, to)
        .walk_item(share, cluster.value_guess);
    to.fold(memory.value_run);
  } else {
    attention_leaves_move_registers<104>();
    const bool guesses = attention_leaves_guess(p.a);
    device::attention_walk walk;
    if (!guesses) {
      device::wait_for_dependencies();
      share.find(share.read(), walk);
      if (walk.run.count == 0) return;
    }
    attention_leaves_source<Contract, T, HeadDim, attention_item_share<Contract, T>>(p.a, memory, ring, slots, walk, {},
                                                                                     share)
        .copy_all(guesses);
  }
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
