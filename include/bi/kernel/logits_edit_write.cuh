// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/store.cuh"
#include "bi/device/row.cuh"

// The part of logits_edit that takes no arithmetic, for a warp: -Inf, and the copy where it is not in place.

BI_NAMESPACE_BEGIN
namespace kernel {

// 4 bytes of elements.
BI_D inline std::uint32_t word_of(float x) { return bits_of(x); }
template <class T>
BI_D std::uint32_t word_of(T x) {
  return x.bits * 0x10001u;
}

// Elements that make 16 bytes of the result.
template <class T, class Out>
struct edit_chunk {
  static constexpr int size = 16 / static_cast<int>(sizeof(Out));
  static constexpr int words = size * static_cast<int>(sizeof(T)) / 4;  // 4 or 2
  struct alignas(words * 4) stored {
    std::uint32_t word[words];
  };
  stored from;

  BI_D void load(const T* p) {
    if constexpr (words == 4) {
      device::load_global_16_once(p, from.word[0], from.word[1], from.word[2], from.word[3]);
    } else {
      from = *reinterpret_cast<const stored*>(p);
    }
  }
  // As it is, but `fill` where there is a bit.
  template <class Contract>
  BI_D void store(Out* p, std::uint32_t bits, Out fill) const {
    std::uint32_t to[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (sizeof(Out) == 2) {
        const std::uint32_t taken = (bits >> (2 * w) & 1) * 0xffffu | (bits >> (2 * w + 1) & 1) * 0xffff0000u;
        to[w] = (from.word[w] & ~taken) | (word_of(fill) & taken);
      } else {
        T x;
        if constexpr (sizeof(T) == 2) {
          x = T{static_cast<std::uint16_t>(from.word[w / 2] >> (w % 2 * 16))};
        } else {
          x = float_of(from.word[w]);
        }
        to[w] = bits_of((bits >> w & 1) != 0 ? fill : Contract::template kept<Out>(x));
      }
    }
    device::store_global_16(p, to[0], to[1], to[2], to[3]);
  }
};

// Tokens of a warp: a bit of each of its lanes' words.
inline constexpr int edit_tile = 1024;

// Writes `fill` where there is a bit in `gone`, this lane's word. `aligned`: out is, to 16 bytes.
template <class Out>
BI_D void fill_tile(Out* out, std::uint32_t gone, Out fill, bool aligned) {
  constexpr int in_16 = 16 / static_cast<int>(sizeof(Out));
  const int lane = static_cast<int>(threadIdx.x % 32);
  const unsigned whole = aligned ? __ballot_sync(device::full_warp, gone == ~0u) : 0;
  if (whole != 0) {
    const std::uint32_t word = word_of(fill);
#pragma unroll
    for (int i = lane * in_16; i < edit_tile; i += 32 * in_16) {
      if ((whole >> (i / 32) & 1) != 0) device::store_global_16(out + i, word, word, word, word);
    }
  }
  for (unsigned words = __ballot_sync(device::full_warp, gone != 0) & ~whole; words != 0; words &= words - 1) {
    const int w = __ffs(static_cast<int>(words)) - 1;
    if ((__shfl_sync(device::full_warp, gone, w) >> lane & 1) != 0) out[32 * w + lane] = fill;
  }
}

// Copies a tile of `length` logits, with `fill` where there is a bit in `gone`.
template <class Contract, class T, class Out>
class tile_copy {
 public:
  BI_D tile_copy(const T* x, Out* out, int length, bool aligned)
      : x_(x), out_(out), length_(length), aligned_(aligned), lane_(static_cast<int>(threadIdx.x % 32)) {
    if (aligned) load(lane_ * chunk::size);  // what will be needed first
  }

  BI_D void write(std::uint32_t gone, Out fill) {
    const auto bits = [&](int i) { return __shfl_sync(device::full_warp, gone, i / 32) >> (i % 32); };
    if (!aligned_) {
#pragma unroll 4
      for (int i = lane_; i - lane_ < length_; i += 32) {
        const bool filled = (bits(i) & 1) != 0;
        if (i < length_) out_[i] = filled ? fill : Contract::template kept<Out>(x_[i]);
      }
      return;
    }
#pragma unroll 1
    for (int i = lane_ * chunk::size; i < edit_tile;) {
#pragma unroll
      for (int k = 0; k < at_once; ++k) write_chunk(i + k * step, held_[k], bits(i + k * step), fill);
      i += at_once * step;
      load(i);
    }
  }

 private:
  using chunk = edit_chunk<T, Out>;
  static constexpr int at_once = 4, step = 32 * chunk::size;
  static_assert(edit_tile % (at_once * step) == 0, "all lanes of a warp go round as often");

  BI_D void load(int i) {
#pragma unroll
    for (int k = 0; k < at_once; ++k) {
      if (i + k * step + chunk::size <= length_) held_[k].load(x_ + i + k * step);
    }
  }
  BI_D void write_chunk(int i, const chunk& held, std::uint32_t bits, Out fill) {
    if (i + chunk::size <= length_) return held.template store<Contract>(out_ + i, bits, fill);
#pragma unroll 1
    for (int e = 0; e < chunk::size && i + e < length_; ++e) {
      out_[i + e] = (bits >> e & 1) != 0 ? fill : Contract::template kept<Out>(x_[i + e]);
    }
  }

  const T* x_;
  Out* out_;
  int length_;
  bool aligned_;
  int lane_;
  chunk held_[at_once];
};

}  // namespace kernel
BI_NAMESPACE_END
