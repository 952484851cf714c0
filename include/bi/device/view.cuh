// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

// Where the KV tokens of a view lie: view index -> page and token in the page, through a page table in two dimensions,
// in CSR form, or a list of runs. A launcher makes a view_source of the caller's kv_view and cache; a kernel makes a
// view_cursor of that for a request and asks for places with ascending view indices.

BI_NAMESPACE_BEGIN
namespace device {

// Page -1: an index past the view's storage, or a page id or slot outside the cache. Nothing may be read there.
struct kv_place {
  std::int32_t page;
  std::int32_t token;  // of the page
  BI_HD constexpr bool valid() const { return page >= 0; }
};

// Page sizes that are powers of two divide by a shift, the others by a 32-bit division.
struct page_divider {
  std::uint32_t size = 1;
  std::int32_t shift = 0;  // -1: no power of two

  BI_HD constexpr std::uint32_t page(std::uint32_t index) const { return shift >= 0 ? index >> shift : index / size; }
};
BI_HD constexpr page_divider make_page_divider(std::int64_t page_size) {
  page_divider d = {static_cast<std::uint32_t>(page_size), -1};
  for (int s = 0; s < 32; ++s) {
    if (page_size == std::int64_t{1} << s) d.shift = s;
  }
  return d;
}

enum class view_form : std::uint8_t { table, csr, runs };

// A kernel parameter. Pages and runs of all requests; runs are pairs {first slot, length}.
struct view_source {
  const std::int32_t* entries = nullptr;  // page ids, or runs
  const std::int32_t* start = nullptr;    // null for a table
  std::int64_t row_stride = 0;            // of a table
  std::int64_t num_pages = 0;
  page_divider pages;
  view_form form = view_form::table;
};

// Of a kv_view and a paged_cache (bi/kv_cache.hpp), which this layer doesn't know.
template <class View, class Cache>
BI_HD view_source make_view_source(const View& v, const Cache& c) {
  using kind = decltype(v.kind);
  view_source s;
  s.num_pages = c.num_pages;
  s.pages = make_page_divider(c.page_size);
  if (v.kind == kind::run_list) {
    static_assert(sizeof(*v.runs.runs) == 2 * sizeof(std::int32_t), "a run is {slot, length}");
    s.form = view_form::runs;
    s.entries = reinterpret_cast<const std::int32_t*>(v.runs.runs);
    s.start = v.runs.start;
  } else if (v.kind == kind::page_csr) {
    s.form = view_form::csr;
    s.entries = v.csr.pages;
    s.start = v.csr.start;
  } else {
    s.entries = v.table.pages;
    s.row_stride = v.table.row_stride;
  }
  return s;
}

// One request's view as one thread walks it. Threads may walk it with different indices.
class view_cursor {
 public:
  BI_HD view_cursor(const view_source& source, std::int64_t request) : source_(source) {
    if (source.form == view_form::table) {
      begin_ = request * source.row_stride;
      count_ = source.row_stride;
    } else {
      begin_ = source.start[request];
      count_ = source.start[request + 1] - begin_;
    }
  }

  // The place of view index j, 0 <= j < 2^31. j must not be less than in the call before.
  BI_HD kv_place place(std::int64_t j) { return checked(look_up(j)); }

  // The same in two halves: nothing waits for what look_up reads of a page table before checked() does.
  BI_HD kv_place look_up(std::int64_t j) {
    if (source_.form != view_form::runs) {
      return look_up(j, [](const std::int32_t* entry) { return *entry; });
    }
    while (j >= run_end_) {
      if (run_ >= count_) return {-1, 0};
      const std::int32_t* run = source_.entries + 2 * (begin_ + run_);
      run_begin_ = run_end_;
      run_slot_ = run[0];
      run_end_ += run[1] > 0 ? run[1] : 0;
      ++run_;
    }
    if (run_slot_ < 0) return {-1, 0};
    // Below 2^32: a slot and an offset, both below 2^31.
    const std::uint32_t slot = static_cast<std::uint32_t>(run_slot_) + static_cast<std::uint32_t>(j - run_begin_);
    const std::uint32_t page = source_.pages.page(slot);
    return {static_cast<std::int32_t>(page), static_cast<std::int32_t>(slot - page * source_.pages.size)};
  }
  // Of a page table only: `read` is given the address of its entry.
  template <class Read>
  BI_HD kv_place look_up(std::int64_t j, const Read& read) const {
    const auto index = static_cast<std::uint32_t>(j);
    const std::uint32_t entry = source_.pages.page(index);
    if (static_cast<std::int64_t>(entry) >= count_) return {-1, 0};
    return {read(source_.entries + begin_ + entry), static_cast<std::int32_t>(index - entry * source_.pages.size)};
  }
  // Back to the view's beginning.
  BI_HD void restart() {
    run_ = run_begin_ = run_end_ = 0;
    run_slot_ = -1;
  }
  // Where a page table says where view index j lies; null if it doesn't, or the view is a list of runs.
  BI_HD const std::int32_t* entry(std::int64_t j) const {
    if (source_.form == view_form::runs) return nullptr;
    const std::uint32_t entry = source_.pages.page(static_cast<std::uint32_t>(j));
    return static_cast<std::int64_t>(entry) < count_ ? source_.entries + begin_ + entry : nullptr;
  }
  // Entry i of the next request's row of the page table, if there is such a request; null beyond the row, or in other forms.
  BI_HD const std::int32_t* next_row(std::int64_t i) const {
    return source_.form == view_form::table && i < count_ ? source_.entries + begin_ + count_ + i : nullptr;
  }
  BI_HD kv_place checked(const kv_place& found) const {
    if (found.page < 0 || found.page >= source_.num_pages) return {-1, 0};
    return found;
  }

  // Passes over whole runs that end at or before view index j, 32 at a time. Called by all threads of a warp with the
  // same j, before any call of place; only the time that the next call of place takes depends on it.
  BI_D void skip_to(std::int64_t j) {
    if (source_.form != view_form::runs) return;
    const int lane = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
    while (run_ + 32 <= count_) {
      const std::int32_t length = source_.entries[2 * (begin_ + run_ + lane) + 1];
      std::int64_t sum = length > 0 ? length : 0;
#pragma unroll
      for (int d = 16; d > 0; d /= 2) {
        sum += static_cast<std::int64_t>(__shfl_xor_sync(0xffffffffu, static_cast<long long>(sum), d));
      }
      if (run_end_ + sum > j) return;
      run_end_ += sum;
      run_ += 32;
    }
  }

 private:
  view_source source_;
  std::int64_t begin_ = 0;  // the request's first page or run
  std::int64_t count_ = 0;
  // Runs only: the run that holds [run_begin_, run_end_) and the number of the next one.
  std::int64_t run_ = 0;
  std::int64_t run_begin_ = 0;
  std::int64_t run_end_ = 0;
  std::int32_t run_slot_ = -1;
};

}  // namespace device
BI_NAMESPACE_END
