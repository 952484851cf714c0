// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <type_traits>

#include "bi/config.hpp"

// Where a kernel computes what. Both compilers move work to where its result is used: behind a wait that would have
// hidden it, or behind other data that has not come yet. That is time where few items leave nothing else to do.

BI_NAMESPACE_BEGIN
namespace device {

template <class T>
BI_D std::uint32_t order_bits(T x) {
  if constexpr (std::is_pointer_v<T>) {
    return order_bits(static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(x)));
  } else if constexpr (sizeof(T) == 8) {
    const auto all = static_cast<std::uint64_t>(x);
    return static_cast<std::uint32_t>(all) ^ static_cast<std::uint32_t>(all >> 32);
  } else {
    return static_cast<std::uint32_t>(x);
  }
}
// Values are made ahead of this, and loads that come after it in the code stay there: neither compiler knows that `none`
// is 0, and that the kernel goes on.
template <class... Values>
BI_D void keep_order(std::uint32_t none, Values... values) {
  if (((order_bits(values) ^ ...) & none) != 0) __trap();
}

// x, in a register from here on: ptxas would make it anew from parameters where it is used, which may have to come from
// memory. Called by whole warps.
template <class Integer>
BI_D Integer kept(Integer x) {
  return __shfl_sync(0xffffffffu, x, static_cast<int>(threadIdx.x % 32));
}
template <class T>
BI_D T* kept(T* p) {
  return reinterpret_cast<T*>(kept(static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(p))));
}

}  // namespace device
BI_NAMESPACE_END
