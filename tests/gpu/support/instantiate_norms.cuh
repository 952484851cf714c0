// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/layer_norm.cuh"
#include "bi/rms_norm.cuh"

// The norms that the tests launch, of an element type: a file each, as they take long to compile. FORCED_NORMS_OF: those
// that take a schedule, for tests/gpu/support/forced_rows.hpp.

#define NORMS_OF(T)                                                  \
  BI_INSTANTIATE_RMS_NORM(T, bi::contract::rms_norm_draft);          \
  BI_INSTANTIATE_RMS_NORM(T, bi::contract::rms_norm_hf_draft);       \
  BI_INSTANTIATE_RMS_NORM(T, bi::contract::rms_norm_one_plus_draft); \
  BI_INSTANTIATE_LAYER_NORM(T, bi::contract::layer_norm_draft)

#define FORCED_RMS_NORM_OF(T, C)                                                                                 \
  template bi::status bi::launch_detail::launch_rms_norm<C>(const bi::rms_norm_args<T>&,                         \
                                                            const bi::schedule::row_schedule&, bi::cuda_stream); \
  template bi::status bi::launch_detail::launch_qk_norm<C>(const bi::qk_norm_args<T>&,                           \
                                                           const bi::schedule::row_schedule&, bi::cuda_stream)
#define FORCED_NORMS_OF(T)                                                                  \
  FORCED_RMS_NORM_OF(T, bi::contract::rms_norm_draft);                                      \
  FORCED_RMS_NORM_OF(T, bi::contract::rms_norm_hf_draft);                                   \
  FORCED_RMS_NORM_OF(T, bi::contract::rms_norm_one_plus_draft);                             \
  template bi::status bi::launch_detail::launch_layer_norm<bi::contract::layer_norm_draft>( \
      const bi::layer_norm_args<T>&, const bi::schedule::row_schedule&, bi::cuda_stream)
