// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_tile.cuh"
#include "bi/device/row.cuh"

// The softmax of bi/contract/attention.hpp over the fragments of attention_tile.cuh. Four neighbouring threads, a quad,
// share a row: thread t has element (w, h, e) of the contract's lane t in s[2 w + h][e], or [2 + e] for row g + 8.

BI_NAMESPACE_BEGIN
namespace device {

// Rows g and g + 8 of a thread. leaf_l is the l[t] of the leaf in progress, the rest of l and m is the same in the quad.
template <int Blocks>
struct attention_state {
  std::int32_t lo[2], see[2];  // the row sees view indices lo <= j < see
  float leaf_m[2], leaf_l[2];
  float m[2], l[2];  // of the closed leaves
  float leaf_o[Blocks][4];
};

template <int Blocks>
BI_D void attention_reset(attention_state<Blocks>& x) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    x.leaf_m[h] = x.m[h] = neg_inf_f32();
    x.leaf_l[h] = x.l[h] = 0.0f;
  }
#pragma unroll
  for (int i = 0; i < Blocks * 4; ++i) x.leaf_o[i / 4][i % 4] = 0.0f;
}

// Whether a row that sees the tile's keys [begin, end) sees element i of the thread's lane; half: of a tile's four groups of
// 16 keys, s has those from 2 * half on.
template <class Contract>
BI_D bool attention_sees_key(int i, int half, int begin, int end, int lane) {
  const int key = Contract::key(lane % 4, i / 4, i / 2 % 2, i % 2) + half * 32;
  return key >= begin && key < end;
}

// The largest of a row's four lanes, in each of them.
BI_D inline float attention_quad_max(float lane) {
#pragma unroll
  for (int d = 1; d < 4; d *= 2) lane = max_nan(lane, __shfl_xor_sync(full_warp, lane, d));
  return lane;
}

// From products to scores, in place, and the exponent that they ask for: of row h and the keys of s, of which the row sees
// the tile's [begin, end); Masked = false: all of them.
template <class Contract, bool Masked, int Blocks>
BI_D float attention_tile_max(float (&s)[Blocks][4], int h, const contract::attention_scale& scale, int begin, int end,
                              int lane, int half = 0) {
  float largest = neg_inf_f32();
#pragma unroll
  for (int i = 0; i < 2 * Blocks; ++i) {
    float& score = s[i / 2][2 * h + i % 2];
    score = Contract::score(score, scale);
    if (!Masked || attention_sees_key<Contract>(i, half, begin, end, lane)) largest = max_nan(largest, score);
  }
  return Contract::tile_max(attention_quad_max(largest), scale);
}

// From row h's scores to its weights, in place; p: the same, in the order of the contract's lane.
template <class Contract, bool Masked, int Blocks>
BI_D void attention_tile_weights(float (&p)[2 * Blocks], float (&s)[Blocks][4], int h,
                                 const contract::attention_scale& scale, float shift, int begin, int end, int lane,
                                 int half = 0) {
#pragma unroll
  for (int i = 0; i < 2 * Blocks; ++i) {
    float& weight = s[i / 2][2 * h + i % 2];
    const bool visible = !Masked || attention_sees_key<Contract>(i, half, begin, end, lane);
    p[i] = visible ? Contract::weight(weight, scale, shift) : 0.0f;
    weight = p[i];
  }
}

// Both, for a warp that has all tiles of a leaf. rescale[h] is for o: exactly 1 where the row's maximum stays, or the row
// sees nothing of the tile.
template <class Contract, bool Masked, int Blocks>
BI_D void attention_weigh(attention_state<Blocks>& x, float (&s)[key_tile / 8][4], float (&rescale)[2],
                          const contract::attention_scale& scale, const int (&begin)[2], const int (&end)[2],
                          int lane) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float largest = attention_tile_max<Contract, Masked>(s, h, scale, begin[h], end[h], lane);
    const contract::attention_advance next = Contract::advance(x.leaf_m[h], largest);
    float p[16];
    attention_tile_weights<Contract, Masked>(p, s, h, scale, next.shift, begin[h], end[h], lane);
    const float l = Contract::accumulate(x.leaf_l[h], next.rescale, Contract::lane_sum(p));
    const bool sees = !Masked || begin[h] < end[h];
    x.leaf_l[h] = sees ? l : x.leaf_l[h];
    x.leaf_m[h] = sees ? next.m : x.leaf_m[h];
    rescale[h] = sees ? next.rescale : 1.0f;
  }
}

// Few tiles move a maximum by more than the lag; by 1 no bit of o changes.
template <int Blocks>
BI_D void attention_rescale(attention_state<Blocks>& x, const float (&rescale)[2]) {
  constexpr std::uint32_t one = 0x3f800000u;
  if (__all_sync(full_warp, bits_of(rescale[0]) == one && bits_of(rescale[1]) == one)) return;
#pragma unroll
  for (int i = 0; i < Blocks * 4; ++i) x.leaf_o[i / 4][i % 4] = mul_rn(x.leaf_o[i / 4][i % 4], rescale[i % 4 / 2]);
}

// Closes the leaf that begins at view index `leaf` and folds it into the rows h that see some of it, of [lo, see); the others
// keep their bits. o: the closed leaves' o in shared memory, this thread's value i at o[i * Stride]; what no leaf has been
// folded into holds anything. Called by the whole warp.
template <class Contract, int Stride, int Blocks>
BI_D void attention_close_leaf(attention_state<Blocks>& x, const std::int32_t (&lo)[2], const std::int32_t (&see)[2],
                               float* o, std::int32_t leaf, int lane) {
  const int quad = lane & ~3;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float l[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) l[i] = __shfl_sync(full_warp, x.leaf_l[h], quad + i);
    const bool earlier = lo[h] < leaf;  // the row has seen leaves before, if it sees any of this one
    const bool sees = see[h] > leaf && lo[h] - leaf < Contract::leaf && lo[h] < see[h];
    const float leaf_m = x.leaf_m[h], leaf_l = Contract::close(leaf_m, l[0], l[1], l[2], l[3]);
    const contract::attention_fold f = Contract::fold(x.m[h], leaf_m);
#pragma unroll
    for (int i = 0; i < Blocks * 4; ++i) {
      if (i % 4 / 2 != h) continue;
      const float right = Contract::close_o(leaf_m, x.leaf_o[i / 4][i % 4]);
      if (sees) o[i * Stride] = earlier ? Contract::fold_value(f, o[i * Stride], right) : right;
      x.leaf_o[i / 4][i % 4] = 0.0f;
    }
    if (sees) {
      x.l[h] = earlier ? Contract::fold_value(f, x.l[h], leaf_l) : leaf_l;
      x.m[h] = earlier ? f.m : leaf_m;
    }
    x.leaf_m[h] = neg_inf_f32();
    x.leaf_l[h] = 0.0f;
  }
}

// Closes a leaf that somebody else folds: store(h, m, l, o) is given the partial result of row h, o(2 j + e) of column
// 8 j + 2 t + e, or anything if the row sees none of the leaf. Called by the whole warp.
template <class Contract, int Blocks, class Store>
BI_D void attention_give_leaf(attention_state<Blocks>& x, int lane, const Store& store) {
  const int quad = lane & ~3;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float l[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) l[i] = __shfl_sync(full_warp, x.leaf_l[h], quad + i);
    const float m = x.leaf_m[h];
    store(h, m, Contract::close(m, l[0], l[1], l[2], l[3]),
          [&](int i) { return Contract::close_o(m, x.leaf_o[i / 2][2 * h + i % 2]); });
#pragma unroll
    for (int i = 0; i < 2 * Blocks; ++i) x.leaf_o[i / 2][2 * h + i % 2] = 0.0f;
    x.leaf_m[h] = neg_inf_f32();
    x.leaf_l[h] = 0.0f;
  }
}

}  // namespace device
BI_NAMESPACE_END
