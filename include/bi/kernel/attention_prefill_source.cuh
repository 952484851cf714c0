// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cp_async.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/attention_prefill_memory.cuh"

// The copies of attention_prefill.cuh: two warps find the places of rows and tokens, two copy them.

BI_NAMESPACE_BEGIN
namespace kernel {

// Finds a leaf's tokens while the leaf before is copied.
template <class Contract, class T, int HeadDim>
class attention_prefill_finder {
  using shape = attention_prefill_shape<HeadDim>;
  using memory_type = attention_prefill_memory<Contract, HeadDim>;
  using order_type = attention_prefill_order<Contract, HeadDim>;
  static constexpr int leaf_tiles = Contract::leaf / Contract::tile;
  static_assert(shape::find_threads == Contract::tile, "a thread has a token of each tile");

 public:
  BI_D attention_prefill_finder(const attention_prefill_params<T>& p, memory_type& memory) : p_(p), memory_(memory) {}

  BI_D void find_all() {
    attention_prefill_items items(p_.items);
    do {
      device::mbarrier_wait(device::shared_address(&memory_.empty[memory_type::barrier(2, items_.place())]),
                            items_.parity() ^ 1);
      next_item(items);
      device::named_barrier(find_barrier, shape::find_threads);
      begin_order();
      if (has_rows()) find_rows();
      find_tokens();
      items_.advance();
    } while (memory_.item[items_.place() ^ 1].rows.rows > 0);  // the one that was found
  }

 private:
  // Nothing that follows from it is made earlier and kept: registers are scarce.
  BI_D static int thread() { return device::opaque(static_cast<int>(threadIdx.x)) - shape::row_threads; }
  BI_D const attention_prefill_item& item() const { return memory_.item[items_.place()]; }
  BI_D bool has_rows() const { return item().rows.rows > 0; }
  BI_D int first_tile() const { return has_rows() ? item().first_tile() : 0; }
  BI_D int end_tile() const { return has_rows() ? item().end_tile() : 0; }
  BI_D order_type& order() { return memory_.order[orders_.place()]; }

  BI_D void begin_order() {
    device::mbarrier_wait(device::shared_address(&memory_.order_empty[orders_.place()]), orders_.parity() ^ 1);
  }
  BI_D void end_order() {
    __syncwarp();
    if (device::arrives_for_warp(thread() % 32)) device::mbarrier_arrive(&memory_.order_full[orders_.place()], 1);
    orders_.advance();
  }

  // The block's next item that has rows, or one without after the last.
  BI_D void next_item(attention_prefill_items& items) {
    attention_prefill_item found;
    found.rows.rows = 0;
    std::uint32_t slot, head;
    while (found.rows.rows == 0 && items.next(slot, head)) {
      found.rows = device::find_attention_row_tile(p_.a.batch, slot);
      found.head = static_cast<std::int32_t>(head);
    }
    if (thread() != 0) return;
    memory_.item[items_.place()].rows = found.rows;
    if (found.rows.rows == 0) return;
    attention_prefill_item& item = memory_.item[items_.place()];
    item.head = found.head;
    item.len = p_.a.len[item.rows.request] > 0 ? p_.a.len[item.rows.request] : 0;
    // Neither end of what a row sees decreases from row to row.
    item.lo = static_cast<std::int32_t>(item.template range<Contract>(p_.a.causal, p_.a.window, 0).lo);
    item.see = static_cast<std::int32_t>(item.template range<Contract>(p_.a.causal, p_.a.window, shape::rows).see);
  }

  BI_D void find_rows() {
    const device::attention_row_tile& rows = item().rows;
    const auto first = static_cast<std::uint32_t>(rows.first_row + rows.first_token);
#pragma unroll 1
    for (int r = thread(); r < shape::rows; r += shape::find_threads) {
      const std::uint32_t packed = rows.first_head + static_cast<std::uint32_t>(r);
      const std::uint32_t token = first + packed / rows.group, head = packed % rows.group;
      order().q_offset[order_type::place(r)] =
          r < rows.rows ? token * p_.q_token + head * p_.q_head : order_type::nothing;
    }
  }

  BI_D void find_tokens() {
    const int first = first_tile();
    device::view_cursor cursor(p_.a.view, has_rows() ? item().rows.request : 0);
    if (first < end_tile()) cursor.skip_to(item().lo);
    for (int t = first;;) {
      const int end = end_tile(), leaf = t / leaf_tiles;
      const int leaf_end = (leaf + 1) * leaf_tiles < end ? (leaf + 1) * leaf_tiles : end;
      std::uint32_t whole = 0;
#pragma unroll 2
      for (int i = 0; t < end && i < leaf_tiles; ++i) {
        const int j = i * Contract::tile + thread();
        const std::int32_t index = leaf * Contract::leaf + j;
        const bool seen = index >= item().lo && index < item().see;
        const device::kv_place place = seen ? cursor.place(index) : device::kv_place{-1, 0};
        const auto page = static_cast<std::uint32_t>(place.page), token = static_cast<std::uint32_t>(place.token);
        const int to = order_type::place(j);
        order().offset[0][to] = place.valid() ? page * p_.k_page + token * p_.k_token : order_type::nothing;
        order().offset[1][to] = place.valid() ? page * p_.v_page + token * p_.v_token : order_type::nothing;
        if (p_.box > 0 && thread() % p_.box == 0) {
          order().box_page[j / p_.box] = place.page;
          order().box_token[j / p_.box] = place.token;
        }
        whole |= __all_sync(device::full_warp, place.valid()) ? 1u << i : 0u;
      }
      if (thread() % 32 == 0) order().whole[thread() / 32] = whole;
      if (thread() == 0) {
        const std::int64_t head = item().head;
        order().head[0] = reinterpret_cast<const char*>(p_.a.k + head * p_.a.k_head_stride);
        order().head[1] = reinterpret_cast<const char*>(p_.a.v + head * p_.a.v_head_stride);
        order().head[2] = reinterpret_cast<const char*>(p_.a.q + head * p_.a.batch.group * p_.a.q_head_stride);
        order().kv_head = item().head;
        order().first = t;
        order().end = leaf_end;
        order().has_q = t == first;
        order().is_last = !has_rows();
      }
      end_order();
      t = leaf_end;
      if (t >= end_tile()) return;
      begin_order();
    }
  }

  const attention_prefill_params<T>& p_;
  memory_type& memory_;
  attention_prefill_turns items_, orders_;  // so far
};

// Each warp copies its half of Q, then one copies K, the other V. Tiles that lie in whole pages come as boxes through
// the copy engine, others by 16 bytes a thread.
template <class Contract, class T, int HeadDim>
class attention_prefill_copier {
  using shape = attention_prefill_shape<HeadDim>;
  using memory_type = attention_prefill_memory<Contract, HeadDim>;
  using order_type = attention_prefill_order<Contract, HeadDim>;
  static constexpr int chunks = order_type::chunks, pass_tokens = order_type::pass_tokens, passes = order_type::passes;
  static constexpr int parts = HeadDim / device::tile_width;
  static_assert(passes % 4 == 0 && (4 * pass_tokens) % 8 == 0, "every fourth token has the same row of the swizzle");
  static_assert(shape::rows == 2 * device::key_tile, "half of Q is as long as a tile");

 public:
  BI_D attention_prefill_copier(const attention_prefill_params<T>& p, memory_type& memory, std::uint32_t q,
                                std::uint32_t ring)
      : p_(p), memory_(memory), q_(q) {
    const int thread = static_cast<int>(threadIdx.x) - shape::row_threads - shape::find_threads;
    which_ = __shfl_sync(device::full_warp, thread / 32, 0);
    lane_ = thread % 32;
    ring_ = ring + static_cast<std::uint32_t>(which_ * shape::stages * shape::tile_bytes);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane_ / chunks + i * pass_tokens, column = lane_ % chunks % device::row_chunks;
      target_[i] = static_cast<std::uint32_t>(row * 128 + (column ^ (row & 7)) * 16);
    }
    if (p_.box > 0 && lane_ == 0) device::prefetch_tensor_map(map());
  }

  BI_D void copy_all() {
    for (bool is_last = false; !is_last;) {
      device::mbarrier_wait(device::shared_address(&memory_.order_full[at_.slot]), at_.parity);
      const order_type& order = memory_.order[at_.slot];
      is_last = order.is_last;
      if (order.has_q) {
        if (!is_last) {
          const auto to = static_cast<std::uint32_t>(q_place_ * shape::q_bytes + which_ * shape::part_bytes);
          copy_rows<true>(q_ + to, shape::q_part_bytes, order.head[2], order.q_offset + which_ * device::key_tile);
        }
        publish(memory_type::barrier(2, q_place_));
        q_place_ ^= 1;
      }
      const std::uint32_t whole = order.whole[0] & order.whole[1];
#pragma unroll 1
      for (int t = order.first; t < order.end; ++t) {
        const int i = t % (Contract::leaf / Contract::tile), barrier = memory_type::barrier(which_, ring_at_.slot);
        device::mbarrier_wait(device::shared_address(&memory_.empty[barrier]), ring_at_.parity ^ 1);
        const std::uint32_t to = ring_ + static_cast<std::uint32_t>(ring_at_.slot * shape::tile_bytes);
        const std::uint32_t* const offsets = order.offset[which_] + i * Contract::tile;
        if ((whole >> i & 1) == 0) {
          copy_rows<true>(to, shape::part_bytes, order.head[which_], offsets);
          publish(barrier);
        } else if (p_.box > 0) {
          copy_boxes(to, order, i, barrier);
        } else {
          copy_rows<false>(to, shape::part_bytes, order.head[which_], offsets);
          publish(barrier);
        }
        ring_at_.next(shape::stages);
      }
      __syncwarp();
      if (device::arrives_for_warp(lane_)) device::mbarrier_arrive(&memory_.order_empty[at_.slot], 1);
      at_.next(2);
    }
  }

 private:
  BI_D const device::tensor_map* map() const { return which_ == 0 ? &p_.k : &p_.v; }

  // A tile. The copy engine is the tensor core's proxy: no fence.
  BI_D void copy_boxes(std::uint32_t to, const order_type& order, int tile, int barrier) {
    const std::uint32_t full = device::shared_address(&memory_.full[barrier]);
    if (device::arrives_for_warp(lane_)) device::mbarrier_arrive_expect(full, lane_ == 0 ? shape::tile_bytes : 0);
    __syncwarp();
    const int part = lane_ % parts, token = lane_ / parts * p_.box;  // of the tile; a lane has a box
    if (token < Contract::tile) {
      const int box = (tile * Contract::tile + token) / p_.box;
      device::tma_load_4d(to + static_cast<std::uint32_t>(part * shape::part_bytes + token * 128), map(), full,
                          part * device::tile_width, order.box_token[box], order.kv_head, order.box_page[box]);
    }
    __syncwarp();
  }

  // 64 rows, in parts that lie part_bytes apart.
  template <bool Holes>
  BI_D void copy_rows(std::uint32_t to, int part_bytes, const char* head, const std::uint32_t* offsets) {
    const int chunk = lane_ % chunks;
    to += static_cast<std::uint32_t>(chunk / device::row_chunks * part_bytes);
    const char* from = head + chunk * 16;
    asm volatile("" : "+l"(from));  // one addition an address
    const uint4* const own = reinterpret_cast<const uint4*>(offsets + lane_ / chunks * passes);
#pragma unroll 2
    for (int i = 0; i < passes / 4; ++i) {
      const uint4 x = own[i];
      const std::uint32_t offset[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const std::uint32_t target = to + target_[j];
        if constexpr (!Holes) {
          device::cp_async_16(target, from + std::uint64_t{offset[j]} * 16);
        } else {
          const bool some = offset[j] != order_type::nothing;
          device::cp_async_16(target, from + std::uint64_t{some ? offset[j] : 0} * 16, some ? 16 : 0);
        }
      }
      to += 4 * pass_tokens * 128;
    }
  }

  // The copies were made as if by ordinary stores, which the tensor core sees after a fence of the thread that made
  // them. The fence would wait for later copies too: it is the other warp that has some under way meanwhile.
  BI_D void publish(int barrier) {
    device::cp_async_commit();
    device::cp_async_wait<0>();
    device::fence_proxy_async();
    __syncwarp();
    if (device::arrives_for_warp(lane_)) device::mbarrier_arrive(&memory_.full[barrier], 1);
  }

  const attention_prefill_params<T>& p_;
  memory_type& memory_;
  const std::uint32_t q_;
  std::uint32_t ring_;  // of K or of V
  int which_, lane_;
  std::uint32_t target_[4];  // of the thread's first tokens
  int q_place_ = 0;
  device::ring_place at_;
  device::ring_place ring_at_;
};

}  // namespace kernel
BI_NAMESPACE_END
