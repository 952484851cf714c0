// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/rope.cuh"
#include "bi/device/vector.cuh"

// A head's output depends on its input, its token's position and that row of the table.

BI_NAMESPACE_BEGIN
namespace kernel {

template <class T>
struct rope_params {
  const T* x;
  T* out;
  const std::int32_t* position;
  std::int64_t x_token_stride, x_head_stride;
  std::int64_t out_token_stride, out_head_stride;
  device::flat_items heads;  // tokens, heads of each
  std::int64_t items;        // rope_items of all heads
  std::int64_t in_head;
  device::rope_source rope;
  bool aligned;  // every head starts at a multiple of 16 bytes
};

// out may be x: an item reads what it writes, and no other item does. Padding and positions past the table are skipped.
template <class Contract, class T>
BI_KERNEL __launch_bounds__(256) void rope_kernel(const rope_params<T> p) {
  constexpr int width = device::vector_size;
  device::for_items<1>({p.items / p.in_head, p.in_head}, [&](device::flat_item item) {
    const device::flat_item head = device::split(p.heads, item.row);
    const std::int64_t position = p.position[head.row];
    if (position < 0 || position >= p.rope.positions) return;
    const T* x = p.x + head.row * p.x_token_stride + head.index * p.x_head_stride;
    T* out = p.out + head.row * p.out_token_stride + head.index * p.out_head_stride;
    const auto aligned = [&](std::int64_t i) { return p.aligned && i * static_cast<int>(sizeof(T)) % 16 == 0; };
    device::rope_item<Contract, T>(
        p.rope, position, item.index,
        [&](std::int64_t i, int n, T(&v)[width]) { device::load_vector(x + i, n, aligned(i), v); },
        [&](std::int64_t i, int n, const T(&v)[width]) { device::store_vector(out + i, n, aligned(i), v); });
  });
}

}  // namespace kernel
BI_NAMESPACE_END
