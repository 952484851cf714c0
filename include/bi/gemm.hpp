// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "bi/check.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/contract/gemm_f32.hpp"
#include "bi/dtype.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

namespace schedule {
struct gemm_schedule;  // bi/schedule/gemm.hpp
}

// D = epilogue(A B^T): A is [m, k] row-major, B the weights, D [m, n] row-major. bf16 or fp16 in, fp32 accumulate, T or
// fp32 out. Contract: contract::gemm_v1<T> (bi/contract/gemm.hpp), whose only parameter is the number of K slices.

enum class weight_layout : std::uint8_t {
  nk,  // [n, k], each output column's weights contiguous (the usual layout of checkpoints)
  kn,  // [k, n]
};

// What follows the accumulation. Each has a fixed order; absent steps are skipped. A fused step gives the bytes of the
// separate call: residual adds to the rounded value, silu_gate takes rounded gate and up values.
namespace epilogue {
struct BI_TYPE none {
  static constexpr bool has_bias = false, has_residual = false, has_gate = false, is_partial = false;
};
struct BI_TYPE bias {
  static constexpr bool has_bias = true, has_residual = false, has_gate = false, is_partial = false;
};
struct BI_TYPE residual {
  static constexpr bool has_bias = false, has_residual = true, has_gate = false, is_partial = false;
};
struct BI_TYPE bias_residual {
  static constexpr bool has_bias = true, has_residual = true, has_gate = false, is_partial = false;
};
// Column 2j is gate j, column 2j + 1 is up j: D is [m, n / 2], D[r, j] = silu(gate) * up.
struct BI_TYPE silu_gate {
  static constexpr bool has_bias = false, has_residual = false, has_gate = true, is_partial = false;
};
struct BI_TYPE bias_silu_gate {
  static constexpr bool has_bias = true, has_residual = false, has_gate = true, is_partial = false;
};
// Tensor parallelism along k: D gets the fp32 root of this rank's slices, and gemm_finish does the rest. The limits' k
// is that of the shard, their slices are the rank's (contract::rank_slices), never the default.
struct BI_TYPE partial {
  static constexpr bool has_bias = false, has_residual = false, has_gate = false, is_partial = true;
};
}  // namespace epilogue

// Fixed once for a weight. Everything that can change a bit is here (slices); m is not.
struct BI_TYPE gemm_limits {
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t max_m = 0;
  int slices = 0;  // 1, 2, 4 or 8; 0: contract::default_slices(n, k)
  weight_layout layout = weight_layout::nk;
};

inline int resolved_slices(const gemm_limits& l) {
  return l.slices != 0 ? l.slices : contract::default_slices(l.n, l.k);
}

// `batch` products of one shape: entry i uses a + i * a_batch_stride, and so on. They are not reduced over.
//
// No alignment beyond that of the elements is required; A and B whose rows start at multiples of 16 bytes take the fast
// kernels. Alias: d may be residual itself, with the same strides; apart from this d overlaps none of the inputs. Rows of
// D are not to overlap, entries of a batch neither. Nothing is written when the returned status is not ok.
template <class T, class Epilogue = epilogue::none, class Out = T>
struct BI_TYPE gemm_args {
  const T* a = nullptr;         // [m, k]
  std::int64_t lda = 0;         // elements between rows, 0: k
  const T* b = nullptr;         // [n, k] or [k, n], see gemm_limits::layout
  std::int64_t ldb = 0;         // elements between rows of B as stored, 0: contiguous
  const T* bias = nullptr;      // [n], with an epilogue that has one; the same for the whole batch
  const T* residual = nullptr;  // [m, n], with an epilogue that has one; may be d itself
  std::int64_t ldr = 0;         // 0: n
  float alpha = 1.0f;           // multiplies the accumulator; 1 is no operation
  Out* d = nullptr;             // [m, n], or [m, n / 2] with a gate
  std::int64_t ldd = 0;         // 0: contiguous
  std::int64_t m = 0;
  std::int64_t batch = 1;
  std::int64_t a_batch_stride = 0;  // elements; 0: the entries follow one another
  std::int64_t b_batch_stride = 0;
  std::int64_t residual_batch_stride = 0;
  std::int64_t d_batch_stride = 0;
  bool b_is_constant = false;  // B and bias are not written by the kernel just before: they may be prefetched
};

// From the roots of `ranks` neighbouring subtrees to D: their tree, then the epilogue, which runs once. With the roots
// of gemm<T, epilogue::partial, float> in rank order, D equals that of one gemm over the whole k with all the slices.
template <class T, class Epilogue = epilogue::none, class Out = T>
struct BI_TYPE gemm_finish_args {
  const float* partial = nullptr;        // [ranks, m, n]
  std::int64_t partial_rank_stride = 0;  // elements; 0: contiguous
  std::int64_t ldp = 0;                  // elements between rows, 0: n
  int ranks = 1;                         // 1, 2, 4 or 8
  const T* bias = nullptr;               // the rest as in gemm_args
  const T* residual = nullptr;
  std::int64_t ldr = 0;
  float alpha = 1.0f;
  Out* d = nullptr;
  std::int64_t ldd = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
};

namespace gemm_detail {

template <class T, class Epilogue, class Out>
constexpr void require_types() {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "gemm takes bf16 or fp16; see gemm_f32 for fp32");
  static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>, "gemm writes T or fp32");
  static_assert(!Epilogue::is_partial || std::is_same_v<Out, float>, "partial results are fp32");
}

// A stack of matrices in memory: `batch` of them `batch_stride` apart, each `rows` rows of `cols` elements, `ld` apart.
struct BI_TYPE stack {
  std::int64_t rows, cols, ld, batch, batch_stride;

  bool empty() const { return rows <= 0 || cols <= 0 || batch <= 0; }
  std::int64_t row_stride() const { return ld == 0 ? cols : ld; }
  std::int64_t width() const { return rows <= 0 ? 0 : (rows - 1) * row_stride() + cols; }
  std::int64_t dense() const { return rows * row_stride(); }
  std::int64_t stride() const { return batch_stride == 0 ? dense() : batch_stride; }
  template <class Element>
  std::int64_t bytes() const {
    return empty() ? 0 : span_bytes(batch, stride(), width(), static_cast<std::int64_t>(sizeof(Element)));
  }
  bool same_places(const stack& o) const {
    return (rows <= 1 || row_stride() == o.row_stride()) && (batch <= 1 || stride() == o.stride());
  }
  template <class Element>
  void check(checker& c, const char* ld_name, const char* cols_name, const char* batch_name) const {
    constexpr auto element = static_cast<std::int64_t>(sizeof(Element));
    c.stride(ld_name, ld, cols, cols_name, rows, element);
    if (c.ok() && batch > 1) c.stride(batch_name, stride(), width(), "the width of one entry", batch, element);
  }
};

}  // namespace gemm_detail

template <class Epilogue>
status check_limits(const gemm_limits& l) {
  checker c("gemm");
  c.at_least("n", l.n, 0).at_least("k", l.k, 0).at_least("max_m", l.max_m, 0);
  c.supported("slices", l.slices, l.slices == 0 || contract::slices_valid(l.slices), "0 (default), 1, 2, 4, 8");
  c.supported("layout", static_cast<int>(l.layout), l.layout == weight_layout::nk || l.layout == weight_layout::kn,
              "nk, kn");
  if (Epilogue::has_gate) c.multiple_of("n", l.n, 2);
  if (Epilogue::is_partial) {
    c.supported("slices", l.slices, l.slices != 0, "1, 2, 4, 8 (a shard has no default)");
    c.multiple_of("k", l.k, contract::slice_unit * l.slices, "64 * slices");
  }
  return c.result();
}

template <class T, class Epilogue, class Out>
status check(const gemm_limits& l, const gemm_args<T, Epilogue, Out>& a) {
  gemm_detail::require_types<T, Epilogue, Out>();
  if (const status st = check_limits<Epilogue>(l); !st) return st;
  checker c("gemm");
  c.at_least("m", a.m, 0).at_most("m", a.m, l.max_m, "max_m").at_least("batch", a.batch, 0);
  if (!c.ok()) return c.result();
  const bool nk = l.layout == weight_layout::nk;
  const gemm_detail::stack sa{a.m, l.k, a.lda, a.batch, a.a_batch_stride};
  const gemm_detail::stack sb{nk ? l.n : l.k, nk ? l.k : l.n, a.ldb, a.batch, a.b_batch_stride};
  const gemm_detail::stack sr{a.m, l.n, a.ldr, a.batch, a.residual_batch_stride};
  const gemm_detail::stack sd{a.m, Epilogue::has_gate ? l.n / 2 : l.n, a.ldd, a.batch, a.d_batch_stride};
  sa.template check<T>(c, "lda", "k", "a_batch_stride");
  sb.template check<T>(c, "ldb", nk ? "k" : "n", "b_batch_stride");
  sd.template check<Out>(c, "ldd", Epilogue::has_gate ? "n / 2" : "n", "d_batch_stride");
  if (Epilogue::has_residual) sr.template check<T>(c, "ldr", "n", "residual_batch_stride");
  c.real("alpha", a.alpha, is_finite(a.alpha), "finite");
  if (Epilogue::is_partial) c.real("alpha", a.alpha, bits_of(a.alpha) == bits_of(1.0f), "1 for partial results");
  if (!c.ok() || sd.empty()) return c.result();
  if (l.k > 0) c.pointer("a", a.a).pointer("b", a.b);
  if (Epilogue::has_bias) c.pointer("bias", a.bias);
  if (Epilogue::has_residual) c.pointer("residual", a.residual);
  c.pointer("d", a.d);
  if (!c.ok()) return c.result();
  const std::int64_t d_bytes = sd.template bytes<Out>();
  c.disjoint("d", a.d, d_bytes, "a", a.a, sa.template bytes<T>());
  c.disjoint("d", a.d, d_bytes, "b", a.b, sb.template bytes<T>());
  if (Epilogue::has_bias) c.disjoint("d", a.d, d_bytes, "bias", a.bias, l.n * static_cast<std::int64_t>(sizeof(T)));
  if (Epilogue::has_residual) {
    c.disjoint("d", a.d, d_bytes, "residual", a.residual, sr.template bytes<T>(),
               sizeof(Out) == sizeof(T) && sd.same_places(sr));
  }
  return c.result();
}

template <class T, class Epilogue, class Out>
status check(const gemm_finish_args<T, Epilogue, Out>& a) {
  gemm_detail::require_types<T, Epilogue, Out>();
  static_assert(!Epilogue::is_partial, "gemm_finish writes results; a sum of fewer ranks is not a result");
  checker c("gemm_finish");
  c.at_least("m", a.m, 0).at_least("n", a.n, 0);
  c.supported("ranks", a.ranks, contract::slices_valid(a.ranks), "1, 2, 4, 8");
  if (Epilogue::has_gate) c.multiple_of("n", a.n, 2);
  if (!c.ok()) return c.result();
  const gemm_detail::stack sp{a.m, a.n, a.ldp, a.ranks, a.partial_rank_stride};
  const gemm_detail::stack sr{a.m, a.n, a.ldr, 1, 0};
  const gemm_detail::stack sd{a.m, Epilogue::has_gate ? a.n / 2 : a.n, a.ldd, 1, 0};
  sp.template check<float>(c, "ldp", "n", "partial_rank_stride");
  sd.template check<Out>(c, "ldd", Epilogue::has_gate ? "n / 2" : "n", "ldd");
  if (Epilogue::has_residual) sr.template check<T>(c, "ldr", "n", "ldr");
  c.real("alpha", a.alpha, is_finite(a.alpha), "finite");
  if (!c.ok() || sd.empty()) return c.result();
  c.pointer("partial", a.partial);
  if (Epilogue::has_bias) c.pointer("bias", a.bias);
  if (Epilogue::has_residual) c.pointer("residual", a.residual);
  c.pointer("d", a.d);
  if (!c.ok()) return c.result();
  const std::int64_t d_bytes = sd.template bytes<Out>();
  c.disjoint("d", a.d, d_bytes, "partial", a.partial, sp.template bytes<float>());
  if (Epilogue::has_bias) c.disjoint("d", a.d, d_bytes, "bias", a.bias, a.n * static_cast<std::int64_t>(sizeof(T)));
  if (Epilogue::has_residual) {
    c.disjoint("d", a.d, d_bytes, "residual", a.residual, sr.template bytes<T>(),
               sizeof(Out) == sizeof(T) && sd.same_places(sr));
  }
  return c.result();
}

// The launcher, one type for each combination that a program uses. A plan is host data, made once for a weight, and
// copied freely.
template <class T, class Epilogue = epilogue::none, class Out = T>
class BI_TYPE gemm {
 public:
  using args = gemm_args<T, Epilogue, Out>;

  static gemm prepare(const gemm_limits& limits) { return gemm(limits); }

  // Enough for every m up to max_m.
  static std::size_t workspace_bytes(const gemm_limits& limits);  // bi/gemm.cuh

  // What prepare() found wrong with the limits; each launch returns it again.
  status prepared() const { return status_; }
  const gemm_limits& limits() const { return limits_; }  // slices resolved
  contract::gemm_v1<T> numerics() const { return {limits_.slices}; }

  status operator()(const args& a, workspace ws, cuda_stream stream) const;  // bi/gemm.cuh

  // What the call above will run on the current device, for these arguments, to be printed with schedule::to_string; and
  // a call with a schedule of one's own, for tests and measurements: no schedule changes a bit. It is an error if the
  // problem or the device does not allow it. Defined in bi/gemm.cuh.
  status pick(const args& a, schedule::gemm_schedule& s) const;
  status launch_with(const schedule::gemm_schedule& s, const args& a, workspace ws, cuda_stream stream) const;

 private:
  explicit gemm(const gemm_limits& limits) : limits_(limits), status_(check_limits<Epilogue>(limits)) {
    limits_.slices = resolved_slices(limits);
  }

  gemm_limits limits_;
  status status_;
};

// Enqueued on `stream`; no workspace. Defined in bi/gemm.cuh.
template <class T, class Epilogue, class Out>
status gemm_finish(const gemm_finish_args<T, Epilogue, Out>& args, cuda_stream stream);

// fp32 in and out: D[m, n] = A B^T, one fma chain in ascending k per slice of 1024, slices folded left to right.
// Contract: contract::gemm_f32_draft. Correct at any stride, negative and zero ones of A and B included; not meant to
// be fast. D may not overlap A or B.
struct BI_TYPE gemm_f32_args {
  const float* a = nullptr;  // element (r, i) at a[r * a_row_stride + i * a_col_stride]
  std::int64_t a_row_stride = 0;
  std::int64_t a_col_stride = 1;
  const float* b = nullptr;  // element (c, i) at b[c * b_row_stride + i * b_col_stride]
  std::int64_t b_row_stride = 0;
  std::int64_t b_col_stride = 1;
  std::int64_t m = 0, n = 0, k = 0;
  float* d = nullptr;             // element (r, c) at d[r * d_row_stride + c]
  std::int64_t d_row_stride = 0;  // 0: n
};

namespace gemm_detail {

// The bytes that a matrix with any strides touches.
struct BI_TYPE byte_range {
  const void* begin = nullptr;
  std::int64_t bytes = 0;
};
inline byte_range reach(checker& c, const float* p, std::int64_t rows, const char* row_name, std::int64_t row_stride,
                        std::int64_t cols, const char* col_name, std::int64_t col_stride) {
  constexpr std::int64_t limit = std::int64_t{1} << 60, element = sizeof(float);
  std::int64_t low = 0, high = 0;  // offsets of elements
  const auto add = [&](const char* name, std::int64_t count, std::int64_t stride) {
    std::int64_t offset = 0;
    const bool fits = !__builtin_mul_overflow(count - 1, stride, &offset) && offset <= limit && offset >= -limit;
    if (!fits) c.fail(error::overflow, name, stride);
    if (fits) (offset < 0 ? low : high) += offset;
  };
  add(row_name, rows, row_stride);
  add(col_name, cols, col_stride);
  // As a number: an address below the array is none to compute with.
  const auto begin = reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(low * element);
  return {reinterpret_cast<const void*>(begin), (high - low + 1) * element};
}

}  // namespace gemm_detail

inline status check(const gemm_f32_args& a) {
  checker c("gemm_f32");
  c.at_least("m", a.m, 0).at_least("n", a.n, 0).at_least("k", a.k, 0);
  c.stride("d_row_stride", a.d_row_stride, a.n, "n", a.m, sizeof(float));
  if (!c.ok() || a.m == 0 || a.n == 0) return c.result();
  c.pointer("d", a.d);
  if (a.k == 0) return c.result();
  c.pointer("a", a.a).pointer("b", a.b);
  if (!c.ok()) return c.result();
  using gemm_detail::reach;
  const auto ra = reach(c, a.a, a.m, "a_row_stride", a.a_row_stride, a.k, "a_col_stride", a.a_col_stride);
  const auto rb = reach(c, a.b, a.n, "b_row_stride", a.b_row_stride, a.k, "b_col_stride", a.b_col_stride);
  if (!c.ok()) return c.result();
  const std::int64_t d_bytes = span_bytes(a.m, a.d_row_stride, a.n, sizeof(float));
  c.disjoint("d", a.d, d_bytes, "a", ra.begin, ra.bytes);
  c.disjoint("d", a.d, d_bytes, "b", rb.begin, rb.bytes);
  return c.result();
}

// Enqueued on `stream`; no workspace. Defined in bi/gemm.cuh.
template <class Contract = contract::gemm_f32_draft>
status gemm_f32(const gemm_f32_args& args, cuda_stream stream);

BI_NAMESPACE_END
