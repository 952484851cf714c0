// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// The products to measure: weights [n, k] and the numbers of tokens. Whatever is wrong with a file is an
// invalid_argument whose text is for the user.
namespace bench {

struct product_shape {
  std::int64_t n = 0, k = 0;
  std::vector<std::int64_t> m;
};

inline double flops(std::int64_t m, std::int64_t n, std::int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

// Equal weights stand in memory several times and take turns, 200 MB and more in all, so that none is in the L2 cache when
// its turn comes.
inline std::int64_t weight_copies(std::int64_t n, std::int64_t k) {
  return std::max<std::int64_t>(2, 200000000 / (n * k * 2) + 1);
}

// About what a product of 16-bit elements takes.
inline double expected_us(std::int64_t m, std::int64_t n, std::int64_t k) {
  return std::max(flops(m, n, k) / 7e8, static_cast<double>(n * k * 2) / 2.5e6);
}

// Logits are wanted of the last tokens of the sequences alone, so a vocabulary stops at 1024.
inline std::vector<std::int64_t> default_tokens(std::int64_t n) {
  std::vector<std::int64_t> m = {1, 8, 16, 32, 64, 128, 256, 512, 1024};
  if (n < 100000) m.insert(m.end(), {2048, 4096, 8192});
  return m;
}

// Each product once, each number of tokens once.
inline void add_shape(std::vector<product_shape>& shapes, std::int64_t n, std::int64_t k,
                      const std::vector<std::int64_t>& tokens) {
  auto found = std::find_if(shapes.begin(), shapes.end(), [&](const auto& s) { return s.n == n && s.k == k; });
  if (found == shapes.end()) found = shapes.insert(found, {n, k, {}});
  for (const std::int64_t m : tokens) {
    if (std::find(found->m.begin(), found->m.end(), m) == found->m.end()) found->m.push_back(m);
  }
}

// The projections of an 8B model, those of a 70B model cut over eight GPUs, and a square.
inline std::vector<product_shape> default_shapes() {
  constexpr std::int64_t weights[][2] = {{6144, 4096}, {4096, 4096}, {24576, 4096}, {4096, 12288}, {151936, 4096},
                                         {7168, 8192}, {1280, 8192}, {8192, 1024},  {8192, 3584},  {8192, 8192}};
  std::vector<product_shape> shapes;
  for (const auto& w : weights) add_shape(shapes, w[0], w[1], default_tokens(w[0]));
  return shapes;
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) throw std::invalid_argument("can't read " + path);
  return text;
}

// A whole number in [1, 2^31), or nothing.
inline std::optional<std::int64_t> parse_size(const std::string& text) {
  std::int64_t x = 0;
  const char* end = text.data() + text.size();
  const auto [at, code] = std::from_chars(text.data(), end, x);
  if (code != std::errc{} || at != end || x < 1 || x >= (std::int64_t{1} << 31)) return std::nullopt;
  return x;
}

// Lines "N K M [M...]"; what follows a # is a comment.
inline void add_shapes_file(std::vector<product_shape>& shapes, const std::string& path) {
  std::istringstream lines(read_text(path));
  std::string line;
  bool found = false;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::vector<std::int64_t> sizes;
    for (std::string word; words >> word;) {
      const auto size = parse_size(word);
      if (!size) {
        throw std::invalid_argument(path + ":" + std::to_string(number) + ": '" + word +
                                    "' is not a whole number from 1 to 2147483647");
      }
      sizes.push_back(*size);
    }
    if (sizes.empty()) continue;
    if (sizes.size() < 3) throw std::invalid_argument(path + ":" + std::to_string(number) + ": expected N K M [M...]");
    add_shape(shapes, sizes[0], sizes[1], {sizes.begin() + 2, sizes.end()});
    found = true;
  }
  if (!found) throw std::invalid_argument(path + " names no shapes");
}

// The whole numbers of a JSON document by their path: "hidden_size", "text_config/hidden_size". All else is skipped.
class json_numbers {
 public:
  explicit json_numbers(const std::string& text) : text_(text) {
    value("", 0);
    space();
    if (at_ != text_.size()) fail();
  }
  const std::map<std::string, std::int64_t>& numbers() const { return numbers_; }

 private:
  [[noreturn]] void fail() const { throw std::invalid_argument("no JSON at byte " + std::to_string(at_)); }
  void space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }
  char peek() {
    space();
    if (at_ == text_.size()) fail();
    return text_[at_];
  }
  void expect(char c) {
    if (peek() != c) fail();
    ++at_;
  }
  std::string string() {
    expect('"');
    std::string s;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') ++at_;  // the names asked for hold no escapes
      if (at_ < text_.size()) s += text_[at_];
    }
    expect('"');
    return s;
  }
  void value(const std::string& path, int depth) {
    if (depth > 64) fail();
    const char c = peek();
    if (c == '"') {
      string();
    } else if (c == '{' || c == '[') {
      const char close = c == '{' ? '}' : ']';
      ++at_;
      if (peek() == close) {
        ++at_;
        return;
      }
      for (;; ++at_) {
        std::string name;
        if (c == '{') {
          name = string();
          expect(':');
        }
        value(path.empty() ? name : path + "/" + name, depth + 1);
        if (peek() == close) break;
        if (peek() != ',') fail();
      }
      ++at_;
    } else {
      const std::size_t begin = at_;
      while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                    std::string("+-.").find(text_[at_]) != std::string::npos)) {
        ++at_;
      }
      if (at_ == begin) fail();
      if (const auto size = parse_size(text_.substr(begin, at_ - begin))) numbers_[path] = *size;
    }
  }

  const std::string& text_;
  std::size_t at_ = 0;
  std::map<std::string, std::int64_t> numbers_;
};

// The projections of a model from its Hugging Face config.json: qkv, o, gate_up, down and lm_head.
inline void add_config(std::vector<product_shape>& shapes, const std::string& path) {
  const std::string text = read_text(path);
  std::map<std::string, std::int64_t> numbers;
  try {
    numbers = json_numbers(text).numbers();
  } catch (const std::invalid_argument& e) {
    throw std::invalid_argument(path + ": " + e.what());
  }
  const auto find = [&](const std::string& name) -> std::optional<std::int64_t> {
    for (const std::string& place : {name, "text_config/" + name}) {
      if (const auto it = numbers.find(place); it != numbers.end()) return it->second;
    }
    return std::nullopt;
  };
  const auto need = [&](const std::string& name) {
    const auto x = find(name);
    if (!x) throw std::invalid_argument(path + " has no " + name + " that is a whole number from 1 to 2147483647");
    return *x;
  };
  const std::int64_t hidden = need("hidden_size"), heads = need("num_attention_heads");
  const std::int64_t kv_heads = find("num_key_value_heads").value_or(heads);
  const std::int64_t head_dim = find("head_dim").value_or(hidden / heads);
  const std::int64_t intermediate = need("intermediate_size"), vocab = need("vocab_size");
  const std::pair<std::int64_t, std::int64_t> products[] = {{(heads + 2 * kv_heads) * head_dim, hidden},
                                                            {hidden, heads * head_dim},
                                                            {2 * intermediate, hidden},
                                                            {hidden, intermediate},
                                                            {vocab, hidden}};
  for (const auto& [n, k] : products) {
    if (n < 1 || k < 1 || n >= (std::int64_t{1} << 31) || k >= (std::int64_t{1} << 31)) {
      throw std::invalid_argument(path + ": a projection of " + std::to_string(n) + " x " + std::to_string(k) +
                                  " is out of range");
    }
    add_shape(shapes, n, k, default_tokens(n));
  }
}

}  // namespace bench
