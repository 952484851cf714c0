// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/device/order.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/ldmatrix.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/store.cuh"

// What kv_append's kernels do for a token's digest: terms of words that they have in registers, and how these come together.

BI_NAMESPACE_BEGIN
namespace kernel {

// The keys of words that lie one after the other.
template <int Words>
struct digest_keys {
  contract::digest_key of[Words];

  BI_D void make(std::uint32_t seed) {  // the first one's
#pragma unroll
    for (int i = 0; i < Words; ++i) {
      of[i] = contract::digest_key_of(seed + static_cast<std::uint32_t>(i) * contract::digest_word_step);
    }
  }
  // With the terms of these words, two halves each.
  BI_D std::uint64_t add(std::uint64_t sum, const std::uint32_t (&halves)[2 * Words]) const {
#pragma unroll
    for (int i = 0; i < Words; ++i) sum = contract::digest_add(sum, halves[2 * i], halves[2 * i + 1], of[i]);
    return sum;
  }
  BI_D std::uint32_t bits() const {  // of all of them, for keep_order
    std::uint32_t all = 0;
#pragma unroll
    for (int i = 0; i < Words; ++i) all ^= of[i].low ^ of[i].high;
    return all;
  }
};

// A token's digest where each warp adds its terms to it as soon as it has them, so that none waits for another. By the threads of
// these warps, one of which clears it before any adds. A thread block has one token.
template <class Params>
BI_D void clear_digest(const Params& p, int thread, int threads) {
  if (thread == 0) p.digest[blockIdx.x] = 0;
  device::named_barrier(1, threads);
}

// What each thread of a thread block has come to of a token, in the shared memory of a launch. kv_append_terms_bytes says
// how much it takes. One warp adds them up, so that the others have done.
class kv_append_terms {
 public:
  // Called by whole warps. The address is kept: made anew, it takes a special register's time in every round.
  BI_D explicit kv_append_terms(int thread)
      : mine_(device::kept(device::launch_shared_address() + 8 * static_cast<std::uint32_t>(thread))) {}
  BI_D void set(std::uint64_t terms) const { device::store_shared_8(mine_, terms); }
  BI_D std::uint64_t get() const { return device::load_shared_8(mine_); }
  // What threads from .. end - 1, whole warps, have set: a lane's part of it, for the first warp.
  BI_D std::uint64_t sum_of_lane(int from, int end) const {
    constexpr int each = 3;  // loads under way; with the first warp's these are 128 threads
    std::uint64_t sum = 0;
#pragma unroll 1
    for (int t = from; t < end; t += 32 * each) {
#pragma unroll
      for (int i = 0; i < each; ++i) {
        const int other = t + 32 * i;
        if (other < end) sum += device::load_shared_8(mine_ + 8 * static_cast<std::uint32_t>(other));
      }
    }
    return sum;
  }

 private:
  const std::uint32_t mine_;
};

}  // namespace kernel
BI_NAMESPACE_END
