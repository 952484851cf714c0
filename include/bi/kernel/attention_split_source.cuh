// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/row.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Where the tiles of attention_split.cuh come from: the copies of a block's share of all leaves into its ring.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int attention_split_max_stages = 8;

template <int HeadDim, int RowWarps>
struct attention_split_shape {
  static constexpr int warps = 8, copy_warps = 2;
  static constexpr int compute_threads = 32 * warps, copy_threads = 32 * copy_warps;
  static constexpr int threads = compute_threads + copy_threads, column_warps = warps / RowWarps;
  static constexpr int columns = HeadDim / column_warps;  // of o, of a warp
  static constexpr int rows = 16 * RowWarps, blocks = columns / 8;
  static constexpr int tile_values = device::key_tile * HeadDim;
};

// A run that copies or products are under way of.
struct attention_split_run {
  device::attention_row_tile rows;
  device::attention_walk walk;  // at this run
  std::int32_t lo, see;         // of the item
  std::int32_t first_tile, end_tile;
};

template <class T, int HeadDim, int RowWarps>
struct attention_split_memory {
  T q[2][16 * RowWarps * HeadDim];  // of the run in hand and the next one
  std::int64_t k_offset[2][device::key_tile], v_offset[2][device::key_tile];
  attention_split_run runs[2];
  attention_share_memory<attention_split_shape<HeadDim, RowWarps>::threads> share;
  std::int32_t orders[2];            // the copiers' to those who compute, of an iteration
  float o[16 * RowWarps * HeadDim];  // of the closed leaves, [value][thread]
};
template <class T, int HeadDim, int RowWarps>
inline constexpr int attention_split_ring_at = (static_cast<int>(sizeof(attention_split_memory<T, HeadDim, RowWarps>)) +
                                                127) /
                                               128 * 128;
template <class T, int HeadDim, int RowWarps>
constexpr int attention_split_bytes(int stages) {
  return attention_split_ring_at<T, HeadDim, RowWarps> + stages * 2 * device::key_tile * HeadDim * 2;
}

// Waits until at most `pending` of the thread's groups of copies are under way, or fewer.
BI_D inline void attention_wait_copies(int pending) {
  switch (pending) {
    case 1:
      return device::cp_async_wait<1>();
    case 2:
      return device::cp_async_wait<2>();
    case 3:
      return device::cp_async_wait<3>();
    case 4:
      return device::cp_async_wait<4>();
    case 5:
      return device::cp_async_wait<5>();
    case 6:
      return device::cp_async_wait<6>();
    default:
      return device::cp_async_wait<0>();
  }
}

// The tiles of a block's share in order: where their tokens lie, and the copies into the ring.
template <class Contract, class T, int HeadDim, int RowWarps>
class attention_split_source {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  using memory_type = attention_split_memory<T, HeadDim, RowWarps>;
  static constexpr int tile = device::key_tile;
  static_assert(shape::copy_threads == tile, "a token of the tile for each thread");

 public:
  BI_D attention_split_source(const attention_params<T>& p, memory_type& memory, T* ring, int stages,
                              const device::attention_walk& walk)
      : p_(p),
        memory_(memory),
        ring_(ring),
        thread_(static_cast<int>(threadIdx.x) - shape::compute_threads),
        stages_(stages),
        cursor_(p.view, walk.run.request) {
    enter(walk);
  }

  // Tiles whose copies have begun, and runs whose tiles have all been looked up but for the current one's.
  BI_D int issued() const { return issued_; }
  BI_D bool more(int run) const { return ready_ || pending_ || may_look_up(run); }

  // One iteration, after a barrier. `run`: the run in hand; its q and the next one's are in memory, no others.
  BI_D void step(int run) {
    if (ready_) copy();
    ready_ = pending_;
    ready_run_ = pending_run_;
    if (pending_) write_places();
    pending_ = may_look_up(run);
    if (pending_) look_up();
  }

 private:
  BI_D bool may_look_up(int run) const { return tile_ < end_tile_ || (more_ && runs_ < run + 2); }

  // Begins walk.run.
  BI_D void enter(const device::attention_walk& walk) {
    const device::attention_row_tile rows = device::attention_request_rows(p_.batch, walk.run.request);
    const device::attention_item item =
        device::make_attention_item<Contract>(rows, p_.len[walk.run.request], p_.causal, p_.window);
    constexpr int leaf_tiles = Contract::leaf / tile;
    const std::int64_t first = (item.first_leaf + walk.run.begin) * leaf_tiles;
    const std::int64_t end = first + walk.run.count * leaf_tiles;
    // A row that sees nothing gets a tile without keys.
    const int seen_first = item.lo / tile, seen_end = item.lo < item.see ? (item.see - 1) / tile + 1 : seen_first + 1;
    lo_ = item.lo;
    see_ = item.see;
    tile_ = static_cast<int>(first > seen_first ? first : seen_first);
    end_tile_ = static_cast<int>(end < seen_end ? end : seen_end);
    more_ = walk.more();
    if (thread_ == 0) memory_.runs[runs_ % 2] = {rows, walk, lo_, see_, tile_, end_tile_};
    ++runs_;
    first_of_run_ = true;
    cursor_ = device::view_cursor(p_.view, walk.run.request);
    if (lo_ < see_) cursor_.skip_to(tile_ * tile > lo_ ? tile_ * tile : lo_);
  }

  BI_D void look_up() {
    if (tile_ == end_tile_) {
      device::attention_walk walk = memory_.runs[(runs_ - 1) % 2].walk;
      attention_share_next<Contract>(p_, walk);
      enter(walk);
    }
    pending_run_ = first_of_run_ ? runs_ : -runs_;  // counted from 1; positive: q is needed too
    first_of_run_ = false;
    const std::int32_t index = tile_ * tile + thread_;
    place_ = index >= lo_ && index < see_ ? cursor_.place(index) : device::kv_place{-1, 0};
    ++tile_;
  }

  BI_D void write_places() {
    const int run = (pending_run_ > 0 ? pending_run_ : -pending_run_) - 1;
    const std::int64_t head = memory_.runs[run % 2].walk.run.head;
    const bool valid = place_.valid();
    memory_.k_offset[parity_][thread_] =
        valid ? place_.page * p_.k_page_stride + place_.token * p_.k_token_stride + head * p_.k_head_stride : -1;
    memory_.v_offset[parity_][thread_] =
        valid ? place_.page * p_.v_page_stride + place_.token * p_.v_token_stride + head * p_.v_head_stride : -1;
    parity_ ^= 1;
  }

  BI_D void copy() {
    T* target = ring_ + stage_ * 2 * shape::tile_values;
    const std::int64_t* k = memory_.k_offset[parity_ ^ 1];
    const std::int64_t* v = memory_.v_offset[parity_ ^ 1];
    device::gather_tile<tile, HeadDim, shape::copy_threads>(target, p_.k, p_.k_aligned, thread_,
                                                            [&](int j) { return k[j] >= 0 ? p_.k + k[j] : nullptr; });
    device::gather_tile<tile, HeadDim, shape::copy_threads>(target + shape::tile_values, p_.v, p_.v_aligned, thread_,
                                                            [&](int j) { return v[j] >= 0 ? p_.v + v[j] : nullptr; });
    if (ready_run_ > 0) {
      const attention_split_run& r = memory_.runs[(ready_run_ - 1) % 2];
      const T* q = p_.q + r.rows.first_row * p_.q_token_stride + r.walk.run.head * r.rows.group * p_.q_head_stride;
      device::gather_tile<shape::rows, HeadDim, shape::copy_threads>(
          memory_.q[(ready_run_ - 1) % 2], p_.q, p_.q_aligned, thread_, [&](int i) {
            return i < r.rows.rows ? q + r.rows.token(i) * p_.q_token_stride + r.rows.head(i) * p_.q_head_stride
                                   : nullptr;
          });
    }
    device::cp_async_commit();
    ++issued_;
    stage_ = stage_ + 1 == stages_ ? 0 : stage_ + 1;
  }

  const attention_params<T>& p_;
  memory_type& memory_;
  T* ring_;
  int thread_;
  int stages_, stage_ = 0, issued_ = 0, parity_ = 0;
  int runs_ = 0;  // begun
  bool more_ = false, first_of_run_ = false, pending_ = false, ready_ = false;
  int pending_run_ = 0, ready_run_ = 0;
  std::int32_t lo_ = 0, see_ = 0;
  int tile_ = 0, end_tile_ = 0;
  device::view_cursor cursor_;
  device::kv_place place_{-1, 0};
};

}  // namespace kernel
BI_NAMESPACE_END
