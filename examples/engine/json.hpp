// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace engine {

// A JSON value: what config.json holds and what reports and logs are written as. Members keep their order. What is asked
// of the wrong kind of value throws std::invalid_argument.
class json {
 public:
  enum class kind { null, boolean, number, string, array, object };

  json() = default;
  json(const char* text) : kind_(kind::string), text_(text) {}                 // NOLINT: implicit on purpose
  json(std::string text) : kind_(kind::string), text_(std::move(text)) {}      // NOLINT
  json(bool value) : kind_(kind::boolean), text_(value ? "true" : "false") {}  // NOLINT
  json(double value);                                                          // NOLINT
  template <class Int, std::enable_if_t<std::is_integral_v<Int>, int> = 0>
  json(Int value) : kind_(kind::number), text_(std::to_string(value)) {}  // NOLINT
  static json array() { return json(kind::array); }
  static json object() { return json(kind::object); }

  kind type() const { return kind_; }
  bool is_null() const { return kind_ == kind::null; }
  bool boolean() const;
  std::int64_t integer() const;  // of a number without fraction or exponent
  double real() const;
  const std::string& text() const;
  const std::vector<json>& items() const;
  const std::vector<std::pair<std::string, json>>& members() const;
  const json* find(std::string_view name) const;  // null: no such member
  const json& at(std::string_view name) const;    // throws

  json& push(json value);                   // to an array
  json& set(std::string name, json value);  // in an object, new or anew

  std::string dump() const;    // one line
  std::string pretty() const;  // two spaces a level, arrays of plain values on one line

 private:
  friend class json_parser;
  explicit json(kind k) : kind_(k) {}
  void write(std::string& out, int indent) const;

  kind kind_ = kind::null;
  std::string text_;  // of a string; a number or boolean as written
  std::vector<json> items_;
  std::vector<std::pair<std::string, json>> members_;
};

// RFC 8259 and nothing more: no comments, no trailing commas, no name twice in one object, 100 levels at most. Throws
// std::invalid_argument: "NAME, line 3: ...".
json parse_json(std::string_view text, const std::string& name);

}  // namespace engine
