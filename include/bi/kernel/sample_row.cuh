// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/sample.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/cluster_exchange.cuh"
#include "bi/device/integer.cuh"
#include "bi/device/noise_bound.hpp"
#include "bi/device/row_part.cuh"
#include "bi/device/row_words.hpp"
#include "bi/device/select.cuh"

// What the files kernel/sample*.cuh share: a thread block's memory, and passes over its part of a row.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int sample_threads = 512;
inline constexpr int sample_bins = 1024;
inline constexpr int sample_blocks = static_cast<int>(contract::row_blocks(contract::sample_max_vocab));
inline constexpr int sample_shares = sample_bins + 16;  // bins, cut evenly among up to 8

// A candidate's rank in 52 bits: in the order of contract::candidate_rank, and short enough for a few digits.
inline constexpr int sample_id_bits = 20;
inline constexpr std::uint32_t sample_id_mask = (1u << sample_id_bits) - 1;
static_assert(contract::sample_max_vocab <= std::int64_t{1} << sample_id_bits, "ids fit");
BI_HD inline std::uint64_t short_rank(float x, std::int32_t id) {
  return static_cast<std::uint64_t>(contract::ordered_key(x)) << sample_id_bits |
         (sample_id_mask - static_cast<std::uint32_t>(id));
}
BI_HD inline float float_of_key(std::uint32_t key) { return float_of((key >> 31) != 0 ? key & 0x7fffffffu : ~key); }

// The first candidates of the order: those above a value, and of those that equal it the ids up to `id`.
struct sample_bound {
  float value;
  std::int32_t id;

  BI_D bool keeps(float x, std::int32_t i) const { return greater(x, value) || (equal(x, value) && i <= id); }
};
BI_D inline sample_bound bound_of(std::uint64_t short_rank) {
  return {float_of_key(static_cast<std::uint32_t>(short_rank >> sample_id_bits)),
          static_cast<std::int32_t>(sample_id_mask - (static_cast<std::uint32_t>(short_rank) & sample_id_mask))};
}

// Bins of equal width below the largest value: never smaller for a smaller x, whatever x is.
struct linear_digits {
  float top, range, scale;

  BI_D static linear_digits make(float most, float least, float most_range) {
    linear_digits d;
    d.top = min_nan(most, float_of(0x7f7fffffu));
    d.range = max_nan(min_nan(sub_rn(d.top, least), most_range), 1e-30f);
    d.scale = div_rn(float_from_int(sample_bins - 1), d.range);
    return d;
  }
  BI_D std::uint32_t operator()(float x) const {
    const float below = max_num(min_nan(sub_rn(top, x), range), 0.0f);
    return bits_of(fma_rn(below, scale, 0x1p23f)) & (sample_bins - 1);
  }
};

// What candidates weigh in a cut, and what the weights before one must stay below to keep it.
struct cut_rule {
  std::uint64_t k;  // 0: top-p
  float top_p, max;

  template <class Contract>
  BI_D std::uint64_t target(std::uint64_t total) const {
    return k != 0 ? k : Contract::top_p_target(top_p, total);
  }
};

// A cut as it goes on, in shared memory: equal for all threads, and kept from their registers.
struct cut_state {
  cut_rule rule;
  linear_digits digits;
  sample_bound bound;  // of the cut before
  std::uint32_t bin;   // of the border, by its linear digit
  std::uint64_t target, low, high;
};

// Which tokens may be drawn.
struct sample_cuts {
  sample_bound bound;
  float floor;  // at most the value of any token that may be drawn
  float max;    // of the row
  float min_p;
};
BI_D inline sample_cuts no_cuts() { return {{neg_inf_f32(), -1}, neg_inf_f32(), 0.0f, 0.0f}; }

// What a row asks for, in shared memory and kept from the registers of all threads.
enum class sample_kind : std::int32_t { invalid, greedy, plain, cut };
struct sample_plan {
  std::uint64_t key;
  std::uint32_t ordinal;
  sample_kind kind;
  float inverse;  // of the temperature
  float top_p, min_p;
  std::int32_t top_k;  // 0: off
  std::int64_t row;
  const void* x;  // this block's part of the row, or its copy
  std::int32_t first, count;
  bool aligned;
};
template <class Contract, class Settings>
BI_D sample_plan make_sample_plan(const Settings& s, int vocab) {
  sample_plan plan = {};
  plan.kind = sample_kind::invalid;
  plan.inverse = 1.0f;
  if (!Contract::valid(s.temperature, s.top_p, s.min_p)) return plan;
  plan.kind = sample_kind::greedy;
  if (Contract::greedy(s.temperature)) return plan;
  plan.inverse = Contract::inverse(s.temperature);
  plan.key = contract::sample_key(s.seed, s.sample_index, s.branch);
  plan.ordinal = s.ordinal;
  plan.top_k = s.top_k > 0 && s.top_k < vocab ? s.top_k : 0;
  plan.top_p = s.top_p, plan.min_p = s.min_p;
  const bool cut = plan.top_k != 0 || less(s.top_p, 1.0f) || greater(s.min_p, 0.0f);
  plan.kind = cut ? sample_kind::cut : sample_kind::plain;
  return plan;
}

struct sample_memory {
  device::exchange_memory exchange;
  device::message found[device::most_in_cluster];  // the best rank, and whether there was a NaN, of each block
  union {
    device::weight_bins<sample_bins> bins;
    std::uint64_t list[sample_bins];     // ranks of the border, this block's
    float lane[2][contract::row_lanes];  // of a sum
  };
  union {
    device::message share[sample_shares / 2];     // weights of this block's share of the bins, by sender
    device::message gathered[sample_shares / 2];  // ranks of the border, all blocks'
    device::message sums[sample_blocks];          // largest element and sum of each block of 8192
  };
  device::integer_scratch<sample_threads> reduce;
  device::scan_scratch<sample_threads> scan;
  sample_plan plan;
  sample_cuts cuts;
  cut_state cut;
  std::uint64_t border_above;
  std::uint32_t border_bin, listed, bar, seed;
  std::uint32_t nan;  // 1: a thread saw one
};

template <class T>
BI_D device::row_part<T> planned_part(const sample_memory& m) {
  return {static_cast<const T*>(m.plan.x), m.plan.first, m.plan.count, m.plan.aligned};
}

// As contract's scaled(): a NaN logit has a NaN product, and nothing else has.
template <class Contract>
BI_D float scaled_max(float logit, float inverse) {
  return max_num(mul_rn(logit, inverse), neg_inf_f32());
}

// Stands for logits that a part does not have: no candidate.
template <class T>
BI_D T no_logit() {
  return cvt_rn<T>(neg_inf_f32());
}

// The part's best rank under temperature 0, for the calling thread.
template <class T>
BI_D std::uint64_t greedy_part(const device::row_part<T>& part, sample_memory& m) {
  constexpr int width = device::row_part<T>::width;
  float best = neg_inf_f32();
  std::int32_t at = -1;
  part.template for_words<sample_threads, 4, true>(no_logit<T>(), [&](int i, const device::packed_words& w) {
    float x[width];
#pragma unroll
    for (int e = 0; e < width; ++e) x[e] = part.element(w, e);
    float most = x[0];
#pragma unroll
    for (int e = 1; e < width; ++e) most = max_nan(most, x[e]);
    if (is_nan(most)) {
      m.nan = 1;
      most = neg_inf_f32();
#pragma unroll
      for (int e = 0; e < width; ++e) most = max_num(most, x[e]);
    }
    if (greater(most, best)) {  // equal ones come later
      best = most;
#pragma unroll
      for (int e = width - 1; e >= 0; --e) at = equal(x[e], most) ? i + e : at;
    }
  });
  return at < 0 ? 0 : contract::candidate_rank(contract::ordered_key(best), part.first + at);
}

struct part_extent {
  float most = neg_inf_f32();  // of the scaled values
  float least = inf_f32();     // of those above -Inf
};

// Copies the part to shared memory, unless `copy` is null, and finds its extent.
template <class Contract, class T>
BI_D part_extent hold_part(const device::row_part<T>& part, float inverse, T* copy, sample_memory& m) {
  constexpr int width = device::row_part<T>::width;
  part_extent all;
  float products = neg_inf_f32();  // NaN once one of them is
  part.template for_words<sample_threads, 4, false>(no_logit<T>(), [&](int i, const device::packed_words& w) {
    // The copy's last word may have more elements than the row: its room is whole words.
    if (copy != nullptr && i < part.count) *reinterpret_cast<device::packed_words*>(copy + i) = w;
#pragma unroll
    for (int e = 0; e < width; ++e) {
      const float product = mul_rn(part.element(w, e), inverse);
      products = max_nan(products, product);
      all.most = max_num(all.most, product);
      if (greater(product, neg_inf_f32())) all.least = min_nan(all.least, product);
    }
  });
  if (is_nan(products)) m.nan = 1;
  return all;
}

}  // namespace kernel
BI_NAMESPACE_END
