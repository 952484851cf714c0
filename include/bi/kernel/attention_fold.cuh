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
#include "bi/device/row.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_split_source.cuh"

// Folds what attention_split.cuh left in the workspace, for the items that were cut: the first part, which is folded
// already, then leaf after leaf. A warp has 32 columns of a row. It takes 32 partial results at a time: each lane has the
// factors of one, from a scan of the maxima, which is exact; the chain of each column then runs over values that were
// loaded while the 32 before were folded.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct attention_fold_params {
  attention_params<T> a;
  attention_partials partials;
  std::int32_t blocks;  // of the kernel before, at most attention_fold_max_blocks
};

inline constexpr int attention_fold_max_blocks = 1024, attention_fold_threads = 128;

// 32 partial results of a row: lane i has (m, l) of the i-th, x[i] is the lane's column of it.
struct attention_fold_batch {
  float m, l;
  float x[32];
};

// The partial results of one row of a cut item. Number 0 is the folded part, number i > 0 leaf i - 1 after it.
struct attention_fold_row {
  device::attention_cut cut;
  std::int64_t block;
  std::int64_t row;
  std::int64_t first, end;  // numbers of those that the row has

  BI_D std::int64_t place(const device::attention_places& places, std::int64_t blocks, std::int64_t i) const {
    if (i == 0) return places.folded(block);
    const device::attention_shares shares = {cut.total, blocks};
    const std::int64_t leaf = cut.first + i - 1, owner = shares.block_of(leaf);
    return places.leaf(owner, leaf - shares.begin(owner));
  }
};

template <int HeadDim>
BI_D void attention_fold_load(attention_fold_batch& batch, const attention_partials& partials, std::int64_t blocks,
                              const attention_fold_row& row, std::int64_t from, int column, int lane) {
  const int count = row.end - from < 32 ? static_cast<int>(row.end - from) : 32;
  std::int64_t at = 0;
  batch.m = neg_inf_f32();
  batch.l = 0.0f;
  if (lane < count) {
    at = row.place(partials.places, blocks, from + lane) * partials.rows + row.row;
    const float2 ml = *reinterpret_cast<const float2*>(partials.ml + 2 * at);
    batch.m = ml.x;
    batch.l = ml.y;
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const std::int64_t of = __shfl_sync(device::full_warp, static_cast<long long>(at), i);
    batch.x[i] = i < count ? partials.o[of * HeadDim + column] : 0.0f;
  }
}

// Folds a batch of `count` results into (m, l, o), which hold nothing yet if `fresh`.
template <class Contract>
BI_D void attention_fold_add(const attention_fold_batch& batch, int count, bool fresh, float& m, float& l, float& o,
                             int lane) {
  float to = lane == 0 && !fresh ? max_nan(m, batch.m) : batch.m;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const float below = __shfl_up_sync(device::full_warp, to, d);
    if (lane >= d) to = max_nan(below, to);
  }
  const float before = __shfl_up_sync(device::full_warp, to, 1);
  const contract::attention_fold f = Contract::fold(lane == 0 ? m : before, batch.m);
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const contract::attention_fold step = {0.0f, __shfl_sync(device::full_warp, f.a, i),
                                           __shfl_sync(device::full_warp, f.b, i)};
    const float right = __shfl_sync(device::full_warp, batch.l, i);
    if (i >= count) continue;
    const bool takes = i == 0 && fresh;
    l = takes ? right : Contract::fold_value(step, l, right);
    o = takes ? batch.x[i] : Contract::fold_value(step, o, batch.x[i]);
  }
  m = __shfl_sync(device::full_warp, to, count - 1);
}

template <class Contract, class T, int HeadDim>
BI_D void attention_fold_columns(const attention_params<T>& a, const attention_partials& partials, std::int64_t blocks,
                                 std::int64_t block, int r, int column, int lane) {
  const device::attention_cut cut = partials.cuts[block];
  const device::attention_row_tile rows = device::attention_request_rows(a.batch, cut.request);
  if (r >= rows.rows) return;
  const device::attention_item item =
      device::make_attention_item<Contract>(rows, a.len[cut.request], a.causal, a.window);
  const contract::attention_range seen = attention_row_range<Contract>(a, rows, r);
  float m = neg_inf_f32(), l = 0.0f, o = 0.0f;
  if (seen.lo < seen.see) {
    // Leaves of the item that the row sees, then numbers.
    const std::int64_t first = Contract::first_leaf(seen.lo) - item.first_leaf;
    const std::int64_t end = Contract::end_leaf(seen.see) - item.first_leaf;
    const attention_fold_row row = {cut, block, r, first < cut.count ? 0 : first - cut.count + 1,
                                    end <= cut.count ? 1 : end - cut.count + 1};
    const auto load = [&](attention_fold_batch& batch, std::int64_t from) {
      attention_fold_load<HeadDim>(batch, partials, blocks, row, from, column, lane);
    };
    const auto add = [&](const attention_fold_batch& batch, std::int64_t from) {
      attention_fold_add<Contract>(batch, row.end - from < 32 ? static_cast<int>(row.end - from) : 32,
                                   from == row.first, m, l, o, lane);
    };
    attention_fold_batch one, two;
    load(one, row.first);
    for (std::int64_t from = row.first; from < row.end; from += 64) {
      if (from + 32 < row.end) load(two, from + 32);
      add(one, from);
      if (from + 64 < row.end) load(one, from + 64);
      if (from + 32 < row.end) add(two, from + 32);
    }
  }
  const std::int64_t token = rows.first_row + rows.token(r), head = cut.head * rows.group + rows.head(r);
  if (a.lse != nullptr && column == 0) a.lse[token * a.lse_token_stride + head] = Contract::lse(m, l);
  a.out[token * a.out_token_stride + head * a.out_head_stride + column] =
      Contract::template finish<T>(o, l, Contract::inverse(l));
}

// Warps are dealt pairs of a row and 32 columns, of the items that were cut.
template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_fold_threads) void attention_fold_kernel(const attention_fold_params<T> p) {
  __shared__ unsigned cut_blocks[attention_fold_max_blocks / 32];
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  device::wait_for_dependencies();
#endif
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  for (int word = thread / 32; word < attention_fold_max_blocks / 32; word += attention_fold_threads / 32) {
    const int block = word * 32 + lane;
    const unsigned some = __ballot_sync(device::full_warp, block < p.blocks && p.partials.cuts[block].request >= 0);
    if (lane == 0) cut_blocks[word] = some;
  }
  __syncthreads();
  const unsigned mine = cut_blocks[lane];
  int end = __popc(mine);
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int below = __shfl_up_sync(device::full_warp, end, d);
    if (lane >= d) end += below;
  }
  constexpr int parts = HeadDim / 32;
  const int rows = static_cast<int>(p.partials.rows);
  const int units = __shfl_sync(device::full_warp, end, 31) * rows * parts;
  const int warps = static_cast<int>(gridDim.x) * (attention_fold_threads / 32);
  for (int unit = static_cast<int>(blockIdx.x) * (attention_fold_threads / 32) + thread / 32; unit < units;
       unit += warps) {
    // The item's number among those that were cut, and which block's it is.
    const int item = unit / (rows * parts), row = unit / parts % rows, part = unit % parts;
    const int word = __ffs(static_cast<int>(__ballot_sync(device::full_warp, item < end))) - 1;
    unsigned bits = __shfl_sync(device::full_warp, mine, word);
    int skip = item - (__shfl_sync(device::full_warp, end, word) - __popc(bits));
    for (; skip > 0; --skip) bits &= bits - 1;
    const int block = word * 32 + __ffs(static_cast<int>(bits)) - 1;
    attention_fold_columns<Contract, T, HeadDim>(p.a, p.partials, p.blocks, block, row, part * 32 + lane, lane);
  }
}

}  // namespace kernel
BI_NAMESPACE_END
