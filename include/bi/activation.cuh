// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/activation.hpp"
#include "bi/kernel/activation.cuh"
#include "bi/launch_flat.cuh"

// Definitions of the launchers that bi/activation.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_ACTIVATION(bi::bf16, bi::contract::activation_draft);
//   BI_INSTANTIATE_EMBEDDING(bi::bf16);

#define BI_INSTANTIATE_ACTIVATION(T, Contract)                                                               \
  template ::bi::status(::bi::silu_mul<T, Contract>)(const ::bi::gate_mul_args<T>&, ::bi::cuda_stream);      \
  template ::bi::status(::bi::gelu_mul<T, Contract>)(const ::bi::gate_mul_args<T>&, ::bi::cuda_stream);      \
  template ::bi::status(::bi::gelu_tanh_mul<T, Contract>)(const ::bi::gate_mul_args<T>&, ::bi::cuda_stream); \
  template ::bi::status(::bi::add<T, Contract>)(const ::bi::add_args<T>&, ::bi::cuda_stream)
#define BI_INSTANTIATE_EMBEDDING(T) \
  template ::bi::status(::bi::embedding<T>)(const ::bi::embedding_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

inline schedule::flat_schedule pick_vectors(std::int64_t rows, std::int64_t cols) {
  return schedule::pick_flat_schedule(device::flat_items{rows, device::vectors_of(cols)}.count());
}

// With a given schedule each; the arguments have passed check() and leave something to do.
template <class Function, class T>
status launch_gate_mul(const char* operation, const gate_mul_args<T>& a, const schedule::flat_schedule& s,
                       cuda_stream stream) {
  const std::int64_t dense = a.cols * a.column_step;
  kernel::pair_params<T> p = {};
  p.x = a.gate;
  p.y = a.up;
  p.out = a.out;
  p.x_stride = a.gate_stride == 0 ? dense : a.gate_stride;
  p.y_stride = a.up_stride == 0 ? dense : a.up_stride;
  p.out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  p.column_step = a.column_step;
  p.cols = a.cols;
  p.vectors = {a.rows, device::vectors_of(a.cols)};
  p.aligned = a.column_step == 1 && device::vector_aligned(p.x, p.x_stride) &&
              device::vector_aligned(p.y, p.y_stride) && device::vector_aligned(p.out, p.out_stride);
  return launch_flat(operation, kernel::pair_kernel<Function, T>, p, s, stream);
}

template <class Contract, class T>
status launch_add(const add_args<T>& a, const schedule::flat_schedule& s, cuda_stream stream) {
  kernel::pair_params<T> p = {};
  p.x = a.x;
  p.y = a.y;
  p.out = a.out;
  p.x_stride = a.x_stride == 0 ? a.cols : a.x_stride;
  p.y_stride = a.y_stride == 0 ? a.cols : a.y_stride;
  p.out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  p.column_step = 1;
  p.cols = a.cols;
  p.vectors = {a.rows, device::vectors_of(a.cols)};
  p.aligned = device::vector_aligned(p.x, p.x_stride) && device::vector_aligned(p.y, p.y_stride) &&
              device::vector_aligned(p.out, p.out_stride);
  return launch_flat("add", kernel::pair_kernel<kernel::add_function<Contract>, T>, p, s, stream);
}

template <class T>
status launch_embedding(const embedding_args<T>& a, const schedule::flat_schedule& s, cuda_stream stream) {
  kernel::embedding_params<T> p = {};
  p.table = a.table;
  p.id = a.id;
  p.out = a.out;
  p.table_stride = a.table_stride == 0 ? a.cols : a.table_stride;
  p.out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  p.table_rows = a.table_rows;
  p.cols = a.cols;
  p.vectors = {a.rows, device::vectors_of(a.cols)};
  p.aligned = device::vector_aligned(p.table, p.table_stride) && device::vector_aligned(p.out, p.out_stride);
  return launch_flat("embedding", kernel::embedding_kernel<T>, p, s, stream);
}

template <class Function, class T>
status gate_mul(const char* operation, const gate_mul_args<T>& a, cuda_stream stream) {
  const status st = check(a, operation);
  if (!st || a.rows == 0 || a.cols == 0) return st;
  return launch_gate_mul<Function>(operation, a, pick_vectors(a.rows, a.cols), stream);
}

}  // namespace launch_detail

template <class T, class Contract>
status silu_mul(const gate_mul_args<T>& a, cuda_stream stream) {
  return launch_detail::gate_mul<kernel::silu_mul_function<Contract>>("silu_mul", a, stream);
}
template <class T, class Contract>
status gelu_mul(const gate_mul_args<T>& a, cuda_stream stream) {
  return launch_detail::gate_mul<kernel::gelu_mul_function<Contract>>("gelu_mul", a, stream);
}
template <class T, class Contract>
status gelu_tanh_mul(const gate_mul_args<T>& a, cuda_stream stream) {
  return launch_detail::gate_mul<kernel::gelu_tanh_mul_function<Contract>>("gelu_tanh_mul", a, stream);
}

template <class T, class Contract>
status add(const add_args<T>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.rows == 0 || a.cols == 0) return st;
  return launch_detail::launch_add<Contract>(a, launch_detail::pick_vectors(a.rows, a.cols), stream);
}

template <class T>
status embedding(const embedding_args<T>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.rows == 0 || a.cols == 0) return st;
  return launch_detail::launch_embedding(a, launch_detail::pick_vectors(a.rows, a.cols), stream);
}

BI_NAMESPACE_END
