// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/bulk.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/cp_async.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/attention_shared_list.cuh"
#include "bi/kernel/attention_shared_memory.cuh"
#include "bi/kernel/attention_shared_tables.cuh"

// Where the tiles of attention_shared.cuh come from: two warps find the places of rows and tokens, two copy them.

BI_NAMESPACE_BEGIN
namespace kernel {

// Finds a leaf's tokens while the leaf before is copied.
template <class Contract, class T, int HeadDim>
class attention_shared_finder {
  using shape = attention_shared_shape<HeadDim>;
  using memory_type = attention_shared_memory<Contract, HeadDim>;
  using order_type = attention_shared_order<Contract, HeadDim>;
  using item_type = attention_shared_item<shape::rows>;
  static constexpr int leaf_tiles = Contract::leaf / Contract::tile, own_rows = shape::rows / shape::find_threads;
  static_assert(shape::find_threads == Contract::tile, "a thread has a token of each tile");
  static_assert(Contract::leaf / 8 <= shape::find_threads, "or a box");

 public:
  BI_D attention_shared_finder(const attention_shared_params<T>& p, memory_type& memory,
                               const attention_shared_tables& tables)
      : p_(p), memory_(memory), t_(tables) {}

  BI_D void find_all() {
    attention_shared_walk<shape::rows, leaf_tiles> walk(t_, p_.a.heads_kv, blockIdx.x, gridDim.x);
    for (;;) {
      const attention_shared_run run = walk.next();
      device::mbarrier_wait(device::shared_address(&memory_.empty[memory_type::barrier(2, run_at_.slot)]),
                            run_at_.parity ^ 1);
      begin_order();
      if (run.count == 0) {
        if (thread() == 0) item().rows = 0;
        tell(0, 0, true, false, true);
        return;
      }
      if (run.group >= 0) {
        find_group(run);
      } else {
        find_request(run);
      }
      device::named_barrier(attention_shared_find_barrier, shape::find_threads);
      find_tokens(run);
      run_at_.next(2);
    }
  }

 private:
  // Nothing that follows from it is made earlier and kept: registers are scarce.
  BI_D static int thread() { return device::opaque(static_cast<int>(threadIdx.x)) - shape::row_threads; }
  BI_D item_type& item() const { return memory_.item[run_at_.slot]; }
  BI_D order_type& order() const { return memory_.order[order_at_.slot]; }
  BI_D void begin_order() const {
    device::mbarrier_wait(device::shared_address(&memory_.order_empty[order_at_.slot]), order_at_.parity ^ 1);
  }
  BI_D void tell(int first, int end, bool has_q, bool again, bool is_last) {
    if (thread() == 0) {
      const attention_params<T>& a = p_.a;
      const std::int64_t head = is_last ? 0 : item().head;
      order().head[0] = reinterpret_cast<const char*>(a.k + head * a.k_head_stride);
      order().head[1] = reinterpret_cast<const char*>(a.v + head * a.v_head_stride);
      order().head[2] = reinterpret_cast<const char*>(a.q + head * a.batch.group * a.q_head_stride);
      order().kv_head = static_cast<std::int32_t>(head);
      order().first = first;
      order().end = end;
      order().has_q = has_q;
      order().again = again;
      order().is_last = is_last;
    }
    __syncwarp();
    if (device::arrives_for_warp(thread() % 32)) device::mbarrier_arrive(&memory_.order_full[order_at_.slot], 1);
    order_at_.next(2);
  }

  // Which of the item's `rows` rows is at place i.
  BI_D static int row(int i, std::int32_t rows) { return rows <= 64 ? i % 64 : i; }

  // Packed row `local` of a request whose rows begin at `first_row`, as row r of the item; request -1: none. leaf: the run's
  // first, counted in the request's.
  BI_D void set_row(int r, std::int32_t request, std::int64_t first_row, std::int32_t local, std::int32_t leaf,
                    std::int32_t head) const {
    const auto group = static_cast<std::uint32_t>(p_.a.batch.group), packed = static_cast<std::uint32_t>(local);
    std::uint32_t offset = order_type::nothing, place = item_type::nowhere;
    const std::int64_t token = first_row + packed / group;
    if (request >= 0 && token >= 0 && token < p_.a.batch.rows) {
      offset = static_cast<std::uint32_t>(token) * p_.q_token + packed % group * p_.q_head;
      const std::int32_t leaves = t_.request_leaves(request);
      const std::int64_t first = t_.below(t_.leaves(), request) * p_.a.heads_kv + std::int64_t{head} * leaves;
      const std::int64_t at = first * p_.partials.rows + std::int64_t{local} * leaves + leaf;
      if (at < p_.partials.count) place = static_cast<std::uint32_t>(at);
    }
    order().q_offset[order_type::place(r)] = offset;
    item().place[r] = place;
  }

  BI_D void find_group(const attention_shared_run& run) const {
    const std::int32_t rest = t_.group_rows(run.group) - run.tile * shape::rows;
    const std::int32_t rows = rest < shape::rows ? rest : shape::rows, see = t_.depth()[run.group] * Contract::leaf;
    std::int32_t request[own_rows], local[own_rows];
    std::int64_t first_row[own_rows];
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
      const int r = row(thread() + i * shape::find_threads, rows);
      request[i] = -1;
      local[i] = 0;
      first_row[i] = 0;
      if (r >= rows) continue;
      const std::int32_t packed = run.tile * shape::rows + r, at = t_.find_member(run.group, packed);
      request[i] = t_.member()[at];
      local[i] = packed - (at > t_.start()[run.group] ? t_.rows()[at - 1] : 0);
      first_row[i] = p_.a.batch.first(request[i]);
    }
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
      const int r = thread() + i * shape::find_threads;
      item().row_lo[r] = 0;
      item().row_see[r] = see;
      set_row(r, request[i], first_row[i], local[i], run.first, run.head);
    }
    if (thread() != 0) return;
    item().rows = rows;
    item().twice = rows <= 64;
    item().head = run.head;
    item().first_tile = run.first * leaf_tiles;
    item().end_tile = (run.first + run.count) * leaf_tiles;
    item().lo = item().all_lo = 0;
    item().see = item().all_see = see;
  }

  BI_D void find_request(const attention_shared_run& run) const {
    const attention_params<T>& a = p_.a;
    const attention_lengths l = attention_read_lengths(a, run.request);
    const attention_shared_view v = attention_find_shared_view<Contract>(a, p_.most_leaves, run.request, l);
    const std::int32_t rows = v.rows.rows, skipped = t_.shared()[run.request] + run.first;
    const auto range = [&](int r) {
      return Contract::visible(a.causal, l.len, v.rows.q_len, v.rows.token(r < rows ? r : rows - 1), a.window);
    };
#pragma unroll 1
    for (int i = thread(); i < shape::rows; i += shape::find_threads) {
      const int r = row(i, rows);
      const contract::attention_range seen = range(r);
      item().row_lo[i] = static_cast<std::int32_t>(seen.lo);
      item().row_see[i] = static_cast<std::int32_t>(seen.see);
      set_row(i, r < rows ? run.request : -1, l.first, r, skipped, run.head);
    }
    if (thread() != 0) return;
    const int first = (static_cast<int>(v.item.first_leaf) + skipped) * leaf_tiles,
              end = first + run.count * leaf_tiles;
    const int seen_first = v.item.lo / Contract::tile, seen_end = (v.item.see - 1) / Contract::tile + 1;
    item().rows = rows;
    item().twice = rows <= 64;
    item().head = run.head;
    item().first_tile = first > seen_first ? first : seen_first;
    item().end_tile = end < seen_end ? end : seen_end;
    const std::int64_t unit = p_.box > 0 ? p_.box : 1, see = (v.item.see + unit - 1) / unit * unit;
    constexpr std::int64_t most = 0x7fffffff;
    item().lo = static_cast<std::int32_t>(v.item.lo / unit * unit);
    item().see = static_cast<std::int32_t>(see < most ? see : most);
    item().all_lo = static_cast<std::int32_t>(range(rows - 1).lo);
    item().all_see = static_cast<std::int32_t>(range(0).see);
  }

  // What is read of a leaf's page table is on its way while the leaf before waits for its turn.
  BI_D void find_tokens(const attention_shared_run& run) {
    const int first = item().first_tile, last = item().end_tile;
    const bool again = run.group >= 0 && t_.group_rows(run.group) > shape::rows;
    device::view_cursor cursor(p_.a.view, run.request);
    if (p_.box == 0) cursor.skip_to(first * Contract::tile > item().lo ? first * Contract::tile : item().lo);
    device::kv_place found[leaf_tiles];
    look_up(found, cursor, first / leaf_tiles);
    for (int t = first;;) {
      const int leaf = t / leaf_tiles, end = (leaf + 1) * leaf_tiles < last ? (leaf + 1) * leaf_tiles : last;
      write(found, cursor);
      tell(t, end, t == first, again, false);
      if (end >= last) return;
      look_up(found, cursor, leaf + 1);
      begin_order();
      t = end;
    }
  }
  BI_D void look_up(device::kv_place (&found)[leaf_tiles], device::view_cursor& cursor, int leaf) const {
    const std::int32_t lo = item().lo, see = item().see;
    if (p_.box > 0) {
      const int j = thread() * p_.box;
      const std::int32_t index = leaf * Contract::leaf + j;
      found[0] = j < Contract::leaf && index >= lo && index < see ? cursor.look_up(index) : device::kv_place{-1, 0};
      return;
    }
#pragma unroll
    for (int i = 0; i < leaf_tiles; ++i) {
      const std::int32_t index = leaf * Contract::leaf + i * Contract::tile + thread();
      found[i] = index >= lo && index < see ? cursor.look_up(index) : device::kv_place{-1, 0};
    }
  }
  BI_D void write(const device::kv_place (&found)[leaf_tiles], const device::view_cursor& cursor) const {
    if (p_.box > 0) {
      if (thread() * p_.box >= Contract::leaf) return;
      const device::kv_place place = cursor.checked(found[0]);
      order().box_page[thread()] = place.page;
      order().box_token[thread()] = place.token;
      return;
    }
#pragma unroll
    for (int i = 0; i < leaf_tiles; ++i) {
      const device::kv_place place = cursor.checked(found[i]);
      const auto page = static_cast<std::uint32_t>(place.page), token = static_cast<std::uint32_t>(place.token);
      const int to = order_type::place(i * Contract::tile + thread());
      order().offset[0][to] = place.valid() ? page * p_.k_page + token * p_.k_token : order_type::nothing;
      order().offset[1][to] = place.valid() ? page * p_.v_page + token * p_.v_token : order_type::nothing;
    }
  }

  const attention_shared_params<T>& p_;
  memory_type& memory_;
  const attention_shared_tables& t_;
  device::ring_place run_at_, order_at_;
};

// Each warp copies its half of Q, then one copies K, the other V: boxes through the copy engine, or 16 bytes a thread.
template <class Contract, class T, int HeadDim>
class attention_shared_copier {
  using shape = attention_shared_shape<HeadDim>;
  using memory_type = attention_shared_memory<Contract, HeadDim>;
  using order_type = attention_shared_order<Contract, HeadDim>;
  static constexpr int chunks = order_type::chunks, pass_tokens = order_type::pass_tokens, passes = order_type::passes;
  static constexpr int parts = HeadDim / device::tile_width;
  static_assert(passes % 4 == 0 && (4 * pass_tokens) % 8 == 0, "every fourth token has the same row of the swizzle");
  static_assert(shape::rows == 2 * device::key_tile, "half of Q is as long as a tile");

 public:
  BI_D attention_shared_copier(const attention_shared_params<T>& p, memory_type& memory, unsigned char* q,
                               unsigned char* ring)
      : p_(p), memory_(memory), q_(q) {
    const int thread = static_cast<int>(threadIdx.x) - shape::row_threads - shape::find_threads;
    which_ = __shfl_sync(device::full_warp, thread / 32, 0);
    lane_ = thread % 32;
    ring_ = ring + which_ * shape::stages * shape::tile_bytes;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane_ / chunks + i * pass_tokens, column = lane_ % chunks % device::row_chunks;
      target_[i] = row * 128 + (column ^ (row & 7)) * 16;
    }
  }

  BI_D void copy_all() {
    const std::uint64_t once = device::policy_evict_first();
    for (bool is_last = false; !is_last; at_.next(2)) {
      device::mbarrier_wait(device::shared_address(&memory_.order_full[at_.slot]), at_.parity);
      const order_type& order = memory_.order[at_.slot];
      is_last = order.is_last;
      if (order.has_q) {
        if (!is_last) {
          unsigned char* const to = q_ + q_place_ * shape::q_bytes + which_ * shape::part_bytes;
          copy_rows(to, shape::q_part_bytes, order.head[2], order.q_offset + which_ * device::key_tile, once);
        }
        device::mbarrier_arrive_copied(&memory_.full[memory_type::barrier(2, q_place_)]);
        q_place_ ^= 1;
      }
#pragma unroll 1
      for (int t = order.first; t < order.end; ++t) {
        const int i = t % (Contract::leaf / Contract::tile), barrier = memory_type::barrier(which_, ring_at_.slot);
        device::mbarrier_wait(device::shared_address(&memory_.empty[barrier]), ring_at_.parity ^ 1);
        unsigned char* const to = ring_ + ring_at_.slot * shape::tile_bytes;
        if (p_.box > 0) {
          copy_boxes(device::shared_address(to), order, i, barrier, once);
        } else {
          copy_rows(to, shape::part_bytes, order.head[which_], order.offset[which_] + i * Contract::tile, once);
          device::mbarrier_arrive_copied(&memory_.full[barrier]);
        }
        ring_at_.next(shape::stages);
      }
      __syncwarp();
      if (device::arrives_for_warp(lane_)) device::mbarrier_arrive(&memory_.order_empty[at_.slot], 1);
    }
  }

 private:
  BI_D void copy_boxes(std::uint32_t to, const order_type& order, int tile, int barrier, std::uint64_t once) const {
    const std::uint32_t full = device::shared_address(&memory_.full[barrier]);
    if (device::arrives_for_warp(lane_)) device::mbarrier_arrive_expect(full, lane_ == 0 ? shape::tile_bytes : 0);
    __syncwarp();
    const int part = lane_ % parts, token = lane_ / parts * p_.box;  // of the tile; a lane has a box
    if (token < Contract::tile) {
      const int box = (tile * Contract::tile + token) / p_.box;
      const void* const map = which_ == 0 ? &p_.k : &p_.v;
      const std::uint32_t target = to + static_cast<std::uint32_t>(part * shape::part_bytes + token * 128);
      const int x = part * device::tile_width, y = order.box_token[box], w = order.box_page[box];
      if (order.again) {
        device::tma_load_4d(target, map, full, x, y, order.kv_head, w);
      } else {
        device::tma_load_4d(target, map, full, x, y, order.kv_head, w, once);
      }
    }
    __syncwarp();
  }

  // 64 rows, in parts that lie part_bytes apart.
  BI_D void copy_rows(unsigned char* to, int part_bytes, const char* head, const std::uint32_t* offsets,
                      std::uint64_t once) const {
    const int chunk = lane_ % chunks;
    to += chunk / device::row_chunks * part_bytes;
    const char* from = head + chunk * 16;
    asm volatile("" : "+l"(from));  // one addition an address
    const uint4* const own = reinterpret_cast<const uint4*>(offsets + lane_ / chunks * passes);
#pragma unroll 2
    for (int i = 0; i < passes / 4; ++i) {
      const uint4 x = own[i];
      const std::uint32_t offset[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool some = offset[j] != order_type::nothing;
        device::cp_async_16(to + target_[j], from + std::uint64_t{some ? offset[j] : 0} * 16, some ? 16 : 0, once);
      }
      to += 4 * pass_tokens * 128;
    }
  }

  const attention_shared_params<T>& p_;
  memory_type& memory_;
  unsigned char* const q_;
  unsigned char* ring_;  // of K or of V
  int which_, lane_;
  int target_[4];  // of the thread's first tokens
  int q_place_ = 0;
  device::ring_place at_, ring_at_;
};

}  // namespace kernel
BI_NAMESPACE_END
