// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/check.hpp"
#include "bi/kv_cache.hpp"
#include "bi/status.hpp"

// What the arrays of a kv_view say: whether they lead into the cache, and where.

BI_NAMESPACE_BEGIN
namespace reference {
namespace view_detail {

// A call uses the view indices [lo, see) of this request's view, which must hold at least `len` tokens.
struct part {
  std::int64_t request, len, lo, see;
};

inline void check_start(checker& c, const char* name, const std::int32_t* start, std::int64_t requests) {
  if (start[0] < 0) c.fail(error::too_small, name, start[0], nullptr, 0, 0);
  for (std::int64_t i = 1; i <= requests && c.ok(); ++i) {
    if (start[i] < start[i - 1]) c.fail(error::too_small, name, start[i], "the entry before", start[i - 1], i);
  }
}

inline void check_view_start(checker& c, const kv_view& view, std::int64_t requests) {
  if (view.kind == view_kind::page_csr) check_start(c, "view.start", view.csr.start, requests);
  if (view.kind == view_kind::run_list) check_start(c, "view.start", view.runs.start, requests);
}

// Pages first .. of the request, whose table has room for `entries` of them.
inline void check_pages(checker& c, const std::int32_t* pages, std::int64_t first, std::int64_t entries,
                        const char* entries_name, const part& v, const char* len_name, std::int64_t page_size,
                        std::int64_t num_pages) {
  if (entries < v.len / page_size + (v.len % page_size != 0 ? 1 : 0)) {
    c.fail(error::too_large, len_name, v.len, entries_name, entries * page_size, v.request);
  }
  if (!c.ok() || v.see <= v.lo) return;
  for (std::int64_t p = first + v.lo / page_size; p <= first + (v.see - 1) / page_size; ++p) {
    if (pages[p] < 0 || pages[p] >= num_pages) {
      c.fail(error::index_out_of_range, "view.pages", pages[p], "cache.num_pages", num_pages, p);
    }
  }
}

inline void check_runs(checker& c, const run_list& list, const part& v, const char* len_name, std::int64_t slots) {
  std::int64_t begin = 0;
  for (std::int64_t k = list.start[v.request]; k < list.start[v.request + 1] && begin < v.len; ++k) {
    const std::int64_t slot = list.runs[k].slot, length = list.runs[k].length;
    if (length < 0) c.fail(error::too_small, "view.runs.length", length, nullptr, 0, k);
    if (!c.ok()) return;
    const std::int64_t lo = std::max(begin, v.lo), see = std::min(begin + length, v.see);
    if (lo < see) {
      const std::int64_t low = slot + lo - begin, high = slot + see - begin - 1;
      if (low < 0 || high >= slots) {
        c.fail(error::index_out_of_range, "view.runs.slot", low < 0 ? low : high, "the slots of the cache", slots, k);
      }
    }
    begin += length;
  }
  if (begin < v.len) c.fail(error::too_large, len_name, v.len, "the sum of its runs", begin, v.request);
}

// After check_view_start. `len_name` is what the caller's arguments call part::len.
template <class T>
void check_part(checker& c, const kv_view& view, const paged_cache<T>& cache, const part& v, const char* len_name) {
  const std::int64_t i = v.request;
  switch (view.kind) {
    case view_kind::page_table:
      check_pages(c, view.table.pages, i * view.table.row_stride, view.table.row_stride, "view.row_stride * page_size",
                  v, len_name, cache.page_size, cache.num_pages);
      break;
    case view_kind::page_csr:
      check_pages(c, view.csr.pages, view.csr.start[i], view.csr.start[i + 1] - view.csr.start[i],
                  "the tokens of its pages", v, len_name, cache.page_size, cache.num_pages);
      break;
    default:
      check_runs(c, view.runs, v, len_name, cache.num_pages * cache.page_size);
  }
}

struct place {
  std::int64_t page, token;  // of the page
};

// The places of a request's first `len` view indices.
class locator {
 public:
  locator(const kv_view& view, std::int64_t page_size, std::int64_t request, std::int64_t len)
      : view_(view), page_size_(page_size), request_(request) {
    if (view.kind != view_kind::run_list) return;
    std::int64_t begin = 0;
    for (std::int64_t r = view.runs.start[request]; r < view.runs.start[request + 1] && begin < len; ++r) {
      run_begin_.push_back(begin);
      begin += view.runs.runs[r].length;
    }
  }

  place operator()(std::int64_t j) const {
    if (view_.kind == view_kind::run_list) {
      const auto after = std::upper_bound(run_begin_.begin(), run_begin_.end(), j);
      const std::int64_t run = after - run_begin_.begin() - 1;
      const std::int64_t slot =
          view_.runs.runs[view_.runs.start[request_] + run].slot + (j - run_begin_[static_cast<std::size_t>(run)]);
      return {slot / page_size_, slot % page_size_};
    }
    const std::int64_t page = view_.kind == view_kind::page_table
                                  ? view_.table.pages[request_ * view_.table.row_stride + j / page_size_]
                                  : view_.csr.pages[view_.csr.start[request_] + j / page_size_];
    return {page, j % page_size_};
  }

 private:
  kv_view view_;
  std::int64_t page_size_, request_;
  std::vector<std::int64_t> run_begin_;
};

}  // namespace view_detail
}  // namespace reference
BI_NAMESPACE_END
