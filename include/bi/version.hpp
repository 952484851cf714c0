// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

// CMake reads the version from these three lines. Contracts are versioned by name, apart from this number.
#define BI_VERSION_MAJOR 0
#define BI_VERSION_MINOR 1
#define BI_VERSION_PATCH 0
#define BI_VERSION (BI_VERSION_MAJOR * 10000 + BI_VERSION_MINOR * 100 + BI_VERSION_PATCH)
