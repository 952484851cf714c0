// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "needle/needle.hpp"

namespace test::needle {

// Where rows are compared: which launch, which column, which row and byte of it. The least one is the first found.
struct coordinate {
  std::int64_t launch = 0;
  int column = 0;        // outputs, then inputs
  std::int64_t row = 0;  // zone_row: around the rows
  std::int64_t byte = 0;

  static constexpr std::int64_t zone_row = 0xFFFF;
  std::uint64_t key() const {
    return static_cast<std::uint64_t>(launch) << 44 | static_cast<std::uint64_t>(column) << 40 |
           static_cast<std::uint64_t>(row) << 24 | static_cast<std::uint64_t>(byte);
  }
  static coordinate of(std::uint64_t key) {
    return {static_cast<std::int64_t>(key >> 44), static_cast<int>(key >> 40 & 0xF),
            static_cast<std::int64_t>(key >> 24 & 0xFFFF), static_cast<std::int64_t>(key & 0xFFFFFF)};
  }
};
struct found {
  std::uint64_t bytes = 0;  // that differ
  std::uint64_t first = ~std::uint64_t{0};
};

// Rows in memory.
struct placed {
  unsigned char* data = nullptr;  // of the first row
  std::int64_t bytes = 0;         // of a row
  std::int64_t element_bytes = 1;
  std::int64_t stride = 0;
  bool transposed = false;
  std::int64_t gap = 0;  // bytes after each row that nobody may write

  std::int64_t at(std::int64_t row, std::int64_t byte) const {
    return transposed ? byte / element_bytes * stride + row * element_bytes + byte % element_bytes
                      : row * stride + byte;
  }
};

// Memory, and what is done with it. Work is in order; what collect() and download() return is of all before.
class machine {
 public:
  machine() = default;
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;
  virtual ~machine() = default;

  virtual unsigned char* allocate(std::int64_t bytes) = 0;  // aligned to 256 bytes
  virtual void release_all() = 0;
  virtual void upload(void* to, const void* from, std::int64_t bytes) = 0;
  virtual void download(void* to, const void* from, std::int64_t bytes) = 0;
  virtual void fill(void* p, unsigned char byte, std::int64_t bytes) = 0;
  // Row r of `to` becomes row index[r] of the pool.
  virtual void gather(const placed& to, const unsigned char* pool, const std::int32_t* index, std::int64_t rows) = 0;
  // Row r against row index[r] of `expected`; the gaps against `fill`.
  virtual void compare(const coordinate& from, const placed& rows, const unsigned char* expected,
                       const std::int32_t* index, std::int64_t count, unsigned char fill) = 0;
  virtual void compare_zone(const coordinate& from, const unsigned char* p, std::int64_t bytes, unsigned char fill) = 0;
  virtual found collect() = 0;  // since the last time

  virtual bi::status run(const table& t, const call& c) = 0;
  virtual bi::status run_forced(const table& t, const call& c, std::size_t) { return run(t, c); }
  // A launch that is captured, and launched again by replay() over other data.
  virtual bool has_graphs() const { return false; }
  virtual bi::status capture(const table& t, const call& c) { return run(t, c); }
  virtual bi::status replay() { return {}; }
};

// The reference, on host memory.
class host_machine : public machine {
 public:
  unsigned char* allocate(std::int64_t bytes) override {
    // Sizes are multiples of 256 where what ends with the memory matters.
    const auto size = bytes == 0 ? 256 : (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
    void* p = std::aligned_alloc(256, size);
    if (p == nullptr) throw std::bad_alloc();
    buffers_.emplace_back(static_cast<unsigned char*>(p));
    return buffers_.back().get();
  }
  void release_all() override { buffers_.clear(); }
  void upload(void* to, const void* from, std::int64_t bytes) override { copy(to, from, bytes); }
  void download(void* to, const void* from, std::int64_t bytes) override { copy(to, from, bytes); }
  void fill(void* p, unsigned char byte, std::int64_t bytes) override {
    std::memset(p, byte, static_cast<std::size_t>(bytes));
  }
  void gather(const placed& to, const unsigned char* pool, const std::int32_t* index, std::int64_t rows) override {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < to.bytes; ++i) to.data[to.at(r, i)] = pool[index[r] * to.bytes + i];
    }
  }
  void compare(const coordinate& from, const placed& rows, const unsigned char* expected, const std::int32_t* index,
               std::int64_t count, unsigned char fill) override {
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t i = 0; i < rows.bytes + rows.gap; ++i) {
        const unsigned char wanted = i < rows.bytes ? expected[index[r] * rows.bytes + i] : fill;
        if (rows.data[rows.at(r, i)] != wanted) note({from.launch, from.column, r, i});
      }
    }
  }
  void compare_zone(const coordinate& from, const unsigned char* p, std::int64_t bytes, unsigned char fill) override {
    for (std::int64_t i = 0; i < bytes; ++i) {
      if (p[i] != fill) note({from.launch, from.column, coordinate::zone_row, i});
    }
  }
  found collect() override {
    const found f = found_;
    found_ = {};
    return f;
  }
  bi::status run(const table& t, const call& c) override { return t.reference(c); }

 private:
  struct release {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  static void copy(void* to, const void* from, std::int64_t bytes) {
    if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  void note(const coordinate& c) {
    found_.bytes += 1;
    if (c.key() < found_.first) found_.first = c.key();
  }

  std::vector<std::unique_ptr<unsigned char, release>> buffers_;
  found found_;
};

}  // namespace test::needle
