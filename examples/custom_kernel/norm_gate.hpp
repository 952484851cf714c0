// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/dtype.hpp"
#include "bi/testing/row.hpp"

// out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight * silu(gate[r]): the gated norm of linear-attention
// models, in one kernel. One body for the GPU and for the CPU. The output is fp32: rounded to bf16 it would hide most faults
// of a sum from a test (and show them to a user, some day).

struct norm_gate_args {
  const float* x;          // [rows, cols]
  const bi::bf16* gate;    // [rows, cols]
  const bi::bf16* weight;  // [cols]
  float* out;              // [rows, cols]
  std::int64_t rows, cols;
  float eps;
};

struct norm_gate {
  template <class Row>
  BI_HD void operator()(Row& row, const norm_gate_args& a) const {
    finish(row, a, sum_of_squares(row, a, 0, a.cols));
  }

  // Of elements [begin, end).
  template <class Row>
  BI_HD static float sum_of_squares(Row& row, const norm_gate_args& a, std::int64_t begin, std::int64_t end) {
    const float* x = a.x + row.index() * a.cols + begin;
    return row.fold(
        end - begin, 0.0f,
        [&](float acc, std::int64_t i, int n) {
          float v[8];
          row.load(x + i, n, v);
          for (int e = 0; e < 8; ++e) {
            if (e < n) acc = bi::fma_rn(v[e], v[e], acc);
          }
          return acc;
        },
        bi::contract::add_step{});
  }

  template <class Row>
  BI_HD static void finish(Row& row, const norm_gate_args& a, float sum) {
    const std::int64_t at = row.index() * a.cols;
    const float scale = bi::rsqrt_rn(bi::add_rn(bi::div_rn(sum, bi::float_from_int64(a.cols)), a.eps));
    row.for_each_vector(a.cols, [&](std::int64_t i, int n) {
      float x[8], gate[8], weight[8];
      row.load(a.x + at + i, n, x);
      row.load(a.gate + at + i, n, gate);
      row.load(a.weight + i, n, weight);
      for (int e = 0; e < 8; ++e) {
        x[e] = bi::mul_rn(bi::mul_rn(bi::mul_rn(x[e], scale), weight[e]), bi::silu(gate[e]));
      }
      row.store(a.out + at + i, n, x);
    });
  }
};

// What heuristics do, and the checker must catch: few rows leave a GPU idle, so their sums are split in two. The sum of
// the halves rounds in another way, and a row's bytes follow the number of its neighbours.
struct norm_gate_that_follows_the_batch {
  template <class Row>
  BI_HD void operator()(Row& row, const norm_gate_args& a) const {
    const std::int64_t half = a.rows < 16 ? a.cols / 2 : a.cols;
    const float first = norm_gate::sum_of_squares(row, a, 0, half);
    norm_gate::finish(row, a, bi::add_rn(first, norm_gate::sum_of_squares(row, a, half, a.cols)));
  }
};
