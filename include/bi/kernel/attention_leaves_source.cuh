// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cp_async.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"

// The copies of attention_leaves.cuh.

BI_NAMESPACE_BEGIN
namespace kernel {

// One tile into a slot, by a warp. A thread has one chunk of consecutive tokens.
template <int HeadDim, class T>
BI_D void attention_leaves_copy_tile(T* slot, const T* base, const std::int64_t* offsets, bool aligned, int lane) {
  constexpr int chunks = HeadDim / device::chunk_values, tokens = device::key_tile * chunks / 32;
  const int chunk = lane % chunks, first = lane / chunks * tokens;
  T* const part = device::tile_part<device::key_tile>(slot, chunk / device::row_chunks);
  const char* const from = reinterpret_cast<const char*>(base + chunk * device::chunk_values);
  const auto target = [&](int i) { return device::tile_chunk(part, first + i, chunk % device::row_chunks); };
  if (!aligned) {
#pragma unroll 1
    for (int i = 0; i < tokens; ++i) {
      const std::int64_t offset = offsets[first + i];
      const bool none = (offset & 1) != 0;
      device::copy_chunk(target(i), none ? nullptr : reinterpret_cast<const T*>(from + offset), base, false);
    }
    return;
  }
  // Nobody reads them again before the cache has seen all the others; page tables and partial results should stay in it.
  const std::uint64_t policy = device::policy_evict_first();
  constexpr int group = 8;  // offsets that are read before the first is used
#pragma unroll 1
  for (int i = 0; i < tokens; i += group) {
    std::int64_t offset[group];
#pragma unroll
    for (int j = 0; j < group; ++j) offset[j] = offsets[first + i + j];
#pragma unroll
    for (int j = 0; j < group; ++j) {
      device::cp_async_16(target(i + j), from + (offset[j] & ~std::int64_t{1}), (offset[j] & 1) != 0 ? 0 : 16, policy);
    }
  }
}

// Asks the L2 cache for a tile, by a warp: before the wait for the kernels that may write it, memory has little else to do.
// What they do write is in that cache too.
template <int HeadDim, class T>
BI_D void attention_leaves_prefetch_tile(const T* base, const std::int64_t* offsets, int lane) {
  constexpr int piece = 32, pieces = HeadDim * 2 / piece, tokens = 32 / pieces;  // bytes the cache fetches, of a token
  const char* const from = reinterpret_cast<const char*>(base) + lane % pieces * piece;
#pragma unroll 4
  for (int i = lane / pieces; i < device::key_tile; i += tokens) {
    const std::int64_t offset = offsets[i];
    if ((offset & 1) == 0) device::prefetch_l2(from + offset);
  }
}

// Asks the L2 cache for the page tables, each warp of the grid for some requests'. Before the wait for the kernels that may
// write lengths and tables: if they do, some lines are asked for in vain.
template <class T>
BI_D void attention_leaves_prefetch(const attention_params<T>& p, int thread, int warps) {
  if (p.view.form != device::view_form::table) return;
  constexpr int line = 32, most = 8;  // entries of a line; lines that a lane asks for
  for (std::int64_t request = std::int64_t{blockIdx.x} * warps + thread / 32; request < p.batch.requests;
       request += std::int64_t{gridDim.x} * warps) {
    const device::view_cursor cursor(p.view, request);
    const std::int32_t last = device::load_l2(p.len + request) - 1;
    const std::int32_t* const end = last >= 0 ? cursor.entry(last) : nullptr;
    if (end == nullptr) continue;
    const std::int32_t* entry = cursor.entry(0) + thread % 32 * line;
    for (int i = 0; i < most && entry <= end; ++i, entry += 32 * line) device::prefetch_l2(entry);
  }
}

// Whether the copying warps guess where their first tiles lie, if they find the share by themselves.
template <class T>
BI_D bool attention_leaves_guess(const attention_params<T>& p) {
  return p.view.form == device::view_form::table && p.k_aligned;
}

// How a warp by itself finds the block's share of all leaves. one_waits: for the kernels before, the first warp for the others.
template <class Contract, class T>
struct attention_listed_share {
  static constexpr bool one_run = false, one_waits = true;
  const attention_params<T>& p;
  int lane;

  BI_D attention_lane_lengths read() const { return attention_read_lane_lengths(p, lane); }
  BI_D attention_list find(const attention_lane_lengths& l, device::attention_walk& walk) const {
    attention_list list;
    attention_share_of_warp<Contract>(p, l, lane, walk, list.end, list.total);
    return list;
  }
  BI_D attention_lengths of(const attention_lane_lengths& l, std::int64_t request) const { return l.of(request); }
};

// Copies the share's tiles into the rings. A warp has every copy_warps-th tile of a leaf, K and V. The places of its tokens
// are looked up a leaf ahead.
template <class Contract, class T, int HeadDim, class Share, class Memory = attention_leaves_memory<Contract, HeadDim>>
class attention_leaves_source {
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = Memory;
  static constexpr int tile = Contract::tile, tiles = memory_type::tiles;
  static constexpr int own_tiles = tiles / shape::copy_warps, tokens = own_tiles * tile / 32;  // of a thread

 public:
  template <class List = attention_list>
  BI_D attention_leaves_source(const attention_params<T>& p, memory_type& memory, T* ring, int slots,
                               const device::attention_walk& walk, const List& list, const Share& share)
      : p_(p),
        memory_(memory),
        ring_(ring),
        slots_(slots),
        walk_(walk),
        share_(share),
        order_(memory, warp_),
        cursor_(p.view, walk.run.request) {
    order_.set_list(list);
  }

  // `alone`: the warp has to find the share, see attention_leaves_guess, and to wait for the kernels before.
  BI_D void copy_all(bool alone) {
    bool copied = false;
    if (alone) {
      copied = begin();
      if (walk_.run.count == 0) return;
    }
    for (bool first = true;; first = false) {
      if (!first) {
        write_offsets();
        __syncwarp();
      }
      if (!first || copied) {
        const attention_leaf_tiles present = make_attention_leaf_tiles<Contract>(item_, order_.leaf());
        copy(present, first ? own_tiles : 0);
        at_ = at_.after(present.count(), slots_);
      }
      // A warp that guessed wrong meets the others before it copies: what it waited for does not land on their tiles.
      if (first && copied) meet();
      if (!next(first && !copied)) return;
      look_up();  // what is in the rings covers that
      meet();     // no warp is two phases ahead of what it has waited for
    }
  }

 private:
  BI_D static void meet() { device::named_barrier(3, 32 * shape::copy_warps); }

  // Finds the share, and says whether the warp's tiles of K of its first leaf are on their way. Before the wait lengths and
  // page table are only a guess. K is asked for where it says, into slots that are the warp's own, and the barriers hear of
  // it when what was read after the wait agrees.
  BI_D bool begin() {
    const auto guess = share_.read();
    attention_leaf_tiles present;
    order_.set_list(share_.find(guess, walk_));
    bool guessed = walk_.run.count > 0;
    if (guessed) {
      const std::int64_t request = walk_.run.request;
      item_ = attention_request_item<Contract>(p_, request, share_.of(guess, request));
      cursor_ = device::view_cursor(p_.view, request);
      enter_run();
      head_ = walk_.run.head;
      present = make_attention_leaf_tiles<Contract>(item_, order_.leaf());
      guessed = present.begin == 0;
#pragma unroll
      for (int i = 0; i < tokens; ++i) places_[i] = place_now(i);
      write_offsets();
      __syncwarp();
      for_own_tiles(present, [&](int t) {
        attention_leaves_prefetch_tile<HeadDim>(p_.k, memory_.k_offset + t * tile, lane_);
        attention_leaves_prefetch_tile<HeadDim>(p_.v, memory_.v_offset + t * tile, lane_);
      });
    }
    if (!Share::one_waits || warp_ == 0) device::wait_for_dependencies();
    if (Share::one_waits) meet();
    const auto now = share_.read();
    bool same = guessed && now.equals(guess);
    if (guessed) {
      device::kv_place places[tokens];
#pragma unroll
      for (int i = 0; i < tokens; ++i) places[i] = place_now(i);
      for_own_tiles(present, [&](int t) {
        attention_leaves_copy_tile<HeadDim>(ring_ + t * shape::slot_values, p_.k, memory_.k_offset + t * tile, true,
                                            lane_);
      });
#pragma unroll
      for (int i = 0; i < tokens; ++i) same = same && places[i].page == places_[i].page;
    }
    same = __all_sync(device::full_warp, same) != 0;
    if (same) {
      for_own_tiles(present, [&](int t) { device::mbarrier_arrive_copied(&memory_.full[0][t]); });
    } else {
      device::cp_async_commit();
      device::cp_async_wait<0>();
      order_.set_list(share_.find(now, walk_));
    }
    return same;
  }
  template <class Each>
  BI_D void for_own_tiles(const attention_leaf_tiles& present, const Each& each) const {
    for (int t = warp_; t < present.end; t += shape::copy_warps) each(t);
  }
  // Token i of the thread's, as the page table is now.
  BI_D device::kv_place place_now(int i) const {
    const std::int64_t index = order_.leaf() * Contract::leaf + token(i);
    return index >= item_.lo && index < item_.see
               ? cursor_.look_up(index, [](const std::int32_t* entry) { return device::load_l2(entry); })
               : device::kv_place{-1, 0};
  }

  BI_D void enter_request() {
    item_ = attention_request_item<Contract>(p_, walk_.run.request);
    cursor_ = device::view_cursor(p_.view, walk_.run.request);
    const bool is_last = walk_.run.request + 1 >= p_.batch.requests;
    const std::int32_t* const next = is_last || lane_ >= 4 ? nullptr : cursor_.next_row(32 * lane_);
    if (next != nullptr) device::prefetch_l2(next);
  }
  BI_D void enter_run() {
    order_.enter(item_, walk_);
    cursor_.restart();
    const std::int64_t first = order_.leaf() * Contract::leaf;
    if (item_.lo < item_.see) cursor_.skip_to(first > item_.lo ? first : item_.lo);
  }

  // To the next leaf, if there is one, or to the first.
  BI_D bool next(bool first) {
    bool new_request = first;
    if (!first) {
      if (order_.next()) return true;
      if (Share::one_run) return false;
      if (!walk_.more()) {
        if constexpr (Memory::run_type::has_queue) return next_of_queue();
        return false;
      }
      const std::int64_t request = walk_.run.request;
      attention_share_next<Contract>(p_, walk_, order_.requests());
      new_request = walk_.run.request != request;
    }
    if (new_request) enter_request();
    enter_run();
    return true;
  }

  BI_D bool next_of_queue() {
    if (!order_.hear(walk_)) return false;
    enter_request();
    walk_.run.leaves = walk_.run.count = item_.leaves;
    enter_run();
    return true;
  }

  // The leaf's token that is number i of the thread's.
  BI_D int token(int i) const { return (warp_ + i / 2 * shape::copy_warps) * tile + i % 2 * 32 + lane_; }

  BI_D void look_up() {
    head_ = walk_.run.head;
#pragma unroll
    for (int i = 0; i < tokens; ++i) {
      const std::int64_t index = order_.leaf() * Contract::leaf + token(i);
      places_[i] = index >= item_.lo && index < item_.see ? cursor_.look_up(index) : device::kv_place{-1, 0};
    }
    // The page table comes from memory too.
    const std::int64_t ahead = order_.ahead(8) * Contract::leaf + token(0);
    const std::int32_t* const entry = ahead < item_.see ? cursor_.entry(ahead) : nullptr;
    if (entry != nullptr) device::prefetch_l2(entry);
  }

  BI_D void write_offsets() {
    constexpr auto size = static_cast<std::int64_t>(sizeof(T));
#pragma unroll
    for (int i = 0; i < tokens; ++i) {
      const device::kv_place place = cursor_.checked(places_[i]);
      const std::int64_t k = place.page * p_.k_page_stride + place.token * p_.k_token_stride + head_ * p_.k_head_stride;
      const std::int64_t v = place.page * p_.v_page_stride + place.token * p_.v_token_stride + head_ * p_.v_head_stride;
      memory_.k_offset[token(i)] = place.valid() ? k * size : 1;
      memory_.v_offset[token(i)] = place.valid() ? v * size : 1;
    }
  }

  // The warp's tiles, K and V, from a number on. One loop for all: the kernel's code should fit the instruction cache.
  BI_D void copy(const attention_leaf_tiles& present, int from) {
#pragma unroll 1
    for (int i = from; i < 2 * own_tiles; ++i) {
      const int is_v = i / own_tiles, t = warp_ + i % own_tiles * shape::copy_warps;
      if (t < present.begin || t >= present.end) continue;
      const device::ring_place at = at_.after(t - present.begin, slots_);
      const bool aligned = is_v != 0 ? p_.v_aligned : p_.k_aligned;
      device::mbarrier* const full = &memory_.full[is_v][at.slot];
      device::mbarrier_wait(device::shared_address(&memory_.empty[is_v][at.slot]), at.parity ^ 1);
      attention_leaves_copy_tile<HeadDim>(ring_ + (is_v * slots_ + at.slot) * shape::slot_values,
                                          is_v != 0 ? p_.v : p_.k,
                                          (is_v != 0 ? memory_.v_offset : memory_.k_offset) + t * tile, aligned, lane_);
      if (aligned) {
        device::mbarrier_arrive_copied(full);
      } else {
        device::mbarrier_arrive(full, 1);
      }
    }
  }

  const attention_params<T>& p_;
  memory_type& memory_;
  T* const ring_;
  const int slots_;
  const int warp_ = static_cast<int>(threadIdx.x) / 32 - shape::score_warps - shape::value_warps,
            lane_ = static_cast<int>(threadIdx.x) % 32;
  device::attention_walk walk_;
  const Share share_;
  device::attention_item item_;
  typename Memory::order_type order_;  // of the run's leaves
  std::int64_t head_ = 0;
  device::ring_place at_;
  device::view_cursor cursor_;
  device::kv_place places_[tokens];
};

}  // namespace kernel
BI_NAMESPACE_END
