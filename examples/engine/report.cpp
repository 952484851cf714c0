// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "report.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace engine {

std::string hex(std::uint64_t v) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(v));
  return text;
}
std::string hex(const bi::contract::request_digest& d) { return hex(d.high) + hex(d.low); }

std::uint64_t from_hex(const std::string& text) {
  std::uint64_t v = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), v, 16);
  if (error != std::errc() || stop != text.data() + text.size() || text.size() != 16) {
    throw std::invalid_argument("\"" + text + "\" must be 16 hexadecimal digits");
  }
  return v;
}

progress_bar::progress_bar() : terminal_(isatty(STDERR_FILENO) != 0), start_(clock::now()), shown_(start_) {}
progress_bar::~progress_bar() {
  if (terminal_ && !silent_) std::fprintf(stderr, "\r\033[K");
}
void progress_bar::begin(std::string label, std::int64_t total) {
  label_ = std::move(label);
  total_ = std::max<std::int64_t>(total, 1);
  start_ = shown_ = clock::now();
}
void progress_bar::show(std::int64_t done) {
  const auto now = clock::now();
  if (silent_ || now - shown_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000))) return;
  shown_ = now;
  const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double left = part > 0.02 ? seconds / part - seconds : 0;
  if (terminal_) {
    const std::string bar = std::string(static_cast<std::size_t>(30 * part), '#');
    std::fprintf(stderr, "\r\033[K[%-30s] %3.0f%%  %s  %.0f s left", bar.c_str(), 100 * part, label_.c_str(), left);
    std::fflush(stderr);
  } else {
    std::fprintf(stderr, "%3.0f%%  %s  %.0f s left\n", 100 * part, label_.c_str(), left);
  }
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  if (!out.flush()) throw std::runtime_error("can't write " + path);
}
std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("can't read " + path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace engine
