// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "bi/dtype.hpp"

namespace bench {

// Penalties in place as engines have them: every logit and its count are read, and every logit is written. rows of
// `vocab`, a multiple of 8.
template <class T>
void dense_penalties(T* logits, const std::int32_t* count, const std::uint32_t* prompt, std::int64_t rows,
                     std::int64_t vocab, float repetition, float frequency, float presence, cudaStream_t stream);

}  // namespace bench
