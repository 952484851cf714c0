// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "bi/layer_norm.hpp"
#include "bi/reduce.hpp"
#include "bi/reference/layer_norm.hpp"
#include "bi/reference/reduce.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/softmax.hpp"
#include "bi/rms_norm.hpp"
#include "bi/softmax.hpp"
#include "support/backend.hpp"
#include "support/data.hpp"

// The operations over rows as ops of a backend (support/backend.hpp), and cases made of them.
namespace test {

// What the operations over a matrix have in common; each op's args() makes its own arguments of it.
template <class T, class Out>
struct row_call {
  T* x = nullptr;
  std::int64_t x_stride = 0;
  const T* weight = nullptr;
  const T* bias = nullptr;
  std::int64_t rows = 0, cols = 0;
  Out* out = nullptr;
  std::int64_t out_stride = 0;
};

template <class Args, class T, class Out>
Args common_args(const row_call<T, Out>& c) {
  Args a;
  a.x = c.x;
  a.x_stride = c.x_stride;
  a.rows = c.rows;
  a.cols = c.cols;
  return a;
}

// Bytes written a row: one result, or one for each column.
enum class writes { row, columns };

template <class C = bi::contract::rms_norm_draft>
struct rms_norm_op {
  using contract = C;
  static constexpr writes output = writes::columns;
  template <class T>
  static auto args(const row_call<T, T>& c) {
    auto a = common_args<bi::rms_norm_args<T>>(c);
    a.weight = c.weight;
    a.out = c.out;
    a.out_stride = c.out_stride;
    return a;
  }
  template <class T>
  static bi::status reference(const bi::rms_norm_args<T>& a) {
    return bi::reference::rms_norm<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::rms_norm_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::rms_norm<T, C>(a, stream);
  }
};

template <class C = bi::contract::rms_norm_draft>
struct qk_norm_op {
  using contract = C;
  template <class T>
  static bi::status reference(const bi::qk_norm_args<T>& a) {
    return bi::reference::qk_norm<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::qk_norm_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::qk_norm<T, C>(a, stream);
  }
};

template <class C = bi::contract::layer_norm_draft>
struct layer_norm_op {
  using contract = C;
  static constexpr writes output = writes::columns;
  template <class T>
  static auto args(const row_call<T, T>& c) {
    auto a = common_args<bi::layer_norm_args<T>>(c);
    a.weight = c.weight;
    a.bias = c.bias;
    a.out = c.out;
    a.out_stride = c.out_stride;
    return a;
  }
  template <class T>
  static bi::status reference(const bi::layer_norm_args<T>& a) {
    return bi::reference::layer_norm<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::layer_norm_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::layer_norm<T, C>(a, stream);
  }
};

template <bi::reduction Reduction, class C = bi::contract::reduce_draft>
struct reduce_op {
  using contract = C;
  static constexpr writes output = writes::row;
  template <class T, class Out>
  static auto args(const row_call<T, Out>& c) {
    auto a = common_args<bi::reduce_args<T, Out>>(c);
    a.out = c.out;
    return a;
  }
  template <class T, class Out>
  static bi::status reference(const bi::reduce_args<T, Out>& a) {
    return bi::reference::reduce<C>(a, Reduction);
  }
  template <class T, class Out>
  static std::size_t workspace_bytes(const bi::reduce_args<T, Out>& a) {
    return bi::reduce_workspace_bytes(a.rows, a.cols);
  }
  template <class T, class Out>
  static bi::status gpu(const bi::reduce_args<T, Out>& a, bi::workspace ws, bi::cuda_stream stream) {
    return bi::reduce<T, Out, C>(a, Reduction, ws, stream);
  }
};

template <bi::reduction Reduction, class C = bi::contract::reduce_draft>
struct reduce_columns_op {
  using contract = C;
  template <class T, class Out>
  static bi::status reference(const bi::reduce_columns_args<T, Out>& a) {
    return bi::reference::reduce_columns<C>(a, Reduction);
  }
  template <class T, class Out>
  static std::size_t workspace_bytes(const bi::reduce_columns_args<T, Out>& a) {
    return bi::reduce_columns_workspace_bytes(a.outer, a.cols, a.inner);
  }
  template <class T, class Out>
  static bi::status gpu(const bi::reduce_columns_args<T, Out>& a, bi::workspace ws, bi::cuda_stream stream) {
    return bi::reduce_columns<T, Out, C>(a, Reduction, ws, stream);
  }
};

template <class C = bi::contract::reduce_draft>
struct argmax_columns_op {
  template <class T>
  static bi::status reference(const bi::arg_reduce_columns_args<T>& a) {
    return bi::reference::argmax_columns<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::arg_reduce_columns_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::argmax_columns<T, C>(a, stream);
  }
};
template <class C = bi::contract::reduce_draft>
struct argmin_columns_op {
  template <class T>
  static bi::status reference(const bi::arg_reduce_columns_args<T>& a) {
    return bi::reference::argmin_columns<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::arg_reduce_columns_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::argmin_columns<T, C>(a, stream);
  }
};

template <class C = bi::contract::reduce_draft>
struct argmax_op {
  using contract = C;
  static constexpr writes output = writes::row;
  template <class T>
  static auto args(const row_call<T, std::int64_t>& c) {
    auto a = common_args<bi::arg_reduce_args<T>>(c);
    a.index = c.out;
    return a;
  }
  template <class T>
  static std::size_t workspace_bytes(const bi::arg_reduce_args<T>& a) {
    return bi::arg_reduce_workspace_bytes(a.rows, a.cols);
  }
  template <class T>
  static bi::status reference(const bi::arg_reduce_args<T>& a) {
    return bi::reference::argmax<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::arg_reduce_args<T>& a, bi::workspace ws, bi::cuda_stream stream) {
    return bi::argmax<T, C>(a, ws, stream);
  }
};

template <class C = bi::contract::reduce_draft>
struct argmin_op : argmax_op<C> {
  template <class T>
  static bi::status reference(const bi::arg_reduce_args<T>& a) {
    return bi::reference::argmin<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::arg_reduce_args<T>& a, bi::workspace ws, bi::cuda_stream stream) {
    return bi::argmin<T, C>(a, ws, stream);
  }
};

template <class C = bi::contract::softmax_draft>
struct softmax_op {
  using contract = C;
  static constexpr writes output = writes::columns;
  template <class T, class Out>
  static auto args(const row_call<T, Out>& c) {
    auto a = common_args<bi::softmax_args<T, Out>>(c);
    a.out = c.out;
    a.out_stride = c.out_stride;
    return a;
  }
  template <class T, class Out>
  static bi::status reference(const bi::softmax_args<T, Out>& a) {
    return bi::reference::softmax<C>(a);
  }
  template <class T, class Out>
  static bi::status gpu(const bi::softmax_args<T, Out>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::softmax<T, Out, C>(a, stream);
  }
};

template <class C = bi::contract::softmax_draft>
struct log_softmax_op : softmax_op<C> {
  template <class T, class Out>
  static bi::status reference(const bi::softmax_args<T, Out>& a) {
    return bi::reference::log_softmax<C>(a);
  }
  template <class T, class Out>
  static bi::status gpu(const bi::softmax_args<T, Out>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::log_softmax<T, Out, C>(a, stream);
  }
};

template <class C = bi::contract::softmax_draft>
struct logsumexp_op {
  using contract = C;
  static constexpr writes output = writes::row;
  template <class T>
  static auto args(const row_call<T, float>& c) {
    auto a = common_args<bi::logsumexp_args<T>>(c);
    a.out = c.out;
    return a;
  }
  template <class T>
  static bi::status reference(const bi::logsumexp_args<T>& a) {
    return bi::reference::logsumexp<C>(a);
  }
  template <class T>
  static bi::status gpu(const bi::logsumexp_args<T>& a, bi::workspace, bi::cuda_stream stream) {
    return bi::logsumexp<T, C>(a, stream);
  }
};

// ---- cases

// n values of a kind, cut from a pool that is drawn once.
template <class T>
std::vector<T> pool_vector(std::int64_t n, values kind, std::uint64_t seed) {
  constexpr std::int64_t size = (std::int64_t{1} << 18) + 14;
  static std::vector<T> pools[std::size(all_values)];
  std::vector<T>& pool = pools[static_cast<std::size_t>(kind)];
  if (pool.empty()) pool = random_vector<T>(size, kind, 1);
  std::vector<T> out(static_cast<std::size_t>(n));
  // An even start keeps pairs that cancel together.
  std::int64_t from = static_cast<std::int64_t>(bi::mix64(seed) % static_cast<std::uint64_t>(size / 2)) * 2;
  for (T& v : out) {
    v = pool[static_cast<std::size_t>(from)];
    if (++from == size) from = 0;
  }
  return out;
}

struct row_shape {
  std::int64_t rows = 1, cols = 1;
  values kind = values::normal;
  std::int64_t gap = 0;     // elements between rows
  std::int64_t offset = 0;  // elements from an aligned address to the first
  std::uint64_t seed = 1;
  bool weight = true, bias = true;  // layer_norm
};

// A buffer of a backend and where its matrix starts.
template <class T>
struct row_buffer {
  T* base;
  T* data;
  std::int64_t stride;
};
template <class T, class Backend>
row_buffer<T> input_rows(Backend& b, const row_shape& s, std::uint64_t salt) {
  const std::int64_t stride = s.cols + s.gap;
  T* base = b.input(pool_vector<T>(s.offset + s.rows * stride, s.kind, s.seed * 8 + salt));
  return {base, base + s.offset, stride};
}
// With another gap than the inputs have.
template <class T, class Backend>
row_buffer<T> output_rows(Backend& b, const row_shape& s, writes output) {
  const std::int64_t stride = output == writes::row ? 1 : s.cols + s.gap * 2;
  T* base = b.template output<T>(s.offset + s.rows * stride);
  return {base, base + s.offset, stride};
}
template <class T, class Backend>
const T* input_weight(Backend& b, const row_shape& s, std::uint64_t salt) {
  return b.input(pool_vector<T>(s.offset + s.cols, values::normal, s.seed * 8 + salt)) + s.offset;
}

// All of the output buffer, gaps too.
template <class Op, class T, class Out, class Backend>
std::vector<Out> run_rows(Backend& b, const row_shape& s) {
  const auto x = input_rows<T>(b, s, 1);
  const auto y = output_rows<Out>(b, s, Op::output);
  row_call<T, Out> c;
  c.x = x.data;
  c.x_stride = x.stride;
  c.rows = s.rows;
  c.cols = s.cols;
  if (s.weight) c.weight = input_weight<T>(b, s, 2);
  if (s.bias) c.bias = input_weight<T>(b, s, 3);
  c.out = y.data;
  c.out_stride = y.stride;
  b.run(Op{}, Op::args(c));
  return b.read(y.base);
}

// The output takes the place of the input.
template <class Op, class T, class Backend>
std::vector<T> run_rows_in_place(Backend& b, const row_shape& s) {
  const auto x = input_rows<T>(b, s, 1);
  row_call<T, T> c;
  c.x = c.out = x.data;
  c.x_stride = c.out_stride = x.stride;
  c.rows = s.rows;
  c.cols = s.cols;
  c.weight = input_weight<T>(b, s, 2);
  c.bias = input_weight<T>(b, s, 3);
  b.run(Op{}, Op::args(c));
  return b.read(x.base);
}

// Where rms_norm's outputs lie.
enum class residual_alias {
  none,             // two buffers of their own
  out_is_x,         // and the sum over the residual, as engines do
  out_is_residual,  // and the sum over x
};
inline constexpr residual_alias all_residual_aliases[] = {residual_alias::none, residual_alias::out_is_x,
                                                          residual_alias::out_is_residual};

// rms_norm of x + residual: the outputs, then the sums.
template <class C, class T, class Backend>
std::vector<T> run_rms_norm_residual(Backend& b, const row_shape& s, residual_alias alias) {
  const auto x = input_rows<T>(b, s, 1), residual = input_rows<T>(b, s, 4);
  auto out = x, sum = residual;
  if (alias == residual_alias::out_is_residual) std::swap(out, sum);
  if (alias == residual_alias::none) {
    out = output_rows<T>(b, s, writes::columns);
    sum = output_rows<T>(b, s, writes::columns);
  }
  bi::rms_norm_args<T> a;
  a.x = x.data;
  a.x_stride = x.stride;
  a.residual = residual.data;
  a.residual_stride = residual.stride;
  a.residual_out = sum.data;
  a.residual_out_stride = sum.stride;
  a.weight = input_weight<T>(b, s, 2);
  a.rows = s.rows;
  a.cols = s.cols;
  a.out = out.data;
  a.out_stride = out.stride;
  b.run(rms_norm_op<C>{}, a);
  std::vector<T> all = b.read(out.base), sums = b.read(sum.base);
  all.insert(all.end(), sums.begin(), sums.end());
  return all;
}

// s.rows tokens of `heads` heads of s.cols, `gap` elements between heads, as the middle of a wider projection.
template <class C, class T, class Backend>
std::vector<T> run_qk_norm(Backend& b, const row_shape& s, std::int64_t heads, bool in_place = false) {
  const std::int64_t head = s.cols + s.gap, token = (heads + 3) * head;
  row_shape all = s;
  all.cols = token;
  all.gap = 0;
  const auto x = input_rows<T>(b, all, 1);
  const auto out = in_place ? x : output_rows<T>(b, all, writes::columns);
  bi::qk_norm_args<T> a;
  a.x = x.data + head;
  a.x_token_stride = a.out_token_stride = token;
  a.x_head_stride = a.out_head_stride = head;
  a.weight = input_weight<T>(b, s, 2);
  a.tokens = s.rows;
  a.heads = heads;
  a.head_dim = s.cols;
  a.out = out.data + head;
  b.run(qk_norm_op<C>{}, a);
  return b.read(out.base);
}

}  // namespace test
