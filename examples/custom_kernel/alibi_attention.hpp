// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/functions.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/dtype.hpp"
#include "bi/testing/row.hpp"

// One query a row over its own keys and values, with a bias that grows with the distance (ALiBi, Press et al. 2021, arXiv
// 2108.12409) and that bi::attention does not have: out = softmax(scale q k_j - slope (len - 1 - j)) v. Scores, softmax and
// the weighted sum are one kernel. A row's bytes depend on its own q, k, v and len: dots are chains in ascending order,
// largest and sum are the row tree, and values are added in the order of the keys.

struct alibi_attention_args {
  const bi::bf16* q;        // [rows, dim]
  const bi::bf16* k;        // [rows, max_len, dim]
  const bi::bf16* v;        // [rows, max_len, dim]
  const std::int32_t* len;  // [rows], at most max_len; 0 gives zeros
  float* scores;            // [rows, max_len], scratch
  bi::bf16* out;            // [rows, dim]
  std::int64_t max_len, dim;
  float scale, slope;
};

struct alibi_attention {
  template <class Row>
  BI_HD void operator()(Row& row, const alibi_attention_args& a) const {
    const std::int64_t r = row.index(), len = a.len[r];
    const bi::bf16* q = a.q + r * a.dim;
    const bi::bf16* k = a.k + r * a.max_len * a.dim;
    const bi::bf16* v = a.v + r * a.max_len * a.dim;
    float* scores = a.scores + r * a.max_len;

    row.for_each(len, [&](std::int64_t j) {
      float dot = 0;
      for (std::int64_t i = 0; i < a.dim; ++i) dot = bi::fma_rn(bi::to_f32(q[i]), bi::to_f32(k[j * a.dim + i]), dot);
      const float distance = bi::float_from_int64(len - 1 - j);
      scores[j] = bi::fma_rn(bi::neg(a.slope), distance, bi::mul_rn(a.scale, dot));
    });
    row.barrier();  // other threads' scores are read from here on

    const float largest = row.fold(
        len, bi::neg_inf_f32(),
        [&](float acc, std::int64_t i, int n) {
          for (int e = 0; e < n; ++e) acc = bi::max_nan(acc, scores[i + e]);
          return acc;
        },
        bi::contract::max_step{});
    const auto weight = [&](std::int64_t j) { return bi::exp(bi::sub_rn(scores[j], largest)); };
    const float sum = row.fold(
        len, 0.0f,
        [&](float acc, std::int64_t i, int n) {
          for (int e = 0; e < n; ++e) acc = bi::add_rn(acc, weight(i + e));
          return acc;
        },
        bi::contract::add_step{});

    row.for_each_vector(a.dim, [&](std::int64_t i, int n) {
      float acc[8] = {};
      for (std::int64_t j = 0; j < len; ++j) {
        const float w = weight(j);
        float value[8];
        row.load(v + j * a.dim + i, n, value);
        for (int e = 0; e < 8; ++e) acc[e] = bi::fma_rn(w, value[e], acc[e]);
      }
      for (int e = 0; e < 8; ++e) acc[e] = len > 0 ? bi::div_rn(acc[e], sum) : 0.0f;
      row.store(a.out + r * a.dim + i, n, acc);
    });
  }
};
