// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/rms_norm.cuh"
#include "bi/launch_rows.cuh"
#include "bi/rms_norm.hpp"

// Definitions of the launchers that bi/rms_norm.hpp declares. Instantiate each pair a program uses in one .cu file:
//   BI_INSTANTIATE_RMS_NORM(bi::bf16, bi::contract::rms_norm_draft);

#define BI_INSTANTIATE_RMS_NORM(T, Contract)                                                            \
  template ::bi::status(::bi::rms_norm<T, Contract>)(const ::bi::rms_norm_args<T>&, ::bi::cuda_stream); \
  template ::bi::status(::bi::qk_norm<T, Contract>)(const ::bi::qk_norm_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

template <class Contract, class T>
status rms_norm_rows(const char* operation, const kernel::rms_norm_params<T>& p, const schedule::row_schedule& s,
                     cuda_stream stream) {
  if (s.held > 0) {
    return with_held_norm_shape<T>(s, [&](auto shape) {
      using held = decltype(shape);
      return launch_row_kernel(
          operation,
          kernel::rms_norm_held_kernel<Contract, T, held::threads, held::rows_per_block, held::held, held::cluster>, p,
          s, stream);
    });
  }
  return launch_rows(operation, kernel::rms_norm_kernel<Contract, T, 32, rows_per_block>,
                     kernel::rms_norm_kernel<Contract, T, 256, 1>, p, s, stream);
}

template <class T>
kernel::rms_norm_params<T> make_norm_params(const rms_norm_args<T>& a) {
  const auto stride = [&](std::int64_t given) { return given == 0 ? a.cols : given; };
  kernel::rms_norm_params<T> p = {};
  p.x = a.x;
  p.residual = a.residual;
  p.residual_out = a.residual_out;
  p.weight = a.weight;
  p.out = a.out;
  p.x_stride = stride(a.x_stride);
  p.residual_stride = stride(a.residual_stride);
  p.residual_out_stride = stride(a.residual_out_stride);
  p.out_stride = stride(a.out_stride);
  p.rows = a.rows;
  p.inner = 1;
  p.cols = a.cols;
  p.eps = a.eps;
  p.aligned = device::vector_aligned(a.x, p.x_stride) && device::vector_aligned(a.out, p.out_stride) &&
              device::vector_aligned(a.weight, 0);
  if (a.residual != nullptr) {
    p.aligned = p.aligned && device::vector_aligned(a.residual, p.residual_stride) &&
                device::vector_aligned(a.residual_out, p.residual_out_stride);
  }
  return p;
}

template <class T>
kernel::rms_norm_params<T> make_norm_params(const qk_norm_args<T>& a) {
  const auto head = [&](std::int64_t stride) { return stride == 0 ? a.head_dim : stride; };
  kernel::rms_norm_params<T> p = {};
  p.x = a.x;
  p.weight = a.weight;
  p.out = a.out;
  p.x_inner_stride = head(a.x_head_stride);
  p.out_inner_stride = head(a.out_head_stride);
  p.x_stride = a.x_token_stride == 0 ? a.heads * p.x_inner_stride : a.x_token_stride;
  p.out_stride = a.out_token_stride == 0 ? a.heads * p.out_inner_stride : a.out_token_stride;
  p.rows = a.tokens * a.heads;
  p.inner = a.heads;
  p.cols = a.head_dim;
  p.eps = a.eps;
  p.aligned = device::vector_aligned(a.x, p.x_stride) && device::vector_aligned(a.x, p.x_inner_stride) &&
              device::vector_aligned(a.out, p.out_stride) && device::vector_aligned(a.out, p.out_inner_stride) &&
              device::vector_aligned(a.weight, 0);
  return p;
}

// With a given schedule each, which fits_norm; the arguments have passed check() and leave something to do.
template <class Contract, class T>
status launch_rms_norm(const rms_norm_args<T>& a, const schedule::row_schedule& s, cuda_stream stream) {
  return rms_norm_rows<Contract>("rms_norm", make_norm_params(a), s, stream);
}
template <class Contract, class T>
status launch_qk_norm(const qk_norm_args<T>& a, const schedule::row_schedule& s, cuda_stream stream) {
  return rms_norm_rows<Contract>("qk_norm", make_norm_params(a), s, stream);
}

template <class Contract, class T>
status pick_and_launch_rms_norm(const char* operation, const kernel::rms_norm_params<T>& p, cuda_stream stream) {
  schedule::row_traits traits{sizeof(T), p.aligned && p.cols % device::vector_size == 0, false};
  const auto held = kernel::rms_norm_held_kernel<Contract, T, 256, 1, 4, true>;
  if (const status st = find_hopper_code(operation, held, traits.hopper); !st) return st;
  return rms_norm_rows<Contract>(operation, p, schedule::pick_norm_schedule(p.rows, p.cols, traits), stream);
}

}  // namespace launch_detail

template <class T, class Contract>
status rms_norm(const rms_norm_args<T>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.rows == 0 || a.cols == 0) return st;
  return launch_detail::pick_and_launch_rms_norm<Contract>("rms_norm", launch_detail::make_norm_params(a), stream);
}

template <class T, class Contract>
status qk_norm(const qk_norm_args<T>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.tokens == 0 || a.heads == 0 || a.head_dim == 0) return st;
  return launch_detail::pick_and_launch_rms_norm<Contract>("qk_norm", launch_detail::make_norm_params(a), stream);
}

BI_NAMESPACE_END
