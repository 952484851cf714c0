// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/bulk.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_share.cuh"
#include "bi/kernel/attention_shared_tables.cuh"

// Folds the partial results of attention_shared.cuh, leaf after leaf, and writes the rows. A thread block has a row, a thread
// a column. The copy engine brings some leaves at a time; each warp makes their factors from a scan of the maxima, which is
// exact, and then only the chain of a column's values is left to walk.

BI_NAMESPACE_BEGIN
namespace kernel {

template <int HeadDim>
struct attention_shared_fold_shape {
  static constexpr int threads = HeadDim, warps = threads / 32;
  static constexpr int chunk = 24, most_stages = HeadDim == 128 ? 8 : 6;  // leaves at a time, chunks on their way
  static constexpr int chunk_values = chunk * HeadDim;
  static constexpr int bytes(int stages) { return stages * chunk_values * 4; }  // dynamic shared memory
};

template <int HeadDim>
struct attention_shared_fold_memory {
  using shape = attention_shared_fold_shape<HeadDim>;
  float4 factors[shape::warps][32];  // a, b and l; a warp's own
  device::mbarrier full[shape::most_stages];
};

template <class Contract, class T, int HeadDim>
class attention_shared_fold {
  using shape = attention_shared_fold_shape<HeadDim>;
  static constexpr int chunk = shape::chunk;

 public:
  BI_D attention_shared_fold(const attention_shared_params<T>& p, attention_shared_fold_memory<HeadDim>& memory,
                             float* ring, int stages)
      : p_(p), memory_(memory), ring_(ring), stages_(stages) {}

  // Packed row `row` of a request and KV head.
  BI_D void run(std::int64_t request, std::int64_t head_kv, int row) {
    const attention_params<T>& a = p_.a;
    const attention_lengths l = attention_read_lengths(a, request);
    const std::int64_t before = device::load_l2(p_.partials.before + request);
    const attention_shared_view v = attention_find_shared_view<Contract>(a, p_.most_leaves, request, l);
    if (row >= v.rows.rows) return;
    const contract::attention_range seen =
        Contract::visible(a.causal, l.len > 0 ? l.len : 0, v.rows.q_len, v.rows.token(row), a.window);
    std::int64_t first = 0, end = 0;
    if (seen.lo < seen.see) {
      first = Contract::first_leaf(seen.lo) - v.item.first_leaf;
      end = Contract::end_leaf(seen.see) - v.item.first_leaf;
    }
    const std::int64_t at =
        (before * a.heads_kv + head_kv * v.leaves) * p_.partials.rows + std::int64_t{row} * v.leaves + first;
    // Lengths beyond the limits may ask for more leaves or results than there are.
    if (end > v.leaves) end = v.leaves;
    if (at + end - first > p_.partials.count) end = first;
    float m = neg_inf_f32(), sum = 0.0f, o = 0.0f;
    if (first < end) fold(static_cast<std::uint32_t>(at), static_cast<int>(end - first), m, sum, o);

    const std::int64_t token = v.rows.first_row + v.rows.token(row), head = head_kv * v.rows.group + v.rows.head(row);
    if (a.lse != nullptr && thread_ == 0) a.lse[token * a.lse_token_stride + head] = Contract::lse(m, sum);
    a.out[token * a.out_token_stride + head * a.out_head_stride + attention_shared_column(thread_)] =
        Contract::template finish<T>(o, sum, Contract::inverse(sum));
  }

 private:
  BI_D void fold(std::uint32_t at, int count, float& m, float& l, float& o) {
    if (thread_ == 0) {
      for (int i = 0; i < stages_ && i * chunk < count; ++i) ask(at, i * chunk, count, at_.after(i, stages_).slot);
    }
    // By factors of 1, folding into -0 leaves a value as it is.
    l = o = -0.0f;
    float2 ml = read(at, 0, count);
#pragma unroll 1
    for (int i = 0; i < count; i += chunk) {
      const float own_l = ml.y;
      float to = ml.x;
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        const float below = __shfl_up_sync(device::full_warp, to, d);
        if (lane_ >= d) to = max_nan(below, to);
      }
      float before = __shfl_up_sync(device::full_warp, to, 1);
      before = lane_ > 0 ? max_nan(m, before) : m;
      const contract::attention_fold f = Contract::fold(before, ml.x);
      const bool takes = i == 0 && lane_ == 0;
      m = max_nan(m, __shfl_sync(device::full_warp, to, 31));
      ml = read(at, i + chunk, count);
      memory_.factors[warp_][lane_] = make_float4(takes ? 1.0f : f.a, takes ? 1.0f : f.b, own_l, 0.0f);
      __syncwarp();
      device::mbarrier_wait(device::shared_address(&memory_.full[at_.slot]), at_.parity);
      walk(count - i < chunk ? count - i : chunk, l, o);
      __syncthreads();  // all are done with the place
      if (thread_ == 0 && i + stages_ * chunk < count) ask(at, i + stages_ * chunk, count, at_.slot);
      at_.next(stages_);
    }
  }
  BI_D void walk(int count, float& l, float& o) const {
    const float* const values = ring_ + at_.slot * shape::chunk_values + thread_;
#pragma unroll 4
    for (int j = 0; j < count; ++j) {
      const float4 x = memory_.factors[warp_][j];
      const contract::attention_fold f = {0.0f, x.x, x.y};
      l = Contract::fold_value(f, l, x.z);
      o = Contract::fold_value(f, o, values[j * HeadDim]);
    }
  }
  // m and l of the lane's leaf.
  BI_D float2 read(std::uint32_t at, int i, int count) const {
    if (lane_ >= chunk || i + lane_ >= count) return make_float2(neg_inf_f32(), 0.0f);
    return device::load_l2(reinterpret_cast<const float2*>(p_.partials.ml) + at + i + lane_);
  }
  BI_D void ask(std::uint32_t at, int i, int count, int slot) const {
    const int bytes = (count - i < chunk ? count - i : chunk) * HeadDim * 4;
    const std::uint32_t full = device::shared_address(&memory_.full[slot]);
    device::mbarrier_arrive_expect(full, bytes);
    device::copy_bulk(device::shared_address(ring_ + slot * shape::chunk_values),
                      p_.partials.o + (std::uint64_t{at} + static_cast<unsigned>(i)) * HeadDim, bytes, full);
  }

  const attention_shared_params<T>& p_;
  attention_shared_fold_memory<HeadDim>& memory_;
  float* const ring_;
  const int stages_;
  const int thread_ = static_cast<int>(threadIdx.x), warp_ = thread_ / 32, lane_ = thread_ % 32;
  device::ring_place at_;
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_shared_fold_shape<HeadDim>::threads, 8) void attention_shared_fold_kernel(
    [[maybe_unused]] const __grid_constant__ attention_shared_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) float folding_ring[];
  __shared__ attention_shared_fold_memory<HeadDim> memory;
  device::launch_dependents();  // the next call's kernel waits for the end of this one
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.fold_stages; ++i) device::mbarrier_init(&memory.full[i], 1);
    device::mbarrier_init_fence();
  }
  __syncthreads();
  device::wait_for_dependencies();
  const std::int64_t rows = p.partials.rows, units = p.a.batch.requests * p.a.heads_kv * rows;
  attention_shared_fold<Contract, T, HeadDim> fold(p, memory, folding_ring, p.fold_stages);
  for (std::int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const std::int64_t item = device::attention_divide(unit, rows),
                       request = device::attention_divide(item, p.a.heads_kv);
    fold.run(request, item - request * p.a.heads_kv, static_cast<int>(unit - item * rows));
  }
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
