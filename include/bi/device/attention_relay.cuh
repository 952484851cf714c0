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

  BI_HD constexpr std::int32_t first_single() const { return clusters * cluster; }
  BI_HD constexpr std::int32_t blocks() const { return clusters * cluster + singles; }

  // Whether that takes no longer than equal shares of all leaves, but for a sixteenth and a leaf. `longest`: of the items that have
  // clusters; `rest`: leaves of the others, of `total`. Blocks by themselves never have more than an equal share: the workspace has
  // no more places.
  BI_HD constexpr bool pays(std::int64_t longest, std::int64_t rest, std::int64_t total) const {
    const std::int64_t equal = attention_divide(total + blocks() - 1, blocks());
    return rest <= equal * singles && longest <= (equal + equal / 16 + 1) * cluster;
  }
};

}  // namespace device
BI_NAMESPACE_END
