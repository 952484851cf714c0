// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/reduce.hpp"
#include "bi/softmax.hpp"

// softmax, log_softmax and logsumexp on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

namespace row_detail {

struct log_sum {
  float m, l;
};

// `largest` and `terms` have room for a value a block each.
template <class Contract>
log_sum log_sum_of(const float* x, std::int64_t cols, float* largest, float* terms) {
  using namespace contract;
  const std::int64_t blocks = row_blocks(cols);
  float m = neg_inf_f32();
  for (std::int64_t b = 0; b < blocks; ++b) {
    const float* block = x + b * row_block;
    const int length = block_length(cols, b);
    const float m_b = reduce_block(block, length, neg_inf_f32(), max_step{}, max_step{});
    largest[b] = m_b;
    terms[b] = Contract::empty_block(m_b) ? 0.0f : reduce_block(block, length, 0.0f, exp_step{m_b}, add_step{});
    m = max_nan(m, m_b);
  }
  for (std::int64_t b = 0; b < blocks; ++b) terms[b] = Contract::block_term(terms[b], largest[b], m);
  return {m, reduce_results(terms, blocks, 0.0f, add_step{})};
}

// Calls finish(row, its elements, m, l) for each row.
template <class Contract, class T, class Finish>
void for_log_sums(const T* x, std::int64_t x_stride, std::int64_t rows, std::int64_t cols, int threads,
                  Finish&& finish) {
  const std::int64_t stride = x_stride == 0 ? cols : x_stride;
  const auto work = [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t blocks = contract::row_blocks(cols);
    std::vector<float> row = floats(cols), largest = floats(blocks), terms = floats(blocks);
    for (std::int64_t r = begin; r < end; ++r) {
      if (cols > 0) widen(x + r * stride, cols, row.data());
      const log_sum s = log_sum_of<Contract>(row.data(), cols, largest.data(), terms.data());
      finish(r, row.data(), s.m, s.l);
    }
  };
  parallel_for(rows, threads, work, grain(cols));
}

template <class Contract, class Form, class T, class Out>
status softmax_like(const softmax_args<T, Out>& a, const char* operation, int threads) {
  if (const status st = check(a, operation); !st) return st;
  if (a.cols == 0) return {};
  const std::int64_t stride = a.out_stride == 0 ? a.cols : a.out_stride;
  for_log_sums<Contract>(a.x, a.x_stride, a.rows, a.cols, threads,
                         [&](std::int64_t r, const float* x, float m, float l) {
                           const float row = Form::row(l);
                           Out* out = a.out + r * stride;
                           for (std::int64_t i = 0; i < a.cols; ++i) out[i] = cvt_rn<Out>(Form::value(x[i], m, row));
                         });
  return {};
}

}  // namespace row_detail

template <class Contract = contract::softmax_draft, class T, class Out>
status softmax(const softmax_args<T, Out>& a, int threads = 0) {
  return row_detail::softmax_like<Contract, typename Contract::softmax_form>(a, "softmax", threads);
}

template <class Contract = contract::softmax_draft, class T, class Out>
status log_softmax(const softmax_args<T, Out>& a, int threads = 0) {
  return row_detail::softmax_like<Contract, typename Contract::log_softmax_form>(a, "log_softmax", threads);
}

template <class Contract = contract::softmax_draft, class T>
status logsumexp(const logsumexp_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  row_detail::for_log_sums<Contract>(
      a.x, a.x_stride, a.rows, a.cols, threads,
      [&](std::int64_t r, const float*, float m, float l) { a.out[r] = Contract::logsumexp(m, l); });
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
