// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/held.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/kernel/sample_cut.cuh"
#include "bi/kernel/sample_logprob.cuh"
#include "bi/kernel/sample_once.cuh"
#include "bi/kernel/sample_pass.cuh"
#include "bi/kernel/sample_row.cuh"
#include "bi/kernel/sample_token.cuh"

// A row's token depends on its own logits and parameters. The thread blocks of a cluster have a part of the row each,
// which the copy engine brings to shared memory piece by piece, the next row's too while the last threads are at this
// one. One pass is enough for temperature 0, for a temperature alone and for nearly every row of top-k, top-p and min-p;
// the others take two, of which the second finds what fits in shared memory still there, or gets it again. What the
// blocks find are maxima, counts and sums of integers. The log-probability is the row tree of bi/contract/softmax.hpp,
// whose blocks are folded in the first pass.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T, class Settings>
struct sample_kernel_params {
  const T* logits;
  std::int64_t logits_stride;
  std::int64_t rows;
  std::int64_t clusters;  // of the grid
  int vocab;
  int cluster;  // thread blocks of a row
  int part;     // logits of each: whole vectors of 8, with a log-probability whole blocks of the row tree
  int slots;    // of shared memory's ring; 0: there is none
  const Settings* settings;
  std::int32_t* token;
  float* logprob;                                   // null: not wanted
  std::uint32_t* flags;                             // null: not wanted
  std::uint32_t saw_nan, no_candidate, bad_params;  // the bits of bi::sample_flag
  bool programmatic;                                // the kernel before it may not be over yet
  bool once;                                        // one pass may be enough for rows that otherwise take two
  bool draws_all;                                   // draw_all() is for the parts, and no log-probability is wanted
  bool aligned;                                     // every row starts at a multiple of 16 bytes
};

inline constexpr int sample_memory_bytes = static_cast<int>((sizeof(sample_memory) + 127) / 128 * 128);
BI_HD constexpr std::int64_t sample_shared_bytes(std::int64_t slots) {
  return sample_memory_bytes + slots * device::ring_slot_bytes;
}

// The end of a row: the best of all blocks, in the last warp of the first one, while the other warps are at the next
// row. `number`: the row's, as the cluster counts.
template <class Contract, class T, class Settings>
BI_D void report_row(const sample_kernel_params<T, Settings>& p, std::int64_t row, int number, sample_memory& m,
                     device::cluster_exchange& exchange) {
  const int lane = static_cast<int>(threadIdx.x % 32), half = number & 1, rank = exchange.rank();
  sample_found& now = m.now[half];
  const bool valid = now.valid != 0;
  const int blocks = static_cast<int>(contract::row_blocks(p.vocab));
  if (number > 0) exchange.wait_allowed((number - 1) & 1);
  if (rank == 0 && lane == 0) exchange.expect_reports(exchange.blocks() + (p.logprob != nullptr ? blocks : 0));
  if (p.logprob != nullptr) {
    const int first = rank * (p.part / contract::row_block);
    for (int b = lane; first + b < blocks && b < p.part / contract::row_block; b += 32) {
      const float2 sum = m.own_sums[half][b];
      exchange.report(&m.sums[first + b], bits_of(sum.x), bits_of(sum.y));
    }
  }
  if (lane == 0) {
    exchange.report(&m.found[rank], now.best, now.nan);
    now.clear_draw();
    now.nan = 0;
  }
  if (rank != 0) return;
  exchange.wait_reports(half);
  std::uint64_t winner = 0;
  std::uint32_t flags = 0;
#pragma unroll 1
  for (int b = 0; b < exchange.blocks(); ++b) {
    const device::message found_there = m.found[b];
    winner = found_there.a > winner ? found_there.a : winner;
    if (found_there.b != 0) flags |= p.saw_nan;
  }
  if (!valid) flags |= p.bad_params;
  if (valid && winner == 0) flags |= p.no_candidate;
  const std::int32_t token = valid && winner != 0 ? contract::rank_id(winner) : -1;
  float logprob = nan_f32();
  if (p.logprob != nullptr && token >= 0) {
    logprob = collected_logprob(m.sums, blocks, to_f32(p.logits[row * p.logits_stride + token]));
  }
  if (lane == 0) {
    p.token[row] = token;
    if (p.logprob != nullptr) p.logprob[row] = logprob;
    if (p.flags != nullptr) p.flags[row] = flags;
  }
  __syncwarp();
  if (row + p.clusters < p.rows) exchange.allow_reports();
}

// The second pass over a row that is cut.
template <class Contract, class T>
BI_D second_result pass_again(const device::row_part<T>& part, device::row_ring<T>& ring, const sample_plan& plan,
                              sample_memory& m, sample_found& now, unsigned work) {
  second_result r;
  const float inverse = plan.inverse, low = m.cut.low, high = m.cut.high, max = m.cut.cuts.max;
  slot_draw<Contract, T> draw(plan, &m.cut.cuts, now, m.once);
  for_pieces(part, ring, false, true, m, nullptr, [&](const slot_view<T>& v, bool first) {
    if ((work & add_weights) != 0) weigh(v, inverse, max, high, r);
    if ((work & count_sure) != 0) {
#pragma unroll
      for (int i = 0; i < v.values; ++i) r.sure += greater(mul_rn(v.value(i), inverse), high) ? 1 : 0;
    }
    if ((work & list_border) != 0) list_tokens(v, inverse, low, high, m);
    if ((work & draw_tokens) != 0) draw.take(v, first);
  });
  return r;
}

// A row that was read is read again, after a barrier since its last step.
template <class T>
BI_D void read_again(const device::row_part<T>& part, device::row_ring<T>& ring) {
  device::prefetch_shared_row(part.x, part.count * static_cast<std::int64_t>(sizeof(T)), static_cast<int>(threadIdx.x),
                              sample_threads);
  if (!ring.is_last()) {
    ring.pause();
  } else if (threadIdx.x == 0) {
    ring.copy_again(part.x);
  }
}

// A row that is cut: true, unless it takes the slow way.
template <class Contract, class T>
BI_D bool sample_cut_row(const device::row_part<T>& part, int vocab, device::row_ring<T>& ring, const sample_plan& plan,
                         sample_memory& m, sample_found& now, float2* sums, device::cluster_exchange& exchange,
                         bool once) {
  const bool border = needs_border(plan);
  float largest;
  if (plan.lists) {
    choose_low<Contract>(part, vocab, plan, m);
    const float inverse = plan.inverse, low = m.cut.low;
    float most = neg_inf_f32();
    for_pieces(part, ring, false, false, m, sums, [&](const slot_view<T>& v, bool) {
      float here = v.value(0);
#pragma unroll
      for (int i = 1; i < v.values; ++i) here = max_nan(here, v.value(i));
      most = max_nan(most, here);
      if (!less(mul_rn(here, inverse), low)) list_tokens(v, inverse, low, inf_f32(), m);
    });
    largest = mul_rn(most, inverse);
  } else if (once) {
    choose_bins<Contract>(part, vocab, plan.inverse, plan.top_k == 0 ? sample_once_bins : 0, m);
    value_counter<true> counter(plan, m);
    slot_draw<Contract, T, true> draw(plan, nullptr, now, m.once);
    counter.inverse = draw.inverse;  // what both compute is computed once
    for_pieces(part, ring, false, false, m, sums, [&](const slot_view<T>& v, bool first) {
      float bounds[slot_view<T>::quads];
      counter.take(v, m, [&](int q) { bounds[q] = draw.bound(v, q); });
      if (is_raised(v, ring.pieces())) raise_hope(m, plan, vocab, counter.most);
      if (first || has_room(m.once)) draw.examine_best(v, first, now.bar_now(), bounds);
    });
    largest = counter.largest();
    once_result r = settle_once<Contract>(plan, vocab, m, now, exchange, largest);
    exchange.go_on_at(r.exchange);
    if (r.next == once_step::one_token) {
      r = settle_tokens<Contract>(part, plan, vocab, m, now, exchange);
      exchange.go_on_at(r.exchange);
    }
    if (r.next == once_step::done) return true;
  } else {
    if (threadIdx.x == 0) ring.read_twice();
    choose_bins<Contract>(part, vocab, plan.inverse, plan.top_k == 0 ? sample_first_bins : 0, m);
    value_counter<false> counter(plan, m);
    for_pieces(part, ring, true, false, m, sums, [&](const slot_view<T>& v, bool) {
      if (border) {
        counter.take(v, m, [](int) {});
        return;
      }
#pragma unroll
      for (int i = 0; i < v.values; ++i) counter.most = max_nan(counter.most, v.value(i));
    });
    largest = counter.largest();
  }
  // Of 16-bit values, few are in a bin: they are not spread over it.
  const float margin = sizeof(T) == 2 ? 1.5f : 0.15f;
  const cut_result planned = plan_second_pass<Contract>(plan, m, now, exchange, largest, margin);
  exchange.go_on_at(planned.exchange);
  const unsigned work = planned.work;
  cut_step next = planned.next;
  second_result r;
  // What the ring has kept is read again, if only to be gone.
  if (!plan.lists && (!once || next == cut_step::second_pass)) {
    if (once) {
      read_again(part, ring);
    } else {
      ring.rewind();
    }
    r = pass_again<Contract>(part, ring, plan, m, now, next == cut_step::second_pass ? work : 0);
  }
  ring.resume();
  if (next == cut_step::second_pass) {
    const cut_result settled = settle_cuts<Contract>(plan, m, now, exchange, r, work);
    exchange.go_on_at(settled.exchange);
    next = settled.next;
  }
  return next == cut_step::done;
}

// One row: passes over it until its best token is in `now`. `sums`: of the blocks of the row tree, or null. Ends without
// a barrier.
template <class Contract, class T>
BI_D void sample_row(const device::row_part<T>& part, int vocab, device::row_ring<T>& ring, const sample_plan& plan,
                     sample_memory& m, sample_found& now, float2* sums, device::cluster_exchange& exchange, bool once) {
  const sample_kind kind = plan.kind;
  if (kind == sample_kind::greedy || kind == sample_kind::invalid) {
    largest_logit r;
    for_pieces(part, ring, false, false, m, sums, [&](const slot_view<T>& v, bool) { keep_largest(v, r, now); });
    find_largest(r, part.first, now);
    return;
  }
  if (kind == sample_kind::plain) {
    slot_draw<Contract, T> draw(plan, nullptr, now, m.once);
    for_pieces(part, ring, false, false, m, sums, [&](const slot_view<T>& v, bool first) { draw.take(v, first); });
    return;
  }
  if (sample_cut_row<Contract>(part, vocab, ring, plan, m, now, sums, exchange, once && may_take_once<T>(plan))) return;
  exchange.go_on_at(cut_slowly<Contract>(part, plan, m, now, exchange));
  ring.pause();
  slot_draw<Contract, T> draw(plan, &m.cut.cuts, now, m.once);
  for_pieces(part, ring, false, false, m, nullptr, [&](const slot_view<T>& v, bool first) { draw.take(v, first); });
  ring.resume();
}

template <class Contract, class T, class Settings>
BI_KERNEL __launch_bounds__(sample_threads, 2) void sample_kernel(const sample_kernel_params<T, Settings> p) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int planner = 4, reporter = sample_warps - 1;  // warps
  auto& m = *reinterpret_cast<sample_memory*>(shared);
  const int thread = static_cast<int>(threadIdx.x);
  device::cluster_exchange exchange(m.exchange, p.cluster);
  const int first = exchange.rank() * p.part, rest = p.vocab - first;
  const int count = rest < 0 ? 0 : rest < p.part ? rest : p.part;
  const auto part_of = [&](std::int64_t row) { return p.logits + row * p.logits_stride + first; };
  const auto part_at = [&](int half) -> device::row_part<T>& {
    static_assert(sizeof(device::row_part<T>) == sizeof m.part[0], "of any type");
    return reinterpret_cast<device::row_part<T>&>(m.part[half]);
  };
  device::row_ring<T> ring(m.ring, shared + sample_memory_bytes, p.slots, count);
  // By 32 bits: a grid has less than 2^31 thread blocks.
  std::int64_t row = blockIdx.x / static_cast<unsigned>(p.cluster);
  if (thread == 0) {
    for (sample_found& now : m.now) {
      now.clear_draw();
      now.nan = 0;
    }
  }
  if (p.programmatic) device::prefetch_shared_row(part_of(row), ring.bytes_at_once(), thread, sample_threads);
  device::begin_dependent();
  if (thread == 0) ring.start(part_of(row), row + p.clusters < p.rows ? part_of(row + p.clusters) : nullptr);
  if (thread == 32 * planner) make_sample_plan<Contract>(p.settings[row], p.vocab, m.plan[0]);
  if (thread == 0) part_at(0) = {part_of(row), first, count, p.aligned};
  exchange.ready();
  __syncthreads();
  for (int number = 0; row < p.rows; ++number) {
    const int half = number & 1;
    const std::int64_t next = row + p.clusters;
    if (number > 0 && thread == 0) ring.next_row(part_of(row), next < p.rows ? part_of(next) : nullptr);
    if (thread == 32 * planner && next < p.rows) device::prefetch_l2(p.settings + next);
    if (thread == 0) m.now[half].valid = m.plan[half].kind != sample_kind::invalid ? 1 : 0;
    if (p.draws_all && m.plan[half].kind == sample_kind::plain) {
      draw_all<Contract>(part_at(half), ring, m, half);
#pragma unroll 1
      for (int piece = ring.pieces(); piece > 0; --piece) ring.step(false);
    } else {
      sample_row<Contract>(part_at(half), p.vocab, ring, m.plan[half], m, m.now[half],
                           p.logprob != nullptr ? m.own_sums[half] : nullptr, exchange, p.once);
    }
    if (thread == 0) {
      const device::row_part<T>& part = part_at(half);
      part_at(half ^ 1) = {part.x + p.clusters * p.logits_stride, part.first, part.count, part.aligned};
    }
    if (thread == 32 * planner && next < p.rows) {
      make_sample_plan<Contract>(p.settings[next], p.vocab, m.plan[half ^ 1]);
    }
    __syncthreads();
    if (thread / 32 == reporter) report_row<Contract>(p, row, number, m, exchange);
    row = next;
  }
}

}  // namespace kernel
BI_NAMESPACE_END
