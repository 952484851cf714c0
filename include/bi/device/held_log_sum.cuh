// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/exp_below.cuh"
#include "bi/device/held.cuh"
#include "bi/device/held_sum.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/row.cuh"

// The largest element and the sum of exponentials of a row (bi/contract/softmax.hpp) by a cluster: block b of the tree
// is folded by 256 threads of thread block b % cluster, a lane each, and what it comes to is sent to all of the
// cluster. sm_90.

BI_NAMESPACE_BEGIN
namespace device {

struct log_sum {
  float m, l;
};

inline constexpr int log_sum_most_blocks = 32;  // of the tree: a warp has a thread for each

// For as many blocks at once as a thread block holds.
template <int Blocks>
struct log_sum_memory {
  float lane[2][Blocks][contract::row_lanes];
  float warp_max[2][Blocks][8];
  float4 result[2][log_sum_most_blocks];  // m and l of each block of the row
  mbarrier arrived[2];
};

BI_D inline float max_in_warp(float v) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v = max_nan(v, __shfl_xor_sync(full_warp, v, d));
  return v;
}

template <class Contract, int Blocks>
class held_log_sum {
 public:
  using memory_type = log_sum_memory<Blocks>;

  BI_D explicit held_log_sum(memory_type& memory) : memory_(memory) {
    if (threadIdx.x == 0) {
      mbarrier_init(&memory.arrived[0], 1);
      mbarrier_init(&memory.arrived[1], 1);
      mbarrier_init_fence();
    }
    cluster_arrive();
  }
  // Once, before the first row.
  BI_D void ready() { cluster_wait(); }

  // Folds blocks `first`, first + cluster, ... of the row, `count` <= Blocks of them, and sends what they come to. v
  // are the thread's vectors of each, those of lane threadIdx.x, filled with -Inf where the row has ended. Calls
  // next() as soon as v may be loaded anew. Every thread of the thread block calls it.
  template <class T, int Each, class Next>
  BI_D void fold(const held_vector<T> (&v)[Blocks][Each], int first, int count, int cluster, Next next) {
    const int warp = static_cast<int>(threadIdx.x / 32);
    auto& warp_max = memory_.warp_max[half_];
    auto& lane = memory_.lane[half_];
#pragma unroll
    for (int b = 0; b < Blocks; ++b) {
      if (b >= count) continue;
      float m = neg_inf_f32();
#pragma unroll
      for (int k = 0; k < Each; ++k) m = max_nan(m, v[b][k].max());
      m = max_in_warp(m);
      if (threadIdx.x % 32 == 0) warp_max[b][warp] = m;
    }
    __syncthreads();
    float m_b[Blocks];
#pragma unroll
    for (int b = 0; b < Blocks; ++b) {
      if (b >= count) continue;
      m_b[b] = warp_max[b][0];
#pragma unroll
      for (int w = 1; w < 8; ++w) m_b[b] = max_nan(m_b[b], warp_max[b][w]);
      lane[b][threadIdx.x] = lane_sum(v[b], m_b[b]);
    }
    next();
    __syncthreads();
    // Warp b has block b.
#pragma unroll
    for (int b = 0; b < Blocks; ++b) {
      if (b < count && b == warp) send(first + b * cluster, m_b[b], add_block_lanes(lane[b]), cluster);
    }
    half_ ^= 1;
  }

  // The row's, once all of its `blocks` blocks have come in. Every thread calls it.
  BI_D log_sum finish(int blocks, int cluster) {
    if (cluster == 1) {
      __syncthreads();
    } else {
      wait(blocks);
    }
    return row_sum(blocks);
  }
  // The same for the first warp alone, which is the one that sends, while the others go on.
  BI_D log_sum finish_in_first_warp(int blocks, int cluster) {
    static_assert(Blocks == 1, "other warps send, too");
    if (cluster == 1) {
      __syncwarp();
    } else {
      wait(blocks);
    }
    return row_sum(blocks);
  }

 private:
  BI_D void wait(int blocks) {
    mbarrier& arrived = memory_.arrived[turn_];
    if (threadIdx.x == 0) mbarrier_arrive_expect(shared_address(&arrived), blocks * static_cast<int>(sizeof(float4)));
    mbarrier_wait_cluster(&arrived, parity_);
  }
  BI_D log_sum row_sum(int blocks) {
    const int b = static_cast<int>(threadIdx.x % 32);
    float m_b = neg_inf_f32(), l_b = 0.0f;
    if (b < blocks) {
      m_b = memory_.result[turn_][b].x;
      l_b = memory_.result[turn_][b].y;
    }
    const float m = max_in_warp(m_b);
    // Nothing is taken from a row of one block or of none but -Inf: block_term() is then what the tree says, too.
    const float term = Contract::block_term(l_b, m_b, m);
    // Vector b of the results is lane b's.
    float l = 0.0f;
#pragma unroll
    for (int e = 0; e < vector_size; ++e) {
      const int from = b * vector_size + e;
      const float x = __shfl_sync(full_warp, term, from % 32);
      if (from < blocks) l = add_rn(l, x);
    }
    if (blocks > vector_size) {
#pragma unroll
      for (int d = 2; d > 0; d /= 2) l = add_rn(l, __shfl_xor_sync(full_warp, l, d));
    }
    turn_ ^= 1;
    if (turn_ == 0) parity_ ^= 1;
    return {m, __shfl_sync(full_warp, l, 0)};
  }

  // The lane's elements in order. Without one that is finite no element is below the largest, and exp_below() not
  // asked.
  template <class T, int Each>
  BI_D float lane_sum(const held_vector<T> (&v)[Each], float m_b) const {
    if (Contract::empty_block(m_b)) return 0.0f;
    if (!is_finite(m_b)) return nan_f32();
    float acc = 0.0f;
#pragma unroll
    for (int k = 0; k < Each; ++k) {
#pragma unroll
      for (int e = 0; e < vector_size; ++e) acc = add_rn(acc, exp_below(sub_rn(v[k][e], m_b)));
    }
    return acc;
  }

  // Two rows' places take turns. Whoever is two rows ahead has had a block of the row between from here, sent after all
  // of this thread block had read the row before; each has a block of every row. A thread
  // block by itself is past the barrier of the row between.
  BI_D void send(int block, float m_b, float l_b, int cluster) const {
    const int to = static_cast<int>(threadIdx.x % 32);
    if (cluster == 1) {
      if (to == 0) memory_.result[turn_][block] = make_float4(m_b, l_b, 0.0f, 0.0f);
    } else if (to < cluster) {
      store_cluster(cluster_address(&memory_.result[turn_][block], to), m_b, l_b, 0.0f, 0.0f,
                    cluster_address(&memory_.arrived[turn_], to));
    }
  }

  memory_type& memory_;
  int half_ = 0;
  int turn_ = 0, parity_ = 0;
};

}  // namespace device
BI_NAMESPACE_END
