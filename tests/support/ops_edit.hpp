// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/logits_edit.hpp"
#include "bi/reference/logits_edit.hpp"
#include "bi/reference/token_counts.hpp"
#include "bi/token_counts.hpp"

// Ops of tests/support/backend.hpp.
namespace test {

struct logits_edit_op {
  template <class T, class Out>
  static bi::status reference(const bi::logits_edit_args<T, Out>& a) {
    return bi::reference::logits_edit(a);
  }
  template <class T, class Out>
  static bi::status gpu(const bi::logits_edit_args<T, Out>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::logits_edit(a, stream);
  }
};
struct clear_counts_op {
  static bi::status reference(const bi::clear_counts_args& a) { return bi::reference::clear_counts(a); }
  static bi::status gpu(const bi::clear_counts_args& a, bi::workspace, bi::cuda_stream stream) {
    return bi::clear_counts(a, stream);
  }
};
struct count_tokens_op {
  static bi::status reference(const bi::count_tokens_args& a) { return bi::reference::count_tokens(a); }
  static bi::status gpu(const bi::count_tokens_args& a, bi::workspace, bi::cuda_stream stream) {
    return bi::count_tokens(a, stream);
  }
};
struct count_view_op {
  static bi::status reference(const bi::count_view_args& a) { return bi::reference::count_view(a); }
  static bi::status gpu(const bi::count_view_args& a, bi::workspace, bi::cuda_stream stream) {
    return bi::count_view(a, stream);
  }
};

}  // namespace test
