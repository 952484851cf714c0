// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "bi/contract/row_tree.hpp"
#include "support/data.hpp"

// Ways in which a GPU may spread a row over threads, simulated thread by thread. All must give the row tree's bits.
// Numbers such as 8, 32, 256 and 8192 are written out here, not taken from the contract.
namespace test {

enum class schedule {
  definition,  // the row tree as a recursion, from the root down
  warp,        // 32 threads, 8 lanes each, shuffles down
  warp_xor,    // the same with butterfly shuffles; lanes without elements are held as the start value and combined
  block,       // 256 threads, one lane each, a tree in shared memory
  scattered,   // 64 threads, 4 lanes each, in random order, each thread its last lane first
};
inline constexpr schedule all_schedules[] = {schedule::definition, schedule::warp, schedule::warp_xor, schedule::block,
                                             schedule::scattered};

// Not associative and not commutative: any change of the tree's shape, an empty lane that takes part, or operands that
// change places, give other bits.
struct mix_step {
  float operator()(float a, float b) const {
    const std::uint64_t pair = static_cast<std::uint64_t>(bi::bits_of(a)) << 32 | bi::bits_of(b);
    return bi::float_of(static_cast<std::uint32_t>(bi::mix64(pair + 0x9E3779B97F4A7C15u)) & 0x7f7fffffu);
  }
};

template <class Fold, class Combine>
float row(const std::vector<float>& x, std::int64_t n, float start, Fold fold, Combine combine) {
  std::vector<float> results(static_cast<std::size_t>(bi::contract::row_blocks(n)) + 1);
  return bi::contract::reduce_row(x.data(), n, start, fold, combine, results.data());
}

// What one lane makes of x[0, n): its vectors, ascending.
template <class Fold>
float simulate_lane(const float* x, std::int64_t n, std::int64_t lane, float start, Fold fold) {
  float acc = start;
  for (std::int64_t v = lane; v * 8 < n; v += 256) {
    for (std::int64_t i = v * 8; i < std::min(n, v * 8 + 8); ++i) acc = fold(acc, x[i]);
  }
  return acc;
}

// The value in lane `lane` after the combinations at distances 128, ..., distance.
template <class Fold, class Combine>
float simulate_node(const float* x, std::int64_t n, std::int64_t lane, std::int64_t distance, float start, Fold fold,
                    Combine combine) {
  if (distance == 256) return simulate_lane(x, n, lane, start, fold);
  const float mine = simulate_node(x, n, lane, distance * 2, start, fold, combine);
  if ((lane + distance) * 8 >= n) return mine;
  return combine(mine, simulate_node(x, n, lane + distance, distance * 2, start, fold, combine));
}

// A block of 1 <= n <= 8192 elements.
template <class Fold, class Combine>
float simulate_block(schedule s, const float* x, std::int64_t n, float start, Fold fold, Combine combine) {
  const auto present = [&](std::size_t lane) { return static_cast<std::int64_t>(lane) * 8 < n; };
  const auto lane_value = [&](std::size_t l) { return simulate_lane(x, n, static_cast<std::int64_t>(l), start, fold); };
  if (s == schedule::definition) return simulate_node(x, n, 0, 1, start, fold, combine);
  if (s == schedule::warp || s == schedule::warp_xor) {
    float thread[32];
    for (std::size_t t = 0; t < 32; ++t) {
      float held[8];
      for (std::size_t j = 0; j < 8; ++j) held[j] = lane_value(t + 32 * j);
      // warp_xor: every lane counts as active.
      const int active = s == schedule::warp ? static_cast<int>((n + 7) / 8 < 256 ? (n + 7) / 8 : 256) : 256;
      thread[t] = bi::contract::combine_held(held, static_cast<int>(t), active, combine);
    }
    for (std::size_t d = 16; d > 0; d /= 2) {
      float next[32];
      for (std::size_t t = 0; t < 32; ++t) {
        if (s == schedule::warp_xor) {
          next[t] = combine(thread[t], thread[t ^ d]);
        } else {
          next[t] = t + d < 32 && present(t + d) ? combine(thread[t], thread[t + d]) : thread[t];
        }
      }
      std::copy(next, next + 32, thread);
    }
    return thread[0];
  }
  float shared[256];
  if (s == schedule::block) {
    for (std::size_t t = 0; t < 256; ++t) shared[t] = lane_value(t);
    for (std::size_t d = 128; d > 0; d /= 2) {
      for (std::size_t t = 0; t < d; ++t) {
        if (present(t + d)) shared[t] = combine(shared[t], shared[t + d]);
      }
    }
    return shared[0];
  }
  // scattered
  std::size_t order[64];
  std::iota(order, order + 64, std::size_t{0});
  generator g(static_cast<std::uint64_t>(n));
  for (std::size_t i = 63; i > 0; --i) std::swap(order[i], order[static_cast<std::size_t>(g.below(64)) % (i + 1)]);
  for (const std::size_t t : order) {
    for (std::size_t j = 4; j-- > 0;) shared[t + 64 * j] = lane_value(t + 64 * j);
    float held[4] = {shared[t], shared[t + 64], shared[t + 128], shared[t + 192]};
    if (present(t + 128)) held[0] = combine(held[0], held[2]);
    if (present(t + 192)) held[1] = combine(held[1], held[3]);
    if (present(t + 64)) held[0] = combine(held[0], held[1]);
    shared[t] = held[0];
  }
  for (std::size_t d = 32; d > 0; d /= 2) {
    for (std::size_t t = d; t-- > 0;) {
      if (present(t + d)) shared[t] = combine(shared[t], shared[t + d]);
    }
  }
  return shared[0];
}

// Block `b` as one of `ctas` thread blocks of a cluster does it, the last block first. Their schedules differ when `mixed`.
template <class Fold, class Combine>
std::vector<float> simulate_blocks(schedule s, const float* x, std::int64_t n, float start, Fold fold, Combine combine,
                                   std::int64_t ctas, bool mixed) {
  std::vector<float> results(static_cast<std::size_t>((n + 8191) / 8192));
  const auto blocks = static_cast<std::int64_t>(results.size());
  for (std::int64_t cta = ctas; cta-- > 0;) {
    const schedule mine = mixed && cta % 2 == 1 ? schedule::warp : s;
    for (std::int64_t b = cta; b < blocks; b += ctas) {
      results[static_cast<std::size_t>(b)] =
          simulate_block(mine, x + b * 8192, std::min<std::int64_t>(8192, n - b * 8192), start, fold, combine);
    }
  }
  return results;
}

// A row of n >= 0 elements.
template <class Fold, class Combine>
float simulate_row(schedule s, const float* x, std::int64_t n, float start, Fold fold, Combine combine,
                   std::int64_t ctas = 1, bool mixed = false) {
  if (n == 0) return start;
  std::vector<float> values = simulate_blocks(s, x, n, start, fold, combine, ctas, mixed);
  while (values.size() > 1) {
    values = simulate_blocks(s, values.data(), static_cast<std::int64_t>(values.size()), start, combine, combine, ctas,
                             mixed);
  }
  return values[0];
}

template <class T>
std::vector<float> widened(const T* x, std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = bi::to_f32(x[i]);
  return out;
}

}  // namespace test
