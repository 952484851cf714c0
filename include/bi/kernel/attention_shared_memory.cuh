// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/mbarrier.cuh"

// What the two sides of attention_shared.cuh have between them.

BI_NAMESPACE_BEGIN
namespace kernel {

template <int HeadDim>
struct attention_shared_shape {
  static constexpr int row_groups = 2, rows = 64 * row_groups;  // of a warpgroup each, packed rows
  // Then come two warps that find places and two that copy, one K and one V.
  static constexpr int row_threads = 128 * row_groups, find_threads = 64, copy_threads = 64;
  static constexpr int threads = row_threads + find_threads + copy_threads;
  static constexpr int stages = HeadDim == 128 ? 4 : 6;      // of the rings of K and of V
  static constexpr int part_bytes = device::key_tile * 128;  // 64 keys, 64 values
  static constexpr int tile_bytes = HeadDim / device::tile_width * part_bytes;
  static constexpr int q_part_bytes = rows * 128, q_bytes = HeadDim / device::tile_width * q_part_bytes;
  static constexpr int bytes =
      2 * q_bytes + 2 * stages * tile_bytes + 1024;  // dynamic shared memory, before the tables
};

// A run as those who compute see it. No rows: there is nothing more to do.
template <int TileRows>
struct attention_shared_item {
  static constexpr std::uint32_t nowhere = 0xffffffffu;
  std::int32_t rows;
  std::int32_t head;
  std::int32_t first_tile, end_tile;
  bool twice;                    // there are 64 rows or fewer, and they are there twice
  std::int32_t lo, see;          // the view indices that are copied, others are zeros
  std::int32_t all_lo, all_see;  // those that all rows see
  std::int32_t row_lo[TileRows], row_see[TileRows];
  std::uint32_t place[TileRows];  // of the row's partial result of the first leaf

  // Three tiles for rows that have nowhere to go; by TileRows threads or more.
  BI_D void imagine(int thread) {
    if (thread < TileRows) place[thread] = nowhere;
    if (thread != 0) return;
    rows = TileRows;
    twice = false;
    first_tile = lo = all_lo = 0;
    end_tile = 3;
    see = all_see = end_tile * device::key_tile;
  }
};

// What to copy next: the rows of Q of a new run, then tiles of one leaf. Offsets are from where the head begins, in units of
// 16 bytes, in the order in which a thread that copies needs them.
template <class Contract, int HeadDim>
struct attention_shared_order {
  static constexpr std::uint32_t nothing = 0xffffffffu;          // the offset of zeros
  static constexpr int chunks = HeadDim / device::chunk_values;  // of a token
  static constexpr int pass_tokens = 32 / chunks;                // that a warp copies at once
  static constexpr int passes = device::key_tile / pass_tokens;  // of a tile

  alignas(16) std::uint32_t q_offset[attention_shared_shape<HeadDim>::rows];
  alignas(16) std::uint32_t offset[2][Contract::leaf];  // [K, V], without boxes
  // Boxes of the leaf; page -1 is outside the cache, and the copy engine makes zeros of it.
  std::int32_t box_page[Contract::leaf / 8], box_token[Contract::leaf / 8];
  const char* head[3];  // where the head begins in K, V and Q
  std::int32_t kv_head;
  std::int32_t first, end;  // the leaf's tiles
  bool has_q, is_last;
  bool again;  // others will copy the same soon

  BI_D static int place(int token) {
    const int t = token / device::key_tile, j = token % device::key_tile;
    return t * device::key_tile + j % pass_tokens * passes + j / pass_tokens;
  }
};

// Beside the dynamic memory: two tiles of Q, then the rings, then the tables. In static memory, so that its size tells the
// host that this code is there.
template <class Contract, int HeadDim>
struct attention_shared_memory {
  using shape = attention_shared_shape<HeadDim>;
  attention_shared_order<Contract, HeadDim> order[2];
  attention_shared_item<shape::rows> item[2], nothing;  // nothing: of the warps that warm up
  device::mbarrier order_full[2], order_empty[2];
  // What the copies are told to: of the rings' slots [K, V], then of Q.
  static constexpr int fulls = 2 * shape::stages + 2;
  device::mbarrier full[fulls], empty[fulls];
  BI_D static constexpr int barrier(int which, int slot) { return which * shape::stages + slot; }  // which: K, V, Q

  // By one thread.
  BI_D void init(bool boxes) {
    constexpr int each = device::arrivals_of_a_warp, copy_warps = shape::copy_threads / 32 * each;
    for (int i = 0; i < 2; ++i) {
      device::mbarrier_init(&order_full[i], shape::find_threads / 32 * each);
      device::mbarrier_init(&order_empty[i], copy_warps);
    }
    for (int i = 0; i < fulls; ++i) {
      device::mbarrier_init(&full[i], i >= barrier(2, 0) ? shape::copy_threads : boxes ? each : 32);
      device::mbarrier_init(&empty[i], shape::row_threads / 32 * each);
    }
    device::mbarrier_init_fence();
  }
};

// Ids of named barriers.
inline constexpr int attention_shared_find_barrier = 1, attention_shared_row_barrier = 3;

}  // namespace kernel
BI_NAMESPACE_END
