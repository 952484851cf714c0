// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_softmax.cuh"

// The softmax of bi/contract/attention.hpp where most rows see whole tiles and most maxima stay: what changes nothing
// is left out by a vote of the warp. Values as in attention_softmax.cuh, flat: s[4 j + 2 h + e].

BI_NAMESPACE_BEGIN
namespace device {

// Rows g and g + 8 of a thread, but for o.
struct attention_row_pair {
  float leaf_m[2], leaf_l[2];  // of the leaf in progress; l is the thread's lane of it

  BI_D void reset_leaf() {
#pragma unroll
    for (int h = 0; h < 2; ++h) leaf_m[h] = neg_inf_f32(), leaf_l[h] = 0.0f;
  }
};

// What a row sees of a tile: none of it, or keys [begin, end). Bit k - 2 (lane % 4) is that of key k.
BI_D inline std::uint64_t attention_key_mask(int begin, int end, int lane) {
  if (begin >= end) return 0;
  const std::uint64_t before_end = end >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << end) - 1;
  return (before_end >> begin << begin) >> (lane % 4 * 2);
}

// The largest of each row's 16 values, in the whole quad. Four chains: one instruction waits for four others.
BI_D inline void attention_row_maxima(float (&largest)[2], const float (&s)[key_tile / 2]) {
  float m[4] = {s[0], s[1], s[2], s[3]};
#pragma unroll
  for (int i = 4; i < key_tile / 2; ++i) m[i % 4] = max_nan(m[i % 4], s[i]);
#pragma unroll
  for (int h = 0; h < 2; ++h) largest[h] = max_nan(m[2 * h], m[2 * h + 1]);
#pragma unroll
  for (int i = 1; i < 4; i *= 2) {
#pragma unroll
    for (int h = 0; h < 2; ++h) largest[h] = max_nan(largest[h], __shfl_xor_sync(full_warp, largest[h], i));
  }
}

// False if advance() would keep both rows' maxima, as far as the thread's own scores go: which is most often so, and cheaper
// to see than the maximum itself. Not negative floats, positive NaN included, are ordered as integers are, of which one
// instruction takes three; where all are negative, so is this maximum of integers, and what asks for it is at least 0.
template <class Contract>
BI_D bool attention_may_move(const attention_row_pair& x, const float (&s)[key_tile / 2],
                             const contract::attention_scale& scale) {
  bool stays = true;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const auto bits = [&](int i) { return static_cast<std::int32_t>(bits_of(s[i / 2 * 4 + 2 * h + i % 2])); };
    const auto larger = [](std::int32_t u, std::int32_t v) { return u < v ? v : u; };
    std::int32_t a = bits(0), b = bits(1);
#pragma unroll
    for (int i = 2; i < 14; i += 4) {
      a = larger(larger(a, bits(i)), bits(i + 1));
      b = larger(larger(b, bits(i + 2)), bits(i + 3));
    }
    a = larger(larger(a, bits(14)), bits(15));
    const float t = Contract::tile_max(float_of(static_cast<std::uint32_t>(larger(a, b))), scale);
    const float bound = add_rn(x.leaf_m[h], 8.0f);
    stays = stays && less_equal(t, bound) && less_equal(0.0f, bound);
  }
  return !stays;
}

// Scores to weights, in place, of a tile that both rows see all of. First: the leaf's first one. rescale is for o; false
// if it is 1 throughout the warp.
template <class Contract, bool First>
BI_D bool attention_weigh_whole(attention_row_pair& x, float (&s)[key_tile / 2], float (&rescale)[2],
                                const contract::attention_scale& scale) {
  if constexpr (Contract::has_soft_cap) {
#pragma unroll
    for (int i = 0; i < key_tile / 2; ++i) s[i] = Contract::score(s[i], scale);
  }
  bool moves = false;
#pragma unroll
  for (int h = 0; h < 2; ++h) rescale[h] = 1.0f;
  if constexpr (First) {
    attention_row_maxima(x.leaf_m, s);
#pragma unroll
    for (int h = 0; h < 2; ++h) x.leaf_m[h] = Contract::on_grid(Contract::tile_max(x.leaf_m[h], scale));
  } else {
    moves = __any_sync(full_warp, attention_may_move<Contract>(x, s, scale));
    if (__builtin_expect(moves, 0)) {
      float largest[2];
      attention_row_maxima(largest, s);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const contract::attention_advance next = Contract::advance(x.leaf_m[h], Contract::tile_max(largest[h], scale));
        x.leaf_m[h] = next.m;
        rescale[h] = next.rescale;
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float shift = Contract::shift(x.leaf_m[h]);
    float p[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& weight = s[i / 2 * 4 + 2 * h + i % 2];
      weight = Contract::weight(weight, scale, shift);
      p[i] = weight;
    }
    const float sum = Contract::lane_sum(p);
    x.leaf_l[h] = First ? sum : Contract::accumulate(x.leaf_l[h], rescale[h], sum);
  }
  return moves;
}

// The same where row h sees the keys of visible[h] (attention_key_mask).
template <class Contract>
BI_D bool attention_weigh_masked(attention_row_pair& x, float (&s)[key_tile / 2], float (&rescale)[2],
                                 const contract::attention_scale& scale, const std::uint64_t (&visible)[2],
                                 const bool (&sees)[2]) {
  bool stays = true;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const auto sees_key = [&](int i) {  // of the thread's lane
      return (visible[h] >> Contract::key(0, i / 4, i / 2 % 2, i % 2) & 1) != 0;
    };
    float largest = neg_inf_f32();
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& score = s[i / 2 * 4 + 2 * h + i % 2];
      score = Contract::score(score, scale);
      largest = max_nan(largest, sees_key(i) ? score : neg_inf_f32());
    }
    const contract::attention_advance next =
        Contract::advance(x.leaf_m[h], Contract::tile_max(attention_quad_max(largest), scale));
    float p[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& weight = s[i / 2 * 4 + 2 * h + i % 2];
      const float w = Contract::weight(weight, scale, next.shift);
      weight = sees_key(i) ? w : 0.0f;
      p[i] = weight;
    }
    const float l = Contract::accumulate(x.leaf_l[h], next.rescale, Contract::lane_sum(p));
    x.leaf_l[h] = sees[h] ? l : x.leaf_l[h];
    x.leaf_m[h] = sees[h] ? next.m : x.leaf_m[h];
    rescale[h] = sees[h] ? next.rescale : 1.0f;
    stays = stays && bits_of(rescale[h]) == 0x3f800000u;
  }
  return __any_sync(full_warp, !stays);
}

// Whether a quarter of the tile v, that of a warp of four, has an Inf or NaN; the lane's part of the answer.
template <int HeadDim, class T>
BI_D bool attention_has_nonfinite(T* v, int quarter, int lane) {
  std::uint32_t found = 0;
#pragma unroll 4
  for (int chunk = lane / 16; chunk < HeadDim / chunk_values; chunk += 2) {
    T* const part = tile_part<key_tile>(v, chunk / row_chunks);
    found |= attention_nonfinite_bits(tile_chunk(part, quarter * 16 + lane % 16, chunk % row_chunks));
  }
  return (found & nonfinite_mask) != 0;
}

// o += P V of one row of the warp's 16, with V = 0 at keys outside [begin, end): for tiles where such a key's V is Inf
// or NaN, of which even a weight of 0 makes NaN. v: a tile. Only o's values from First to Last: all at once take more
// registers than there are.
template <int First, int Last, class T, int Values>
BI_D void attention_add_masked_row(float (&o)[Values], const std::uint32_t (&p)[key_tile / 16][4], T* v, int row,
                                   int begin, int end, int lane) {
  std::uint32_t mask[key_tile / 8];  // of keys 8 j + 2 t, in a B fragment
#pragma unroll
  for (int j = 0; j < key_tile / 8; ++j) {
    const int key = 8 * j + lane % 4 * 2;
    mask[j] = (key >= begin && key < end ? 0xffffu : 0u) | (key + 1 >= begin && key + 1 < end ? 0xffff0000u : 0u);
  }
  const bool mine[2] = {lane / 4 == row, lane / 4 + 8 == row};
#pragma unroll
  for (int j = First / 4; j < Last / 4; j += 2) {
    float acc[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) acc[i / 4][i % 4] = o[4 * j + i];
#pragma unroll
    for (int step = 0; step < key_tile / 16; ++step) {
      std::uint32_t b[2][2];
      load_b_fragments_transposed(b, tile_part<key_tile>(v, j / 8), 8 * (j % 8), step, opaque(lane));
#pragma unroll
      for (int i = 0; i < 4; ++i) b[i / 2][i % 2] &= mask[2 * step + i % 2];
      mma_m16n8k16<T>(acc[0], p[step], b[0]);
      mma_m16n8k16<T>(acc[1], p[step], b[1]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) o[4 * j + i] = mine[i % 4 / 2] ? acc[i / 4][i % 4] : o[4 * j + i];
  }
}

// The closed leaves of rows g and g + 8 but for o, in shared memory.
struct attention_closed_rows {
  float *m, *l;  // of row g; that of g + 8 is 8 on
};

// Closes a leaf and folds its m and l into those of both rows, which see some of it. factors: for o. False, and nothing is
// done, if some maximum of the warp's rows is infinite or NaN, but for -Inf of rows that had seen nothing. Called by the
// whole warp.
template <class Contract>
BI_D bool attention_fold_sums(const attention_row_pair& x, const attention_closed_rows& rows,
                              contract::attention_fold (&factors)[2], int lane) {
  float m[2], l[2];
  bool plain = true;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    m[h] = rows.m[8 * h], l[h] = rows.l[8 * h];
    plain = plain && is_finite(x.leaf_m[h]) && (is_finite(m[h]) || Contract::is_neg_inf(m[h]));
  }
  if (__builtin_expect(!__all_sync(full_warp, plain), 0)) return false;
  __syncwarp();  // all have read what is written now
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float leaf_l = x.leaf_l[h];
    leaf_l = add_rn(leaf_l, __shfl_xor_sync(full_warp, leaf_l, 1));
    leaf_l = add_rn(leaf_l, __shfl_xor_sync(full_warp, leaf_l, 2));
    // Contract::fold: the larger maximum's factor is power(0) = 1.
    const bool grows = greater(x.leaf_m[h], m[h]);
    const float d = sub_rn(m[h], x.leaf_m[h]), e = Contract::power(grows ? d : neg(d));
    factors[h] = {grows ? x.leaf_m[h] : m[h], grows ? e : 1.0f, grows ? 1.0f : e};
    if (lane % 4 == 0) rows.m[8 * h] = factors[h].m, rows.l[8 * h] = Contract::fold_value(factors[h], l[h], leaf_l);
  }
  return true;
}

// Folds a leaf's o into total. Of a row that had seen nothing the fold takes the leaf as it is: o is never -0, and where it
// is NaN so is l.
template <class Contract, int Values>
BI_D void attention_fold_values(float (&total)[Values], const float (&o)[Values],
                                const contract::attention_fold (&factors)[2]) {
#pragma unroll
  for (int i = 0; i < Values; ++i) total[i] = Contract::fold_value(factors[i % 4 / 2], total[i], o[i]);
}

// Both, whatever the maxima are, into the rows h that see some of the leaf (sees); the others keep their bits.
template <class Contract, int Values>
BI_D void attention_fold_any(const attention_row_pair& x, const attention_closed_rows& rows, float (&total)[Values],
                             const float (&o)[Values], const bool (&sees)[2], int lane) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float lanes[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) lanes[i] = __shfl_sync(full_warp, x.leaf_l[h], (lane & ~3) + i);
    const float leaf_l = Contract::close(x.leaf_m[h], lanes[0], lanes[1], lanes[2], lanes[3]);
    const contract::attention_fold f = Contract::fold(rows.m[8 * h], x.leaf_m[h]);
    const float l = Contract::fold_value(f, rows.l[8 * h], leaf_l);
    __syncwarp();
    if (sees[h] && lane % 4 == 0) rows.m[8 * h] = f.m, rows.l[8 * h] = l;
#pragma unroll
    for (int i = 0; i < Values; ++i) {
      if (i % 4 / 2 != h) continue;
      const float folded = Contract::fold_value(f, total[i], Contract::close_o(x.leaf_m[h], o[i]));
      total[i] = sees[h] ? folded : total[i];
    }
  }
}

}  // namespace device
BI_NAMESPACE_END
