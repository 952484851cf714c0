// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_prefill.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/pack.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/ptx/wgmma.cuh"
#include "bi/device/ptx/wgmma_registers.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/kernel/attention_shared_memory.cuh"
#include "bi/kernel/attention_shared_source.cuh"
#include "bi/kernel/attention_shared_tables.cuh"

// Attention of requests whose views begin alike, on Hopper: leaves that several requests share are read once, for the
// packed rows of all of them together. A thread block walks its share of the list of attention_shared_list.cuh: four warps
// find and copy Q and tiles of 64 keys, two groups of four warps multiply 64 rows each by wgmma. No leaf is folded here: a
// partial result of each row and leaf goes to the workspace, where attention_shared_fold.cuh finds it.
//
// Rows are independent and leaves lie at absolute places of the view, so a row's leaf has the same bits whatever it is
// packed with.

BI_NAMESPACE_BEGIN
namespace kernel {

// 64 rows of each of the block's runs.
template <class Contract, class T, int HeadDim>
class attention_shared_rows {
  using shape = attention_shared_shape<HeadDim>;
  using memory_type = attention_shared_memory<Contract, HeadDim>;
  using item_type = attention_shared_item<shape::rows>;
  using place = device::ring_place;
  static constexpr int tile = Contract::tile, leaf_tiles = Contract::leaf / tile, values = HeadDim / 2;
  static_assert(tile == device::key_tile && tile == 64, "the kernel's tiles are the contract's");

 public:
  BI_D attention_shared_rows(const attention_shared_params<T>& p, memory_type& memory, unsigned char* q,
                             unsigned char* ring)
      : p_(p), memory_(memory), q_(q), ring_(ring), scale_(Contract::prepare(p.a.scale, p.a.soft_cap)) {
    warp_ = __shfl_sync(device::full_warp, static_cast<int>(threadIdx.x) / 32, 0);
    lane_ = static_cast<int>(threadIdx.x) % 32;
  }

  // Once through the code with nothing to wait for and nothing to write, to have it in the cache when the first tile comes;
  // then the runs.
  BI_D void walk_all() {
    memory_.nothing.imagine(static_cast<int>(threadIdx.x));
    device::named_barrier(attention_shared_row_barrier, shape::row_threads);
    item_ = &memory_.nothing;
    for (is_dry_ = true;;) {
      if (!is_dry_) {
        device::mbarrier_wait(q_barrier(memory_.full), q_at_.parity);
        device::fence_proxy_async();  // Q came as if by ordinary stores
        item_ = &memory_.item[q_at_.slot];
      }
      if (item().rows == 0) return;
      walk_run();
      if (is_dry_) {
        is_dry_ = false;
        k_at_ = v_at_ = k_next_ = {};
        continue;
      }
      __syncwarp();
      if (device::arrives_for_warp(lane_)) device::mbarrier_arrive(q_barrier(memory_.empty));
      q_at_.next(2);
    }
  }

 private:
  BI_D int group() const { return warp_ / 4; }
  BI_D int row(int h) const { return 16 * warp_ + 8 * h + lane_ / 4; }  // of the item
  BI_D const item_type& item() const { return *item_; }

  BI_D std::uint32_t q_barrier(const device::mbarrier* all) const {
    return device::shared_address(&all[memory_type::barrier(2, q_at_.slot)]);
  }

  // The rows of a run that has no more than one group's are there twice: the groups have every other leaf each.
  BI_D void walk_run() {
    const bool twice = item().twice;
    const int last = item().end_tile;
    for (int t = item().first_tile; t < last;) {
      const int leaf = t / leaf_tiles, next = (leaf + 1) * leaf_tiles, end = twice && next < last ? next : last;
      if (!twice || leaf % 2 == group()) {
        walk_tiles(t, end);
      } else {
        for (int i = t; i < end; ++i) skip_tile();
      }
      t = end;
    }
  }
  // Of a leaf that is the other group's.
  BI_D void skip_tile() {
    for (int i = 0; i < 2; ++i) {
      place& at = i == 0 ? k_at_ : v_at_;
      wait_full(i, at);
      __syncwarp();  // nobody waits for this phase any more
      release(i, at);
      at.next(shape::stages);
    }
    k_next_ = k_at_;
  }

  // Most tiles are seen by all rows, all of them; others come first or last.
  BI_D void walk_tiles(int begin, int stop) {
    const int first_whole = (item().all_lo + (tile - 1)) / tile, last = item().all_see / tile;
    const int end_whole = last < stop ? last : stop;
    begin_ = begin;
    rows_.reset_leaf();
    for (int t = begin; t < stop;) {
      if (t % 2 == 0 && t >= first_whole && t < end_whole) {
        walk_whole(t, end_whole);
        t = end_whole;
      } else {
        walk_one(t);
        ++t;
      }
      if (t % leaf_tiles == 0 || t == stop) give(t - 1, rows_);
    }
  }
  BI_D bool is_fresh(int t) const { return t == begin_ || t % leaf_tiles == 0; }

  // While softmax makes weights of a tile's scores, the tensor core multiplies V by the weights of the tile before and
  // makes the scores of the tile after. `first` is even, so leaves end in every other step at most.
  BI_D void walk_whole(int first, int end) {
    float even[tile / 2], odd[tile / 2];  // scores: of two tiles on their way
    start_scores(even, true);
    start_scores(odd, first + 1 < end);
    device::wgmma_wait<1>();
    device::wgmma_hold(even);
    end_scores();
    float rescale[2];
    if (weigh(even, first, rescale)) this->rescale(rescale);
    pack(even);
    int t = first;
    for (;;) {
      if (t + 1 >= end) {
        stop_step(t, odd);
        break;
      }
      step<0>(t, end, odd, even);
      ++t;
      if (t + 1 >= end) {
        stop_step(t, even);
        break;
      }
      step<1>(t, end, even, odd);
      ++t;
    }
  }
  // The weights of tile t are packed, the scores of the next one in s or on their way there; `after` is free.
  template <int Turn>
  BI_D void step(int t, int end, float (&s)[tile / 2], float (&after)[tile / 2]) {
    asm volatile("// turn %0" : : "n"(Turn));  // or both become one, with s and after exchanged while they are made
    const device::attention_row_pair leaf = rows_;  // tile t's, which may be its last
    float rescale[2];
    start_values(is_fresh(t));
    start_scores(after, t + 2 < end);
    device::wgmma_wait<2>();
    device::wgmma_hold(s);
    end_scores();
    const bool moves = weigh(s, t + 1, rescale);
    device::wgmma_hold(s);  // weights are made before the wait, not after
    device::wgmma_wait<1>();
    hold_values();
    end_values();
    if (Turn == 1 && (t + 1) % leaf_tiles == 0) {
      give(t, leaf);
    } else if (moves) {
      this->rescale(rescale);
    }
    pack(s);
  }
  // Of the last tile. s: scores that nobody will look at.
  BI_D void stop_step(int t, float (&s)[tile / 2]) {
    start_values(is_fresh(t));
    device::wgmma_wait<0>();
    device::wgmma_hold(s);
    hold_values();
    end_values();
  }

  // A tile of which rows may see some keys or none; or an odd one at first.
  BI_D void walk_one(int t) {
    float s[tile / 2];
    start_scores(s, true);
    device::wgmma_wait<0>();
    device::wgmma_hold(s);
    end_scores();
    if (t % leaf_tiles == 0) rows_.reset_leaf();
    int from[2], to[2];
    find_keys(t, from, to);
    std::uint64_t visible[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) visible[h] = device::attention_key_mask(from[h], to[h], lane_);
    float rescale[2];
    const bool sees[2] = {from[0] < to[0], from[1] < to[1]};
    if (device::attention_weigh_masked<Contract>(rows_, s, rescale, scale_, visible, sees)) this->rescale(rescale);
    pack(s);
    wait_full(1, v_at_);
    if (hides_nonfinite(t)) {
      add_masked(t, is_fresh(t));
    } else {
      start_values(is_fresh(t));
      device::wgmma_wait<0>();
      hold_values();
    }
    end_values();
  }
  // Of a fresh leaf nobody looks at o yet.
  BI_D void rescale(const float (&by)[2]) {
#pragma unroll
    for (int i = 0; i < values; ++i) o_[i] = mul_rn(o_[i], by[i % 4 / 2]);
  }
  // Closes the leaf of tile t. Of rows that see none of it anything goes to the workspace.
  BI_D void give(int t, const device::attention_row_pair& rows) const {
    const auto step = static_cast<std::uint32_t>(t / leaf_tiles - item().first_tile / leaf_tiles);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float l[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) l[i] = __shfl_sync(device::full_warp, rows.leaf_l[h], (lane_ & ~3) + i);
      const float m = rows.leaf_m[h];
      const std::uint32_t first = item().place[row(h)], at = first + step;
      if (first == item_type::nowhere || at >= p_.partials.count) continue;
      if (lane_ % 4 == 0) {
        reinterpret_cast<float2*>(p_.partials.ml)[at] = make_float2(m, Contract::close(m, l[0], l[1], l[2], l[3]));
      }
      float* const o = p_.partials.o + std::uint64_t{at} * HeadDim + lane_ % 4 * 4;
#pragma unroll
      for (int j = 0; j < values; j += 8) {  // see attention_shared_column
        *reinterpret_cast<float4*>(o + 2 * j) =
            make_float4(Contract::close_o(m, o_[j + 2 * h]), Contract::close_o(m, o_[j + 2 * h + 1]),
                        Contract::close_o(m, o_[j + 4 + 2 * h]), Contract::close_o(m, o_[j + 5 + 2 * h]));
      }
    }
  }
  BI_D void hold_values() {
    device::wgmma_hold(o_);
    device::wgmma_hold(p_tile_);
  }
  // o += P V, or P V if o is +0 so far.
  BI_D void start_values(bool fresh) {
    wait_full(1, v_at_);
    hold_values();
    device::wgmma_fence();
    device::wgmma_m64k64_registers<T, HeadDim>(o_, p_tile_, v_operand(), !fresh);
    device::wgmma_commit();
  }
  // S = Q K^T from +0, of the next tile whose scores have not been asked for. If there is none, of anything: nobody looks.
  BI_D void start_scores(float (&s)[tile / 2], bool exists) {
    if (exists) wait_full(0, k_next_);
    const std::uint64_t q = device::wgmma_operand(
        device::shared_address(q_) + static_cast<std::uint32_t>(q_at_.slot * shape::q_bytes + 64 * group() * 128),
        1024);
    const std::uint64_t k = device::wgmma_operand(tile_address(0, k_next_), 1024);
#pragma unroll
    for (int i = 0; i < tile / 2; ++i) asm volatile("" : "=f"(s[i]));  // nothing of what they were is kept
    device::wgmma_fence();
#pragma unroll
    for (int part = 0; part < HeadDim / device::tile_width; ++part) {
      device::wgmma_m64k64<T, tile, 0, 0>(s, q + static_cast<std::uint64_t>(part * shape::q_part_bytes / 16),
                                          k + static_cast<std::uint64_t>(part * shape::part_bytes / 16), part > 0);
    }
    device::wgmma_commit();
    if (exists) k_next_.next(shape::stages);
  }
  // The first scores that were asked for are there; nobody needs the tile of V any more.
  BI_D void end_scores() {
    release(0, k_at_);
    k_at_.next(shape::stages);
  }
  BI_D void end_values() {
    release(1, v_at_);
    v_at_.next(shape::stages);
  }
  BI_D std::uint64_t v_operand() const { return device::wgmma_operand(tile_address(1, v_at_), shape::part_bytes); }
  BI_D std::uint32_t tile_offset(int which, const place& at) const {
    return static_cast<std::uint32_t>((which * shape::stages + at.slot) * shape::tile_bytes);
  }
  BI_D std::uint32_t tile_address(int which, const place& at) const {
    return device::shared_address(ring_) + tile_offset(which, at);
  }
  // An index of the view as a key of the tile that begins at `first`, or the tile's end that is nearer.
  BI_D static int in_tile(std::int32_t index, std::int32_t first) {
    return index <= first ? 0 : index - first < tile ? index - first : tile;
  }
  BI_D bool weigh(float (&s)[tile / 2], int t, float (&rescale)[2]) {
    if (t % leaf_tiles == 0) rows_.reset_leaf();
    return device::attention_weigh_whole<Contract, false>(rows_, s, rescale, scale_);
  }
  // The keys of a tile that the thread's rows see.
  BI_D void find_keys(int t, int (&begin)[2], int (&end)[2]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      begin[h] = in_tile(item().row_lo[row(h)], t * tile);
      end[h] = in_tile(item().row_see[row(h)], t * tile);
    }
  }

  BI_D void pack(const float (&s)[tile / 2]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) p_tile_[i / 4][i % 4] = device::pack_rn<T>(s[2 * i], s[2 * i + 1]);
  }

  // Whether the tile's V has an Inf or NaN, and a key that was loaded and not all rows see.
  BI_D bool hides_nonfinite(int t) const {
    const std::int32_t first = t * tile, last = first + (tile - 1);
    const std::int32_t lo = item().lo, see = item().see;
    if (item().all_lo <= (lo > first ? lo : first) && item().all_see > (see <= last ? see - 1 : last)) return false;
    T* const v = reinterpret_cast<T*>(ring_ + tile_offset(1, v_at_));
    const bool hides = device::attention_nonfinite_keys<HeadDim>(v, lane_) != 0;
    __syncwarp();  // all have read V, which may be released next
    return hides;
  }
  BI_D void add_masked(int t, bool fresh) {
    T* const v = reinterpret_cast<T*>(ring_ + tile_offset(1, v_at_));
    if (fresh) {
#pragma unroll
      for (int i = 0; i < values; ++i) o_[i] = 0.0f;
    }
    add_masked_values<0, values / 2>(t, v);
    add_masked_values<values / 2, values>(t, v);
    __syncwarp();  // all have read V
  }
  template <int First, int Last>
  BI_D void add_masked_values(int t, T* v) {
#pragma unroll 1
    for (int r = 0; r < 16; ++r) {
      const int begin = in_tile(item().row_lo[16 * warp_ + r], t * tile);
      const int end = in_tile(item().row_see[16 * warp_ + r], t * tile);
      if (begin < end) device::attention_add_masked_row<First, Last>(o_, p_tile_, v, r, begin, end, lane_);
    }
  }

  BI_D void wait_full(int which, const place& at) const {
    if (is_dry_) return;
    device::mbarrier_wait(device::shared_address(&memory_.full[memory_type::barrier(which, at.slot)]), at.parity);
    if (p_.box == 0) device::fence_proxy_async();
  }
  BI_D void release(int which, const place& at) {
    if (device::arrives_for_warp(lane_) && !is_dry_) {
      device::mbarrier_arrive(&memory_.empty[memory_type::barrier(which, at.slot)], 1);
    }
  }

  const attention_shared_params<T>& p_;
  memory_type& memory_;
  unsigned char *const q_, *const ring_;
  const contract::attention_scale scale_;
  const item_type* item_ = nullptr;
  int warp_, lane_, begin_ = 0;  // begin_: the first tile of the walk
  bool is_dry_ = false;
  place q_at_, k_at_, v_at_, k_next_;  // k_next_: of the scores to ask for, k_at_: of those to wait for
  device::attention_row_pair rows_;
  float o_[values];  // of the leaf in progress
  std::uint32_t p_tile_[tile / 16][4];
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_shared_shape<HeadDim>::threads,
                            1) void attention_shared_kernel(const __grid_constant__ attention_shared_params<T> p) {
#if BI_WGMMA_CODE
  using shape = attention_shared_shape<HeadDim>;
  extern __shared__ unsigned char dynamic_shared[];
  __shared__ attention_shared_memory<Contract, HeadDim> memory;
  unsigned char* const q = dynamic_shared + (1024 - device::shared_address(dynamic_shared) % 1024) % 1024;
  unsigned char* const ring = q + 2 * shape::q_bytes;
  device::launch_dependents();  // the folding blocks wait for the end of this kernel
  if (threadIdx.x == 0) memory.init(p.box > 0);
  __syncthreads();
  if (threadIdx.x < shape::row_threads) {
    device::take_registers<216>();
    attention_shared_rows<Contract, T, HeadDim>(p, memory, q, ring).walk_all();
    return;
  }
  device::give_registers<72>();
  device::wait_for_dependencies();
  const attention_shared_tables tables = {reinterpret_cast<std::int32_t*>(ring + 2 * shape::stages * shape::tile_bytes),
                                          static_cast<std::int32_t>(p.a.batch.requests), p.groups.count};
  attention_shared_filler<Contract, T, shape::rows>(p, tables, static_cast<int>(threadIdx.x) - shape::row_threads)
      .fill();
  if (threadIdx.x < shape::row_threads + shape::find_threads) {
    attention_shared_finder<Contract, T, HeadDim>(p, memory, tables).find_all();
  } else {
    attention_shared_copier<Contract, T, HeadDim>(p, memory, q, ring).copy_all();
  }
#else
  __trap();
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
