// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "bi/config.hpp"

struct CUstream_st;

BI_NAMESPACE_BEGIN

// cudaStream_t, under a name that needs no CUDA header.
using cuda_stream = ::CUstream_st*;

// Device memory of the caller's, aligned to 256 bytes, as large as the operation's workspace_bytes says. Its contents
// are undefined before and after a call; one workspace belongs to one call in flight.
struct BI_TYPE workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

enum class error : std::uint8_t {
  none,
  null_pointer,         // a required pointer is null
  misaligned,           // a pointer is not aligned to its element; value is the address, bound the alignment
  too_small,            // value < bound
  too_large,            // value > bound
  not_multiple,         // value is no multiple of bound
  not_supported,        // value is outside the supported set, which `relation` lists
  overflow,             // the last element's offset does not fit 64 bits
  not_valid,            // a real parameter is NaN, infinite or out of its domain, which `relation` names
  overlap,              // an output overlaps another argument in a way that isn't allowed
  index_out_of_range,   // argument[position] = value must lie below bound
  workspace_too_small,  // value bytes given, bound bytes needed
  cuda,                 // a CUDA call failed: cuda_error
};

// What went wrong, as data. Trivially copyable; describe() makes the sentence. All pointers are string literals.
struct [[nodiscard]] BI_TYPE status {
  error code = error::none;
  int cuda_error = 0;               // cudaError_t when code == error::cuda
  const char* operation = nullptr;  // "gemm"
  const char* argument = nullptr;   // "lda"
  const char* relation = nullptr;   // name of the bound, or the supported set
  std::int64_t value = 0;
  std::int64_t bound = 0;
  std::int64_t position = -1;  // element of an array argument, -1 if none
  double real = 0;             // the value when code == error::not_valid

  constexpr explicit operator bool() const { return code == error::none; }
};

// "gemm: lda = -1 must be at least k = 4096". Host only; allocates.
inline std::string describe(const status& s) {
  if (s.code == error::none) return "ok";
  const auto number = [](std::int64_t v) { return std::to_string(v); };
  std::string out = std::string(s.operation != nullptr ? s.operation : "bi") + ": ";
  if (s.code == error::cuda) {
    out += std::string(s.argument != nullptr ? s.argument : "a CUDA call") + " failed with CUDA error " +
           number(s.cuda_error);
    return out;
  }
  out += s.argument != nullptr ? s.argument : "argument";
  if (s.position >= 0) out.append("[").append(number(s.position)).append("]");
  const std::string bound = s.relation != nullptr ? std::string(s.relation) + " = " + number(s.bound) : number(s.bound);
  char text[64];
  switch (s.code) {
    case error::null_pointer:
      return out + " is null";
    case error::misaligned:
      std::snprintf(text, sizeof text, " = 0x%llx", static_cast<unsigned long long>(s.value));
      return out + text + " must be aligned to " + number(s.bound) + " bytes";
    case error::too_small:
      return out + " = " + number(s.value) + " must be at least " + bound;
    case error::too_large:
      return out + " = " + number(s.value) + " must be at most " + bound;
    case error::not_multiple:
      return out + " = " + number(s.value) + " must be a multiple of " + bound;
    case error::not_supported:
      return out + " = " + number(s.value) +
             " is not supported; supported: " + (s.relation != nullptr ? s.relation : "nothing else");
    case error::overflow:
      return out + " = " + number(s.value) + " makes offsets that overflow 64 bits";
    case error::not_valid:
      std::snprintf(text, sizeof text, " = %g", s.real);
      return out + text + " must be " + (s.relation != nullptr ? s.relation : "finite");
    case error::overlap:
      return out + " overlaps " + (s.relation != nullptr ? s.relation : "another argument");
    case error::index_out_of_range:
      return out + " = " + number(s.value) + " must be at least 0 and below " + bound;
    case error::workspace_too_small:
      return out + " of " + number(s.value) + " bytes is too small, " + number(s.bound) + " bytes are needed";
    default:
      return out + " is not valid";
  }
}

BI_NAMESPACE_END
