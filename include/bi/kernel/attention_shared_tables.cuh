// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/row.cuh"
#include "bi/device/tensor_map.hpp"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"
#include "bi/kernel/attention_shared_list.cuh"

// What the kernels of attention_shared.cuh are told, and how a block fills its tables from lengths and groups.

BI_NAMESPACE_BEGIN
namespace kernel {

// A partial result of each packed row, KV head and leaf of each request; a row's lie one after another. Leaf i of row r of
// head h of a request that `first` leaves lie before is number (first * heads + h * leaves) * rows + r * leaves + i.
struct attention_shared_partials {
  float* ml;             // m and l of each
  float* o;              // in attention_shared_column's order
  std::int32_t* before;  // [requests] leaves of the requests before, one head
  std::uint32_t count;   // of partial results
  std::int32_t rows;     // packed, of a request at most
};

// Value i of a partial result's o is that of this column: a thread of a tensor core's fragments has four in a row.
BI_HD constexpr int attention_shared_column(int i) { return i / 16 * 16 + i % 4 / 2 * 8 + i / 4 % 4 * 2 + i % 2; }

template <class T>
struct attention_shared_params {
  attention_params<T> a;
  attention_shared_groups groups;
  attention_shared_partials partials;
  std::int32_t most_leaves;  // of a view
  std::int32_t fold_stages;  // chunks of leaves on their way to a folding block
  // Tokens of a box of the tensor maps, all of one page; 0: there are no maps.
  std::int32_t box;
  device::tensor_map k, v;  // value, token of the page, head, page
  // Strides in units of 16 bytes; no array has 2^32 of them.
  std::uint32_t q_token, q_head, k_page, k_token, v_page, v_token;
};

// What a request's rows see, and its leaves; none if they see nothing.
struct attention_shared_view {
  device::attention_row_tile rows;
  device::attention_item item;
  std::int32_t leaves;
};
template <class Contract, class T>
BI_D attention_shared_view attention_find_shared_view(const attention_params<T>& p, std::int32_t most_leaves,
                                                      std::int64_t request, const attention_lengths& l) {
  attention_shared_view v;
  v.rows = device::attention_request_rows(p.batch, request, l.first, l.end);
  v.item = device::make_attention_item<Contract>(v.rows, l.len, p.causal, p.window);
  const std::int64_t leaves = v.rows.rows > 0 && v.item.lo < v.item.see ? v.item.leaves : 0;
  v.leaves = static_cast<std::int32_t>(leaves < most_leaves ? leaves : most_leaves);
  return v;
}

inline constexpr int attention_shared_fill_barrier = 2, attention_shared_fill_threads = 128;  // a named one; who meets

// Fills the tables; called by some warps of a block.
template <class Contract, class T, int TileRows>
class attention_shared_filler {
  static constexpr int leaf_tiles = Contract::leaf / Contract::tile;
  using walk = attention_shared_walk<TileRows, leaf_tiles>;

 public:
  BI_D attention_shared_filler(const attention_shared_params<T>& p, const attention_shared_tables& t, int thread)
      : p_(p), t_(t), thread_(thread) {}

  BI_D void fill() {
    if (thread_ / 32 == 3) {
      read_groups();
    } else {
#pragma unroll 1
      for (int r = thread_; r < t_.requests; r += threads_ - 32) look_at(r);
    }
    meet();
#pragma unroll 1
    for (int g = thread_ / 32; g < t_.groups; g += threads_ / 32) join(g);
    meet();
#pragma unroll 1
    for (int r = thread_; r < t_.requests; r += threads_) leave_to(r);
    meet();
    const int warp = thread_ / 32;
    if (warp == 0) add_up(t_.leaves(), t_.requests);
    if (warp == 1) add_up(t_.own(), t_.requests);
    if (warp == 2) add_up(t_.weight(), t_.groups);
    meet();
    if (blockIdx.x != 0) return;
    for (int r = thread_; r < t_.requests; r += threads_) p_.partials.before[r] = t_.below(t_.leaves(), r);
  }

 private:
  static constexpr int threads_ = attention_shared_fill_threads;
  BI_D static void meet() { device::named_barrier(attention_shared_fill_barrier, threads_); }

  static constexpr int row_bits = 8;  // beside the tiles of keys
  static_assert(TileRows < 1 << row_bits);

  // Places of groups don't overlap, whatever the caller says. A warp's work.
  BI_D void read_groups() {
    const int lane = thread_ % 32;
    std::int32_t most = 0;
#pragma unroll 1
    for (int i = lane; i - lane <= t_.groups; i += 32) {
      std::int32_t from = i <= t_.groups ? p_.groups.start[i] : 0;
      const std::int32_t tokens = i < t_.groups ? p_.groups.shared[i] : 0;
      from = from < t_.requests ? from : t_.requests;
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        const std::int32_t below = __shfl_up_sync(device::full_warp, from, d);
        if (lane >= d && below > from) from = below;
      }
      if (from < most) from = most;
      most = __shfl_sync(device::full_warp, from, 31);
      if (i <= t_.groups) t_.start()[i] = from;
      if (i < t_.groups) t_.depth()[i] = tokens / Contract::leaf;
    }
  }

  // leaves: the request's; own: its tiles of keys and packed rows; shared: leaves that all its rows see all of, from the
  // view's beginning.
  BI_D void look_at(int r) {
    const attention_lengths l = attention_read_lengths(p_.a, r);
    const attention_shared_view v = attention_find_shared_view<Contract>(p_.a, p_.most_leaves, r, l);
    std::int32_t whole = 0, tiles = 0;
    if (v.leaves > 0) {
      const auto range = [&](int row) {
        return Contract::visible(p_.a.causal, l.len, v.rows.q_len, v.rows.token(row), p_.a.window);
      };
      if (range(v.rows.rows - 1).lo == 0) whole = static_cast<std::int32_t>(range(0).see / Contract::leaf);
      tiles = (v.item.see - 1) / Contract::tile + 1 - static_cast<std::int32_t>(v.item.first_leaf) * leaf_tiles;
      if (tiles > v.leaves * leaf_tiles) tiles = v.leaves * leaf_tiles;
    }
    t_.leaves()[r] = v.leaves;
    t_.own()[r] = tiles << row_bits | v.rows.rows;
    t_.shared()[r] = whole < v.leaves ? whole : v.leaves;
  }

  // Finds who takes part in group g, and how many leaves they share; a warp's work. shared becomes ~leaves for them.
  BI_D void join(int g) {
    const int lane = thread_ % 32, first = t_.start()[g], end = t_.start()[g + 1];
    const std::int32_t most = t_.depth()[g];
    const auto shares = [&](std::int32_t request) {
      if (request < 0 || request >= t_.requests) return 0;
      const std::int32_t own = t_.shared()[request];
      return own < most ? own : most;
    };
    std::int32_t depth = 0x7fffffff, members = 0;
#pragma unroll 1
    for (int i = first; i < end; i += 32) {
      const std::int32_t leaves = i + lane < end ? shares(p_.groups.member[i + lane]) : 0;
      if (leaves > 0 && leaves < depth) depth = leaves;
      members += __popc(__ballot_sync(device::full_warp, leaves > 0));
    }
    depth = __reduce_min_sync(device::full_warp, depth);
    if (members < 2) depth = 0;  // nothing to gain
    std::int32_t sum = 0;
#pragma unroll 1
    for (int i = first; i < end; i += 32) {
      const bool has = i + lane < end;
      const std::int32_t request = has ? p_.groups.member[i + lane] : -1;
      const bool takes_part = depth > 0 && shares(request) > 0;
      const std::int32_t rows = takes_part ? t_.own()[request] & ((1 << row_bits) - 1) : 0;
      const std::int32_t to = sum + attention_inclusive_sum(rows, lane);
      __syncwarp();
      if (has) {
        t_.member()[i + lane] = takes_part ? request : 0;
        t_.rows()[i + lane] = to;
        if (takes_part) t_.shared()[request] = ~depth;
      }
      sum = __shfl_sync(device::full_warp, to, 31);
    }
    if (lane == 0) {
      t_.depth()[g] = depth;
      t_.weight()[g] = walk::group_weight(sum, depth);
    }
  }

  BI_D void leave_to(int r) {
    const std::int32_t shared = t_.shared()[r] < 0 ? ~t_.shared()[r] : 0;
    const std::int32_t tiles = (t_.own()[r] >> row_bits) - shared * leaf_tiles;
    t_.shared()[r] = shared;
    t_.own()[r] = tiles > 0 ? tiles : 0;
  }

  // A warp's work.
  BI_D void add_up(std::int32_t* x, int count) {
    const int lane = thread_ % 32;
    std::int32_t sum = 0;
#pragma unroll 1
    for (int i = 0; i < count; i += 32) {
      const std::int32_t to = sum + attention_inclusive_sum(i + lane < count ? x[i + lane] : 0, lane);
      if (i + lane < count) x[i + lane] = to;
      sum = __shfl_sync(device::full_warp, to, 31);
    }
  }

  const attention_shared_params<T>& p_;
  const attention_shared_tables& t_;
  const int thread_;
};

}  // namespace kernel
BI_NAMESPACE_END
