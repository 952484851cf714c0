// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "pages.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace engine {

page_pool::page_pool(std::int64_t count, random_source& random)
    : random_(random), free_(static_cast<std::size_t>(count)), holders_(static_cast<std::size_t>(count), 0) {
  std::iota(free_.begin(), free_.end(), 0);
}

std::int32_t page_pool::take() {
  if (free_.empty()) throw std::logic_error("page_pool: no page is free");
  const auto last = static_cast<std::int64_t>(free_.size()) - 1;
  std::swap(free_.back(), free_[static_cast<std::size_t>(random_.between(0, last))]);
  const std::int32_t page = free_.back();
  free_.pop_back();
  if (holders_.at(static_cast<std::size_t>(page))++ != 0) throw std::logic_error("page_pool: a held page was free");
  return page;
}
void page_pool::hold(std::int32_t page) {
  std::int32_t& n = holders_.at(static_cast<std::size_t>(page));
  if (n == 0) throw std::logic_error("page_pool: a free page can't be shared");
  ++n;
}
void page_pool::drop(std::int32_t page) {
  std::int32_t& n = holders_.at(static_cast<std::size_t>(page));
  if (n == 0) throw std::logic_error("page_pool: a page that nobody holds came back");
  if (--n == 0) free_.push_back(page);
}

const prefix_cache::entry* prefix_cache::find(const key& k) {
  const auto it = entries_.find(k);
  if (it == entries_.end()) return nullptr;
  it->second.used = ++clock_;
  return &it->second;
}
void prefix_cache::insert(const key& k, entry e) {
  e.used = ++clock_;
  const std::int32_t page = e.page;
  if (entries_.emplace(k, std::move(e)).second) pool_.hold(page);
}
bool prefix_cache::evict_some() {
  std::vector<std::map<key, entry, order>::iterator> alone;
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (pool_.holders(it->second.page) == 1) alone.push_back(it);
  }
  std::sort(alone.begin(), alone.end(), [](auto a, auto b) { return a->second.used < b->second.used; });
  alone.resize((alone.size() + 7) / 8);  // a search of all entries is worth more than one page
  for (const auto it : alone) {
    pool_.drop(it->second.page);
    entries_.erase(it);
  }
  return !alone.empty();
}
void prefix_cache::forget(std::int32_t page) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second.page == page) {
      pool_.drop(page);
      it = entries_.erase(it);
    } else {
      ++it;
    }
  }
}

}  // namespace engine
