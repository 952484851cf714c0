// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/digest.hpp"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/ldmatrix.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/store.cuh"

// What kv_append's kernels do for a token's digest: terms of words that they have in registers, and how these come together.

BI_NAMESPACE_BEGIN
namespace kernel {

// The terms of pairs of words that lie one after the other, four halves each; `pair` is the index of the first.
template <int Halves>
BI_D std::uint64_t digest_pairs(const std::uint32_t (&halves)[Halves], std::uint32_t pair) {
  std::uint64_t sum = 0;
#pragma unroll
  for (int i = 0; i < Halves; i += 4) {
    const contract::digest_key even = contract::digest_even_key(pair + static_cast<std::uint32_t>(i / 4));
    sum += contract::digest_term_of(halves[i], halves[i + 1], even) +
           contract::digest_term_of(halves[i + 2], halves[i + 3], contract::digest_odd_key(even));
  }
  return sum;
}

// The terms of a quad, of which the first word has this key. Two words are a pair.
template <int Halves>
BI_D std::uint64_t digest_quad(const std::uint32_t (&halves)[Halves], const contract::digest_key& key) {
  const std::uint64_t first = contract::digest_term_of(halves[0], halves[1], key);
  if constexpr (Halves == 2) {
    return first;
  } else {
    return first + contract::digest_term_of(halves[2], halves[3], contract::digest_odd_key(key));
  }
}

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
  BI_D explicit kv_append_terms(int thread)
      : mine_(device::launch_shared_address() + 8 * static_cast<std::uint32_t>(thread)) {}
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
