// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/exp2_grid.hpp"
#include "bi/contract/functions.hpp"
#include "bi/reference/fp_env.hpp"
#include "bi/status.hpp"

// The scalar contract functions as an operation over arrays, for the CPU and (tests/gpu/functions.cu) the GPU.
namespace test {

enum class scalar_function : int {
  exp2,
  exp2_grid,
  exp,
  log2,
  log,
  log1p,
  tanh,
  erf,
  silu,
  gelu,
  gelu_tanh,
  sqrt,
  rsqrt,
  add,
  sub,
  mul,
  fma,
  div,
  max,
  min,
  less,
  to_bf16,
  to_fp16,
  from_fp16,
  from_int,
  to_uint64,
  count
};

inline const char* name_of(scalar_function f) {
  static constexpr const char* names[] = {"exp2", "exp2_grid", "exp",     "log2",      "log",      "log1p",    "tanh",
                                          "erf",  "silu",        "gelu",    "gelu_tanh", "sqrt",     "rsqrt",    "add",
                                          "sub",  "mul",         "fma",     "div",      "max",      "min",
                                          "less", "to_bf16",     "to_fp16", "from_fp16", "from_int", "to_uint64"};
  static_assert(sizeof names / sizeof names[0] == static_cast<int>(scalar_function::count), "one name each");
  return names[static_cast<int>(f)];
}

// Bits of f(x, y, z); functions of fewer operands take the first ones.
BI_HD inline std::uint32_t evaluate(scalar_function f, float x, float y, float z) {
  switch (f) {
    case scalar_function::exp2:
      return bi::bits_of(bi::exp2(x));
    case scalar_function::exp2_grid:
      return bi::bits_of(bi::exp2_grid(x));
    case scalar_function::exp:
      return bi::bits_of(bi::exp(x));
    case scalar_function::log2:
      return bi::bits_of(bi::log2(x));
    case scalar_function::log:
      return bi::bits_of(bi::log(x));
    case scalar_function::log1p:
      return bi::bits_of(bi::log1p(x));
    case scalar_function::tanh:
      return bi::bits_of(bi::tanh(x));
    case scalar_function::erf:
      return bi::bits_of(bi::erf(x));
    case scalar_function::silu:
      return bi::bits_of(bi::silu(x));
    case scalar_function::gelu:
      return bi::bits_of(bi::gelu(x));
    case scalar_function::gelu_tanh:
      return bi::bits_of(bi::gelu_tanh(x));
    case scalar_function::sqrt:
      return bi::bits_of(bi::sqrt_rn(x));
    case scalar_function::rsqrt:
      return bi::bits_of(bi::rsqrt_rn(x));
    case scalar_function::add:
      return bi::bits_of(bi::add_rn(x, y));
    case scalar_function::sub:
      return bi::bits_of(bi::sub_rn(x, y));
    case scalar_function::mul:
      return bi::bits_of(bi::mul_rn(x, y));
    case scalar_function::fma:
      return bi::bits_of(bi::fma_rn(x, y, z));
    case scalar_function::div:
      return bi::bits_of(bi::div_rn(x, y));
    case scalar_function::max:
      return bi::bits_of(bi::max_nan(x, y));
    case scalar_function::min:
      return bi::bits_of(bi::min_nan(x, y));
    case scalar_function::less:
      return bi::less(x, y) ? 1u : 0u;
    case scalar_function::to_bf16:
      return bi::cvt_rn<bi::bf16>(x).bits;
    case scalar_function::to_fp16:
      return bi::cvt_rn<bi::fp16>(x).bits;
    case scalar_function::from_fp16:
      return bi::bits_of(bi::to_f32(bi::fp16{static_cast<std::uint16_t>(bi::bits_of(x) >> 16)}));
    case scalar_function::from_int:
      return bi::bits_of(bi::float_from_uint(bi::bits_of(x)));
    default: {
      const std::uint64_t u = bi::uint64_from_float_rz(x);
      return static_cast<std::uint32_t>(u >> 32) ^ static_cast<std::uint32_t>(u);
    }
  }
}

struct function_args {
  scalar_function function;
  const float* x;
  const float* y;
  const float* z;
  std::int64_t n;
  std::uint32_t* out;
};

bi::status evaluate_on_gpu(const function_args& a, bi::cuda_stream stream);  // tests/gpu/functions.cu

struct function_op {
  static bi::status reference(const function_args& a) {
    const bi::reference::fp_environment environment;
    for (std::int64_t i = 0; i < a.n; ++i) a.out[i] = evaluate(a.function, a.x[i], a.y[i], a.z[i]);
    return {};
  }
  static bi::status gpu(const function_args& a, bi::workspace, bi::cuda_stream stream) {
    return evaluate_on_gpu(a, stream);
  }
};

}  // namespace test
