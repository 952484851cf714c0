// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/dtype.hpp"
#include "bi/status.hpp"

// Whether the operations of this program, built with its flags, give the bytes of the CPU reference on this machine. To
// be run once, after bi was vendored or upgraded, or when a service starts.

BI_NAMESPACE_BEGIN

// The first thing that was wrong: a call, or an element of an operation's output.
struct BI_TYPE self_test_result {
  status call;                      // of the first call that failed
  const char* operation = nullptr;  // whose output differs; null: none
  const char* output = nullptr;     // which of its outputs
  std::int64_t element = -1;
  int element_bytes = 0;
  std::uint64_t expected = 0, actual = 0;  // its bits
  int operations = 0;                      // compared and found equal

  explicit operator bool() const { return static_cast<bool>(call) && operation == nullptr && operations > 0; }
};

// "self_test: gemm gives d[17] = 0x3f81, the CPU reference 0x3f80". Host only; allocates.
inline std::string describe(const self_test_result& r) {
  if (!r.call) return describe(r.call);
  char text[200];
  if (r.operation == nullptr) {
    std::snprintf(text, sizeof text, "ok: %d operations give the bytes of the CPU reference", r.operations);
    return text;
  }
  const int digits = 2 * r.element_bytes;
  std::snprintf(text, sizeof text, "self_test: %s gives %s[%lld] = 0x%0*llx, the CPU reference 0x%0*llx", r.operation,
                r.output, static_cast<long long>(r.element), digits, static_cast<unsigned long long>(r.actual), digits,
                static_cast<unsigned long long>(r.expected));
  return text;
}

// Runs add, silu_mul, rms_norm, log_softmax, gemm, kv_append, attention and sample on small inputs, subnormals among them,
// and compares each with bi::reference, byte for byte. T is bf16 or fp16, that of the tensors.
//
// Unlike every other entry point this one allocates (4 MiB of the current device, freed before it returns), copies and
// waits for the stream. It leaves the stream and the device as they were and needs some 10 ms, most of them for the
// reference on the CPU. Errors, as result.call: a stream that is being captured, a device that is no Hopper GPU (other tensor
// cores round differently), whatever an operation or the CUDA runtime returns. Any stream, the default one included.
//
// Defined in bi/self_test.cuh and instantiated in one .cu of the user's, best in the one that has the operations:
// BI_INSTANTIATE_SELF_TEST(bi::bf16);
template <class T = bf16>
self_test_result self_test(cuda_stream stream);

BI_NAMESPACE_END
