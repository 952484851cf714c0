// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bi/contract/digest.hpp"
#include "json.hpp"

namespace engine {

std::string hex(std::uint64_t v);
std::string hex(const bi::contract::request_digest& d);
// Of what hex() wrote; throws std::invalid_argument.
std::uint64_t from_hex(const std::string& text);

// On a terminal a bar that moves, elsewhere a line every now and then.
class progress_bar {
 public:
  progress_bar();
  ~progress_bar();
  void begin(std::string label, std::int64_t total);
  void show(std::int64_t done);
  void quiet() { silent_ = true; }

 private:
  using clock = std::chrono::steady_clock;
  std::string label_;
  std::int64_t total_ = 0;
  bool terminal_, silent_ = false;
  clock::time_point start_, shown_;
};

// Throws std::runtime_error when it can't.
void write_file(const std::string& path, const std::string& text);
std::string read_file(const std::string& path);

class stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace engine
