// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/exp2_grid.hpp"
#include "bi/contract/functions.hpp"
#include "bi/contract/id.hpp"
#include "bi/dtype.hpp"

// Attention of one query row over the view indices [lo, see) of its view, for one head.
//
//   s_j   q . k_j, one tensor-core chain over head_dim from +0, k16 steps ascending
//   tile  64 consecutive view indices, leaf 256, both at absolute positions: [0, 256), [256, 512), ... Pages, runs,
//         chunks and splits never move them. A tile or leaf with no visible index is not in the row's tree.
//   leaf  fresh state {m, l[4], o[head_dim]}; its tiles ascending; then closed
//   row   closed leaves folded left to right; one division and one rounding at the end
//
// A tile: t = tile_max(s of the visible, scale); r = advance(m, t); p_j = weight(s_j, scale, r.shift), +0 for an invisible
// index by selection; o = mul(o, r.rescale), directly followed by the tensor-core chain o += P V over the tile's keys,
// k16 steps ascending, P = cvt(p) to V's type and V = 0 at invisible indices; l[i] = fma(l[i], r.rescale, lane_sum(p)).
//
// Exponents are multiples of 2^-12 (bi/contract/exp2_grid.hpp), maxima too, where |m| < 1024 (elsewhere m is what 3072 less
// its shift is), so that a weight has an error of 2^-13.5 of itself and factors of maxima none of their own. A weight
// below 2^-126 is +0. NaN and +Inf among the scores make m NaN or +Inf, and the row NaN. At |s w| >= 2^27 the bits are
// defined but say nothing: m is rounded, the products of weights are not, and a weight may be as large as Inf.

BI_NAMESPACE_BEGIN
namespace contract {

// What every score of a call is multiplied with.
struct BI_TYPE attention_scale {
  float w = 0;      // exponent per unit of score
  float inner = 0;  // with a soft cap: scale / cap
  float cap = 0;
};

// A leaf in progress, without o. m is a lagging maximum: it moves only when a tile exceeds it by more than 8, so most
// tiles rescale nothing and p stays below 2^9.
struct BI_TYPE attention_leaf {
  float m = neg_inf_f32();
  float l[4] = {0.0f, 0.0f, 0.0f, 0.0f};
};

// A tile's effect on the state.
struct BI_TYPE attention_advance {
  float m;        // the new maximum
  float shift;    // 3072 - m, of m = -Inf 3072: what weight() adds
  float rescale;  // multiplies l and o; exactly 1 if m did not move
};

// Two partial results as one: l = fma(l, a, mul(l', b)), o likewise. a belongs to the left one, so a chain of folds is one
// dependent fma a step.
struct BI_TYPE attention_fold {
  float m;
  float a;
  float b;
};

struct BI_TYPE attention_range {
  std::int64_t lo;
  std::int64_t see;  // the row sees view indices lo <= j < see
};

// What the attention contracts have in common.
struct BI_TYPE attention_order {
  static constexpr int tile = 64;   // view indices
  static constexpr int leaf = 256;  // view indices
  static constexpr int step = 16;   // of the tensor core's chains
  static constexpr mma_family family = mma_family::hopper;
  static_assert(leaf % tile == 0 && tile % step == 0, "a leaf holds whole tiles, a tile whole steps");

  // Row i of the q_len rows of a request with len view tokens. Causal: those rows are the view's last tokens, in order.
  // A window > 0 keeps the last `window` of what the row would see; indices stay absolute.
  BI_HD static constexpr attention_range visible(bool causal, std::int64_t len, std::int64_t q_len, std::int64_t i,
                                                 std::int64_t window) {
    std::int64_t see = causal ? len - q_len + i + 1 : len;
    if (see < 0) see = 0;
    const std::int64_t lo = window > 0 && see > window ? see - window : 0;
    return {lo, see};
  }
  BI_HD static constexpr std::int64_t first_leaf(std::int64_t lo) { return lo / leaf; }
  BI_HD static constexpr std::int64_t end_leaf(std::int64_t see) { return (see + leaf - 1) / leaf; }

  // The exponent that a tile asks for; `largest` is max_nan over its visible scores.
  BI_HD static float tile_max(float largest, const attention_scale& x) { return mul_rn(largest, x.w); }

  // A NaN t makes m NaN, and it stays: no comparison with NaN holds. From m = -Inf every other t is taken.
  BI_HD static attention_advance advance(float m, float t) {
    const bool takes = greater(t, add_rn(m, 8.0f)) || is_nan(t);
    const float next = takes ? on_grid(t) : m;
    return {next, shift(next), takes ? power(sub_rn(m, base(next))) : 1.0f};
  }
  // Of a leaf's first tile, whose m is -Inf, also the maximum itself: l and o are +0 then, whatever multiplies them.
  BI_HD static float on_grid(float t) { return sub_rn(exp2_grid_origin, sub_rn(exp2_grid_origin, t)); }
  BI_HD static float base(float m) { return is_neg_inf(m) ? 0.0f : m; }
  BI_HD static float shift(float m) { return sub_rn(exp2_grid_origin, base(m)); }
  // 2^d: of a difference of maxima.
  BI_HD static float power(float d) { return exp2_grid(add_rn(exp2_grid_origin, d)); }

  // The weight of a visible index, 2^(s w - m).
  BI_HD static float weight(float s, const attention_scale& x, float shift) {
    return exp2_grid(fma_rn(s, x.w, shift));
  }

  // The key of a tile that is element (w, h, e) of lane i: w, i = 0..3; h, e = 0..1. One thread holds a lane's 16 keys
  // of a row in the tensor core's accumulators, whether queries or keys are M, so the sum needs no exchange.
  BI_HD static constexpr int key(int i, int w, int h, int e) { return 16 * w + 8 * h + 2 * i + e; }

  // p[4 w + 2 h + e] of one lane, unrounded. half_lane_sum: of w = 0, 1 or w = 2, 3, which another thread may have.
  struct BI_TYPE half_sum {
    float e0, e1;
  };
  BI_HD static half_sum half_lane_sum(const float (&p)[8]) {
    return {add_rn(add_rn(p[0], p[2]), add_rn(p[4], p[6])), add_rn(add_rn(p[1], p[3]), add_rn(p[5], p[7]))};
  }
  BI_HD static float lane_sum(const half_sum& low, const half_sum& high) {
    return add_rn(add_rn(low.e0, high.e0), add_rn(low.e1, high.e1));
  }
  BI_HD static float lane_sum(const float (&p)[16]) {
    const float low[8] = {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
    const float high[8] = {p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15]};
    return lane_sum(half_lane_sum(low), half_lane_sum(high));
  }
  BI_HD static float accumulate(float l, float rescale, float sum) { return fma_rn(l, rescale, sum); }

  // Closing a leaf. m = -Inf: every visible score is -Inf, and l and o become +0 by selection, whatever V holds.
  BI_HD static float close(float m, float l0, float l1, float l2, float l3) {
    const float l = add_rn(add_rn(l0, l1), add_rn(l2, l3));
    return is_finite(m) ? l : is_neg_inf(m) ? 0.0f : nan_f32();
  }
  BI_HD static float close_o(float m, float o) { return is_neg_inf(m) ? 0.0f : o; }

  BI_HD static attention_fold fold(float m_left, float m_right) {
    const float m = max_nan(m_left, m_right);
    return {m, power(sub_rn(m_left, base(m))), power(sub_rn(m_right, base(m)))};
  }
  // For l and for each o.
  BI_HD static float fold_value(const attention_fold& f, float left, float right) {
    return fma_rn(left, f.a, mul_rn(right, f.b));
  }

  // l = 0: nothing was seen, or every score was -Inf.
  BI_HD static bool is_empty(float l) { return (bits_of(l) & 0x7fffffffu) == 0; }
  BI_HD static float inverse(float l) { return div_rn(1.0f, l); }
  template <class T>
  BI_HD static T finish(float o, float l, float inverse) {
    return cvt_rn<T>(is_empty(l) ? 0.0f : mul_rn(o, inverse));
  }
  // Natural logarithm of the sum of exp(scaled score).
  BI_HD static float lse(float m, float l) {
    return is_empty(l) ? neg_inf_f32() : mul_rn(add_rn(m, log2(l)), 0x1.62e430p-1f);
  }

  BI_HD static bool is_neg_inf(float x) { return bits_of(x) == (inf_bits | 0x80000000u); }
};

// Scores are multiplied by the softmax scale inside the exponent's fma.
template <class T>
struct BI_TYPE attention_v1 : attention_order {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "attention takes bf16 or fp16");
  static constexpr const char* name = std::is_same_v<T, bf16> ? "attention_bf16_v1" : "attention_fp16_v1";
  static constexpr bool has_soft_cap = false;
  BI_HD static constexpr std::uint64_t id() { return contract_id(name, family, tile, leaf); }

  BI_HD static attention_scale prepare(float scale, float) {
    return {mul_rn(scale, 0x1.715476p+0f), 0.0f, 0.0f};
  }
  BI_HD static bool is_valid(const attention_scale& x) { return is_finite(x.w) && greater(x.w, 0.0f); }
  BI_HD static float score(float s, const attention_scale&) { return s; }
};

// Scores become cap * tanh(score * scale / cap), in (-cap, cap).
template <class T>
struct BI_TYPE attention_soft_cap_v1 : attention_order {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "attention takes bf16 or fp16");
  static constexpr const char* name =
      std::is_same_v<T, bf16> ? "attention_soft_cap_bf16_v1" : "attention_soft_cap_fp16_v1";
  static constexpr bool has_soft_cap = true;
  BI_HD static constexpr std::uint64_t id() { return contract_id(name, family, tile, leaf); }

  BI_HD static attention_scale prepare(float scale, float cap) { return {0x1.715476p+0f, div_rn(scale, cap), cap}; }
  BI_HD static bool is_valid(const attention_scale& x) { return is_finite(x.inner) && greater(x.inner, 0.0f); }
  BI_HD static float score(float s, const attention_scale& x) { return mul_rn(x.cap, tanh(mul_rn(s, x.inner))); }
};

}  // namespace contract
BI_NAMESPACE_END
