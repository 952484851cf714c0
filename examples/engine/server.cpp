// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "server.hpp"

#include <algorithm>

#include "bi/contract/digest.hpp"
#include "bi/contract/sample.hpp"

namespace engine {
namespace {

using bi::contract::absorb;

std::int64_t size_of(const std::vector<std::int32_t>& tokens) { return static_cast<std::int64_t>(tokens.size()); }
std::int64_t tokens_of(const std::vector<segment_ptr>& view) {
  std::int64_t sum = 0;
  for (const segment_ptr& s : view) sum += size_of(s->tokens);
  return sum;
}
bool complete(const std::vector<segment_ptr>& view) {
  return std::all_of(view.begin(), view.end(), [](const segment_ptr& s) { return s->pending() == 0; });
}

prefix_cache::key absorb_tokens(prefix_cache::key k, const std::vector<std::int32_t>& tokens, std::size_t begin,
                                std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) k = absorb(k, static_cast<std::uint32_t>(tokens[i]));
  return k;
}

void append_run(std::vector<bi::kv_run>& runs, std::int32_t slot, std::int32_t length) {
  if (!runs.empty() && runs.back().slot + runs.back().length == slot) {
    runs.back().length += length;
  } else {
    runs.push_back({slot, length});
  }
}

[[noreturn]] void refuse(std::size_t request, const std::string& why) {
  throw std::invalid_argument("request " + std::to_string(request) + " " + why);
}

void validate(const script& s, std::size_t request, std::int64_t vocab) {
  bool open = false;  // a token whose logits are not known yet
  for (std::size_t i = 0; i < s.size(); ++i) {
    const phase& p = s[i];
    for (const std::int32_t t : p.forced) {
      if (t < 0 || t >= vocab)
        refuse(request, "has token " + std::to_string(t) + ", which is none of the vocabulary's");
    }
    open = open || !p.forced.empty();
    if (p.sampled < 0) refuse(request, "draws a negative number of tokens");
    if (p.sampled > 0 && !open) refuse(request, "draws a token where none has been fed");
    for (const script& b : p.branches) validate(b, request, vocab);
    open = open && p.branches.empty();
    if (!p.branches.empty() && p.kind == phase::fork::samples && i + 1 < s.size()) {
      refuse(request, "goes on after a fork into samples, which nothing joins");
    }
  }
}

std::int64_t length_of(const script& s) {  // that it adds to a view
  std::int64_t sum = 0;
  for (const phase& p : s) {
    sum += size_of(p.forced) + p.sampled;
    for (const script& b : p.branches) sum += p.kind == phase::fork::paths ? length_of(b) : 0;
  }
  return sum;
}

}  // namespace

std::int64_t longest_view(const script& s) {
  std::int64_t most = 0, now = 0;
  for (const phase& p : s) {
    now += size_of(p.forced) + p.sampled;
    for (const script& b : p.branches) most = std::max(most, now + longest_view(b));
    for (const script& b : p.branches) now += p.kind == phase::fork::paths ? length_of(b) : 0;
    most = std::max(most, now);
  }
  return most;
}

std::int64_t pages_needed(const script& s, std::int64_t page_size) {
  std::int64_t sum = 0, segment = 0;
  const auto close = [&] {
    sum += (segment + page_size - 1) / page_size;
    segment = 0;
  };
  for (const phase& p : s) {
    segment += size_of(p.forced) + p.sampled;
    if (!p.branches.empty()) close();
    for (const script& b : p.branches) sum += pages_needed(b, page_size);
  }
  close();
  return sum;
}

model_limits limits_for(model_limits l, const std::vector<request>& all) {
  std::int64_t sum = 4;
  for (const request& r : all) sum += pages_needed(r.what, l.page_size);
  l.pages = std::min(l.pages, sum);
  return l;
}

std::int64_t tokens_drawn(const script& s) {
  std::int64_t sum = 0;
  for (const phase& p : s) {
    sum += p.sampled;
    for (const script& b : p.branches) sum += tokens_drawn(b);
  }
  return sum;
}

server::server(model& m, const schedule& s, const std::vector<request>& requests)
    : model_(m),
      schedule_(s),
      random_(s.seed),
      pool_(m.limits().pages, random_),
      cache_(pool_),
      records_(requests.size()),
      batch_sizes_(requests.size()) {
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const script& what = requests[i].what;
    if (what.empty() || what.front().forced.empty()) refuse(i, "must begin with a token");
    validate(what, i, m.config().vocab);
    if (longest_view(what) > m.limits().max_view) {
      refuse(i, "has a view of " + std::to_string(longest_view(what)) +
                    " tokens, more than max_view = " + std::to_string(m.limits().max_view));
    }
    if (pages_needed(what, m.limits().page_size) > m.limits().pages) {
      refuse(i, "needs " + std::to_string(pages_needed(what, m.limits().page_size)) + " pages of the cache's " +
                    std::to_string(m.limits().pages));
    }
    requests_.push_back(std::make_unique<live>());
    live& r = *requests_.back();
    r.what = &requests[i];
    r.number = i;
    arriving_.push_back(&r);
  }
  if (schedule_.calm) return;
  std::vector<live*> order(arriving_.begin(), arriving_.end());
  random_.shuffle(order);
  arriving_.assign(order.begin(), order.end());
  std::int64_t when = 0;
  for (live* r : arriving_) {  // bursts: half of the requests arrive together with the one before
    if (schedule_.arrival_gap > 0 && random_.chance(50)) when += random_.between(1, 2 * schedule_.arrival_gap - 1);
    r->arrival = when;
  }
}

// ---- what a request computes: nothing here looks at the schedule's state, but for the order in which branches run

void server::begin_segment(branch& b, std::int64_t first_position) {
  auto s = std::make_shared<segment>();
  s->before = b.view;
  s->name = b.record.name;
  s->first_position = first_position;
  prefix_cache::key base = absorb({}, model_.identity());
  for (const segment_ptr& p : b.view) {
    if (!p->tokens.empty() && p->first_position + size_of(p->tokens) > first_position) {
      throw std::logic_error("server: a token would see one of a later position");
    }
    const prefix_cache::key whole = absorb_tokens(p->page_keys.front(), p->tokens, 0, p->tokens.size());
    base = absorb(absorb(base, whole.low), whole.high);
  }
  s->page_keys.push_back(mistake.token_keys ? prefix_cache::key{}
                                            : absorb(base, static_cast<std::uint64_t>(first_position)));
  s->kv.assign(static_cast<std::size_t>(model_.config().layers), 0);
  s->page_start_kv = s->kv;
  b.view.push_back(s);
  b.owner->segments.push_back(s);
  b.owner->writers.push_back(&b);
}

void server::enter_phase(branch& b) {
  const phase& p = (*b.plan)[b.phase];
  std::vector<std::int32_t>& tokens = b.own().tokens;
  tokens.insert(tokens.end(), p.forced.begin(), p.forced.end());
  b.left = p.sampled;
  b.forked = false;
}

// Goes on as far as is possible without computing anything.
void server::settle(branch& b) {
  while (b.left == 0 && b.open == 0 && !b.ended) {
    const phase& p = (*b.plan)[b.phase];
    if (!p.branches.empty() && !b.forked) {
      if (b.own().pending() > 0) return;
      return fork(b);
    }
    if (b.phase + 1 < b.plan->size()) {
      ++b.phase;
      enter_phase(b);
      continue;
    }
    // Of what joins, the last token is seen as well.
    const bool joins = b.parent != nullptr && (*b.parent->plan)[b.parent->phase].kind == phase::fork::paths;
    if (joins && b.own().pending() > 0) return;
    return end(b);
  }
}

// The branches get the parent's list of segments, not a byte of K or V.
void server::fork(branch& b) {
  const phase& p = (*b.plan)[b.phase];
  const std::int64_t position = b.next_position();
  live& r = *b.owner;
  b.forked = true;
  b.forked_at = clock_;
  b.first_child = b.children.size();
  b.open = static_cast<std::int64_t>(p.branches.size());
  freeze(b);
  ++stats_.forks;
  if (!r.sequential && (b.open > model_.limits().requests || random_.chance(schedule_.fallback_percent))) {
    r.sequential = true;
    r.events.push_back("fallback: from the fork of branch \"" + b.record.name + "\" at position " +
                       std::to_string(position) + " on, one branch at a time");
    ++stats_.fallbacks;
  }
  for (std::size_t i = 0; i < p.branches.size(); ++i) {
    b.children.push_back(std::make_unique<branch>());
    branch& c = *b.children.back();
    const std::size_t index = b.children.size() - 1;
    c.owner = &r;
    c.parent = &b;
    c.index = index;
    c.plan = &p.branches[i];
    const bool paths = p.kind == phase::fork::paths;
    c.path = paths && !mistake.one_stream ? bi::contract::branch_path(b.path, index) : b.path;
    c.sample = paths || mistake.one_stream ? b.sample : static_cast<std::uint32_t>(i);
    c.view = b.view;
    c.digest = bi::contract::digest_fork(b.digest, index);
    c.record.name = b.record.name + (b.record.name.empty() ? "" : ".") + std::to_string(index);
    begin_segment(c, position);
    enter_phase(c);
  }
  for (std::size_t i = b.first_child; i < b.first_child + p.branches.size(); ++i) settle(*b.children[i]);
}

// The parent's list of segments goes on with those of its branches, in the order of the branches.
void server::reduce(branch& b) {
  std::vector<const branch*> order;
  for (std::size_t i = b.first_child; i < b.children.size(); ++i) order.push_back(b.children[i].get());
  if (mistake.swap_branches) std::swap(order.front(), order.back());
  std::vector<request_digest> digests;
  std::vector<std::int64_t> lengths;
  std::vector<segment_ptr> view = b.view;
  std::int64_t position = b.next_position();
  for (const branch* c : order) {
    const std::vector<segment_ptr> own(c->view.begin() + static_cast<std::ptrdiff_t>(b.view.size()), c->view.end());
    view.insert(view.end(), own.begin(), own.end());
    digests.push_back(c->digest);
    lengths.push_back(tokens_of(own));
    position = std::max(position, c->next_position());
    if (schedule_.checked == schedule::check::off) continue;
    const std::vector<bool> good = intact(own);
    for (std::size_t i = 0; i < own.size(); ++i) {
      if (own[i]->pending() == 0 && !good[i]) repair(*b.owner, *own[i]);
    }
  }
  b.digest = bi::contract::digest_merge(b.digest, digests.data(), lengths.data(),
                                        static_cast<std::int64_t>(digests.size()), position);
  b.view = std::move(view);
  ++stats_.reduces;
  begin_segment(b, position + mistake.shift_position);
  settle(b);
}

void server::end(branch& b) {
  b.ended = true;
  freeze(b);
  b.record.digest = b.digest;
  if (b.parent == nullptr) return finish(*b.owner);
  branch& parent = *b.parent;
  const bool joins = (*parent.plan)[parent.phase].kind == phase::fork::paths;
  if (!joins) {
    for (std::size_t i = parent.view.size(); i < b.view.size(); ++i) forget(*b.owner, *b.view[i]);
  }
  if (--parent.open > 0) return;
  if (joins) return reduce(parent);
  settle(parent);
}

// Nothing more will be written to the branch's own segment.
void server::freeze(branch& b) {
  for (std::size_t i = 0; i < b.owner->segments.size(); ++i) {
    if (b.owner->segments[i].get() != &b.own() || b.owner->writers[i] == nullptr) continue;
    b.owner->writers[i] = nullptr;
    const segment& s = b.own();
    b.record.segments.push_back({s.first_position, s.tokens, s.computed, s.kv, s.row_kv});
  }
}

void server::forget(live& r, const segment& s) {
  for (std::size_t i = 0; i < r.segments.size(); ++i) {
    if (r.segments[i].get() != &s) continue;
    for (const std::int32_t page : s.pages) pool_.drop(page);
    r.segments.erase(r.segments.begin() + static_cast<std::ptrdiff_t>(i));
    r.writers.erase(r.writers.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

void server::collect(const branch& b, request_record& to) {
  to.branches.push_back(b.record);
  for (const std::unique_ptr<branch>& c : b.children) collect(*c, to);
}

void server::finish(live& r) {
  request_record& record = records_[r.number];
  collect(r.root, record);
  record.events = r.events;
  record.digest = digest_of(record);
  while (!r.segments.empty()) forget(r, *r.segments.back());
  r.finished = true;
  running_.erase(std::find(running_.begin(), running_.end(), &r));
}

// ---- when, and where: free in all it does

void server::admit() {
  if (running_.empty() && waiting_.empty() && !arriving_.empty()) clock_ = std::max(clock_, arriving_.front()->arrival);
  while (!arriving_.empty() && arriving_.front()->arrival <= clock_) {
    waiting_.push_back(arriving_.front());
    arriving_.pop_front();
  }
  const std::int64_t most = schedule_.running > 0 ? schedule_.running : model_.limits().requests;
  while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < most) {
    live& r = *waiting_.front();
    waiting_.pop_front();
    running_.push_back(&r);
    r.waiting = false;
    if (r.root.plan != nullptr) continue;  // back from a preemption
    r.root.owner = &r;
    r.root.plan = &r.what->what;
    r.root.digest = bi::contract::digest_start(header_of(model_.identity(), *r.what));
    begin_segment(r.root, 0);
    enter_phase(r.root);
  }
}

// Its tokens stay, and so do their digests: the recomputed ones must be the same.
void server::throw_out(segment& s) {
  stats_.recomputed += s.computed;
  if (s.computed > s.thrown_out) {
    s.thrown_out = s.computed;
    s.thrown_out_kv = s.kv;
  }
  for (const std::int32_t page : s.pages) pool_.drop(page);
  s.pages.clear();
  s.row_kv.clear();
  s.computed = 0;
  std::fill(s.kv.begin(), s.kv.end(), 0);
  s.page_start_kv = s.kv;
}

void server::preempt(live& r) {
  ++stats_.preemptions;
  ++r.preemptions;
  for (const segment_ptr& s : r.segments) throw_out(*s);
  running_.erase(std::find(running_.begin(), running_.end(), &r));
  waiting_.push_front(&r);
  r.waiting = true;
}

void server::disturb() {
  if (schedule_.calm || running_.empty()) return;
  const auto any = [&] {
    return running_[static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(running_.size()) - 1))];
  };
  if (random_.chance(schedule_.preempt_percent)) {
    live& r = *any();
    if (running_.size() > 1 && r.preemptions < 3) preempt(r);
  }
  if (random_.chance(schedule_.evict_percent)) {
    live& r = *any();
    const auto last = static_cast<std::int64_t>(r.segments.size()) - 1;
    segment& s = *r.segments[static_cast<std::size_t>(random_.between(0, last))];
    if (s.computed > 0 && s.thrown_out == 0) {
      throw_out(s);
      ++stats_.evictions;
    }
  }
}

bool server::may_run(const branch& b) const {
  using order = schedule::order;
  if (b.parent == nullptr) return true;
  const order o = b.owner->sequential ? order::sequential : schedule_.branches;
  const auto ended = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      if (!b.parent->children[i]->ended) return false;
    }
    return true;
  };
  if (o == order::sequential) return ended(b.parent->first_child, b.index);
  if (o == order::reverse) return ended(b.index + 1, b.parent->children.size());
  const auto place = static_cast<std::int64_t>(b.index - b.parent->first_child);
  return o == order::parallel || clock_ >= b.parent->forked_at + 3 * place;
}

const prefix_cache::key& server::page_key(segment& s, std::size_t page) const {
  const auto size = static_cast<std::size_t>(model_.limits().page_size);
  while (s.page_keys.size() <= page + 1) {
    const std::size_t begin = (s.page_keys.size() - 1) * size;
    s.page_keys.push_back(absorb_tokens(s.page_keys.back(), s.tokens, begin, begin + size));
  }
  return s.page_keys[page + 1];
}

// At least one token is left to be computed.
void server::use_cached_pages(segment& s) {
  if (!schedule_.prefix_cache || s.computed > 0 || !s.pages.empty()) return;
  const std::int64_t size = model_.limits().page_size;
  while (s.computed + size < size_of(s.tokens)) {
    const prefix_cache::entry* e = cache_.find(page_key(s, s.pages.size()));
    if (e == nullptr) return;
    pool_.hold(e->page);
    s.pages.push_back(e->page);
    for (std::size_t l = 0; l < s.kv.size(); ++l) s.kv[l] += e->kv[l];
    s.row_kv.insert(s.row_kv.end(), e->row_kv.begin(), e->row_kv.end());
    s.page_start_kv = s.kv;
    s.computed += size;
    stats_.cached += size;
    if (s.computed >= s.thrown_out) s.thrown_out = 0;
  }
}

std::vector<server::part> server::choose() {
  std::vector<part> work;
  const live* oldest = nullptr;
  for (live* r : running_) {
    if (oldest == nullptr || r->arrival < oldest->arrival) oldest = r;
    for (std::size_t i = 0; i < r->segments.size(); ++i) {
      const segment& s = *r->segments[i];
      branch* writer = r->writers[i];
      if (s.pending() == 0 || (writer != nullptr && !may_run(*writer)) || !complete(s.before)) continue;
      work.push_back({r, r->segments[i], writer, 0});
    }
  }
  std::int64_t budget = model_.limits().rows;
  if (schedule_.calm) {  // decodes first, prefill with what is left
    std::stable_partition(work.begin(), work.end(), [](const part& p) { return p.s->pending() == 1; });
  } else {
    random_.shuffle(work);
    if (random_.chance(schedule_.short_percent)) budget = random_.between(1, budget);
    // The request that arrived first can have all the pages, so it gets done, and then the next.
    std::stable_partition(work.begin(), work.end(), [&](const part& p) { return p.owner == oldest; });
  }
  std::vector<part> parts;
  for (part& p : work) {
    if (budget == 0 || static_cast<std::int64_t>(parts.size()) == model_.limits().requests) break;
    if (p.owner->waiting || !complete(p.s->before)) continue;  // thrown out a moment ago
    use_cached_pages(*p.s);
    p.count = std::min(p.s->pending(), budget);
    if (schedule_.chunk > 0) p.count = std::min(p.count, schedule_.chunk);
    if (!schedule_.calm && p.count > 1) p.count = random_.between(1, p.count);
    if (!reserve(p, parts)) continue;
    budget -= p.count;
    parts.push_back(p);
  }
  return parts;
}

bool server::reserve(const part& p, const std::vector<part>& parts) {
  const std::int64_t size = model_.limits().page_size;
  const auto needed = static_cast<std::size_t>((p.s->computed + p.count + size - 1) / size);
  while (p.s->pages.size() < needed) {
    if (pool_.empty() && !make_room(*p.owner, parts)) return false;
    p.s->pages.push_back(pool_.take());
  }
  return true;
}

// Pages that only the prefix cache holds go first, then those of the request that arrived last and has no part in this
// step.
bool server::make_room(const live& owner, const std::vector<part>& parts) {
  while (pool_.empty()) {
    if (cache_.evict_some()) continue;
    live* victim = nullptr;
    for (live* r : running_) {
      const bool taken =
          r == &owner || std::any_of(parts.begin(), parts.end(), [&](const part& p) { return p.owner == r; });
      const bool holds =
          std::any_of(r->segments.begin(), r->segments.end(), [](const segment_ptr& s) { return !s->pages.empty(); });
      if (taken || !holds) continue;
      if (victim == nullptr || r->arrival > victim->arrival) victim = r;
    }
    if (victim == nullptr) return false;
    preempt(*victim);
  }
  return true;
}

std::vector<bi::kv_run> server::runs_of(const segment& s, std::int64_t count) const {
  const std::int64_t size = model_.limits().page_size;
  std::vector<bi::kv_run> runs;
  for (std::int64_t i = 0; i < count; i += size) {
    const auto page = static_cast<std::size_t>(i / size);
    if (page >= s.pages.size()) throw damaged("branch \"" + s.name + "\" has lost a run of its view");
    append_run(runs, static_cast<std::int32_t>(s.pages[page] * size),
               static_cast<std::int32_t>(std::min(size, count - i)));
  }
  return runs;
}

batch server::assemble(const std::vector<part>& parts) {
  const std::int64_t size = model_.limits().page_size;
  batch b;
  for (const part& p : parts) {
    const segment& s = *p.s;
    const std::int64_t end = s.computed + p.count, before = tokens_of(s.before);
    for (std::int64_t i = s.computed; i < end; ++i) {
      const std::int64_t page = s.pages[static_cast<std::size_t>(i / size)];
      b.token.push_back(s.tokens[static_cast<std::size_t>(i)]);
      b.position.push_back(static_cast<std::int32_t>(s.first_position + i));
      b.slot.push_back(page * size + i % size);
      b.run_index.push_back(static_cast<std::int32_t>(i));
    }
    b.q_start.push_back(static_cast<std::int32_t>(b.rows()));
    b.len.push_back(static_cast<std::int32_t>(before + end));
    std::vector<bi::kv_run> view;
    for (const segment_ptr& e : s.before) {
      for (const bi::kv_run& r : runs_of(*e, e->computed)) append_run(view, r.slot, r.length);
    }
    for (const bi::kv_run& r : runs_of(s, end)) append_run(view, r.slot, r.length);
    b.runs.insert(b.runs.end(), view.begin(), view.end());
    b.run_start.push_back(static_cast<std::int32_t>(b.runs.size()));
    if (p.writer == nullptr || p.writer->left == 0 || end < size_of(s.tokens)) continue;
    b.logits_row.push_back(static_cast<std::int32_t>(b.rows()) - 1);
    b.params.push_back(p.owner->what->sampling);
    b.params.back().branch = p.writer->path;
    b.params.back().sample_index = p.writer->sample;
    b.params.back().ordinal = static_cast<std::uint32_t>(before + end);
  }
  b.grouped = schedule_.grouped;
  if (schedule_.pad_to > 0) b.pad_to = (b.rows() + schedule_.pad_to - 1) / schedule_.pad_to * schedule_.pad_to;
  return b;
}

void server::add_row(segment& s, const step_result& r, std::int64_t row, std::int64_t rows) {
  const std::int64_t size = model_.limits().page_size;
  for (std::size_t l = 0; l < s.kv.size(); ++l) {
    const std::uint64_t term = r.kv(static_cast<std::int64_t>(l), row, rows);
    s.kv[l] += term;
    if (schedule_.keep_rows) s.row_kv.push_back(term);
  }
  ++s.computed;
  if (s.computed == s.thrown_out) {
    if (s.kv != s.thrown_out_kv) ++stats_.unlike_record;
    if (s.kv != s.thrown_out_kv && schedule_.checked != schedule::check::off) {
      throw damaged("branch \"" + s.name + "\": K and V computed again differ from their record");
    }
    s.thrown_out = 0;
  }
  if (s.computed % size != 0) return;
  if (schedule_.prefix_cache) {
    prefix_cache::entry e;
    const auto page = static_cast<std::size_t>(s.computed / size - 1);
    e.page = s.pages[page];
    e.kv = s.kv;
    for (std::size_t l = 0; l < e.kv.size(); ++l) e.kv[l] -= s.page_start_kv[l];
    if (schedule_.keep_rows) {
      const auto tail = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(size) * s.kv.size());
      e.row_kv.assign(s.row_kv.end() - tail, s.row_kv.end());
    }
    cache_.insert(page_key(s, page), std::move(e));
  }
  s.page_start_kv = s.kv;
}

void server::commit(const std::vector<part>& parts, const batch& b, const step_result& r) {
  std::int64_t row = 0;
  std::vector<bool> drawn;
  for (const part& p : parts) {
    for (std::int64_t i = 0; i < p.count; ++i) add_row(*p.s, r, row++, b.rows());
    batch_sizes_[p.owner->number].insert(b.rows());
    drawn.push_back(p.writer != nullptr && p.writer->left > 0 && p.s->pending() == 0);
  }
  stats_.rows += b.rows();
  ++stats_.steps;
  std::size_t next = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].writer == nullptr) continue;
    branch& w = *parts[i].writer;
    if (drawn[i]) {
      const step_record record = {r.token.at(next), r.logprob.at(next), r.logits_digest.at(next)};
      ++next;
      if (record.token < 0) throw std::runtime_error("a row of logits without a candidate");
      w.record.steps.push_back(record);
      w.record.step_position.push_back(static_cast<std::int32_t>(w.next_position()));
      w.digest = bi::contract::digest_token(w.digest, record.token, record.logits);
      w.own().tokens.push_back(record.token);
      --w.left;
      ++sampled_;
    }
    settle(w);
  }
}

// ---- K and V against their record

std::vector<bool> server::intact(const std::vector<segment_ptr>& segments) {
  const std::int64_t size = model_.limits().page_size;
  const model_config& c = model_.config();
  const std::uint64_t bytes = bi::contract::kv_token_bytes(c.heads_kv, c.head_dim, 2);
  std::vector<bool> good;
  std::vector<std::size_t> read;
  std::vector<std::vector<bi::kv_run>> runs;
  for (const segment_ptr& s : segments) {
    const auto held = [&](std::int32_t page) { return pool_.holders(page) > 0; };
    good.push_back(static_cast<std::int64_t>(s->pages.size()) * size >= s->computed &&
                   std::all_of(s->pages.begin(), s->pages.end(), held));
    if (!good.back() || s->computed == 0) continue;
    read.push_back(good.size() - 1);
    runs.push_back(runs_of(*s, s->computed));
  }
  const std::vector<std::vector<std::uint64_t>> found = model_.digest_kv(runs);
  for (std::size_t i = 0; i < read.size(); ++i) {
    const segment& s = *segments[read[i]];
    const std::uint64_t length = bi::contract::digest_length_term(static_cast<std::uint64_t>(s.computed) * bytes);
    const auto same = [length](std::uint64_t a, std::uint64_t b) { return a == b + length; };
    good[read[i]] = std::equal(found[i].begin(), found[i].end(), s.kv.begin(), s.kv.end(), same);
  }
  stats_.checks += static_cast<std::int64_t>(segments.size());
  return good;
}

void server::repair(live& r, segment& s) {
  r.events.push_back("repair: K or V of branch \"" + s.name + "\", positions " + std::to_string(s.first_position) +
                     " to " + std::to_string(s.first_position + s.computed - 1) +
                     ", differed from the record, computed again");
  for (const std::int32_t page : s.pages) cache_.forget(page);
  throw_out(s);
  ++stats_.repairs;
}

// Each segment that a part sees is read once.
std::vector<server::part> server::with_intact_views(std::vector<part> parts) {
  std::vector<segment_ptr> seen;
  std::vector<live*> owners;
  for (const part& p : parts) {
    std::vector<segment_ptr> view = p.s->before;
    view.push_back(p.s);
    for (const segment_ptr& s : view) {
      if (std::find(seen.begin(), seen.end(), s) != seen.end()) continue;
      seen.push_back(s);
      owners.push_back(p.owner);
    }
  }
  const std::vector<bool> good = intact(seen);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (!good[i]) repair(*owners[i], *seen[i]);
  }
  const auto size = static_cast<std::size_t>(model_.limits().page_size);
  const auto thrown_out = [size](const part& p) {
    return p.s->pages.size() * size < static_cast<std::size_t>(p.s->computed + p.count) || !complete(p.s->before);
  };
  parts.erase(std::remove_if(parts.begin(), parts.end(), thrown_out), parts.end());
  return parts;
}

std::vector<segment_ptr> server::segments(std::size_t request) const { return requests_.at(request)->segments; }

void server::lose_page(segment& s) {
  s.pages.pop_back();  // nobody gets it any more
}

bool server::step() {
  admit();
  if (running_.empty()) return false;
  disturb();
  std::vector<part> parts = choose();
  if (schedule_.checked == schedule::check::full) parts = with_intact_views(std::move(parts));
  if (!parts.empty()) {
    const batch s = assemble(parts);
    commit(parts, s, model_.forward(s));
  }
  idle_ = parts.empty() ? idle_ + 1 : 0;  // branches that start late, or damage, leave some steps empty
  if (idle_ > 1000) throw std::runtime_error("no request can go on: pages of the cache were lost");
  ++clock_;
  return true;
}

void server::run(const std::function<void(std::int64_t)>& progress) {
  while (step()) {
    if (progress) progress(sampled_);
  }
}

}  // namespace engine
