// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Runs every golden case on the GPU and writes tests/golden/h100.json:  record_golden FILE
#include <cuda_runtime_api.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

#include "bi/version.hpp"
#include "golden/cases.hpp"
#include "gpu/support/gpu_backend.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: record_golden FILE\n");
    return 2;
  }
  try {
    cudaDeviceProp device = {};
    int driver = 0, runtime = 0;
    BI_REQUIRE_CUDA(cudaGetDeviceProperties(&device, 0));
    BI_REQUIRE_CUDA(cudaDriverGetVersion(&driver));
    BI_REQUIRE_CUDA(cudaRuntimeGetVersion(&runtime));
    test::gpu_backend gpu;
    std::string cases;
    int count = 0;
    test::golden_cases(gpu,
                       [&](const test::golden_entry& e) { cases += (count++ == 0 ? "" : ",\n") + test::to_json(e); });
    std::ofstream out(argv[1]);
    out << "{\n\"gpu\": \"" << device.name << "\", \"compute_capability\": \"" << device.major << "." << device.minor
        << "\", \"cuda_driver\": " << driver << ", \"cuda_runtime\": " << runtime << ",\n\"cases\": [\n"
        << cases << "\n]\n}\n";
    out.close();
    if (!out) throw std::runtime_error(std::string("could not write ") + argv[1]);
    std::printf("%d cases written to %s\n", count, argv[1]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "record_golden: %s\n", e.what());
    return 1;
  }
}
