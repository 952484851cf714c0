// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/activation.hpp"
#include "bi/digest.hpp"
#include "bi/kv_cache.hpp"
#include "bi/reference/activation.hpp"
#include "bi/reference/digest.hpp"
#include "bi/reference/kv_cache.hpp"
#include "bi/reference/rope.hpp"
#include "bi/reference/sample.hpp"
#include "bi/rope.hpp"
#include "bi/sample.hpp"

// Ops of tests/support/backend.hpp.
namespace test {

struct silu_mul_op {
  static constexpr const char* name = "silu_mul";
  template <class T>
  static bi::status reference(const bi::gate_mul_args<T>& a) {
    return bi::reference::silu_mul(a);
  }
  template <class T>
  static bi::status gpu(const bi::gate_mul_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::silu_mul(a, stream);
  }
};
struct gelu_mul_op {
  static constexpr const char* name = "gelu_mul";
  template <class T>
  static bi::status reference(const bi::gate_mul_args<T>& a) {
    return bi::reference::gelu_mul(a);
  }
  template <class T>
  static bi::status gpu(const bi::gate_mul_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::gelu_mul(a, stream);
  }
};
struct gelu_tanh_mul_op {
  static constexpr const char* name = "gelu_tanh_mul";
  template <class T>
  static bi::status reference(const bi::gate_mul_args<T>& a) {
    return bi::reference::gelu_tanh_mul(a);
  }
  template <class T>
  static bi::status gpu(const bi::gate_mul_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::gelu_tanh_mul(a, stream);
  }
};
struct add_op {
  template <class T>
  static bi::status reference(const bi::add_args<T>& a) {
    return bi::reference::add(a);
  }
  template <class T>
  static bi::status gpu(const bi::add_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::add(a, stream);
  }
};
struct embedding_op {
  template <class T>
  static bi::status reference(const bi::embedding_args<T>& a) {
    return bi::reference::embedding(a);
  }
  template <class T>
  static bi::status gpu(const bi::embedding_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::embedding(a, stream);
  }
};
struct rope_op {
  template <class T>
  static bi::status reference(const bi::rope_args<T>& a) {
    return bi::reference::rope(a);
  }
  template <class T>
  static bi::status gpu(const bi::rope_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::rope(a, stream);
  }
};
template <class Norm>
struct kv_append_op {
  template <class T>
  static bi::status reference(const bi::kv_append_args<T>& a) {
    return bi::reference::kv_append<Norm>(a);
  }
  template <class T>
  static bi::status gpu(const bi::kv_append_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::kv_append<T, Norm>(a, stream);
  }
};
struct sample_op {
  template <class T>
  static bi::status reference(const bi::sample_args<T>& a) {
    return bi::reference::sample(a);
  }
  template <class T>
  static bi::status gpu(const bi::sample_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::sample(a, stream);
  }
};
struct verify_op {
  template <class T>
  static bi::status reference(const bi::verify_args<T>& a) {
    return bi::reference::verify(a);
  }
  template <class T>
  static bi::status gpu(const bi::verify_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::verify(a, stream);
  }
};
struct digest_rows_op {
  static bi::status reference(const bi::digest_rows_args& a) { return bi::reference::digest_rows(a); }
  static bi::status gpu(const bi::digest_rows_args& a, bi::workspace, bi::cuda_stream stream) {
    return bi::digest_rows(a, stream);
  }
};
struct digest_kv_op {
  template <class T>
  static bi::status reference(const bi::digest_kv_args<T>& a) {
    return bi::reference::digest_kv(a);
  }
  template <class T>
  static bi::status gpu(const bi::digest_kv_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::digest_kv(a, stream);
  }
};

}  // namespace test
