// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/reduce.cuh"
#include "bi/kernel/reduce_blocks.cuh"
#include "bi/kernel/reduce_cluster.cuh"
#include "bi/kernel/reduce_columns.cuh"
#include "bi/launch_rows.cuh"
#include "bi/reduce.hpp"

// Definitions of the launchers that bi/reduce.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_REDUCE(bi::bf16, float, bi::contract::reduce_draft);
//   BI_INSTANTIATE_REDUCE_COLUMNS(bi::bf16, float, bi::contract::reduce_draft);
//   BI_INSTANTIATE_ARG_REDUCE(bi::bf16, bi::contract::reduce_draft);  // argmax and argmin
//   BI_INSTANTIATE_ARG_REDUCE_COLUMNS(bi::bf16, bi::contract::reduce_draft);

#define BI_INSTANTIATE_REDUCE(T, Out, Contract)                                                            \
  template ::bi::status(::bi::reduce<T, Out, Contract>)(const ::bi::reduce_args<T, Out>&, ::bi::reduction, \
                                                        ::bi::workspace, ::bi::cuda_stream);               \
  template ::bi::status(::bi::reduce<T, Out, Contract>)(const ::bi::reduce_args<T, Out>&, ::bi::reduction, \
                                                        ::bi::cuda_stream)
#define BI_INSTANTIATE_REDUCE_COLUMNS(T, Out, Contract)                                                   \
  template ::bi::status(::bi::reduce_columns<T, Out, Contract>)(const ::bi::reduce_columns_args<T, Out>&, \
                                                                ::bi::reduction, ::bi::workspace, ::bi::cuda_stream)
#define BI_INSTANTIATE_ARG_REDUCE(T, Contract)                                                          \
  template ::bi::status(::bi::argmax<T, Contract>)(const ::bi::arg_reduce_args<T>&, ::bi::workspace,    \
                                                   ::bi::cuda_stream);                                  \
  template ::bi::status(::bi::argmin<T, Contract>)(const ::bi::arg_reduce_args<T>&, ::bi::workspace,    \
                                                   ::bi::cuda_stream);                                  \
  template ::bi::status(::bi::argmax<T, Contract>)(const ::bi::arg_reduce_args<T>&, ::bi::cuda_stream); \
  template ::bi::status(::bi::argmin<T, Contract>)(const ::bi::arg_reduce_args<T>&, ::bi::cuda_stream)
#define BI_INSTANTIATE_ARG_REDUCE_COLUMNS(T, Contract)                                              \
  template ::bi::status(::bi::argmax_columns<T, Contract>)(const ::bi::arg_reduce_columns_args<T>&, \
                                                           ::bi::cuda_stream);                      \
  template ::bi::status(::bi::argmin_columns<T, Contract>)(const ::bi::arg_reduce_columns_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

// f(form) for what a checked `op` asks for.
template <class Contract, class F>
status with_reduce_form(reduction op, F f) {
  switch (op) {
    case reduction::mean:
      return f(kernel::mean_form<Contract>{});
    case reduction::max:
      return f(kernel::max_form<Contract>{});
    case reduction::min:
      return f(kernel::min_form<Contract>{});
    default:
      return f(kernel::sum_form<Contract>{});
  }
}

// One launch for each level of the tree: blocks of the rows, blocks of their results, until one is left of each row.
template <class Form, class T, class Out>
status reduce_levels(const T* x, std::int64_t x_stride, std::int64_t rows, std::int64_t cols, std::int64_t row_cols,
                     Out* out, float* results, schedule::row_schedule s, cuda_stream stream) {
  const std::int64_t blocks = contract::row_blocks(cols);
  const bool aligned = device::vector_aligned(x, rows == 1 ? 0 : x_stride);
  s.blocks =
      s.blocks < schedule::blocks_for_rows(rows * blocks, s) ? s.blocks : schedule::blocks_for_rows(rows * blocks, s);
  if (blocks == 1) {
    const kernel::reduce_blocks_params<T, Out> p = {x, out, x_stride, 1, cols, row_cols, {rows, 1}, aligned};
    return launch_row_kernel("reduce", kernel::reduce_blocks_kernel<Form, T, Out, true>, p, s, stream);
  }
  const std::int64_t stride = schedule::reduce_results_stride(blocks);
  const kernel::reduce_blocks_params<T, float> p = {x,    results,  x_stride,       stride,
                                                    cols, row_cols, {rows, blocks}, aligned};
  const status st = launch_row_kernel("reduce", kernel::reduce_blocks_kernel<Form, T, float, false>, p, s, stream);
  if (!st) return st;
  return reduce_levels<Form>(static_cast<const float*>(results), stride, rows, blocks, row_cols, out,
                             results + rows * stride, s, stream);
}

template <class Form, class T, class Out>
status reduce_rows(const kernel::reduce_params<T, Out>& p, const schedule::row_schedule& s, workspace ws,
                   cuda_stream stream) {
  if (s.held == 1) return launch_row_kernel("reduce", kernel::reduce_short_kernel<Form, T, Out>, p, s, stream);
  if (s.held == 4) return launch_row_kernel("reduce", kernel::reduce_cluster_kernel<Form, T, Out>, p, s, stream);
  if (s.held > 0) {
    return reduce_levels<Form>(p.x, p.x_stride, p.rows, p.cols, p.cols, p.out, static_cast<float*>(ws.data), s, stream);
  }
  return launch_rows("reduce", kernel::reduce_kernel<Form, T, Out, 32, rows_per_block>,
                     kernel::reduce_kernel<Form, T, Out, 256, 1>, p, s, stream);
}

// With a given schedule each, which fits_reduce; the arguments have passed check() and leave something to do.
template <class Contract, class T, class Out>
status launch_reduce(const reduce_args<T, Out>& a, reduction op, const schedule::row_schedule& s, workspace ws,
                     cuda_stream stream) {
  auto p = row_params<kernel::reduce_params<T, Out>>(a);
  p.out = a.out;
  return with_reduce_form<Contract>(op, [&](auto form) { return reduce_rows<decltype(form)>(p, s, ws, stream); });
}

// A launch for each level of the tree, as above; each takes the most of the schedule's thread blocks that it can use.
template <class Form, class T, class Out>
status reduce_column_levels(const T* x, std::int64_t x_stride, std::int64_t outer, std::int64_t cols,
                            std::int64_t inner, std::int64_t row_cols, Out* out, float* results,
                            const schedule::block_schedule& s, cuda_stream stream) {
  const std::int64_t blocks = contract::row_blocks(cols) > 1 ? contract::row_blocks(cols) : 1;
  const std::int64_t items = outer * blocks * kernel::column_tiles(inner);
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks < items ? s.blocks : items);
  shape.block.x = 256;
  if (blocks == 1) {
    const kernel::reduce_columns_params<T, Out> p = {x, out, x_stride, cols, row_cols, outer, blocks, inner};
    return launch("reduce_columns", kernel::reduce_columns_kernel<Form, T, Out, true>, shape, p, stream);
  }
  const kernel::reduce_columns_params<T, float> p = {x, results, x_stride, cols, row_cols, outer, blocks, inner};
  const status st = launch("reduce_columns", kernel::reduce_columns_kernel<Form, T, float, false>, shape, p, stream);
  if (!st) return st;
  return reduce_column_levels<Form>(static_cast<const float*>(results), inner, outer, blocks, inner, row_cols, out,
                                    results + outer * blocks * inner, s, stream);
}

// With any schedule; the arguments have passed check() and leave something to do, and the workspace will do.
template <class Contract, class T, class Out>
status launch_reduce_columns(const reduce_columns_args<T, Out>& a, reduction op, const schedule::block_schedule& s,
                             workspace ws, cuda_stream stream) {
  return with_reduce_form<Contract>(op, [&](auto form) {
    return reduce_column_levels<decltype(form)>(a.x, a.x_stride == 0 ? a.inner : a.x_stride, a.outer, a.cols, a.inner,
                                                a.cols, a.out, static_cast<float*>(ws.data), s, stream);
  });
}

template <class Step, class T>
status launch_arg_columns(const char* operation, const arg_reduce_columns_args<T>& a, const schedule::block_schedule& s,
                          cuda_stream stream) {
  const std::int64_t items = a.outer * kernel::column_tiles(a.inner);
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks < items ? s.blocks : items);
  shape.block.x = 256;
  const kernel::arg_columns_params<T> p = {a.x,     a.index, a.x_stride == 0 ? a.inner : a.x_stride,
                                           a.outer, a.cols,  a.inner};
  return launch(operation, kernel::arg_columns_kernel<Step, T>, shape, p, stream);
}
template <class Step, class T>
status arg_columns(const char* operation, const arg_reduce_columns_args<T>& a, cuda_stream stream) {
  const status st = check(a, operation);
  if (!st || a.outer == 0 || a.inner == 0) return st;
  return launch_arg_columns<Step>(operation, a, {schedule::max_held_row_blocks}, stream);
}

template <class Step, class T>
status launch_arg_reduce(const char* operation, const arg_reduce_args<T>& a, const schedule::row_schedule& s,
                         workspace ws, cuda_stream stream) {
  auto p = row_params<kernel::arg_reduce_params<T>>(a);
  p.index = a.index;
  if (s.held == 0) {
    return launch_rows(operation, kernel::arg_reduce_kernel<Step, T, 32, rows_per_block>,
                       kernel::arg_reduce_kernel<Step, T, 256, 1>, p, s, stream);
  }
  const std::int64_t blocks = contract::row_blocks(a.cols);
  auto* const results = static_cast<contract::arg_value*>(ws.data);
  const kernel::arg_blocks_params<T> first = {a.x, results, p.x_stride, a.cols, {a.rows, blocks}, p.aligned};
  const status st = launch_row_kernel(operation, kernel::arg_blocks_kernel<Step, T>, first, s, stream);
  if (!st) return st;
  schedule::row_schedule each;
  each.programmatic = s.programmatic;
  each.blocks = schedule::blocks_for_rows(a.rows, each);
  const kernel::arg_results_params last = {results, a.index, a.rows, blocks};
  return launch_row_kernel(operation, kernel::arg_results_kernel<Step>, last, each, stream);
}

// A workspace that is given must do.
template <class Kernel>
status find_reduce_traits(const char* operation, Kernel* kernel, workspace ws, std::size_t needed, bool& has_workspace,
                          schedule::row_traits& traits) {
  checker c(operation);
  has_workspace = ws.data != nullptr || ws.bytes != 0;
  if (has_workspace) c.workspace(ws.data, ws.bytes, needed);
  if (!c.ok()) return c.result();
  return find_hopper_code(operation, kernel, traits.hopper);
}

template <class Step, class T>
status arg_reduce(const char* operation, const arg_reduce_args<T>& a, workspace ws, cuda_stream stream) {
  status st = check(a, operation);
  if (!st || a.rows == 0) return st;
  bool has_workspace = false;
  schedule::row_traits traits{sizeof(T), true, false};
  st = find_reduce_traits(operation, kernel::arg_blocks_kernel<Step, T>, ws, arg_reduce_workspace_bytes(a.rows, a.cols),
                          has_workspace, traits);
  if (!st) return st;
  const auto s = schedule::pick_arg_reduce_schedule(a.rows, a.cols, traits, has_workspace);
  return launch_arg_reduce<Step>(operation, a, s, ws, stream);
}

}  // namespace launch_detail

template <class T, class Out, class Contract>
status reduce(const reduce_args<T, Out>& a, reduction op, workspace ws, cuda_stream stream) {
  status st = check(a, op);
  if (!st || a.rows == 0) return st;
  bool has_workspace = false;
  schedule::row_traits traits{sizeof(T), true, false};
  const auto kernel = kernel::reduce_blocks_kernel<kernel::sum_form<Contract>, T, Out, true>;
  st = launch_detail::find_reduce_traits("reduce", kernel, ws, reduce_workspace_bytes(a.rows, a.cols), has_workspace,
                                         traits);
  if (!st) return st;
  const auto s = schedule::pick_reduce_schedule(a.rows, a.cols, traits, has_workspace);
  return launch_detail::launch_reduce<Contract>(a, op, s, ws, stream);
}
template <class T, class Out, class Contract>
status reduce(const reduce_args<T, Out>& a, reduction op, cuda_stream stream) {
  return reduce<T, Out, Contract>(a, op, {}, stream);
}

template <class T, class Out, class Contract>
status reduce_columns(const reduce_columns_args<T, Out>& a, reduction op, workspace ws, cuda_stream stream) {
  if (const status st = check(a, op); !st || a.outer == 0 || a.inner == 0) return st;
  checker c("reduce_columns");
  c.workspace(ws.data, ws.bytes, reduce_columns_workspace_bytes(a.outer, a.cols, a.inner));
  if (!c.ok()) return c.result();
  return launch_detail::launch_reduce_columns<Contract>(a, op, {schedule::max_held_row_blocks}, ws, stream);
}

template <class T, class Contract>
status argmax(const arg_reduce_args<T>& a, workspace ws, cuda_stream stream) {
  return launch_detail::arg_reduce<contract::arg_max_step>("argmax", a, ws, stream);
}
template <class T, class Contract>
status argmin(const arg_reduce_args<T>& a, workspace ws, cuda_stream stream) {
  return launch_detail::arg_reduce<contract::arg_min_step>("argmin", a, ws, stream);
}
template <class T, class Contract>
status argmax(const arg_reduce_args<T>& a, cuda_stream stream) {
  return launch_detail::arg_reduce<contract::arg_max_step>("argmax", a, {}, stream);
}
template <class T, class Contract>
status argmin(const arg_reduce_args<T>& a, cuda_stream stream) {
  return launch_detail::arg_reduce<contract::arg_min_step>("argmin", a, {}, stream);
}

template <class T, class Contract>
status argmax_columns(const arg_reduce_columns_args<T>& a, cuda_stream stream) {
  return launch_detail::arg_columns<contract::arg_max_step>("argmax_columns", a, stream);
}
template <class T, class Contract>
status argmin_columns(const arg_reduce_columns_args<T>& a, cuda_stream stream) {
  return launch_detail::arg_columns<contract::arg_min_step>("argmin_columns", a, stream);
}

BI_NAMESPACE_END
