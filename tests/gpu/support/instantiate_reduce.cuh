// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/reduce.cuh"

// Reductions that the tests launch, of an element type. FORCED_REDUCTIONS_OF: those that take a schedule, for
// tests/gpu/support/forced_rows.hpp.

#define REDUCTIONS_OF(T, Other)                                        \
  BI_INSTANTIATE_REDUCE(T, T, bi::contract::reduce_draft);             \
  BI_INSTANTIATE_REDUCE(T, Other, bi::contract::reduce_draft);         \
  BI_INSTANTIATE_REDUCE_COLUMNS(T, float, bi::contract::reduce_draft); \
  BI_INSTANTIATE_ARG_REDUCE(T, bi::contract::reduce_draft);            \
  BI_INSTANTIATE_ARG_REDUCE_COLUMNS(T, bi::contract::reduce_draft)

#define FORCED_ARG_OF(T, Step)                                                  \
  template bi::status bi::launch_detail::launch_arg_reduce<bi::contract::Step>( \
      const char*, const bi::arg_reduce_args<T>&, const bi::schedule::row_schedule&, bi::workspace, bi::cuda_stream)
#define FORCED_ARG_COLUMNS_OF(T, Step)                                           \
  template bi::status bi::launch_detail::launch_arg_columns<bi::contract::Step>( \
      const char*, const bi::arg_reduce_columns_args<T>&, const bi::schedule::block_schedule&, bi::cuda_stream)
#define FORCED_COLUMNS_OF(T)                                                                                       \
  FORCED_ARG_COLUMNS_OF(T, arg_max_step);                                                                          \
  FORCED_ARG_COLUMNS_OF(T, arg_min_step);                                                                          \
  template bi::status bi::launch_detail::launch_reduce_columns<bi::contract::reduce_draft>(                        \
      const bi::reduce_columns_args<T, float>&, bi::reduction, const bi::schedule::block_schedule&, bi::workspace, \
      bi::cuda_stream)
#define FORCED_REDUCTIONS_OF(T)                                                                          \
  FORCED_ARG_OF(T, arg_max_step);                                                                        \
  FORCED_ARG_OF(T, arg_min_step);                                                                        \
  template bi::status bi::launch_detail::launch_reduce<bi::contract::reduce_draft>(                      \
      const bi::reduce_args<T, float>&, bi::reduction, const bi::schedule::row_schedule&, bi::workspace, \
      bi::cuda_stream)
