// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>

#include "bi/attention.hpp"
#include "bi/reference/attention.hpp"

// Ops of tests/support/backend.hpp.
namespace test {

template <class T, int HeadDim, class Contract = bi::contract::attention_v1<T>>
struct attention_op {
  static bi::status reference(const bi::attention_args<T>& a) { return bi::reference::attention<Contract>(a); }
  static std::size_t workspace_bytes(const bi::attention_args<T>& a) {
    return bi::attention<T, HeadDim, Contract>::workspace_bytes(a.limits);
  }
  static bi::status gpu(const bi::attention_args<T>& a, bi::workspace ws, bi::cuda_stream stream) {
    return bi::attention<T, HeadDim, Contract>::launch(a, ws, stream);
  }
};

}  // namespace test
