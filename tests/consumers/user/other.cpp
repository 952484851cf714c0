// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <string>

#include "bi/bi.hpp"

std::string describe_elsewhere(const bi::status& st) { return bi::describe(st); }
