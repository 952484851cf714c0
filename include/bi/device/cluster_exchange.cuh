// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"

// Messages of 16 bytes between the thread blocks of a cluster. They are stores that tell the receiver's barrier when
// they land: no fence. A cluster of one block has no messages, and runs on any architecture.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int most_in_cluster = 16;

struct alignas(16) message {
  std::uint64_t a, b;
};

struct exchange_memory {
  message from[2][2 * most_in_cluster];
  mbarrier arrived[5];
};

// Rounds, in each of which all blocks tell all, and all threads take part. A block that is one round ahead has had this
// block's messages of the round that this block is in, so two sets of places and barriers are enough.
//
// Collections, in which the first block hears and says nothing: between two of them there is a round.
//
// Reports, one for each row, to a warp of the first block that may be a row behind: it allows the next one.
class cluster_exchange {
 public:
  BI_D cluster_exchange(exchange_memory& memory, int blocks) : memory_(memory), blocks_(blocks) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      if (threadIdx.x == 0) {
        for (mbarrier& b : memory_.arrived) mbarrier_init(&b, 1);
        mbarrier_init_fence();
      }
      cluster_arrive();
    }
#endif
  }
  // Once, before the first message.
  BI_D void ready() {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) cluster_wait();
#endif
  }

  // Asked for anew each time, which costs no register in between.
  BI_D int rank() const {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) return cluster_rank();
#endif
    return 0;
  }
  BI_D int blocks() const { return blocks_; }

  // What a function that is not inlined, and has a copy, gives back: an object that it were to change would have to be in
  // memory.
  BI_D unsigned state() const { return state_; }
  BI_D void go_on_at(unsigned state) { state_ = state; }

  // ---- rounds
  // Announces, in one thread, what this block gets in this round.
  BI_D void expect(int messages) { expect_at(turn(), messages); }
  // From one thread, to `place` as block `to` has it.
  BI_D void send(message* place, int to, std::uint64_t a, std::uint64_t b) { send_at(turn(), place, to, a, b); }
  // Waits for what this block gets in this round, and begins the next one.
  BI_D void wait() {
    wait_at(turn(), state_ >> turn() & 1u);
    next_round();
  }
  // Two messages of each block to all, as part of a round; equal in all threads of a block. They are at places()[2 * b]
  // and [2 * b + 1] until the round after the next one. After a barrier since the round before.
  BI_D void tell_all(std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t d) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= 2 * blocks_) return;
    const bool second = (thread & 1) != 0;
    send(memory_.from[turn()] + 2 * rank() + (thread & 1), thread / 2, second ? c : a, second ? d : b);
  }
  BI_D const message* places() const { return memory_.from[turn()]; }
  // A round of this alone.
  BI_D const message* tell(std::uint64_t a, std::uint64_t b, std::uint64_t c = 0, std::uint64_t d = 0) {
    const message* const all = tell_round(memory_, blocks_, state_, a, b, c, d);
    next_round();
    return all;
  }

  // ---- collections
  BI_D void expect_collected(int messages) { expect_at(2, messages); }
  BI_D void collect(message* place, std::uint64_t a, std::uint64_t b) { send_at(2, place, 0, a, b); }
  // The first block.
  BI_D void wait_collected() {
    wait_at(2, state_ >> 2 & 1u);
    if (blocks_ > 1) state_ ^= 4u;
  }

  // ---- reports. `parity`: of the row's number. By one warp of each block; without clusters it is done with __syncwarp.
  BI_D void expect_reports(int messages) { expect_at(3, messages); }
  BI_D void report(message* place, std::uint64_t a, std::uint64_t b) { send_at(3, place, 0, a, b); }
  BI_D void wait_reports([[maybe_unused]] int parity) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      mbarrier_wait_cluster(&memory_.arrived[3], parity);
      return;
    }
#endif
    __syncwarp();
  }
  // The first block's warp: the others may report on the next row.
  BI_D void allow_reports() {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (blocks_ > 1 && lane < blocks_) mbarrier_arrive_remote(cluster_address(&memory_.arrived[4], lane));
#endif
  }
  // `parity`: of the row before.
  BI_D void wait_allowed([[maybe_unused]] int parity) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) mbarrier_wait_cluster(&memory_.arrived[4], parity);
#endif
  }

 private:
  BI_D cluster_exchange(exchange_memory& memory, int blocks, unsigned state)
      : memory_(memory), blocks_(blocks), state_(state) {}

  static BI_D __noinline__ const message* tell_round(exchange_memory& memory, int blocks, unsigned state,
                                                     std::uint64_t a, std::uint64_t b, std::uint64_t c,
                                                     std::uint64_t d) {
    cluster_exchange exchange(memory, blocks, state);
    __syncthreads();  // all threads are done with the places of the round before
    const message* const all = exchange.places();
    if (threadIdx.x == 0) exchange.expect(2 * blocks);
    exchange.tell_all(a, b, c, d);
    exchange.wait();
    return all;
  }
  BI_D void next_round() {
    if (blocks_ > 1) state_ ^= 1u << turn();
    state_ ^= 8u;
  }
  BI_D int turn() const { return static_cast<int>(state_ >> 3); }

  BI_D void expect_at([[maybe_unused]] int which, [[maybe_unused]] int messages) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      mbarrier_arrive_expect(shared_address(&memory_.arrived[which]), messages * static_cast<int>(sizeof(message)));
    }
#endif
  }
  BI_D void send_at([[maybe_unused]] int which, message* place, [[maybe_unused]] int to, std::uint64_t a,
                    std::uint64_t b) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      const auto word = [](std::uint64_t x, int shift) { return float_of(static_cast<std::uint32_t>(x >> shift)); };
      store_cluster(cluster_address(place, to), word(a, 0), word(a, 32), word(b, 0), word(b, 32),
                    cluster_address(&memory_.arrived[which], to));
      return;
    }
#endif
    *place = {a, b};
  }
  BI_D void wait_at([[maybe_unused]] int which, [[maybe_unused]] std::uint32_t parity) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      mbarrier_wait_cluster(&memory_.arrived[which], static_cast<int>(parity));
      return;
    }
#endif
    __syncthreads();
  }

  exchange_memory& memory_;
  int blocks_;
  // Bits 0..2: the parity that the next phase of a barrier ends; bit 3: the round's places and barrier.
  unsigned state_ = 0;
};

}  // namespace device
BI_NAMESPACE_END
