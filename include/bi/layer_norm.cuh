// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/layer_norm.cuh"
#include "bi/launch_rows.cuh"
#include "bi/layer_norm.hpp"

// Definition of the launcher that bi/layer_norm.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_LAYER_NORM(bi::bf16, bi::contract::layer_norm_draft);

#define BI_INSTANTIATE_LAYER_NORM(T, Contract) \
  template ::bi::status(::bi::layer_norm<T, Contract>)(const ::bi::layer_norm_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

template <class T>
kernel::layer_norm_params<T> make_norm_params(const layer_norm_args<T>& a) {
  kernel::layer_norm_params<T> p = {};
  p.x = a.x;
  p.weight = a.weight;
  p.bias = a.bias;
  p.out = a.out;
  p.x_stride = a.x_stride == 0 ? a.cols : a.x_stride;
  p.out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  p.rows = a.rows;
  p.cols = a.cols;
  p.eps = a.eps;
  // A null weight or bias is aligned.
  p.aligned = device::vector_aligned(a.x, p.x_stride) && device::vector_aligned(a.out, p.out_stride) &&
              device::vector_aligned(a.weight, 0) && device::vector_aligned(a.bias, 0);
  return p;
}

// With a given schedule, which fits_norm; the arguments have passed check() and leave something to do.
template <class Contract, class T>
status launch_layer_norm(const layer_norm_args<T>& a, const schedule::row_schedule& s, cuda_stream stream) {
  const kernel::layer_norm_params<T> p = make_norm_params(a);
  if (s.held > 0) {
    return with_held_norm_shape<T>(s, [&](auto shape) {
      using held = decltype(shape);
      return launch_row_kernel(
          "layer_norm",
          kernel::layer_norm_held_kernel<Contract, T, held::threads, held::rows_per_block, held::held, held::cluster>,
          p, s, stream);
    });
  }
  return launch_rows("layer_norm", kernel::layer_norm_kernel<Contract, T, 32, rows_per_block>,
                     kernel::layer_norm_kernel<Contract, T, 256, 1>, p, s, stream);
}

}  // namespace launch_detail

template <class T, class Contract>
status layer_norm(const layer_norm_args<T>& a, cuda_stream stream) {
  status st = check(a);
  if (!st || a.rows == 0 || a.cols == 0) return st;
  schedule::row_traits traits{sizeof(T), launch_detail::make_norm_params(a).aligned && a.cols % 8 == 0, false};
  const auto held = kernel::layer_norm_held_kernel<Contract, T, 256, 1, 4, true>;
  st = find_hopper_code("layer_norm", held, traits.hopper);
  if (!st) return st;
  return launch_detail::launch_layer_norm<Contract>(a, schedule::pick_norm_schedule(a.rows, a.cols, traits), stream);
}

BI_NAMESPACE_END
