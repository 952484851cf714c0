// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/sample.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/device/integer.cuh"
#include "bi/device/row.cuh"
#include "bi/device/select.cuh"
#include "bi/device/vector.cuh"

// A row's token depends on its own logits and parameters. One thread block does a row in a few passes over it; what
// they find are maxima, counts and sums of integers. The log-probability is the row tree of bi/contract/softmax.hpp.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int sample_threads = 512;
inline constexpr int sample_blocks = static_cast<int>(contract::row_blocks(contract::sample_max_vocab));

template <class T, class Settings>
struct sample_kernel_params {
  const T* logits;
  std::int64_t logits_stride;
  std::int64_t rows;
  int vocab;
  const Settings* settings;
  std::int32_t* token;
  float* logprob;                                   // null: not wanted
  std::uint32_t* flags;                             // null: not wanted
  std::uint32_t saw_nan, no_candidate, bad_params;  // the bits of bi::sample_flag
  bool aligned;                                     // every row starts at a multiple of 16 bytes
};

struct sample_shared {
  device::select_scratch<sample_threads> select;
  device::integer_scratch<sample_threads> reduce;
  float largest[sample_blocks];
  float sum[sample_blocks];
};

// A candidate's rank in 52 bits: in the order of contract::candidate_rank, and short enough for five digits.
inline constexpr int sample_id_bits = 20;
inline constexpr std::uint32_t sample_id_mask = (1u << sample_id_bits) - 1;
static_assert(contract::sample_max_vocab <= std::int64_t{1} << sample_id_bits, "ids fit");
BI_HD constexpr std::uint32_t reversed_id(std::int32_t id) { return sample_id_mask - static_cast<std::uint32_t>(id); }
BI_HD constexpr std::uint64_t short_rank(std::uint32_t key, std::int32_t id) {
  return static_cast<std::uint64_t>(key) << sample_id_bits | reversed_id(id);
}
BI_HD inline float float_of_key(std::uint32_t key) { return float_of((key >> 31) != 0 ? key & 0x7fffffffu : ~key); }

struct unit_weight {
  BI_D std::uint64_t operator()(float) const { return 1; }
};
template <class Contract>
struct top_p_weight {
  float max;
  BI_D std::uint64_t operator()(float x) const { return Contract::top_p_weight(x, max); }
};

// One row as the threads of the block see it.
template <class Contract, class T>
struct sampled_row {
  static constexpr int width = device::vector_size;

  const T* logits;
  int vocab;
  bool aligned;
  float inverse;  // of the temperature
  device::select_scratch<sample_threads>* scratch;

  // fn(i, n, x): scaled logits of ids [i, i + n), i a multiple of 8.
  template <class Fn>
  BI_D void for_vectors(Fn fn) const {
    for (int i = static_cast<int>(threadIdx.x) * width; i < vocab; i += sample_threads * width) {
      const int n = vocab - i < width ? vocab - i : width;
      float x[width];
      device::load_vector_f32(logits + i, n, aligned, x);
#pragma unroll
      for (int e = 0; e < width; ++e) x[e] = Contract::scaled(x[e], inverse);
      fn(i, n, x);
    }
  }

  // The histogram of weight(x) over digit(key, id); those with a digit of Bins or more take no part.
  template <int Bins, class Digit, class Weight>
  BI_D void fill(Digit digit, Weight weight) const {
    device::select_clear<Bins>(*scratch);
    for_vectors([&](int i, int n, const float(&x)[width]) {
#pragma unroll
      for (int e = 0; e < width; ++e) {
        if (e >= n) continue;
        const std::uint32_t d = digit(contract::ordered_key(x[e]), i + e);
        if (d >= Bins) continue;
        const std::uint64_t w = weight(x[e]);
        if (w != 0) device::select_add(*scratch, d, w);
      }
    });
    __syncthreads();
  }
  template <int Bins>
  BI_D device::select_border find(std::uint64_t& target) const {
    device::select_border border;
    const std::uint64_t wanted = target;
    (void)device::select_find<Bins>(
        *scratch, [&](std::uint64_t) { return wanted; }, target, border);
    target -= border.above;
    return border;
  }

  // Of the candidates with rank >= bound, in descending order: keeps those before which the weights add up to less than
  // target_of(sum of all weights). Returns the new bound. The last one that is kept has a weight, and equal values have
  // equal weights: among them it is a count that decides.
  template <class Weight, class TargetOf>
  BI_D std::uint64_t cut(std::uint64_t bound, Weight weight, TargetOf target_of) const {
    constexpr bool counts = std::is_same_v<Weight, unit_weight>;
    constexpr std::uint32_t none = device::select_bins;
    const auto highest = [&](std::uint64_t rank) { return rank < bound ? bound : rank; };
    const auto at = [&](std::uint32_t key, int id) { return short_rank(key, id) >= bound; };

    fill<2048>([&](std::uint32_t key, int id) { return at(key, id) ? key >> 21 : none; }, weight);
    std::uint64_t target = 0;
    device::select_border border;
    if (!device::select_find<2048>(*scratch, target_of, target, border)) return bound;
    target -= border.above;
    std::uint32_t prefix = border.bin;
    // A bin that is kept whole needs no second look.
    if (counts && target == border.sum) return highest(static_cast<std::uint64_t>(prefix) << (21 + sample_id_bits));

    fill<2048>(
        [&](std::uint32_t key, int id) { return key >> 21 == prefix && at(key, id) ? (key >> 10) & 2047u : none; },
        weight);
    border = find<2048>(target);
    prefix = prefix << 11 | border.bin;
    if (counts && target == border.sum) return highest(static_cast<std::uint64_t>(prefix) << (10 + sample_id_bits));

    fill<1024>([&](std::uint32_t key, int id) { return key >> 10 == prefix && at(key, id) ? key & 1023u : none; },
               weight);
    border = find<1024>(target);
    const std::uint32_t value = prefix << 10 | border.bin;
    const std::uint64_t each = weight(float_of_key(value)), equal = border.sum / each;
    target = (target + each - 1) / each;
    if (target == equal) return highest(short_rank(value, sample_id_mask));

    fill<1024>([&](std::uint32_t key, int id) { return key == value && at(key, id) ? reversed_id(id) >> 10 : none; },
               unit_weight{});
    prefix = find<1024>(target).bin;
    fill<1024>(
        [&](std::uint32_t key, int id) {
          const std::uint32_t rest = reversed_id(id);
          return key == value && rest >> 10 == prefix && at(key, id) ? rest & 1023u : none;
        },
        unit_weight{});
    border = find<1024>(target);
    return highest(static_cast<std::uint64_t>(value) << sample_id_bits | prefix << 10 | border.bin);
  }

  // The best x + noise of this thread's tokens with rank >= bound that min_p keeps.
  BI_D std::uint64_t draw(std::uint64_t bound, float max, float min_p, std::uint64_t key, std::uint32_t ordinal) const {
    const bool tests_min_p = greater(min_p, 0.0f);
    std::uint64_t best = 0;
    for_vectors([&](int i, int n, const float(&x)[width]) {
#pragma unroll
      for (int quad = 0; quad < width; quad += 4) {
        bool kept[4], any = false;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float v = x[quad + e];
          const int id = i + quad + e;
          kept[e] = quad + e < n && short_rank(contract::ordered_key(v), id) >= bound &&
                    (!tests_min_p || Contract::min_p_keeps(v, max, min_p));
          any = any || kept[e];
        }
        if (!any) continue;
        const auto words = contract::sample_words(key, ordinal, static_cast<std::uint32_t>(i + quad) / 4);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (!kept[e]) continue;
          const float score = add_rn(x[quad + e], contract::gumbel_noise(words.word[e]));
          const std::uint64_t rank = contract::candidate_rank(contract::ordered_key(score), i + quad + e);
          best = best < rank ? rank : best;
        }
      }
    });
    return best;
  }
};

// log_softmax of the row at `token`, for thread 0: each block of 8192 by a warp, then the tree over them by the first.
template <class T>
BI_D float sampled_logprob(sample_shared& s, const T* logits, int vocab, bool aligned, std::int32_t token) {
  using softmax = contract::softmax_draft;
  using form = softmax::log_softmax_form;
  device::row_group<32> group(static_cast<int>(threadIdx.x % 32), nullptr);
  const int blocks = static_cast<int>(contract::row_blocks(vocab));
  for (int b = static_cast<int>(threadIdx.x / 32); b < blocks; b += sample_threads / 32) {
    const T* block = logits + static_cast<std::int64_t>(b) * contract::row_block;
    const int length = contract::block_length(vocab, b);
    const device::fold_elements<T, contract::max_step> largest = {block, aligned, {}};
    const float m_b = group.fold_block(length, neg_inf_f32(), largest, contract::max_step{});
    float l_b = 0.0f;
    if (!softmax::empty_block(m_b)) {
      const device::fold_elements<T, contract::exp_step> sum = {block, aligned, {m_b}};
      l_b = group.fold_block(length, 0.0f, sum, contract::add_step{});
    }
    if (group.thread() == 0) {
      s.largest[b] = m_b;
      s.sum[b] = l_b;
    }
  }
  __syncthreads();
  float result = 0.0f;
  if (threadIdx.x < 32) {
    float m = neg_inf_f32();
    for (int b = 0; b < blocks; ++b) m = max_nan(m, s.largest[b]);
    const float l = group.fold_results(
        blocks, 0.0f, [&](std::int64_t b) { return softmax::block_term(s.sum[b], s.largest[b], m); },
        contract::add_step{});
    result = form::value(to_f32(logits[token]), m, form::row(l));
  }
  __syncthreads();
  return result;
}

template <class Contract, class T, class Settings>
BI_D void sample_row(const sample_kernel_params<T, Settings>& p, std::int64_t r, sample_shared& shared) {
  const Settings settings = p.settings[r];
  const T* logits = p.logits + r * p.logits_stride;
  sampled_row<Contract, T> row = {logits, p.vocab, p.aligned, 1.0f, &shared.select};

  // The largest logit, the lowest id of several; scaling keeps the order, so it gives the largest scaled value too.
  std::uint64_t best = 0;
  bool nan = false;
  for (int i = static_cast<int>(threadIdx.x) * row.width; i < p.vocab; i += sample_threads * row.width) {
    const int n = p.vocab - i < row.width ? p.vocab - i : row.width;
    float x[device::vector_size];
    device::load_vector_f32(logits + i, n, p.aligned, x);
#pragma unroll
    for (int e = 0; e < device::vector_size; ++e) {
      if (e >= n) continue;
      nan = nan || is_nan(x[e]);
      const std::uint64_t rank = contract::candidate_rank(contract::ordered_key(x[e]), i + e);
      best = best < rank ? rank : best;
    }
  }
  std::uint32_t flags = __syncthreads_or(nan ? 1 : 0) != 0 ? p.saw_nan : 0u;
  best = device::block_reduce(best, shared.reduce, device::integer_max{});

  std::int32_t token = -1;
  if (!Contract::valid(settings.temperature, settings.top_p, settings.min_p)) {
    flags |= p.bad_params;
  } else {
    const bool greedy = Contract::greedy(settings.temperature);
    if (!greedy) row.inverse = Contract::inverse(settings.temperature);
    const float max = Contract::scaled(to_f32(logits[contract::rank_id(best)]), row.inverse);
    if (contract::ordered_key(max) == contract::lowest_key) {
      flags |= p.no_candidate;
    } else if (greedy) {
      token = contract::rank_id(best);
    } else {
      std::uint64_t bound = short_rank(contract::lowest_key + 1, static_cast<std::int32_t>(sample_id_mask));
      if (settings.top_k > 0 && settings.top_k < p.vocab) {
        const auto k = static_cast<std::uint64_t>(settings.top_k);
        bound = row.cut(bound, unit_weight{}, [&](std::uint64_t) { return k; });
      }
      if (less(settings.top_p, 1.0f)) {
        bound = row.cut(bound, top_p_weight<Contract>{max},
                        [&](std::uint64_t total) { return Contract::top_p_target(settings.top_p, total); });
      }
      const std::uint64_t key = contract::sample_key(settings.seed, settings.sample_index, settings.branch);
      best = row.draw(bound, max, settings.min_p, key, settings.ordinal);
      token = contract::rank_id(device::block_reduce(best, shared.reduce, device::integer_max{}));
    }
  }
  float logprob = nan_f32();
  if (p.logprob != nullptr && token >= 0) logprob = sampled_logprob(shared, logits, p.vocab, p.aligned, token);
  if (threadIdx.x == 0) {
    p.token[r] = token;
    if (p.logprob != nullptr) p.logprob[r] = logprob;
    if (p.flags != nullptr) p.flags[r] = flags;
  }
}

template <class Contract, class T, class Settings>
BI_KERNEL __launch_bounds__(sample_threads) void sample_kernel(const sample_kernel_params<T, Settings> p) {
  __shared__ sample_shared shared;
  for (std::int64_t r = blockIdx.x; r < p.rows; r += gridDim.x) sample_row<Contract>(p, r, shared);
}

}  // namespace kernel
BI_NAMESPACE_END
