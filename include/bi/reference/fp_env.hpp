// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace reference {

// Holds the floating-point environment that the contracts assume: round to nearest even, subnormals kept as operands
// and as results, no exception trapped. A program linked with -ffast-math starts with FTZ and DAZ set, so every entry
// point and every worker thread of the reference holds one of these. The destructor puts the caller's back.
class fp_environment {
 public:
  fp_environment() : saved_(get()) { set(contract_mode); }
  ~fp_environment() { set(saved_); }
  fp_environment(const fp_environment&) = delete;
  fp_environment& operator=(const fp_environment&) = delete;

 private:
  // The memory clobbers keep loads and stores of operands and results inside the lifetime.
#if defined(__x86_64__)
  using control = std::uint32_t;
  static constexpr control contract_mode = 0x1f80;  // every exception masked, all other fields 0
  static control get() {
    control mxcsr;
    asm volatile("stmxcsr %0" : "=m"(mxcsr) : : "memory");
    return mxcsr;
  }
  static void set(control mxcsr) { asm volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory"); }
#else
  using control = std::uint64_t;
  static constexpr control contract_mode = 0;  // nothing trapped, nothing flushed, no default NaN
  static control get() {
    control fpcr;
    asm volatile("mrs %0, fpcr" : "=r"(fpcr) : : "memory");
    return fpcr;
  }
  static void set(control fpcr) { asm volatile("msr fpcr, %0" : : "r"(fpcr) : "memory"); }
#endif

  control saved_;
};

}  // namespace reference
BI_NAMESPACE_END
