// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/held_sum.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/sample_row.cuh"

// log_softmax of a row at its token: the sums of bi/contract/softmax.hpp's blocks of 8192 by the thread blocks that
// have them, then the tree over them.

BI_NAMESPACE_BEGIN
namespace kernel {

// Pieces of a part that are a block of the tree.
template <class T>
inline constexpr int block_pieces = contract::row_block / device::row_ring<T>::slot_elements;

// The largest element and the sum of the block of the tree that begins at `begin` of the part: one lane of the tree a
// thread, all threads of the block. slot[i]: a copy of its i-th piece, but for the elements from `copied` on. Not
// inlined: it is long, and registers are dear.
template <class T>
struct piece_copies {
  const T* slot[block_pieces<T>];
};
template <class T>
BI_D __noinline__ void fold_block(const device::row_part<T> part, const piece_copies<T> copies, int begin, int copied,
                                  sample_memory& m, float2& result) {
  using softmax = contract::softmax_draft;
  constexpr int held = 4, wide = contract::row_vector, words = wide / device::word_elements<T>;
  static_assert(held * sample_threads * wide == contract::row_block && sample_threads == contract::row_lanes,
                "a lane of the tree each");
  const int thread = static_cast<int>(threadIdx.x), length = contract::block_length(part.count - begin, 0);
  float x[held][wide];
  float most = neg_inf_f32();
#pragma unroll
  for (int v = 0; v < held; ++v) {
    constexpr int slot_elements = device::row_ring<T>::slot_elements;
    const int piece = v * sample_threads * wide / slot_elements;
    const int i = begin + (thread + v * sample_threads) * wide;
#pragma unroll
    for (int w = 0; w < words; ++w) {
      const int at = i + w * device::word_elements<T>;
      device::packed_words packed;
      if (at + device::word_elements<T> <= copied) {
        packed =
            *reinterpret_cast<const device::packed_words*>(copies.slot[piece] + (at - begin - piece * slot_elements));
      } else {
        packed = slot_view<T>::load_slowly(part, at);
      }
#pragma unroll
      for (int e = 0; e < device::word_elements<T>; ++e) {
        x[v][w * device::word_elements<T> + e] = part.element(packed, e);
      }
    }
#pragma unroll
    for (int e = 0; e < wide; ++e) most = max_nan(most, x[v][e]);
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) most = max_nan(most, __shfl_xor_sync(device::full_warp, most, d));
  if (thread % 32 == 0) m.warp_max[thread / 32] = most;
  __syncthreads();
  most = m.warp_max[0];
#pragma unroll
  for (int w = 1; w < sample_warps; ++w) most = max_nan(most, m.warp_max[w]);
  float sum = 0.0f;  // a lane that has no vector is never added to as -0: held_sum.cuh
  if (!softmax::empty_block(most)) {
    const contract::exp_step step = {most};
#pragma unroll
    for (int v = 0; v < held; ++v) {
      const int n = length - (thread + v * sample_threads) * wide;
#pragma unroll
      for (int e = 0; e < wide; ++e) {
        if (e < n) sum = step(sum, x[v][e]);
      }
    }
  }
  m.lane[thread] = sum;
  __syncthreads();
  if (thread < 32) {
    sum = device::add_block_lanes(m.lane);
    if (thread == 0) result = {most, sum};
  }
}

// For all threads of a warp.
BI_D inline float collected_logprob(const device::message* sums, int blocks, float logit) {
  using softmax = contract::softmax_draft;
  using form = softmax::log_softmax_form;
  const auto most_of = [&](std::int64_t b) { return float_of(static_cast<std::uint32_t>(sums[b].a)); };
  device::row_group<32> group(static_cast<int>(threadIdx.x % 32), nullptr);
  float most = neg_inf_f32();
#pragma unroll 1
  for (int b = 0; b < blocks; ++b) most = max_nan(most, most_of(b));
  const float sum = group.fold_results(
      blocks, 0.0f,
      [&](std::int64_t b) {
        return softmax::block_term(float_of(static_cast<std::uint32_t>(sums[b].b)), most_of(b), most);
      },
      contract::add_step{});
  return form::value(logit, most, form::row(sum));
}

}  // namespace kernel
BI_NAMESPACE_END
