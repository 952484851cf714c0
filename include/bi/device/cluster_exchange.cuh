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

inline constexpr int most_in_cluster = 8;

struct alignas(16) message {
  std::uint64_t a, b;
};

struct exchange_memory {
  message from[2][most_in_cluster];
  mbarrier arrived[3];
};

// Rounds of messages, in each of which all blocks tell all. A block that is one round ahead has had this block's
// messages of the round that this block is in, so two sets of places and barriers are enough. Collections, in which the
// first block hears and says nothing, have a barrier of their own: between two of them there is a round or a sync().
// All threads of all blocks of the cluster make the same calls.
class cluster_exchange {
 public:
  BI_D cluster_exchange(exchange_memory& memory, int blocks) : memory_(memory), blocks_(blocks) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      if (threadIdx.x == 0) {
        mbarrier_init(&memory_.arrived[0], 1);
        mbarrier_init(&memory_.arrived[1], 1);
        mbarrier_init(&memory_.arrived[2], 1);
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

  // Announces, in one thread, what this block gets in this round, or, if it is the first, in this collection.
  BI_D void expect(int bytes) { expect_at(turn(), bytes); }
  BI_D void expect_collected(int bytes) { expect_at(collection, bytes); }
  // From one thread, to `place` as block `to` has it; collect: as the first block has it.
  BI_D void send(message* place, int to, std::uint64_t a, std::uint64_t b) { send_at(turn(), place, to, a, b); }
  BI_D void collect(message* place, std::uint64_t a, std::uint64_t b) { send_at(collection, place, 0, a, b); }
  // Waits for what this block gets in this round, and begins the next one.
  BI_D void wait() {
    wait_at(turn());
    state_ ^= 8u;
  }
  // The first block, for what it gets in this collection.
  BI_D void wait_collected() { wait_at(collection); }

  // A round in which each block tells all; a and b are equal in all threads of a block. The places are good until the
  // round after the next one.
  BI_D const message* tell(std::uint64_t a, std::uint64_t b) {
    __syncthreads();  // all threads are done with the places of the round before
    message* const mine = memory_.from[turn()];
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) expect(blocks_ * static_cast<int>(sizeof(message)));
    if (thread < blocks_) send(mine + rank(), thread, a, b);
    wait();
    return mine;
  }

  // All blocks are here.
  BI_D void sync() {
    __syncthreads();
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      cluster_arrive();
      cluster_wait();
    }
#endif
  }

 private:
  static constexpr int collection = 2;

  BI_D int turn() const { return static_cast<int>(state_ >> 3); }

  BI_D void expect_at([[maybe_unused]] int which, [[maybe_unused]] int bytes) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) mbarrier_arrive_expect(shared_address(&memory_.arrived[which]), bytes);
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
  BI_D void wait_at([[maybe_unused]] int which) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (blocks_ > 1) {
      mbarrier_wait_cluster(&memory_.arrived[which], static_cast<int>(state_ >> which & 1u));
      state_ ^= 1u << which;
      return;
    }
#endif
    __syncthreads();
  }

  exchange_memory& memory_;
  int blocks_;
  unsigned state_ =
      0;  // bits 0..2: the parity that each barrier's next phase ends; bit 3: the round's place and barrier
};

}  // namespace device
BI_NAMESPACE_END
