// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/norm.hpp"
#include "bi/layer_norm.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/reduce.hpp"

// layer_norm on the CPU.

BI_NAMESPACE_BEGIN
namespace reference {

template <class Contract = contract::layer_norm_draft, class T>
status layer_norm(const layer_norm_args<T>& a, int threads = 0) {
  if (const status st = check(a); !st) return st;
  if (a.rows == 0 || a.cols == 0) return {};
  const std::int64_t x_stride = a.x_stride == 0 ? a.cols : a.x_stride;
  const std::int64_t out_stride = a.out_stride == 0 ? a.cols : a.out_stride;
  const bool has_weight = a.weight != nullptr, has_bias = a.bias != nullptr;
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> x = row_detail::floats(a.cols), results = row_detail::floats(contract::row_blocks(a.cols));
    const auto tree = [&](auto fold) {
      return contract::reduce_row(x.data(), a.cols, 0.0f, fold, contract::add_step{}, results.data());
    };
    for (std::int64_t r = begin; r < end; ++r) {
      row_detail::widen(a.x + r * x_stride, a.cols, x.data());
      const float mean = Contract::mean(tree(contract::add_step{}), a.cols);
      const float scale = contract::norm_scale(tree(contract::centred_square_step{mean}), a.cols, a.eps);
      T* out = a.out + r * out_stride;
      for (std::int64_t i = 0; i < a.cols; ++i) {
        const float w = has_weight ? to_f32(a.weight[i]) : 0.0f, b = has_bias ? to_f32(a.bias[i]) : 0.0f;
        out[i] = Contract::template value<T>(x[static_cast<std::size_t>(i)], mean, scale, has_weight, w, has_bias, b);
      }
    }
  };
  parallel_for(a.rows, threads, rows, row_detail::grain(a.cols));
  return {};
}

}  // namespace reference
BI_NAMESPACE_END
