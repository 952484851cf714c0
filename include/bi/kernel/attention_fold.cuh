// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_rows.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/cp_async.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// Folds what attention_leaves.cuh or attention_split.cuh left in the workspace, for the items that were cut: the first part,
// which is folded already, then leaf after leaf. A thread block has some columns of a row, a thread a column. It takes some
// partial results at a time: as many threads have the factors of one each, from a scan of the maxima, which is exact; only
// the chain of a column's values is left to walk.
//
// What was cut the kernel before says in its records. Nearly always they and the lengths are there long before that kernel
// ends, or are those of the call before. So a block reads them ahead of its wait and works out where its partial results
// lie. After the wait it asks for those at once, and for records and lengths again; if they say otherwise, it begins anew.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct attention_fold_params {
  attention_params<T> a;
  attention_partials partials;
  std::int32_t blocks;  // of the kernel before
};

inline constexpr int attention_fold_threads = 128;

// Columns: of a thread block.
template <int Columns>
struct attention_fold_shape {
  static constexpr int warps = attention_fold_threads / 32;
  // Partial results at a time, of them a warp's, and chunks that are on their way while one is folded. Four blocks of the
  // wide form fit a processor.
  static constexpr int chunk = 4096 / Columns, own = chunk / warps, ahead = Columns > 32 ? 2 : 1;
  static constexpr int pieces = Columns / 4,
                       side = 32 / pieces;  // of 16 bytes; partial results that a warp copies at once
  static_assert(Columns <= attention_fold_threads && 32 % pieces == 0 && own <= 32);
};

template <int Columns>
struct attention_fold_memory {
  using shape = attention_fold_shape<Columns>;
  float o[1 + shape::ahead][shape::chunk][Columns];  // of a chunk and the next ones
  float4 factors[shape::chunk];                      // a, b and l
  float tops[shape::warps];                          // the largest m of a warp's partial results
};

// What a record and the lengths say.
struct attention_fold_hint {
  device::attention_cut cut;
  std::int64_t request;
  attention_lengths lengths;  // of the request

  BI_D bool equals(const attention_fold_hint& b) const {
    return cut.request == b.cut.request && cut.head == b.cut.head && cut.block == b.cut.block &&
           cut.first == b.cut.first && cut.count == b.cut.count && cut.total == b.cut.total && request == b.request &&
           lengths.equals(b.lengths);
  }
};

BI_D inline device::attention_cut attention_fold_record(const device::attention_cut* record) {
  static_assert(sizeof(device::attention_cut) == 3 * sizeof(longlong2), "read 16 bytes at a time");
  const auto* const words = reinterpret_cast<const longlong2*>(record);
  const longlong2 a = device::load_l2(words), b = device::load_l2(words + 1), c = device::load_l2(words + 2);
  return {a.x, a.y, b.x, b.y, c.x, c.y};
}

// Record `which`, and the lengths of `request`, which may be anything as long as it is a guess.
template <class T>
BI_D attention_fold_hint attention_fold_read(const attention_fold_params<T>& p, std::int64_t which,
                                             std::int64_t request) {
  return {attention_fold_record(p.partials.cuts + which), request, attention_read_lengths(p.a, request)};
}

// Some columns of one row of a cut item, as a hint has it.
template <class Contract, class T, int HeadDim, int Columns>
class attention_fold_row {
  using shape = attention_fold_shape<Columns>;
  static constexpr int chunk = shape::chunk, ahead = shape::ahead;

 public:
  BI_D attention_fold_row(const attention_fold_params<T>& p, attention_fold_memory<Columns>& memory,
                          const attention_fold_hint& hint, int row, int column)
      : p_(p),
        memory_(memory),
        shares_(hint.cut.total, p.blocks),
        cut_(hint.cut),
        rows_(device::attention_request_rows(p.a.batch, hint.request, hint.lengths.first, hint.lengths.end)),
        row_(row),
        column_(column) {
    if (row >= rows_.rows || cut_.request < 0) return;
    const std::int64_t token = rows_.first_row + rows_.token(row), head = cut_.head * rows_.group + rows_.head(row);
    if (p.a.lse != nullptr && column == 0 && thread_ == 0) lse_ = p.a.lse + token * p.a.lse_token_stride + head;
    out_ = p.a.out + token * p.a.out_token_stride + head * p.a.out_head_stride + column + thread_;
    const device::attention_item item =
        device::make_attention_item<Contract>(rows_, hint.lengths.len, p.a.causal, p.a.window);
    const contract::attention_range seen = Contract::visible(p.a.causal, hint.lengths.len > 0 ? hint.lengths.len : 0,
                                                             rows_.q_len, rows_.token(row), p.a.window);
    if (seen.lo >= seen.see) return;
    // Leaves of the item that the row sees, then numbers of partial results.
    first_ = Contract::first_leaf(seen.lo) - item.first_leaf;
    end_ = Contract::end_leaf(seen.see) - item.first_leaf;
    if constexpr (attention_leaves_apart<Contract>) {
      first_ = first_ < cut_.count ? 0 : first_ - cut_.count + 1;
      end_ = end_ <= cut_.count ? 1 : end_ - cut_.count + 1;
    } else {
      first_ = 0;
      end_ = shares_.block_of(cut_.first - cut_.count + item.leaves - 1) - cut_.block + 1;
    }
  }

  // Works out where the first chunks lie; then starts their copies.
  BI_D void aim() {
#pragma unroll
    for (int i = 0; i < ahead; ++i) at_[i] = find(first_ + i * chunk);
  }
  BI_D void start() {
#pragma unroll
    for (int i = 0; i < ahead; ++i) ml_[i] = fetch(i, at_[i]);
  }

  // What start() has begun: m, l and the thread's column of o, of the row's partial results. 0 is the folded part, i > 0
  // leaf i - 1 after it.
  BI_D void fold(float& m, float& l, float& o) {
    m = neg_inf_f32();
    // By factors of 1, folding into -0 leaves a value as it is, and so does folding -0 into it.
    l = o = -0.0f;
    int place = 0;
    for (std::int64_t from = first_; from < end_; from += chunk) {
      const float2 ml = ml_[0];
      const std::int64_t left = end_ - from;
      const int count = left < chunk ? static_cast<int>(left) : chunk;
#pragma unroll
      for (int i = 0; i + 1 < ahead; ++i) ml_[i] = ml_[i + 1];
      if (left > ahead * chunk) {
        ml_[ahead - 1] = fetch(place == 0 ? ahead : place - 1, find(from + ahead * chunk));
      } else {
        device::cp_async_commit();
      }
      make_factors(ml, count, from == first_, m);
      device::cp_async_wait<ahead>();
      __syncthreads();
      if (thread_ < Columns) walk(place, count, l, o);
      __syncthreads();  // what comes next may have the place
      place = place == ahead ? 0 : place + 1;
    }
  }

  BI_D void write(float m, float l, float o) const {
    if (out_ == nullptr) return;
    if (first_ >= end_) m = neg_inf_f32(), l = o = 0.0f;
    if (lse_ != nullptr) *lse_ = Contract::lse(m, l);
    if (thread_ < Columns) *out_ = Contract::template finish<T>(o, l, Contract::inverse(l));
  }

 private:
  // The thread's of the partial results [from, from + chunk), as a row of all places; nowhere if it has none.
  static constexpr std::uint32_t nowhere = 0xffffffffu;  // no memory has as many
  BI_D std::uint32_t find(std::int64_t from) const {
    const attention_partials& partials = p_.partials;
    const std::int64_t i = from + warp_ * shape::own + lane_;
    if (lane_ >= shape::own || i >= end_) return nowhere;
    std::int64_t of = partials.places.folded(cut_.block);
    if (!attention_leaves_apart<Contract> && i > 0) {
      of = partials.places.leaf(cut_.block + i, 0);
    } else if (i > 0) {
      const std::int64_t leaf = cut_.first + i - 1, owner = shares_.block_of(leaf);
      of = partials.places.leaf(owner, leaf - shares_.begin(owner));
    }
    if (of < 0 || of >= partials.places.folded(p_.blocks)) of = 0;  // what a wrong hint may say
    return static_cast<std::uint32_t>(of * partials.rows + row_);
  }

  // Starts the copies of a chunk and reads the m and l of the thread's partial result.
  BI_D float2 fetch(int place, std::uint32_t at) {
    const attention_partials& partials = p_.partials;
    const int first = warp_ * shape::own;
    const bool has = at != nowhere;
    float2 ml = make_float2(neg_inf_f32(), 0.0f);
    if (has) ml = device::load_l2(reinterpret_cast<const float2*>(partials.ml) + at);
    const unsigned of_warp = __ballot_sync(device::full_warp, has);
    const int piece = lane_ % shape::pieces * 4, second = lane_ / shape::pieces;
    const float* const o = partials.o + column_ + piece;
#pragma unroll 4
    for (int s = 0; s < shape::own; s += shape::side) {
      if (of_warp >> s == 0) break;
      const std::int64_t row = __shfl_sync(device::full_warp, at, s + second);
      if ((of_warp >> (s + second) & 1) != 0) {
        device::cp_async_16(&memory_.o[place][first + s + second][piece], o + row * HeadDim, 16);
      }
    }
    device::cp_async_commit();
    return ml;
  }

  // ml: of the thread's partial result of `count`. m: the largest so far.
  BI_D void make_factors(const float2& ml, int count, bool fresh, float& m) {
    float to = ml.x;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const float below = __shfl_up_sync(device::full_warp, to, d);
      if (lane_ >= d) to = max_nan(below, to);
    }
    if (lane_ == 31) memory_.tops[warp_] = to;
    __syncthreads();
    float before = m;
#pragma unroll
    for (int w = 0; w < shape::warps; ++w) {
      if (w < warp_) before = max_nan(before, memory_.tops[w]);
      m = max_nan(m, memory_.tops[w]);
    }
    const float below = __shfl_up_sync(device::full_warp, to, 1);
    if (lane_ > 0) before = max_nan(before, below);
    if (lane_ >= shape::own) return;
    const contract::attention_fold f = Contract::fold(before, ml.x);
    const int i = warp_ * shape::own + lane_;
    const bool none = i >= count, takes = none || (fresh && i == 0);
    memory_.factors[i] = make_float4(takes ? 1.0f : f.a, takes ? 1.0f : f.b, none ? -0.0f : ml.y, 0.0f);
  }

  // Some partial results of a chunk, on their way from shared memory while those before are folded.
  static constexpr int group = 4;
  static_assert(chunk % (2 * group) == 0);
  struct steps {
    float4 factors[group];
    float values[group];
  };
  BI_D void read(steps& s, int place, int from, int count) const {
#pragma unroll
    for (int j = 0; j < group; ++j) {
      s.factors[j] = memory_.factors[from + j];
      s.values[j] = from + j < count ? memory_.o[place][from + j][thread_] : -0.0f;
    }
  }
  BI_D static void take(const steps& s, float& l, float& o) {
#pragma unroll
    for (int j = 0; j < group; ++j) {
      const contract::attention_fold f = {0.0f, s.factors[j].x, s.factors[j].y};
      l = Contract::fold_value(f, l, s.factors[j].z);
      o = Contract::fold_value(f, o, s.values[j]);
    }
  }
  BI_D void walk(int place, int count, float& l, float& o) const {
    steps now, next;
    read(now, place, 0, count);
#pragma unroll 1
    for (int i = 0; i < count; i += 2 * group) {
      read(next, place, i + group, count);
      take(now, l, o);
      if (i + 2 * group < count) read(now, place, i + 2 * group, count);
      take(next, l, o);
    }
  }

  const attention_fold_params<T>& p_;
  attention_fold_memory<Columns>& memory_;
  const device::attention_shares shares_;
  const device::attention_cut cut_;
  const device::attention_row_tile rows_;
  const int row_, column_;
  const int thread_ = static_cast<int>(threadIdx.x), warp_ = thread_ / 32, lane_ = thread_ % 32;
  T* out_ = nullptr;
  float* lse_ = nullptr;              // one thread's
  std::uint32_t at_[ahead];           // see find
  std::int64_t first_ = 0, end_ = 0;  // numbers of partial results
  float2 ml_[ahead];                  // the thread's of the chunks that are on their way
};

// Row r of what record `which` says, the columns from `column` on. `waited` for the kernel before, or not yet.
template <class Contract, class T, int HeadDim, int Columns>
BI_D void attention_fold_unit(const attention_fold_params<T>& p, attention_fold_memory<Columns>& memory,
                              std::int64_t which, int r, int column, bool waited) {
  const auto request = [&] {
    return p.partials.by_item ? device::attention_divide(which, p.a.heads_kv)
                              : attention_fold_record(p.partials.cuts + which).request;
  };
  attention_fold_hint hint = attention_fold_read(p, which, request());
  for (bool sure = waited;;) {
    attention_fold_row<Contract, T, HeadDim, Columns> row(p, memory, hint, r, column);
    row.aim();
    if (!waited) device::wait_for_dependencies();
    waited = true;
    row.start();
    if (!sure) {
      const attention_fold_hint now = attention_fold_read(p, which, hint.request);
      // The record was read twice: the first time for the request.
      sure = now.equals(hint) && (p.partials.by_item || now.cut.request == now.request);
      if (__syncthreads_or(sure ? 0 : 1) != 0) {
        sure = true;
        device::cp_async_wait<0>();
        hint = attention_fold_read(p, which, request());
        continue;
      }
    }
    float m, l, o;
    row.fold(m, l, o);
    row.write(m, l, o);
    return;
  }
}

template <class Contract, class T, int HeadDim, int Columns>
BI_KERNEL __launch_bounds__(attention_fold_threads,
                            4) void attention_fold_kernel([[maybe_unused]] const attention_fold_params<T> p) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900  // no launcher asks others for it
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<attention_fold_memory<Columns>*>(shared);
  device::launch_dependents();  // the next call's kernel waits for the end of this one
  constexpr std::int64_t parts = HeadDim / Columns;
  const std::int64_t records = p.partials.by_item ? p.a.batch.requests * p.a.heads_kv : p.blocks;
  bool waited = false;
  for (std::int64_t unit = blockIdx.x; unit < records * p.partials.rows * parts; unit += gridDim.x) {
    const std::int64_t row_unit = unit / parts, which = device::attention_divide(row_unit, p.partials.rows);
    attention_fold_unit<Contract, T, HeadDim, Columns>(p, memory, which,
                                                       static_cast<int>(row_unit - which * p.partials.rows),
                                                       static_cast<int>(unit % parts) * Columns, waited);
    waited = true;
  }
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
