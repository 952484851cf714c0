// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace engine {
namespace {

const char* name_of(json::kind k) {
  switch (k) {
    case json::kind::null:
      return "null";
    case json::kind::boolean:
      return "true or false";
    case json::kind::number:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    default:
      return "an object";
  }
}

void expect(const json& j, json::kind k) {
  if (j.type() == k) return;
  throw std::invalid_argument(std::string("is ") + name_of(j.type()) + ", must be " + name_of(k));
}

void write_string(std::string& out, const std::string& text) {
  constexpr const char* digits = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += '\\';
    if (byte < 0x20) {
      out.append("\\u00").append(1, digits[byte / 16]).append(1, digits[byte % 16]);
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace

json::json(double value) : kind_(kind::number) {
  if (!std::isfinite(value)) {  // JSON has no word for it
    kind_ = kind::null;
    return;
  }
  char digits[32];
  text_.assign(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

bool json::boolean() const {
  expect(*this, kind::boolean);
  return text_ == "true";
}

std::int64_t json::integer() const {
  expect(*this, kind::number);
  std::int64_t v = 0;
  const auto [stop, error] = std::from_chars(text_.data(), text_.data() + text_.size(), v);
  if (error != std::errc() || stop != text_.data() + text_.size()) {
    throw std::invalid_argument("= " + text_ + " must be a whole number of 64 bits");
  }
  return v;
}

double json::real() const {
  expect(*this, kind::number);
  double v = 0;
  const auto [stop, error] = std::from_chars(text_.data(), text_.data() + text_.size(), v);
  if (error != std::errc() || stop != text_.data() + text_.size()) {
    throw std::invalid_argument("= " + text_ + " must be a number of double precision");
  }
  return v;
}

const std::string& json::text() const {
  expect(*this, kind::string);
  return text_;
}
const std::vector<json>& json::items() const {
  expect(*this, kind::array);
  return items_;
}
const std::vector<std::pair<std::string, json>>& json::members() const {
  expect(*this, kind::object);
  return members_;
}

const json* json::find(std::string_view name) const {
  for (const auto& [key, value] : members()) {
    if (key == name) return &value;
  }
  return nullptr;
}
const json& json::at(std::string_view name) const {
  const json* j = find(name);
  if (j == nullptr) throw std::invalid_argument("has no member \"" + std::string(name) + "\"");
  return *j;
}

json& json::push(json value) {
  expect(*this, kind::array);
  items_.push_back(std::move(value));
  return *this;
}
json& json::set(std::string name, json value) {
  expect(*this, kind::object);
  for (auto& [key, old] : members_) {
    if (key != name) continue;
    old = std::move(value);
    return *this;
  }
  members_.emplace_back(std::move(name), std::move(value));
  return *this;
}

// indent < 0: one line.
void json::write(std::string& out, int indent) const {
  if (kind_ == kind::null) out += "null";
  if (kind_ == kind::boolean || kind_ == kind::number) out += text_;
  if (kind_ == kind::string) write_string(out, text_);
  if (kind_ != kind::array && kind_ != kind::object) return;
  const bool plain = kind_ == kind::array && std::none_of(items_.begin(), items_.end(), [](const json& j) {
                       return j.kind_ == kind::array || j.kind_ == kind::object;
                     });
  const bool flat = indent < 0 || plain || (items_.empty() && members_.empty());
  const int inner = flat ? -1 : indent + 2;
  const auto separate = [&](bool first) {
    if (!first) out += flat ? ", " : ",";
    if (!flat) out.append("\n").append(static_cast<std::size_t>(inner), ' ');
  };
  out += kind_ == kind::array ? '[' : '{';
  bool first = true;
  for (const json& j : items_) {
    separate(first);
    j.write(out, inner);
    first = false;
  }
  for (const auto& [key, value] : members_) {
    separate(first);
    write_string(out, key);
    out += ": ";
    value.write(out, inner);
    first = false;
  }
  if (!flat) out.append("\n").append(static_cast<std::size_t>(indent), ' ');
  out += kind_ == kind::array ? ']' : '}';
}

std::string json::dump() const {
  std::string out;
  write(out, -1);
  return out;
}
std::string json::pretty() const {
  std::string out;
  write(out, 0);
  return out + "\n";
}

class json_parser {
 public:
  json_parser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  json document() {
    json j = value(0);
    space();
    if (at_ != text_.size()) fail("something follows the value");
    return j;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    throw std::invalid_argument(name_ + ", line " + std::to_string(line) + ": " + what);
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void space() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++at_;
  }

  json value(int depth) {
    if (depth > 100) fail("more than 100 levels");
    space();
    if (take('{')) return object(depth);
    if (take('[')) return array(depth);
    if (peek() == '"') return json(string());
    for (const char* word : {"true", "false", "null"}) {
      const std::string_view w = word;
      if (text_.substr(at_, w.size()) != w) continue;
      at_ += w.size();
      return w == "null" ? json() : json(w == "true");
    }
    return number();
  }

  json object(int depth) {
    json j = json::object();
    space();
    if (take('}')) return j;
    do {
      space();
      if (peek() != '"') fail("a member must begin with its name in quotes");
      std::string key = string();
      if (j.find(key) != nullptr) fail("the name \"" + key + "\" stands twice");
      space();
      if (!take(':')) fail("a colon must follow the name \"" + key + "\"");
      j.members_.emplace_back(std::move(key), value(depth + 1));
      space();
    } while (take(','));
    if (!take('}')) fail("an object must go on with a comma or end with }");
    return j;
  }

  json array(int depth) {
    json j = json::array();
    space();
    if (take(']')) return j;
    do {
      j.items_.push_back(value(depth + 1));
      space();
    } while (take(','));
    if (!take(']')) fail("an array must go on with a comma or end with ]");
    return j;
  }

  bool digits() {
    const std::size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > begin;
  }
  json number() {
    const std::size_t begin = at_;
    (void)take('-');
    bool good = take('0') || digits();
    if (take('.')) good = digits() && good;
    if (take('e') || take('E')) {
      if (!take('+')) (void)take('-');
      good = digits() && good;
    }
    if (!good) fail("no value begins here");
    json j(json::kind::number);
    j.text_ = text_.substr(begin, at_ - begin);
    return j;
  }

  unsigned hex4() {
    unsigned v = 0;
    const char* begin = text_.data() + at_;
    const auto [stop, error] = std::from_chars(begin, text_.data() + std::min(at_ + 4, text_.size()), v, 16);
    if (error != std::errc() || stop != begin + 4) fail("four hexadecimal digits must follow \\u");
    at_ += 4;
    return v;
  }
  void code_point(std::string& out) {
    unsigned v = hex4();
    if (v >= 0xdc00 && v < 0xe000) fail("half of a surrogate pair");
    if (v >= 0xd800 && v < 0xdc00) {
      const unsigned low = take('\\') && take('u') ? hex4() : 0;
      if (low < 0xdc00 || low >= 0xe000) fail("half of a surrogate pair");
      v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    }
    const auto put = [&](unsigned byte) { out += static_cast<char>(byte); };
    if (v < 0x80) return put(v);
    if (v < 0x800) return put(0xc0 | v >> 6), put(0x80 | (v & 0x3f));
    if (v < 0x10000) return put(0xe0 | v >> 12), put(0x80 | (v >> 6 & 0x3f)), put(0x80 | (v & 0x3f));
    put(0xf0 | v >> 18), put(0x80 | (v >> 12 & 0x3f)), put(0x80 | (v >> 6 & 0x3f)), put(0x80 | (v & 0x3f));
  }
  std::string string() {
    std::string out;
    (void)take('"');
    while (!take('"')) {
      if (at_ == text_.size()) fail("a string doesn't end");
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (c != '\\') {
        out += c;
        continue;
      }
      constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      const char escaped = at_ < text_.size() ? text_[at_++] : '\0';
      if (escaped == 'u') {
        code_point(out);
      } else if (const std::size_t i = from.find(escaped); i != std::string_view::npos) {
        out += to[i];
      } else {
        fail("no escape of JSON's follows the backslash");
      }
    }
    return out;
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
};

json parse_json(std::string_view text, const std::string& name) { return json_parser(text, name).document(); }

}  // namespace engine
