// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#define LANES_SHARED_AT_LAUNCH
#include "lanes/warps.hpp"
// The lanes' words come first.
#include "bi/attention.hpp"
#include "bi/contract/attention.hpp"
#include "bi/reference/attention.hpp"
#include "bi/schedule/attention.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// What a test includes first whose kernels are to be as for Hopper, contracts as on the host.
#undef BI_DEVICE_CODE
#undef BI_WGMMA_CODE
#define BI_DEVICE_CODE 1
#define BI_WGMMA_CODE 1
#define __CUDA_ARCH__ 900
