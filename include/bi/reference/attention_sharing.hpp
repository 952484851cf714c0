// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/attention.hpp"
#include "bi/check.hpp"
#include "bi/reference/attention_views.hpp"
#include "bi/reference/views.hpp"
#include "bi/status.hpp"

// Whether the groups of an attention call say what is so. The CPU makes no other use of them.

BI_NAMESPACE_BEGIN
namespace reference {
namespace attention_detail {

// Group g's; the first member's view is compared with each other's.
template <class T>
void check_group(checker& c, const attention_args<T>& a, std::int64_t g, std::vector<bool>& taken) {
  const attention_sharing& s = a.sharing;
  std::int64_t first = -1, first_see = 0;
  for (std::int64_t i = s.start[g]; i < s.start[g + 1] && c.ok(); ++i) {
    const std::int64_t member = s.member[i];
    if (member < 0 || member >= a.requests) {
      c.fail(error::index_out_of_range, "sharing.member", member, "requests", a.requests, i);
      return;
    }
    if (taken[static_cast<std::size_t>(member)]) {
      c.fail(error::overlap, "sharing.member", member, "an earlier entry", 0, i);
    }
    taken[static_cast<std::size_t>(member)] = true;
    const request r = request_at(a, member);
    if (r.len == 0) continue;  // padding
    if (s.shared[g] > r.len) c.fail(error::too_large, "sharing.shared", s.shared[g], "len of each member", r.len, g);
    if (!c.ok() || r.lo > 0 || r.see == 0) continue;
    if (first < 0) {
      first = member;
      first_see = r.see;
      continue;
    }
    const view_detail::locator one(a.view, a.cache.page_size, first, first_see);
    const view_detail::locator other(a.view, a.cache.page_size, member, r.see);
    const std::int64_t end = std::min({std::int64_t{s.shared[g]}, first_see, r.see});
    for (std::int64_t j = 0; j < end && c.ok(); ++j) {
      const view_detail::place x = one(j), y = other(j);
      if (x.page != y.page || x.token != y.token) {
        c.fail(error::too_large, "sharing.shared", s.shared[g], "the tokens that members have in the same slots", j, g);
      }
    }
  }
}

// After check_arrays.
template <class T>
status check_sharing(const attention_args<T>& a) {
  checker c("attention");
  const attention_sharing& s = a.sharing;
  if (s.groups == 0) return c.result();
  view_detail::check_start(c, "sharing.start", s.start, s.groups);
  std::vector<bool> taken(static_cast<std::size_t>(a.requests));
  for (std::int64_t g = 0; g < s.groups && c.ok(); ++g) {
    if (s.shared[g] < 0) c.fail(error::too_small, "sharing.shared", s.shared[g], nullptr, 0, g);
    if (c.ok()) check_group(c, a, g, taken);
  }
  return c.result();
}

}  // namespace attention_detail
}  // namespace reference
BI_NAMESPACE_END
