// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstring>

#include "bi/config.hpp"
#include "bi/device/ptx/ldmatrix.cuh"
#include "lanes/warps.hpp"

BI_NAMESPACE_BEGIN
namespace device {

// Lands when the barrier that hears of it completes its phase, or its thread waits for it: nobody can count on it before.
inline void cp_async_16(void* shared, const void* global, int bytes) {
  lanes::copy c = {shared, {}, 0};
  std::memcpy(c.bytes.data(), global, static_cast<std::size_t>(bytes));
  lanes::copies().push_back(c);
}
inline void cp_async_16(std::uint32_t shared, const void* global, int bytes) {
  cp_async_16(lanes::shared_memory() + shared, global, bytes);
}
inline void cp_async_16(std::uint32_t shared, const void* global) { cp_async_16(shared, global, 16); }
inline void cp_async_16(void* shared, const void* global, int bytes, std::uint64_t) {
  cp_async_16(shared, global, bytes);
}
inline void cp_async_commit() {
  for (lanes::copy& c : lanes::copies()) ++c.later;
}
template <int Pending>
void cp_async_wait() {
  lanes::land(lanes::copies(), Pending + 1);
}

}  // namespace device
BI_NAMESPACE_END
