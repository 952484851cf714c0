// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace device {

inline void prefetch_l2(const void*) {}
template <class T>
T load_l2(const T* p) {
  return *p;
}

}  // namespace device
BI_NAMESPACE_END
