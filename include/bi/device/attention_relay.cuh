// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/attention_split.cuh"

// How a few long items of about equal lengths are dealt out: a cluster of blocks to each of the first ones, and the leaves of the
// rest to blocks by themselves, which an H100 has beside its clusters.

BI_NAMESPACE_BEGIN
namespace device {

struct attention_relay_shape {
  std::int32_t clusters = 0, cluster = 0;  // so many of so many blocks
  std::int32_t singles = 0;                // blocks by themselves
  std::int32_t least = 0;                  // leaves of a block from which it pays

  BI_HD constexpr std::int32_t in_clusters() const { return clusters * cluster; }
  BI_HD constexpr std::int32_t blocks() const { return in_clusters() + singles; }

  // Whether that takes no longer than equal shares of all leaves, but for a sixteenth and a leaf. `longest`: of the items that have
  // clusters; `rest`: leaves of the others, of `total`. Blocks by themselves never have more than an equal share: the workspace has
  // no more places.
  BI_HD constexpr bool pays(std::int64_t longest, std::int64_t rest, std::int64_t total) const {
    const std::int64_t equal = attention_divide(total + blocks() - 1, blocks());
    return equal >= least && rest <= equal * singles && longest <= (equal + equal / 16 + 1) * cluster;
  }
  // Blocks that have equal shares of all leaves then, with places for so many leaves each. Those by themselves begin late: they have
  // none of few.
  BI_HD constexpr std::int32_t sharing(std::int64_t total, std::int64_t places) const {
    const std::int64_t each = attention_divide(total + in_clusters() - 1, in_clusters());
    return each < few && each < places ? in_clusters() : blocks();
  }
  static constexpr int few = 8;
};

}  // namespace device
BI_NAMESPACE_END
