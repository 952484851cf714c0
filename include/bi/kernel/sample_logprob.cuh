// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/held_sum.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/thread.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/sample_row.cuh"

// log_softmax of a row at its token: the sums of bi/contract/softmax.hpp's blocks of 8192 by the thread blocks that
// have them, then the tree over them by the first.

BI_NAMESPACE_BEGIN
namespace kernel {

// The largest element and the sum of each block of the part, to the first thread block. 256 threads a block.
template <class T>
BI_D void collect_block_sums(const device::row_part<T>& part, sample_memory& m, device::cluster_exchange& exchange) {
  using softmax = contract::softmax_draft;
  constexpr int lanes = contract::row_lanes, groups = sample_threads / lanes, held = 4, wide = contract::row_vector;
  static_assert(held * lanes * wide == contract::row_block, "a block of the tree at once");
  const int thread = device::thread_index_anew(), group = thread / lanes, lane = thread % lanes;
  const auto sync = [&] { device::named_barrier(1 + group, lanes); };
  float* const shared = m.lane[group];
  for (int b = group; b * contract::row_block < part.count; b += groups) {
    const T* block = part.x + b * contract::row_block;
    const int length = contract::block_length(part.count, b);
    T x[held][wide];
    float most = neg_inf_f32();
#pragma unroll
    for (int v = 0; v < held; ++v) {
      const int i = (lane + v * lanes) * wide, n = length - i;
      device::load_vector(block + i, n < wide ? n : wide, part.aligned, x[v]);
#pragma unroll
      for (int e = 0; e < wide; ++e) {
        if (e < n) most = max_nan(most, to_f32(x[v][e]));
      }
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) most = max_nan(most, __shfl_xor_sync(device::full_warp, most, d));
    if (lane % 32 == 0) shared[lane / 32] = most;
    sync();
    most = shared[0];
#pragma unroll
    for (int w = 1; w < lanes / 32; ++w) most = max_nan(most, shared[w]);
    sync();
    float sum = 0.0f;  // a lane that has no vector is never added to as -0: held_sum.cuh
    if (!softmax::empty_block(most)) {
      const contract::exp_step step = {most};
#pragma unroll
      for (int v = 0; v < held; ++v) {
        const int n = length - (lane + v * lanes) * wide;
#pragma unroll
        for (int e = 0; e < wide; ++e) {
          if (e < n) sum = step(sum, to_f32(x[v][e]));
        }
      }
    }
    shared[lane] = sum;
    sync();
    if (lane < 32) {
      sum = device::add_block_lanes(m.lane[group]);
      if (lane == 0) exchange.collect(&m.sums[part.first / contract::row_block + b], bits_of(most), bits_of(sum));
    }
    sync();
  }
}

// For all threads of a warp.
BI_D inline float collected_logprob(const sample_memory& m, int blocks, float logit) {
  using softmax = contract::softmax_draft;
  using form = softmax::log_softmax_form;
  const auto most_of = [&](std::int64_t b) { return float_of(static_cast<std::uint32_t>(m.sums[b].a)); };
  device::row_group<32> group(static_cast<int>(threadIdx.x % 32), nullptr);
  float most = neg_inf_f32();
#pragma unroll 1
  for (int b = 0; b < blocks; ++b) most = max_nan(most, most_of(b));
  const float sum = group.fold_results(
      blocks, 0.0f,
      [&](std::int64_t b) {
        return softmax::block_term(float_of(static_cast<std::uint32_t>(m.sums[b].b)), most_of(b), most);
      },
      contract::add_step{});
  return form::value(logit, most, form::row(sum));
}

}  // namespace kernel
BI_NAMESPACE_END
