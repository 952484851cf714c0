// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "invariance.hpp"
#include "options.hpp"
#include "serving.hpp"

namespace demo {

struct results {
  std::vector<outcome> outcomes;
  std::vector<invariance> operations;
  std::vector<std::pair<std::string, bool>> checks;  // others, as sentences
  double seconds = 0;
};

// What the promise is about: bi's own arm, its operations and the other checks. The baseline has no say.
bool held(const results& r, const traffic& t);

// On stderr: a bar on a terminal, elsewhere a line every few seconds.
class progress_bar {
 public:
  explicit progress_bar(std::int64_t total);
  ~progress_bar();
  // The `done` of the current part; label says which.
  void show(const std::string& label, std::int64_t done);
  void finish_part(std::int64_t part_total) { before_ += part_total; }

 private:
  using clock = std::chrono::steady_clock;
  std::int64_t total_, before_ = 0;
  bool terminal_;
  clock::time_point start_ = clock::now(), shown_;
};

std::string header_text(const options& o, const weights& w);
std::string results_text(const options& o, const results& r);
std::string json_text(const options& o, const weights& w, const results& r);

// What --save writes, as lines of "key: value": all that the digests depend on, then the digests. Without results it has
// the former only.
using record = std::vector<std::pair<std::string, std::string>>;
record make_record(const options& o, const weights& w, const results& r = {});
void save_record(const std::string& file, const record& lines);
record load_record(const std::string& file);
// Empty if the first lines of `theirs` equal `ours`, else a sentence on the first difference.
std::string difference(const record& ours, const record& theirs);

void write_file(const std::string& file, const std::string& text);

}  // namespace demo
