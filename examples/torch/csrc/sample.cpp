// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/sample.hpp"

#include "bi/reference/sample.hpp"
#include "common.hpp"
#include "operations.hpp"

namespace bi_torch {

std::tuple<Tensor, Tensor, Tensor> sample(const Tensor& logits, const Tensor& temperature, const Tensor& seed,
                                          const Tensor& ordinal, const optional_tensor& top_k,
                                          const optional_tensor& top_p, const optional_tensor& min_p,
                                          const optional_tensor& sample_index) {
  const char* const op = "sample";
  const place on(op, "logits", logits);
  require_supported(op, "logits", logits);
  require(logits.dim() == 2, op, ": logits has shape ", shape_of(logits), " and must be [rows, vocab]");
  const std::int64_t rows = logits.size(0);
  const auto field = [&](const char* name, const Tensor& x, ScalarType type) {
    on.require_here(name, x);
    require_dtype(op, name, x, type);
    require(x.dim() == 1 && x.size(0) == rows && x.is_contiguous(), op, ": ", name, " has shape ", shape_of(x),
            " and must be [", rows, "], contiguous");
    return x.const_data_ptr();
  };
  const auto optional_field = [&](const char* name, const optional_tensor& x, ScalarType type) -> const void* {
    return x ? field(name, *x, type) : nullptr;
  };
  pack_params_args p;
  p.temperature = static_cast<const float*>(field("temperature", temperature, ScalarType::Float));
  p.seed = static_cast<const std::int64_t*>(field("seed", seed, ScalarType::Long));
  p.ordinal = static_cast<const std::int32_t*>(field("ordinal", ordinal, ScalarType::Int));
  p.top_k = static_cast<const std::int32_t*>(optional_field("top_k", top_k, ScalarType::Int));
  p.top_p = static_cast<const float*>(optional_field("top_p", top_p, ScalarType::Float));
  p.min_p = static_cast<const float*>(optional_field("min_p", min_p, ScalarType::Float));
  p.sample_index = static_cast<const std::int32_t*>(optional_field("sample_index", sample_index, ScalarType::Int));
  p.rows = rows;

  const Tensor token = empty(logits, {rows}, ScalarType::Int), logprob = empty(logits, {rows}, ScalarType::Float);
  const Tensor flags = empty(logits, {rows}, ScalarType::Int);
  if (rows == 0) return {token, logprob, flags};
  const scratch params(logits, static_cast<std::size_t>(rows) * sizeof(bi::sample_params));
  p.out = static_cast<bi::sample_params*>(params.data());
  on.run_each(p);
  const row_view x(logits, 1);
  with_type(logits.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    bi::sample_args<T> a;
    a.logits = pointer<T>(x.x), a.logits_stride = x.stride, a.rows = rows, a.vocab = logits.size(1);
    a.params = p.out;
    a.token = mutable_pointer<std::int32_t>(token);
    a.logprob = mutable_pointer<float>(logprob);
    a.flags = reinterpret_cast<std::uint32_t*>(mutable_pointer<std::int32_t>(flags));
    require_ok(on.is_cpu() ? bi::reference::sample(a) : bi::sample<T>(a, on.stream()));
  });
  return {token, logprob, flags};
}

}  // namespace bi_torch
