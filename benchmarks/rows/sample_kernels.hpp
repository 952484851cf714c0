// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bench {

// The largest of `words` 16-byte words, as integers: what it takes to read them once.
void read_once(const void* data, std::int64_t words, std::uint32_t* largest, cudaStream_t stream);

}  // namespace bench
