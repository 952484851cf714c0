// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/wgmma.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/kernel/attention_share.cuh"

// What the warps of attention_leaves.cuh share.

BI_NAMESPACE_BEGIN
namespace kernel {

// Slots of the ring of K, and of that of V. A leaf's tiles fit: who waits for a slot's barrier has seen its phase before,
// or met someone who has.
inline constexpr int attention_leaves_least_slots = 4, attention_leaves_most_slots = 8;

inline constexpr int attention_leaves_threads = 512;

template <int HeadDim>
struct attention_leaves_shape {
  static_assert(HeadDim <= 128, "of more, 16 warps' threads would spill their 128 registers");
  static constexpr int score_warps = 8, value_warps = 4, copy_warps = 4;
  static constexpr int score_threads = 32 * score_warps, value_threads = 32 * value_warps;
  static constexpr int threads = score_threads + value_threads + 32 * copy_warps;
  static_assert(threads == attention_leaves_threads);
  static constexpr int columns = HeadDim / value_warps, blocks = columns / 8;  // of o, of a warp
  static constexpr int steps = HeadDim / 16;
  static constexpr int slot_values = device::key_tile * HeadDim;  // a tile of K or of V
};

// Of the 128 that each thread has: those who copy need fewer, those who add up V more.
template <int Registers>
BI_D void attention_leaves_move_registers() {
#if BI_WGMMA_CODE
  if constexpr (Registers < 128) {
    device::give_registers<Registers>();
  } else {
    device::take_registers<Registers>();
  }
#endif
}

// A list of leaves, as a block knows it: where its share ends, how many there are, which share it is, and how far apart a run's
// leaves are.
struct attention_list {
  std::int64_t end = 0, total = 0;
  std::int32_t number = 0, step = 1;
};

// Consecutive leaves of an item, and what they are of.
struct attention_leaves_run {
  static constexpr bool has_queue = false;  // see attention_queue.cuh
  device::attention_walk walk;              // at this run
  device::attention_row_tile rows;
  device::attention_item item;
  std::int64_t len = 0;  // of the view

  // Leaf i, as the view counts.
  BI_D std::int64_t leaf(int i) const { return item.first_leaf + walk.run.begin + i; }
  BI_D void set_list(const attention_list&) {}
  BI_D device::attention_all_requests requests() const { return {}; }
  // To the item that walk is at.
  template <class Contract, class T>
  BI_D void enter(const attention_params<T>& p, const attention_lengths& l) {
    len = l.len;
    rows = device::attention_request_rows(p.batch, walk.run.request, l.first, l.end);
    item = device::make_attention_item<Contract>(rows, len, p.causal, p.window);
  }
};

// The same for a warp that copies: leaf after leaf of its run.
class attention_consecutive_leaves {
 public:
  template <class Memory>
  BI_D attention_consecutive_leaves(const Memory&, int) {}

  BI_D void set_list(const attention_list&) {}
  BI_D device::attention_all_requests requests() const { return {}; }
  BI_D void enter(const device::attention_item& item, const device::attention_walk& walk) {
    leaf_ = item.first_leaf + walk.run.begin;
    end_ = leaf_ + walk.run.count;
  }
  BI_D bool next() { return ++leaf_ < end_; }
  BI_D std::int64_t leaf() const { return leaf_; }
  // So many after that one, if there are.
  BI_D std::int64_t ahead(int n) const { return leaf_ + n; }

 private:
  std::int64_t leaf_ = 0, end_ = 0;
};

// What becomes of a leaf's scores.
template <class Contract>
struct attention_leaf_weights {
  static constexpr int tiles = Contract::leaf / Contract::tile;
  std::uint32_t p[tiles][Contract::tile / 16][32][4];  // fragments of P
  typename Contract::half_sum sums[tiles][2][16][4];   // of half a tile's weights, of a row's lanes
  float rescale[tiles][16];
  float m[16];
};

template <class Contract, int HeadDim, class Run = attention_leaves_run>
struct attention_leaves_memory {
  using run_type = Run;
  using order_type = attention_consecutive_leaves;
  static constexpr int tiles = Contract::leaf / Contract::tile;
  std::uint32_t q[HeadDim / 16][32][4];         // fragments of the item's rows
  attention_leaf_weights<Contract> weights[2];  // of a leaf and the next one
  // Where the head of a leaf's tokens begins, in bytes, which are even; 1: nowhere, zeros.
  std::int64_t k_offset[Contract::leaf], v_offset[Contract::leaf];
  float largest[2][tiles][2][16];  // what half a tile asks for as the exponent of a row; of a leaf and the next one
  Run score_run, value_run;        // in hand
  device::mbarrier full[2][attention_leaves_most_slots], empty[2][attention_leaves_most_slots];  // of K and V
  device::mbarrier weights_full[2], weights_empty[2];
  attention_share_memory<attention_leaves_shape<HeadDim>::threads> share;

  // By all threads, which then meet. Every thread that read or wrote arrives: one for its warp would do, but racecheck
  // would not see it.
  BI_D void init(int thread, int slots) {
    using shape = attention_leaves_shape<HeadDim>;
    if (thread < slots) {
      device::mbarrier_init(&full[0][thread], 32);
      device::mbarrier_init(&full[1][thread], 32);
      device::mbarrier_init(&empty[0][thread], 2 * 32);  // a warp for each half of a tile
      device::mbarrier_init(&empty[1][thread], shape::value_threads);
    } else if (thread < slots + 2) {
      device::mbarrier_init(&weights_full[thread - slots], shape::score_threads);
      device::mbarrier_init(&weights_empty[thread - slots], shape::value_threads);
    }
  }
};
// Where rings begin in shared memory behind so many bytes, and where they end.
constexpr int attention_rings_begin(std::size_t bytes) { return (static_cast<int>(bytes) + 127) / 128 * 128; }
template <int HeadDim>
constexpr int attention_rings_end(int begin, int slots) {
  return begin + 2 * slots * attention_leaves_shape<HeadDim>::slot_values * 2;
}
template <class Contract, int HeadDim>
inline constexpr int attention_leaves_ring_at =
    attention_rings_begin(sizeof(attention_leaves_memory<Contract, HeadDim>));
template <class Contract, int HeadDim>
constexpr int attention_leaves_bytes(int slots) {
  return attention_rings_end<HeadDim>(attention_leaves_ring_at<Contract, HeadDim>, slots);
}

// The tiles of a leaf that any row of the item sees, [begin, end) of its own.
struct attention_leaf_tiles {
  int begin = 0, end = 0;

  BI_D int count() const { return end - begin; }
};
template <class Contract>
BI_D attention_leaf_tiles make_attention_leaf_tiles(const device::attention_item& item, std::int64_t leaf) {
  attention_leaf_tiles t;
  if (item.lo >= item.see) return t;
  const auto first = static_cast<std::int32_t>(leaf) * Contract::leaf;
  t.begin = item.lo > first ? (item.lo - first) / Contract::tile : 0;
  t.end = item.see - first < Contract::leaf ? (item.see - first + Contract::tile - 1) / Contract::tile
                                            : Contract::leaf / Contract::tile;
  return t;
}

// A group of warps that walks the share: its run, in shared memory, and what the thread's rows see. Thread 0 is its first.
template <class Contract, class T, class Run, int Threads, int Barrier>
class attention_leaves_walker {
 public:
  BI_D attention_leaves_walker(const attention_params<T>& p, Run& run, int thread)
      : p_(p), run_(run), warp_(thread / 32), lane_(thread % 32) {}

  BI_D const Run& run() const { return run_; }
  BI_D int row(int h) const { return 8 * h + lane_ / 4; }

 protected:
  static constexpr int tile = Contract::tile;
  static_assert(tile == device::key_tile, "the kernel's tiles are the contract's");

  BI_D void meet() const { device::named_barrier(Barrier, Threads); }

  template <class List = attention_list>
  BI_D void begin(const device::attention_walk& walk, const List& list) {
    if (warp_ == 0 && lane_ == 0) {
      run_.walk = walk;
      run_.set_list(list);
      find_item();
    }
    meet();
    find_rows();
  }
  // The same of the one item that the block's cluster has. Before the wait for the kernels ahead lengths are a guess. aim():
  // what can be done for it then. ask() starts reading what they may have written; both come again if the guess was wrong.
  // guess: the group's, in shared memory.
  template <class Share, class Aim, class Ask>
  BI_D void begin(const Share& share, attention_lengths& guess, const Aim& aim, const Ask& ask) {
    const bool writes = warp_ == 0 && lane_ == 0;
    attention_lengths now;
    if (writes) now = share.read();
    for (bool sure = false;;) {
      if (writes) {
        guess = now;
        share.find(now, run_.walk);
        run_.template enter<Contract>(p_, now);
      }
      meet();
      find_rows();
      aim();
      if (!sure) device::wait_for_dependencies();
      ask();
      if (sure) return;
      now = share.read();
      if (now.equals(guess)) return;
      sure = true;
      meet();  // all have read it
    }
  }
  // To the next run, if there is one. Only another request costs reads of lengths.
  BI_D bool next() {
    if constexpr (Run::has_queue) return next_of_queue();
    if (!run_.walk.more()) return false;
    const std::int64_t request = run_.walk.run.request;
    meet();  // all have read it
    if (warp_ == 0 && lane_ == 0) {
      attention_share_next<Contract>(p_, run_.walk);
      if (run_.walk.run.request != request) find_item();
    }
    meet();
    if (run_.walk.run.request != request) find_rows();
    return true;
  }

  BI_D std::int64_t leaf(int i) const { return run_.leaf(i); }
  BI_D bool sees_all(std::int32_t first) const {
    const auto sees = [&](int h) { return lo_[h] <= first && see_[h] - first >= Contract::leaf; };
    return __all_sync(device::full_warp, sees(0) && sees(1)) != 0;
  }

  // What the thread's rows see of a tile: [begin, end) of its keys.
  struct tile_view {
    int begin[2], end[2];
    bool whole;  // both rows see all of it

    BI_D bool sees(int h) const { return begin[h] < end[h]; }
  };
  // Whole: the rows are known to see all of it.
  template <bool Whole>
  BI_D tile_view view(std::int32_t first) const {
    tile_view v = {{0, 0}, {tile, tile}, true};
    if constexpr (!Whole) {
      first = device::opaque(first);  // not kept from one use to the next: too many registers
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        v.begin[h] = in_tile(lo_[h], first);
        v.end[h] = in_tile(see_[h], first);
      }
      // Not end[h] == tile: ptxas 13.0 takes the comparison of a clamped value with its upper bound for true.
      v.whole = lo_[0] <= first && lo_[1] <= first && see_[0] - first >= tile && see_[1] - first >= tile;
    }
    return v;
  }

  const attention_params<T>& p_;
  Run& run_;
  int warp_, lane_;
  std::int32_t lo_[2], see_[2];

 private:
  BI_D bool next_of_queue() {
    meet();  // all have read the run
    if (warp_ == 0 && lane_ == 0) run_.template advance<Contract>(p_);
    meet();
    if (run_.walk.run.count == 0) return false;
    find_rows();
    return true;
  }
  BI_D void find_item() {
    const std::int64_t request = run_.walk.run.request;
    run_.template enter<Contract>(p_, attention_lengths_of(p_, request));
  }
  BI_D void find_rows() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const contract::attention_range seen = attention_row_range<Contract>(p_, run_.rows, run_.len, row(h));
      lo_[h] = static_cast<std::int32_t>(seen.lo);
      see_[h] = static_cast<std::int32_t>(seen.see);
    }
  }

  // An index of the view as a key of the tile that begins at `first`, or the tile's end that is nearer.
  BI_D static int in_tile(std::int32_t index, std::int32_t first) {
    return index <= first ? 0 : index - first < tile ? index - first : tile;
  }
};

}  // namespace kernel
BI_NAMESPACE_END
