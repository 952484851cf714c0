// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "bi/check.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// D = epilogue(A B^T): A is [m, k] row-major, B the weights, D [m, n] row-major. bf16 or fp16 in, fp32 accumulate.
// Contract: contract::gemm_draft<T> (bi/contract/gemm.hpp), whose only parameter is the number of K slices.

enum class weight_layout : std::uint8_t {
  nk,  // [n, k], each output column's weights contiguous (the usual layout of checkpoints)
  kn,  // [k, n]
};

// What follows the accumulation. Each has a fixed order; absent steps are skipped. A fused step gives the bytes of the
// separate call: residual adds to the rounded value, silu_gate takes rounded gate and up values.
namespace epilogue {
struct none {
  static constexpr bool bias = false, residual = false, gate = false;
};
struct bias {
  static constexpr bool bias = true, residual = false, gate = false;
};
struct residual {
  static constexpr bool bias = false, residual = true, gate = false;
};
struct bias_residual {
  static constexpr bool bias = true, residual = true, gate = false;
};
// Column 2j is gate j, column 2j + 1 is up j: D is [m, n / 2], D[r, j] = silu(gate) * up.
struct silu_gate {
  static constexpr bool bias = false, residual = false, gate = true;
};
struct bias_silu_gate {
  static constexpr bool bias = true, residual = false, gate = true;
};
}  // namespace epilogue

// Fixed once for a weight. Everything that can change a bit is here (slices); m is not.
struct gemm_limits {
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t max_m = 0;
  int slices = 0;  // 1, 2, 4 or 8; 0: contract::default_slices(n, k)
  weight_layout layout = weight_layout::nk;
};

template <class T, class Epilogue = epilogue::none, class Out = T>
struct gemm_args {
  const T* a = nullptr;      // [m, k]
  std::int64_t lda = 0;      // elements between rows, 0: k
  const T* b = nullptr;      // [n, k] or [k, n], see gemm_limits::layout
  std::int64_t ldb = 0;      // elements between rows of B as stored, 0: contiguous
  const T* bias = nullptr;   // [n], with an epilogue that has one
  const T* residual = nullptr;  // [m, n], with an epilogue that has one; may be d itself
  std::int64_t ldr = 0;      // 0: n
  float alpha = 1.0f;        // multiplies the accumulator; 1 is no operation
  Out* d = nullptr;          // [m, n], or [m, n / 2] with a gate
  std::int64_t ldd = 0;      // 0: contiguous
  std::int64_t m = 0;
  bool b_is_constant = false;  // B and bias are not written by the kernel just before: they may be prefetched
};

template <class T, class Epilogue, class Out>
status check(const gemm_limits& l, const gemm_args<T, Epilogue, Out>& a) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "gemm takes bf16 or fp16; see gemm_f32 for fp32");
  static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "gemm writes T or fp32");
  checker c("gemm");
  c.at_least("n", l.n, 0).at_least("k", l.k, 0).at_least("max_m", l.max_m, 0).at_least("m", a.m, 0);
  c.at_most("m", a.m, l.max_m, "max_m");
  const int s = l.slices;
  c.supported("slices", s, s == 0 || s == 1 || s == 2 || s == 4 || s == 8, "0 (default), 1, 2, 4, 8");
  if (Epilogue::gate) c.multiple_of("n", l.n, 2);
  const std::int64_t b_rows = l.layout == weight_layout::nk ? l.n : l.k;
  const std::int64_t b_cols = l.layout == weight_layout::nk ? l.k : l.n;
  const std::int64_t d_cols = Epilogue::gate ? l.n / 2 : l.n;
  c.stride("lda", a.lda, l.k, "k", a.m, sizeof(T));
  c.stride("ldb", a.ldb, b_cols, l.layout == weight_layout::nk ? "k" : "n", b_rows, sizeof(T));
  c.stride("ldd", a.ldd, d_cols, Epilogue::gate ? "n / 2" : "n", a.m, sizeof(Out));
  c.real("alpha", a.alpha, is_finite(a.alpha), "finite");
  if (Epilogue::residual) c.stride("ldr", a.ldr, l.n, "n", a.m, sizeof(T));
  if (!c.ok() || a.m == 0 || l.n == 0) return c.result();
  if (l.k > 0) c.pointer("a", a.a).pointer("b", a.b);
  if (Epilogue::bias) c.pointer("bias", a.bias);
  if (Epilogue::residual) c.pointer("residual", a.residual);
  c.pointer("d", a.d);
  const std::int64_t d_bytes = span_bytes(a.m, a.ldd, d_cols, sizeof(Out));
  c.disjoint("d", a.d, d_bytes, "a", a.a, span_bytes(a.m, a.lda, l.k, sizeof(T)));
  c.disjoint("d", a.d, d_bytes, "b", a.b, span_bytes(b_rows, a.ldb, b_cols, sizeof(T)));
  if (Epilogue::bias) c.disjoint("d", a.d, d_bytes, "bias", a.bias, l.n * static_cast<std::int64_t>(sizeof(T)));
  if (Epilogue::residual) {
    const bool same = sizeof(Out) == sizeof(T) && (a.ldd == 0 ? l.n : a.ldd) == (a.ldr == 0 ? l.n : a.ldr);
    c.disjoint("d", a.d, d_bytes, "residual", a.residual, span_bytes(a.m, a.ldr, l.n, sizeof(T)), same);
  }
  return c.result();
}

// fp32 in and out: D[m, n] = A B^T, one fma chain in ascending k per slice of 1024, slices folded left to right.
// Contract: contract::gemm_f32_draft. Correct at any stride; not meant to be fast.
struct gemm_f32_args {
  const float* a = nullptr;      // element (r, i) at a[r * a_row_stride + i * a_col_stride]
  std::int64_t a_row_stride = 0;
  std::int64_t a_col_stride = 1;
  const float* b = nullptr;      // element (c, i) at b[c * b_row_stride + i * b_col_stride]
  std::int64_t b_row_stride = 0;
  std::int64_t b_col_stride = 1;
  std::int64_t m = 0, n = 0, k = 0;
  float* d = nullptr;            // element (r, c) at d[r * d_row_stride + c]
  std::int64_t d_row_stride = 0;
};

BI_NAMESPACE_END
