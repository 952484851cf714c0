// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "bi/config.hpp"
#include "bi/reference/fp_env.hpp"

BI_NAMESPACE_BEGIN
namespace reference {

// Calls fn(begin, end) on ranges that cover [0, count), each index once, on up to `threads` threads (0: as many as the
// machine has), the caller's among them. Ranges are handed out one after another, so ragged work balances. Which range
// goes where is not defined: fn must not let results depend on it. `grain` is the least number of indices worth a
// range of its own; work that gives only one range runs in the caller. Every call of fn has the contract's
// floating-point environment. The first exception is rethrown here after the threads have ended; ranges not yet
// begun are dropped.
template <class Fn>
void parallel_for(std::int64_t count, int threads, Fn&& fn, std::int64_t grain = 1) {
  if (count <= 0) return;
  grain = std::max<std::int64_t>(grain, 1);
  std::int64_t workers = threads > 0 ? threads : static_cast<std::int64_t>(std::thread::hardware_concurrency());
  workers = std::min(workers, (count - 1) / grain + 1);
  if (workers <= 1) {
    const fp_environment environment;
    fn(std::int64_t{0}, count);
    return;
  }

  // About eight ranges a thread: the last ones to finish are short, and the counter is rarely touched.
  const std::int64_t length = std::max(grain, count / (workers * 8));
  const std::int64_t ranges = (count - 1) / length + 1;
  std::atomic<std::int64_t> next{0};
  std::exception_ptr first_error;
  std::mutex first_error_mutex;
  const auto work = [&]() noexcept {
    const fp_environment environment;
    try {
      for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < ranges;) {
        const std::int64_t begin = i * length;
        fn(begin, std::min(count, begin + length));
      }
    } catch (...) {
      next.store(ranges, std::memory_order_relaxed);
      const std::lock_guard<std::mutex> lock(first_error_mutex);
      if (!first_error) first_error = std::current_exception();
    }
  };

  std::vector<std::thread> pool;
  pool.reserve(static_cast<std::size_t>(workers - 1));
  try {
    while (static_cast<std::int64_t>(pool.size()) + 1 < workers) pool.emplace_back(work);
  } catch (...) {
    // The system gives no more threads: those there are do the work.
  }
  work();
  for (std::thread& t : pool) t.join();
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace reference
BI_NAMESPACE_END
