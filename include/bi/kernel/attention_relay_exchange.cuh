// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_relay.cuh"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// What becomes of the leaves of attention_relay.cuh. Each block of a cluster folds some of the columns of the cluster's item. A
// leaf's partial result goes straight to the shared memory of those who fold it, which has places for the leaves of a few times;
// time counts the leaves of each block. A block folds the leaves of a time when it has sent its own of the next one, and says so to
// those who need the places again. Nobody waits for what a block has not begun: of two blocks the one that is behind never waits
// for the other.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct attention_relay_params {
  attention_split_params<T> split;
  device::attention_relay_shape shape;
  device::attention_cut*
      rest_cuts;          // of each block by itself, of the items that have no cluster; others have split.partials'
  std::int32_t* through;  // [0] blocks by themselves that have left what they have, [1] units that someone folds
  bool is_single;         // blocks by themselves
};

inline constexpr int attention_relay_most_cluster = 16, attention_relay_most_times = 4;

template <int HeadDim>
struct attention_relay_exchange {
  static constexpr int rows = 16;
  // Of the leaf in place i, row r and the block's column c: at [(i * rows + r) * own columns + c], with as many rows as the limits say.
  alignas(16) float o[2 * rows * HeadDim];
  float2 ml[2 * rows * attention_relay_most_cluster];
  alignas(16) float folded[rows * HeadDim / 2];  // of the leaves so far, [row][own column]
  float2 folded_ml[rows * HeadDim / 2 / 4];      // of each thread's columns
  device::mbarrier landed[attention_relay_most_times], free[attention_relay_most_times];  // of a time's places

  // By one thread.
  BI_D void init(int cluster) {
    for (int i = 0; i < attention_relay_most_times; ++i) {
      device::mbarrier_init(&landed[i], 1);
      device::mbarrier_init(&free[i], cluster);
    }
  }
};

// Of a warp that adds up V.
template <class Contract, class T, int HeadDim, class Run>
class attention_relay_results {
  using exchange_type = attention_relay_exchange<HeadDim>;
  using shape = attention_leaves_shape<HeadDim>;
  static constexpr int threads = shape::value_threads, vector = 4;

 public:
  BI_D attention_relay_results(const attention_relay_params<T>& p, exchange_type& x) : p_(p), x_(x) {}

  // Of other items the first leaves are folded where they are, and others given away.
  BI_D bool folds(const Run& of) const {
    return !of.is_relayed() && (!attention_leaves_apart<Contract> || of.walk.run.is_first());
  }

  BI_D void begin(const Run& of) const {
    if (!of.is_relayed()) return;
    for (int at = thread(); at < of.rows.rows << shift() >> 2; at += threads) {
      reinterpret_cast<float4*>(x_.folded)[at] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      x_.folded_ml[at] = make_float2(neg_inf_f32(), 0.0f);
    }
    if (thread() != 0) return;
    for (int t = 0; t < times() && t < all_times(of); ++t) expect(of, t);
  }
  BI_D void before_leaf(const Run& of, int i) const {
    if (of.is_relayed() && i >= times()) device::mbarrier_wait_cluster(&x_.free[slot(i)], parity(i - times()));
  }
  template <class Value>
  BI_D void leaf(const Run& of, int i, int row, int column, int lane, float m, float l, const Value& o) const {
    if (of.is_relayed()) {
      send(slot(i) * cluster() + rank(), row, column, lane, m, l, o);
      return;
    }
    attention_give<HeadDim, shape::blocks>(p_.split.partials, p_.split.partials.places.leaf(of.list.number, i), row,
                                           column, lane, m, l, o);
  }
  BI_D void after_leaf(const Run& of, int i) const {
    if (of.is_relayed() && i > 0) fold(of, i - 1);
  }
  template <class Value>
  BI_D void folded(const Run& of, int row, int column, int lane, float m, float l, const Value& o) const {
    const device::attention_run& run = of.walk.run;
    if (run.is_whole()) {
      attention_write<Contract, shape::blocks>(p_.split.a, of.rows, run.head, row, column, lane, m, l, o);
      return;
    }
    const device::attention_places& places = p_.split.partials.places;
    const std::int64_t place = run.is_first() ? places.folded(of.list.number) : places.leaf(of.list.number, 0);
    attention_give<HeadDim, shape::blocks>(p_.split.partials, place, row, column, lane, m, l, o);
  }
  BI_D void end(const Run& of) const {
    if (!of.is_relayed()) return;
    const int own = static_cast<int>(of.walk.run.count);
    for (int t = own > 1 ? own - 1 : 0; t < all_times(of); ++t) fold(of, t);
    for (int at = thread(); at < of.rows.rows << shift() >> 2; at += threads) write(of, at * vector);
  }

 private:
  // Made when needed: kept, they take registers from the loop.
  BI_D static int thread() { return device::opaque(static_cast<int>(threadIdx.x)) - shape::score_threads; }
  BI_D int cluster() const { return p_.shape.cluster; }
  BI_D static int rank() { return device::cluster_rank(); }
  // A block has 2^shift() columns.
  BI_D int shift() const {
    static_assert(HeadDim == 64 || HeadDim == 128);
    return (HeadDim == 64 ? 6 : 7) + 1 - __ffs(cluster());
  }
  BI_D int rows() const { return static_cast<int>(p_.split.partials.rows); }
  BI_D int times() const { return rows() <= 8 ? attention_relay_most_times : 2; }
  BI_D int slot(int t) const { return t & (times() - 1); }
  BI_D int parity(int t) const { return t / times() & 1; }
  BI_D int all_times(const Run& of) const { return static_cast<int>(of.walk.run.leaves + cluster() - 1) / cluster(); }
  // Leaves of time t.
  BI_D int count(const Run& of, int t) const {
    const int left = static_cast<int>(of.walk.run.leaves) - t * cluster();
    return left < cluster() ? left : cluster();
  }

  BI_D void expect(const Run& of, int t) const {
    const int values = count(of, t) * of.rows.rows * ((1 << shift()) + 2);
    device::mbarrier_arrive_expect(device::shared_address(&x_.landed[slot(t)]),
                                   values * static_cast<int>(sizeof(float)));
  }

  // A thread's columns of a row, 8 j + 2 t + e from `column` on, to the blocks that fold them. Each needs m and l too.
  template <class Value>
  BI_D void send(int place, int row, int column, int lane, float m, float l, const Value& o) const {
    const int at = place * rows() + row, mask = (1 << shift()) - 1;
    device::mbarrier* const landed = &x_.landed[place / cluster()];
#pragma unroll
    for (int j = 0; j < shape::columns / 8; ++j) {
      const int c = column + 8 * j + lane % 4 * 2, to = c >> shift();
      device::store_cluster(device::cluster_address(&x_.o[(at << shift()) + (c & mask)], to), o(2 * j), o(2 * j + 1),
                            device::cluster_address(landed, to));
    }
    const int to = ((column + mask) >> shift()) + lane % 4;  // whose first column is the warp's
    if (to << shift() < column + shape::columns) {
      device::store_cluster(device::cluster_address(&x_.ml[at], to), m, l, device::cluster_address(landed, to));
    }
  }

  // The leaves of time t, all of them here. By all threads.
  BI_D void fold(const Run& of, int t) const {
    device::mbarrier_wait_cluster(&x_.landed[slot(t)], parity(t));
    for (int at = thread(); at < of.rows.rows << shift() >> 2; at += threads) fold_columns(of, t, at * vector);
    device::named_barrier(2, threads);  // all have read them
    const int next = t + times();
    if (thread() == 0 && next < all_times(of)) expect(of, next);
    if (thread() < cluster() && std::int64_t{next} * cluster() + thread() < of.walk.run.leaves) {
      device::mbarrier_arrive_remote(device::cluster_address(&x_.free[slot(t)], thread()));
    }
  }
  BI_D void fold_columns(const Run& of, int t, int at) const {
    const int row = at >> shift(), column = at & ((1 << shift()) - 1);
    const contract::attention_range seen = attention_row_range<Contract>(p_.split.a, of.rows, of.len, row);
    if (seen.lo >= seen.see) return;
    // Of the item's leaves, as it counts.
    const int first = static_cast<int>(Contract::first_leaf(seen.lo) - of.item.first_leaf),
              end = static_cast<int>(Contract::end_leaf(seen.see) - of.item.first_leaf);
    float4& sum = *reinterpret_cast<float4*>(&x_.folded[at]);
    float2& sum_ml = x_.folded_ml[at / vector];
    float o[vector] = {sum.x, sum.y, sum.z, sum.w}, m = sum_ml.x, l = sum_ml.y;
    for (int q = 0; q < count(of, t); ++q) {
      const int leaf = t * cluster() + q;
      if (leaf < first || leaf >= end) continue;
      const int from = (slot(t) * cluster() + q) * rows() + row;
      const float2 ml = x_.ml[from];
      const float4 x = *reinterpret_cast<const float4*>(&x_.o[(from << shift()) + column]);
      const contract::attention_fold f = Contract::fold(m, ml.x);
      const float right[vector] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int c = 0; c < vector; ++c) o[c] = leaf == first ? right[c] : Contract::fold_value(f, o[c], right[c]);
      l = leaf == first ? ml.y : Contract::fold_value(f, l, ml.y);
      m = leaf == first ? ml.x : f.m;
    }
    sum = make_float4(o[0], o[1], o[2], o[3]);
    sum_ml = make_float2(m, l);
  }

  BI_D void write(const Run& of, int at) const {
    const int row = at >> shift(), column = (at & ((1 << shift()) - 1)) + (rank() << shift());
    const float2 ml = x_.folded_ml[at / vector];
    const auto& o = reinterpret_cast<const float(&)[vector]>(x_.folded[at]);
    attention_write_four<Contract>(p_.split.a, of.rows, of.walk.run.head, row, column, ml.x, ml.y, o);
  }

  const attention_relay_params<T>& p_;
  exchange_type& x_;
};

}  // namespace kernel
BI_NAMESPACE_END
