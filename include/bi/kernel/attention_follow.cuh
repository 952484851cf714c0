// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_team.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/load.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/device/ptx/store.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Folds what the blocks of attention_turns.cuh leave in the workspace, while they do. Each warp has some rows of an item, all
// columns, and looks for the item's next leaves, a lane for each; as many as have come in a row are folded.
//
// This kernel begins when every block of that one has begun, so whom it waits for runs, and waits for nobody. If no processor
// is left over it begins when one becomes free.

BI_NAMESPACE_BEGIN
namespace kernel {

inline constexpr int attention_follow_threads = 512, attention_follow_warps = attention_follow_threads / 32;
inline constexpr int attention_follow_most_rows = 16;  // of a warp

template <class T>
struct attention_follow_params {
  attention_params<T> a;
  attention_partials partials;
  const attention_turns_record* records;
  std::int32_t blocks;  // of the kernel before
};

// Of a warp.
template <int HeadDim>
struct attention_follow_memory {
  float o[attention_follow_most_rows][HeadDim];  // of the leaves so far
  float2 ml[attention_follow_most_rows];
  std::int32_t first[attention_follow_most_rows], end[attention_follow_most_rows];  // of the item's leaves, those that they see
  device::attention_team team;  // of the item
  device::attention_row_tile tile;
  float4 factors[32];  // of a row and a leaf: a, b, l times b
};

template <class Contract, class T, int HeadDim>
class attention_follow {
  using memory_type = attention_follow_memory<HeadDim>;
  static constexpr int width = HeadDim / 32;  // columns of a lane

 public:
  BI_D attention_follow(const attention_follow_params<T>& p, memory_type& memory) : p_(p), memory_(memory) {}

  BI_D void fold_all() {
    if (!begin()) return;
    if (rows_ % 4 == 0) {
      follow<4>();
    } else if (rows_ % 2 == 0) {
      follow<2>();
    } else {
      follow<1>();
    }
#pragma unroll 1
    for (int r = 0; r < rows_; ++r) write(r);
  }

 private:
  // Finds the warp's rows; says whether there are any, of an item that was cut.
  BI_D bool begin() {
    const std::int64_t items = p_.a.batch.requests * p_.a.heads_kv;
    const std::int64_t number = std::int64_t{threadIdx.x / 32} * gridDim.x + blockIdx.x;
    const int each =
        device::attention_follow_rows(items, p_.partials.rows, std::int64_t{gridDim.x} * attention_follow_warps);
    const std::int64_t parts = (p_.partials.rows + each - 1) / each, item = device::attention_divide(number, parts);
    if (item >= items) return false;
    const std::int64_t request = device::attention_divide(item, p_.a.heads_kv);
    head_ = static_cast<std::int32_t>(item - request * p_.a.heads_kv);
    const attention_lane_lengths lengths = attention_read_lane_lengths(p_.a, lane_);
    const auto leaves = attention_lane_leaves::find<Contract>(p_.a, lengths, lane_);
    const std::int64_t of_item = leaves.of(request);
    if (of_item == 0) return false;
    const device::attention_team team =
        device::make_attention_team({leaves.all() * p_.a.heads_kv, p_.blocks},
                                    leaves.before(request) * p_.a.heads_kv + head_ * of_item, of_item);
    if (team.members == 1) return false;
    const attention_lengths l = lengths.of(request);
    const device::attention_row_tile tile = device::attention_request_rows(p_.a.batch, request, l.first, l.end);
    const auto first_leaf = static_cast<std::int32_t>(attention_request_item<Contract>(p_.a, request, l).first_leaf);
    first_row_ = static_cast<int>(number - item * parts) * each;
    rows_ = tile.rows - first_row_ < each ? tile.rows - first_row_ : each;
    if (rows_ < 1) return false;
    if (lane_ == 0) memory_.team = team, memory_.tile = tile;
#pragma unroll 1
    for (int r = 0; r < rows_; ++r) {
#pragma unroll
      for (int i = 0; i < width; ++i) memory_.o[r][width * lane_ + i] = -0.0f;
      const contract::attention_range seen = attention_row_range<Contract>(p_.a, tile, l.len, first_row_ + r);
      if (lane_ == 0) {
        memory_.ml[r] = make_float2(neg_inf_f32(), -0.0f);
        memory_.first[r] = memory_.end[r] = 0;
        if (seen.lo < seen.see) {
          memory_.first[r] = static_cast<std::int32_t>(Contract::first_leaf(seen.lo)) - first_leaf;
          memory_.end[r] = static_cast<std::int32_t>(Contract::end_leaf(seen.see)) - first_leaf;
        }
      }
    }
    __syncwarp();
    return true;
  }

  // Leaf after leaf, Rows rows at once, which divide the warp's. Lane q * Leaves + t has row q and leaf t of those that are looked for.
  template <int Rows>
  BI_D void follow() {
    constexpr int leaves = 32 / Rows;
    looked now = look(0, 0, lane_ % leaves);
    for (std::int32_t at = 0;;) {
      int come = now.come<leaves>(lane_);
#pragma unroll 1
      for (; come == 0; come = now.come<leaves>(lane_)) {
        device::sleep_ns(40);
        now.ask();
      }
      __syncwarp();  // what a lane has seen is there, all may read
      looked next;
#pragma unroll 1
      for (int r = 0; r < rows_; r += Rows) {
        fold<Rows>(r, at, come, now.at, [&] {
          if (r + Rows >= rows_) next = look(at + come, now.time, lane_ % leaves);
        });
      }
      at += come;
      if (at >= memory_.team.leaves) return;
      now = next;
    }
  }

  // What a lane looks for: number `number` of a block's leaves, whose row that is the warp's first lies at `at`, in rows of all
  // places.
  struct looked {
    const std::int32_t* flags = nullptr;
    std::int32_t number = 0, time = 0;  // time: of the first lane's leaf
    std::uint32_t at = 0;
    bool is_there = false;

    BI_D void ask() {
      if (flags == nullptr) return;
      const int4 done = device::load_flags(flags);
      is_there = done.x > number && done.y > number && done.z > number && done.w > number;
    }
    // Leaves that have come, in a row from the first on.
    template <int Leaves>
    BI_D int come(int lane) const {
      const unsigned missing = ~__ballot_sync(device::full_warp, is_there && lane < Leaves);
      return missing == 0 ? 32 : __ffs(static_cast<int>(missing)) - 1;
    }
  };
  // For leaf at + t of the item's; `time` is not after that of leaf `at`.
  BI_D looked look(std::int32_t at, std::int32_t time, int t) const {
    looked x;
    const device::attention_team& team = memory_.team;
    if (at + t < team.leaves) {
      x.time = time;
      const std::int32_t member = team.find(at + t, x.time, x.number);
      const device::attention_team_places places = {p_.partials.places.a_block};
      x.flags = p_.records[team.block + member].done[member == 0 ? 0 : 1];
      x.at = static_cast<std::uint32_t>(places.leaf(team.block + member, member == 0, x.number) * p_.partials.rows +
                                        first_row_);
    }
    x.ask();
    x.time = __shfl_sync(device::full_warp, x.time, 0);
    return x;
  }

  // Rows r and those after it, of the leaves that have come; `own`: where the lane's leaf lies. meanwhile(): while what has come
  // is on its way.
  template <int Rows, class Meanwhile>
  BI_D void fold(int r, std::int32_t at, int come, std::uint32_t own, const Meanwhile& meanwhile) {
    constexpr int leaves = 32 / Rows, group = 16 / Rows;  // leaves whose loads are under way at once
    const int t = lane_ % leaves, row = r + lane_ / leaves;
    bool sees = t < come, alone = false;
    if (sees) {
      const std::int32_t first = memory_.first[row], leaf = at + t;
      sees = first <= leaf && leaf < memory_.end[row];
      alone = leaf == first;
    }
    const unsigned seen = __ballot_sync(device::full_warp, sees);
    float2 ml = make_float2(neg_inf_f32(), -0.0f);
    if (sees) ml = device::load_l2(reinterpret_cast<const float2*>(p_.partials.ml) + (own + static_cast<unsigned>(row)));
    {
      float x[Rows][group][width];
      load<Rows>(x, r, 0, come, own);
      meanwhile();
      make_factors<Rows>(row, alone, ml);
      add<Rows>(x, r, 0, seen);
    }
#pragma unroll 1
    for (int i = group; i < come; i += group) {
      float x[Rows][group][width];
      load<Rows>(x, r, i, come, own);
      add<Rows>(x, r, i, seen);
    }
    __syncwarp();
    drop<Rows>(r, come, own);
  }

  // Leaves i + [0, group) of Rows rows. In place of one that has not come the last that has: a branch around a load would make
  // the next one wait for it.
  template <int Rows>
  BI_D void load(float (&x)[Rows][16 / Rows][width], int r, int i, int come, std::uint32_t own) const {
#pragma unroll
    for (int j = 0; j < 16 / Rows; ++j) {
      const float* const from = row_of(own, i + j < come ? i + j : come - 1, r) + width * lane_;
#pragma unroll
      for (int q = 0; q < Rows; ++q) device::load_l2_in_order(from + q * HeadDim, x[q][j]);
    }
  }
  // Row r of the warp's of leaf i, whose place lane i has.
  BI_D float* row_of(std::uint32_t own, int i, int r) const {
    const std::uint32_t at = __shfl_sync(device::full_warp, own, i) + static_cast<unsigned>(r);
    return p_.partials.o + std::int64_t{at} * HeadDim;
  }

  // m of the row goes on; a factor of 1 leaves a value as it is that is folded into -0, and -0 takes any other.
  template <int Rows>
  BI_D void make_factors(int row, bool alone, const float2& ml) {
    constexpr int leaves = 32 / Rows;
    const int t = lane_ % leaves;
    const float m = memory_.ml[row].x;
    float to = ml.x;
#pragma unroll
    for (int d = 1; d < leaves; d *= 2) {
      const float below = __shfl_up_sync(device::full_warp, to, d);
      if (t >= d) to = max_nan(below, to);
    }
    const float below = __shfl_up_sync(device::full_warp, to, 1);
    const contract::attention_fold f = Contract::fold(t > 0 ? max_nan(m, below) : m, ml.x);
    const float a = alone ? 1.0f : f.a, b = alone ? 1.0f : f.b;
    memory_.factors[lane_] = make_float4(a, b, mul_rn(ml.y, b), 0.0f);
    __syncwarp();  // all have read m
    if (t == leaves - 1) memory_.ml[row].x = max_nan(m, to);
  }

  template <int Rows>
  BI_D void add(const float (&x)[Rows][16 / Rows][width], int r, int i, unsigned seen) {
    constexpr int leaves = 32 / Rows, group = 16 / Rows;
#pragma unroll
    for (int q = 0; q < Rows; ++q) {
      const unsigned of_row = seen >> (q * leaves + i) & ((1u << group) - 1);
      if (of_row != 0) add_row<group>(r + q, memory_.factors + q * leaves + i, of_row, x[q]);
    }
  }
  // Leaves of a row, those in `seen`.
  template <int Leaves>
  BI_D void add_row(int row, const float4* factors, unsigned seen, const float (&x)[Leaves][width]) {
    float(&o)[HeadDim] = memory_.o[row];
    float own[width], l = memory_.ml[row].y;
#pragma unroll
    for (int c = 0; c < width; ++c) own[c] = o[width * lane_ + c];
#pragma unroll
    for (int j = 0; j < Leaves; ++j) {
      if ((seen >> j & 1) == 0) continue;
      const float4 f = factors[j];
      l = fma_rn(l, f.x, f.z);
#pragma unroll
      for (int c = 0; c < width; ++c) own[c] = fma_rn(own[c], f.x, mul_rn(x[j][c], f.y));
    }
#pragma unroll
    for (int c = 0; c < width; ++c) o[width * lane_ + c] = own[c];
    __syncwarp();  // all have read l
    if (lane_ == 0) memory_.ml[row].y = l;
  }

  // What the rows have read nobody reads again, and it need not go to memory.
  template <int Rows>
  BI_D void drop(int r, int come, std::uint32_t own) const {
    constexpr int lines = HeadDim * static_cast<int>(sizeof(float)) / 128, of_leaf = Rows * lines;  // rows lie side by side
    static_assert(lines * 128 == HeadDim * static_cast<int>(sizeof(float)), "rows fill lines");
    const int line = lane_ % of_leaf;
#pragma unroll 1
    for (int i = lane_ / of_leaf; i - lane_ / of_leaf < come; i += 32 / of_leaf) {
      float* const from = row_of(own, i % (32 / Rows), r) + line * 32;
      if (i < come) device::discard_line(from);
    }
  }

  BI_D void write(int r) const {
    const int row = first_row_ + r;
    const device::attention_row_tile& tile = memory_.tile;
    const std::int64_t token = tile.first_row + tile.token(row),
                       head = std::int64_t{head_} * tile.group + tile.head(row);
    float m = memory_.ml[r].x, l = memory_.ml[r].y;
    const bool sees_nothing = memory_.first[r] >= memory_.end[r];
    if (sees_nothing) l = 0.0f;
    if (p_.a.lse != nullptr && lane_ == 0) p_.a.lse[token * p_.a.lse_token_stride + head] = Contract::lse(m, l);
    const float inverse = Contract::inverse(l);
    T* const out = p_.a.out + token * p_.a.out_token_stride + head * p_.a.out_head_stride + width * lane_;
    T x[width];
#pragma unroll
    for (int c = 0; c < width; ++c) {
      x[c] = Contract::template finish<T>(sees_nothing ? 0.0f : memory_.o[r][width * lane_ + c], l, inverse);
    }
    if (!p_.a.out_aligned) {
#pragma unroll
      for (int c = 0; c < width; ++c) out[c] = x[c];
    } else {
#pragma unroll
      for (int c = 0; c < width; c += 2) {
        reinterpret_cast<std::uint32_t*>(out)[c / 2] = x[c].bits | static_cast<std::uint32_t>(x[c + 1].bits) << 16;
      }
    }
  }

  const attention_follow_params<T>& p_;
  memory_type& memory_;
  const int lane_ = static_cast<int>(threadIdx.x) % 32;
  std::int32_t head_ = 0;
  int first_row_ = 0, rows_ = 0;  // the warp's, of the tile's
};

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_follow_threads,
                            1) void attention_follow_kernel([[maybe_unused]] const attention_follow_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900  // no launcher asks others for it
  extern __shared__ __align__(128) unsigned char shared[];
  device::launch_dependents();  // they wait for the end of this kernel
  attention_follow<Contract, T, HeadDim>(
      p, reinterpret_cast<attention_follow_memory<HeadDim>*>(shared)[static_cast<int>(threadIdx.x) / 32])
      .fold_all();
  device::wait_for_dependencies();  // so who waits for this kernel's end waits for the one's before too
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
