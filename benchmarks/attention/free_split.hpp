// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/contract/attention.hpp"
#include "bi/dtype.hpp"

namespace bench {

// No contract: where the batch's leaves are cut decides in which order a row's leaves are folded, as engines do it. The
// same arithmetic otherwise, so it shows what a tree that does not move costs.
struct free_split : bi::contract::attention_v1<bi::bf16> {};

}  // namespace bench
