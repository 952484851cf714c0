// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/weight_sum.cuh"
#include "bi/kernel/sample_draw.cuh"
#include "bi/kernel/sample_logprob.cuh"
#include "bi/kernel/sample_row.cuh"

// Passes of a thread block over its part of a row.

BI_NAMESPACE_BEGIN
namespace kernel {

// Calls fn(view, first) for the pieces of the part. A first pass keeps the last ones in the ring if `keep`; it folds the
// blocks of the row tree into `sums`, unless that is null. All threads of the block; fn is called for those warps that
// have something, and for all at first.
template <class T, class Fn>
BI_D void for_pieces(const device::row_part<T>& part, device::row_ring<T>& ring, bool keep, bool second,
                     sample_memory& m, float2* sums, Fn fn) {
  constexpr int slot_elements = device::row_ring<T>::slot_elements;
  const int pieces = ring.pieces(), kept = ring.kept(), copied = ring.copies() ? ring.copied() : 0;
  const int warp_first = static_cast<int>(threadIdx.x / 32) * 32 * slot_view<T>::width;
  int piece = second ? pieces - kept : 0;
  slot_view<T> v;
  v.part = &part;
  v.copied = copied;
#pragma unroll 1
  for (int step = 0; step < pieces; ++step) {
    if (second && step >= kept) piece = pieces - 1 - step;  // those that are not kept, last first
    v.begin = piece * slot_elements;
    v.slot = nullptr;
    if (ring.copies()) v.slot = ring.wait();
    if (sums != nullptr && piece % block_pieces<T> == 0) {
      piece_copies<T> copies;
#pragma unroll
      for (int i = 0; i < block_pieces<T>; ++i) {
        const bool there = ring.copies() && v.begin + i * slot_elements < part.count;
        copies.slot[i] = there ? ring.wait(i) : v.slot;
      }
      fold_block(part, copies, v.begin, copied, m, sums[v.begin / contract::row_block]);
    }
    if (step == 0 || v.begin + warp_first < part.count) {
      v.load();
      fn(v, step == 0);
    }
    ring.step(keep && step >= pieces - kept);
    ++piece;
  }
}

// ---- the largest logit

struct largest_logit {
  float most = neg_inf_f32();
  std::int32_t at = -1;
};
template <class T>
BI_D void keep_largest(const slot_view<T>& v, largest_logit& r, sample_found& now) {
  float most = v.value(0);
#pragma unroll
  for (int i = 1; i < v.values; ++i) most = max_nan(most, v.value(i));
  if (is_nan(most)) {
    now.nan = 1;
    most = neg_inf_f32();
#pragma unroll
    for (int i = 0; i < v.values; ++i) most = max_num(most, v.value(i));
  }
  if (!greater(most, r.most)) return;  // equal ones come later
  r.most = most;
#pragma unroll
  for (int i = v.values - 1; i >= 0; --i) {  // none is larger, and a NaN is not less than anything
    r.at = less(max_num(v.value(i), neg_inf_f32()), most) ? r.at : v.place(i);
  }
}
// The best rank of a warp's threads, to `now`; `first`: of the part.
BI_D inline void find_largest(const largest_logit& r, int first, sample_found& now) {
  const std::uint32_t key = r.at < 0 ? 0 : contract::ordered_key(r.most);
  const std::uint32_t most = __reduce_max_sync(device::full_warp, key);
  const std::uint32_t others =
      __reduce_max_sync(device::full_warp, key == most ? ~static_cast<std::uint32_t>(r.at) : 0);
  if (threadIdx.x % 32 == 0 && most != 0) {
    // integer atomic
    atomicMax(reinterpret_cast<unsigned long long*>(&now.best),
              static_cast<unsigned long long>(contract::candidate_rank(most, first + static_cast<int>(~others))));
  }
}

// ---- the first pass over a row that is cut

// Whether it is time to look at the counts so far: at the first piece, and once when it is not the first words of the
// vocabulary alone that count. At the last piece some warps may be missing.
template <class T>
BI_D bool is_raised(const slot_view<T>& v, int pieces) {
  const int piece = v.begin / device::row_ring<T>::slot_elements;
  return piece == 0 || (piece == 4 && piece < pieces - 1);
}

// The values of the first bins, of which a thread has some among a piece. Rare, so it is not inlined and reads them again:
// the code of pieces without any stays short.
template <class T>
BI_D __noinline__ void list_outliers(const device::row_part<T>& part, const T* slot, int begin, int copied,
                                     float inverse, sample_memory& m) {
  slot_view<T> v;
  v.part = &part, v.slot = slot, v.begin = begin, v.copied = copied;
  v.load();
  unsigned which = 0;
#pragma unroll
  for (int i = 0; i < v.values; ++i) which |= greater(mul_rn(v.value(i), inverse), m.cut.outlier) ? 1u << i : 0u;
#pragma unroll 1
  for (; which != 0; which &= which - 1) {
    const float x = mul_rn(v.logit(v.place(__ffs(static_cast<int>(which)) - 1)), inverse);
    if (m.cut.bins.bin(x) >= m.cut.first_bins * sample_fine) continue;
    const std::uint32_t place = atomicAdd(&m.cut.outliers, 1u);  // integer atomic: the list's order is free
    if (place < sample_most_outliers) m.outliers[place] = x;
  }
}

// Counts values in bins; for top-p, lists those of the first bins, few of which may weigh the most. Logits are scaled
// first only where a bin has to be exactly that of the scaled value.
template <bool Scaled>
struct value_counter {
  float inverse;
  float own_scale, own_offset, own_outlier;  // with `Scaled` they stay in shared memory
  float first;                   // what an integer in the low bits is added to: the address of the first counter
  std::uint32_t block, other;    // the part of addresses that is the thread block's; of what is no candidate's counter
  float most = neg_inf_f32();    // value; NaN if there is one
  float recent = neg_inf_f32();  // of the last piece

  BI_D value_counter(const sample_plan& plan, sample_memory& m) : inverse(plan.inverse) {
    if constexpr (!Scaled) {
      own_scale = mul_rn(m.cut.scale, inverse), own_offset = m.cut.offset, own_outlier = m.cut.outlier;
    }
    const std::uint32_t address = device::shared_address(m.counts);
    first = float_of(bits_of(0x1p23f) + (address & 0x3fffffu));
    // Equal in a warp: kept in a register of its own, and not computed anew.
    block = __reduce_max_sync(device::full_warp, address & ~0x3fffffu);
    other = __reduce_max_sync(device::full_warp, device::shared_address(&m.not_counted));
  }

  // Calls between(q) after each quad: counters in shared memory keep nobody waiting while there is something to compute.
  template <class T, class Fn>
  BI_D void take(const slot_view<T>& v, sample_memory& m, Fn between) {
    float scale = m.cut.scale, offset = m.cut.offset, outlier = m.cut.outlier;
    if constexpr (!Scaled) scale = own_scale, offset = own_offset, outlier = own_outlier;
    const auto value = [&](int i) { return Scaled ? mul_rn(v.value(i), inverse) : v.value(i); };
#pragma unroll
    for (int q = 0; q < v.quads; ++q) {
      float quad = value(4 * q);
#pragma unroll
      for (int e = 1; e < 4; ++e) quad = max_nan(quad, value(4 * q + e));  // as slot_draw does
      recent = q == 0 ? quad : max_nan(recent, quad);
#pragma unroll
      for (int i = 4 * q; i < 4 * q + 4; ++i) {
        // As value_bins::bin(). What is no candidate is not counted.
        const float part = device::fma_saturated(value(i), scale, offset);
        const std::uint32_t place =
            (bits_of(fma_rn(part, 4.0f * (device::value_bin_count - 1), first)) & 0x3ffffcu) | block;
        device::count_shared(greater(value(i), neg_inf_f32()) ? place : other);
      }
      between(q);
    }
    most = max_nan(most, recent);
    if (greater(Scaled ? recent : mul_rn(recent, inverse), outlier)) {
      list_outliers(*v.part, v.slot, v.begin, v.copied, inverse, m);
    }
  }
  // The largest scaled value; NaN if there is one.
  BI_D float largest() const { return Scaled ? most : mul_rn(most, inverse); }
};

// ---- the second pass

enum second_work : unsigned {
  list_border = 1,  // tokens from `low` to `high`
  add_weights = 2,  // of all tokens, and of those above `high`
  count_sure = 4,   // tokens above `high`
  draw_tokens = 8,  // of those that m.cut.cuts keep
  list_every = 16,  // the list has all tokens that count
};
struct second_result {
  std::uint64_t total = 0, above = 0;
  std::uint32_t sure = 0;
};

template <class T>
BI_D void weigh(const slot_view<T>& v, float inverse, float max, float high, second_result& r) {
  device::weight_sum all, above;
#pragma unroll
  for (int i = 0; i < v.values; ++i) {
    const float x = mul_rn(v.value(i), inverse);
    const auto w = device::weight_sum::split(device::whole_weight(x, max));
    all.add(w);
    above.add(greater(x, high) ? w : device::weight_sum::nothing());
  }
  r.total += all.sum();
  r.above += above.sum();
}

template <class T>
BI_D void list_tokens(const slot_view<T>& v, float inverse, float low, float high, sample_memory& m) {
  unsigned which = 0;
#pragma unroll
  for (int i = 0; i < v.values; ++i) {
    const float x = mul_rn(v.value(i), inverse);
    which |= less(x, low) || greater(x, high) ? 0u : 1u << i;
  }
  // Few, so they are read again.
#pragma unroll 1
  for (; which != 0; which &= which - 1) {
    const int i = __ffs(static_cast<int>(which)) - 1;
    const int at = v.place(i);
    const std::uint32_t place = atomicAdd(&m.cut.listed, 1u);  // integer atomic: the list's order is free
    if (place >= sample_most_listed || at >= v.part->count) continue;
    listed_ranks(m)[place] = short_rank(mul_rn(v.logit(at), inverse), v.part->first + at);
  }
}

}  // namespace kernel
BI_NAMESPACE_END
