// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <vector>

#include "golden/cases_functions.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

TEST_CASE("functions: GPU bits equal the host's", "[gpu]") {
  for (int f = 0; f < static_cast<int>(test::scalar_function::count); ++f) {
    const auto function = static_cast<test::scalar_function>(f);
    test::host_backend host;
    test::gpu_backend gpu;
    INFO(test::name_of(function));
    CHECK(test::difference(test::run_function(gpu, function, 2000000, 17),
                           test::run_function(host, function, 2000000, 17)) == "");
    gpu.clear();
  }
}

TEST_CASE("functions: exp2_grid's table is what the GPU gives", "[gpu]") {
  const auto f = test::scalar_function::exp2_grid;
  test::host_backend host;
  test::gpu_backend gpu;
  const std::vector<float> x = test::grid_exponents();
  const auto expected = test::run_function(host, f, x, 1);
  CHECK(x.size() == 257 * 4096 + 1);
  CHECK(test::difference(test::run_function(gpu, f, x, 1), expected) == "");
}
