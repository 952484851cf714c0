// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "needle/machine.hpp"

// The kernels of the needle matrix (device.cu): plain ones, which share nothing with those that they check.
namespace test::needle {

bi::status gather_on_gpu(const placed& to, const unsigned char* pool, const std::int32_t* index, std::int64_t rows,
                         bi::cuda_stream stream);
// Adds what it finds to `to`, on the device.
bi::status compare_on_gpu(const coordinate& from, const placed& rows, const unsigned char* expected,
                          const std::int32_t* index, std::int64_t count, unsigned char fill, found* to,
                          bi::cuda_stream stream);
bi::status compare_zone_on_gpu(const coordinate& from, const unsigned char* p, std::int64_t bytes, unsigned char fill,
                               found* to, bi::cuda_stream stream);

}  // namespace test::needle
