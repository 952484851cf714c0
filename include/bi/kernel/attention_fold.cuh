// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Folds what attention_leaves.cuh or attention_split.cuh left in the workspace, for the items that were cut: the first part,
// which is folded already, then leaf after leaf. A thread block has a row, a thread a column. It takes 64 partial results at
// a time: 64 threads have the factors of one each, from a scan of the maxima, which is exact; the chain of each column then
// runs over values that the copy engine brought meanwhile.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct attention_fold_params {
  attention_params<T> a;
  attention_partials partials;
  std::int32_t blocks;  // of the kernel before
};

inline constexpr int attention_fold_chunk = 64;  // partial results at a time
template <int HeadDim>
inline constexpr int attention_fold_threads = HeadDim;

template <int HeadDim>
struct attention_fold_memory {
  float o[2][attention_fold_chunk][HeadDim];  // of a chunk and the next one
  float4 factors[2][attention_fold_chunk];    // a, b and l
  float tops[2];                              // of a warp's half of the chunk
  device::mbarrier full[2];
};

// The partial results of one row of a cut item, chunk after chunk.
template <class Contract, int HeadDim>
class attention_fold_row {
  using memory_type = attention_fold_memory<HeadDim>;
  static constexpr int chunk = attention_fold_chunk;

 public:
  // Of [first, end): the numbers of the row's partial results.
  BI_D attention_fold_row(memory_type& memory, const attention_partials& partials, std::int64_t blocks,
                          std::int64_t block, int row, int& parity)
      : memory_(memory),
        partials_(partials),
        cut_(partials.cuts[block]),
        shares_(cut_.total, blocks),
        block_(block),
        row_(row),
        parity_(parity) {}

  // m, l and the thread's column of o.
  BI_D void fold(std::int64_t first, std::int64_t end, float& m, float& l, float& o) {
    m = neg_inf_f32();
    // By factors of 1, folding into -0 leaves a value as it is, and so does folding -0 into it.
    l = o = -0.0f;
    float2 ml = fetch(0, first, end);
    for (std::int64_t from = first; from < end; from += chunk) {
      const int place = static_cast<int>((from - first) / chunk % 2), count = size(from, end);
      const float2 now = ml;
      if (from + chunk < end) ml = fetch(place ^ 1, from + chunk, end);
      make_factors(place, now, count, from == first, m);
      device::mbarrier_wait(device::shared_address(&memory_.full[place]), parity_ >> place & 1);
      parity_ ^= 1 << place;
      constexpr int group = 8;  // what is read before the first of it is used
#pragma unroll 1
      for (int i = 0; i < count; i += group) {
        float4 step[group];
        float value[group];
#pragma unroll
        for (int j = 0; j < group; ++j) {
          step[j] = memory_.factors[place][i + j];
          value[j] = i + j < count ? memory_.o[place][i + j][threadIdx.x] : -0.0f;
        }
#pragma unroll
        for (int j = 0; j < group; ++j) {
          const contract::attention_fold f = {0.0f, step[j].x, step[j].y};
          l = Contract::fold_value(f, l, step[j].z);
          o = Contract::fold_value(f, o, value[j]);
        }
      }
      __syncthreads();  // what comes next may have the place
    }
  }

 private:
  BI_D static int size(std::int64_t from, std::int64_t end) {
    return end - from < chunk ? static_cast<int>(end - from) : chunk;
  }

  // Starts the copies of a chunk's o, and reads the m and l of number `thread`.
  BI_D float2 fetch(int place, std::int64_t from, std::int64_t end) {
    const int thread = static_cast<int>(threadIdx.x), count = size(from, end);
    constexpr int bytes = HeadDim * static_cast<int>(sizeof(float));
    const std::uint32_t barrier = device::shared_address(&memory_.full[place]);
    if (thread == 0) device::mbarrier_arrive_expect(barrier, count * bytes);
    if (thread >= count) return make_float2(neg_inf_f32(), 0.0f);
    const std::int64_t i = from + thread;
    std::int64_t at = partials_.places.folded(block_);
    if (i > 0) {
      const std::int64_t leaf = cut_.first + i - 1, owner = shares_.block_of(leaf);
      at = partials_.places.leaf(owner, leaf - shares_.begin(owner));
    }
    at = at * partials_.rows + row_;
    device::bulk_copy(memory_.o[place][thread], partials_.o + at * HeadDim, bytes, barrier);
    return *reinterpret_cast<const float2*>(partials_.ml + 2 * at);
  }

  // ml: of number `thread`. m: the largest so far.
  BI_D void make_factors(int place, const float2& ml, int count, bool fresh, float& m) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    float to = ml.x;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const float below = __shfl_up_sync(device::full_warp, to, d);
      if (lane >= d) to = max_nan(below, to);
    }
    if (lane == 31 && warp < 2) memory_.tops[warp] = to;
    __syncthreads();
    float before = warp == 1 ? max_nan(m, memory_.tops[0]) : m;
    const float below = __shfl_up_sync(device::full_warp, to, 1);
    if (lane > 0) before = max_nan(before, below);
    if (thread < chunk) {
      const contract::attention_fold f = Contract::fold(before, ml.x);
      const bool none = thread >= count, takes = none || (fresh && thread == 0);
      memory_.factors[place][thread] = make_float4(takes ? 1.0f : f.a, takes ? 1.0f : f.b, none ? -0.0f : ml.y, 0.0f);
    }
    m = max_nan(m, max_nan(memory_.tops[0], memory_.tops[1]));
    __syncthreads();
  }

  memory_type& memory_;
  const attention_partials& partials_;
  const device::attention_cut cut_;
  const device::attention_shares shares_;
  const std::int64_t block_;
  const int row_;
  int& parity_;  // of the phases of memory.full, a bit each
};

// What the fold leaves of row r of the item that was cut in `block`.
template <class Contract, class T, int HeadDim>
BI_D void attention_fold_item(const attention_fold_params<T>& p, attention_fold_memory<HeadDim>& memory,
                              std::int64_t block, int r, int& parity) {
  const attention_params<T>& a = p.a;
  const device::attention_cut cut = p.partials.cuts[block];
  if (cut.request < 0) return;
  const device::attention_row_tile rows = device::attention_request_rows(a.batch, cut.request);
  if (r >= rows.rows) return;
  const device::attention_item item =
      device::make_attention_item<Contract>(rows, a.len[cut.request], a.causal, a.window);
  const contract::attention_range seen = attention_row_range<Contract>(a, rows, r);
  const int thread = static_cast<int>(threadIdx.x);
  float m = neg_inf_f32(), l = 0.0f, o = 0.0f;
  if (seen.lo < seen.see) {
    // Leaves of the item that the row sees, then numbers of partial results: 0 is the folded part, i > 0 leaf i - 1 after it.
    const std::int64_t first = Contract::first_leaf(seen.lo) - item.first_leaf;
    const std::int64_t end = Contract::end_leaf(seen.see) - item.first_leaf;
    attention_fold_row<Contract, HeadDim>(memory, p.partials, p.blocks, block, r, parity)
        .fold(first < cut.count ? 0 : first - cut.count + 1, end <= cut.count ? 1 : end - cut.count + 1, m, l, o);
  }
  const std::int64_t token = rows.first_row + rows.token(r), head = cut.head * rows.group + rows.head(r);
  if (a.lse != nullptr && thread == 0) a.lse[token * a.lse_token_stride + head] = Contract::lse(m, l);
  a.out[token * a.out_token_stride + head * a.out_head_stride + thread] =
      Contract::template finish<T>(o, l, Contract::inverse(l));
}

// Thread blocks are dealt pairs of an item that was cut and a row.
template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_fold_threads<HeadDim>) void attention_fold_kernel(
    [[maybe_unused]] const attention_fold_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900  // no launcher asks others for it
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_fold_memory<HeadDim>*>(shared);
  if (threadIdx.x < 2) device::mbarrier_init(&memory.full[threadIdx.x], 1);
  device::mbarrier_init_fence();
  __syncthreads();
  device::launch_dependents();  // the next call's kernel waits for the end of this one
  device::wait_for_dependencies();
  int parity = 0;
  const std::int64_t units = std::int64_t{p.blocks} * p.partials.rows;
  for (std::int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    attention_fold_item<Contract, T, HeadDim>(p, memory, unit / p.partials.rows,
                                              static_cast<int>(unit % p.partials.rows), parity);
  }
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
