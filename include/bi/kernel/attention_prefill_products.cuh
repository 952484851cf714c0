// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/pack.cuh"
#include "bi/device/ptx/wgmma.cuh"
#include "bi/device/ptx/wgmma_registers.cuh"
#include "bi/device/ring_place.cuh"
#include "bi/kernel/attention_prefill_memory.cuh"

// The tensor core's half of attention_prefill.cuh: a group's scores S = Q K^T and sums o += P V, and the rings that K and V
// come in. Between a start and its wait nothing may touch what the tensor core works on, and it may pass no branch that
// changes it: the compiler would wait there.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class Contract, class T, int HeadDim>
class attention_prefill_products {
 protected:
  using shape = attention_prefill_shape<HeadDim>;
  using memory_type = attention_prefill_memory<Contract, HeadDim>;
  using place = device::ring_place;
  static constexpr int tile = Contract::tile, values = HeadDim / 2;
  static_assert(tile == device::key_tile && tile == 64, "the kernel's tiles are the contract's");

  BI_D attention_prefill_products(memory_type& memory, unsigned char* q, unsigned char* ring)
      : memory_(memory), q_(q), ring_(ring) {
    warp_ = __shfl_sync(device::full_warp, static_cast<int>(threadIdx.x) / 32, 0);
    lane_ = static_cast<int>(threadIdx.x) % 32;
  }

  BI_D int group() const { return warp_ / 4; }
  BI_D int first_row() const { return 64 * group(); }  // the group's, of the item

  // Of the next tile, and waits for them.
  BI_D void make_scores() {
    wait_full(0, k_at_);
#pragma unroll
    for (int i = 0; i < tile / 2; ++i) s_[i] = 0.0f;  // no registers for what they were
    device::wgmma_hold(s_);
    device::wgmma_fence();
    start_scores();
    device::wgmma_commit();
    device::wgmma_wait<0>();
    device::wgmma_hold(s_);
    release_next(0, k_at_);
  }
  // Starts the next tile's scores and o += P V, whose operands are there, and waits for the scores.
  BI_D void start_both(bool fresh) {
    hold_operands();
    device::wgmma_fence();
    start_scores();
    device::wgmma_commit();
    start_values(fresh);
    device::wgmma_commit();
    device::wgmma_wait<1>();
    device::wgmma_hold(s_);
    release_next(0, k_at_);
  }
  BI_D void end_values() {
    device::wgmma_wait<0>();
    hold_operands();
  }
  // o += P V, or P V if o is +0 so far, and waits for it.
  BI_D void add_values(bool fresh) {
    wait_full(1, v_at_);
    hold_operands();
    device::wgmma_fence();
    start_values(fresh);
    device::wgmma_commit();
    end_values();
  }
  // Scores, which are weights by now, to P.
  BI_D void pack() {
#pragma unroll
    for (int i = 0; i < 16; ++i) p_tile_[i / 4][i % 4] = device::pack_rn<T>(s_[2 * i], s_[2 * i + 1]);
  }

  BI_D void wait_full(int which, const place& at) { device::mbarrier_wait(full(which, at), at.parity); }
  BI_D std::uint32_t full(int which, const place& at) const {
    return device::shared_address(&memory_.full[memory_type::barrier(which, at.slot)]);
  }
  // For the next tile of K and one of V, whose barriers mostly answer at once.
  BI_D void wait_both() {
    const bool has_k = device::mbarrier_try_wait(full(0, k_at_), k_at_.parity);
    const bool has_v = device::mbarrier_try_wait(full(1, v_at_), v_at_.parity);
    if (!has_k) wait_full(0, k_at_);
    if (!has_v) wait_full(1, v_at_);
  }
  BI_D void release_next(int which, place& at) {
    if (device::arrives_for_warp(lane_))
      device::mbarrier_arrive(&memory_.empty[memory_type::barrier(which, at.slot)], 1);
    at.next(shape::stages);
  }
  BI_D std::uint32_t tile_offset(int which, const place& at) const {
    return static_cast<std::uint32_t>((which * shape::stages + at.slot) * shape::tile_bytes);
  }

  memory_type& memory_;
  unsigned char *const q_, *const ring_;
  int warp_, lane_;
  place q_at_, k_at_, v_at_;
  float s_[tile / 2], o_[values];  // o: of the leaf in progress
  std::uint32_t p_tile_[tile / 16][4];

 private:
  BI_D void hold_operands() {
    device::wgmma_hold(s_);
    device::wgmma_hold(o_);
    device::wgmma_hold(p_tile_);
  }
  BI_D void start_values(bool fresh) { device::wgmma_m64k64_registers<T, HeadDim>(o_, p_tile_, v_operand(), !fresh); }
  // S = Q K^T from +0.
  BI_D void start_scores() {
    const std::uint64_t q = device::wgmma_operand(
        device::shared_address(q_) + static_cast<std::uint32_t>(q_at_.slot * shape::q_bytes + first_row() * 128), 1024);
    const std::uint64_t k = device::wgmma_operand(tile_address(0, k_at_), 1024);
#pragma unroll
    for (int part = 0; part < HeadDim / device::tile_width; ++part) {
      device::wgmma_m64k64<T, tile, 0, 0>(s_, device::wgmma_operand_at(q, part * shape::q_part_bytes),
                                          device::wgmma_operand_at(k, part * shape::part_bytes), part > 0);
    }
  }
  BI_D std::uint64_t v_operand() const { return device::wgmma_operand(tile_address(1, v_at_), shape::part_bytes); }
  BI_D std::uint32_t tile_address(int which, const place& at) const {
    return device::shared_address(ring_) + tile_offset(which, at);
  }
};

}  // namespace kernel
BI_NAMESPACE_END
