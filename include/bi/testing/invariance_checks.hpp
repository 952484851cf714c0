// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "bi/contract/id.hpp"
#include "bi/status.hpp"
#include "bi/testing/invariance_rows.hpp"

// The checks that bi/testing/invariance.hpp lists.

BI_NAMESPACE_BEGIN
namespace testing {
namespace detail {

// Rows of a batch: those of the pool by number, or a filling.
enum filling : std::int64_t { zeros = -1, largest = -2, infinities = -3, nans = -4 };
inline constexpr std::int64_t all_fillings[] = {zeros, largest, infinities, nans};

class BI_TYPE checker {
 public:
  checker(const rows_under_test& rows, row_function run, memory& m, const check_options& options)
      : rows_(rows), run_(std::move(run)), memory_(m), options_(options), state_(options.seed) {}

  report result(const row_function* twin);

 private:
  using bytes = std::vector<unsigned char>;
  using batch = std::vector<std::int64_t>;
  static constexpr std::size_t guard = 256;
  static constexpr unsigned char guard_byte = 0x5A, poison_byte = 0xFF;

  bool going() const { return static_cast<bool>(report_.call); }
  void note(const status& st) {
    if (report_.call && !st) report_.call = st;
  }
  std::int64_t below(std::int64_t n) {
    state_ += 0x9E3779B97F4A7C15u;
    return static_cast<std::int64_t>(mix64(state_) % static_cast<std::uint64_t>(n));
  }
  // A random row of the pool, other than `not_this` where there is another.
  std::int64_t any(std::int64_t not_this = -1) {
    const std::int64_t row = below(rows_.pool());
    return row == not_this ? (row + 1) % rows_.pool() : row;
  }

  void allocate();
  bytes image(const rows_under_test::array& a, const batch& b) const;
  void fill_row(const rows_under_test::array& a, std::int64_t row, unsigned char* to) const;
  void upload(const batch& b);
  void compare(const char* check, const batch& b);
  void differ(const char* check, const batch& b, std::size_t row, std::size_t array, const unsigned char* expected,
              const unsigned char* actual, std::size_t count);
  void call_and_compare(const char* check, const batch& b);
  void compute_alone();
  void check_twin(const row_function& twin);
  void check_graph(std::int64_t size);
  row_call arguments(std::size_t count) const {
    std::vector<void*> arrays;
    for (unsigned char* p : device_) arrays.push_back(p + guard);
    return {static_cast<std::int64_t>(count), memory_.stream(), std::move(arrays)};
  }

  const rows_under_test& rows_;
  row_function run_;
  memory& memory_;
  check_options options_;
  std::uint64_t state_;
  std::size_t capacity_ = 0;               // rows of each buffer
  std::vector<unsigned char*> device_;     // a buffer an array: a guard, the rows, a guard
  std::vector<bytes> sent_;                // what each held before the call
  std::vector<std::vector<bytes>> alone_;  // [array][pool row]
  report report_;
};

inline void checker::allocate() {
  std::int64_t most = std::max<std::int64_t>(options_.position_batch, 1);
  for (const std::int64_t n : options_.batches) most = std::max(most, n);
  capacity_ = static_cast<std::size_t>(most);
  for (const auto& a : rows_.arrays()) {
    status st;
    device_.push_back(static_cast<unsigned char*>(memory_.allocate(capacity_ * a.row_bytes + 2 * guard, st)));
    note(st);
    if (!going()) return;
  }
  sent_.resize(rows_.arrays().size());
}

inline void checker::fill_row(const rows_under_test::array& a, std::int64_t row, unsigned char* to) const {
  using kind = rows_under_test::kind;
  // Garbage is for numbers; indices of a row of garbage are those of a row of the pool.
  const std::size_t from = a.row_bytes * static_cast<std::size_t>(row < 0 ? 0 : row);
  if (row >= 0 || a.what == kind::indices) {
    std::copy_n(a.bytes.data() + from, a.row_bytes, to);
    return;
  }
  const std::uint64_t bits = row == zeros     ? 0
                             : row == largest ? a.largest
                             : row == nans    ? ~std::uint64_t{0}
                                              : a.infinity;
  for (std::size_t i = 0; i < a.row_bytes; i += a.element_bytes) std::memcpy(to + i, &bits, a.element_bytes);
}

inline checker::bytes checker::image(const rows_under_test::array& a, const batch& b) const {
  bytes out(capacity_ * a.row_bytes + 2 * guard, guard_byte);
  for (std::size_t r = 0; r < b.size(); ++r) {
    unsigned char* to = out.data() + guard + r * a.row_bytes;
    if (a.what == rows_under_test::kind::output) {
      std::fill_n(to, a.row_bytes, poison_byte);
    } else {
      fill_row(a, b[r], to);
    }
  }
  return out;
}

inline void checker::upload(const batch& b) {
  for (std::size_t i = 0; i < sent_.size() && going(); ++i) {
    sent_[i] = image(rows_.arrays()[i], b);
    note(memory_.write(device_[i], sent_[i].data(), sent_[i].size()));
  }
}

inline void checker::differ(const char* check, const batch& b, std::size_t row, std::size_t array,
                            const unsigned char* expected, const unsigned char* actual, std::size_t count) {
  if (report_.first.check != nullptr) return;
  const std::size_t size = rows_.arrays()[array].element_bytes;
  std::size_t element = 0;
  while ((element + 1) * size < count && std::memcmp(expected + element * size, actual + element * size, size) == 0) {
    ++element;
  }
  difference& d = report_.first;
  d.check = check;
  d.batch = static_cast<std::int64_t>(b.size());
  d.row = static_cast<std::int64_t>(row);
  d.pool_row = row < b.size() ? b[row] : -1;
  d.array = rows_.arrays()[array].name;
  d.element = static_cast<std::int64_t>(element);
  d.element_bytes = std::min(size, sizeof d.expected);
  std::memcpy(&d.expected, expected + element * size, d.element_bytes);
  std::memcpy(&d.actual, actual + element * size, d.element_bytes);
}

// What the call left in memory, against what was there before and against the rows alone.
inline void checker::compare(const char* check, const batch& b) {
  std::vector<bool> wrong(b.size(), false);
  for (std::size_t i = 0; i < sent_.size(); ++i) {
    const auto& a = rows_.arrays()[i];
    bytes got(sent_[i].size());
    note(memory_.read(got.data(), device_[i], got.size()));
    if (!going()) return;
    const bool is_output = a.what == rows_under_test::kind::output;
    for (std::size_t r = 0; r < b.size(); ++r) {
      const unsigned char* actual = got.data() + guard + r * a.row_bytes;
      const unsigned char* before = sent_[i].data() + guard + r * a.row_bytes;
      // A row of garbage has no expected output, and its indices say nothing.
      if (is_output && (b[r] < 0 || alone_.empty())) continue;
      const unsigned char* expected = is_output ? alone_[i][static_cast<std::size_t>(b[r])].data() : before;
      if (a.row_bytes > 0 && std::memcmp(expected, actual, a.row_bytes) != 0) {
        wrong[r] = true;
        differ(is_output ? check : "inputs", b, r, i, expected, actual, a.row_bytes);
      }
    }
    const std::size_t end = guard + b.size() * a.row_bytes;
    const std::size_t parts[2][2] = {{0, guard}, {end, got.size()}};
    for (const auto& part : parts) {
      const std::size_t count = part[1] - part[0];
      if (std::memcmp(sent_[i].data() + part[0], got.data() + part[0], count) == 0) continue;
      differ("outside", b, part[0] == 0 ? 0 : b.size(), i, sent_[i].data() + part[0], got.data() + part[0], count);
      report_.different += 1;
    }
  }
  for (std::size_t r = 0; r < b.size(); ++r) {
    if (b[r] < 0) continue;
    report_.rows += 1;
    report_.different += wrong[r];
  }
}

inline void checker::call_and_compare(const char* check, const batch& b) {
  if (!going()) return;
  upload(b);
  if (going()) note(run_(arguments(b.size())));
  report_.calls += 1;
  if (going()) compare(check, b);
}

inline void checker::compute_alone() {
  std::vector<std::vector<bytes>> alone(rows_.arrays().size());
  for (std::int64_t p = 0; p < rows_.pool() && going(); ++p) {
    call_and_compare("alone", {p});
    for (std::size_t i = 0; i < alone.size() && going(); ++i) {
      bytes row(rows_.arrays()[i].row_bytes);
      note(memory_.read(row.data(), device_[i] + guard, row.size()));
      alone[i].push_back(std::move(row));
    }
  }
  if (!going()) return;
  bool moved = false;
  for (std::size_t i = 0; i < alone.size(); ++i) {
    if (rows_.arrays()[i].what != rows_under_test::kind::output) continue;
    for (const bytes& row : alone[i]) moved = moved || row != alone[i].front();
  }
  if (!moved && report_.first.check == nullptr) report_.first.check = "vacuous";
  alone_ = std::move(alone);
}

inline void checker::check_twin(const row_function& twin) {
  report_.twin = true;
  host_memory host;
  check_options one;
  one.batches = {1};
  one.position_batch = 1;
  checker other(rows_, twin, host, one);
  other.allocate();
  other.compute_alone();
  note(other.report_.call);
  if (!going()) return;
  for (std::int64_t p = 0; p < rows_.pool(); ++p) {
    const auto row = static_cast<std::size_t>(p);
    bool wrong = false;
    for (std::size_t i = 0; i < alone_.size(); ++i) {
      const bytes &expected = other.alone_[i][row], &actual = alone_[i][row];
      if (expected == actual) continue;
      wrong = true;
      differ("cpu twin", {p}, 0, i, expected.data(), actual.data(), expected.size());
    }
    report_.rows += 1;
    report_.different += wrong;
  }
}

inline void checker::check_graph(std::int64_t size) {
  const auto random = [&] {
    batch b;
    for (std::int64_t i = 0; i < size; ++i) b.push_back(any());
    return b;
  };
  const batch first = random();
  upload(first);
  if (going()) note(memory_.capture([&] { return run_(arguments(first.size())); }));
  for (int i = 0; i < options_.replays && going(); ++i) {
    const batch b = i == 0 ? first : random();
    upload(b);
    if (going()) note(memory_.replay());
    report_.replays += 1;
    if (going()) compare("graph", b);
  }
}

inline report checker::result(const row_function* twin) {
  if (rows_.pool() < 2) {
    note({error::too_small, 0, "invariance", "pool", nullptr, rows_.pool(), 2});
    return report_;
  }
  for (const std::int64_t n : options_.batches) {
    if (n < 1) note({error::too_small, 0, "invariance", "batches", nullptr, n, 1});
  }
  if (going()) allocate();
  if (going()) compute_alone();
  if (going() && twin != nullptr) check_twin(*twin);

  batch b;
  for (std::int64_t p = 0; p < rows_.pool() && going(); ++p) call_and_compare("repeat", {p});
  for (const std::int64_t n : options_.batches) {
    b.clear();
    for (std::int64_t i = 0; i < n; ++i) b.push_back(any());
    call_and_compare("batch", b);
  }
  std::vector<std::int64_t> watched = options_.watched;
  for (std::int64_t p = 0; p < std::min<std::int64_t>(3, rows_.pool()) && options_.watched.empty(); ++p) {
    watched.push_back(p);
  }
  const std::int64_t size = std::max<std::int64_t>(options_.position_batch, 1);
  for (const std::int64_t needle : watched) {
    for (const std::int64_t at : {std::int64_t{0}, size - 1, size / 2, below(size), below(size), below(size)}) {
      b.assign(static_cast<std::size_t>(size), 0);
      for (std::int64_t& row : b) row = any(needle);
      b[static_cast<std::size_t>(at)] = needle;
      call_and_compare("position", b);
    }
    for (const std::int64_t neighbour : {needle, zeros + 0, largest + 0, infinities + 0, nans + 0}) {
      for (const std::int64_t at : {std::int64_t{0}, size / 2, size - 1}) {
        b.assign(static_cast<std::size_t>(size), neighbour);
        b[static_cast<std::size_t>(at)] = needle;
        call_and_compare("neighbours", b);
      }
    }
  }
  if (memory_.has_graphs()) {
    for (const std::int64_t n : {std::int64_t{1}, std::min<std::int64_t>(33, size), size}) {
      if (going()) check_graph(n);
    }
  }
  return report_;
}

}  // namespace detail

}  // namespace testing
BI_NAMESPACE_END
