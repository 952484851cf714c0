// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/row.cuh"

// Sums, in the order of the row tree, over rows whose vectors are held in registers (bi/device/held.cuh): thread t of
// the row's threads has vectors t, t + Threads, ... of the row, or of the part that its thread block has.
//
// Lanes that have no vector hold +0 and are added like the others: a sum from +0 is never -0, so that changes no bit.
// And a sum of two is the same whichever comes first, so all threads of a butterfly end with the tree's bits.

BI_NAMESPACE_BEGIN
namespace device {

// Distances 16, ..., 1 of the tree, for all threads of a warp.
BI_D inline float add_in_warp(float v) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v = add_rn(v, __shfl_xor_sync(full_warp, v, d));
  return v;
}

// Distances 128, ..., 1 over what 256 threads wrote, by one warp.
BI_D inline float add_block_lanes(const float (&lane)[contract::row_lanes]) {
  constexpr int each = contract::row_lanes / 32;
  float v[each];
#pragma unroll
  for (int w = 0; w < each; ++w) v[w] = lane[threadIdx.x % 32 + 32 * w];
#pragma unroll
  for (int half = each / 2; half > 0; half /= 2) {
#pragma unroll
    for (int j = 0; j < half; ++j) v[j] = add_rn(v[j], v[j + half]);
  }
  return add_in_warp(v[0]);
}

// The results of a row's blocks, one a thread block of the cluster, for all of its threads.
struct cluster_results {
  float4 result[2][8];
  mbarrier arrived[2];
};

template <int Threads, int Held, bool Cluster>
class held_sum {
  static_assert(Threads == 32 || Threads == contract::row_lanes, "a warp or 256 threads");
  static_assert(!Cluster || Held * Threads == contract::row_block / contract::row_vector, "a block of the tree each");
  static constexpr int lanes = contract::row_lanes / Threads;  // of the tree, in a thread
  static constexpr int in_block = contract::row_block / contract::row_vector / Threads;
  static constexpr int blocks = (Held + in_block - 1) / in_block;

 public:
  struct memory_type {
    float lane[Threads > 32 ? 2 : 1][blocks][Threads > 32 ? Threads : 1];
    cluster_results cluster;
  };

  // All threads of the thread block; with Cluster, of the cluster.
  BI_D explicit held_sum(memory_type& memory) : memory_(memory) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if constexpr (Cluster) {
      if (threadIdx.x == 0) {
        mbarrier_init(&memory.cluster.arrived[0], 1);
        mbarrier_init(&memory.cluster.arrived[1], 1);
        mbarrier_init_fence();
      }
      cluster_arrive();
    }
#endif
  }
  // Once, before the first sum.
  BI_D void ready() {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if constexpr (Cluster) cluster_wait();
#endif
  }

  // fold(acc, j) folds the thread's vector j into acc, and returns acc if the row has no such vector. `cluster`: its
  // size.
  template <class Fold>
  BI_D float operator()(int cluster, Fold fold) {
    float sum[blocks];
#pragma unroll
    for (int b = 0; b < blocks; ++b) {
      float lane[lanes] = {};
#pragma unroll
      for (int j = b * in_block; j < (b + 1) * in_block && j < Held; ++j) lane[j % lanes] = fold(lane[j % lanes], j);
#pragma unroll
      for (int half = lanes / 2; half > 0; half /= 2) {
#pragma unroll
        for (int i = 0; i < half; ++i) lane[i] = add_rn(lane[i], lane[i + half]);
      }
      sum[b] = lane[0];
    }
    if constexpr (Threads == 32) {
#pragma unroll
      for (int b = 0; b < blocks; ++b) sum[b] = add_in_warp(sum[b]);
    } else {
      // Two halves take turns, so one barrier a sum is enough.
      auto& scratch = memory_.lane[turn_];
#pragma unroll
      for (int b = 0; b < blocks; ++b) scratch[b][threadIdx.x] = sum[b];
      __syncthreads();
#pragma unroll
      for (int b = 0; b < blocks; ++b) sum[b] = add_block_lanes(scratch[b]);
    }
    if constexpr (Cluster) sum[0] = over_cluster(sum[0], cluster);
    // Up to 8 blocks' results are one vector of the tree.
    if constexpr (blocks > 1) {
      float all = 0.0f;
#pragma unroll
      for (int b = 0; b < blocks; ++b) all = add_rn(all, sum[b]);
      sum[0] = all;
    }
    turn_ ^= 1;
    if (turn_ == 0) parity_ ^= 1;
    return sum[0];
  }

 private:
  // A thread block that is two sums ahead has had this one's result of the sum between, which is sent after all of this
  // block's threads have read those before: two places are enough.
  BI_D float over_cluster([[maybe_unused]] float mine, [[maybe_unused]] int cluster) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    auto& m = memory_.cluster;
    mbarrier& arrived = m.arrived[turn_];
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) mbarrier_arrive_expect(shared_address(&arrived), cluster * static_cast<int>(sizeof(float4)));
    if (thread < cluster) {
      store_cluster(cluster_address(&m.result[turn_][cluster_rank()], thread), mine, 0.0f, 0.0f, 0.0f,
                    cluster_address(&arrived, thread));
    }
    mbarrier_wait_cluster(&arrived, parity_);
    float all = 0.0f;
    for (int b = 0; b < cluster; ++b) all = add_rn(all, m.result[turn_][b].x);
    return all;
#else
    return mine;
#endif
  }

  memory_type& memory_;
  int turn_ = 0, parity_ = 0;
};

}  // namespace device
BI_NAMESPACE_END
