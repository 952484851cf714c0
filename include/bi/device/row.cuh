// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/device/vector.cuh"

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr unsigned full_warp = 0xffffffffu;

// Shared memory of one row_group of more than a warp. Two halves take turns, so one barrier a reduction is enough.
template <int Threads>
struct row_scratch {
  float value[2][Threads];
};

// The threads that evaluate one row's trees (bi/contract/row_tree.hpp) together: 32 (one warp, no barrier and no shared
// memory), or 64, 128, 256 (a whole thread block). How many there are changes no bit. Every thread of the group makes
// every call, and every thread gets the result.
template <int Threads>
class row_group {
  static_assert(Threads == 32 || Threads == 64 || Threads == 128 || Threads == 256, "a warp or a block of up to 256");

 public:
  static constexpr int threads = Threads;
  static constexpr int held = contract::row_lanes / Threads;  // lanes of the tree in each thread

  BI_D row_group(int thread_in_group, row_scratch<Threads>* scratch) : thread_(thread_in_group), scratch_(scratch) {}

  BI_D int thread() const { return thread_; }

  // One block of at most 8192 elements. fold(acc, i, n) folds elements [i, i + n) of the block, n <= 8, into acc.
  template <class FoldVector, class Combine>
  BI_D float fold_block(int length, float start, FoldVector fold, Combine combine) {
    float lane[held];
#pragma unroll
    for (int j = 0; j < held; ++j) {
      lane[j] = start;
      for (int i = (thread_ + j * Threads) * contract::row_vector; i < length;
           i += contract::row_lanes * contract::row_vector) {
        const int rest = length - i;
        lane[j] = fold(lane[j], i, rest < contract::row_vector ? rest : contract::row_vector);
      }
    }
    return combine_lanes(lane, contract::active_lanes(length), combine);
  }

  // A row of any length. fold(acc, i, n) as above, i counts from the start of the row.
  template <class FoldVector, class Combine>
  BI_D float fold_row(std::int64_t cols, float start, FoldVector fold, Combine combine) {
    return fold_results(
        contract::row_blocks(cols), start,
        [&](std::int64_t block) {
          const std::int64_t begin = block * contract::row_block;
          return fold_block(
              contract::block_length(cols, block), start,
              [&](float acc, int i, int n) { return fold(acc, begin + i, n); }, combine);
        },
        combine);
  }

  // The row rule over the results of blocks 0 .. count - 1; `start` if there is none. All threads call result(b), once
  // for each in ascending order, and it must give all of them the same value. 8192^3 elements fit the three levels.
  template <class Result, class Combine>
  BI_D float fold_results(std::int64_t count, float start, Result result, Combine combine) {
    float second[held], third[held], last = start;
    fill(second, start);
    fill(third, start);
    for (std::int64_t b = 0; b < count; ++b) {
      const float r = result(b);
      if (count == 1) return r;
      const int in_block = static_cast<int>(b % contract::row_block);
      push(second, in_block, r, combine);
      if (in_block == contract::row_block - 1 || b == count - 1) {
        last = combine_lanes(second, contract::active_lanes(in_block + 1), combine);
        fill(second, start);
        push(third, static_cast<int>(b / contract::row_block), last, combine);
      }
    }
    const std::int64_t rows = contract::row_blocks(count);
    return rows <= 1 ? last : combine_lanes(third, contract::active_lanes(static_cast<int>(rows)), combine);
  }

  // lane[j] is lane thread + j * Threads of a tree with `active` lanes that are not empty.
  template <class Combine>
  BI_D float combine_lanes(float (&lane)[held], int active, Combine combine) {
    float v = contract::combine_held(lane, thread_, active, combine);
    if constexpr (Threads > 32) {
      // Lanes thread, 0 <= thread < Threads, are left. Every warp does the rest for itself.
      constexpr int warps = Threads / 32;
      float* buffer = scratch_->value[turn_];
      turn_ ^= 1;
      buffer[thread_] = v;
      __syncthreads();
      float warp_lane[warps];
#pragma unroll
      for (int w = 0; w < warps; ++w) warp_lane[w] = buffer[lane_in_warp() + 32 * w];
#pragma unroll
      for (int half = warps / 2; half > 0; half /= 2) {
#pragma unroll
        for (int j = 0; j < half; ++j) {
          warp_lane[j] = contract::combine_active(warp_lane[j], warp_lane[j + half], lane_in_warp() + (j + half) * 32,
                                                  active, combine);
        }
      }
      v = warp_lane[0];
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
      const float other = __shfl_down_sync(full_warp, v, static_cast<unsigned>(d));
      v = contract::combine_active(v, other, lane_in_warp() + d, active, combine);
    }
    return __shfl_sync(full_warp, v, 0);
  }

 private:
  BI_D int lane_in_warp() const { return thread_ & 31; }

  BI_D static void fill(float (&lane)[held], float start) {
#pragma unroll
    for (int j = 0; j < held; ++j) lane[j] = start;
  }

  // Element `index` of a second-level row goes to the thread that holds its lane. A select, not a branch: a register
  // array indexed at run time would move to local memory.
  template <class Combine>
  BI_D void push(float (&lane)[held], int index, float value, Combine combine) const {
    const int target = contract::lane_of(index);
#pragma unroll
    for (int j = 0; j < held; ++j) {
      if (target == thread_ + j * Threads) lane[j] = combine(lane[j], value);
    }
  }

  int thread_;
  int turn_ = 0;
  row_scratch<Threads>* scratch_;
};

// What fold_row and fold_block take: Step on each element of a row in memory.
template <class T, class Step>
struct fold_elements {
  const T* x;
  bool aligned;
  Step step;

  BI_D float operator()(float acc, std::int64_t i, int n) const {
    float v[vector_size];
    load_vector_f32(x + i, n, aligned, v);
#pragma unroll
    for (int e = 0; e < vector_size; ++e) {
      if (e < n) acc = step(acc, v[e]);
    }
    return acc;
  }
};

// Calls fn(i, n) on the vectors [i, i + n) of a row that belong to this thread of the group: those that it also folds
// in fold_row, so a thread may overwrite them after any number of folds.
template <int Threads, class Fn>
BI_D void for_each_vector(const row_group<Threads>& group, std::int64_t cols, Fn fn) {
  for (std::int64_t i = static_cast<std::int64_t>(group.thread()) * vector_size; i < cols; i += Threads * vector_size) {
    fn(i, cols - i < vector_size ? static_cast<int>(cols - i) : vector_size);
  }
}

// Deals rows out to the groups of the grid: fn(group, row). A thread block is one group, or each of its warps is one.
template <int Threads, int RowsPerBlock, class Fn>
BI_D void for_each_row(std::int64_t rows, Fn fn) {
  static_assert(RowsPerBlock == 1 || Threads == 32, "a block is one group, or each of its warps is one");
  __shared__ row_scratch<Threads> scratch;
  row_group<Threads> group(static_cast<int>(threadIdx.x) % Threads, &scratch);
  std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * RowsPerBlock + static_cast<int>(threadIdx.x) / Threads;
  for (; row < rows; row += static_cast<std::int64_t>(gridDim.x) * RowsPerBlock) fn(group, row);
}

}  // namespace device
BI_NAMESPACE_END
