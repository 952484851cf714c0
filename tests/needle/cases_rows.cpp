// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/reduce.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/schedule/rows.hpp"
#include "needle/build.hpp"
#include "support/manifest.hpp"
#include "support/ops_rows.hpp"
#ifdef BI_NEEDLE_GPU
#include "gpu/support/forced_rows.hpp"
#endif

namespace test::needle {
namespace {

namespace s = bi::schedule;
using bi::bf16;
using bi::fp16;
using bi::reduction;

template <class T>
s::row_traits traits_of(std::int64_t cols) {
  s::row_traits t;
  t.element_bytes = sizeof(T);
  t.vectors = cols % 8 == 0;
  t.hopper = true;
  return t;
}

// Schedules of aligned rows.
template <class T>
auto fitting(const std::string& operation, std::int64_t cols) {
  return unless_fp16<T>([operation, cols](const call&) {
    std::vector<s::row_schedule> all;
    for (const s::row_schedule& x : row_schedules()) {
      if (fits(operation, x, cols, traits_of<T>(cols))) all.push_back(x);
    }
    return all;
  });
}

// An op of tests/support/ops_rows.hpp over a matrix.
template <class Op, class T, class Out, class Pick>
void add(case_list& all, const char* operation, std::int64_t cols, Pick pick) {
  const auto make = [operation, cols, pick](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("x", cols, seed)};
    t.shared = {shared_values<T>(cols, seed + 1), shared_values<T>(cols, seed + 2)};
    const bool one = Op::output == writes::row;
    t.out = {output_column<Out>("out", one ? 1 : cols, one)};
    bind<Op>(t, fitting<T>(operation, cols), [cols](const call& c) {
      row_call<T, Out> a;
      a.x = c.input<T>(0), a.x_stride = c.input_stride<T>(0);
      a.weight = c.array<T>(0), a.bias = c.array<T>(1);
      a.rows = c.rows, a.cols = cols;
      a.out = c.output<Out>(0), a.out_stride = c.output_stride<Out>(0);
      return Op::args(a);
    });
    set_schedule(t, [cols, pick](std::int64_t rows) { return pick(rows, cols, traits_of<T>(cols)); });
    return t;
  };
  all.push_back({operation, Op::contract::name, type_name<T>(), shape_of("cols", cols), make});
}

template <class T, class C>
void add_residual(case_list& all, std::int64_t cols) {
  const auto make = [cols](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("x", cols, seed), values_column<T>("residual", cols, seed + 3)};
    t.shared = {shared_values<T>(cols, seed + 1)};
    t.out = {output_column<T>("out", cols), output_column<T>("residual_out", cols)};
    bind<rms_norm_op<C>>(t, fitting<T>("rms_norm", cols), [cols](const call& c) {
      bi::rms_norm_args<T> a;
      a.x = c.input<T>(0), a.x_stride = c.input_stride<T>(0);
      a.residual = c.input<T>(1), a.residual_stride = c.input_stride<T>(1);
      a.weight = c.array<T>(0);
      a.rows = c.rows, a.cols = cols;
      a.out = c.output<T>(0), a.out_stride = c.output_stride<T>(0);
      a.residual_out = c.output<T>(1), a.residual_out_stride = c.output_stride<T>(1);
      return a;
    });
    set_schedule(t, [cols](std::int64_t rows) { return s::pick_norm_schedule(rows, cols, traits_of<T>(cols)); });
    return t;
  };
  all.push_back({"add_rms_norm", C::name, type_name<T>(), shape_of("cols", cols), make});
}

template <class T, class C>
void add_qk_norm(case_list& all, std::int64_t heads, std::int64_t dim) {
  const auto make = [heads, dim](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("x", heads * dim, seed)};
    t.shared = {shared_values<T>(dim, seed + 1)};
    t.out = {output_column<T>("out", heads * dim)};
    bind<qk_norm_op<C>>(t, fitting<T>("qk_norm", dim), [heads, dim](const call& c) {
      bi::qk_norm_args<T> a;
      a.x = c.input<T>(0), a.x_token_stride = c.input_stride<T>(0);
      a.weight = c.array<T>(0);
      a.tokens = c.rows, a.heads = heads, a.head_dim = dim;
      a.out = c.output<T>(0), a.out_token_stride = c.output_stride<T>(0);
      return a;
    });
    set_schedule(
        t, [heads, dim](std::int64_t rows) { return s::pick_norm_schedule(rows * heads, dim, traits_of<T>(dim)); });
    return t;
  };
  all.push_back({"qk_norm", C::name, type_name<T>(),
                 "heads=" + std::to_string(heads) + ",head_dim=" + std::to_string(dim), make});
}

const auto norm = [](std::int64_t rows, std::int64_t cols, const s::row_traits& t) {
  return s::pick_norm_schedule(rows, cols, t);
};
const auto reduced = [](std::int64_t rows, std::int64_t cols, const s::row_traits& t) {
  return s::pick_reduce_schedule(rows, cols, t, true);
};
const auto arg_reduced = [](std::int64_t rows, std::int64_t cols, const s::row_traits& t) {
  return s::pick_arg_reduce_schedule(rows, cols, t, true);
};
const auto kept = [](std::int64_t rows, std::int64_t cols, const s::row_traits& t) {
  return s::pick_log_sum_schedule(rows, cols, t, true);
};
const auto read_once = [](std::int64_t rows, std::int64_t cols, const s::row_traits& t) {
  return s::pick_log_sum_schedule(rows, cols, t, false);
};

template <class T, class C>
void add_rms_norms(case_list& all) {
  // A warp's rows, a thread block's, a cluster's of two blocks of the row tree, and rows that are no vectors.
  for (const std::int64_t cols : {256, 4096, 16384, 1001}) add<rms_norm_op<C>, T, T>(all, "rms_norm", cols, norm);
  for (const std::int64_t cols : {2048, 1001}) add_residual<T, C>(all, cols);
  add_qk_norm<T, C>(all, 4, 128);
  add_qk_norm<T, C>(all, 3, 80);
}

template <class T>
void add_of(case_list& all) {
  using namespace bi::contract;
  add_rms_norms<T, rms_norm_draft>(all);
  add_rms_norms<T, rms_norm_hf_draft>(all);
  add_rms_norms<T, rms_norm_one_plus_draft>(all);
  for (const std::int64_t cols : {256, 4096, 16384, 1001}) {
    add<layer_norm_op<>, T, T>(all, "layer_norm", cols, norm);
    add<reduce_op<reduction::sum>, T, float>(all, "sum", cols, reduced);
    add<reduce_op<reduction::mean>, T, float>(all, "mean", cols, reduced);
    add<reduce_op<reduction::max>, T, float>(all, "max", cols, reduced);
    add<reduce_op<reduction::min>, T, float>(all, "min", cols, reduced);
    add<argmax_op<>, T, std::int64_t>(all, "argmax", cols, arg_reduced);
    add<argmin_op<>, T, std::int64_t>(all, "argmin", cols, arg_reduced);
    add<softmax_op<>, T, T>(all, "softmax", cols, kept);
    add<log_softmax_op<>, T, T>(all, "log_softmax", cols, kept);
    add<logsumexp_op<>, T, float>(all, "logsumexp", cols, read_once);
  }
}

}  // namespace

void add_row_cases(case_list& all) {
  add_of<bf16>(all);
  add_of<fp16>(all);
  add_of<float>(all);
}

}  // namespace test::needle
