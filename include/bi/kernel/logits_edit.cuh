// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/logits_edit.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/logits_edit_write.cuh"

// A logit's result depends on itself, its token's counts and bits and its row's parameters. Few logits of a row
// change, so the sets of tokens, a bit each, are read first: they say which logits a thread block has to look at, and
// in place nothing else is touched. Its threads share these evenly, however they lie.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int edit_threads = 256;

// Tokens of a row that a thread block takes: `Words` words of each set to a thread, word k * edit_threads + thread.
template <int Words>
inline constexpr int edit_span = 32 * Words* edit_threads;

template <class T, class Out, class Row>
struct logits_edit_kernel_params {
  const T* logits;
  Out* out;
  std::int64_t logits_stride, out_stride;
  std::int64_t vocab;
  const Row* rows;
  const std::int32_t* count;
  const std::uint32_t* output;
  const std::uint32_t* prompt;  // may be null
  std::int64_t count_stride, bits_stride;
  const std::int32_t* draft;
  const std::int32_t* bias_id;
  const float* bias;
  const std::uint32_t* mask;
  std::int64_t mask_stride;
  contract::logits_edit_limits limits;
  device::flat_items spans;  // rows, spans of each
  bool aligned;              // every row of logits and of out starts at a multiple of 16 bytes
};

// Entries of a list of token ids.
struct edit_range {
  std::uint32_t begin, end;
};

template <int Words>
struct edit_memory {
  // Sets of the span's tokens; `edits` are those that a step may change.
  std::uint32_t prompt[Words][edit_threads], output[Words][edit_threads];
  std::uint32_t draft[Words][edit_threads], bias[Words][edit_threads], edits[Words][edit_threads];
  std::uint32_t before[Words * edit_threads];  // how many edits lie in words before: thread after thread
  std::uint32_t warp_total[edit_threads / 32];
  edit_range drafts, biases;
};

// Fills `set` with the tokens of the span that the entries of `range` name, and cuts entries off the range, at both
// ends, that are of other spans. Returns whether the entries ascend. `shared` is scratch.
template <int Words>
BI_D bool mark_ids(const std::int32_t* ids, edit_range& range, std::uint32_t first, std::uint32_t length,
                   std::uint32_t (&set)[Words][edit_threads], edit_range& shared) {
#pragma unroll
  for (int k = 0; k < Words; ++k) set[k][threadIdx.x] = 0;
  if (threadIdx.x == 0) shared = {~0u, 0};
  __syncthreads();
  bool ascend = true;
  for (std::uint32_t i = range.begin + threadIdx.x; i < range.end; i += edit_threads) {
    const std::int32_t id = ids[i];
    ascend = ascend && (i + 1 == range.end || id <= ids[i + 1]);
    const std::uint32_t token = static_cast<std::uint32_t>(id) - first;
    if (token >= length) continue;                          // negative ids too
    atomicOr(&set[0][0] + token / 32, 1u << (token % 32));  // integer atomic
    atomicMin(&shared.begin, i);                            // integer atomic
    atomicMax(&shared.end, i + 1);                          // integer atomic
  }
  ascend = __syncthreads_and(ascend) != 0;
  range = shared;
  return ascend;
}

// The biases of token `id`, in order.
template <class Contract>
BI_D void add_biases(contract::edited_logit& l, const std::int32_t* ids, const float* biases, const edit_range& range,
                     bool ascend, std::int32_t id) {
  std::uint32_t i = range.begin;
  for (std::uint32_t n = ascend ? range.end - i : 0; n > 0;) {
    const bool before = ids[i + n / 2] < id;
    i += before ? n / 2 + 1 : 0;
    n = before ? n - n / 2 - 1 : n / 2;
  }
  for (; i < range.end; ++i) {
    const std::int32_t other = ids[i];
    if (other == id) Contract::add_bias(l, biases[i]);
    if (ascend && other > id) break;
  }
}

// Before this thread's among the block's threads, and of all: sums of `mine`.
struct edit_sums {
  std::uint32_t before, all;
};
BI_D inline edit_sums sum_before(std::uint32_t mine, std::uint32_t (&warp_total)[edit_threads / 32]) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  std::uint32_t after = mine;
#pragma unroll
  for (unsigned d = 1; d < 32; d *= 2) {
    const std::uint32_t other = __shfl_up_sync(device::full_warp, after, d);
    if (lane >= d) after += other;
  }
  if (lane == 31) warp_total[warp] = after;
  __syncthreads();
  edit_sums s = {after - mine, 0};
#pragma unroll
  for (unsigned w = 0; w < edit_threads / 32; ++w) {
    const std::uint32_t total = warp_total[w];
    s.before += w < warp ? total : 0;
    s.all += total;
  }
  return s;
}

// The n-th bit that is set, n from 0.
BI_D inline unsigned nth_bit(std::uint32_t word, unsigned n) {
  unsigned at = 0;
#pragma unroll
  for (unsigned width = 16; width > 0; width /= 2) {
    const auto below = static_cast<unsigned>(__popc(word >> at & ((1u << width) - 1)));
    if (n >= below) {
      n -= below;
      at += width;
    }
  }
  return at;
}

// Whether a set of the span's tokens has the one at this place.
template <int Words>
BI_D bool in_set(const std::uint32_t (&set)[Words][edit_threads], std::uint32_t place) {
  return ((&set[0][0])[place / 32] >> (place % 32) & 1) != 0;
}

// The place in the span of edit `number`.
template <int Words>
BI_D std::uint32_t find_edit(const edit_memory<Words>& memory, std::uint32_t number) {
  std::uint32_t at = 0;  // the last with before[at] <= number
#pragma unroll
  for (std::uint32_t half = Words * edit_threads / 2; half > 0; half /= 2) {
    if (memory.before[at + half] <= number) at += half;
  }
  const std::uint32_t k = at % Words, thread = at / Words;
  return 32 * (k * edit_threads + thread) + nth_bit(memory.edits[k][thread], number - memory.before[at]);
}

// Takes the steps but the mask for all edits of a span.
template <class Contract, int Words, class T, class Out, class Row>
BI_D void take_steps(const logits_edit_kernel_params<T, Out, Row>& p, const Row& row, const edit_memory<Words>& memory,
                     std::uint32_t edits, const T* x, Out* out, std::int64_t first, const edit_range& drafts,
                     const edit_range& biases, bool ascend) {
  constexpr int at_once = 4;
  const std::int32_t* const count = p.count + (row.slot < 0 ? 0 : row.slot * p.count_stride + first);
  const bool drafted = drafts.begin < drafts.end, biased = biases.begin < biases.end;
#pragma unroll 1
  for (std::uint32_t begin = threadIdx.x; begin < edits; begin += at_once * edit_threads) {
    std::uint32_t place[at_once];
    std::int32_t counted[at_once];
    contract::edited_logit l[at_once];
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      const std::uint32_t number = begin + static_cast<std::uint32_t>(u * edit_threads);
      l[u].x = 0.0f;
      counted[u] = 0;
      if (number >= edits) break;
      place[u] = find_edit(memory, number);
      l[u].x = to_f32(x[place[u]]);
      if (in_set<Words>(memory.output, place[u])) counted[u] = count[place[u]];
    }
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      if (begin + static_cast<std::uint32_t>(u * edit_threads) >= edits) break;
      const auto id = static_cast<std::int32_t>(static_cast<std::uint32_t>(first) + place[u]);
      std::uint32_t times = 0;
      if (drafted && in_set<Words>(memory.draft, place[u])) {
        for (std::uint32_t d = drafts.begin; d < drafts.end; ++d) times += p.draft[d] == id ? 1 : 0;
      }
      if (row.slot >= 0) {
        Contract::penalise(l[u], row, in_set<Words>(memory.prompt, place[u]),
                           Contract::times_put_out(in_set<Words>(memory.output, place[u]), counted[u], times));
      }
      if (biased && in_set<Words>(memory.bias, place[u])) {
        add_biases<Contract>(l[u], p.bias_id, p.bias, biases, ascend, id);
      }
      if (l[u].edited) out[place[u]] = cvt_rn<Out>(l[u].x);
    }
  }
}

struct no_copy {
  template <class... Arguments>
  BI_D explicit no_copy(Arguments...) {}
};

template <class Contract, bool InPlace, int Words, class T, class Out, class Row>
BI_D void edit_span_of_row(const logits_edit_kernel_params<T, Out, Row>& p, std::int64_t r, std::int64_t first,
                           edit_memory<Words>& memory) {
  const T* const x = p.logits + r * p.logits_stride + first;
  Out* const out = p.out + r * p.out_stride + first;
  const int length = static_cast<int>(p.vocab - first < edit_span<Words> ? p.vocab - first : edit_span<Words>);
  const unsigned thread = threadIdx.x;
  const int tile = static_cast<int>(thread / 32) * edit_tile,
            in_tile = length - tile < edit_tile ? length - tile : edit_tile;
  std::conditional_t<InPlace, no_copy, tile_copy<Contract, T, Out>> copy(x + tile, out + tile, in_tile, p.aligned);
  const Row row = p.rows[r];
  const bool valid = Contract::valid(row, p.limits), repeats = valid && Contract::repeats(row);
  const bool counts = repeats || (valid && Contract::subtracts(row));
  edit_range drafts = {0, 0}, biases = {0, 0};
  if (counts) drafts = {static_cast<std::uint32_t>(row.draft_begin), static_cast<std::uint32_t>(row.draft_end)};
  if (valid) biases = {static_cast<std::uint32_t>(row.bias_begin), static_cast<std::uint32_t>(row.bias_end)};
  if (InPlace && valid && !counts && row.mask < 0 && biases.begin == biases.end) return;

  // All is asked for before the first is looked at, and what is written does not wait for the sets of tokens.
  std::uint32_t gone[Words], prompt[Words], output[Words], edits[Words];
#pragma unroll
  for (int k = 0; k < Words; ++k) {
    const int w = k * edit_threads + static_cast<int>(thread), rest = length - 32 * w;
    const std::int64_t word = first / 32 + w;
    edits[k] = rest >= 32 ? ~0u : rest > 0 ? (1u << rest) - 1 : 0u;
    gone[k] = valid ? 0 : ~0u;
    prompt[k] = output[k] = 0;
    if (!valid || rest <= 0) continue;
    if (row.mask >= 0) gone[k] = ~p.mask[row.mask * p.mask_stride + word];
    if (counts) output[k] = p.output[row.slot * p.bits_stride + word];
    if (repeats && p.prompt != nullptr) prompt[k] = p.prompt[row.slot * p.bits_stride + word];
  }
  const Out fill = valid ? Contract::template masked<Out>() : Contract::template invalid<Out>();
#pragma unroll
  for (int k = 0; k < Words; ++k) {
    gone[k] &= edits[k];
    edits[k] &= ~gone[k];
    if constexpr (InPlace) {
      fill_tile(out + tile + k * (32 * edit_threads), gone[k], fill, p.aligned);
    } else {
      copy.write(gone[k], fill);
    }
  }

  const auto token = static_cast<std::uint32_t>(first), tokens = static_cast<std::uint32_t>(length);
  bool ascend = true;
  if (drafts.begin < drafts.end) mark_ids<Words>(p.draft, drafts, token, tokens, memory.draft, memory.drafts);
  if (biases.begin < biases.end) ascend = mark_ids<Words>(p.bias_id, biases, token, tokens, memory.bias, memory.biases);
  std::uint32_t mine = 0;
#pragma unroll
  for (int k = 0; k < Words; ++k) {
    std::uint32_t any = prompt[k] | output[k];
    if (drafts.begin < drafts.end) any |= memory.draft[k][thread];
    if (biases.begin < biases.end) any |= memory.bias[k][thread];
    edits[k] &= any;
    memory.prompt[k][thread] = prompt[k];
    memory.output[k][thread] = output[k];
    memory.edits[k][thread] = edits[k];
    mine += static_cast<std::uint32_t>(__popc(edits[k]));
  }
  edit_sums sums = sum_before(mine, memory.warp_total);
  if (sums.all == 0) return;
#pragma unroll
  for (int k = 0; k < Words; ++k) {
    memory.before[Words * thread + static_cast<unsigned>(k)] = sums.before;
    sums.before += static_cast<std::uint32_t>(__popc(edits[k]));
  }
  __syncthreads();  // and what the writers wrote comes before what is written now
  take_steps<Contract, Words>(p, row, memory, sums.all, x, out, first, drafts, biases, ascend);
}

template <class Contract, bool InPlace, int Words, class T, class Out, class Row>
BI_KERNEL __launch_bounds__(edit_threads, 4) void logits_edit_kernel(const logits_edit_kernel_params<T, Out, Row> p) {
  static_assert(!InPlace || std::is_same_v<T, Out>, "a result in place has the logits' type");
  static_assert(InPlace || Words == 1, "more would take too many registers beside the logits");
  __shared__ edit_memory<Words> memory;
  for (std::int64_t i = blockIdx.x; i < p.spans.count(); i += gridDim.x) {
    const device::flat_item item = device::split(p.spans, i);
    edit_span_of_row<Contract, InPlace, Words>(p, item.row, item.index * edit_span<Words>, memory);
    __syncthreads();  // the next span has sets of its own
  }
}

}  // namespace kernel
BI_NAMESPACE_END
