// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/version.hpp"

// The only file that asks which compiler this is.

#if !defined(__GNUC__)
#error "bi needs GCC or Clang as the host compiler: its rounding primitives use their inline assembly."
#endif
#if defined(__SIZEOF_POINTER__) && __SIZEOF_POINTER__ != 8
#error "bi needs a 64-bit target."
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
#error "bi knows the floating-point environment of x86-64 and AArch64 only."
#endif
#if __cplusplus < 201703L
#error "bi needs C++17."
#endif

// BI_HD: runs on the host and on the device. BI_DEVICE_CODE: this pass compiles for the device.
#if defined(__CUDACC__)
#define BI_HD __host__ __device__
#define BI_D __device__
#else
#define BI_HD
#define BI_D
#endif
#if defined(__CUDA_ARCH__)
#define BI_DEVICE_CODE 1
#else
#define BI_DEVICE_CODE 0
#endif

// Whether this pass knows Hopper's own instructions (wgmma): compute_90a, not the generic compute_90.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define BI_WGMMA_CODE 1
#else
#define BI_WGMMA_CODE 0
#endif

// A kernel is a static template: its symbol is local to the object file, so two libraries that vendor different
// commits of bi never launch each other's code.
#define BI_KERNEL static __global__

// Host forms that no flag of the user's build may fuse, reorder or fold pass their operands through this.
#if defined(__x86_64__)
#define BI_FP_BARRIER(x) asm("" : "+x"(x))
#else
#define BI_FP_BARRIER(x) asm("" : "+w"(x))
#endif

// The inline namespace carries the version, the visibility keeps the functions inside one shared object. Types that a
// user may hold in his own are visible (BI_TYPE): GCC warns of a visible type with a hidden member.
#define BI_TYPE [[gnu::visibility("default")]]
#define BI_NAMESPACE_BEGIN \
  namespace bi {           \
  inline namespace v0_1 __attribute__((visibility("hidden"))) {
#define BI_NAMESPACE_END \
  }                      \
  }
