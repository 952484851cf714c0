// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
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
  constexpr int group = 8;  // offsets that are read before the first is used
#pragma unroll 1
  for (int i = 0; i < tokens; i += group) {
    std::int64_t offset[group];
#pragma unroll
    for (int j = 0; j < group; ++j) offset[j] = offsets[first + i + j];
#pragma unroll
    for (int j = 0; j < group; ++j) {
      device::cp_async_16(target(i + j), from + (offset[j] & ~std::int64_t{1}), (offset[j] & 1) != 0 ? 0 : 16);
    }
  }
}

// Copies the share's tiles into the rings. A warp has every copy_warps-th tile of a leaf, K and V. The places of its tokens
// are looked up a leaf ahead.
template <class Contract, class T, int HeadDim>
class attention_leaves_source {
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = attention_leaves_memory<Contract, HeadDim>;
  static constexpr int tile = Contract::tile, tiles = memory_type::tiles;
  static constexpr int own_tiles = tiles / shape::copy_warps, tokens = own_tiles * tile / 32;  // of a thread

 public:
  BI_D attention_leaves_source(const attention_params<T>& p, memory_type& memory, T* ring, int slots,
                               const device::attention_walk& walk)
      : p_(p), memory_(memory), ring_(ring), slots_(slots), walk_(walk), cursor_(p.view, walk.run.request) {}

  BI_D void copy_all() {
    for (bool first = true;; first = false) {
      attention_leaf_tiles present;
      if (!first) {
        present = make_attention_leaf_tiles<Contract>(item_, leaf_);
        write_offsets();
        __syncwarp();
      }
      const bool more = next(first);
      if (more) look_up();
      copy(present);
      if (!more) return;
      at_ = at_.after(present.count(), slots_);
      device::named_barrier(3, 32 * shape::copy_warps);  // no warp is two phases ahead of what it has waited for
    }
  }

 private:
  BI_D void enter_request() {
    item_ = attention_request_item<Contract>(p_, walk_.run.request);
    cursor_ = device::view_cursor(p_.view, walk_.run.request);
    const bool is_last = walk_.run.request + 1 >= p_.batch.requests;
    const std::int32_t* const next = is_last || lane_ >= 4 ? nullptr : cursor_.next_row(32 * lane_);
    if (next != nullptr) device::prefetch_l2(next);
  }
  BI_D void enter_run() {
    leaf_ = item_.first_leaf + walk_.run.begin;
    end_leaf_ = leaf_ + walk_.run.count;
    cursor_.restart();
    const std::int64_t first = leaf_ * Contract::leaf;
    if (item_.lo < item_.see) cursor_.skip_to(first > item_.lo ? first : item_.lo);
  }

  // To the next leaf, if there is one, or to the first.
  BI_D bool next(bool first) {
    bool new_request = first;
    if (!first) {
      if (++leaf_ < end_leaf_) return true;
      if (!walk_.more()) return false;
      const std::int64_t request = walk_.run.request;
      attention_share_next<Contract>(p_, walk_);
      new_request = walk_.run.request != request;
    }
    if (new_request) enter_request();
    enter_run();
    return true;
  }

  // The leaf's token that is number i of the thread's.
  BI_D int token(int i) const { return (warp_ + i / 2 * shape::copy_warps) * tile + i % 2 * 32 + lane_; }

  BI_D void look_up() {
    head_ = walk_.run.head;
#pragma unroll
    for (int i = 0; i < tokens; ++i) {
      const std::int64_t index = leaf_ * Contract::leaf + token(i);
      places_[i] = index >= item_.lo && index < item_.see ? cursor_.look_up(index) : device::kv_place{-1, 0};
    }
    // The page table comes from memory too.
    const std::int64_t ahead = (leaf_ + 8) * Contract::leaf + token(0);
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

  // The warp's tiles, K and V. One loop for all: the kernel's code should fit the instruction cache.
  BI_D void copy(const attention_leaf_tiles& present) {
#pragma unroll 1
    for (int i = 0; i < 2 * own_tiles; ++i) {
      const int is_v = i / own_tiles, t = warp_ + i % own_tiles * shape::copy_warps;
      if (t < present.begin || t >= present.end) continue;
      const attention_ring_place at = at_.after(t - present.begin, slots_);
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
  device::attention_item item_;
  std::int64_t leaf_ = 0, end_leaf_ = 0, head_ = 0;
  attention_ring_place at_;
  device::view_cursor cursor_;
  device::kv_place places_[tokens];
};

}  // namespace kernel
BI_NAMESPACE_END
