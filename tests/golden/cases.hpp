// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdio>
#include <string>

#include "golden/cases_attention.hpp"
#include "golden/cases_edit.hpp"
#include "golden/cases_functions.hpp"
#include "golden/cases_gemm.hpp"
#include "golden/cases_rows.hpp"
#include "golden/cases_tokens.hpp"

namespace test {

// Every golden case of every operation and contract. tests/golden/h100.json holds what a GPU gave.
template <class Backend, class Sink>
void golden_cases(Backend& b, Sink&& sink) {
  golden_functions(b, sink);
  golden_rows(b, sink);
  golden_gemm(b, sink);
  golden_tokens(b, sink);
  golden_attention(b, sink);
  golden_edit(b, sink);
}

// A case as it stands in the file, one line each.
inline std::string to_json(const golden_entry& e) {
  char numbers[128];
  std::snprintf(numbers, sizeof numbers, "\"contract\": \"0x%016llx\", \"digest\": \"0x%016llx\", \"outputs\": %lld",
                static_cast<unsigned long long>(e.contract), static_cast<unsigned long long>(e.digest),
                static_cast<long long>(e.outputs));
  return "{\"name\": \"" + e.name + "\", " + numbers + "}";
}

}  // namespace test
