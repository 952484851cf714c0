// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>

#include "bi/gemm.hpp"
#include "bi/reference/gemm.hpp"

// Ops of tests/support/backend.hpp.
namespace test {

template <class T, class Epilogue, class Out>
struct gemm_call {
  bi::gemm_limits limits;
  bi::gemm_args<T, Epilogue, Out> args;
};

struct gemm_op {
  template <class T, class Epilogue, class Out>
  static bi::status reference(const gemm_call<T, Epilogue, Out>& c) {
    return bi::reference::gemm(c.limits, c.args);
  }
  template <class T, class Epilogue, class Out>
  static std::size_t workspace_bytes(const gemm_call<T, Epilogue, Out>& c) {
    return bi::gemm<T, Epilogue, Out>::workspace_bytes(c.limits);
  }
  template <class T, class Epilogue, class Out>
  static bi::status gpu(const gemm_call<T, Epilogue, Out>& c, bi::workspace ws, bi::cuda_stream stream) {
    return bi::gemm<T, Epilogue, Out>::prepare(c.limits)(c.args, ws, stream);
  }
};

struct gemm_finish_op {
  template <class T, class Epilogue, class Out>
  static bi::status reference(const bi::gemm_finish_args<T, Epilogue, Out>& a) {
    return bi::reference::gemm_finish(a);
  }
  template <class T, class Epilogue, class Out>
  static bi::status gpu(const bi::gemm_finish_args<T, Epilogue, Out>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::gemm_finish(a, stream);
  }
};

struct gemm_f32_op {
  static bi::status reference(const bi::gemm_f32_args& a) { return bi::reference::gemm_f32(a); }
  static bi::status gpu(const bi::gemm_f32_args& a, bi::workspace, bi::cuda_stream stream) {
    return bi::gemm_f32(a, stream);
  }
};

}  // namespace test
