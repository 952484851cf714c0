// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/vector.cuh"

// Items of rows, each row having the same number of them, numbered through: vectors of a matrix, for example.

BI_NAMESPACE_BEGIN
namespace device {

struct flat_items {
  std::int64_t rows = 0;
  std::int64_t in_row = 0;  // at least 1

  BI_HD constexpr std::int64_t count() const { return rows * in_row; }
};
struct flat_item {
  std::int64_t row, index;
};

BI_HD constexpr std::int64_t vectors_of(std::int64_t elements) {
  return elements / vector_size + (elements % vector_size != 0 ? 1 : 0);
}

// A 64-bit division takes some 70 instructions, a 32-bit one 20.
BI_HD constexpr flat_item split(const flat_items& items, std::int64_t number) {
  if (((number | items.in_row) >> 32) == 0) {
    const auto n = static_cast<std::uint32_t>(number), d = static_cast<std::uint32_t>(items.in_row);
    const std::uint32_t row = n / d;
    return {row, n - row * d};
  }
  const std::int64_t row = number / items.in_row;
  return {row, number - row * items.in_row};
}

// Calls work(item) for the items of this thread, or, with Width = 32, of this warp. The grid is one-dimensional.
template <int Width, class Work>
BI_D void for_items(const flat_items& items, Work work) {
  static_assert(Width == 1 || Width == 32, "a thread or a warp an item");
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x / Width;
  const std::int64_t count = items.count();
  for (std::int64_t i = first / Width; i < count; i += step) work(split(items, i));
}

// Elements of vector `index` in a row of `cols`.
BI_HD constexpr int vector_length(std::int64_t cols, std::int64_t index) {
  const std::int64_t rest = cols - index * vector_size;
  return rest < vector_size ? static_cast<int>(rest) : vector_size;
}

}  // namespace device
BI_NAMESPACE_END
