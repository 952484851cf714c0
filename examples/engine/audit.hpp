// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "json.hpp"
#include "model.hpp"
#include "request.hpp"

namespace engine {

// What a request's results depend on, as its log line states it.
struct log_header {
  std::vector<std::pair<std::string, std::string>> contracts;
  std::string model;  // digest of the weights
  request what;       // sampling parameters and script
};
log_header header_for(const weights& w, const request& r);

struct log_entry {
  std::int64_t number = 0;
  log_header header;
  request_record record;
};

// One line of JSON for each request. `chain` is the digest of all lines up to this one: a line that was changed, lost or
// moved shows. (Whoever can write the whole log can forge it; seal the last chain elsewhere.)
std::string log_line(const log_entry& e, request_digest& chain);
// Throws std::invalid_argument with a sentence.
std::vector<log_entry> read_log(std::string_view text);

// What does not fit, and where.
struct finding {
  std::string what;  // "header: model digest", "token", "logits", "K and V", ...
  std::string branch;
  std::int64_t step = -1;      // of the branch: tokens drawn before
  std::int64_t position = -1;  // of the token
  std::int64_t layer = -1;
  std::string text() const;
};

// Is it the header that the auditor expects?
std::optional<finding> check_header(const log_header& found, const log_header& expected);
// Does the line fit itself: do its tokens and logits give the digests that it states?
std::optional<finding> check_chain(const log_entry& e, std::uint64_t identity);
// The first thing in the order of positions in which two records of one request differ.
std::optional<finding> first_difference(const request_record& logged, const request_record& replayed);
// Serves the request alone, and compares.
request_record replay(backend& b, const weights& w, const model_limits& l, const request& r);

}  // namespace engine
