// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/tma.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/attention_mma.cuh"
#include "bi/kernel/attention_share.cuh"

// What there is to do for attention_fold.cuh: the records of the kernel before name the items that were cut. Rows of those,
// 32 columns at a time, are dealt out to teams of warps, more for more partial results; a unit is what a thread block's
// teams do at once. Every block reads all records, so blocks without work cost little and long items have many.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct attention_fold_params {
  attention_params<T> a;
  attention_partials partials;
  std::int32_t blocks;  // of the kernel before
  bool one_each;        // there is a block for each row's columns

  BI_D std::int64_t records() const { return partials.by_item ? a.batch.requests * a.heads_kv : blocks; }
};

inline constexpr int attention_fold_warps = 8, attention_fold_threads = 32 * attention_fold_warps;
inline constexpr int attention_fold_columns = 32;                           // of a warp
inline constexpr int attention_fold_section = 32;                           // partial results that a warp has at once
inline constexpr int attention_fold_most_records = attention_fold_threads;  // of each thread one

struct attention_fold_memory {
  device::attention_cut cuts[attention_fold_most_records];
  attention_lengths lengths[attention_fold_most_records];  // of the records' requests
  // Of each warp's section: where partial results lie, see attention_fold_row, and what they are folded by; l times b.
  alignas(16) std::uint32_t at[attention_fold_warps][attention_fold_section];
  alignas(16) float a[attention_fold_warps][attention_fold_section];
  alignas(16) float b[attention_fold_warps][attention_fold_section];
  alignas(16) float l[attention_fold_warps][attention_fold_section];
  float2 folded[attention_fold_warps][attention_fold_columns];  // of a team: o and l, from warp to warp
  float tops[attention_fold_warps];                             // the largest m of a section
  // Of a warp's row, which registers needn't hold: its number, the first column, rounds of sections for each warp of a team,
  // and where it goes; nullptr: nowhere.
  int row[attention_fold_warps], column[attention_fold_warps], sections[attention_fold_warps];
  void* out[attention_fold_warps];
  float* lse[attention_fold_warps];
  bool stays[attention_fold_warps];  // whether the item's partial results do until they are folded
  int sums[attention_fold_warps];    // units of the records of a warp's threads
  int found[2];                      // a unit's record, and which of the record's it is
  int taken;                         // a unit, by who takes one after the other
};

// The threads that fold: a thread block. any(): whether x is true for one of them, once.
struct attention_fold_block {
  static constexpr bool takes = false;
  BI_D static int thread() { return static_cast<int>(threadIdx.x); }
  BI_D static void meet() { __syncthreads(); }
  BI_D static bool any(bool x) { return __syncthreads_or(x ? 1 : 0) != 0; }
};

// Partial results of a row of the item, at most.
template <class Contract>
BI_D std::int64_t attention_fold_parts(const device::attention_cut& cut, std::int32_t blocks) {
  if constexpr (attention_leaves_apart<Contract>) {
    return std::int64_t{cut.leaves} - cut.count + 1;
  } else {
    const device::attention_shares shares(cut.total, blocks);
    return shares.block_of(cut.first - cut.count + cut.leaves - 1) - cut.block + 1;
  }
}
// Warps that share them out.
BI_D inline int attention_fold_team(std::int64_t parts, bool one_each) {
  int warps = one_each ? attention_fold_warps : 1;
  while (warps < attention_fold_warps && parts > warps * attention_fold_section) warps *= 2;
  return warps;
}

// A thread has a record. Before the kernel's wait what they say is a guess.
template <class Contract, class T, int HeadDim, class Threads = attention_fold_block>
class attention_fold_list {
 public:
  BI_D attention_fold_list(const attention_fold_params<T>& p, attention_fold_memory& memory) : p_(p), memory_(memory) {}

  // By all threads, which have left what was found before.
  BI_D void read() {
    const int lane = thread_ % 32, warp = thread_ / 32;
    units_ = 0;
    if (thread_ < p_.records()) {
      const attention_lengths now = read_lengths();
      if constexpr (!Threads::takes) memory_.lengths[thread_] = now;
      auto* const words = reinterpret_cast<longlong2*>(memory_.cuts + thread_);
#pragma unroll
      for (int i = 0; i < record_words; ++i) words[i] = device::load_l2(record() + i);
      if (exists(now)) units_ = units();
    }
    from_ = attention_inclusive_sum(units_, lane) - units_;
    if (lane == 31) memory_.sums[warp] = from_ + units_;
    Threads::meet();
    total_ = 0;
#pragma unroll
    for (int w = 0; w < attention_fold_warps; ++w) {
      if (w < warp) from_ += memory_.sums[w];
      total_ += memory_.sums[w];
    }
  }
  // Whether a part of what the threads have read, of each another one, is still so.
  BI_D bool is_same() const {
    if constexpr (Threads::takes) {  // they have no register for more than a word at once
      if (thread_ >= p_.records()) return true;
      const attention_lengths now = read_lengths();
      const auto* const words = reinterpret_cast<const longlong2*>(memory_.cuts + thread_);
      bool same = exists(now) == (units_ > 0);
#pragma unroll
      for (int i = 0; i < record_words; ++i) {
        const longlong2 word = device::load_l2(record() + i);
        same = same && equals(word, words[i]);
      }
      return same;
    }
    // The words of all records are dealt out anew: nearly always a thread asks for one, and for the lengths of one record, and waits for
    // all of it at once.
    const auto* const from = reinterpret_cast<const longlong2*>(p_.partials.cuts);
    const auto* const read = reinterpret_cast<const longlong2*>(memory_.cuts);
    const int words = static_cast<int>(p_.records()) * record_words;
    longlong2 word = {};
    if (thread_ < words) word = device::load_l2(from + thread_);
    bool same = thread_ >= p_.records() || read_lengths().equals(memory_.lengths[thread_]);
    same = same && (thread_ >= words || equals(word, read[thread_]));
#pragma unroll 1
    for (int i = thread_ + attention_fold_threads; i < words; i += attention_fold_threads) {
      same = same && equals(device::load_l2(from + i), read[i]);
    }
    return same;
  }
  // Whether there is such a unit; then memory has it. By all threads, which have left the one found before.
  BI_D bool find(int unit) {
    if (unit >= total_) return false;
    if (unit >= from_ && unit - from_ < units_) {
      memory_.found[0] = thread_;
      memory_.found[1] = unit - from_;
    }
    Threads::meet();
    return true;
  }

 private:
  static constexpr int record_words = sizeof(device::attention_cut) / sizeof(longlong2);
  static_assert(sizeof(device::attention_cut) % sizeof(longlong2) == 0, "read 16 bytes at a time");

  BI_D static bool equals(const longlong2& a, const longlong2& b) { return a.x == b.x && a.y == b.y; }
  BI_D const longlong2* record() const { return reinterpret_cast<const longlong2*>(p_.partials.cuts + thread_); }

  // By item there is a record of each, though the kernel before wrote none of an item without rows: what is there then is
  // an older call's. It isn't of this item, or its lengths are others.
  BI_D std::int64_t request() const { return device::attention_divide(thread_, p_.a.heads_kv); }
  BI_D attention_lengths read_lengths() const {
    return p_.partials.by_item ? attention_read_lengths(p_.a, request()) : attention_lengths{};
  }
  BI_D bool exists(const attention_lengths& now) const {
    const device::attention_cut& cut = memory_.cuts[thread_];
    if (!p_.partials.by_item) return cut.request >= 0;
    return cut.request == request() && cut.head == thread_ - request() * p_.a.heads_kv &&
           now.equals({cut.first_row, cut.end_row, cut.len});
  }
  BI_D int units() const {
    const int pairs = static_cast<int>(p_.partials.rows) * (HeadDim / attention_fold_columns);
    const int teams =
        attention_fold_warps /
        attention_fold_team(attention_fold_parts<Contract>(memory_.cuts[thread_], p_.blocks), p_.one_each);
    return (pairs + teams - 1) / teams;
  }

  const attention_fold_params<T>& p_;
  attention_fold_memory& memory_;
  const int thread_ = Threads::thread();
  int units_ = 0;  // of the thread's record
  int from_ = 0;   // the first of them
  int total_ = 0;  // of all records
};

}  // namespace kernel
BI_NAMESPACE_END
