// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_prefill.cuh"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/wgmma.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/device/vector.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_prefill_memory.cuh"
#include "bi/kernel/attention_prefill_products.cuh"
#include "bi/kernel/attention_prefill_source.cuh"

// Attention of many rows on Hopper: prefill, chunks of it, long verification. A thread block walks tiles of 128 packed
// rows (bi/device/attention_rows.cuh) of one request and KV head. Four warps copy Q and tiles of 64 keys into shared
// memory; groups of four warps, 64 rows each, multiply on the tensor core and do softmax in between.
//
// The order of a row's arithmetic is attention_mma.cuh's. wgmma gives mma.sync's bits, and a step whose products are
// zeros leaves an accumulator as it is, so that rows which don't see a tile take part with weights of +0.

BI_NAMESPACE_BEGIN
namespace kernel {

// 64 rows of each of the block's items.
template <class Contract, class T, int HeadDim>
class attention_prefill_rows : attention_prefill_products<Contract, T, HeadDim> {
  using base = attention_prefill_products<Contract, T, HeadDim>;
  using shape = attention_prefill_shape<HeadDim>;
  using memory_type = attention_prefill_memory<Contract, HeadDim>;
  using place = device::ring_place;
  static constexpr int tile = base::tile, leaf_tiles = Contract::leaf / tile, values = base::values;
  using base::add_values, base::end_values, base::group, base::first_row, base::make_scores, base::pack;
  using base::release_next, base::start_both, base::tile_offset, base::wait_both, base::wait_full;
  using base::memory_, base::q_, base::ring_, base::q_at_, base::k_at_, base::v_at_, base::warp_, base::lane_;
  using base::s_, base::o_, base::p_tile_;

 public:
  BI_D attention_prefill_rows(const attention_params<T>& p, memory_type& memory, unsigned char* q, unsigned char* ring)
      : base(memory, q, ring), p_(p), scale_(Contract::prepare(p.scale, p.soft_cap)) {}

  BI_D void walk_all() {
    for (;;) {
      device::mbarrier_wait(device::shared_address(&memory_.full[memory_type::barrier(2, q_at_.slot)]), q_at_.parity);
      if (item().rows.rows == 0) return;
      walk_item();
      __syncwarp();
      if (device::arrives_for_warp(lane_))
        device::mbarrier_arrive(&memory_.empty[memory_type::barrier(2, q_at_.slot)], 1);
      q_at_.next(2);
    }
  }

 private:
  BI_D int row(int h) const { return 16 * warp_ + 8 * h + lane_ / 4; }  // of the item
  BI_D const attention_prefill_item& item() const { return memory_.item[q_at_.slot]; }
  BI_D contract::attention_range range(int r) const { return item().template range<Contract>(p_.causal, p_.window, r); }

  BI_D void walk_item() {
    const int first = item().first_tile(), end = item().end_tile();
#pragma unroll
    for (int i = 0; i < values; ++i) total_[i] = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const contract::attention_range seen = range(row(h));
      if (lane_ % 4 == 0) {
        memory_.row_lo[row(h)] = static_cast<std::int32_t>(seen.lo);
        memory_.row_see[row(h)] = static_cast<std::int32_t>(seen.see);
        memory_.row_m[row(h)] = neg_inf_f32();
        memory_.row_l[row(h)] = 0.0f;
      }
    }
    __syncwarp();
    // What any of the group's rows sees, and what all of them see.
    const contract::attention_range top = range(first_row()), bottom = range(first_row() + 63);
    all_lo_ = static_cast<std::int32_t>(bottom.lo), all_see_ = static_cast<std::int32_t>(top.see);
    int begin = first, stop = first;
    if (first_row() < item().rows.rows && top.lo < bottom.see) {
      begin = static_cast<std::int32_t>(top.lo) / tile;
      stop = (static_cast<std::int32_t>(bottom.see) - 1) / tile + 1;
    }
    for (int t = first; t < begin; ++t) skip_tile();
    if (begin < stop) walk_tiles(begin, stop);
    for (int t = stop; t < end; ++t) skip_tile();
    finish();
  }

  // Of a tile that only the other group's rows see.
  BI_D void skip_tile() {
    for (int i = 0; i < 2; ++i) {
      place& at = i == 0 ? k_at_ : v_at_;
      wait_full(i, at);
      __syncwarp();  // nobody waits for this phase any more
      release_next(i, at);
    }
  }

  // The scores of a tile are made, and softmax is done, while the weights of the tile before multiply V.
  BI_D void walk_tiles(int begin, int stop) {
    float rescale[2];
    rows_.reset_leaf();
    make_scores();
    weigh<true>(begin, rescale);  // o is +0
    pack();
    // Tiles that all rows see all of: [whole, last].
    const int whole = (all_lo_ + (tile - 1)) / tile, last = all_see_ / tile - 1;
    int t = begin;
    while (t + 1 < stop) {
      // The row's first tile begins a sum o, which its code knows only of a leaf's first one.
      if (t >= whole && t < last && (t > begin || t % leaf_tiles == 0)) {
        t = walk_whole(t, last);
      } else {
        step(t, t == begin || t % leaf_tiles == 0);
        ++t;
      }
    }
    const bool fresh = t == begin || t % leaf_tiles == 0;
    if (hides_nonfinite(t)) {
      add_masked(t, fresh);
    } else {
      add_values(fresh);
    }
    release_next(1, v_at_);
    fold(t, rows_);
  }
  // From tile t to tile `last`. A place in the leaf has code of its own.
  BI_D int walk_whole(int t, int last) {
    wait_full(1, v_at_);
    for (;;) {
      switch ((t + 1) % leaf_tiles) {
        case 0:
          step_whole<0>(t);
          if (++t == last) return t;
          [[fallthrough]];
        case 1:
          step_whole<1>(t);
          if (++t == last) return t;
          [[fallthrough]];
        case 2:
          step_whole<2>(t);
          if (++t == last) return t;
          [[fallthrough]];
        default:
          step_whole<3>(t);
          if (++t == last) return t;
      }
    }
  }
  // Adds up tile t and weighs the next one.
  BI_D void step(int t, bool fresh) {
    float rescale[2];
    const device::attention_row_pair leaf = rows_;  // tile t's, which may be its last
    bool moves;
    // What the tensor core works on passes no branch: the compiler would wait for it.
    if (__builtin_expect(hides_nonfinite(t), 0)) {
      add_masked(t, fresh);
      make_scores();
      moves = weigh<false>(t + 1, rescale);
    } else {
      wait_both();
      start_both(fresh);
      moves = weigh<true>(t + 1, rescale);
      end_values();
    }
    release_next(1, v_at_);
    if ((t + 1) % leaf_tiles == 0) {
      fold(t, leaf);
    } else if (moves) {
      rescale_values(rescale);
    }
    pack();
  }
  // The same where all rows see all of both tiles, and V of tile t is there. Place: of tile t + 1 in its leaf. Tile t is the
  // row's first one only if it is the leaf's.
  template <int Place>
  BI_D void step_whole(int t) {
    float rescale[2];
    const device::attention_row_pair leaf = rows_;
    wait_full(0, k_at_);
    start_both(Place == 1);
    const bool moves = device::attention_weigh_whole<Contract, Place == 0>(rows_, s_, rescale, scale_);
    contract::attention_fold factors[2];
    const bool plain = Place == 0 && device::attention_fold_sums<Contract>(leaf, closed(), factors, lane_);
    // For the next step. And without a branch here the compiler would make the weights after the wait for V.
    place next_v = v_at_;
    next_v.next(shape::stages);
    wait_full(1, next_v);
    end_values();
    release_next(1, v_at_);
    if constexpr (Place == 0) {
      if (__builtin_expect(plain, 1)) {
        device::attention_fold_values<Contract>(total_, o_, factors);
      } else {
        device::attention_fold_any<Contract>(leaf, closed(), total_, o_, {true, true}, lane_);
      }
      __syncwarp();
    } else if (__builtin_expect(moves, 0)) {
      rescale_values(rescale);
    }
    pack();
  }
  BI_D void rescale_values(const float (&rescale)[2]) {
#pragma unroll
    for (int i = 0; i < values; ++i) o_[i] = mul_rn(o_[i], rescale[i % 4 / 2]);
  }
  // Closes the leaf of tile t.
  BI_D void fold(int t, const device::attention_row_pair& leaf) {
    const std::int32_t first = t / leaf_tiles * Contract::leaf;
    bool sees[2] = {true, true};
    if (!sees_all(first, 1) && !sees_all(first + (Contract::leaf - 1), 1)) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const std::int32_t lo = memory_.row_lo[row(h)], see = memory_.row_see[row(h)];
        sees[h] = see > first && lo - first < Contract::leaf && lo < see;
      }
    }
    contract::attention_fold factors[2];
    const bool all = __all_sync(device::full_warp, sees[0] && sees[1]);
    if (all && device::attention_fold_sums<Contract>(leaf, closed(), factors, lane_)) {
      device::attention_fold_values<Contract>(total_, o_, factors);
    } else {
      device::attention_fold_any<Contract>(leaf, closed(), total_, o_, sees, lane_);
    }
    __syncwarp();
  }
  BI_D device::attention_closed_rows closed() const { return {&memory_.row_m[row(0)], &memory_.row_l[row(0)]}; }
  // An index of the view as a key of the tile that begins at `first`, or the tile's end that is nearer.
  BI_D static int in_tile(std::int32_t index, std::int32_t first) {
    return index <= first ? 0 : index - first < tile ? index - first : tile;
  }
  // Whole: most tiles are seen by all rows, and it pays to look.
  template <bool Whole>
  BI_D bool weigh(int t, float (&rescale)[2]) {
    if (t % leaf_tiles == 0) rows_.reset_leaf();
    if (Whole && __builtin_expect(sees_all(t * tile, tile), 1)) {
      return device::attention_weigh_whole<Contract, false>(rows_, s_, rescale, scale_);
    }
    int begin[2], end[2];
    find_keys(t, begin, end);
    std::uint64_t visible[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) visible[h] = device::attention_key_mask(begin[h], end[h], lane_);
    return device::attention_weigh_masked<Contract>(rows_, s_, rescale, scale_, visible,
                                                    {begin[0] < end[0], begin[1] < end[1]});
  }
  // Whether all rows of the group see view indices [first, first + count).
  BI_D bool sees_all(std::int32_t first, int count) const { return all_lo_ <= first && all_see_ > first + (count - 1); }
  // The keys of a tile that the thread's rows see.
  BI_D void find_keys(int t, int (&begin)[2], int (&end)[2]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      begin[h] = in_tile(memory_.row_lo[row(h)], t * tile);
      end[h] = in_tile(memory_.row_see[row(h)], t * tile);
    }
  }

  // Whether the tile, which it waits for, has an Inf or NaN in V and a key that was loaded and not all rows see.
  BI_D bool hides_nonfinite(int t) {
    if (__builtin_expect(sees_all(t * tile, tile), 1)) return false;
    wait_full(1, v_at_);
    const std::int32_t first = t * tile, last = first + (tile - 1);
    const std::int32_t lo = item().lo, see = item().see;
    if (all_lo_ <= (lo > first ? lo : first) && all_see_ > (see <= last ? see - 1 : last)) return false;
    T* const v = reinterpret_cast<T*>(ring_ + tile_offset(1, v_at_));
    // All four warps are at this tile. The vote tells the compiler that they agree.
    const bool some = device::attention_has_nonfinite<HeadDim>(v, warp_ % 4, lane_);
    return __any_sync(device::full_warp, device::named_barrier_any(row_barrier + group(), 128, some));
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
      const int begin = in_tile(memory_.row_lo[16 * warp_ + r], t * tile);
      const int end = in_tile(memory_.row_see[16 * warp_ + r], t * tile);
      if (begin < end) device::attention_add_masked_row<First, Last>(o_, p_tile_, v, r, begin, end, lane_);
    }
  }

  // Results go through the group's part of Q, which nobody needs any more, so that stores are wide.
  BI_D void finish() {
    const device::attention_row_tile& rows = item().rows;
    if (first_row() >= rows.rows) return;
    device::named_barrier(row_barrier + group(), 128);  // no warp's products still read it
    T* const q = reinterpret_cast<T*>(q_ + q_at_.slot * shape::q_bytes);
    const std::int64_t head = item().head * rows.group;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float l = memory_.row_l[row(h)], inverse = Contract::inverse(l);
#pragma unroll
      for (int j = 0; j < values / 4; ++j) {
        T* const part = device::tile_part<shape::rows>(q, j / device::row_chunks);
        T* const target = device::tile_chunk(part, row(h), j % device::row_chunks) + lane_ % 4 * 2;
        const T low = Contract::template finish<T>(total_[4 * j + 2 * h], l, inverse);
        const T high = Contract::template finish<T>(total_[4 * j + 2 * h + 1], l, inverse);
        *reinterpret_cast<std::uint32_t*>(target) = low.bits | static_cast<std::uint32_t>(high.bits) << 16;
      }
      if (p_.lse != nullptr && row(h) < rows.rows && lane_ % 4 == 0) {
        p_.lse[(rows.first_row + rows.token(row(h))) * p_.lse_token_stride + head + rows.head(row(h))] =
            Contract::lse(memory_.row_m[row(h)], l);
      }
    }
    __syncwarp();
    constexpr int chunks = HeadDim / device::chunk_values, at_once = 32 / chunks;
    T* const out = p_.out + rows.first_row * p_.out_token_stride + head * p_.out_head_stride +
                   lane_ % chunks * device::chunk_values;
#pragma unroll 2
    for (int i = 0; i < 16; i += at_once) {
      const int r = 16 * warp_ + i + lane_ / chunks;
      if (r >= rows.rows) continue;
      T* const part = device::tile_part<shape::rows>(q, lane_ % chunks / device::row_chunks);
      const T* const source = device::tile_chunk(part, r, lane_ % chunks % device::row_chunks);
      T* const target = out + rows.token(r) * p_.out_token_stride + rows.head(r) * p_.out_head_stride;
      *reinterpret_cast<uint4*>(target) = *reinterpret_cast<const uint4*>(source);
    }
  }

  const attention_params<T>& p_;
  const contract::attention_scale scale_;
  std::int32_t all_lo_, all_see_;  // what all rows of the group see
  device::attention_row_pair rows_;
  float total_[values];  // o of the closed leaves
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_prefill_shape<HeadDim>::threads,
                            1) void attention_prefill_kernel(const __grid_constant__ attention_prefill_params<T> p) {
#if BI_WGMMA_CODE
  using shape = attention_prefill_shape<HeadDim>;
  using memory_type = attention_prefill_memory<Contract, HeadDim>;
  extern __shared__ unsigned char dynamic_shared[];
  __shared__ memory_type memory;
  unsigned char* const q = dynamic_shared + (1024 - device::shared_address(dynamic_shared) % 1024) % 1024;
  unsigned char* const ring = q + 2 * shape::q_bytes;
  if (threadIdx.x == 0) {
    constexpr int each = device::arrivals_of_a_warp;
    constexpr int row_warps = shape::row_threads / 32 * each, copy_warps = shape::copy_threads / 32 * each;
    for (int i = 0; i < 2; ++i) {
      device::mbarrier_init(&memory.order_full[i], shape::find_threads / 32 * each);
      device::mbarrier_init(&memory.order_empty[i], copy_warps);
    }
    for (int i = 0; i < memory.fulls; ++i) {
      device::mbarrier_init(&memory.full[i], i < memory_type::barrier(2, 0) ? each : copy_warps);
      device::mbarrier_init(&memory.empty[i], row_warps);
    }
    device::mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < shape::row_threads) {
    device::take_registers<224>();
    attention_prefill_rows<Contract, T, HeadDim>(p.a, memory, q, ring).walk_all();
  } else {
    device::give_registers<56>();
    if (threadIdx.x < shape::row_threads + shape::find_threads) {
      attention_prefill_finder<Contract, T, HeadDim>(p, memory).find_all();
    } else {
      attention_prefill_copier<Contract, T, HeadDim>(p, memory, device::shared_address(q), device::shared_address(ring))
          .copy_all();
    }
  }
#else
  __trap();
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
