// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "needle/build.hpp"
#include "support/manifest.hpp"
#include "support/ops_rows.hpp"
#ifdef BI_NEEDLE_GPU
#include "gpu/support/forced_rows.hpp"
#endif

namespace test::needle {
namespace {

using bi::reduction;

// A row of the table is a column of the matrix.
template <class Op, class T, class Args, class Out>
void add(case_list& all, const std::string& operation, std::int64_t cols, Out* Args::*out) {
  const auto make = [cols, out](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("x", cols, seed)};
    t.in[0].transposed = true;
    t.out = {output_column<Out>("out", 1, true)};
    bind<Op>(t, always(block_schedules), [cols, out](const call& c) {
      Args a;
      a.x = c.input<T>(0), a.x_stride = c.input_stride<T>(0);
      a.outer = 1, a.cols = cols, a.inner = c.rows;
      a.*out = c.output<Out>(0);
      return a;
    });
    return t;
  };
  all.push_back({operation, bi::contract::reduce_draft::name, type_name<T>(), shape_of("cols", cols), make});
}

template <class T>
void add_of(case_list& all) {
  using args = bi::reduce_columns_args<T, float>;
  using arg_args = bi::arg_reduce_columns_args<T>;
  for (const std::int64_t cols : {203, 3000}) {
    add<reduce_columns_op<reduction::sum>, T, args>(all, "reduce_columns sum", cols, &args::out);
    add<reduce_columns_op<reduction::mean>, T, args>(all, "reduce_columns mean", cols, &args::out);
    add<reduce_columns_op<reduction::max>, T, args>(all, "reduce_columns max", cols, &args::out);
    add<reduce_columns_op<reduction::min>, T, args>(all, "reduce_columns min", cols, &args::out);
    add<argmax_columns_op<>, T, arg_args>(all, "argmax_columns", cols, &arg_args::index);
    add<argmin_columns_op<>, T, arg_args>(all, "argmin_columns", cols, &arg_args::index);
  }
}

}  // namespace

void add_column_cases(case_list& all) {
  add_of<bi::bf16>(all);
  add_of<bi::fp16>(all);
  add_of<float>(all);
}

}  // namespace test::needle
