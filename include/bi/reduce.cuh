// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/reduce.cuh"
#include "bi/launch_rows.cuh"
#include "bi/reduce.hpp"

// Definitions of the launchers that bi/reduce.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_REDUCE(bi::bf16, float, bi::contract::reduce_draft);
//   BI_INSTANTIATE_ARG_REDUCE(bi::bf16, bi::contract::reduce_draft);  // argmax and argmin

#define BI_INSTANTIATE_REDUCE(T, Out, Contract)                                                            \
  template ::bi::status(::bi::reduce<T, Out, Contract>)(const ::bi::reduce_args<T, Out>&, ::bi::reduction, \
                                                        ::bi::cuda_stream)
#define BI_INSTANTIATE_ARG_REDUCE(T, Contract)                                                          \
  template ::bi::status(::bi::argmax<T, Contract>)(const ::bi::arg_reduce_args<T>&, ::bi::cuda_stream); \
  template ::bi::status(::bi::argmin<T, Contract>)(const ::bi::arg_reduce_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

template <class Form, class T, class Out>
status reduce_rows(const kernel::reduce_params<T, Out>& p, const schedule::row_schedule& s, cuda_stream stream) {
  return launch_rows("reduce", kernel::reduce_kernel<Form, T, Out, 32, rows_per_block>,
                     kernel::reduce_kernel<Form, T, Out, 256, 1>, p, s, stream);
}

// With a given schedule each; the arguments have passed check() and leave something to do.
template <class Contract, class T, class Out>
status launch_reduce(const reduce_args<T, Out>& a, reduction op, const schedule::row_schedule& s, cuda_stream stream) {
  auto p = row_params<kernel::reduce_params<T, Out>>(a);
  p.out = a.out;
  switch (op) {
    case reduction::mean:
      return reduce_rows<kernel::mean_form<Contract>>(p, s, stream);
    case reduction::max:
      return reduce_rows<kernel::max_form<Contract>>(p, s, stream);
    case reduction::min:
      return reduce_rows<kernel::min_form<Contract>>(p, s, stream);
    default:
      return reduce_rows<kernel::sum_form<Contract>>(p, s, stream);
  }
}

template <class Step, class T>
status launch_arg_reduce(const char* operation, const arg_reduce_args<T>& a, const schedule::row_schedule& s,
                         cuda_stream stream) {
  auto p = row_params<kernel::arg_reduce_params<T>>(a);
  p.index = a.index;
  return launch_rows(operation, kernel::arg_reduce_kernel<Step, T, 32, rows_per_block>,
                     kernel::arg_reduce_kernel<Step, T, 256, 1>, p, s, stream);
}

template <class Step, class T>
status arg_reduce(const char* operation, const arg_reduce_args<T>& a, cuda_stream stream) {
  const status st = check(a, operation);
  if (!st || a.rows == 0) return st;
  return launch_arg_reduce<Step>(operation, a, schedule::pick_row_schedule(a.rows, a.cols), stream);
}

}  // namespace launch_detail

template <class T, class Out, class Contract>
status reduce(const reduce_args<T, Out>& a, reduction op, cuda_stream stream) {
  const status st = check(a, op);
  if (!st || a.rows == 0) return st;
  return launch_detail::launch_reduce<Contract>(a, op, schedule::pick_row_schedule(a.rows, a.cols), stream);
}

template <class T, class Contract>
status argmax(const arg_reduce_args<T>& a, cuda_stream stream) {
  return launch_detail::arg_reduce<contract::arg_max_step>("argmax", a, stream);
}
template <class T, class Contract>
status argmin(const arg_reduce_args<T>& a, cuda_stream stream) {
  return launch_detail::arg_reduce<contract::arg_min_step>("argmin", a, stream);
}

BI_NAMESPACE_END
