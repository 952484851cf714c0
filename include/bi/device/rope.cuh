// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/rope.hpp"
#include "bi/device/flat.cuh"
#include "bi/device/vector.cuh"

// The rotation of one head, cut into items that any thread may do: 8 pairs each, then 8 copied elements each.

BI_NAMESPACE_BEGIN
namespace device {

// A kernel parameter: a rope_table (bi/rope.hpp) for heads of head_dim elements. rotary_dim = 0: no rotation.
struct rope_source {
  const float* cos = nullptr;
  const float* sin = nullptr;
  std::int64_t positions = 0;
  std::int64_t rotary_dim = 0;
  std::int64_t head_dim = 0;
  rope_style style = rope_style::half;
  bool aligned = false;  // every row of the table starts at a multiple of 16 bytes

  BI_HD constexpr std::int64_t pair_items() const { return vectors_of(rotary_dim / 2); }
  BI_HD constexpr std::int64_t items() const { return pair_items() + vectors_of(head_dim - rotary_dim); }
};

template <class Table>
BI_HD rope_source make_rope_source(const Table& t, std::int64_t head_dim) {
  rope_source s;
  s.head_dim = head_dim;
  if (t.cos == nullptr) return s;
  s.cos = t.cos;
  s.sin = t.sin;
  s.positions = t.positions;
  s.rotary_dim = t.rotary_dim;
  s.style = t.style;
  s.aligned = vector_aligned(t.cos, t.rotary_dim / 2) && vector_aligned(t.sin, t.rotary_dim / 2);
  return s;
}

// Item `item` of a head at `position`, 0 <= position < positions. load(i, n, v) gives elements [i, i + n) of the head,
// n <= 8, and +0 after them; store(i, n, v) takes them. An item reads all it needs before it stores anything.
template <class Contract, class T, class Load, class Store>
BI_D void rope_item(const rope_source& s, std::int64_t position, std::int64_t item, Load load, Store store) {
  constexpr int width = vector_size;
  const std::int64_t pairs = s.rotary_dim / 2, pair_items = s.pair_items();
  T a[width], b[width];
  if (item >= pair_items) {
    const std::int64_t i = s.rotary_dim + (item - pair_items) * width;
    const int n = vector_length(s.head_dim - s.rotary_dim, item - pair_items);
    load(i, n, a);
    store(i, n, a);
    return;
  }
  const std::int64_t pair = item * width;
  const int n = vector_length(pairs, item);
  float cos[width], sin[width];
  load_vector(s.cos + position * pairs + pair, n, s.aligned, cos);
  load_vector(s.sin + position * pairs + pair, n, s.aligned, sin);
  if (s.style == rope_style::half) {
    load(pair, n, a);
    load(pairs + pair, n, b);
#pragma unroll
    for (int e = 0; e < width; ++e) Contract::rotate(a[e], b[e], cos[e], sin[e]);
    store(pair, n, a);
    store(pairs + pair, n, b);
    return;
  }
  const int n_a = 2 * n < width ? 2 * n : width, n_b = 2 * n - n_a;
  load(2 * pair, n_a, a);
  load(2 * pair + width, n_b, b);
#pragma unroll
  for (int e = 0; e < width / 2; ++e) {
    Contract::rotate(a[2 * e], a[2 * e + 1], cos[e], sin[e]);
    Contract::rotate(b[2 * e], b[2 * e + 1], cos[e + width / 2], sin[e + width / 2]);
  }
  store(2 * pair, n_a, a);
  store(2 * pair + width, n_b, b);
}

}  // namespace device
BI_NAMESPACE_END
