// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/softmax.cuh"
#include "bi/kernel/softmax_held.cuh"
#include "bi/launch_rows.cuh"
#include "bi/softmax.hpp"

// Definitions of the launchers that bi/softmax.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_SOFTMAX(bi::bf16, float, bi::contract::softmax_draft);  // softmax and log_softmax
//   BI_INSTANTIATE_LOGSUMEXP(bi::bf16, bi::contract::softmax_draft);

#define BI_INSTANTIATE_SOFTMAX(T, Out, Contract)                                                                \
  template ::bi::status(::bi::softmax<T, Out, Contract>)(const ::bi::softmax_args<T, Out>&, ::bi::cuda_stream); \
  template ::bi::status(::bi::log_softmax<T, Out, Contract>)(const ::bi::softmax_args<T, Out>&, ::bi::cuda_stream)
#define BI_INSTANTIATE_LOGSUMEXP(T, Contract) \
  template ::bi::status(::bi::logsumexp<T, Contract>)(const ::bi::logsumexp_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

// With a given schedule each, which fits_log_sum; the arguments have passed check() and leave something to do.
template <class Contract, class Form, class T, class Out>
status launch_softmax(const char* operation, const softmax_args<T, Out>& a, const schedule::row_schedule& s,
                      cuda_stream stream) {
  kernel::softmax_params<T, Out> p = {};
  p.x = a.x;
  p.out = a.out;
  p.x_stride = a.x_stride == 0 ? a.cols : a.x_stride;
  p.out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  p.rows = a.rows;
  p.cols = a.cols;
  p.x_aligned = device::vector_aligned(a.x, p.x_stride);
  p.out_aligned = device::vector_aligned(a.out, p.out_stride);
  if (s.held == 4) {
    return launch_row_kernel(operation, kernel::softmax_held_kernel<Contract, Form, T, Out, 1>, p, s, stream);
  }
  if (s.held == 8) {
    return launch_row_kernel(operation, kernel::softmax_held_kernel<Contract, Form, T, Out, 2>, p, s, stream);
  }
  if constexpr (sizeof(T) == 2) {
    if (s.held == 12) {
      return launch_row_kernel(operation, kernel::softmax_held_kernel<Contract, Form, T, Out, 3>, p, s, stream);
    }
  }
  return launch_rows(operation, kernel::softmax_kernel<Contract, Form, T, Out, 32, rows_per_block>,
                     kernel::softmax_kernel<Contract, Form, T, Out, 256, 1>, p, s, stream);
}

template <class Contract, class T>
status launch_logsumexp(const logsumexp_args<T>& a, const schedule::row_schedule& s, cuda_stream stream) {
  auto p = row_params<kernel::logsumexp_params<T>>(a);
  p.out = a.out;
  if (s.held == 4) {
    return launch_row_kernel("logsumexp", kernel::logsumexp_held_kernel<Contract, T, 1>, p, s, stream);
  }
  if (s.held > 0) {
    return launch_row_kernel("logsumexp", kernel::logsumexp_held_kernel<Contract, T, 4>, p, s, stream);
  }
  return launch_rows("logsumexp", kernel::logsumexp_kernel<Contract, T, 32, rows_per_block>,
                     kernel::logsumexp_kernel<Contract, T, 256, 1>, p, s, stream);
}

template <class Contract, class Form, class T, class Out>
status softmax_rows(const char* operation, const softmax_args<T, Out>& a, cuda_stream stream) {
  status st = check(a, operation);
  if (!st || a.rows == 0 || a.cols == 0) return st;
  schedule::row_traits traits{sizeof(T), false, false};
  traits.vectors = a.cols % device::vector_size == 0 &&
                   device::vector_aligned(a.x, a.x_stride == 0 ? a.cols : a.x_stride) &&
                   device::vector_aligned(a.out, a.out_stride == 0 ? a.cols : a.out_stride);
  st = find_hopper_code(operation, kernel::softmax_held_kernel<Contract, Form, T, Out, 2>, traits.hopper);
  if (!st) return st;
  return launch_softmax<Contract, Form>(operation, a, schedule::pick_log_sum_schedule(a.rows, a.cols, traits, true),
                                        stream);
}

}  // namespace launch_detail

template <class T, class Out, class Contract>
status softmax(const softmax_args<T, Out>& a, cuda_stream stream) {
  return launch_detail::softmax_rows<Contract, typename Contract::softmax_form>("softmax", a, stream);
}

template <class T, class Out, class Contract>
status log_softmax(const softmax_args<T, Out>& a, cuda_stream stream) {
  return launch_detail::softmax_rows<Contract, typename Contract::log_softmax_form>("log_softmax", a, stream);
}

template <class T, class Contract>
status logsumexp(const logsumexp_args<T>& a, cuda_stream stream) {
  status st = check(a);
  if (!st || a.rows == 0) return st;
  schedule::row_traits traits{sizeof(T), false, false};
  traits.vectors =
      a.cols % device::vector_size == 0 && device::vector_aligned(a.x, a.x_stride == 0 ? a.cols : a.x_stride);
  st = find_hopper_code("logsumexp", kernel::logsumexp_held_kernel<Contract, T, 4>, traits.hopper);
  if (!st) return st;
  const auto s = schedule::pick_log_sum_schedule(a.rows, a.cols, traits, false);
  return launch_detail::launch_logsumexp<Contract>(a, s, stream);
}

BI_NAMESPACE_END
