// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <string>
#include <vector>

#include "gpu/support/gpu_backend.hpp"
#include "gpu/support/late_copy.hpp"
#include "support/catch.hpp"
#include "support/ops_rows.hpp"
#include "support/ops_tokens.hpp"

// Rows of special values, in every kernel, and operations that begin before the kernel ahead of them has ended.

using bi::bf16;
using bi::fp16;
using bi::reduction;

namespace {

// ---- special rows

template <class T>
std::vector<T> special_rows(std::int64_t cols, std::vector<std::string>& names) {
  const T inf = bi::cvt_rn<T>(bi::inf_f32()), neg_inf = bi::cvt_rn<T>(bi::neg_inf_f32()),
          nan = bi::cvt_rn<T>(bi::nan_f32()), one = bi::cvt_rn<T>(1.0f), zero = T{}, neg_zero = bi::cvt_rn<T>(-0.0f),
          tiny = test::from_bits<T>(1), neg_tiny = test::from_bits<T>(1u | (sizeof(T) == 4 ? 0x80000000u : 0x8000u));
  const std::int64_t last = cols - 1, block = 8192;
  std::vector<T> all;
  names.clear();
  const auto add = [&](const char* name, auto value) {
    names.push_back(name);
    for (std::int64_t i = 0; i < cols; ++i) all.push_back(value(i));
  };
  const auto normal = test::pool_vector<T>(cols, test::values::normal, static_cast<std::uint64_t>(cols));
  const auto x = [&](std::int64_t i) { return normal[static_cast<std::size_t>(i)]; };
  add("-Inf", [&](std::int64_t) { return neg_inf; });
  add("+Inf", [&](std::int64_t) { return inf; });
  add("NaN", [&](std::int64_t) { return nan; });
  add("-0", [&](std::int64_t) { return neg_zero; });
  add("+0 among -0", [&](std::int64_t i) { return i == cols / 2 ? zero : neg_zero; });
  add("-0 among +0", [&](std::int64_t i) { return i == last ? neg_zero : zero; });
  add("subnormals", [&](std::int64_t i) { return i % 3 == 0 ? neg_tiny : tiny; });
  add("equal", [&](std::int64_t) { return one; });
  add("one finite at the end", [&](std::int64_t i) { return i == last ? one : neg_inf; });
  add("one finite at the start", [&](std::int64_t i) { return i == 0 ? one : neg_inf; });
  add("first block -Inf", [&](std::int64_t i) { return i < block ? neg_inf : x(i); });
  add("last block -Inf", [&](std::int64_t i) { return i / block == last / block ? neg_inf : x(i); });
  add("every other block -Inf", [&](std::int64_t i) { return i / block % 2 == 1 ? neg_inf : x(i); });
  add("one +Inf", [&](std::int64_t i) { return i == cols / 3 ? inf : x(i); });
  add("one NaN at the end", [&](std::int64_t i) { return i == last ? nan : x(i); });
  add("one NaN at the start", [&](std::int64_t i) { return i == 0 ? nan : x(i); });
  add("NaN and infinities", [&](std::int64_t i) {
    return i % 5 == 0 ? inf : i % 5 == 1 ? neg_inf : i % 5 == 2 ? nan : x(i);
  });
  add("a tie of the first and the last", [&](std::int64_t i) { return i == 0 || i == last ? inf : x(i); });
  add("ordinary", x);
  return all;
}

template <class Op, class T, class Out>
void check_special() {
  std::int64_t compared = 0;
  for (const std::int64_t cols :
       {1, 7, 8, 64, 200, 256, 1000, 1032, 2048, 2056, 8192, 8200, 16384, 16391, 40960, 65536, 73728, 151936}) {
    std::vector<std::string> names;
    const auto values = special_rows<T>(cols, names);
    const auto rows = static_cast<std::int64_t>(names.size());
    const std::int64_t width = Op::output == test::writes::row ? 1 : cols;
    const auto run = [&](auto& b) {
      test::row_call<T, Out> call;
      call.x = b.input(values);
      call.rows = rows, call.cols = cols;
      call.weight = b.input(test::pool_vector<T>(cols, test::values::normal, 5));
      call.bias = b.input(test::pool_vector<T>(cols, test::values::normal, 6));
      call.out = b.template output<Out>(rows * width);
      b.run(Op{}, Op::args(call));
      const auto out = b.read(call.out);
      b.clear();
      return out;
    };
    test::host_backend host;
    test::gpu_backend gpu;
    const auto expected = run(host), got = run(gpu);
    for (std::int64_t r = 0; r < rows; ++r) {
      INFO(cols << " columns, " << names[static_cast<std::size_t>(r)]);
      REQUIRE(test::difference(got.data() + r * width, expected.data() + r * width, width) == "");
      ++compared;
    }
  }
  CHECK(compared >= 300);
}

// ---- behind a kernel that has not ended

// x, weight and bias are written by a kernel that has let the next one begin.
template <class Op, class T, class Out>
void check_late(std::int64_t rows, std::int64_t cols) {
  const std::int64_t width = Op::output == test::writes::row ? 1 : cols;
  const auto x = test::pool_vector<T>(rows * cols, test::values::normal, 3);
  const auto weight = test::pool_vector<T>(cols, test::values::normal, 4);
  const auto stale = test::pool_vector<T>(rows * cols, test::values::wide, 5);
  const auto with = [&](T* x_of, T* weight_of, Out* out) {
    test::row_call<T, Out> call;
    call.x = x_of, call.rows = rows, call.cols = cols, call.weight = weight_of, call.bias = weight_of, call.out = out;
    return Op::args(call);
  };
  auto expected = test::poisoned<Out>(rows * width);
  auto host_x = x, host_weight = weight;
  REQUIRE(Op::reference(with(host_x.data(), host_weight.data(), expected.data())));
  test::gpu_backend gpu;
  T *const now = gpu.input(stale), *const later = gpu.input(x), *const now_weight = gpu.input(stale),
           *const later_weight = gpu.input(weight);
  Out* const out = gpu.output<Out>(rows * width);
  const auto words = [](T* p) { return reinterpret_cast<std::int32_t*>(p); };
  const std::int64_t x_words = rows * cols * static_cast<std::int64_t>(sizeof(T)) / 4,
                     weight_words = cols * static_cast<std::int64_t>(sizeof(T)) / 4;
  const auto args = with(now, now_weight, out);
  bi::workspace ws;
  if constexpr (requires { Op::workspace_bytes(args); }) ws.bytes = Op::workspace_bytes(args);
  if (ws.bytes > 0) ws.data = gpu.output<unsigned char>(static_cast<std::int64_t>(ws.bytes));
  test::require_ok(Op::gpu(args, ws, gpu.stream()));  // loads the kernel, which takes longer than the copies
  gpu.sync();
  test::require_ok(test::copy_late({words(now_weight), words(later_weight), weight_words, 30}, gpu.stream()));
  test::require_ok(test::copy_late({words(now), words(later), x_words, 30}, gpu.stream()));
  test::require_ok(Op::gpu(args, ws, gpu.stream()));
  INFO(rows << " rows of " << cols);
  REQUIRE(test::difference(gpu.read(out), expected) == "");
  gpu.clear();
}
template <class Op, class T, class Out>
void check_late() {
  check_late<Op, T, Out>(3, 200);
  check_late<Op, T, Out>(5, 2048);
  check_late<Op, T, Out>(2, 8192);
  check_late<Op, T, Out>(2, 40960);
  check_late<Op, T, Out>(40, 2048);
}

}  // namespace

TEMPLATE_TEST_CASE("rows: infinities, NaN, zeros, subnormals and ties in every kernel", "[gpu][rms_norm][layer_norm]",
                   bf16, fp16, float) {
  using T = TestType;
  check_special<test::rms_norm_op<>, T, T>();
  check_special<test::rms_norm_op<bi::contract::rms_norm_hf_draft>, T, T>();
  check_special<test::layer_norm_op<>, T, T>();
  check_special<test::softmax_op<>, T, T>();
  check_special<test::log_softmax_op<>, T, T>();
  check_special<test::logsumexp_op<>, T, float>();
  check_special<test::reduce_op<reduction::sum>, T, float>();
  check_special<test::reduce_op<reduction::mean>, T, T>();
  check_special<test::reduce_op<reduction::max>, T, T>();
  check_special<test::reduce_op<reduction::min>, T, T>();
  check_special<test::argmax_op<>, T, std::int64_t>();
  check_special<test::argmin_op<>, T, std::int64_t>();
}

TEST_CASE("rows: an operation waits for the kernel before it", "[gpu][rms_norm][layer_norm][softmax][reduce]") {
  check_late<test::rms_norm_op<>, bf16, bf16>();
  check_late<test::layer_norm_op<>, float, float>();
  check_late<test::softmax_op<>, bf16, bf16>();
  check_late<test::log_softmax_op<>, float, float>();
  check_late<test::logsumexp_op<>, bf16, float>();
  check_late<test::reduce_op<reduction::sum>, bf16, float>();
  check_late<test::reduce_op<reduction::max>, float, float>();
  check_late<test::argmax_op<>, bf16, std::int64_t>();
}

// x and the residual both, and out and the sum over them, as engines have it.
TEST_CASE("add_rms_norm waits for the kernel before it", "[gpu][rms_norm]") {
  for (const std::int64_t cols : {200, 2048, 4096, 8192, 16384}) {
    for (const std::int64_t rows : {1, 5, 64}) {
      const std::int64_t n = rows * cols;
      auto x = test::pool_vector<bf16>(n, test::values::normal, 3);
      auto residual = test::pool_vector<bf16>(n, test::values::normal, 4);
      const auto weight = test::pool_vector<bf16>(cols, test::values::normal, 5);
      test::gpu_backend gpu;
      bf16 *const late_x = gpu.input(x), *const late_residual = gpu.input(residual);
      bi::rms_norm_args<bf16> a;
      a.rows = rows, a.cols = cols;
      bi::rms_norm_args<bf16> h = a;
      h.x = h.out = x.data(), h.residual = h.residual_out = residual.data(), h.weight = weight.data();
      REQUIRE(bi::reference::rms_norm(h));
      bf16* const now = gpu.input(test::pool_vector<bf16>(2 * n, test::values::wide, 6));
      a.x = a.out = now, a.residual = a.residual_out = now + n, a.weight = gpu.input(weight);
      const auto copy = [&](bf16* to, bf16* from) {
        test::require_ok(test::copy_late(
            {reinterpret_cast<std::int32_t*>(to), reinterpret_cast<std::int32_t*>(from), n / 2, 30}, gpu.stream()));
      };
      test::require_ok(bi::rms_norm(a, gpu.stream()));  // loads the kernel, which takes longer than the copies
      gpu.sync();
      copy(now, late_x);
      copy(now + n, late_residual);
      test::require_ok(bi::rms_norm(a, gpu.stream()));
      const auto got = gpu.read(now);
      INFO(rows << " rows of " << cols);
      REQUIRE(test::difference(got.data(), x.data(), n) == "");
      REQUIRE(test::difference(got.data() + n, residual.data(), n) == "");
      gpu.clear();
    }
  }
}

TEMPLATE_TEST_CASE("add_rms_norm is add, then rms_norm", "[gpu][rms_norm]", bf16, fp16, float) {
  using T = TestType;
  for (const std::int64_t cols : {72, 200, 2048, 2056, 4096, 8192, 8200, 16384, 40960, 65544}) {
    for (const std::int64_t rows : {1, 5, 64, 530}) {
      const std::int64_t n = rows * cols;
      if (n > 3000000) continue;
      test::gpu_backend gpu;
      bi::rms_norm_args<T> fused;
      fused.rows = rows, fused.cols = cols;
      fused.x = gpu.input(test::pool_vector<T>(n, test::values::hostile, 3));
      fused.residual = gpu.input(test::pool_vector<T>(n, test::values::wide, 4));
      fused.weight = gpu.input(test::pool_vector<T>(cols, test::values::normal, 5));
      T *const sum = gpu.output<T>(n), *const out = gpu.output<T>(n);
      T *const sum_alone = gpu.output<T>(n), *const out_alone = gpu.output<T>(n);
      fused.residual_out = sum, fused.out = out;
      test::require_ok(bi::rms_norm(fused, gpu.stream()));
      bi::add_args<T> add;
      add.x = fused.x, add.y = fused.residual, add.rows = rows, add.cols = cols, add.out = sum_alone;
      test::require_ok(bi::add(add, gpu.stream()));
      bi::rms_norm_args<T> norm;
      norm.rows = rows, norm.cols = cols, norm.x = sum_alone, norm.weight = fused.weight, norm.out = out_alone;
      test::require_ok(bi::rms_norm(norm, gpu.stream()));
      INFO(rows << " rows of " << cols);
      REQUIRE(test::difference(gpu.read(sum), gpu.read(sum_alone)) == "");
      REQUIRE(test::difference(gpu.read(out), gpu.read(out_alone)) == "");
      gpu.clear();
    }
  }
}
