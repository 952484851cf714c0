// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model.hpp"
#include "request.hpp"

namespace engine {

// The steps of a request's record as one teacher-forced prefill computes them, in the order of the record's branches: a
// trainer's forward pass over a sample. Each segment's rows see what they saw when they were drawn one by one, branches
// and joined views included. `logprob` is log_softmax of the row at the token drawn.
std::vector<step_record> score(model& m, const request& r, const request_record& record);

}  // namespace engine
