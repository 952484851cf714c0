// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/row_tree.hpp"

// Kernels that are their own CPU reference. The body of such a kernel is a functor over one row,
//
//   struct norm_gate {
//     template <class Row>
//     BI_HD void operator()(Row& row, const norm_gate_args& a) const;
//   };
//
// whose Row is a group of threads on the GPU (gpu_row, bi/testing/row.cuh) and one thread on the CPU (cpu_row). Both
// evaluate the row tree of bi/contract/row_tree.hpp, so both give the same bytes if the body keeps to three rules: float
// arithmetic goes through add_rn, mul_rn, fma_rn ... and the functions of bi/contract/functions.hpp; sums over a row are
// fold()s, or chains in a fixed order inside one vector; nothing follows the number of rows or of threads.
//
// What a Row has:
//   index()                               the row's number
//   fold(cols, start, step, combine)      the row tree: step(acc, i, n) folds elements [i, i + n), n <= 8, of the row into
//                                         acc; combine(a, b) joins two lanes. Every thread gets the result.
//   for_each_vector(cols, f)              f(i, n) for the vectors [i, i + n) of a row, each by one thread
//   for_each(count, f)                    f(i) for i in [0, count), each by one thread
//   load(p, n, v), store(p, n, v)         n <= 8 elements of memory, widened to fp32 and rounded from it; load fills up with
//                                         zeros
//   barrier()                             what threads wrote to memory before it, the row's others can read after it
// All threads of a row must make the same calls of fold and barrier.

BI_NAMESPACE_BEGIN
namespace testing {

class BI_TYPE cpu_row {
 public:
  BI_HD explicit cpu_row(std::int64_t index) : index_(index) {}

  BI_HD std::int64_t index() const { return index_; }

  template <class Step, class Combine>
  BI_HD float fold(std::int64_t cols, float start, Step step, Combine combine) const {
    const std::int64_t blocks = contract::row_blocks(cols);
    lanes second(start), third(start);
    float last = start;
    for (std::int64_t b = 0; b < blocks; ++b) {
      lanes first(start);
      const std::int64_t begin = b * contract::row_block;
      const int length = contract::block_length(cols, b);
      for (int i = 0; i < length; i += contract::row_vector) {
        float& acc = first.value[contract::lane_of(i)];
        acc = step(acc, begin + i, vector_at(length, i));
      }
      const float r = first.end(length, combine);
      if (blocks == 1) return r;
      // Blocks' results are a row again, by the same rule; 8192^3 elements fit three levels.
      const int in_block = static_cast<int>(b % contract::row_block);
      second.push(in_block, r, combine);
      if (in_block != contract::row_block - 1 && b != blocks - 1) continue;
      last = second.end(in_block + 1, combine);
      second = lanes(start);
      third.push(static_cast<int>(b / contract::row_block), last, combine);
    }
    const std::int64_t rows = contract::row_blocks(blocks);
    return rows <= 1 ? last : third.end(static_cast<int>(rows), combine);
  }

  template <class F>
  BI_HD void for_each_vector(std::int64_t cols, F f) const {
    for (std::int64_t i = 0; i < cols; i += contract::row_vector) f(i, vector_at(cols, i));
  }
  template <class F>
  BI_HD void for_each(std::int64_t count, F f) const {
    for (std::int64_t i = 0; i < count; ++i) f(i);
  }

  template <class T>
  BI_HD void load(const T* p, int n, float (&v)[contract::row_vector]) const {
    for (int e = 0; e < contract::row_vector; ++e) v[e] = e < n ? to_f32(p[e]) : 0.0f;
  }
  template <class T>
  BI_HD void store(T* p, int n, const float (&v)[contract::row_vector]) const {
    for (int e = 0; e < n; ++e) p[e] = cvt_rn<T>(v[e]);
  }

  BI_HD void barrier() const {}

 private:
  struct BI_TYPE lanes {
    float value[contract::row_lanes];

    BI_HD explicit lanes(float start) {
      for (float& v : value) v = start;
    }
    template <class Combine>
    BI_HD void push(int i, float v, Combine combine) {
      float& mine = value[contract::lane_of(i)];
      mine = combine(mine, v);
    }
    // What a block of `length` elements comes to. Overwrites the lanes.
    template <class Combine>
    BI_HD float end(int length, Combine combine) {
      return contract::combine_held(value, 0, contract::active_lanes(length), combine);
    }
  };

  BI_HD static int vector_at(std::int64_t cols, std::int64_t i) {
    return cols - i < contract::row_vector ? static_cast<int>(cols - i) : contract::row_vector;
  }

  std::int64_t index_;
};

// The body over rows [0, rows) on the CPU.
template <class Body, class Args>
void run_rows_on_cpu(const Body& body, const Args& args, std::int64_t rows) {
  for (std::int64_t r = 0; r < rows; ++r) {
    cpu_row row(r);
    body(row, args);
  }
}

}  // namespace testing
BI_NAMESPACE_END
