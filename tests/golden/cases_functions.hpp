// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bi/contract/id.hpp"
#include "support/backend.hpp"
#include "support/ops_functions.hpp"

namespace test {

// Operands of every exponent and sign, with the edges of each function among them.
inline std::vector<float> function_operands(std::int64_t n, std::uint64_t seed) {
  static constexpr float edges[] = {0.0f,
                                    1.0f,
                                    0.5f,
                                    2.0f,
                                    3.0f,
                                    0x1p-149f,
                                    0x1p-126f,
                                    0x1.fffffep-127f,
                                    0x1.fffffep+127f,
                                    88.72284f,
                                    89.0f,
                                    103.97208f,
                                    104.0f,
                                    126.0f,
                                    127.0f,
                                    128.0f,
                                    149.0f,
                                    150.0f,
                                    160.0f,
                                    0x1p-25f,
                                    0x1p24f,
                                    65504.0f,
                                    65520.0f,
                                    0x1.ffcp-15f,
                                    0.55f,
                                    0.93f,
                                    4.0f,
                                    9.02f};
  generator g(seed);
  std::vector<float> v;
  for (const float e : edges) {
    for (const std::uint32_t step : {0u, 1u, ~0u}) {
      for (const std::uint32_t sign : {0u, 0x80000000u}) v.push_back(bi::float_of((bi::bits_of(e) + step) ^ sign));
    }
  }
  for (const std::uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffffffffu, 0x7f800001u})
    v.push_back(bi::float_of(bits));
  while (static_cast<std::int64_t>(v.size()) < n) {
    // Half of any bits, half where the functions are not constant.
    const auto bits = static_cast<std::uint32_t>(g.next());
    v.push_back(g.chance(50)
                    ? bi::float_of(bits)
                    : bi::float_of((bits & 0x80ffffffu) | static_cast<std::uint32_t>(g.between(0x33, 0x43)) << 24));
  }
  v.resize(static_cast<std::size_t>(n));
  // Shuffled, so that edges meet edges in functions of two and three operands.
  for (std::int64_t i = n - 1; i > 0; --i)
    std::swap(v[static_cast<std::size_t>(i)], v[static_cast<std::size_t>(g.below(i + 1))]);
  return v;
}

template <class Backend>
std::vector<std::uint32_t> run_function(Backend& b, scalar_function f, const std::vector<float>& x, std::uint64_t seed) {
  const auto n = static_cast<std::int64_t>(x.size());
  function_args a = {};
  a.function = f;
  a.x = b.input(x);
  a.y = b.input(function_operands(n, seed + 1));
  a.z = b.input(function_operands(n, seed + 2));
  a.n = n;
  a.out = b.template output<std::uint32_t>(n);
  b.run(function_op{}, a);
  return b.read(a.out);
}

template <class Backend>
std::vector<std::uint32_t> run_function(Backend& b, scalar_function f, std::int64_t n, std::uint64_t seed) {
  return run_function(b, f, function_operands(n, seed), seed);
}

// What is added to 3072 by every multiple of 2^-12 from -128 to 129: all arguments of exp2_grid with results of their own.
inline std::vector<float> grid_exponents() {
  std::vector<float> v;
  for (int i = -128 * 4096; i <= 129 * 4096; ++i) {
    v.push_back(bi::mul_rn(bi::float_from_int(i + 3072 * 4096), 0x1p-12f));
  }
  return v;
}

template <class Backend, class Sink>
void golden_functions(Backend& b, Sink&& sink) {
  for (int f = 0; f < static_cast<int>(scalar_function::count); ++f) {
    const auto function = static_cast<scalar_function>(f);
    auto out = run_function(b, function, 20000, 1);
    if (function == scalar_function::exp2_grid) {
      const auto grid = run_function(b, function, grid_exponents(), 1);
      out.insert(out.end(), grid.begin(), grid.end());
    }
    sink(golden_entry{std::string("function/") + name_of(function), bi::contract_id(name_of(function)), digest_of(out),
                      static_cast<std::int64_t>(out.size())});
    b.clear();
  }
}

}  // namespace test
