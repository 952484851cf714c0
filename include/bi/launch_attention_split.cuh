// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_clusters.cuh"
#include "bi/kernel/attention_fold.cuh"
#include "bi/kernel/attention_leaves.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_split.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/attention.hpp"

// The launchers of the split schedule's kernels, and what they take from the arguments.

BI_NAMESPACE_BEGIN
namespace launch_detail {

template <class T>
kernel::attention_params<T> make_attention_params(const attention_args<T>& a) {
  const attention_strides q = q_strides(a), out = out_strides(a);
  const cache_strides k = k_strides(a.cache), v = v_strides(a.cache);
  kernel::attention_params<T> p = {};
  p.q = a.q;
  p.k = a.cache.k;
  p.v = a.cache.v;
  p.out = a.out;
  p.lse = a.lse;
  p.len = a.len;
  p.batch.q_start = a.q_start;
  p.batch.requests = a.requests;
  p.batch.rows = a.rows;
  p.batch.group = a.limits.heads_q / a.limits.heads_kv;
  p.view = device::make_view_source(a.view, a.cache);
  p.q_token_stride = q.token;
  p.q_head_stride = q.head;
  p.out_token_stride = out.token;
  p.out_head_stride = out.head;
  p.lse_token_stride = a.lse_token_stride == 0 ? a.limits.heads_q : a.lse_token_stride;
  p.k_page_stride = k.page;
  p.k_token_stride = k.token;
  p.k_head_stride = k.head;
  p.v_page_stride = v.page;
  p.v_token_stride = v.token;
  p.v_head_stride = v.head;
  p.heads_kv = a.limits.heads_kv;
  p.window = a.window;
  p.scale = a.scale;
  p.soft_cap = a.soft_cap;
  p.causal = a.mask == attention_mask::causal;
  using device::vector_aligned;
  p.q_aligned = vector_aligned(a.q, q.token) && vector_aligned(a.q, q.head);
  p.out_aligned = vector_aligned(a.out, out.token) && vector_aligned(a.out, out.head);
  p.k_aligned = vector_aligned(p.k, k.page) && vector_aligned(p.k, k.token) && vector_aligned(p.k, k.head);
  p.v_aligned = vector_aligned(p.v, v.page) && vector_aligned(p.v, v.token) && vector_aligned(p.v, v.head);
  return p;
}

// At most this many row warps; 2 at head_dim 256 need more shared memory than every architecture has.
template <int HeadDim>
inline constexpr int most_row_warps = HeadDim == 256 ? 2 : 4;

// The split schedule's numbers, from the limits alone.
struct attention_split_limits {
  std::int64_t leaves, total, rows;
};
template <class Contract, int HeadDim>
attention_split_limits split_limits(const attention_limits& l) {
  const auto product = [](std::int64_t a, std::int64_t b) {
    constexpr std::int64_t most = std::int64_t{1} << 40;  // beyond what matters
    return b > 0 && a > most / b ? most : a * b;
  };
  attention_split_limits s = {};
  s.leaves = Contract::end_leaf(l.max_view) > 1 ? Contract::end_leaf(l.max_view) : 1;
  s.total = product(l.max_requests, s.leaves);
  if (l.max_view_sum > 0) {
    // Tokens in a row may lie in two leaves more than fill them.
    const std::int64_t by_sum = l.max_view_sum / Contract::leaf;
    s.leaves = by_sum + 2 < s.leaves ? by_sum + 2 : s.leaves;
    s.total = by_sum + 2 * l.max_requests < s.total ? by_sum + 2 * l.max_requests : s.total;
  }
  s.total = product(s.total, l.heads_kv);
  const std::int64_t packed = product(l.max_q_len, l.heads_q / l.heads_kv);
  s.rows = packed < 16 * most_row_warps<HeadDim> ? packed : 16 * most_row_warps<HeadDim>;
  return s;
}

// What the split schedule's kernels take whose partial results lie in a workspace.
template <class T>
kernel::attention_split_params<T> make_split_params(const attention_args<T>& a, const attention_split_limits& l,
                                                    const schedule::attention_split_space& space, void* data) {
  kernel::attention_split_params<T> p = {};
  p.a = make_attention_params(a);
  p.a.batch.tile_rows = static_cast<std::int32_t>(l.rows);
  p.a.batch.one_tile_each = true;
  auto* const bytes = static_cast<unsigned char*>(data);
  p.partials.cuts = reinterpret_cast<device::attention_cut*>(bytes);
  p.partials.ml = reinterpret_cast<float*>(bytes + space.records);
  p.partials.o = reinterpret_cast<float*>(bytes + space.records + space.ml);
  p.partials.places.a_block = space.places_a_block;
  p.partials.rows = l.rows;
  return p;
}

// Whether attention_leaves.cuh has a kernel for requests of at most 16 packed rows.
template <int HeadDim>
inline constexpr bool has_leaves_kernel = HeadDim <= 128;

// The longest ring, up to `most`, whose shared memory is within the limit.
template <class Bytes>
constexpr int longest_ring(int most, std::int64_t shared_limit, const Bytes& bytes) {
  int stages = 0;
  while (stages < most && bytes(stages + 1) <= shared_limit) ++stages;
  return stages;
}

// H100's; what is picked runs on devices that have no less.
inline constexpr std::int64_t split_shared_limit = 227 * 1024;

// The stages asked for, or with 0 the usual number; p has them then.
template <class T>
status take_stages(kernel::attention_split_params<T>& p, int asked, int least, int most, int usual) {
  p.stages = asked != 0 ? asked : usual;
  checker c("attention");
  c.supported("schedule.stages", p.stages, least <= p.stages && p.stages <= most, "what the kernel's rings can have");
  return c.result();
}

// Whether the code of attention_leaves.cuh, or of a kernel like it, that this device runs was built for sm_90a. Otherwise it is a
// trap, which takes few registers; the kernels have all that 512 threads can have.
template <class Params>
status find_leaves_code(void (*kernel)(Params), bool& found) {
  cudaFuncAttributes attributes = {};
  const status st = find_kernel_attributes("attention", kernel, attributes);
  found = st && attributes.numRegs > 64;
  return st;
}

// A ring of attention_leaves.cuh, of attention_clusters.cuh, and the launch.
template <class T, class Bytes>
status launch_leaves(void (*kernel)(kernel::attention_split_params<T>), kernel::attention_split_params<T>& p,
                     const schedule::attention_schedule& s, int most, int usual, const Bytes& bytes,
                     cuda_stream stream) {
  if (const status st = take_stages(p, s.stages, kernel::attention_leaves_least_slots, most, usual); !st) return st;
  launch_shape grid;
  grid.grid.x = static_cast<unsigned>(s.blocks);
  grid.block.x = kernel::attention_leaves_threads;
  grid.shared_bytes = static_cast<std::size_t>(bytes(p.stages));
  grid.programmatic = true;
  if (s.cluster > 0) grid.cluster = static_cast<unsigned>(s.cluster);
  return launch("attention", kernel, grid, p, stream);
}

// The kernel that walks the blocks' shares.
template <class Contract, int HeadDim, class T>
status attention_walk_shares(kernel::attention_split_params<T>& p, const schedule::attention_schedule& s,
                             cuda_stream stream) {
  if constexpr (has_leaves_kernel<HeadDim>) {
    bool found = s.row_warps == 1;
    if (found) {
      if (const status st = find_leaves_code(kernel::attention_leaves_kernel<Contract, T, HeadDim>, found); !st)
        return st;
    }
    if (found) {
      constexpr auto bytes = kernel::attention_leaves_bytes<Contract, HeadDim>;
      constexpr int most = longest_ring(kernel::attention_leaves_most_slots, split_shared_limit, bytes);
      // 128 KB under way a processor keep memory busy; what a longer ring asks for makes every other read wait longer.
      constexpr int usual = kernel::attention_leaves_least_slots * 128 / HeadDim;
      static_assert(usual >= kernel::attention_leaves_least_slots && usual <= most, "a leaf fits the rings");
      return launch_leaves(kernel::attention_leaves_kernel<Contract, T, HeadDim>, p, s, most, usual, bytes, stream);
    }
  }
  constexpr int row_warps = most_row_warps<HeadDim>;
  constexpr auto bytes = kernel::attention_split_bytes<T, HeadDim, row_warps>;
  constexpr int most = longest_ring(kernel::attention_split_max_stages, split_shared_limit, bytes);
  if (const status st = take_stages(p, s.stages, 2, most, most); !st) return st;
  launch_shape grid;
  grid.grid.x = static_cast<unsigned>(s.blocks);
  grid.block.x = kernel::attention_split_shape<HeadDim, row_warps>::threads;
  grid.shared_bytes = static_cast<std::size_t>(bytes(p.stages));
  return launch("attention", kernel::attention_split_kernel<Contract, T, HeadDim, row_warps>, grid, p, stream);
}

// A cluster for each item.
template <class Contract, int HeadDim, class T>
status attention_clusters(const attention_args<T>& a, const schedule::attention_schedule& s, cuda_stream stream) {
  const attention_split_limits l = split_limits<Contract, HeadDim>(a.limits);
  checker c("attention");
  c.supported("schedule.cluster", s.cluster,
              (s.cluster == 2 || s.cluster == 4 || s.cluster == 8 || s.cluster == 16) &&
                  l.leaves <= kernel::attention_cluster_leaves_a_block * s.cluster,
              "2, 4, 8 or 16, with at most twice as many leaves of a view");
  c.supported("schedule.blocks", s.blocks, s.blocks == a.requests * a.limits.heads_kv * s.cluster,
              "a cluster for each request and KV head");
  if (!c.ok()) return c.result();
  kernel::attention_split_params<T> p = {};
  p.a = make_attention_params(a);
  p.a.batch.tile_rows = static_cast<std::int32_t>(l.rows);
  p.a.batch.one_tile_each = true;
  constexpr auto bytes = kernel::attention_cluster_bytes<Contract, HeadDim>;
  constexpr int most = longest_ring(kernel::attention_leaves_most_slots, split_shared_limit, bytes);
  static_assert(most >= kernel::attention_leaves_least_slots, "a leaf fits the rings");
  return launch_leaves(kernel::attention_clusters_kernel<Contract, T, HeadDim>, p, s, most, most, bytes, stream);
}

// The kernel that folds what was cut, of so many records; `blocks`: of the kernel before.
template <class Contract, int HeadDim, class T>
status attention_fold(const kernel::attention_params<T>& a, const kernel::attention_partials& partials,
                      const attention_split_limits& l, std::int64_t shares, std::int64_t blocks, cuda_stream stream) {
  static_assert(kernel::attention_fold_most_records >= schedule::attention_split_most_blocks, "a record of each block");
  const std::int64_t records = partials.by_item ? a.batch.requests * a.heads_kv : shares;
  const std::int64_t units = records * l.rows * (HeadDim / kernel::attention_fold_columns);
  // Blocks that are there keep those of the next call out: of short views, few do.
  const std::int64_t most = l.leaves > kernel::attention_fold_section ? 3 * blocks : blocks;
  const kernel::attention_fold_params<T> fold = {a, partials, static_cast<std::int32_t>(shares), units <= most};
  launch_shape after;
  after.grid.x = static_cast<unsigned>(units < most ? units : most);
  after.block.x = kernel::attention_fold_threads;
  after.programmatic = true;
  return launch("attention", kernel::attention_fold_kernel<Contract, T, HeadDim>, after, fold, stream);
}

}  // namespace launch_detail
BI_NAMESPACE_END
