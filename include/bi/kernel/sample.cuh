// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/kernel/sample_cut.cuh"
#include "bi/kernel/sample_draw.cuh"
#include "bi/kernel/sample_logprob.cuh"
#include "bi/kernel/sample_row.cuh"

// A row's token depends on its own logits and parameters. The thread blocks of a cluster have whole blocks of 8192
// logits each. Temperature 0, and a temperature alone, take one pass over global memory; top-k, top-p and min-p first
// copy the row to shared memory, if it fits, for the passes that follow. What the blocks find are maxima, counts and
// sums of integers. The log-probability is the row tree of bi/contract/softmax.hpp.

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
  int part;     // logits of each, whole blocks of the row tree
  bool holds;   // shared memory has room for a part, after sample_memory
  const Settings* settings;
  std::int32_t* token;
  float* logprob;                                   // null: not wanted
  std::uint32_t* flags;                             // null: not wanted
  std::uint32_t saw_nan, no_candidate, bad_params;  // the bits of bi::sample_flag
  bool aligned;                                     // every row starts at a multiple of 16 bytes
};

template <class T>
BI_HD constexpr std::int64_t sample_shared_bytes(std::int64_t held_logits) {
  return static_cast<std::int64_t>((sizeof(sample_memory) + 15) / 16 * 16) +
         held_logits * static_cast<std::int64_t>(sizeof(T));
}

// What top-k, top-p and min-p leave: m.cuts, after the next barrier. `room`, unless null, gets a copy of the part and
// becomes it. False if there is no candidate.
template <class Contract, class T>
BI_D bool find_cuts(T* room, sample_memory& m, device::cluster_exchange& exchange) {
  const float inverse = m.plan.inverse;
  part_extent extent = hold_part<Contract>(planned_part<T>(m), inverse, room, m);
  // Least and largest of the row: a cluster's maximum of both, the least one's key turned around.
  std::uint64_t most = contract::ordered_key(extent.most);
  std::uint64_t least = ~contract::ordered_key(extent.least);
  most = device::block_reduce(most, m.reduce, device::integer_max{});
  least = device::block_reduce(least, m.reduce, device::integer_max{});
  if (room != nullptr && threadIdx.x == 0) m.plan.x = room, m.plan.aligned = true;
  const device::message* all = exchange.tell(most, least);
#pragma unroll 1
  for (int b = 0; b < exchange.blocks(); ++b) {
    most = all[b].a > most ? all[b].a : most;
    least = all[b].b > least ? all[b].b : least;
  }
  if (most == contract::lowest_key) return false;
  extent.most = float_of_key(static_cast<std::uint32_t>(most));
  extent.least = float_of_key(~static_cast<std::uint32_t>(least));

  if (threadIdx.x == 0) m.cut.bound = no_cuts().bound;
    // Top-k, then top-p: the same code.
#pragma unroll 1
  for (int which = 0; which < 2; ++which) {
    const bool top_k = which == 0;
    if (top_k ? m.plan.top_k == 0 : !less(m.plan.top_p, 1.0f)) continue;
    if (threadIdx.x == 0) {
      m.cut.rule = {static_cast<std::uint64_t>(top_k ? m.plan.top_k : 0), m.plan.top_p, extent.most};
      // Weights further below the largest value than 31 are 0.
      m.cut.digits = linear_digits::make(extent.most, extent.least, top_k ? float_of(0x7f7fffffu) : 31.0f);
      m.cut.target = 0;
    }
    __syncthreads();
    cut<Contract>(planned_part<T>(m), inverse, m, exchange);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    sample_cuts cuts = {m.cut.bound, m.cut.bound.value, extent.most, m.plan.min_p};
    if (greater(cuts.min_p, 0.0f)) {
      cuts.floor = max_num(cuts.floor, device::min_p_floor(cuts.max, cuts.min_p, [](float x) { return bi::log(x); }));
    }
    m.cuts = cuts;
  }
  return true;
}

template <class Contract, class T, class Settings>
BI_D void sample_row(const sample_kernel_params<T, Settings>& p, std::int64_t r, sample_memory& m, T* room,
                     device::cluster_exchange& exchange) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    sample_plan plan = make_sample_plan<Contract>(p.settings[r], p.vocab);
    plan.row = r;
    plan.first = exchange.rank() * p.part;
    plan.x = p.logits + r * p.logits_stride + plan.first;
    plan.aligned = p.aligned;
    const int rest = p.vocab - plan.first;
    plan.count = rest < 0 ? 0 : rest < p.part ? rest : p.part;
    m.plan = plan;
    m.cuts = no_cuts();
    m.nan = 0;
  }
  __syncthreads();

  std::uint64_t best = 0;
  const sample_kind kind = m.plan.kind;
  if (kind == sample_kind::invalid || kind == sample_kind::greedy) {
    best = greedy_part(planned_part<T>(m), m);
  } else {
    if (kind == sample_kind::plain || find_cuts<Contract>(p.holds ? room : nullptr, m, exchange)) {
      best = draw_part<Contract>(planned_part<T>(m), m);
    }
  }
  best = device::block_reduce(best, m.reduce, device::integer_max{});

  // The rest is the first block's.
  const int blocks = static_cast<int>(contract::row_blocks(p.vocab));
  if (exchange.rank() == 0 && thread == 0) {
    exchange.expect_collected((exchange.blocks() + (p.logprob != nullptr ? blocks : 0)) *
                              static_cast<int>(sizeof(device::message)));
  }
  if (thread == 0) exchange.collect(&m.found[exchange.rank()], best, m.nan);
  if (p.logprob != nullptr) collect_block_sums(planned_part<T>(m), m, exchange);
  if (exchange.rank() != 0) return;
  exchange.wait_collected();
  if (thread >= 32) return;
  std::uint64_t winner = 0;
  std::uint32_t flags = 0;
#pragma unroll 1
  for (int b = 0; b < exchange.blocks(); ++b) {
    const device::message found_there = m.found[b];
    winner = found_there.a > winner ? found_there.a : winner;
    if (found_there.b != 0) flags |= p.saw_nan;
  }
  const bool valid = m.plan.kind != sample_kind::invalid;
  if (!valid) flags |= p.bad_params;
  if (valid && winner == 0) flags |= p.no_candidate;
  const std::int32_t token = valid && winner != 0 ? contract::rank_id(winner) : -1;
  float logprob = nan_f32();
  if (p.logprob != nullptr && token >= 0)
    logprob = collected_logprob(m, blocks, to_f32(p.logits[m.plan.row * p.logits_stride + token]));
  if (thread == 0) {
    p.token[m.plan.row] = token;
    if (p.logprob != nullptr) p.logprob[m.plan.row] = logprob;
    if (p.flags != nullptr) p.flags[m.plan.row] = flags;
  }
}

template <class Contract, class T, class Settings>
BI_KERNEL __launch_bounds__(sample_threads, 2) void sample_kernel(const sample_kernel_params<T, Settings> p) {
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<sample_memory*>(shared);
  T* const room = reinterpret_cast<T*>(shared + sample_shared_bytes<T>(0));
  device::cluster_exchange exchange(memory.exchange, p.cluster);
  exchange.ready();
  // By 32 bits: a grid has less than 2^31 thread blocks.
  std::int64_t row = blockIdx.x / static_cast<unsigned>(p.cluster);
  while (row < p.rows) {
    sample_row<Contract>(p, row, memory, room, exchange);
    row = memory.plan.row + p.clusters;
    if (row < p.rows) exchange.sync();  // messages of the next row take the places of this one's
  }
}

}  // namespace kernel
BI_NAMESPACE_END
