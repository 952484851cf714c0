// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_softmax.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/view.cuh"

// Attention by mma.sync, for every shape, alignment and architecture from sm_80. A thread block has a tile of packed rows
// (bi/device/attention_rows.cuh) of one request and KV head, and walks the tiles of keys that any of these rows sees, in
// order. A row takes part in the tiles and leaves that it sees itself, so its tree does not know what it is packed with.
// Keys outside the rows' ranges, and places outside the cache, are zeros in shared memory and never read.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct attention_params {
  const T* q;
  const T* k;
  const T* v;
  T* out;
  float* lse;  // may be null
  const std::int32_t* len;
  device::attention_batch batch;
  device::view_source view;
  std::int64_t q_token_stride, q_head_stride, out_token_stride, out_head_stride, lse_token_stride;
  std::int64_t k_page_stride, k_token_stride, k_head_stride, v_page_stride, v_token_stride, v_head_stride;
  std::int64_t heads_kv, window;
  float scale, soft_cap;
  bool causal, whole_items;                           // no block of the split schedule has a part of an item
  bool q_aligned, k_aligned, v_aligned, out_aligned;  // every head of every token starts at a multiple of 16 bytes
};

// Row warps hold 16 packed rows each. At head_dim 256 two warps share them: both compute the same scores, and each has half
// of V's columns.
template <int HeadDim, int RowWarps>
struct attention_mma_shape {
  static constexpr int columns = HeadDim < 128 ? HeadDim : 128;  // of o, of a warp
  static constexpr int column_warps = HeadDim / columns, threads = 32 * RowWarps * column_warps;
  static constexpr int rows = 16 * RowWarps, blocks = columns / 8;
};

// What is the same in all threads, and little used, is kept here rather than in registers.
template <class T, int HeadDim, int RowWarps>
struct attention_mma_memory {
  T q[16 * RowWarps * HeadDim];  // then the output
  T k[device::key_tile * HeadDim];
  T v[device::key_tile * HeadDim];
  float o[16 * RowWarps * HeadDim];  // of the closed leaves, [value][thread]
  // Where a token's head starts, of the tile in hand and the next one; -1: zeros.
  std::int64_t k_offset[2][device::key_tile];
  std::int64_t v_offset[2][device::key_tile];
  device::attention_row_tile rows;
  std::int32_t lo, see;  // the view indices that any of the rows sees
};

// What packed row r of a tile sees. Rows beyond the last see what that one sees; their results are dropped at the end.
template <class Contract, class T>
BI_D contract::attention_range attention_row_range(const attention_params<T>& p, const device::attention_row_tile& rows,
                                                   std::int64_t len, int r) {
  return Contract::visible(p.causal, len > 0 ? len : 0, rows.q_len, rows.token(r < rows.rows ? r : rows.rows - 1),
                           p.window);
}
template <class Contract, class T>
BI_D contract::attention_range attention_row_range(const attention_params<T>& p, const device::attention_row_tile& rows,
                                                   int r) {
  return attention_row_range<Contract>(p, rows, p.len[rows.request], r);
}

// Writes the rows' results, through memory.q so that stores are wide. m and l are those of the thread's rows.
template <class Contract, class T, int HeadDim, int RowWarps>
BI_D void attention_mma_finish(const attention_params<T>& p, std::int64_t head,
                               attention_mma_memory<T, HeadDim, RowWarps>& memory, const float (&m)[2],
                               const float (&l)[2]) {
  using shape = attention_mma_shape<HeadDim, RowWarps>;
  const int thread = device::opaque(static_cast<int>(threadIdx.x)), lane = thread % 32;
  const int row_warp = thread / 32 / shape::column_warps, column_warp = thread / 32 % shape::column_warps;
  const device::attention_row_tile& rows = memory.rows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = row_warp * 16 + 8 * h + lane / 4;
    const float inverse = Contract::inverse(l[h]);
#pragma unroll
    for (int j = 0; j < shape::blocks; ++j) {
      const int chunk = column_warp * shape::blocks + j;
      T* part = device::tile_part<shape::rows>(memory.q, chunk / device::row_chunks);
      T* target = device::tile_chunk(part, row, chunk % device::row_chunks) + lane % 4 * 2;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        target[e] =
            Contract::template finish<T>(memory.o[(4 * j + 2 * h + e) * shape::threads + thread], l[h], inverse);
      }
    }
    if (p.lse != nullptr && row < rows.rows && column_warp == 0 && lane % 4 == 0) {
      p.lse[(rows.first_row + rows.token(row)) * p.lse_token_stride + head * rows.group + rows.head(row)] =
          Contract::lse(m[h], l[h]);
    }
  }
  __syncthreads();
  T* out = p.out + rows.first_row * p.out_token_stride + head * rows.group * p.out_head_stride;
  constexpr int chunks = HeadDim / device::chunk_values;
  for (int i = thread; i < rows.rows * chunks; i += shape::threads) {
    const int row = i / chunks, chunk = i % chunks;
    T* part = device::tile_part<shape::rows>(memory.q, chunk / device::row_chunks);
    T x[device::vector_size];
    device::load_vector(device::tile_chunk(part, row, chunk % device::row_chunks), device::vector_size, true, x);
    device::store_vector(
        out + rows.token(row) * p.out_token_stride + rows.head(row) * p.out_head_stride + chunk * device::chunk_values,
        device::vector_size, p.out_aligned, x);
  }
}

template <class Contract, class T, int HeadDim, int RowWarps>
BI_D void attention_mma_rows(const attention_params<T>& p, std::int64_t head,
                             attention_mma_memory<T, HeadDim, RowWarps>& memory) {
  using shape = attention_mma_shape<HeadDim, RowWarps>;
  constexpr int tile = device::key_tile, leaf_tiles = Contract::leaf / tile;
  static_assert(tile == Contract::tile && Contract::leaf % tile == 0, "the kernel's tiles are the contract's");
  const int thread = device::opaque(static_cast<int>(threadIdx.x)), lane = thread % 32;
  const int row_warp = thread / 32 / shape::column_warps, column_warp = thread / 32 % shape::column_warps;
  const contract::attention_scale scale = Contract::prepare(p.scale, p.soft_cap);

  const device::attention_row_tile& rows = memory.rows;
  const T* q = p.q + rows.first_row * p.q_token_stride + head * rows.group * p.q_head_stride;
  device::gather_tile<shape::rows, HeadDim, shape::threads>(memory.q, p.q, p.q_aligned, thread, [&](int r) {
    return r < rows.rows ? q + rows.token(r) * p.q_token_stride + rows.head(r) * p.q_head_stride : nullptr;
  });
  device::cp_async_commit();  // rows that see nothing have no other group, and write their results where q lands

  device::attention_state<shape::blocks> state;
  device::attention_reset(state);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const contract::attention_range seen = attention_row_range<Contract>(p, rows, row_warp * 16 + 8 * h + lane / 4);
    state.lo[h] = static_cast<std::int32_t>(seen.lo);
    state.see[h] = static_cast<std::int32_t>(seen.see);
  }
  const bool has_rows = row_warp * 16 < rows.rows;
  const int first_tile = memory.lo / tile;
  const int end_tile = memory.lo < memory.see ? (memory.see - 1) / tile + 1 : first_tile;

  device::view_cursor cursor(p.view, rows.request);
  if (thread < tile && first_tile < end_tile) cursor.skip_to(memory.lo);
  const auto locate = [&](int t) {
    for (int j = thread; j < tile; j += shape::threads) {
      const std::int32_t index = t * tile + j;
      const bool seen = index >= memory.lo && index < memory.see;
      const device::kv_place place = seen ? cursor.place(index) : device::kv_place{-1, 0};
      memory.k_offset[t % 2][j] = place.valid() ? place.page * p.k_page_stride + place.token * p.k_token_stride : -1;
      memory.v_offset[t % 2][j] = place.valid() ? place.page * p.v_page_stride + place.token * p.v_token_stride : -1;
    }
  };
  const auto gather = [&](T* target, const T* base, const std::int64_t(&offset)[tile], bool aligned) {
    device::gather_tile<tile, HeadDim, shape::threads>(
        target, base, aligned, thread, [&](int j) { return offset[j] >= 0 ? base + offset[j] : nullptr; });
    device::cp_async_commit();
  };
  const T* k = p.k + head * p.k_head_stride;
  const T* v = p.v + head * p.v_head_stride;
  if (first_tile < end_tile) {
    locate(first_tile);
    __syncthreads();
    gather(memory.k, k, memory.k_offset[first_tile % 2], p.k_aligned);
    if (first_tile + 1 < end_tile) locate(first_tile + 1);
  }

  for (int t = first_tile; t < end_tile; ++t) {
    device::cp_async_wait<0>();
    __syncthreads();  // K is there, and everyone is done with the last V
    gather(memory.v, v, memory.v_offset[t % 2], p.v_aligned);

    // What this thread's rows see of the tile.
    const auto in_tile = [&](std::int32_t index) {
      const int j = index - t * tile;
      return j < 0 ? 0 : j < tile ? j : tile;
    };
    const int begin[2] = {in_tile(state.lo[0]), in_tile(state.lo[1])};
    const int end[2] = {in_tile(state.see[0]), in_tile(state.see[1])};
    const bool sees[2] = {begin[0] < end[0], begin[1] < end[1]};
    const bool any = has_rows && __any_sync(device::full_warp, sees[0] || sees[1]);
    std::uint32_t weights[tile / 16][4];
    if (any) {
      float s[tile / 8][4], rescale[2];
      device::attention_scores<shape::rows, HeadDim>(s, memory.q, row_warp * 16, memory.k, lane);
      // Not end[h] == tile: ptxas 13.0 takes the comparison of a clamped value with its upper bound for true.
      // The tile's last index, not its end, which may be 2^31.
      const std::int32_t tile_begin = t * tile, tile_last = tile_begin + (tile - 1);
      const bool whole = state.lo[0] <= tile_begin && state.lo[1] <= tile_begin && state.see[0] > tile_last &&
                         state.see[1] > tile_last;
      if (__all_sync(device::full_warp, whole)) {
        device::attention_weigh<Contract, false>(state, s, rescale, scale, begin, end, lane);
      } else {
        device::attention_weigh<Contract, true>(state, s, rescale, scale, begin, end, lane);
      }
      device::attention_rescale(state, rescale);
      device::attention_pack_weights<T>(weights, s);
    }

    device::cp_async_wait<0>();
    __syncthreads();  // V is there, and everyone is done with K
    if (t + 1 < end_tile) gather(memory.k, k, memory.k_offset[(t + 1) % 2], p.k_aligned);
    if (t + 2 < end_tile) locate(t + 2);

    if (any) {
      T* values = device::tile_part<tile>(memory.v, column_warp * (shape::columns / device::tile_width));
      // Whether a key that is loaded is one that one of the thread's rows does not see.
      bool hidden = false;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        hidden = hidden || (sees[h] && (begin[h] > in_tile(memory.lo) || end[h] < in_tile(memory.see)));
      }
      const bool masked =
          __any_sync(device::full_warp, hidden) && device::attention_nonfinite_keys<shape::columns>(values, lane) != 0;
      if (masked) {
        device::attention_add_masked_values(state.leaf_o, weights, values, begin, end, lane);
      } else if (__all_sync(device::full_warp, sees[0] && sees[1])) {
        device::attention_add_values<false>(state.leaf_o, weights, values, sees, lane);
      } else {
        device::attention_add_values<true>(state.leaf_o, weights, values, sees, lane);
      }
    }
    if (has_rows && (t % leaf_tiles == leaf_tiles - 1 || t == end_tile - 1)) {
      device::attention_close_leaf<Contract, shape::threads>(state, state.lo, state.see, memory.o + thread,
                                                             t / leaf_tiles * Contract::leaf, lane);
    }
  }

  device::cp_async_wait<0>();
  __syncthreads();  // everyone is done with q
  attention_mma_finish<Contract, T, HeadDim, RowWarps>(p, head, memory, state.m, state.l);
}

// Blocks are dealt slots and heads; most slots hold a tile of rows, a block without one has nothing to do.
template <class Contract, class T, int HeadDim, int RowWarps>
BI_KERNEL __launch_bounds__(attention_mma_shape<HeadDim, RowWarps>::threads) void attention_mma_kernel(
    const attention_params<T> p) {
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_mma_memory<T, HeadDim, RowWarps>*>(shared);
  const std::int64_t items = p.batch.slots() * p.heads_kv;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    if (threadIdx.x == 0) {
      const device::attention_row_tile rows = device::find_attention_row_tile(p.batch, item / p.heads_kv);
      memory.rows = rows;
      // Neither end of what a row sees decreases from row to row.
      memory.lo = static_cast<std::int32_t>(attention_row_range<Contract>(p, rows, 0).lo);
      memory.see = static_cast<std::int32_t>(attention_row_range<Contract>(p, rows, rows.rows).see);
    }
    __syncthreads();
    if (memory.rows.rows > 0) attention_mma_rows<Contract, T, HeadDim, RowWarps>(p, item % p.heads_kv, memory);
    __syncthreads();  // the memory is the next item's
  }
}

}  // namespace kernel
BI_NAMESPACE_END
