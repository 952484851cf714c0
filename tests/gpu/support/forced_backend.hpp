// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <string>
#include <vector>

#include "gpu/support/gpu_backend.hpp"
#include "support/catch.hpp"
#include "support/manifest.hpp"

namespace test {

// The GPU, but each operation runs under `schedule`, through a function launch_with(op, args, schedule, stream) of
// namespace test.
template <class Schedule>
class forced_backend : public gpu_backend {
 public:
  Schedule schedule;

  template <class Op, class Args>
  void run(const Op& op, const Args& args) {
    require_ok(launch_with(op, args, schedule, stream()));
    sync();
  }
};

// run(backend) gives a case's outputs; under each schedule they must be `expected`, which run() gave on the host.
template <class Schedule, class Outputs, class Run>
void check_forced(const manifest_operation& o, const std::vector<Schedule>& schedules, const std::string& name,
                  const Outputs& expected, Run run) {
  forced_backend<Schedule> gpu;
  for (const auto& entry : manifest({o}, schedules)) {
    INFO(to_string(entry) << ": " << name);
    gpu.schedule = entry.schedule;
    REQUIRE(difference(run(gpu), expected) == "");
    gpu.clear();
  }
}

}  // namespace test
