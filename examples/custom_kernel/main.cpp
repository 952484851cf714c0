// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Two kernels of one's own and their checks: on the CPU everywhere, on the GPU where there is one. A third kernel follows
// the batch; the example fails unless the checker catches it.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "alibi_attention.hpp"
#include "bi/contract/id.hpp"
#include "bi/testing/invariance.hpp"
#include "norm_gate.hpp"
#if defined(CUSTOM_KERNEL_GPU)
#include "bi/testing/invariance.cuh"
#include "kernels.hpp"
#endif

namespace {

using bi::bf16;
namespace bt = bi::testing;

// Near normal numbers, sums of four uniform ones, with full significands: sums of short ones are exact in any order.
template <class T>
std::vector<T> random_numbers(std::int64_t count, std::uint64_t seed) {
  std::vector<T> out;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t bits = bi::mix64(seed * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(i));
    std::int32_t sum = -2 * 0xFFFF;
    for (int part = 0; part < 4; ++part) sum += static_cast<std::int32_t>(bits >> (16 * part) & 0xFFFF);
    out.push_back(bi::cvt_rn<T>(bi::div_rn(bi::float_from_int(sum), 37837.0f)));
  }
  return out;
}

int failures = 0;

// Prints what the checker found. `expected`: whether the kernel keeps the promise.
void say(const char* where, const char* kernel, const bt::report& r, bool expected) {
  const bool as_expected = static_cast<bool>(r.call) && static_cast<bool>(r) == expected;
  if (!as_expected) failures += 1;
  std::printf("%-3s  %-32s  %s%s\n", where, kernel, bt::describe(r).c_str(),
              as_expected ? (expected ? "" : " (caught, as it must be)") : "  <-- NOT EXPECTED");
}

#if defined(CUSTOM_KERNEL_GPU)
bool gpu_is_here() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}
// A copy on the device, for what all rows share.
const bf16* upload(const std::vector<bf16>& values) {
  void* p = nullptr;
  const std::size_t bytes = values.size() * sizeof(bf16);
  if (cudaMalloc(&p, bytes) != cudaSuccess) return nullptr;
  return cudaMemcpy(p, values.data(), bytes, cudaMemcpyHostToDevice) == cudaSuccess ? static_cast<bf16*>(p) : nullptr;
}
#endif

void check_norm_gate(bool on_gpu) {
  constexpr std::int64_t pool = 40, cols = 1000;  // no multiple of anything
  bt::rows_under_test rows(pool);
  const auto x_values = random_numbers<float>(pool * cols, 1);
  const auto gate_values = random_numbers<bf16>(pool * cols, 2);
  const auto weight = random_numbers<bf16>(cols, 3);
  const int x = rows.numbers("x", x_values.data(), cols);
  const int gate = rows.numbers("gate", gate_values.data(), cols);
  const int out = rows.output<float>("out", cols);
  const auto arguments = [&](const bt::row_call& c, const bf16* w) {
    return norm_gate_args{c.in<float>(x), c.in<bf16>(gate), w, c.out<float>(out), c.rows, cols, 1e-6f};
  };

  const bt::row_function twin = [&](const bt::row_call& c) {
    bt::run_rows_on_cpu(norm_gate{}, arguments(c, weight.data()), c.rows);
    return bi::status{};
  };
  const bt::row_function follows = [&](const bt::row_call& c) {
    bt::run_rows_on_cpu(norm_gate_that_follows_the_batch{}, arguments(c, weight.data()), c.rows);
    return bi::status{};
  };
  if (!on_gpu) {
    say("cpu", "norm_gate", bt::check_on_cpu(rows, twin), true);
    say("cpu", "norm_gate_that_follows_the_batch", bt::check_on_cpu(rows, follows), false);
    return;
  }
#if defined(CUSTOM_KERNEL_GPU)
  const bf16* device_weight = upload(weight);
  say("gpu", "norm_gate",
      bt::check_on_gpu(
          rows, [&](const bt::row_call& c) { return launch_norm_gate(arguments(c, device_weight), c.rows, c.stream); },
          &twin),
      true);
  say("gpu", "norm_gate_that_follows_the_batch",
      bt::check_on_gpu(
          rows,
          [&](const bt::row_call& c) {
            return launch_norm_gate_that_follows_the_batch(arguments(c, device_weight), c.rows, c.stream);
          },
          &follows),
      false);
#endif
}

void check_alibi_attention(bool on_gpu) {
  constexpr std::int64_t pool = 20, dim = 64, max_len = 70;
  bt::rows_under_test rows(pool);
  const auto q_values = random_numbers<bf16>(pool * dim, 4);
  const auto k_values = random_numbers<bf16>(pool * max_len * dim, 5),
             v_values = random_numbers<bf16>(pool * max_len * dim, 6);
  std::vector<std::int32_t> len_values;
  for (std::int32_t r = 0; r < pool; ++r) len_values.push_back(r == 3 ? 0 : (17 * r + 70) % 71);
  const int q = rows.numbers("q", q_values.data(), dim);
  const int k = rows.numbers("k", k_values.data(), max_len * dim),
            v = rows.numbers("v", v_values.data(), max_len * dim);
  const int len = rows.indices("len", len_values.data(), 1);
  const int scores = rows.output<float>("scores", max_len), out = rows.output<bf16>("out", dim);
  const auto arguments = [&](const bt::row_call& c) {
    return alibi_attention_args{c.in<bf16>(q),
                                c.in<bf16>(k),
                                c.in<bf16>(v),
                                c.in<std::int32_t>(len),
                                c.out<float>(scores),
                                c.out<bf16>(out),
                                max_len,
                                dim,
                                0.125f,
                                0.25f};
  };
  const bt::row_function twin = [&](const bt::row_call& c) {
    bt::run_rows_on_cpu(alibi_attention{}, arguments(c), c.rows);
    return bi::status{};
  };
  if (!on_gpu) return say("cpu", "alibi_attention", bt::check_on_cpu(rows, twin), true);
#if defined(CUSTOM_KERNEL_GPU)
  say("gpu", "alibi_attention",
      bt::check_on_gpu(
          rows, [&](const bt::row_call& c) { return launch_alibi_attention(arguments(c), c.rows, c.stream); }, &twin),
      true);
#endif
}

}  // namespace

int main() {
  check_norm_gate(false);
  check_alibi_attention(false);
#if defined(CUSTOM_KERNEL_GPU)
  if (gpu_is_here()) {
    check_norm_gate(true);
    check_alibi_attention(true);
  } else {
    std::puts("no GPU here: the kernels were compiled, and their bodies checked on the CPU");
  }
#else
  std::puts("built without nvcc: the kernels' bodies were checked on the CPU");
#endif
  return failures == 0 ? 0 : 1;
}
