// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "bi/schedule/rows.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/ops_rows.hpp"

// The launchers of operations over rows that take a schedule, instantiated in tests/gpu/instantiate_norms_*.cu,
// _softmax_*.cu and _reduce_*.cu.
BI_NAMESPACE_BEGIN
namespace launch_detail {

template <class Contract, class T>
status launch_rms_norm(const rms_norm_args<T>&, const schedule::row_schedule&, cuda_stream);
template <class Contract, class T>
status launch_qk_norm(const qk_norm_args<T>&, const schedule::row_schedule&, cuda_stream);
template <class Contract, class T>
status launch_layer_norm(const layer_norm_args<T>&, const schedule::row_schedule&, cuda_stream);
template <class Contract, class T, class Out>
status launch_reduce(const reduce_args<T, Out>&, reduction, const schedule::row_schedule&, workspace, cuda_stream);
template <class Contract, class T, class Out>
status launch_reduce_columns(const reduce_columns_args<T, Out>&, reduction, const schedule::block_schedule&, workspace,
                             cuda_stream);
template <class Step, class T>
status launch_arg_columns(const char*, const arg_reduce_columns_args<T>&, const schedule::block_schedule&, cuda_stream);
template <class Step, class T>
status launch_arg_reduce(const char*, const arg_reduce_args<T>&, const schedule::row_schedule&, workspace, cuda_stream);
template <class Contract, class Form, class T, class Out>
status launch_softmax(const char*, const softmax_args<T, Out>&, const schedule::row_schedule&, cuda_stream);
template <class Contract, class T>
status launch_logsumexp(const logsumexp_args<T>&, const schedule::row_schedule&, cuda_stream);

}  // namespace launch_detail
BI_NAMESPACE_END

// For forced_backend.
namespace test {

using bi::schedule::row_schedule;

// Poisoned device memory of a launch that nobody waits for here. The next call waits for the last.
inline bi::workspace forced_workspace(std::size_t bytes) {
  struct device_memory {
    void* data = nullptr;
    std::size_t size = 0;
    ~device_memory() { (void)cudaFree(data); }  // or it would count as leaked
  };
  static device_memory memory;
  BI_REQUIRE_CUDA(cudaDeviceSynchronize());
  if (bytes > memory.size) {
    (void)cudaFree(memory.data);
    memory.data = nullptr, memory.size = 0;
    BI_REQUIRE_CUDA(cudaMalloc(&memory.data, bytes));
    memory.size = bytes;
  }
  if (bytes > 0) BI_REQUIRE_CUDA(cudaMemset(memory.data, poison_byte, memory.size));
  BI_REQUIRE_CUDA(cudaDeviceSynchronize());
  return {bytes > 0 ? memory.data : nullptr, bytes};
}

template <class C, class T>
bi::status launch_with(const rms_norm_op<C>&, const bi::rms_norm_args<T>& a, const row_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_rms_norm<C>(a, s, t);
}
template <class C, class T>
bi::status launch_with(const qk_norm_op<C>&, const bi::qk_norm_args<T>& a, const row_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_qk_norm<C>(a, s, t);
}
template <class C, class T>
bi::status launch_with(const layer_norm_op<C>&, const bi::layer_norm_args<T>& a, const row_schedule& s,
                       bi::cuda_stream t) {
  return bi::launch_detail::launch_layer_norm<C>(a, s, t);
}
template <bi::reduction Reduction, class C, class T, class Out>
bi::status launch_with(const reduce_op<Reduction, C>&, const bi::reduce_args<T, Out>& a, const row_schedule& s,
                       bi::cuda_stream t) {
  return bi::launch_detail::launch_reduce<C>(a, Reduction, s,
                                             forced_workspace(bi::reduce_workspace_bytes(a.rows, a.cols)), t);
}
template <bi::reduction Reduction, class C, class T, class Out>
bi::status launch_with(const reduce_columns_op<Reduction, C>&, const bi::reduce_columns_args<T, Out>& a,
                       const bi::schedule::block_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_reduce_columns<C>(
      a, Reduction, s, forced_workspace(bi::reduce_columns_workspace_bytes(a.outer, a.cols, a.inner)), t);
}
template <class C, class T>
bi::status launch_with(const argmax_columns_op<C>&, const bi::arg_reduce_columns_args<T>& a,
                       const bi::schedule::block_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_arg_columns<bi::contract::arg_max_step>("argmax_columns", a, s, t);
}
template <class C, class T>
bi::status launch_with(const argmin_columns_op<C>&, const bi::arg_reduce_columns_args<T>& a,
                       const bi::schedule::block_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_arg_columns<bi::contract::arg_min_step>("argmin_columns", a, s, t);
}
template <class C, class T>
bi::status launch_with(const argmax_op<C>&, const bi::arg_reduce_args<T>& a, const row_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_arg_reduce<bi::contract::arg_max_step>(
      "argmax", a, s, forced_workspace(bi::arg_reduce_workspace_bytes(a.rows, a.cols)), t);
}
template <class C, class T>
bi::status launch_with(const argmin_op<C>&, const bi::arg_reduce_args<T>& a, const row_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_arg_reduce<bi::contract::arg_min_step>(
      "argmin", a, s, forced_workspace(bi::arg_reduce_workspace_bytes(a.rows, a.cols)), t);
}
template <class C, class T, class Out>
bi::status launch_with(const softmax_op<C>&, const bi::softmax_args<T, Out>& a, const row_schedule& s,
                       bi::cuda_stream t) {
  return bi::launch_detail::launch_softmax<C, typename C::softmax_form>("softmax", a, s, t);
}
template <class C, class T, class Out>
bi::status launch_with(const log_softmax_op<C>&, const bi::softmax_args<T, Out>& a, const row_schedule& s,
                       bi::cuda_stream t) {
  return bi::launch_detail::launch_softmax<C, typename C::log_softmax_form>("log_softmax", a, s, t);
}
template <class C, class T>
bi::status launch_with(const logsumexp_op<C>&, const bi::logsumexp_args<T>& a, const row_schedule& s,
                       bi::cuda_stream t) {
  return bi::launch_detail::launch_logsumexp<C>(a, s, t);
}

}  // namespace test
