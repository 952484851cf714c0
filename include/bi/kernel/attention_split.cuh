// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_softmax.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/attention_tile.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/view.cuh"
#include "bi/kernel/attention_mma.cuh"

// Attention of requests with few rows over long views. The leaves of all requests and heads are dealt out evenly
// (bi/device/attention_split.cuh); what a block can't finish by itself it leaves in the workspace for attention_fold.cuh. A
// row's tree is the one that attention_mma.cuh walks: leaves fold in order there, here or in the other kernel.
//
// A block streams the tiles of its share through a ring in shared memory, from one item to the next without a pause: two
// warps copy, four compute. With 16 rows all four compute the same scores and weights, and each has a quarter of V's
// columns: the keys of a tile can't be shared out without two more barriers a tile, and the tensor cores have the time.
//
// A tile goes through three iterations of the copiers: they look its tokens up, write down where they lie, start the
// copies. So nothing waits for a page table.

BI_NAMESPACE_BEGIN
namespace kernel {

// Partial results: of place i, row r and column d (m, l) at ml[2 (i * rows + r)] and o at o[(i * rows + r) * head_dim + d].
struct attention_partials {
  float* ml;
  float* o;
  device::attention_cut* cuts;  // of each block
  device::attention_places places;
  std::int64_t rows;
};

template <class T>
struct attention_split_params {
  attention_params<T> a;
  attention_partials partials;
  std::int32_t stages;  // of the ring
};

inline constexpr int attention_split_max_stages = 8;

template <int HeadDim, int RowWarps>
struct attention_split_shape {
  static constexpr int warps = 4, copy_warps = 2;
  static constexpr int compute_threads = 32 * warps, copy_threads = 32 * copy_warps;
  static constexpr int threads = compute_threads + copy_threads, column_warps = warps / RowWarps;
  static constexpr int columns = HeadDim / column_warps;  // of o, of a warp
  static constexpr int rows = 16 * RowWarps, blocks = columns / 8;
  static constexpr int residents = RowWarps == 1 && HeadDim <= 128 ? 2 : 1;  // thread blocks of an SM
  static constexpr int tile_values = device::key_tile * HeadDim;
};

// A run that copies or products are under way of.
struct attention_split_run {
  device::attention_row_tile rows;
  device::attention_walk walk;  // at this run
  std::int32_t lo, see;         // of the item
  std::int32_t first_tile, end_tile;
};

template <class T, int HeadDim, int RowWarps>
struct attention_split_memory {
  T q[2][16 * RowWarps * HeadDim];  // of the run in hand and the next one
  std::int64_t k_offset[2][device::key_tile], v_offset[2][device::key_tile];
  attention_split_run runs[2];
  std::int64_t sums[6];
  std::int64_t found[2];
  std::int32_t orders[2];  // the copiers' to those who compute, of an iteration
  // Of the closed leaves, [value][thread]; of few rows they stay in registers.
  float o[RowWarps == 1 ? 1 : 16 * RowWarps * HeadDim];
};
template <class T, int HeadDim, int RowWarps>
inline constexpr int attention_split_ring_at =
    (static_cast<int>(sizeof(attention_split_memory<T, HeadDim, RowWarps>)) + 127) / 128 * 128;
template <class T, int HeadDim, int RowWarps>
constexpr int attention_split_bytes(int stages) {
  return attention_split_ring_at<T, HeadDim, RowWarps> + stages * 2 * device::key_tile * HeadDim * 2;
}

BI_D inline std::int64_t attention_inclusive_sum(std::int64_t x, int lane) {
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const long long below = __shfl_up_sync(device::full_warp, static_cast<long long>(x), d);
    if (lane >= d) x += below;
  }
  return x;
}

// One block's share, found by all its threads. Leaves walk.run.count == 0 if the share is empty.
template <class Contract, class T, class Memory>
BI_D device::attention_shares attention_split_start(const attention_params<T>& p, Memory& memory,
                                                    device::attention_walk& walk) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto leaves_of = [&](std::int64_t request) -> std::int64_t {
    if (request >= p.batch.requests) return 0;
    return device::make_attention_item<Contract>(device::attention_request_rows(p.batch, request), p.len[request],
                                                 p.causal, p.window)
        .leaves;
  };
  // Each thread sums a piece of the requests; a warp then searches the piece that has the share's first leaf.
  const std::int64_t each = (p.batch.requests + blockDim.x - 1) / blockDim.x, first = thread * each;
  std::int64_t own = 0;
  for (std::int64_t i = 0; i < each; ++i) own += leaves_of(first + i);
  std::int64_t end = attention_inclusive_sum(own, lane);
  if (lane == 31) memory.sums[warp] = end;
  __syncthreads();
  std::int64_t total = 0;
#pragma unroll
  for (int w = 0; w < 6; ++w) {
    if (w == warp) end += total;
    total += memory.sums[w];
  }
  const device::attention_shares shares = {total * p.heads_kv, gridDim.x};
  const std::int64_t begin = shares.begin(blockIdx.x), share_end = shares.begin(blockIdx.x + 1);
  walk.run.count = 0;
  if (begin == share_end) return shares;
  const std::int64_t target = begin / p.heads_kv;
  if (target >= end - own && target < end) {
    memory.found[0] = first;
    memory.found[1] = end - own;
  }
  __syncthreads();
  std::int64_t request = memory.found[0], sum = memory.found[1];
  for (;;) {
    const std::int64_t leaves = leaves_of(request + lane), to = sum + attention_inclusive_sum(leaves, lane);
    const unsigned beyond = __ballot_sync(device::full_warp, target < to);
    if (beyond != 0) {
      const int at = __ffs(static_cast<int>(beyond)) - 1;
      const std::int64_t from = __shfl_sync(device::full_warp, static_cast<long long>(to - leaves), at);
      walk.start(begin, share_end, request + at, from * p.heads_kv,
                 __shfl_sync(device::full_warp, static_cast<long long>(leaves), at));
      return shares;
    }
    sum = __shfl_sync(device::full_warp, static_cast<long long>(to), 31);
    request += 32;
  }
}

// Waits until at most `pending` of the thread's groups of copies are under way, or fewer.
BI_D inline void attention_wait_copies(int pending) {
  switch (pending) {
    case 1:
      return device::cp_async_wait<1>();
    case 2:
      return device::cp_async_wait<2>();
    case 3:
      return device::cp_async_wait<3>();
    case 4:
      return device::cp_async_wait<4>();
    case 5:
      return device::cp_async_wait<5>();
    case 6:
      return device::cp_async_wait<6>();
    default:
      return device::cp_async_wait<0>();
  }
}

// The tiles of a block's share in order: where their tokens lie, and the copies into the ring.
template <class Contract, class T, int HeadDim, int RowWarps>
class attention_split_source {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  using memory_type = attention_split_memory<T, HeadDim, RowWarps>;
  static constexpr int tile = device::key_tile;
  static_assert(shape::copy_threads == tile, "a token of the tile for each thread");

 public:
  BI_D attention_split_source(const attention_params<T>& p, memory_type& memory, T* ring, int stages,
                              const device::attention_walk& walk)
      : p_(p),
        memory_(memory),
        ring_(ring),
        thread_(static_cast<int>(threadIdx.x) - shape::compute_threads),
        stages_(stages),
        cursor_(p.view, walk.run.request) {
    enter(walk);
  }

  // Tiles whose copies have begun, and runs whose tiles have all been looked up but for the current one's.
  BI_D int issued() const { return issued_; }
  BI_D bool more(int run) const { return ready_ || pending_ || may_look_up(run); }

  // One iteration, after a barrier. `run`: the run in hand; its q and the next one's are in memory, no others.
  BI_D void step(int run) {
    if (ready_) copy();
    ready_ = pending_;
    ready_run_ = pending_run_;
    if (pending_) write_places();
    pending_ = may_look_up(run);
    if (pending_) look_up();
  }

 private:
  BI_D bool may_look_up(int run) const { return tile_ < end_tile_ || (more_ && runs_ < run + 2); }

  // Begins walk.run.
  BI_D void enter(const device::attention_walk& walk) {
    const device::attention_row_tile rows = device::attention_request_rows(p_.batch, walk.run.request);
    const device::attention_item item =
        device::make_attention_item<Contract>(rows, p_.len[walk.run.request], p_.causal, p_.window);
    constexpr int leaf_tiles = Contract::leaf / tile;
    const std::int64_t first = (item.first_leaf + walk.run.begin) * leaf_tiles;
    const std::int64_t end = first + walk.run.count * leaf_tiles;
    // A row that sees nothing gets a tile without keys.
    const int seen_first = item.lo / tile, seen_end = item.lo < item.see ? (item.see - 1) / tile + 1 : seen_first + 1;
    lo_ = item.lo;
    see_ = item.see;
    tile_ = static_cast<int>(first > seen_first ? first : seen_first);
    end_tile_ = static_cast<int>(end < seen_end ? end : seen_end);
    more_ = walk.more();
    if (thread_ == 0) memory_.runs[runs_ % 2] = {rows, walk, lo_, see_, tile_, end_tile_};
    ++runs_;
    first_of_run_ = true;
    cursor_ = device::view_cursor(p_.view, walk.run.request);
    if (lo_ < see_) cursor_.skip_to(tile_ * tile > lo_ ? tile_ * tile : lo_);
  }

  BI_D void look_up() {
    if (tile_ == end_tile_) {
      device::attention_walk walk = memory_.runs[(runs_ - 1) % 2].walk;
      walk.next(p_.heads_kv, [&](std::int64_t request) {
        return device::make_attention_item<Contract>(device::attention_request_rows(p_.batch, request),
                                                     p_.len[request], p_.causal, p_.window)
            .leaves;
      });
      enter(walk);
    }
    pending_run_ = first_of_run_ ? runs_ : -runs_;  // counted from 1; positive: q is needed too
    first_of_run_ = false;
    const std::int32_t index = tile_ * tile + thread_;
    place_ = index >= lo_ && index < see_ ? cursor_.place(index) : device::kv_place{-1, 0};
    ++tile_;
  }

  BI_D void write_places() {
    const int run = (pending_run_ > 0 ? pending_run_ : -pending_run_) - 1;
    const std::int64_t head = memory_.runs[run % 2].walk.run.head;
    const bool valid = place_.valid();
    memory_.k_offset[parity_][thread_] =
        valid ? place_.page * p_.k_page_stride + place_.token * p_.k_token_stride + head * p_.k_head_stride : -1;
    memory_.v_offset[parity_][thread_] =
        valid ? place_.page * p_.v_page_stride + place_.token * p_.v_token_stride + head * p_.v_head_stride : -1;
    parity_ ^= 1;
  }

  BI_D void copy() {
    T* target = ring_ + stage_ * 2 * shape::tile_values;
    const std::int64_t* k = memory_.k_offset[parity_ ^ 1];
    const std::int64_t* v = memory_.v_offset[parity_ ^ 1];
    device::gather_tile<tile, HeadDim, shape::copy_threads>(target, p_.k, p_.k_aligned, thread_,
                                                       [&](int j) { return k[j] >= 0 ? p_.k + k[j] : nullptr; });
    device::gather_tile<tile, HeadDim, shape::copy_threads>(target + shape::tile_values, p_.v, p_.v_aligned, thread_,
                                                       [&](int j) { return v[j] >= 0 ? p_.v + v[j] : nullptr; });
    if (ready_run_ > 0) {
      const attention_split_run& r = memory_.runs[(ready_run_ - 1) % 2];
      const T* q = p_.q + r.rows.first_row * p_.q_token_stride + r.walk.run.head * r.rows.group * p_.q_head_stride;
      device::gather_tile<shape::rows, HeadDim, shape::copy_threads>(
          memory_.q[(ready_run_ - 1) % 2], p_.q, p_.q_aligned, thread_, [&](int i) {
            return i < r.rows.rows ? q + r.rows.token(i) * p_.q_token_stride + r.rows.head(i) * p_.q_head_stride
                                   : nullptr;
          });
    }
    device::cp_async_commit();
    ++issued_;
    stage_ = stage_ + 1 == stages_ ? 0 : stage_ + 1;
  }

  const attention_params<T>& p_;
  memory_type& memory_;
  T* ring_;
  int thread_;
  int stages_, stage_ = 0, issued_ = 0, parity_ = 0;
  int runs_ = 0;  // begun
  bool more_ = false, first_of_run_ = false, pending_ = false, ready_ = false;
  int pending_run_ = 0, ready_run_ = 0;
  std::int32_t lo_ = 0, see_ = 0;
  int tile_ = 0, end_tile_ = 0;
  device::view_cursor cursor_;
  device::kv_place place_{-1, 0};
};

// What a warp has of a run: 16 rows and some columns.
template <class Contract, class T, int HeadDim, int RowWarps>
class attention_split_rows {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  static constexpr int tile = device::key_tile, leaf_tiles = Contract::leaf / tile;
  static_assert(tile == Contract::tile && Contract::leaf % tile == 0, "the kernel's tiles are the contract's");

 public:
  BI_D attention_split_rows(const attention_split_params<T>& p, float* shared_o)
      : p_(p),
        shared_o_(shared_o + threadIdx.x),
        scale_(Contract::prepare(p.a.scale, p.a.soft_cap)),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) / 32 / shape::column_warps * 16),
        column_(static_cast<int>(threadIdx.x) / 32 % shape::column_warps * shape::columns) {}

  BI_D void begin(const attention_split_run& r) {
    device::attention_reset(state_);
#pragma unroll
    for (int i = 0; i < in_registers; ++i) o_[i] = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const contract::attention_range seen = attention_row_range<Contract>(p_.a, r.rows, row_ + 8 * h + lane_ / 4);
      state_.lo[h] = static_cast<std::int32_t>(seen.lo);
      state_.see[h] = static_cast<std::int32_t>(seen.see);
    }
  }

  // Tile t of the run; a row takes part if it sees some of it.
  BI_D void walk_tile(const attention_split_run& r, int t, T* q, T* k, T* v) {
    if (row_ >= r.rows.rows) return;
    const int lane = device::opaque(lane_);  // or addresses for all of the loop are made before it
    const auto in_tile = [&](std::int32_t index) {
      const int j = index - t * tile;
      return j < 0 ? 0 : j < tile ? j : tile;
    };
    const int begin[2] = {in_tile(state_.lo[0]), in_tile(state_.lo[1])};
    const int end[2] = {in_tile(state_.see[0]), in_tile(state_.see[1])};
    const bool sees[2] = {begin[0] < end[0], begin[1] < end[1]};
    if (__any_sync(device::full_warp, sees[0] || sees[1])) {
      float s[tile / 8][4], rescale[2];
      std::uint32_t weights[tile / 16][4];
      device::attention_scores<shape::rows, HeadDim>(s, q, row_, k, lane);
      // Not end[h] == tile: ptxas 13.0 takes the comparison of a clamped value with its upper bound for true.
      const std::int32_t tile_begin = t * tile, tile_last = tile_begin + (tile - 1);
      const bool whole = state_.lo[0] <= tile_begin && state_.lo[1] <= tile_begin && state_.see[0] > tile_last &&
                         state_.see[1] > tile_last;
      if (__all_sync(device::full_warp, whole)) {
        device::attention_weigh<Contract, false>(state_, s, rescale, scale_, begin, end, lane);
      } else {
        device::attention_weigh<Contract, true>(state_, s, rescale, scale_, begin, end, lane);
      }
      device::attention_rescale(state_, rescale);
      device::attention_pack_weights<T>(weights, s);

      T* values = device::tile_part<tile>(v, column_ / device::tile_width);
      const int first = column_ % device::tile_width / 8;
      // Whether a key that is loaded is one that one of the thread's rows does not see.
      bool hidden = false;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        hidden = hidden || (sees[h] && (begin[h] > in_tile(r.lo) || end[h] < in_tile(r.see)));
      }
      const bool masked = __any_sync(device::full_warp, hidden) &&
                          device::attention_nonfinite_keys<shape::columns>(values, lane, first) != 0;
      if (masked) {
        device::attention_add_masked_values(state_.leaf_o, weights, values, begin, end, lane, first);
      } else if (__all_sync(device::full_warp, sees[0] && sees[1])) {
        device::attention_add_values<false>(state_.leaf_o, weights, values, sees, lane, first);
      } else {
        device::attention_add_values<true>(state_.leaf_o, weights, values, sees, lane, first);
      }
    }
    if (t % leaf_tiles != leaf_tiles - 1 && t != r.end_tile - 1) return;
    if (r.walk.run.is_first()) {
      const std::int32_t leaf = t / leaf_tiles * Contract::leaf;
      if constexpr (RowWarps == 1) {
        device::attention_close_leaf<Contract, 1>(state_, o_, leaf, lane_);
      } else {
        device::attention_close_leaf<Contract, shape::compute_threads>(state_, shared_o_, leaf, lane_);
      }
    } else {
      const std::int64_t leaf = t / leaf_tiles - r.first_tile / leaf_tiles;
      const std::int64_t place = p_.partials.places.leaf(blockIdx.x, leaf);
      device::attention_give_leaf<Contract>(state_, lane_,
                                            [&](int h, float m, float l, const float(&o)[2 * shape::blocks]) {
                                              give(r, place, row_ + 8 * h + lane_ / 4, m, l, o);
                                            });
    }
  }

  BI_D void finish(const attention_split_run& r) {
    if (row_ >= r.rows.rows || !r.walk.run.is_first()) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_ + 8 * h + lane_ / 4;
      float o[2 * shape::blocks];
#pragma unroll
      for (int i = 0; i < 2 * shape::blocks; ++i) {
        const int value = i / 2 * 4 + 2 * h + i % 2;
        o[i] = RowWarps == 1 ? o_[value % in_registers] : shared_o_[value * shape::compute_threads];
      }
      if (r.walk.run.is_whole()) {
        write(r, row, state_.m[h], state_.l[h], o);
      } else {
        give(r, p_.partials.places.folded(blockIdx.x), row, state_.m[h], state_.l[h], o);
      }
    }
  }

 private:
  BI_D void give(const attention_split_run& r, std::int64_t place, int row, float m, float l,
                 const float (&o)[2 * shape::blocks]) const {
    if (row >= r.rows.rows) return;
    const std::int64_t at = place * p_.partials.rows + row;
    if (column_ == 0 && lane_ % 4 == 0) *reinterpret_cast<float2*>(p_.partials.ml + 2 * at) = make_float2(m, l);
    float* target = p_.partials.o + at * HeadDim + column_ + lane_ % 4 * 2;
#pragma unroll
    for (int j = 0; j < shape::blocks; ++j) {
      *reinterpret_cast<float2*>(target + 8 * j) = make_float2(o[2 * j], o[2 * j + 1]);
    }
  }

  BI_D void write(const attention_split_run& r, int row, float m, float l, const float (&o)[2 * shape::blocks]) const {
    if (row >= r.rows.rows) return;
    const attention_params<T>& a = p_.a;
    const std::int64_t token = r.rows.first_row + r.rows.token(row);
    const std::int64_t head = r.walk.run.head * r.rows.group + r.rows.head(row);
    if (a.lse != nullptr && column_ == 0 && lane_ % 4 == 0) a.lse[token * a.lse_token_stride + head] = Contract::lse(m, l);
    const float inverse = Contract::inverse(l);
    T* target = a.out + token * a.out_token_stride + head * a.out_head_stride + column_ + lane_ % 4 * 2;
#pragma unroll
    for (int j = 0; j < shape::blocks; ++j) {
      const T low = Contract::template finish<T>(o[2 * j], l, inverse);
      const T high = Contract::template finish<T>(o[2 * j + 1], l, inverse);
      if (a.out_aligned) {
        *reinterpret_cast<std::uint32_t*>(target + 8 * j) = low.bits | static_cast<std::uint32_t>(high.bits) << 16;
      } else {
        target[8 * j] = low;
        target[8 * j + 1] = high;
      }
    }
  }

  static constexpr int in_registers = RowWarps == 1 ? 4 * shape::blocks : 1;

  const attention_split_params<T>& p_;
  float* const shared_o_;
  const contract::attention_scale scale_;
  const int lane_, row_, column_;
  device::attention_state<shape::blocks> state_;
  float o_[in_registers];  // of the closed leaves
};

enum attention_split_order : std::int32_t { attention_split_wait, attention_split_tile, attention_split_end };

// All threads meet here once an iteration.
template <int Threads>
BI_D void attention_split_meet() {
  device::named_barrier(1, Threads);
}

// The copiers. They know which tile and run the others have in hand, as they give the orders.
template <class Contract, class T, int HeadDim, int RowWarps>
BI_D void attention_split_copy(const attention_split_params<T>& p, attention_split_memory<T, HeadDim, RowWarps>& memory,
                               T* ring, const device::attention_walk& walk) {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  attention_split_source<Contract, T, HeadDim, RowWarps> source(p.a, memory, ring, p.stages, walk);
  int run = 0, tiles = 0, t = -1;
  for (int parity = 0;; parity ^= 1) {
    attention_split_order order = attention_split_wait;
    if (source.issued() - tiles >= p.stages - 1 || !source.more(run)) {
      order = source.issued() == tiles ? attention_split_end : attention_split_tile;
      attention_wait_copies(source.issued() - tiles - 1);
    }
    if (threadIdx.x == shape::compute_threads) memory.orders[parity] = order;
    attention_split_meet<shape::threads>();  // the next tile is there, and everyone is done with the last one
    if (order == attention_split_end) return;
    source.step(run);
    if (order == attention_split_wait) continue;
    const attention_split_run& r = memory.runs[run % 2];
    if (t < 0) t = r.first_tile;
    ++tiles;
    if (++t == r.end_tile) {
      ++run;
      t = -1;
    }
  }
}

template <class Contract, class T, int HeadDim, int RowWarps>
BI_D void attention_split_compute(const attention_split_params<T>& p,
                                  attention_split_memory<T, HeadDim, RowWarps>& memory, T* ring,
                                  const device::attention_shares& shares) {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  attention_split_rows<Contract, T, HeadDim, RowWarps> rows(p, memory.o);
  int run = 0, stage = 0, t = -1;
  for (int parity = 0;; parity ^= 1) {
    attention_split_meet<shape::threads>();
    const std::int32_t order = memory.orders[parity];
    if (order == attention_split_end) return;
    if (order == attention_split_wait) continue;
    const attention_split_run& r = memory.runs[run % 2];
    if (t < 0) {
      t = r.first_tile;
      rows.begin(r);
    }
    T* k = ring + stage * 2 * shape::tile_values;
    rows.walk_tile(r, t, memory.q[run % 2], k, k + shape::tile_values);
    stage = stage + 1 == p.stages ? 0 : stage + 1;
    if (++t == r.end_tile) {
      rows.finish(r);
      // The last run has the last word.
      if (threadIdx.x == 0) {
        p.partials.cuts[blockIdx.x] =
            device::make_attention_cut(r.walk.run, shares.begin(blockIdx.x + 1), shares.total);
      }
      ++run;
      t = -1;
    }
  }
}

template <class Contract, class T, int HeadDim, int RowWarps>
BI_KERNEL __launch_bounds__(attention_split_shape<HeadDim, RowWarps>::threads,
                            attention_split_shape<HeadDim, RowWarps>::residents) void attention_split_kernel(
    const attention_split_params<T> p) {
  using shape = attention_split_shape<HeadDim, RowWarps>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_split_memory<T, HeadDim, RowWarps>*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_split_ring_at<T, HeadDim, RowWarps>);
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
  device::launch_dependents();  // the blocks that fold take little and wait for the end of this kernel
#endif
  device::attention_walk walk;
  const device::attention_shares shares = attention_split_start<Contract>(p.a, memory, walk);
  const int thread = static_cast<int>(threadIdx.x);
  if (walk.run.count == 0) {
    if (thread == 0) p.partials.cuts[blockIdx.x].request = -1;
    return;
  }
  if (thread >= shape::compute_threads) {
    attention_split_copy<Contract, T, HeadDim, RowWarps>(p, memory, ring, walk);
  } else {
    attention_split_compute<Contract, T, HeadDim, RowWarps>(p, memory, ring, shares);
  }
}

}  // namespace kernel
BI_NAMESPACE_END
