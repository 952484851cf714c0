// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The main of the test programs, for Catch2 2 and 3 alike. Built with BI_TEST_GPU, it skips where no GPU answers.
#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"
#include "support/small.hpp"

#include <cstring>

#ifdef BI_TEST_GPU
#include <cuda_runtime_api.h>

#include <cstdio>

namespace {

// CTest reads this exit code as "skipped" (SKIP_RETURN_CODE in tests/CMakeLists.txt).
constexpr int skipped = 77;

bool lists_tests(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--list", 6) == 0) return true;
  }
  return false;
}

bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

}  // namespace
#endif

int main(int argc, char** argv) {
  // Ours, the rest is Catch2's.
  while (argc > 1) {
    if (std::strcmp(argv[1], "--small") == 0) {
      test::small_run() = true;
    } else if (std::strcmp(argv[1], "--one-wide") == 0) {
      test::one_wide() = true;
    } else {
      break;
    }
    argv[1] = argv[0];
    ++argv, --argc;
  }
#ifdef BI_TEST_GPU
  if (!lists_tests(argc, argv) && !has_gpu()) {
    std::puts("skipped: no CUDA device");
    return skipped;
  }
#endif
  // Catch2 returns the number of failures: 77 of them must not read as "skipped", nor 256 as success.
  return Catch::Session().run(argc, argv) == 0 ? 0 : 1;
}
