// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/device/held.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/reduce.cuh"

// As bi/kernel/reduce.cuh: short rows, of which a warp has several, and long ones, each a cluster's.
//
// A lane of the tree without a vector holds the start value, which changes nothing: of sums that begin at +0 none is
// -0. Both sides of a combination may come first.

BI_NAMESPACE_BEGIN
namespace kernel {

// Rows of at most 256 elements: a vector a thread. Four rows at once keep enough loads on their way.
template <class Form, class T, class Out>
BI_KERNEL __launch_bounds__(128) void reduce_short_kernel(const reduce_params<T, Out> p) {
  using step = typename Form::step;
  constexpr int width = device::vector_size, at_once = 4;
  device::begin_dependent();
  const int thread = static_cast<int>(threadIdx.x % 32), i = thread * width, cols = static_cast<int>(p.cols);
  const bool whole = p.aligned && i + width <= cols;
  const std::int64_t warps = static_cast<std::int64_t>(gridDim.x) * 4;
  for (std::int64_t group = static_cast<std::int64_t>(blockIdx.x) * 4 + threadIdx.x / 32; group * at_once < p.rows;
       group += warps) {
    const std::int64_t first = group * at_once;
    const T* x = p.x + first * p.x_stride;
    device::held_vector<T> v[at_once];
#pragma unroll
    for (int r = 0; r < at_once; ++r) {
      if (whole && first + r < p.rows) v[r].load_once(x + r * p.x_stride + i);
    }
    float lane[at_once];
#pragma unroll
    for (int r = 0; r < at_once; ++r) {
      lane[r] = Form::start();
      if (first + r >= p.rows) continue;
      if (whole) {
#pragma unroll
        for (int e = 0; e < width; ++e) lane[r] = step{}(lane[r], v[r][e]);
      } else {
        for (int e = i; e < cols && e < i + width; ++e) lane[r] = step{}(lane[r], to_f32(x[r * p.x_stride + e]));
      }
    }
    float mine = 0.0f;
#pragma unroll
    for (int r = 0; r < at_once; ++r) {
#pragma unroll
      for (int d = 16; d > 0; d /= 2) {
        lane[r] = step{}(lane[r], __shfl_xor_sync(device::full_warp, lane[r], d));
      }
      if (thread == r) mine = lane[r];
    }
    if (thread < at_once && first + thread < p.rows) p.out[first + thread] = cvt_rn<Out>(Form::finish(mine, p.cols));
  }
}

inline constexpr int cluster_most_blocks = 256;  // of the tree, a row: a thread of a warp has a vector of their results

struct reduce_cluster_memory {
  float lane[2][2][contract::row_lanes];
  float4 result[2][cluster_most_blocks];  // x: what each block of the row comes to
  device::mbarrier arrived[2];
};

// Block b of the row's tree is folded by thread block b % cluster, a lane a thread, two blocks at once, and what it
// comes to is sent to all of the cluster. sm_90.
template <class Form, class T, class Out>
BI_KERNEL __launch_bounds__(256) void reduce_cluster_kernel([[maybe_unused]] const reduce_params<T, Out> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  using step = typename Form::step;
  constexpr int width = device::vector_size, at_once = 2;
  constexpr int each = contract::row_block / contract::row_lanes / width;  // vectors of a lane
  __shared__ reduce_cluster_memory memory;
  if (threadIdx.x == 0) {
    device::mbarrier_init(&memory.arrived[0], 1);
    device::mbarrier_init(&memory.arrived[1], 1);
    device::mbarrier_init_fence();
  }
  device::cluster_arrive();
  device::begin_dependent();
  const int cluster = device::cluster_size(), rank = device::cluster_rank();
  const int blocks = static_cast<int>(contract::row_blocks(p.cols));
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, in_warp = thread % 32;
  device::cluster_wait();

  int half = 0, turn = 0, parity = 0;
  for (std::int64_t row = blockIdx.x / static_cast<unsigned>(cluster); row < p.rows;
       row += gridDim.x / static_cast<unsigned>(cluster)) {
    const T* x = p.x + row * p.x_stride + thread * width;
    for (int first = rank; first < blocks; first += at_once * cluster) {
      device::held_vector<T> v[at_once][each];
      const auto vectors = [&](auto work) {
#pragma unroll
        for (int b = 0; b < at_once; ++b) {
          const int block = first + b * cluster;
          // The last block may be short, and one past it is empty.
          const int length = block < blocks ? contract::block_length(p.cols, block) : 0;
#pragma unroll
          for (int k = 0; k < each; ++k) {
            const int at = k * contract::row_lanes * width, left = length - thread * width - at;
            work(b, k, x + static_cast<std::int64_t>(block) * contract::row_block + at, left);
          }
        }
      };
      vectors([&](int b, int k, const T* from, int left) {
        if (p.aligned && left >= width) v[b][k].load_once(from);
      });
      float lane[at_once];
#pragma unroll
      for (int b = 0; b < at_once; ++b) lane[b] = Form::start();
      vectors([&](int b, int k, const T* from, int left) {
        if (p.aligned && left >= width) {
#pragma unroll
          for (int e = 0; e < width; ++e) lane[b] = step{}(lane[b], v[b][k][e]);
        } else {
          for (int e = 0; e < width && e < left; ++e) lane[b] = step{}(lane[b], to_f32(from[e]));
        }
      });
      // Two halves take turns: whoever writes one again has passed the barrier of the other since it was read.
#pragma unroll
      for (int b = 0; b < at_once; ++b) memory.lane[half][b][thread] = lane[b];
      __syncthreads();
      const int block = first + warp * cluster;
      if (warp < at_once && block < blocks) {
        float l[contract::row_lanes / 32];
#pragma unroll
        for (int w = 0; w < contract::row_lanes / 32; ++w) l[w] = memory.lane[half][warp][in_warp + 32 * w];
        float r = contract::combine_held(l, in_warp, contract::row_lanes, step{});
#pragma unroll
        for (int d = 16; d > 0; d /= 2) r = step{}(r, __shfl_xor_sync(device::full_warp, r, d));
        // Of no use to all but the first thread block, but so two places are enough: whoever is two rows ahead has had
        // a result of the row between from here, sent after this thread block was done with the row before.
        if (cluster == 1) {
          if (in_warp == 0) memory.result[turn][block].x = r;
        } else if (in_warp < cluster) {
          device::store_cluster(device::cluster_address(&memory.result[turn][block], in_warp), r, 0.0f, 0.0f, 0.0f,
                                device::cluster_address(&memory.arrived[turn], in_warp));
        }
      }
      half ^= 1;
    }
    if (cluster == 1) {
      __syncthreads();
    } else {
      if (thread == 0) {
        device::mbarrier_arrive_expect(device::shared_address(&memory.arrived[turn]),
                                       blocks * static_cast<int>(sizeof(float4)));
      }
      device::mbarrier_wait_cluster(&memory.arrived[turn], parity);
    }
    if (rank == 0 && warp == 0) {
      float r = Form::start();
#pragma unroll
      for (int e = 0; e < width; ++e) {
        const int b = in_warp * width + e;
        if (b < blocks) r = step{}(r, memory.result[turn][b].x);
      }
#pragma unroll
      for (int d = 16; d > 0; d /= 2) r = step{}(r, __shfl_xor_sync(device::full_warp, r, d));
      if (in_warp == 0) p.out[row] = cvt_rn<Out>(Form::finish(r, p.cols));
    }
    turn ^= 1;
    if (turn == 0) parity ^= 1;
  }
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
