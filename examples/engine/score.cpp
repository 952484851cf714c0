// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "score.hpp"

#include <algorithm>
#include <stdexcept>

namespace engine {
namespace {

class scorer {
 public:
  scorer(model& m, const request_record& record) : model_(m), record_(record), steps_(record.branches.size()) {}

  // The runs of the branch's own tokens, and of those that joined it.
  std::vector<bi::kv_run> branch(const script& what, std::vector<bi::kv_run> view) {
    const std::size_t number = next_branch_++;
    const branch_record& b = record_.branches.at(number);
    std::size_t next_segment = 0;
    std::vector<bi::kv_run> own;
    const auto go_on = [&](const std::vector<bi::kv_run>& runs) {
      own.insert(own.end(), runs.begin(), runs.end());
      view.insert(view.end(), runs.begin(), runs.end());
    };
    for (const phase& p : what) {
      if (p.branches.empty()) continue;
      go_on(compute(number, b.segments.at(next_segment++), view));
      std::vector<std::vector<bi::kv_run>> joined;
      for (const script& s : p.branches) joined.push_back(branch(s, view));
      if (p.kind == phase::fork::samples) return own;
      for (const std::vector<bi::kv_run>& runs : joined) go_on(runs);
    }
    go_on(compute(number, b.segments.at(next_segment), view));
    return own;
  }

  std::vector<step_record> result() const {
    std::vector<step_record> all;
    for (const std::vector<step_record>& s : steps_) all.insert(all.end(), s.begin(), s.end());
    return all;
  }

 private:
  std::vector<bi::kv_run> compute(std::size_t number, const segment_record& s, const std::vector<bi::kv_run>& view) {
    const branch_record& b = record_.branches[number];
    // Of the last token nothing is asked.
    const auto count = static_cast<std::int64_t>(s.tokens.size());
    std::int64_t before = 0;
    for (const bi::kv_run& r : view) before += r.length;
    const bi::kv_run own = {static_cast<std::int32_t>(next_slot_), static_cast<std::int32_t>(count)};
    if (next_slot_ + count > model_.limits().pages * model_.limits().page_size) {
      throw std::invalid_argument("score: the sample's tokens don't fit into the cache");
    }
    const std::size_t scored_before = steps_[number].size();
    std::size_t next = scored_before;  // step of the branch
    for (std::int64_t begin = 0; begin < count;) {
      batch x;
      std::int64_t i = begin;
      for (; i < count && x.rows() < model_.limits().rows; ++i) {
        const auto position = static_cast<std::int32_t>(s.first_position + i);
        const bool wanted = next < b.steps.size() && b.step_position[next] == position + 1 && i + 1 < count;
        if (wanted && static_cast<std::int64_t>(x.logits_row.size()) == model_.limits().requests) break;
        x.token.push_back(s.tokens[static_cast<std::size_t>(i)]);
        x.position.push_back(position);
        x.slot.push_back(next_slot_ + i);
        x.run_index.push_back(static_cast<std::int32_t>(i));
        if (!wanted) continue;
        x.logits_row.push_back(static_cast<std::int32_t>(x.rows()) - 1);
        x.params.emplace_back();
        x.target.push_back(b.steps[next++].token);
      }
      x.q_start.push_back(static_cast<std::int32_t>(x.rows()));
      x.len.push_back(static_cast<std::int32_t>(before + i));
      x.runs = view;
      x.runs.push_back({own.slot, static_cast<std::int32_t>(i)});
      x.run_start.push_back(static_cast<std::int32_t>(x.runs.size()));
      const step_result r = model_.forward(x);
      for (std::size_t j = 0; j < x.target.size(); ++j) {
        steps_[number].push_back({x.target[j], r.logprob[j], r.logits_digest[j]});
      }
      begin = i;
    }
    next_slot_ += count;
    return count > 0 ? std::vector<bi::kv_run>{own} : std::vector<bi::kv_run>{};
  }

  model& model_;
  const request_record& record_;
  std::vector<std::vector<step_record>> steps_;  // of each branch
  std::size_t next_branch_ = 0;
  std::int64_t next_slot_ = 0;
};

}  // namespace

std::vector<step_record> score(model& m, const request& r, const request_record& record) {
  scorer s(m, record);
  (void)s.branch(r.what, {});
  return s.result();
}

}  // namespace engine
