// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "bi/activation.hpp"
#include "bi/attention.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"
#include "bi/gemm.hpp"
#include "bi/kv_cache.hpp"
#include "bi/reference/activation.hpp"
#include "bi/reference/attention.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/kv_cache.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/sample.hpp"
#include "bi/reference/softmax.hpp"
#include "bi/rms_norm.hpp"
#include "bi/sample.hpp"
#include "bi/self_test.hpp"
#include "bi/softmax.hpp"

// What bi::self_test runs, written once over a backend that owns memory and runs operations: the CPU reference, and the
// GPU (bi/testing/self_test_device.cuh). A backend has
//   const E* input(const std::vector<E>&)   a copy of these values
//   E* output<E>(count)                     `count` elements of 0xFF
//   status run(arguments)                   the operation that takes them
//   status read(E* to, const E* from, count)
// and its first failure is that of the whole test.

BI_NAMESPACE_BEGIN
namespace testing {

// What a GPU needs for all of it: 1.5 MB of inputs and outputs, aligned to 256 bytes each, and workspaces.
inline constexpr std::size_t self_test_bytes = std::size_t{4} << 20;

class BI_TYPE reference_backend {
 public:
  template <class E>
  const E* input(const std::vector<E>& values) {
    E* p = output<E>(static_cast<std::int64_t>(values.size()));
    std::memcpy(static_cast<void*>(p), values.data(), values.size() * sizeof(E));
    return p;
  }
  template <class E>
  E* output(std::int64_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(E);
    // In words, so that every element is aligned.
    buffers_.push_back(std::make_unique<std::uint64_t[]>(bytes / 8 + 1));
    std::memset(buffers_.back().get(), 0xFF, bytes);
    return reinterpret_cast<E*>(buffers_.back().get());
  }
  template <class E>
  status read(E* to, const E* from, std::int64_t count) {
    std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(count) * sizeof(E));
    return {};
  }

  template <class T>
  status run(const add_args<T>& a) {
    return reference::add(a);
  }
  template <class T>
  status run(const gate_mul_args<T>& a) {
    return reference::silu_mul(a);
  }
  template <class T>
  status run(const rms_norm_args<T>& a) {
    return reference::rms_norm(a);
  }
  template <class T, class Out>
  status run(const softmax_args<T, Out>& a) {
    return reference::log_softmax(a);
  }
  template <class T>
  status run(const gemm_limits& l, const gemm_args<T>& a) {
    return reference::gemm(l, a);
  }
  template <class T>
  status run(const kv_append_args<T>& a) {
    return reference::kv_append(a);
  }
  template <class T>
  status run(const attention_args<T>& a) {
    return reference::attention(a);
  }
  template <class T>
  status run(const sample_args<T>& a) {
    return reference::sample(a);
  }

 private:
  std::vector<std::unique_ptr<std::uint64_t[]>> buffers_;
};

namespace detail {

// Sums of two uniform numbers; every eighth is a subnormal of T, or a small sum of one, which a build that flushes them to
// zero loses.
template <class T>
std::vector<T> self_test_values(std::int64_t count, std::uint64_t seed) {
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t bits = mix64(seed * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(i));
    const auto part = [&](int shift) { return static_cast<std::int32_t>(bits >> shift & 0xFFFFFF); };
    const std::int32_t sum = part(0) + part(24) - 0xFFFFFF;
    const bool tiny = i % 8 == 3;
    // fp16's subnormals are larger.
    const float scale = !tiny ? 0x1p-23f : std::is_same_v<T, fp16> ? 0x1p-40f : 0x1p-149f;
    out.push_back(cvt_rn<T>(mul_rn(float_from_int(tiny ? sum / 8 : sum), scale)));
  }
  return out;
}

// Output after output of one backend, in bytes.
struct BI_TYPE self_test_output {
  const char* operation;
  const char* name;
  int element_bytes;
  std::vector<unsigned char> bytes;
};

template <class T, class Backend>
class BI_TYPE self_test_run {
 public:
  explicit self_test_run(Backend& backend) : b_(backend) {}

  // All operations; stops at the first failure.
  status all() {
    elementwise();
    norm();
    log_softmax();
    product();
    attend();
    draw();
    return status_;
  }
  const std::vector<self_test_output>& outputs() const { return outputs_; }

 private:
  template <class E>
  const E* values(std::int64_t count, std::uint64_t seed) {
    return b_.input(self_test_values<E>(count, seed));
  }
  void note(const status& st) {
    if (status_ && !st) status_ = st;
  }
  template <class E>
  void keep(const char* operation, const char* name, const E* p, std::int64_t count) {
    if (!status_) return;
    std::vector<E> got(static_cast<std::size_t>(count));
    note(b_.read(got.data(), p, count));
    std::vector<unsigned char> bytes(got.size() * sizeof(E));
    std::memcpy(bytes.data(), got.data(), bytes.size());
    outputs_.push_back({operation, name, static_cast<int>(sizeof(E)), std::move(bytes)});
  }

  void elementwise() {
    constexpr std::int64_t rows = 3, cols = 500;
    add_args<T> a;
    a.x = values<T>(rows * cols, 1), a.y = values<T>(rows * cols, 2), a.rows = rows, a.cols = cols;
    T* sum = b_.template output<T>(rows * cols);
    a.out = sum;
    note(b_.run(a));
    keep("add", "out", sum, rows * cols);
    if (!status_) return;
    gate_mul_args<T> g;
    g.gate = a.x, g.up = a.y, g.rows = rows, g.cols = cols;
    T* product = b_.template output<T>(rows * cols);
    g.out = product;
    note(b_.run(g));
    keep("silu_mul", "out", product, rows * cols);
  }

  void norm() {
    if (!status_) return;
    constexpr std::int64_t rows = 3, cols = 1000;
    rms_norm_args<T> a;
    a.x = values<T>(rows * cols, 3), a.residual = values<T>(rows * cols, 4), a.weight = values<T>(cols, 5);
    T *sum = b_.template output<T>(rows * cols), *out = b_.template output<T>(rows * cols);
    a.residual_out = sum, a.out = out, a.rows = rows, a.cols = cols;
    note(b_.run(a));
    keep("rms_norm", "residual_out", sum, rows * cols);
    keep("rms_norm", "out", out, rows * cols);
  }

  void log_softmax() {
    if (!status_) return;
    constexpr std::int64_t rows = 2, cols = 9000;  // two blocks of the row tree
    softmax_args<T, float> a;
    a.x = values<T>(rows * cols, 6), a.rows = rows, a.cols = cols;
    float* out = b_.template output<float>(rows * cols);
    a.out = out;
    note(b_.run(a));
    keep("log_softmax", "out", out, rows * cols);
  }

  void product() {
    if (!status_) return;
    constexpr std::int64_t m = 5, n = 72, k = 4160;  // four slices
    gemm_limits l;
    l.n = n, l.k = k, l.max_m = m;
    gemm_args<T> a;
    a.a = values<T>(m * k, 7), a.b = values<T>(n * k, 8), a.m = m;
    T* d = b_.template output<T>(m * n);
    a.d = d;
    note(b_.run(l, a));
    keep("gemm", "d", d, m * n);
  }

  // 300 and 5 tokens in pages of 16, appended with a norm, then one query each.
  void attend() {
    if (!status_) return;
    constexpr std::int64_t heads = 2, heads_q = 4, dim = 128, page = 16, pages = 20, tokens = 305, width = heads * dim;
    std::vector<std::int64_t> slots;
    std::vector<std::int32_t> table(2 * pages, 0);
    for (std::int32_t p = 0; p < 19; ++p) table[static_cast<std::size_t>(p)] = 19 - p;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t in_view = t < 300 ? t : t - 300, first = t < 300 ? 0 : pages;
      slots.push_back(table[static_cast<std::size_t>(first + in_view / page)] * page + in_view % page);
    }
    kv_append_args<T> append;
    T *k = b_.template output<T>(pages * page * width), *v = b_.template output<T>(pages * page * width);
    append.cache.k = k, append.cache.v = v, append.cache.num_pages = pages, append.cache.page_size = page;
    append.cache.heads = heads, append.cache.head_dim = dim;
    append.k = values<T>(tokens * width, 9), append.v = values<T>(tokens * width, 10), append.slot = b_.input(slots);
    append.tokens = tokens, append.norm_weight = values<T>(dim, 11);
    note(b_.run(append));
    keep("kv_append", "cache.k", k, pages * page * width);
    keep("kv_append", "cache.v", v, pages * page * width);
    if (!status_) return;

    attention_args<T> a;
    a.q = values<T>(2 * heads_q * dim, 12);
    a.cache.k = k, a.cache.v = v, a.cache.num_pages = pages, a.cache.page_size = page;
    a.cache.heads = heads, a.cache.head_dim = dim;
    a.view = page_table{b_.input(table), pages};
    a.len = b_.input(std::vector<std::int32_t>{300, 5}), a.requests = 2, a.rows = 2;
    a.scale = 0.0883883461f;
    a.limits.max_requests = 2, a.limits.max_rows = 2, a.limits.max_view = 300;
    a.limits.heads_q = heads_q, a.limits.heads_kv = heads, a.limits.head_dim = dim;
    T* out = b_.template output<T>(2 * heads_q * dim);
    float* lse = b_.template output<float>(2 * heads_q);
    a.out = out, a.lse = lse;
    note(b_.run(a));
    keep("attention", "out", out, 2 * heads_q * dim);
    keep("attention", "lse", lse, 2 * heads_q);
  }

  void draw() {
    if (!status_) return;
    constexpr std::int64_t rows = 4, vocab = 1000;
    std::vector<sample_params> params(rows);
    for (std::uint32_t r = 0; r < rows; ++r) params[r].seed = 40 + r, params[r].ordinal = r;
    for (std::size_t r = 1; r < rows; ++r) params[r].temperature = 1.5f;
    params[2].top_p = 0.8f, params[3].top_k = 50, params[3].min_p = 0.1f;
    sample_args<float> a;
    a.logits = values<float>(rows * vocab, 13), a.rows = rows, a.vocab = vocab, a.params = b_.input(params);
    auto* token = b_.template output<std::int32_t>(rows);
    auto* logprob = b_.template output<float>(rows);
    auto* flags = b_.template output<std::uint32_t>(rows);
    a.token = token, a.logprob = logprob, a.flags = flags;
    note(b_.run(a));
    keep("sample", "token", token, rows);
    keep("sample", "logprob", logprob, rows);
    keep("sample", "flags", flags, rows);
  }

  Backend& b_;
  status status_;
  std::vector<self_test_output> outputs_;
};

inline self_test_result compare(const std::vector<self_test_output>& expected,
                                const std::vector<self_test_output>& actual) {
  self_test_result r;
  for (std::size_t i = 0; i < expected.size() && r.operation == nullptr; ++i) {
    const auto &e = expected[i].bytes, &a = actual[i].bytes;
    const auto size = static_cast<std::size_t>(expected[i].element_bytes);
    for (std::size_t at = 0; at < e.size() && r.operation == nullptr; at += size) {
      if (std::memcmp(e.data() + at, a.data() + at, size) == 0) continue;
      r.operation = expected[i].operation;
      r.output = expected[i].name;
      r.element = static_cast<std::int64_t>(at / size);
      r.element_bytes = expected[i].element_bytes;
      std::memcpy(&r.expected, e.data() + at, size);
      std::memcpy(&r.actual, a.data() + at, size);
    }
    const bool last = i + 1 == expected.size() || std::strcmp(expected[i].operation, expected[i + 1].operation) != 0;
    if (r.operation == nullptr && last) r.operations += 1;
  }
  return r;
}

}  // namespace detail

// All operations of one backend against the reference.
template <class T, class Backend>
self_test_result run_self_test(Backend& backend) {
  self_test_result r;
  detail::self_test_run<T, Backend> tested(backend);
  r.call = tested.all();
  if (!r.call) return r;
  reference_backend cpu;
  detail::self_test_run<T, reference_backend> expected(cpu);
  r.call = expected.all();
  return r.call ? detail::compare(expected.outputs(), tested.outputs()) : r;
}

}  // namespace testing
BI_NAMESPACE_END
