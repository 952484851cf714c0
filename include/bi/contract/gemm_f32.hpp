// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/id.hpp"

BI_NAMESPACE_BEGIN
namespace contract {

// D = A B^T in fp32. One fma chain in ascending k from +0 a slice of 1024, slices added left to right: ((s0 + s1) + s2) + ...
struct BI_TYPE gemm_f32_draft {
  static constexpr const char* name = "gemm_f32_draft";
  static constexpr std::int64_t slice = 1024;
  BI_HD static constexpr std::uint64_t id() { return contract_id(name, slice); }
};

}  // namespace contract
BI_NAMESPACE_END
