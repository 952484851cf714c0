// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/tensor_map.hpp"
#include "bi/kernel/attention_mma.cuh"

// What the two sides of attention_prefill.cuh have between them.

BI_NAMESPACE_BEGIN
namespace kernel {

// Tiles of rows and KV heads, longest rows of all heads first.
struct attention_prefill_list {
  std::uint32_t slots;  // of the batch
  std::uint32_t heads;
  std::uint32_t items;  // slots * heads, below 2^31
};

template <class T>
struct attention_prefill_params {
  attention_params<T> a;
  attention_prefill_list items;
  // Tokens of a box of the tensor maps: each of the boxes that make a tile lies in one page. 0: there are no maps.
  std::int32_t box;
  device::tensor_map k, v;  // value, token of the page, head, page
  // Strides in units of 16 bytes; no array has 2^32 of them.
  std::uint32_t q_token, q_head, k_page, k_token, v_page, v_token;
};

template <int HeadDim>
struct attention_prefill_shape {
  static constexpr int row_groups = 2, rows = 64 * row_groups;  // of a warpgroup each, packed rows
  // Then come two warps that find places and two that copy, one K and one V.
  static constexpr int row_threads = 128 * row_groups, find_threads = 64, copy_threads = 64;
  static constexpr int threads = row_threads + find_threads + copy_threads;
  static constexpr int stages = HeadDim == 128 ? 4 : 6;      // of the rings of K and of V
  static constexpr int part_bytes = device::key_tile * 128;  // 64 keys, 64 values
  static constexpr int tile_bytes = HeadDim / device::tile_width * part_bytes;
  static constexpr int q_part_bytes = rows * 128, q_bytes = HeadDim / device::tile_width * q_part_bytes;
  static constexpr int bytes = 2 * q_bytes + 2 * stages * tile_bytes + 1024;  // dynamic shared memory
};

// Ids of named barriers; row_barrier: the first of one a group.
enum attention_prefill_barrier : int { find_barrier = 1, row_barrier = 2 };

// A tile of packed rows and a KV head. No rows: there is nothing more to do.
struct attention_prefill_item {
  device::attention_row_tile rows;
  std::int64_t len;
  std::int32_t lo, see;  // the view indices that any of the rows sees
  std::int32_t head;

  BI_D int first_tile() const { return lo / device::key_tile; }
  BI_D int end_tile() const { return lo < see ? (see - 1) / device::key_tile + 1 : first_tile(); }
  // What packed row r sees. Rows beyond the last see what that one sees; their results are dropped at the end.
  template <class Contract>
  BI_D contract::attention_range range(bool causal, std::int64_t window, int r) const {
    return Contract::visible(causal, len, rows.q_len, rows.token(r < rows.rows ? r : rows.rows - 1), window);
  }
};

// What to copy next: the rows of Q of a new item, then tiles of one leaf. Places are offsets from where the head
// begins, in units of 16 bytes, in the order in which a thread that copies needs them.
template <class Contract, int HeadDim>
struct attention_prefill_order {
  static constexpr std::uint32_t nothing = 0xffffffffu;          // the offset of zeros
  static constexpr int chunks = HeadDim / device::chunk_values;  // of a token
  static constexpr int pass_tokens = 32 / chunks;                // that a warp copies at once
  static constexpr int passes = device::key_tile / pass_tokens;  // of a tile

  alignas(16) std::uint32_t offset[2][Contract::leaf];  // [K, V]
  alignas(16) std::uint32_t q_offset[attention_prefill_shape<HeadDim>::rows];
  const char* head[3];  // where the head begins in K, V and Q
  std::int32_t kv_head;
  std::int32_t first, end;  // the leaf's tiles
  // Boxes of the leaf, in place of offsets where a tile is whole.
  std::int32_t box_page[Contract::leaf / 8], box_token[Contract::leaf / 8];
  std::uint32_t whole[2];  // bit i: a warp has found everything in tile i of the leaf
  bool has_q, is_last;

  BI_D static int place(int token) {
    const int t = token / device::key_tile, j = token % device::key_tile;
    return t * device::key_tile + j % pass_tokens * passes + j / pass_tokens;
  }
};

// Beside the dynamic memory: two tiles of Q, then the rings. In static memory, so that its size tells the host that
// this code is there.
template <class Contract, int HeadDim>
struct attention_prefill_memory {
  static constexpr int stages = attention_prefill_shape<HeadDim>::stages;
  attention_prefill_order<Contract, HeadDim> order[2];
  attention_prefill_item item[2];
  // What a row sees, and its closed leaves but for o: little used, and registers are scarce.
  std::int32_t row_lo[attention_prefill_shape<HeadDim>::rows], row_see[attention_prefill_shape<HeadDim>::rows];
  float row_m[attention_prefill_shape<HeadDim>::rows], row_l[attention_prefill_shape<HeadDim>::rows];
  device::mbarrier order_full[2], order_empty[2];
  // What the copies are told to: of the rings' slots [K, V], then of Q.
  static constexpr int fulls = 2 * stages + 2;
  device::mbarrier full[fulls], empty[fulls];
  BI_D static constexpr int barrier(int which, int slot) { return which * stages + slot; }  // which: K, V, Q
};

// One of two places that take turns, and the parity of its barriers' phase, by a number that only grows.
class attention_prefill_turns {
 public:
  BI_D int place() const { return static_cast<int>(turns_ & 1); }
  BI_D int parity() const { return static_cast<int>(turns_ >> 1 & 1); }
  BI_D void advance() { ++turns_; }

 private:
  std::uint32_t turns_ = 0;
};

// A block's items: rounds over the blocks go forth and back, so that nobody has the longest of each. A grid as large as
// the list has an item a block, in order.
class attention_prefill_items {
 public:
  BI_D explicit attention_prefill_items(const attention_prefill_list& list) : list_(list) {}

  // The next one's slot and head; false after the last.
  BI_D bool next(std::uint32_t& slot, std::uint32_t& head) {
    const std::uint32_t place = round_ % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
    const std::uint32_t i = round_ * gridDim.x + place;
    ++round_;
    if (i >= list_.items) return false;
    slot = list_.slots - 1 - i / list_.heads;
    head = i % list_.heads;
    return true;
  }

 private:
  const attention_prefill_list& list_;
  std::uint32_t round_ = 0;
};

}  // namespace kernel
BI_NAMESPACE_END
