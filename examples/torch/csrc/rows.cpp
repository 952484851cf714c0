// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reduce.hpp"

#include "bi/reference/reduce.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/softmax.hpp"
#include "bi/rms_norm.hpp"
#include "bi/softmax.hpp"
#include "common.hpp"
#include "operations.hpp"

namespace bi_torch {

namespace {

sizes_t sizes_of(const Tensor& x) { return sizes_t(x.sizes().begin(), x.sizes().end()); }

// Of the last dimension: as given, packed, or ones.
Tensor norm_weight(const char* operation, const place& on, const Tensor& input, const optional_tensor& weight,
                   std::int64_t cols) {
  if (!weight) {
    const Tensor ones = empty(input, {cols}, input.scalar_type());
    with_type(input.scalar_type(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      on.run_each(fill_ones_args<T>{mutable_pointer<T>(ones), cols});
    });
    return ones;
  }
  on.require_here("weight", *weight);
  require_dtype(operation, "weight", *weight, input.scalar_type());
  require(weight->dim() == 1 && weight->size(0) == cols, operation, ": weight has shape ", shape_of(*weight),
          " and must have [", cols, "]");
  return torch::stable::contiguous(*weight);
}

template <class Contract, class T>
bi::status run_contract(const bi::rms_norm_args<T>& a, const place& on) {
  return on.is_cpu() ? bi::reference::rms_norm<Contract>(a) : bi::rms_norm<T, Contract>(a, on.stream());
}
template <class T>
void run_rms_norm(const bi::rms_norm_args<T>& a, bool round_first, const place& on) {
  require_ok(round_first ? run_contract<bi::contract::rms_norm_hf_draft>(a, on)
                         : run_contract<bi::contract::rms_norm_draft>(a, on));
}

template <class T, class Out>
bi::status run_softmax(const bi::softmax_args<T, Out>& a, bool log, const place& on) {
  if (on.is_cpu()) return log ? bi::reference::log_softmax(a) : bi::reference::softmax(a);
  return log ? bi::log_softmax<T, Out>(a, on.stream()) : bi::softmax<T, Out>(a, on.stream());
}

// f(tag of the input, tag of the output) for a result of the input's type or of fp32.
template <class F>
void with_types(const char* operation, ScalarType in, ScalarType out, F f) {
  require(out == in || out == ScalarType::Float, operation, ": dtype = ", name_of(out), " of a tensor of ", name_of(in),
          "; supported: the tensor's own and Float");
  with_type(in, [&](auto tag) {
    if (out == ScalarType::Float) {
      f(tag, type_tag<float>{});
    } else {
      f(tag, tag);
    }
  });
}

Tensor any_softmax(const char* operation, const Tensor& input, std::int64_t dim, std::optional<ScalarType> dtype,
                   bool log) {
  const place on(operation, "input", input);
  require_supported(operation, "input", input);
  dim = wrap_dim(operation, dim, input.dim());
  const bool moves = input.dim() > 0 && dim != input.dim() - 1;
  const Tensor last = moves ? torch::stable::transpose(input, dim, input.dim() - 1) : input;
  const ScalarType out_type = dtype.value_or(input.scalar_type());
  const Tensor out = empty(input, sizes_of(last), out_type);
  const row_view x(last, input.dim() > 0 ? 1 : 0);
  with_types(operation, input.scalar_type(), out_type, [&](auto in_tag, auto out_tag) {
    using T = typename decltype(in_tag)::type;
    using Out = typename decltype(out_tag)::type;
    bi::softmax_args<T, Out> a;
    a.x = pointer<T>(x.x), a.x_stride = x.stride, a.rows = x.rows, a.cols = x.cols;
    a.out = mutable_pointer<Out>(out);
    require_ok(run_softmax(a, log, on));
  });
  return moves ? torch::stable::transpose(out, dim, input.dim() - 1) : out;
}

// The dimensions that are reduced, as flags; none given: all.
std::vector<bool> reduced_dims(const char* operation, std::int64_t rank,
                               const std::optional<std::vector<std::int64_t>>& dims) {
  const bool all = !dims || dims->empty();
  std::vector<bool> out(static_cast<std::size_t>(rank), all);
  if (all) return out;
  for (const std::int64_t d : *dims) {
    const std::int64_t i = wrap_dim(operation, d, rank);
    if (rank == 0) continue;
    require(!out[static_cast<std::size_t>(i)], operation, ": dim ", i, " appears more than once");
    out[static_cast<std::size_t>(i)] = true;
  }
  return out;
}

Tensor reduce(const char* operation, const Tensor& input, const std::optional<std::vector<std::int64_t>>& dims,
              bool keepdim, std::optional<ScalarType> dtype, bi::reduction kind) {
  const place on(operation, "input", input);
  require_supported(operation, "input", input);
  const std::int64_t rank = input.dim();
  const std::vector<bool> reduced = reduced_dims(operation, rank, dims);
  sizes_t out_sizes, order;
  std::int64_t first = -1, last = -1, reduced_count = 0, cols = 1;
  for (std::int64_t i = 0; i < rank; ++i) {
    if (!reduced[static_cast<std::size_t>(i)]) {
      out_sizes.push_back(input.size(i)), order.push_back(i);
      continue;
    }
    if (keepdim) out_sizes.push_back(1);
    if (first < 0) first = i;
    last = i, ++reduced_count, cols *= input.size(i);
  }
  for (std::int64_t i = 0; i < rank; ++i) {
    if (reduced[static_cast<std::size_t>(i)]) order.push_back(i);
  }
  const ScalarType out_type = dtype.value_or(input.scalar_type());
  const Tensor out = empty(input, out_sizes, out_type);
  if (out.numel() == 0) return out;

  // Dimensions next to each other, others after them: read as they lie.
  const bool columns = reduced_count > 0 && last - first + 1 == reduced_count && last < rank - 1 &&
                       input.is_contiguous() && input.numel() > 0;
  with_types(operation, input.scalar_type(), out_type, [&](auto in_tag, auto out_tag) {
    using T = typename decltype(in_tag)::type;
    using Out = typename decltype(out_tag)::type;
    if (columns) {
      bi::reduce_columns_args<T, Out> a;
      a.x = pointer<T>(input);
      a.cols = cols;
      a.outer = a.inner = 1;
      for (std::int64_t i = 0; i < first; ++i) a.outer *= input.size(i);
      for (std::int64_t i = last + 1; i < rank; ++i) a.inner *= input.size(i);
      a.out = mutable_pointer<Out>(out);
      if (on.is_cpu()) return require_ok(bi::reference::reduce_columns(a, kind));
      const scratch ws(input, bi::reduce_columns_workspace_bytes(a.outer, a.cols, a.inner));
      require_ok(bi::reduce_columns<T, Out>(a, kind, ws.space(), on.stream()));
      return;
    }
    const bool in_order = last == rank - 1 && last - first + 1 == reduced_count;
    const row_view x(in_order ? input : permuted(input, order), reduced_count);
    bi::reduce_args<T, Out> a;
    a.x = pointer<T>(x.x), a.x_stride = x.stride, a.rows = x.rows, a.cols = x.cols;
    a.out = mutable_pointer<Out>(out);
    if (on.is_cpu()) return require_ok(bi::reference::reduce(a, kind));
    const scratch ws(input, bi::reduce_workspace_bytes(a.rows, a.cols));
    require_ok(bi::reduce<T, Out>(a, kind, ws.space(), on.stream()));
  });
  return out;
}

}  // namespace

Tensor rms_norm(const Tensor& input, const optional_tensor& weight, double eps, bool round_first) {
  const place on("rms_norm", "input", input);
  require_supported("rms_norm", "input", input);
  require(input.dim() >= 1, "rms_norm: input must have at least 1 dimension");
  const row_view x(input, 1);
  const Tensor w = norm_weight("rms_norm", on, input, weight, input.size(input.dim() - 1));
  const Tensor out = empty(input, sizes_of(input), input.scalar_type());
  with_type(input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    bi::rms_norm_args<T> a;
    a.x = pointer<T>(x.x), a.x_stride = x.stride, a.rows = x.rows, a.cols = x.cols;
    a.weight = pointer<T>(w), a.eps = static_cast<float>(eps);
    a.out = mutable_pointer<T>(out);
    run_rms_norm(a, round_first, on);
  });
  return out;
}

std::tuple<Tensor, Tensor> add_rms_norm(const Tensor& input, const Tensor& residual, const optional_tensor& weight,
                                        double eps, bool round_first) {
  const place on("add_rms_norm", "input", input);
  require_supported("add_rms_norm", "input", input);
  on.require_here("residual", residual);
  require_dtype("add_rms_norm", "residual", residual, input.scalar_type());
  require(input.dim() >= 1, "add_rms_norm: input must have at least 1 dimension");
  require(sizes_of(input) == sizes_of(residual), "add_rms_norm: residual has shape ", shape_of(residual),
          " and must have ", shape_of(input));
  const row_view x(input, 1), r(residual, 1);
  const Tensor w = norm_weight("add_rms_norm", on, input, weight, input.size(input.dim() - 1));
  const Tensor out = empty(input, sizes_of(input), input.scalar_type());
  const Tensor residual_out = empty(input, sizes_of(input), input.scalar_type());
  with_type(input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    bi::rms_norm_args<T> a;
    a.x = pointer<T>(x.x), a.x_stride = x.stride, a.rows = x.rows, a.cols = x.cols;
    a.residual = pointer<T>(r.x), a.residual_stride = r.stride, a.residual_out = mutable_pointer<T>(residual_out);
    a.weight = pointer<T>(w), a.eps = static_cast<float>(eps);
    a.out = mutable_pointer<T>(out);
    run_rms_norm(a, round_first, on);
  });
  return {out, residual_out};
}

Tensor softmax(const Tensor& input, std::int64_t dim, std::optional<ScalarType> dtype) {
  return any_softmax("softmax", input, dim, dtype, false);
}
Tensor log_softmax(const Tensor& input, std::int64_t dim, std::optional<ScalarType> dtype) {
  return any_softmax("log_softmax", input, dim, dtype, true);
}

Tensor sum(const Tensor& input, std::optional<std::vector<std::int64_t>> dim, bool keepdim,
           std::optional<ScalarType> dtype) {
  return reduce("sum", input, dim, keepdim, dtype, bi::reduction::sum);
}
Tensor mean(const Tensor& input, std::optional<std::vector<std::int64_t>> dim, bool keepdim,
            std::optional<ScalarType> dtype) {
  return reduce("mean", input, dim, keepdim, dtype, bi::reduction::mean);
}

}  // namespace bi_torch
