// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/contract/gemm.hpp"
#include "bi/contract/gemm_gate.hpp"
#include "bi/dtype.hpp"
#include "bi/gemm.hpp"
#include "bi/reference/mma.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN
namespace reference {

namespace gemm_detail {

// Roots of columns [first, first + columns) of one row go through the epilogue. With a gate, first and columns are
// even.
template <class Epilogue, class Out, class T>
void write_outputs(const float* root, std::int64_t first, int columns, float alpha, const T* bias, const T* residual,
                   Out* d) {
  Out gate{};
  for (int j = 0; j < columns; ++j) {
    const std::int64_t column = first + j;
    const Out value = contract::gemm_epilogue<Out>(root[j], alpha, Epilogue::has_bias ? bias + column : nullptr,
                                                   Epilogue::has_residual ? residual + column : nullptr);
    if constexpr (!Epilogue::has_gate) {
      d[column] = value;
    } else if (j % 2 == 0) {
      gate = value;
    } else {
      d[column / 2] = contract::gemm_silu_gate(gate, value);
    }
  }
}

// Roots of the slice trees of `rows` rows of A, already packed, and one panel of B, whose element i of column j is b(i,
// j). Kept between calls for its memory.
template <class T>
struct panel_product {
  static constexpr std::int64_t steps_at_once = 16;  // packed blocks of B that stay in the first cache

  std::vector<mma_panel_block> block = std::vector<mma_panel_block>(steps_at_once);
  std::vector<float> partial;  // [rows][slices][32]
  std::vector<float> root;     // [rows][32]

  template <class B>
  void compute(const mma_row_block* a, std::int64_t rows, std::int64_t k, int slices, int columns, const B& b) {
    partial.assign(static_cast<std::size_t>(rows * slices * mma_columns), 0.0f);
    root.resize(static_cast<std::size_t>(rows * mma_columns));
    for (int s = 0; s < slices; ++s) {
      const std::int64_t end = contract::slice_end(k, slices, s);
      for (std::int64_t i = contract::slice_begin(k, slices, s); i < end; i += steps_at_once * mma_depth) {
        const std::int64_t depth = std::min(end - i, steps_at_once * mma_depth);
        mma_pack_panel<T>(block.data(), depth, columns, [&](std::int64_t x, int j) { return b(i + x, j); });
        for (std::int64_t r = 0; r < rows; ++r) {
          mma_chain<T>(partial.data() + (r * slices + s) * mma_columns, a + r * mma_steps(k) + i / mma_depth,
                       block.data(), mma_steps(depth));
        }
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      for (int j = 0; j < mma_columns; ++j) {
        float p[contract::max_slices];
        for (int s = 0; s < slices; ++s) {
          p[s] = partial[static_cast<std::size_t>((r * slices + s) * mma_columns + j)];
        }
        root[static_cast<std::size_t>(r * mma_columns + j)] = contract::combine_slices(p, slices);
      }
    }
  }
};

}  // namespace gemm_detail

// The bits of contract::gemm_v1<T>{resolved_slices(limits)}.
template <class T, class Epilogue, class Out>
status gemm(const gemm_limits& limits, const gemm_args<T, Epilogue, Out>& args, int threads = 0) {
  if (const status st = check(limits, args); !st) return st;
  if (args.m == 0 || limits.n == 0 || args.batch == 0) return {};
  constexpr std::int64_t rows_at_once = 64;
  const std::int64_t m = args.m, n = limits.n, k = limits.k, steps = mma_steps(k);
  const int slices = resolved_slices(limits);
  const bool nk = limits.layout == weight_layout::nk;
  const auto or_else = [](std::int64_t stride, std::int64_t dense) { return stride != 0 ? stride : dense; };
  const std::int64_t lda = or_else(args.lda, k), ldb = or_else(args.ldb, nk ? k : n), ldr = or_else(args.ldr, n);
  const std::int64_t ldd = or_else(args.ldd, Epilogue::has_gate ? n / 2 : n);
  const std::int64_t a_entry = or_else(args.a_batch_stride, m * lda);
  const std::int64_t b_entry = or_else(args.b_batch_stride, (nk ? n : k) * ldb);
  const std::int64_t r_entry = or_else(args.residual_batch_stride, m * ldr);
  const std::int64_t d_entry = or_else(args.d_batch_stride, m * ldd);
  const std::int64_t row_groups = (m - 1) / rows_at_once + 1, panels = (n - 1) / mma_columns + 1;

  // Panels of one row group follow one another, so a range packs its rows once.
  parallel_for(args.batch * row_groups * panels, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<mma_row_block> rows(static_cast<std::size_t>(std::min(m, rows_at_once) * steps));
    gemm_detail::panel_product<T> product;
    std::int64_t packed = -1;
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t group = item / panels, entry = group / row_groups;
      const std::int64_t first_row = group % row_groups * rows_at_once;
      const std::int64_t row_count = std::min(rows_at_once, m - first_row);
      if (packed != group) {
        packed = group;
        for (std::int64_t r = 0; r < row_count; ++r) {
          const std::int64_t at = entry * a_entry + (first_row + r) * lda;
          mma_pack_row<T>(rows.data() + r * steps, k, [&](std::int64_t i) { return args.a[at + i]; });
        }
      }
      const std::int64_t first = item % panels * mma_columns;
      const int columns = static_cast<int>(std::min<std::int64_t>(mma_columns, n - first));
      const std::int64_t at = entry * b_entry + (nk ? first * ldb : first);
      if (nk) {
        product.compute(rows.data(), row_count, k, slices, columns,
                        [&](std::int64_t i, int j) { return args.b[at + j * ldb + i]; });
      } else {
        product.compute(rows.data(), row_count, k, slices, columns,
                        [&](std::int64_t i, int j) { return args.b[at + i * ldb + j]; });
      }
      for (std::int64_t r = 0; r < row_count; ++r) {
        const std::int64_t row = first_row + r;
        gemm_detail::write_outputs<Epilogue, Out, T>(
            product.root.data() + r * mma_columns, first, columns, args.alpha, args.bias,
            Epilogue::has_residual ? args.residual + entry * r_entry + row * ldr : nullptr,
            args.d + entry * d_entry + row * ldd);
      }
    }
  });
  return {};
}

// The bits of combine_slices over the ranks' roots, then of the epilogue.
template <class T, class Epilogue, class Out>
status gemm_finish(const gemm_finish_args<T, Epilogue, Out>& args, int threads = 0) {
  if (const status st = check(args); !st) return st;
  if (args.n == 0) return {};
  const std::int64_t n = args.n, ldp = args.ldp != 0 ? args.ldp : n, ldr = args.ldr != 0 ? args.ldr : n;
  const std::int64_t ldd = args.ldd != 0 ? args.ldd : Epilogue::has_gate ? n / 2 : n;
  const std::int64_t rank_stride = args.partial_rank_stride != 0 ? args.partial_rank_stride : args.m * ldp;
  parallel_for(args.m, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t first = 0; first < n; first += mma_columns) {
        const int columns = static_cast<int>(std::min<std::int64_t>(mma_columns, n - first));
        float root[mma_columns];
        for (int j = 0; j < columns; ++j) {
          float p[contract::max_slices];
          for (int r = 0; r < args.ranks; ++r) p[r] = args.partial[r * rank_stride + row * ldp + first + j];
          root[j] = contract::combine_slices(p, args.ranks);
        }
        gemm_detail::write_outputs<Epilogue, Out, T>(root, first, columns, args.alpha, args.bias,
                                                     Epilogue::has_residual ? args.residual + row * ldr : nullptr,
                                                     args.d + row * ldd);
      }
    }
  });
  return {};
}

// The bits of contract::gemm_f32_draft.
inline status gemm_f32(const gemm_f32_args& args, int threads = 0) {
  if (const status st = check(args); !st) return st;
  if (args.n == 0) return {};
  const std::int64_t ldd = args.d_row_stride != 0 ? args.d_row_stride : args.n;
  parallel_for(args.m, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t column = 0; column < args.n; ++column) {
        float total = 0.0f;
        for (std::int64_t first = 0; first < args.k; first += contract::gemm_f32_draft::slice) {
          const std::int64_t last = std::min(args.k, first + contract::gemm_f32_draft::slice);
          float chain = 0.0f;
          for (std::int64_t i = first; i < last; ++i) {
            chain = fma_rn(args.a[row * args.a_row_stride + i * args.a_col_stride],
                           args.b[column * args.b_row_stride + i * args.b_col_stride], chain);
          }
          total = first == 0 ? chain : add_rn(total, chain);
        }
        args.d[row * ldd + column] = total;
      }
    }
  });
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
