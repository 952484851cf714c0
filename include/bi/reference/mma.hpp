// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/dtype.hpp"
#include "bi/reference/mma_step.hpp"

// Chains of tensor-core steps on the CPU: one row and 32 columns over many steps in vector registers, with the bits of
// mma_step_exact. Pack a row and a panel of columns once, then run the one against the other.

BI_NAMESPACE_BEGIN
namespace reference {

// ---- operands

inline constexpr int mma_depth = 16;    // k of a step
inline constexpr int mma_columns = 32;  // columns of a panel

constexpr std::int64_t mma_steps(std::int64_t k) { return (k + mma_depth - 1) / mma_depth; }

namespace mma_detail {

// Values are widened to fp32. Beside each stands its exponent as the step sees it: biased as in fp32, so that of 1.0 is
// 127, subnormals with their format's smallest. The sum of two of these says all that a step needs to know:
//   < 0      a factor is zero, none is Inf or NaN: the product takes no part
//   2..508   the product's exponent + 254
//   > 508    a factor is Inf or NaN
inline constexpr std::int16_t zero_exponent = -2048;
inline constexpr std::int16_t nonfinite_exponent = 8192;

struct vector_4 {
  typedef float f32 __attribute__((vector_size(16)));
  typedef std::int32_t i32 __attribute__((vector_size(16)));
  typedef std::uint32_t u32 __attribute__((vector_size(16)));
  typedef std::int16_t i16 __attribute__((vector_size(16)));
};
struct vector_8 {
  typedef float f32 __attribute__((vector_size(32)));
  typedef std::int32_t i32 __attribute__((vector_size(32)));
  typedef std::uint32_t u32 __attribute__((vector_size(32)));
  typedef std::int16_t i16 __attribute__((vector_size(32)));
};

// v = {s, s, ...}. Not V{} + s: nvcc's front end crashes on that.
template <class V, class Scalar>
__attribute__((always_inline)) inline void fill(V& v, Scalar s) {
  v = V{};
  v += s;
}

// 16 pairs of elements: the pair's first elements to `first`, its second ones to `second`, each with its exponent.
template <class T>
void unpack_pairs(const T (&x)[16][2], float* first, float* second, std::int16_t (*exponents)[2]) {
  using v = vector_4;
  using f = format<T>;
  v::i16 one, zero, nonfinite;
  fill(one, std::int16_t{1});
  fill(zero, zero_exponent);
  fill(nonfinite, nonfinite_exponent);
  for (int i = 0; i < 16; i += 4) {
    v::u32 pair;
    std::memcpy(&pair, x[i], sizeof pair);
    const v::i16 magnitude = (v::i16)pair & 0x7fff, field = magnitude >> f::fraction;
    v::i16 e = (field > one ? field : one) + (126 + f::min_exponent);
    e = magnitude == 0 ? zero : e;
    e = field == f::exponent_mask ? nonfinite : e;
    std::memcpy(exponents[i], &e, sizeof e);
    for (int h = 0; h < 2; ++h) {
      v::u32 bits;
      if constexpr (std::is_same_v<T, bf16>) {
        bits = h == 0 ? pair << 16 : pair & 0xffff0000u;
      } else {
        const v::u32 half = h == 0 ? pair & 0xffffu : pair >> 16, m = half & 0x7fffu;
        v::u32 rebias, rebias_nonfinite;
        fill(rebias, (127u - 15u) << 23);
        fill(rebias_nonfinite, (255u - 31u) << 23);
        const v::f32 subnormal = __builtin_convertvector((v::i32)m, v::f32) * 0x1p-24f;
        bits = m < 0x400u ? (v::u32)subnormal : (m << 13) + (m >= 0x7c00u ? rebias_nonfinite : rebias);
        bits |= (half & 0x8000u) << 16;
      }
      std::memcpy((h == 0 ? first : second) + i, &bits, sizeof bits);
    }
  }
}

}  // namespace mma_detail

// 16 k of one row of A.
struct alignas(32) mma_row_block {
  float value[mma_depth];
  std::int16_t exponent[mma_depth];
};

// 16 k of 32 columns of B. Exponents of columns j and j + 16 are neighbours: a vector of them splits into the two
// vectors of 32-bit lanes that hold these columns by shifts alone, whatever the length of a vector.
struct alignas(64) mma_panel_block {
  float value[mma_depth][mma_columns];
  std::int16_t exponent[mma_depth][mma_columns / 2][2];
};

// at(i) is the row's element i, 0 <= i < k. Fills mma_steps(k) blocks; what lies beyond k is zero, and changes no bit.
template <class T, class At>
void mma_pack_row(mma_row_block* out, std::int64_t k, const At& at) {
  for (std::int64_t step = 0; step < mma_steps(k); ++step) {
    T x[mma_depth][2] = {};
    for (std::int64_t i = step * mma_depth; i < k && i < (step + 1) * mma_depth; ++i) x[i % mma_depth][0] = at(i);
    float unused[mma_depth];
    std::int16_t exponents[mma_depth][2];
    mma_detail::unpack_pairs(x, out[step].value, unused, exponents);
    for (int i = 0; i < mma_depth; ++i) out[step].exponent[i] = exponents[i][0];
  }
}

// at(i, j) is element i of column j, 0 <= i < k, 0 <= j < columns <= 32. Fills mma_steps(k) blocks; columns beyond are
// zero.
template <class T, class At>
void mma_pack_panel(mma_panel_block* out, std::int64_t k, int columns, const At& at) {
  for (std::int64_t step = 0; step < mma_steps(k); ++step) {
    mma_panel_block& block = out[step];
    const int depth = k - step * mma_depth < mma_depth ? static_cast<int>(k - step * mma_depth) : mma_depth;
    T x[mma_depth][mma_columns / 2][2] = {};
    for (int j = 0; j < columns; ++j) {
      for (int i = 0; i < depth; ++i) x[i][j % 16][j / 16] = at(step * mma_depth + i, j);
    }
    for (int i = 0; i < mma_depth; ++i) {
      mma_detail::unpack_pairs(x[i], block.value[i], block.value[i] + mma_columns / 2, block.exponent[i]);
    }
  }
}

// ---- chains

namespace mma_detail {

// Steps between looks at `outside`: lanes that left the window are worth nothing, and are computed again exactly.
inline constexpr std::int64_t checked_steps = 16;

// c[32] over `steps` steps. Sets outside[j] where a step of column j had its largest exponent E outside of -101 .. 121.
// Inside,
//   - a product that fp32 can't hold exactly is below the unit 2^(E-25), so it is cut to zero either way,
//   - 2^(25-E) and 2^(E-25) are normal numbers, no result is subnormal and none overflows.
// A column whose every term is zero is inside. No operand is a function's argument or result, so that the code means
// the same whether or not the caller has such registers. opaque_zero is 0, which the compiler must not know: fast-math
// flags would reorder the two multiplications, and the second one alone may overflow.
template <class Vector>
__attribute__((always_inline)) inline void chain_steps(float* c, const mma_row_block* a, const mma_panel_block* b,
                                                       std::int64_t steps, std::int32_t* outside,
                                                       std::uint32_t opaque_zero) {
  using f32 = typename Vector::f32;
  using i32 = typename Vector::i32;
  using u32 = typename Vector::u32;
  using i16 = typename Vector::i16;
  constexpr int lanes = sizeof(f32) / sizeof(float);
  constexpr int lowest = 254 - 101, highest = 254 + 121;
  constexpr int half = mma_columns / 2;
  u32 zero;
  i16 none16;
  i32 none, one, low, high;
  fill(zero, opaque_zero);
  fill(none16, zero_exponent);
  fill(none, zero_exponent);
  fill(one, 1);
  fill(low, lowest);
  fill(high, highest);

  for (int j = 0; j < half; j += lanes) {  // columns j .. j + lanes - 1 and half + j ..
    f32 acc[2];
    i32 out[2];
    for (int h = 0; h < 2; ++h) {
      std::memcpy(&acc[h], c + h * half + j, sizeof acc[h]);
      out[h] = i32{};
    }
    for (std::int64_t step = 0; step < steps; ++step) {
      const mma_row_block& x = a[step];
      const mma_panel_block& y = b[step];
      i16 top16 = none16;
      for (int k = 0; k < mma_depth; ++k) {
        i16 e;
        std::memcpy(&e, y.exponent[k][j], sizeof e);
        e += x.exponent[k];
        top16 = top16 > e ? top16 : e;
      }
      f32 scale[2], unscale[2];
      for (int h = 0; h < 2; ++h) {
        i32 top = h == 0 ? (i32)((u32)(i32)top16 << 16) >> 16 : (i32)top16 >> 16;
        const i32 magnitude = (i32)acc[h] & 0x7fffffff;
        i32 e = magnitude >> 23;
        e = (e > one ? e : one) + 127;
        e = magnitude == 0 ? none : e;
        top = top > e ? top : e;
        out[h] |= (top > high) | ((top >= 0) & (top < low));
        top = top > low ? top : low;
        top = top < high ? top : high;
        scale[h] = (f32)((254 + 25 + 127 - top) << 23);
        unscale[h] = (f32)((top - (254 + 25 - 127)) << 23);
      }
      // Eight products fit 32 bits, so does c with them: 8 * 4 * 2^25 + 2^26 < 2^31. All 16 need not.
      u32 sum[2][2];
      for (int h = 0; h < 2; ++h) {
        sum[0][h] = u32{};
        sum[1][h] = (u32) __builtin_convertvector(acc[h] * scale[h], i32);
      }
      for (int part = 0; part < 2; ++part) {
        for (int k = part * 8; k < part * 8 + 8; ++k) {
          for (int h = 0; h < 2; ++h) {
            f32 product;
            std::memcpy(&product, &y.value[k][h * half + j], sizeof product);
            product = x.value[k] * product;
            product = (f32)((u32)product ^ zero);
            sum[part][h] += (u32) __builtin_convertvector(product * scale[h], i32);
          }
        }
      }
      for (int h = 0; h < 2; ++h) {
        // The sum lies within 2^32 of zero: its sign is that of the mean, its magnitude fits 32 bits.
        const i32 p = (i32)sum[0][h], q = (i32)sum[1][h];
        const u32 negative = (u32)(((p >> 1) + (q >> 1) + (p & q & 1)) >> 31);
        u32 magnitude = ((sum[0][h] + sum[1][h]) ^ negative) - negative;
        // Without the bit below the last one kept, rounding to nearest rounds toward zero.
        magnitude &= ~(magnitude >> 24);
        const f32 upper = __builtin_convertvector((i32)(magnitude >> 16), f32);
        const f32 lower = __builtin_convertvector((i32)(magnitude & 0xffff), f32);
        acc[h] = (f32)((u32)((upper * 65536.0f + lower) * unscale[h]) | (negative & 0x80000000u));
      }
    }
    for (int h = 0; h < 2; ++h) {
      std::memcpy(c + h * half + j, &acc[h], sizeof acc[h]);
      std::memcpy(outside + h * half + j, &out[h], sizeof out[h]);
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) inline void chain_steps_avx2(float* c, const mma_row_block* a, const mma_panel_block* b,
                                                             std::int64_t steps, std::int32_t* outside,
                                                             std::uint32_t opaque_zero) {
  chain_steps<vector_8>(c, a, b, steps, outside, opaque_zero);
}
#endif
inline void chain_steps_baseline(float* c, const mma_row_block* a, const mma_panel_block* b, std::int64_t steps,
                                 std::int32_t* outside, std::uint32_t opaque_zero) {
  chain_steps<vector_4>(c, a, b, steps, outside, opaque_zero);
}

}  // namespace mma_detail

// c[j] over `steps` steps with one row of A and column j of the panel, for all 32 j: the bits of mma_step_exact, step
// after step. Any c, any operands; finite ones of ordinary size are fast. The caller holds an fp_environment. `widest`:
// whether to use the longest vectors that the machine has, which changes no bit.
template <class T>
void mma_chain(float* c, const mma_row_block* a, const mma_panel_block* b, std::int64_t steps, bool widest = true) {
  using namespace mma_detail;
  alignas(64) float acc[mma_columns], before[mma_columns];
  alignas(64) std::int32_t outside[mma_columns];
  std::uint32_t opaque_zero = 0;
  asm("" : "+r"(opaque_zero));
#if defined(__x86_64__)
  const bool avx2 = widest && __builtin_cpu_supports("avx2");
#else
  static_cast<void>(widest);
#endif
  std::memcpy(acc, c, sizeof acc);
  for (std::int64_t first = 0; first < steps; first += checked_steps) {
    const std::int64_t count = steps - first < checked_steps ? steps - first : checked_steps;
    std::memcpy(before, acc, sizeof acc);
#if defined(__x86_64__)
    if (avx2) {
      chain_steps_avx2(acc, a + first, b + first, count, outside, opaque_zero);
    } else {
      chain_steps_baseline(acc, a + first, b + first, count, outside, opaque_zero);
    }
#else
    chain_steps_baseline(acc, a + first, b + first, count, outside, opaque_zero);
#endif
    std::int32_t any = 0;
    for (const std::int32_t o : outside) any |= o;
    if (any == 0) continue;
    for (int j = 0; j < mma_columns; ++j) {
      if (outside[j] == 0) continue;
      acc[j] = before[j];
      for (std::int64_t step = first; step < first + count; ++step) {
        T x[mma_depth], y[mma_depth];
        for (int k = 0; k < mma_depth; ++k) {
          x[k] = cvt_rn<T>(a[step].value[k]);
          y[k] = cvt_rn<T>(b[step].value[k][j]);
        }
        acc[j] = mma_step_exact(acc[j], x, y);
      }
    }
  }
  std::memcpy(c, acc, sizeof acc);
}

}  // namespace reference
BI_NAMESPACE_END
