# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# What only bi's own tests, examples and benchmarks need. Nothing here reaches a project that uses bi.

set(BI_CUDA AUTO CACHE STRING "Build what needs nvcc: AUTO (where it is found), ON or OFF")
set_property(CACHE BI_CUDA PROPERTY STRINGS AUTO ON OFF)
option(BI_QUICK_BUILD "Compile what only a GPU runs unoptimised, but for the tests' kernels: for machines without one" OFF)
option(BI_WERROR "Treat warnings in bi's own targets as errors" OFF)

# Single-configuration generators build nothing optimised unless told to.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(BI_HAVE_CUDA OFF)
if(BI_CUDA)
  # CMake's default is an architecture that has no wgmma; 90a must be asked for by name.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90a-real CACHE STRING "CUDA architectures")
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(BI_HAVE_CUDA ON)
  elseif(NOT BI_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "BI_CUDA=${BI_CUDA}, and no working nvcc was found. Set CUDACXX to its path, or use BI_CUDA=OFF.")
  endif()
endif()
# How a quick build compiles kernels, if nvcc can.
set(BI_QUICK_KERNELS "")
if(BI_QUICK_BUILD AND BI_HAVE_CUDA AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
  set(BI_QUICK_KERNELS "$<$<COMPILE_LANGUAGE:CUDA>:--Ofast-compile=max>")
endif()
message(STATUS "bi ${PROJECT_VERSION}, CUDA: ${BI_HAVE_CUDA}")

set(CMAKE_CXX_EXTENSIONS OFF)
# Compile commands are for editors and clang-tidy.
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
