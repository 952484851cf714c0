// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/status.hpp"

BI_NAMESPACE_BEGIN

// Collects argument checks of one call; the first failure stays. Pure: looks at arguments, never at what they point to.
class checker {
 public:
  explicit checker(const char* operation) { st_.operation = operation; }

  status result() const { return st_; }
  bool ok() const { return st_.code == error::none; }

  checker& fail(error code, const char* argument, std::int64_t value, const char* relation = nullptr,
                std::int64_t bound = 0, std::int64_t position = -1) {
    if (!ok()) return *this;
    st_.code = code;
    st_.argument = argument;
    st_.relation = relation;
    st_.value = value;
    st_.bound = bound;
    st_.position = position;
    return *this;
  }

  checker& at_least(const char* argument, std::int64_t value, std::int64_t bound, const char* bound_name = nullptr) {
    return value < bound ? fail(error::too_small, argument, value, bound_name, bound) : *this;
  }
  checker& at_most(const char* argument, std::int64_t value, std::int64_t bound, const char* bound_name = nullptr) {
    return value > bound ? fail(error::too_large, argument, value, bound_name, bound) : *this;
  }
  checker& multiple_of(const char* argument, std::int64_t value, std::int64_t bound, const char* bound_name = nullptr) {
    return bound > 0 && value % bound != 0 ? fail(error::not_multiple, argument, value, bound_name, bound) : *this;
  }
  checker& supported(const char* argument, std::int64_t value, bool is_supported, const char* set) {
    return is_supported ? *this : fail(error::not_supported, argument, value, set);
  }

  // A pointer that the call will read or write: not null, aligned to its element.
  template <class T>
  checker& pointer(const char* argument, const T* p, std::size_t alignment = alignof(T)) {
    if (p == nullptr) return fail(error::null_pointer, argument, 0);
    return optional_pointer(argument, p, alignment);
  }
  template <class T>
  checker& optional_pointer(const char* argument, const T* p, std::size_t alignment = alignof(T)) {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    return address % alignment != 0 ? fail(error::misaligned, argument, static_cast<std::int64_t>(address), nullptr,
                                           static_cast<std::int64_t>(alignment))
                                    : *this;
  }

  // `count` items `stride` elements apart (0: contiguous, `width` apart), each `width` elements wide: the stride must
  // cover the width, and the last byte's offset must stay below 2^62.
  checker& stride(const char* argument, std::int64_t stride, std::int64_t width, const char* width_name,
                  std::int64_t count, std::int64_t element_bytes) {
    if (stride == 0) stride = width;
    at_least(argument, stride, width, width_name);
    if (!ok() || count <= 0) return *this;
    constexpr std::int64_t limit = std::int64_t{1} << 62;
    std::int64_t offset = 0;
    if (__builtin_mul_overflow(count, stride, &offset) || __builtin_mul_overflow(offset, element_bytes, &offset) ||
        offset > limit) {
      return fail(error::overflow, argument, stride);
    }
    return *this;
  }

  // A real parameter: `valid` is the caller's test on its bits, `domain` says it in words.
  checker& real(const char* argument, double value, bool valid, const char* domain) {
    if (valid || !ok()) return *this;
    st_.code = error::not_valid;
    st_.argument = argument;
    st_.relation = domain;
    st_.real = value;
    return *this;
  }

  checker& workspace(const void* p, std::size_t bytes, std::size_t needed) {
    if (needed == 0) return *this;
    if (bytes < needed) {
      return fail(error::workspace_too_small, "workspace", static_cast<std::int64_t>(bytes), nullptr,
                  static_cast<std::int64_t>(needed));
    }
    return pointer("workspace", static_cast<const char*>(p), 256);
  }

  // Byte ranges [a, a + a_bytes) and [b, b + b_bytes) must not meet; exactly the same start is allowed if `same_ok`.
  checker& disjoint(const char* argument, const void* a, std::int64_t a_bytes, const char* other, const void* b,
                    std::int64_t b_bytes, bool same_ok = false) {
    const auto x = reinterpret_cast<std::uintptr_t>(a), y = reinterpret_cast<std::uintptr_t>(b);
    if (a == nullptr || b == nullptr || a_bytes <= 0 || b_bytes <= 0 || (same_ok && x == y)) return *this;
    const bool apart = x + static_cast<std::uintptr_t>(a_bytes) <= y || y + static_cast<std::uintptr_t>(b_bytes) <= x;
    return apart ? *this : fail(error::overlap, argument, 0, other);
  }

 private:
  status st_;
};

// Bytes from the first to one past the last element of `count` items of `width` elements, `stride` apart.
inline std::int64_t span_bytes(std::int64_t count, std::int64_t stride, std::int64_t width,
                               std::int64_t element_bytes) {
  if (count <= 0 || width <= 0) return 0;
  return ((count - 1) * (stride == 0 ? width : stride) + width) * element_bytes;
}

BI_NAMESPACE_END
