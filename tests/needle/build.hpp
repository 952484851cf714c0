// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "needle/needle.hpp"
#include "support/data.hpp"

// What cases are built of. Programs that launch kernels define BI_NEEDLE_GPU.
namespace test::needle {

#ifdef BI_NEEDLE_GPU
inline constexpr bool on_gpu = true;
#else
inline constexpr bool on_gpu = false;
#endif

template <class T>
std::vector<unsigned char> bytes_of(const std::vector<T>& v) {
  std::vector<unsigned char> out(v.size() * sizeof(T));
  if (!v.empty()) std::memcpy(out.data(), v.data(), out.size());
  return out;
}

// One row of `n` values of a kind of neighbour.
template <class T>
std::vector<T> neighbour_values(neighbours kind, std::int64_t n, std::uint64_t seed) {
  using f = format_of<T>;
  constexpr std::uint32_t sign = 1u << (f::fraction + f::exponent), one = 1u << f::fraction, infinity = sign - one;
  if (kind == neighbours::normal) return random_vector<T>(n, values::normal, seed);
  if (kind == neighbours::subnormal) return random_vector<T>(n, values::subnormal, seed);
  generator g(seed);
  // Rows of one sign and rows of both.
  const std::int64_t signs = g.below(3);
  std::vector<T> out;
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t bits = 0;
    if (kind == neighbours::infinity) bits = infinity;
    if (kind == neighbours::nan) bits = infinity | 1u | (static_cast<std::uint32_t>(g.next()) & (one - 1));
    if (kind == neighbours::largest) bits = infinity - 1u;
    if (signs == 1 || (signs == 2 && g.chance(50))) bits |= sign;
    out.push_back(from_bits<T>(bits));
  }
  return out;
}

// A pool's values: needles of all kinds of values in turn, then the neighbours.
template <class T>
std::vector<unsigned char> value_pool(std::int64_t n, std::uint64_t seed) {
  std::vector<T> all;
  for (std::int64_t row = 0; row < pool_rows; ++row) {
    const std::uint64_t own = seed * 1000 + static_cast<std::uint64_t>(row);
    const auto kind = all_values[row % static_cast<std::int64_t>(std::size(all_values))];
    const auto v = row < needles ? random_vector<T>(n, kind, own) : neighbour_values<T>(kind_of(row), n, own);
    all.insert(all.end(), v.begin(), v.end());
  }
  return bytes_of(all);
}

template <class T>
column values_column(const char* name, std::int64_t n, std::uint64_t seed) {
  return {name, n * static_cast<std::int64_t>(sizeof(T)), sizeof(T), false, false, value_pool<T>(n, seed)};
}
// [pool_rows, n] of anything, packed as operations demand of it.
template <class T>
column own_column(const char* name, const std::vector<T>& pool) {
  const auto bytes = static_cast<std::int64_t>(pool.size() * sizeof(T)) / pool_rows;
  return {name, bytes, static_cast<std::int64_t>(sizeof(T) <= 8 ? sizeof(T) : 4), true, false, bytes_of(pool)};
}
template <class T>
column output_column(const char* name, std::int64_t n, bool packed = false) {
  return {name, n * static_cast<std::int64_t>(sizeof(T)), sizeof(T), packed, false, {}};
}
template <class T>
std::vector<unsigned char> shared_values(std::int64_t n, std::uint64_t seed) {
  return bytes_of(random_vector<T>(n, values::normal, seed));
}
// 0, step, 2 * step, ...: arrays that say where a row is.
template <class T>
std::vector<unsigned char> places(std::int64_t n, std::int64_t step = 1, std::int64_t first = 0) {
  std::vector<T> all;
  for (std::int64_t i = 0; i < n; ++i) all.push_back(static_cast<T>((first + i) * step));
  return bytes_of(all);
}

template <class Op, class Args>
auto workspace_of(const Args& a, int) -> decltype(Op::workspace_bytes(a)) {
  return Op::workspace_bytes(a);
}
template <class Op, class Args>
std::size_t workspace_of(const Args&, long) {
  return 0;
}

// arguments(call) makes what Op takes.
template <class Op, class Arguments>
void bind(table& t, Arguments arguments) {
  t.reference = [arguments](const call& c) { return Op::reference(arguments(c)); };
  if constexpr (on_gpu) {
    t.gpu = [arguments](const call& c, bi::workspace ws, bi::cuda_stream stream) {
      return Op::gpu(arguments(c), ws, stream);
    };
    t.workspace_bytes = [arguments](const call& c) { return workspace_of<Op>(arguments(c), 0); };
  }
}

// And schedules(call), those that launch_with(Op, arguments, schedule, stream) takes, but for what it refuses.
struct not_forced {};
template <class Op, class Schedules, class Arguments>
void bind(table& t, Schedules schedules, Arguments arguments) {
  bind<Op>(t, arguments);
  if constexpr (!std::is_same_v<Schedules, not_forced>) {
    // Of the call that t.schedules() saw last.
    const auto last = std::make_shared<decltype(schedules(call{}))>();
    t.schedules = [schedules, last](const call& c) {
      *last = schedules(c);
      std::vector<std::string> all;
      for (const auto& s : *last) all.push_back(to_string(s));
      return all;
    };
    if constexpr (on_gpu) {
      t.forced = [arguments, last](const call& c, std::size_t which, bi::cuda_stream stream) {
        return launch_with(Op{}, arguments(c), (*last)[which], stream);
      };
    }
  }
}
// Most launchers that take a schedule are not there for fp16 (tests/gpu/instantiate_*.cu).
template <class T, class Schedules>
auto unless_fp16(Schedules schedules) {
  if constexpr (std::is_same_v<T, bi::fp16>) {
    return not_forced{};
  } else {
    return schedules;
  }
}
// The same for every call.
template <class Schedule>
auto always(std::vector<Schedule> (*schedules)()) {
  return [schedules](const call&) { return schedules(); };
}

// pick(rows) as text without the number of thread blocks.
template <class Pick>
void set_schedule(table& t, Pick pick) {
  t.schedule = [pick](std::int64_t rows) {
    auto s = pick(rows);
    s.blocks = 0;
    return to_string(s);
  };
}

template <class T>
std::string type_name() {
  return bi::dtype_traits<T>::name;
}
inline std::string shape_of(const char* what, std::int64_t n) { return std::string(what) + "=" + std::to_string(n); }

}  // namespace test::needle
