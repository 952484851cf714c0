// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "common.hpp"

// The operations that registration.cpp gives PyTorch. New tensors are contiguous unless said otherwise.

namespace bi_torch {

using optional_tensor = std::optional<Tensor>;

Tensor mm(const Tensor& self, const Tensor& mat2, std::int64_t slices);
Tensor addmm(const Tensor& self, const Tensor& mat1, const Tensor& mat2, double beta, double alpha,
             std::int64_t slices);
Tensor bmm(const Tensor& self, const Tensor& mat2, std::int64_t slices);
Tensor baddbmm(const Tensor& self, const Tensor& batch1, const Tensor& batch2, double beta, double alpha,
               std::int64_t slices);
Tensor linear(const Tensor& input, const Tensor& weight, const optional_tensor& bias, std::int64_t slices);

// Over the last dimension. round_first: the contract rms_norm_hf_draft.
Tensor rms_norm(const Tensor& input, const optional_tensor& weight, double eps, bool round_first);
std::tuple<Tensor, Tensor> add_rms_norm(const Tensor& input, const Tensor& residual, const optional_tensor& weight,
                                        double eps, bool round_first);

// The result's dimension `dim` is the one with stride 1.
Tensor softmax(const Tensor& input, std::int64_t dim, std::optional<ScalarType> dtype);
Tensor log_softmax(const Tensor& input, std::int64_t dim, std::optional<ScalarType> dtype);

Tensor sum(const Tensor& input, std::optional<std::vector<std::int64_t>> dim, bool keepdim,
           std::optional<ScalarType> dtype);
Tensor mean(const Tensor& input, std::optional<std::vector<std::int64_t>> dim, bool keepdim,
            std::optional<ScalarType> dtype);

// [batch, heads, tokens, head_dim]; mask: 0 none, 1 causal from the upper left corner, 2 from the lower right; scale: 1
// / sqrt(head_dim) unless given. Keys and values are taken as a cache of one page a batch entry. The result is a view
// of [batch, tokens, heads, head_dim], the log-sum-exp of [batch, tokens, heads].
std::tuple<Tensor, Tensor> scaled_dot_product_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                                        std::int64_t mask, std::optional<double> scale);
Tensor paged_attention(const Tensor& query, const Tensor& key_cache, const Tensor& value_cache, const Tensor& pages,
                       const Tensor& lengths, const optional_tensor& q_start, std::int64_t max_q_len,
                       std::int64_t max_length, double scale, bool causal, std::int64_t window);
void kv_append(Tensor key_cache, Tensor value_cache, const Tensor& key, const Tensor& value, const Tensor& slot);

std::tuple<Tensor, Tensor, Tensor> sample(const Tensor& logits, const Tensor& temperature, const Tensor& seed,
                                          const Tensor& ordinal, const optional_tensor& top_k,
                                          const optional_tensor& top_p, const optional_tensor& min_p,
                                          const optional_tensor& sample_index);

}  // namespace bi_torch
