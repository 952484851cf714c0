// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/warps.hpp"
// The lanes' words come first.
#include <cstdint>
#include <vector>

#include "bi/contract/norm.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/kernel/layer_norm.cuh"
#include "bi/kernel/reduce.cuh"
#include "bi/kernel/rms_norm.cuh"
#include "bi/kernel/softmax.cuh"
#include "bi/reference/layer_norm.hpp"
#include "bi/reference/reduce.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/softmax.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// Whole kernels on the CPU, with grids and thread blocks as on a GPU: the reference's bytes.

namespace {

using bi::bf16;
using bi::fp16;

// Rows of cols elements, `pad` apart; out begins as 0xff bytes, and what lies between its rows stays.
template <class T, class Out = T>
struct row_arrays {
  std::int64_t rows, cols, stride;
  std::vector<T> x, residual, weight, bias;
  std::vector<Out> out, expected;
  std::vector<T> sum, expected_sum;

  row_arrays(std::int64_t r, std::int64_t c, std::int64_t pad, test::values kind, test::generator& g)
      : rows(r), cols(c), stride(c + pad) {
    x = test::random_vector<T>(rows * stride, kind, g.next());
    residual = test::random_vector<T>(rows * stride, kind, g.next());
    weight = test::random_vector<T>(cols, test::values::normal, g.next());
    bias = test::random_vector<T>(cols, test::values::normal, g.next());
    const auto size = static_cast<std::size_t>(rows * stride);
    out.resize(size), expected.resize(size), sum.resize(size), expected_sum.resize(size);
  }
  bool aligned() const {
    using bi::device::vector_aligned;
    return vector_aligned(x.data(), stride) && vector_aligned(residual.data(), stride) &&
           vector_aligned(out.data(), stride) && vector_aligned(sum.data(), stride) &&
           vector_aligned(weight.data(), 8) && vector_aligned(bias.data(), 8);
  }
  void check() const {
    REQUIRE(test::difference(out, expected) == "");
    REQUIRE(test::difference(sum, expected_sum) == "");
  }
};

struct grid {
  int blocks, rows_a_block;
};

template <class T, class Kernel>
void rms_norm_by(const Kernel& kernel, int threads, const grid& of, std::int64_t rows, std::int64_t cols,
                 std::int64_t pad, bool with_residual, test::generator& g) {
  for (const test::values kind : {test::values::normal, test::values::wide, test::values::hostile}) {
    row_arrays<T> a(rows, cols, pad, kind, g);
    bi::rms_norm_args<T> args;
    args.x = a.x.data(), args.weight = a.weight.data(), args.out = a.expected.data(), args.rows = rows,
    args.cols = cols;
    args.x_stride = args.out_stride = a.stride;
    if (with_residual) {
      args.residual = a.residual.data(), args.residual_out = a.expected_sum.data();
      args.residual_stride = args.residual_out_stride = a.stride;
    }
    REQUIRE(bi::describe(bi::reference::rms_norm(args, 1)) == "ok");
    bi::kernel::rms_norm_params<T> p = {};
    p.x = a.x.data(), p.weight = a.weight.data(), p.out = a.out.data();
    if (with_residual) p.residual = a.residual.data(), p.residual_out = a.sum.data();
    p.x_stride = p.residual_stride = p.residual_out_stride = p.out_stride = a.stride;
    p.rows = rows, p.inner = 1, p.cols = cols, p.eps = args.eps, p.aligned = a.aligned();
    lanes::launch(of.blocks, threads * of.rows_a_block, kernel, p, g);
    INFO(rows << " rows of " << cols << " + " << pad << ", " << of.blocks << " blocks of " << threads << " x "
              << of.rows_a_block);
    a.check();
  }
}

template <class T, class Kernel>
void layer_norm_by(const Kernel& kernel, int threads, const grid& of, std::int64_t rows, std::int64_t cols, bool affine,
                   test::generator& g) {
  row_arrays<T> a(rows, cols, 0, test::values::normal, g);
  bi::layer_norm_args<T> args;
  args.x = a.x.data(), args.out = a.expected.data(), args.rows = rows, args.cols = cols;
  if (affine) args.weight = a.weight.data(), args.bias = a.bias.data();
  REQUIRE(bi::describe(bi::reference::layer_norm(args, 1)) == "ok");
  bi::kernel::layer_norm_params<T> p = {};
  p.x = a.x.data(), p.out = a.out.data(), p.weight = args.weight, p.bias = args.bias;
  p.x_stride = p.out_stride = a.stride, p.rows = rows, p.cols = cols, p.eps = args.eps, p.aligned = a.aligned();
  lanes::launch(of.blocks, threads * of.rows_a_block, kernel, p, g);
  INFO(rows << " rows of " << cols << ", " << of.blocks << " blocks of " << threads << " x " << of.rows_a_block);
  a.check();
}

}  // namespace

TEST_CASE("rms_norm's kernels have the reference's bytes in any grid", "[lanes][rms_norm]") {
  using c = bi::contract::rms_norm_draft;
  namespace k = bi::kernel;
  test::generator g(1);
  rms_norm_by<bf16>(k::rms_norm_kernel<c, bf16, 32, 4>, 32, {1, 4}, 9, 72, 0, false, g);
  rms_norm_by<bf16>(k::rms_norm_kernel<c, bf16, 32, 4>, 32, {3, 4}, 9, 301, 3, true, g);
  rms_norm_by<float>(k::rms_norm_kernel<c, float, 256, 1>, 256, {2, 1}, 3, 9001, 0, true, g);
  rms_norm_by<fp16>(k::rms_norm_held_kernel<c, fp16, 32, 4, 2, false>, 32, {2, 4}, 10, 512, 0, true, g);
  rms_norm_by<bf16>(k::rms_norm_held_kernel<c, bf16, 32, 2, 8, false>, 32, {1, 2}, 3, 1800, 8, false, g);
  rms_norm_by<bf16>(k::rms_norm_held_kernel<c, bf16, 256, 1, 2, false>, 256, {2, 1}, 5, 4096, 0, true, g);
  rms_norm_by<float>(k::rms_norm_held_kernel<c, float, 256, 1, 8, false>, 256, {1, 1}, 2, 16376, 0, true, g);
}

TEST_CASE("layer_norm's kernels have the reference's bytes in any grid", "[lanes][layer_norm]") {
  using c = bi::contract::layer_norm_draft;
  namespace k = bi::kernel;
  test::generator g(2);
  for (const bool affine : {false, true}) {
    layer_norm_by<bf16>(k::layer_norm_kernel<c, bf16, 32, 4>, 32, {2, 4}, 9, 301, affine, g);
    layer_norm_by<float>(k::layer_norm_kernel<c, float, 256, 1>, 256, {2, 1}, 3, 8200, affine, g);
    layer_norm_by<fp16>(k::layer_norm_held_kernel<c, fp16, 32, 4, 4, false>, 32, {1, 4}, 6, 1000, affine, g);
    layer_norm_by<bf16>(k::layer_norm_held_kernel<c, bf16, 256, 1, 2, false>, 256, {2, 1}, 3, 3000, affine, g);
  }
}

TEST_CASE("softmax and logsumexp: kernels have the reference's bytes in any grid", "[lanes][softmax]") {
  using c = bi::contract::softmax_draft;
  namespace k = bi::kernel;
  test::generator g(3);
  for (const test::values kind : {test::values::normal, test::values::hostile, test::values::ties}) {
    for (const std::int64_t cols : {1, 40, 257, 8200}) {
      row_arrays<bf16, float> a(5, cols, 0, kind, g);
      bi::softmax_args<bf16, float> args;
      args.x = a.x.data(), args.out = a.expected.data(), args.rows = 5, args.cols = cols;
      k::softmax_params<bf16, float> p = {};
      p.x = a.x.data(), p.out = a.out.data(), p.x_stride = p.out_stride = cols, p.rows = 5, p.cols = cols;
      INFO("columns " << cols << ", values " << static_cast<int>(kind));
      REQUIRE(bi::describe(bi::reference::softmax(args, 1)) == "ok");
      lanes::launch(1, 128, k::softmax_kernel<c, c::softmax_form, bf16, float, 32, 4>, p, g);
      a.check();
      REQUIRE(bi::describe(bi::reference::log_softmax(args, 1)) == "ok");
      lanes::launch(2, 256, k::softmax_kernel<c, c::log_softmax_form, bf16, float, 256, 1>, p, g);
      a.check();
      std::vector<float> lse(5), expected(5);
      bi::logsumexp_args<bf16> of;
      of.x = a.x.data(), of.out = expected.data(), of.rows = 5, of.cols = cols;
      REQUIRE(bi::describe(bi::reference::logsumexp(of, 1)) == "ok");
      k::logsumexp_params<bf16> q = {};
      q.x = a.x.data(), q.out = lse.data(), q.x_stride = cols, q.rows = 5, q.cols = cols;
      lanes::launch(3, 64, k::logsumexp_kernel<c, bf16, 64, 1>, q, g);
      REQUIRE(test::difference(lse, expected) == "");
    }
  }
}

TEST_CASE("argmax: its kernel finds the reference's index in any grid", "[lanes][reduce]") {
  namespace k = bi::kernel;
  test::generator g(4);
  for (const test::values kind : {test::values::normal, test::values::hostile, test::values::ties}) {
    for (const std::int64_t cols : {1, 7, 300, 9000}) {
      const auto x = test::random_vector<fp16>(6 * cols, kind, g.next());
      std::vector<std::int64_t> index(6, -1), expected(6);
      bi::arg_reduce_args<fp16> args;
      args.x = x.data(), args.index = expected.data(), args.rows = 6, args.cols = cols;
      REQUIRE(bi::describe(bi::reference::argmax(args, 1)) == "ok");
      k::arg_reduce_params<fp16> p = {};
      p.x = x.data(), p.index = index.data(), p.x_stride = cols, p.rows = 6, p.cols = cols;
      INFO("columns " << cols << ", values " << static_cast<int>(kind));
      lanes::launch(2, 256, k::arg_reduce_kernel<bi::contract::arg_max_step, fp16, 256, 1>, p, g);
      REQUIRE(index == expected);
      lanes::launch(1, 128, k::arg_reduce_kernel<bi::contract::arg_max_step, fp16, 32, 4>, p, g);
      REQUIRE(index == expected);
    }
  }
}
