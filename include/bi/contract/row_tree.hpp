// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"

// The order in which a row of numbers becomes one number. It depends on the row's length and on nothing else.
//
//   block     the row is cut into blocks of 8192 elements, the last one shorter
//   vector    a block is cut into vectors of 8 elements, the last one shorter
//   lane      lane l of 256 folds vectors l, l + 256, l + 512 ... in this order, each vector's elements in order, from
//             a start value (+0 for a sum)
//   block end lane l takes lane l + d for d = 128, 64, ..., 1; a lane with no vector takes no part
//   row       the blocks' results are a row again, reduced by the same rule until one value is left
//
// Threads per row, lanes per thread and blocks per thread block are free: a kernel uses the functions below on the
// lanes and blocks that it holds and gets the same bits.

BI_NAMESPACE_BEGIN
namespace contract {

inline constexpr int row_vector = 8;
inline constexpr int row_lanes = 256;
inline constexpr int row_block = 8192;

// Blocks of a row; 0 for an empty one.
BI_HD constexpr std::int64_t row_blocks(std::int64_t cols) {
  return cols / row_block + (cols % row_block != 0 ? 1 : 0);
}
// Elements of block `block` of a row.
BI_HD constexpr int block_length(std::int64_t cols, std::int64_t block) {
  const std::int64_t rest = cols - block * row_block;
  return static_cast<int>(rest < row_block ? rest : row_block);
}
// The lane that folds element `i` of a block.
BI_HD constexpr int lane_of(int i) { return i / row_vector % row_lanes; }
// Lanes 0 .. active_lanes - 1 of a block of `length` elements have a vector, the others have none.
BI_HD constexpr int active_lanes(int length) {
  return length >= row_vector * row_lanes ? row_lanes : (length + row_vector - 1) / row_vector;
}

// ---- steps: what a fold does with an element, and what a combination does with two lanes

struct BI_TYPE add_step {
  BI_HD float operator()(float a, float b) const { return add_rn(a, b); }
};
struct BI_TYPE square_step {
  BI_HD float operator()(float acc, float x) const { return fma_rn(x, x, acc); }
};
struct BI_TYPE max_step {
  BI_HD float operator()(float a, float b) const { return max_nan(a, b); }
};
struct BI_TYPE min_step {
  BI_HD float operator()(float a, float b) const { return min_nan(a, b); }
};

// ---- pieces of the tree

// Folds `count` <= 8 elements, one vector of a lane.
template <class Fold>
BI_HD float fold_vector(float acc, const float* x, int count, Fold fold) {
  for (int e = 0; e < count; ++e) acc = fold(acc, x[e]);
  return acc;
}

// `mine` with the value of a lane above it. A lane that a sum folded from +0 is never -0, so a sum may also hold
// empty lanes as +0 and add them; likewise max from -Inf and min from +Inf.
template <class Combine>
BI_HD float combine_active(float mine, float other, int other_lane, int active, Combine combine) {
  return other_lane < active ? combine(mine, other) : mine;
}

// Lanes that one of 256 / Held threads holds: held[j] is lane thread + j * (256 / Held). Does the distances of the tree
// that stay inside a thread; those left, between threads, are 128 / Held, ..., 1. With Held = 256 that is the whole tree.
template <int Held, class Combine>
BI_HD float combine_held(float (&held)[Held], int thread, int active, Combine combine) {
  static_assert(Held > 0 && row_lanes % Held == 0, "threads hold equal numbers of lanes");
  constexpr int threads = row_lanes / Held;
  for (int half = Held / 2; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) {
      held[j] = combine_active(held[j], held[j + half], thread + (j + half) * threads, active, combine);
    }
  }
  return held[0];
}

// ---- the whole of it, for one thread

// x[0, length), length <= 8192.
template <class Fold, class Combine>
BI_HD float reduce_block(const float* x, int length, float start, Fold fold, Combine combine) {
  if (length <= 0) return start;
  const int active = active_lanes(length);
  float lane[row_lanes];
  for (int l = 0; l < active; ++l) lane[l] = start;
  for (int i = 0; i < length; i += row_vector) {
    const int count = length - i < row_vector ? length - i : row_vector;
    float& mine = lane[lane_of(i)];
    mine = fold_vector(mine, x + i, count, fold);
  }
  return combine_held(lane, 0, active, combine);
}

// The results of a row's blocks, down to one value; overwrites them.
template <class Combine>
BI_HD float reduce_results(float* results, std::int64_t count, float start, Combine combine) {
  if (count <= 0) return start;
  while (count > 1) {
    const std::int64_t blocks = row_blocks(count);
    for (std::int64_t b = 0; b < blocks; ++b) {
      results[b] = reduce_block(results + b * row_block, block_length(count, b), start, combine, combine);
    }
    count = blocks;
  }
  return results[0];
}

// A row. `results` has room for row_blocks(cols) values; it may be null for a row of one block.
template <class Fold, class Combine>
BI_HD float reduce_row(const float* x, std::int64_t cols, float start, Fold fold, Combine combine, float* results) {
  if (cols <= row_block) return reduce_block(x, static_cast<int>(cols), start, fold, combine);
  const std::int64_t blocks = row_blocks(cols);
  for (std::int64_t b = 0; b < blocks; ++b) {
    results[b] = reduce_block(x + b * row_block, block_length(cols, b), start, fold, combine);
  }
  return reduce_results(results, blocks, start, combine);
}

}  // namespace contract
BI_NAMESPACE_END
