// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"
#include "bi/dtype.hpp"

// The order of the arithmetic of D = epilogue(A B^T).
//
// k is cut into S slices of whole 64s. Within a slice, k16 steps of the tensor core (bi/reference/mma_step.hpp has
// their exact model) run in ascending order in one fp32 accumulator that starts at +0; k is padded with zeros to a
// multiple of 16, which changes no bit. The S accumulators are added as a balanced binary tree. The root goes through
// the epilogue. Nothing here looks at m. (A gate, which follows: bi/contract/gemm_gate.hpp.)

BI_NAMESPACE_BEGIN
namespace contract {

template <class T>
struct gemm_name;
template <>
struct gemm_name<bf16> {
  static constexpr const char* value = "gemm_bf16_v1";
};
template <>
struct gemm_name<fp16> {
  static constexpr const char* value = "gemm_fp16_v1";
};

template <class T>
struct BI_TYPE gemm_v1 {
  int slices = 1;  // 1, 2, 4 or 8

  static constexpr const char* name = gemm_name<T>::value;
  static constexpr mma_family family = mma_family::hopper;
  BI_HD constexpr std::uint64_t id() const { return contract_id(name, family, slices); }
};

// ---- slices

inline constexpr int max_slices = 8;
inline constexpr std::int64_t slice_unit = 64;          // slices are whole multiples of this, but for the last one
inline constexpr std::int64_t min_sliced_depth = 4096;  // default_slices leaves a shorter k whole

BI_HD constexpr bool slices_valid(int slices) { return slices == 1 || slices == 2 || slices == 4 || slices == 8; }

// Narrow outputs of a long k get more slices, so that a GPU finds work in k when m is small. n and k are those of the
// whole weight.
BI_HD constexpr int default_slices(std::int64_t n, std::int64_t k) {
  if (k < min_sliced_depth) return 1;
  return n >= 2048 ? 1 : n >= 768 ? 2 : 4;
}

BI_HD constexpr std::int64_t slice_length(std::int64_t k, int slices) {
  if (k <= 0) return 0;
  const std::int64_t units = (k - 1) / slice_unit + 1;
  return ((units - 1) / slices + 1) * slice_unit;
}

// Slice s is [slice_begin, slice_end). The last ones may be short or empty; an empty one is +0 and stays in the tree.
BI_HD constexpr std::int64_t slice_begin(std::int64_t k, int slices, int s) {
  const std::int64_t length = slice_length(k, slices);
  return length == 0 || s > k / length ? k : s * length;
}
BI_HD constexpr std::int64_t slice_end(std::int64_t k, int slices, int s) { return slice_begin(k, slices, s + 1); }

// The root of a balanced binary tree over the results of S neighbouring slices: of all of them, or of the subtree that
// one CTA or one rank holds.
template <int S>
BI_HD float combine_slices(const float* partial) {
  static_assert(slices_valid(S), "1, 2, 4 or 8");
  if constexpr (S == 1) {
    return partial[0];
  } else {
    return add_rn(combine_slices<S / 2>(partial), combine_slices<S / 2>(partial + S / 2));
  }
}
template <int S>
BI_HD float combine_slices(const float (&partial)[S]) {
  return combine_slices<S>(static_cast<const float*>(partial));
}
BI_HD inline float combine_slices(const float* partial, int slices) {
  switch (slices) {
    case 1:
      return combine_slices<1>(partial);
    case 2:
      return combine_slices<2>(partial);
    case 4:
      return combine_slices<4>(partial);
    default:
      return combine_slices<8>(partial);
  }
}

// ---- tensor parallelism

// Weights are cut over `ranks` = 1, 2, 4 or 8 GPUs, at most max_ranks, and all these degrees give equal bits.
// Layers cut along n: each rank computes whole outputs, with the slices of the narrowest cut.
BI_HD constexpr int column_parallel_slices(std::int64_t n, std::int64_t k, int max_ranks) {
  return default_slices(n / max_ranks, k);
}

// Layers cut along k: each rank holds rank_slices() of the slices, sends the fp32 root of their subtree, and the
// epilogue runs once after the tree over the ranks (combine_slices again). 0: k can't be cut this way, k % (64 S) must
// be 0.
BI_HD constexpr int row_parallel_slices(std::int64_t n, std::int64_t k, int max_ranks) {
  if (!slices_valid(max_ranks)) return 0;
  int s = max_ranks * default_slices(n, k / max_ranks);
  if (s > max_slices) s = max_slices;
  return k > 0 && k % (slice_unit * s) == 0 ? s : 0;
}

struct BI_TYPE slice_range {
  int first = 0;
  int count = 0;
};
// The slices of one rank, which are a subtree; ranks <= slices, both powers of two.
BI_HD constexpr slice_range rank_slices(int slices, int ranks, int rank) {
  return {slices / ranks * rank, slices / ranks};
}

// ---- epilogue

// acc is the root. Absent steps are skipped, since x + 0 and x * 1 are not the identity of every x (-0, NaN payloads).
template <class Out>
BI_HD Out gemm_output(float acc, float alpha) {
  return cvt_rn<Out>(bits_of(alpha) == bits_of(1.0f) ? acc : mul_rn(acc, alpha));
}
template <class Out, class T>
BI_HD Out gemm_output(float acc, float alpha, T bias) {
  return cvt_rn<Out>(add_rn(gemm_output<float>(acc, alpha), to_f32(bias)));
}

// A residual is added to the rounded output, so that a fused sum has the bytes of a separate one.
template <class Out, class T>
BI_HD Out gemm_add_residual(Out value, T residual) {
  return cvt_rn<Out>(add_rn(to_f32(value), to_f32(residual)));
}

// The epilogue up to the gate. `bias` points to this column's, `residual` to this element's value; null: there is none.
template <class Out, class T>
BI_HD Out gemm_epilogue(float acc, float alpha, const T* bias, const T* residual) {
  Out value = bias != nullptr ? gemm_output<Out>(acc, alpha, *bias) : gemm_output<Out>(acc, alpha);
  if (residual != nullptr) value = gemm_add_residual(value, *residual);
  return value;
}

}  // namespace contract
BI_NAMESPACE_END
