// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "engine.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace demo {
namespace {

// All that a request's bits may depend on, its prompt and parameters, the weights and the contracts.
std::uint64_t header(const model& m, const request& r) {
  std::uint64_t h = m.identity();
  const auto absorb = [&](std::uint64_t word) { h = bi::mix64(h + bi::mix64(word + 1)); };
  absorb(bi::bits_of(r.sampling.temperature));
  absorb(static_cast<std::uint32_t>(r.sampling.top_k));
  absorb(bi::bits_of(r.sampling.top_p));
  absorb(r.sampling.seed);
  for (const std::int32_t t : r.prompt) absorb(static_cast<std::uint32_t>(t));
  return h;
}

}  // namespace

page_pool::page_pool(std::int64_t count, random_source& random)
    : random_(random), free_(static_cast<std::size_t>(count)), owner_(static_cast<std::size_t>(count)) {
  std::iota(free_.begin(), free_.end(), 0);
}

std::int32_t page_pool::take(const sequence& owner) {
  if (free_.empty()) throw std::logic_error("page_pool: no page is free");
  const auto last = static_cast<std::int64_t>(free_.size()) - 1;
  std::swap(free_.back(), free_[static_cast<std::size_t>(random_.between(0, last))]);
  const std::int32_t page = free_.back();
  free_.pop_back();
  const sequence*& slot = owner_[static_cast<std::size_t>(page)];
  if (slot != nullptr) throw std::logic_error("page_pool: a page has two owners");
  slot = &owner;
  return page;
}

void page_pool::give_back(std::vector<std::int32_t>& pages, const sequence& owner) {
  for (const std::int32_t page : pages) {
    const sequence*& slot = owner_[static_cast<std::size_t>(page)];
    if (slot != &owner) throw std::logic_error("page_pool: a page came back from one who does not own it");
    slot = nullptr;
    free_.push_back(page);
  }
  pages.clear();
}

engine::engine(model& m, const schedule& s, const std::vector<request>& requests)
    : model_(m), schedule_(s), random_(s.seed), pool_(m.limits().pages, random_), sequences_(requests.size()) {
  for (std::size_t i = 0; i < requests.size(); ++i) {
    sequence& q = sequences_[i];
    q.what = &requests[i];
    q.tokens = requests[i].prompt;
    q.digest = bi::contract::digest_start(header(m, requests[i]));
    const auto longest = static_cast<std::int64_t>(q.tokens.size()) + requests[i].new_tokens;
    if (requests[i].prompt.empty() || requests[i].new_tokens < 1 || longest > m.config().max_positions ||
        pages_for(longest, m.limits().page_size) > m.limits().pages) {
      throw std::invalid_argument("engine: request " + std::to_string(i) +
                                  " is empty, or longer than the model or the KV cache allows");
    }
    arriving_.push_back(&q);
  }
  if (schedule_.calm) return;
  std::vector<sequence*> order(arriving_.begin(), arriving_.end());
  random_.shuffle(order);
  arriving_.assign(order.begin(), order.end());
  std::int64_t when = 0;
  for (sequence* q : arriving_) {  // bursts: half of the requests arrive together with the one before
    if (random_.chance(50)) when += random_.between(1, 2 * schedule_.arrival_gap - 1);
    q->arrival = when;
  }
}

void engine::admit() {
  if (running_.empty() && waiting_.empty() && !arriving_.empty()) clock_ = std::max(clock_, arriving_.front()->arrival);
  while (!arriving_.empty() && arriving_.front()->arrival <= clock_) {
    waiting_.push_back(arriving_.front());
    arriving_.pop_front();
  }
  while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < model_.limits().requests) {
    running_.push_back(waiting_.front());
    waiting_.pop_front();
  }
}

// Its tokens stay, sampled ones included; their K and V will be computed again, by prefill now.
void engine::preempt(sequence& s) {
  stats_.recomputed += s.computed;
  ++stats_.preemptions;
  ++s.preemptions;
  s.computed = 0;
  pool_.give_back(s.pages, s);
  running_.erase(std::find(running_.begin(), running_.end(), &s));
  waiting_.push_front(&s);
}

void engine::preempt_at_random() {
  if (schedule_.calm || running_.size() < 2 || !random_.chance(schedule_.preempt_percent)) return;
  sequence& s = *running_[static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(running_.size()) - 1))];
  if (s.computed > 0 && s.preemptions < 3) preempt(s);
}

// Pages for the first `tokens` tokens of s. When none is free, the request that arrived last and is not in this batch
// loses its pages; if that is s itself, s has to wait. The one that arrived first never loses any, so all get done.
bool engine::reserve(sequence& s, std::int64_t tokens, const std::vector<part>& parts) {
  const auto needed = static_cast<std::size_t>(pages_for(tokens, model_.limits().page_size));
  while (s.pages.size() < needed) {
    if (!pool_.empty()) {
      s.pages.push_back(pool_.take(s));
      continue;
    }
    sequence* victim = &s;
    for (sequence* other : running_) {
      const bool scheduled = std::any_of(parts.begin(), parts.end(), [&](const part& p) { return p.s == other; });
      if (!scheduled && !other->pages.empty() && other->arrival > victim->arrival) victim = other;
    }
    ++stats_.preemptions_for_pages;
    preempt(*victim);
    if (victim == &s) return false;
  }
  return true;
}

std::vector<engine::part> engine::choose() {
  std::vector<sequence*> order = running_;
  std::int64_t budget = model_.limits().rows;
  if (!schedule_.calm) {
    random_.shuffle(order);
    budget = random_.between(1, budget);
  }
  std::vector<part> parts;
  for (sequence* s : order) {
    if (budget == 0) break;
    if (std::find(running_.begin(), running_.end(), s) == running_.end()) continue;  // preempted a moment ago
    std::int64_t count = std::min(static_cast<std::int64_t>(s->tokens.size()) - s->computed, budget);
    if (!schedule_.calm && count > 1) count = random_.between(1, count);  // a chunk of the prefill
    if (!reserve(*s, s->computed + count, parts)) continue;
    parts.push_back({s, count});
    budget -= count;
  }
  return parts;
}

batch engine::assemble(const std::vector<part>& parts) {
  const std::int64_t page_size = model_.limits().page_size;
  batch b;
  b.fused = schedule_.calm || random_.chance(50);
  b.q_start.push_back(0);
  for (const part& p : parts) {
    const sequence& s = *p.s;
    const std::int64_t end = s.computed + p.count;
    for (std::int64_t i = s.computed; i < end; ++i) {
      const std::int64_t page = s.pages[static_cast<std::size_t>(i / page_size)];
      b.token.push_back(s.tokens[static_cast<std::size_t>(i)]);
      b.position.push_back(static_cast<std::int32_t>(i));
      b.slot.push_back(page * page_size + i % page_size);
    }
    b.q_start.push_back(static_cast<std::int32_t>(b.token.size()));
    b.len.push_back(static_cast<std::int32_t>(end));
    b.pages.push_back(s.pages);
    if (end < static_cast<std::int64_t>(s.tokens.size())) continue;
    b.logits_row.push_back(static_cast<std::int32_t>(b.token.size()) - 1);
    b.params.push_back(s.what->sampling);
    b.params.back().ordinal = static_cast<std::uint32_t>(end);
  }
  return b;
}

void engine::commit(const std::vector<part>& parts, const step_result& r) {
  std::int64_t rows = 0;
  for (const part& p : parts) rows += p.count;
  std::size_t next = 0;
  for (const part& p : parts) {
    sequence& s = *p.s;
    s.batch_rows.insert(rows);
    s.computed += p.count;
    s.most_computed = std::max(s.most_computed, s.computed);
    if (s.computed < static_cast<std::int64_t>(s.tokens.size())) continue;
    const std::int32_t token = r.token.at(next);
    const std::uint64_t logits = r.logits_digest.at(next);
    ++next;
    s.tokens.push_back(token);
    s.logits_digest.push_back(logits);
    s.digest = bi::contract::digest_token(s.digest, token, logits);
    if (static_cast<std::int64_t>(s.logits_digest.size()) < s.what->new_tokens) continue;
    s.kv_digest = model_.digest_kv(s.pages, s.computed);
    s.finished = true;
    pool_.give_back(s.pages, s);
    running_.erase(std::find(running_.begin(), running_.end(), &s));
  }
  stats_.rows += rows;
  ++stats_.steps;
}

bool engine::step() {
  admit();
  if (running_.empty()) return false;
  preempt_at_random();
  const std::vector<part> parts = choose();
  if (!parts.empty()) commit(parts, model_.forward(assemble(parts)));
  ++clock_;
  return true;
}

void engine::run(const std::function<void(std::int64_t tokens)>& progress) {
  while (step()) {
    if (progress) progress(stats_.rows - stats_.recomputed);
  }
}

std::vector<std::uint64_t> score(model& m, const std::vector<std::int32_t>& tokens, std::int64_t first) {
  const model_limits& limits = m.limits();
  const auto count = static_cast<std::int64_t>(tokens.size());
  std::vector<std::int32_t> pages(static_cast<std::size_t>(pages_for(count, limits.page_size)));
  std::iota(pages.begin(), pages.end(), 0);
  std::vector<std::uint64_t> out;
  for (std::int64_t begin = 0; begin < count;) {
    // All rows of logits that a step may have, unless it ends before the first wanted one.
    const std::int64_t most = begin < first ? first - begin : limits.requests;
    const std::int64_t end = std::min({count, begin + limits.rows, begin + most});
    batch b;
    for (std::int64_t i = begin; i < end; ++i) {
      b.token.push_back(tokens[static_cast<std::size_t>(i)]);
      b.position.push_back(static_cast<std::int32_t>(i));
      b.slot.push_back(i);
      if (i < first) continue;
      b.logits_row.push_back(static_cast<std::int32_t>(i - begin));
      b.params.push_back({});
    }
    b.q_start = {0, static_cast<std::int32_t>(end - begin)};
    b.len = {static_cast<std::int32_t>(end)};
    b.pages = {pages};
    const std::vector<std::uint64_t> digests = m.forward(b).logits_digest;
    out.insert(out.end(), digests.begin(), digests.end());
    begin = end;
  }
  return out;
}

}  // namespace demo
