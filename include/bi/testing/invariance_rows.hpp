// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bi/dtype.hpp"
#include "bi/status.hpp"

// What the checks of bi/testing/invariance.hpp are asked, and what they answer.

BI_NAMESPACE_BEGIN
namespace testing {

// What the function under test is called with: `rows` rows of each array.
class BI_TYPE row_call {
 public:
  row_call(std::int64_t row_count, cuda_stream s, std::vector<void*> arrays)
      : rows(row_count), stream(s), arrays_(std::move(arrays)) {}

  std::int64_t rows;
  cuda_stream stream;  // null on the CPU

  template <class T>
  const T* in(int array) const {
    return static_cast<const T*>(arrays_[static_cast<std::size_t>(array)]);
  }
  template <class T>
  T* out(int array) const {
    return static_cast<T*>(arrays_[static_cast<std::size_t>(array)]);
  }

 private:
  std::vector<void*> arrays_;
};

using row_function = std::function<status(const row_call&)>;

// The rows that batches are made of.
class BI_TYPE rows_under_test {
 public:
  enum class kind : std::uint8_t { numbers, indices, output };
  struct array {
    std::string name;
    kind what;
    std::size_t element_bytes, row_bytes;
    std::uint64_t infinity, largest;   // bits of an element; numbers only
    std::vector<unsigned char> bytes;  // of the pool's rows; empty for outputs
  };

  explicit rows_under_test(std::int64_t pool) : pool_(pool) {}

  // `values` holds pool * cols elements, copied. T: bf16, fp16 or float for numbers, anything for indices. The return
  // value is what row_call::in takes.
  template <class T>
  int numbers(const char* name, const T* values, std::int64_t cols) {
    return add(name, kind::numbers, values, cols, infinity_of(T{}), largest_of(T{}));
  }
  template <class T>
  int indices(const char* name, const T* values, std::int64_t cols) {
    return add(name, kind::indices, values, cols, 0, 0);
  }
  // The return value is what row_call::out takes. Elements that a row does not write must be the same ones in all calls.
  template <class T>
  int output(const char* name, std::int64_t cols) {
    return add<T>(name, kind::output, nullptr, cols, 0, 0);
  }

  std::int64_t pool() const { return pool_; }
  const std::vector<array>& arrays() const { return arrays_; }

 private:
  static std::uint64_t infinity_of(bf16) { return 0x7f80; }
  static std::uint64_t infinity_of(fp16) { return 0x7c00; }
  static std::uint64_t infinity_of(float) { return 0x7f800000; }
  template <class T>
  static std::uint64_t largest_of(T x) {
    return infinity_of(x) - 1;
  }

  template <class T>
  int add(const char* name, kind what, const T* values, std::int64_t cols, std::uint64_t infinity,
          std::uint64_t largest) {
    array a{name, what, sizeof(T), static_cast<std::size_t>(cols) * sizeof(T), infinity, largest, {}};
    if (values != nullptr) {
      a.bytes.resize(a.row_bytes * static_cast<std::size_t>(pool_));
      if (!a.bytes.empty()) std::memcpy(a.bytes.data(), values, a.bytes.size());
    }
    arrays_.push_back(std::move(a));
    return static_cast<int>(arrays_.size()) - 1;
  }

  std::int64_t pool_;
  std::vector<array> arrays_;
};

struct BI_TYPE check_options {
  std::vector<std::int64_t> batches = {2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257};
  std::int64_t position_batch = 67;   // of the checks of positions and neighbours
  std::vector<std::int64_t> watched;  // pool rows that those checks follow; empty: the first three
  int replays = 5;                    // of a graph
  std::uint64_t seed = 1;             // of the batches' order
};

// The first place that differs.
struct BI_TYPE difference {
  const char* check = nullptr;  // as above, or "inputs", "outside", "vacuous"; null: none
  std::int64_t batch = 0;       // rows of the call
  std::int64_t row = 0;         // among them
  std::int64_t pool_row = 0;
  std::string array;
  std::int64_t element = 0;  // of the row
  std::size_t element_bytes = 0;
  std::uint64_t expected = 0, actual = 0;  // bits
};

struct BI_TYPE report {
  status call;  // of the function under test or of its memory; after the first failure nothing is checked
  std::int64_t calls = 0;
  std::int64_t rows = 0;       // compared
  std::int64_t different = 0;  // of them
  std::int64_t replays = 0;    // of graphs
  bool twin = false;           // whether there was one
  difference first;

  explicit operator bool() const { return static_cast<bool>(call) && first.check == nullptr && rows > 0; }
};

// "batch: row 16 (pool row 3) of 17 rows: y[12] = 0x3f81, expected 0x3f80; 5 of 900 rows differ"
inline std::string describe(const report& r) {
  if (!r.call) return bi::describe(r.call);
  char text[400];
  const auto number = [](std::int64_t n) { return static_cast<long long>(n); };
  if (r.first.check == nullptr) {
    std::snprintf(text, sizeof text, "ok: %lld rows in %lld calls and %lld graph replays%s", number(r.rows),
                  number(r.calls), number(r.replays), r.twin ? ", equal to the CPU twin" : "");
    return text;
  }
  const difference& d = r.first;
  if (std::strcmp(d.check, "vacuous") == 0) return "vacuous: all rows have the same outputs, so nothing was checked";
  const int digits = 2 * static_cast<int>(d.element_bytes);
  std::snprintf(text, sizeof text,
                "%s: row %lld (pool row %lld) of %lld rows: %s[%lld] = 0x%0*llx, expected 0x%0*llx; %lld of %lld rows "
                "differ",
                d.check, number(d.row), number(d.pool_row), number(d.batch), d.array.c_str(), number(d.element), digits,
                static_cast<unsigned long long>(d.actual), digits, static_cast<unsigned long long>(d.expected),
                number(r.different), number(r.rows));
  return text;
}

// Where the arrays of a call live. read() waits for the calls before it.
class BI_TYPE memory {
 public:
  memory() = default;
  memory(const memory&) = delete;
  memory& operator=(const memory&) = delete;
  virtual ~memory() = default;
  virtual void* allocate(std::size_t bytes, status& st) = 0;  // aligned to 256 bytes; freed with the memory
  virtual status write(void* to, const void* from, std::size_t bytes) = 0;
  virtual status read(void* to, const void* from, std::size_t bytes) = 0;
  virtual cuda_stream stream() const { return nullptr; }
  virtual bool has_graphs() const { return false; }
  // Records what `work` enqueues, without running it; then runs it, any number of times.
  virtual status capture(const std::function<status()>&) { return {}; }
  virtual status replay() { return {}; }
};

class BI_TYPE host_memory : public memory {
 public:
  void* allocate(std::size_t bytes, status&) override {
    constexpr std::size_t alignment = 256;
    buffers_.push_back(std::make_unique<unsigned char[]>(bytes + alignment));
    void* p = buffers_.back().get();
    std::size_t space = bytes + alignment;
    return std::align(alignment, bytes, p, space);
  }
  status write(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return {};
  }
  status read(void* to, const void* from, std::size_t bytes) override { return write(to, from, bytes); }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> buffers_;
};

}  // namespace testing
BI_NAMESPACE_END
