// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>

#include "bi/config.hpp"
#include "bi/contract/sample.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/cluster_exchange.cuh"
#include "bi/device/integer.cuh"
#include "bi/device/noise_bound.hpp"
#include "bi/device/row_part.cuh"
#include "bi/device/row_ring.cuh"
#include "bi/device/row_words.hpp"
#include "bi/device/select.cuh"
#include "bi/device/value_bins.hpp"

// What the files kernel/sample*.cuh share: what a row asks for, and a thread block's memory.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int sample_threads = 256;
inline constexpr int sample_warps = sample_threads / 32;
inline constexpr int sample_counts = 2048;  // bins of a row's histogram, of device::value_bins: some of each
inline constexpr int sample_fine = device::value_bin_count / sample_counts;
inline constexpr int sample_bins = 512;          // of weights
inline constexpr int sample_most_listed = 4096;  // candidates that are settled one by one
inline constexpr std::uint32_t sample_most_outliers = 2048;
inline constexpr int sample_first_bins = 408;  // above what was seen of the row when the bins were chosen
inline constexpr int sample_blocks = static_cast<int>(contract::row_blocks(contract::sample_max_vocab));
// Messages in which the blocks of a cluster tell each other of their bins: counts in 16 bits, sums in 64.
inline constexpr int sample_bin_messages = sample_counts * 2 / 16;
inline constexpr int sample_outlier_messages = 64;  // the values of the first bins, of all blocks
inline constexpr int sample_inbox = sample_bin_messages + sample_outlier_messages;
static_assert(sample_outlier_messages >= device::most_in_cluster, "shares of bins are rounded up");
static_assert(sample_bin_messages == sample_bins * 8 / 16 && sample_bin_messages == sample_threads, "one a thread");

// A candidate's rank in 52 bits: in the order of contract::candidate_rank. Never 0.
inline constexpr int sample_id_bits = 20;
inline constexpr std::uint32_t sample_id_mask = (1u << sample_id_bits) - 1;
static_assert(contract::sample_max_vocab <= std::int64_t{1} << sample_id_bits, "ids fit");
BI_HD inline std::uint64_t short_rank(float x, std::int32_t id) {
  return static_cast<std::uint64_t>(contract::ordered_key(x)) << sample_id_bits |
         (sample_id_mask - static_cast<std::uint32_t>(id));
}
BI_HD inline float float_of_key(std::uint32_t key) { return float_of((key >> 31) != 0 ? key & 0x7fffffffu : ~key); }
BI_HD inline std::uint32_t rank_value(std::uint64_t short_rank) {  // its key
  return static_cast<std::uint32_t>(short_rank >> sample_id_bits);
}
BI_HD inline std::int32_t short_rank_id(std::uint64_t short_rank) {
  return static_cast<std::int32_t>(sample_id_mask - (static_cast<std::uint32_t>(short_rank) & sample_id_mask));
}

// Which tokens may be drawn: the first of the order, those above a value and of those that equal it the ids up to
// `id`, and of these what min-p keeps.
struct sample_cuts {
  float value;
  std::int32_t id;
  float floor;  // at most the value of any token that may be drawn
  float max;    // of the row
  float min_p;

  BI_D bool in_order(float x, std::int32_t i) const { return greater(x, value) || (equal(x, value) && i <= id); }
  template <class Contract>
  BI_D bool keeps(float x, std::int32_t i) const {
    return in_order(x, i) && (!greater(min_p, 0.0f) || Contract::min_p_keeps(x, max, min_p));
  }
};

// What a row asks for.
enum class sample_kind : std::int32_t { invalid, greedy, plain, cut };
struct sample_plan {
  device::row_words words;
  sample_kind kind;
  float inverse;  // of the temperature
  float top_p, min_p;
  std::int32_t top_k;  // 0: off
  bool lists;          // so few that a list has room for all that may be among them
};
// By what a sample tells (choose_low), the list of so large a top-k has twice as many, and overflows in none of 10,000
// rows; without a small one that holds for vocabularies of up to 2^18.
inline constexpr int sample_most_top_k_list = 1024;
BI_HD constexpr bool lists_top_k(int k, int vocab) {
  return k != 0 && (k <= 128 || (k <= sample_most_top_k_list && vocab <= 1 << 18));
}
template <class Contract, class Settings>
BI_D void make_sample_plan(const Settings& s, int vocab, sample_plan& plan) {
  plan.inverse = 1.0f;
  plan.top_k = s.top_k > 0 && s.top_k < vocab ? s.top_k : 0;
  plan.lists = lists_top_k(plan.top_k, vocab);
  plan.top_p = s.top_p, plan.min_p = s.min_p;
  if (!Contract::valid(s.temperature, s.top_p, s.min_p)) {
    plan.kind = sample_kind::invalid;
  } else if (Contract::greedy(s.temperature)) {
    plan.kind = sample_kind::greedy;
  } else {
    const bool cut = plan.top_k != 0 || less(s.top_p, 1.0f) || greater(s.min_p, 0.0f);
    plan.kind = cut ? sample_kind::cut : sample_kind::plain;
    plan.inverse = Contract::inverse(s.temperature);
    plan.words = device::row_words(contract::sample_key(s.seed, s.sample_index, s.branch), s.ordinal);
  }
}

// Of a draw that has seen nothing. Every score is finite or +Inf, so the bar starts at the least finite value.
struct sample_found {
  std::uint64_t best;       // rank
  std::uint32_t bar, seed;  // keys: of the best score, of the most that a token promised
  std::uint32_t nan;        // 1: a thread saw one
  std::uint32_t valid;      // 1: what the row asks for is

  BI_D float bar_now() const { return float_of_key(*const_cast<const volatile std::uint32_t*>(&bar)); }
  BI_D void clear_draw() {
    best = 0;
    bar = seed = contract::ordered_key(float_of(0xff7fffffu));
  }
};

// The largest value of one of sample_counts bins, about.
BI_D inline float edge_of(const device::value_bins& bins, float bin) {
  return bins.edge(mul_rn(bin, static_cast<float>(sample_fine)));
}

// A row that is cut, as it goes on; equal for all threads.
struct cut_state {
  device::value_bins bins;
  sample_cuts cuts;
  float low, high;               // list what lies between; what is above is drawn at once
  std::uint32_t most, least;     // of a few values of the row: keys, the least's turned round
  std::uint32_t largest;         // key of the part's largest
  std::uint32_t outliers;        // values of the first bins
  int first_bins;                // as many
  float scale, offset, outlier;  // of the bins; what is above is a value of the first ones
  std::uint32_t listed;
  // Of a search for a border.
  std::uint64_t border_above, border_weight, border_count;  // sums before it, in it, and through it
  std::uint32_t border_bin, border_found, few;
  std::uint64_t last;  // rank of the last candidate that is kept
};

// A row that may be done in one pass: tokens that score at least what others did that are probably kept.
inline constexpr int sample_most_hopeful = 512;
inline constexpr int sample_groups = 128;  // of bins, at most
struct once_state {
  std::uint64_t rank[sample_most_hopeful];  // of the score
  float x[sample_most_hopeful];
  float group[sample_groups];  // sums over bins; in messages
  float warp[sample_warps];
  float from;  // values from this on are probably kept
  float before;
  std::uint32_t listed;
  bool settles;  // the list has the row's token, but it is not known yet which
  // Of all blocks: the best rank that is surely kept, and the one token that beats it and may not be.
  std::uint64_t sure, doubtful;
  float doubtful_x, max;    // its value, and the row's largest
  std::uint32_t doubtfuls;  // of this block
  std::uint32_t bar;
  int keep, drop;  // groups, then bins
};

struct sample_memory {
  device::ring_memory ring;
  device::exchange_memory exchange;
  device::message found[device::most_in_cluster];  // the best rank, and whether there was a NaN, of each block
  device::message sums[sample_blocks];             // largest element and sum of each block of 8192
  float2 own_sums[2][sample_blocks];               // this block's
  once_state once;
  // Of bins; then short ranks, in the first block, in the end, those of all.
  alignas(16) std::uint32_t counts[device::value_bin_count];
  float outliers[sample_most_outliers];  // in the first pass for top-p: the values of the first bins
  // Other blocks may be at the next row's when the first one is not.
  device::message inbox[sample_inbox];
  alignas(16) device::weight_bins<sample_bins> bins;
  std::uint32_t not_counted;
  std::uint64_t few[32];  // ranks about a border
  float lane[contract::row_lanes];
  float warp_max[sample_warps];
  device::integer_scratch<sample_threads> reduce;
  device::scan_scratch<sample_threads> scan;
  sample_plan plan[2];
  // device::row_part of a row and of the next one: registers are dearer.
  alignas(8) unsigned char part[2][sizeof(device::row_part<float>)];
  sample_found now[2];
  cut_state cut;
};

BI_D inline std::uint64_t* listed_ranks(sample_memory& m) { return reinterpret_cast<std::uint64_t*>(m.counts); }
BI_D inline device::message* listed_pairs(sample_memory& m) { return reinterpret_cast<device::message*>(m.counts); }
static_assert(sample_most_listed * sizeof(std::uint64_t) <= device::value_bin_count * sizeof(std::uint32_t), "fits");

BI_D inline float least_candidate() { return float_of(0xff7fffffu); }

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

// A piece of a part, and what a thread has of it: every sample_threads-th word.
inline constexpr int slot_words = device::ring_slot_bytes / 16 / sample_threads;
template <class T>
struct slot_view {
  static constexpr int width = device::word_elements<T>, values = slot_words * width, quads = values / 4;

  const device::row_part<T>* part;
  const T* slot;  // a copy of the part's elements from `begin` on, but for those from `copied` on
  int begin, copied;
  device::packed_words word[slot_words];

  // Where value i is in the part.
  BI_D int place(int i) const {
    return begin + (static_cast<int>(threadIdx.x) + i / width * sample_threads) * width + i % width;
  }
  BI_D float value(int i) const { return part->element(word[i / width], i % width); }
  template <int Words = slot_words>
  BI_D void load() {
    const auto* const mine = reinterpret_cast<const device::packed_words*>(slot) + threadIdx.x;
    if (begin + Words * sample_threads * width <= copied) {
#pragma unroll
      for (int w = 0; w < Words; ++w) word[w] = mine[w * sample_threads];
    } else {
#pragma unroll
      for (int w = 0; w < Words; ++w) {
        const int i = place(w * width);
        if (i + width <= copied) {
          word[w] = mine[w * sample_threads];
        } else if (i < part->count) {
          word[w] = load_slowly(*part, i);
        } else {
          word[w] = none();
        }
      }
    }
  }
  // What load_slowly() makes of elements that the part does not have.
  static BI_D device::packed_words none() {
    T one[width];
#pragma unroll
    for (int e = 0; e < width; ++e) one[e] = no_logit<T>();
    device::packed_words w;
    std::memcpy(&w, static_cast<const void*>(one), sizeof w);
    return w;
  }
  // Element i of the part.
  BI_D float logit(int i) const { return to_f32(i < copied ? slot[i - begin] : part->x[i]); }

  static BI_D __noinline__ device::packed_words load_slowly(const device::row_part<T> part, int i) {
    return part.load(i, no_logit<T>());
  }
};

}  // namespace kernel
BI_NAMESPACE_END
