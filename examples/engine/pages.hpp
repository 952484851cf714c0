// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "../determinism/random.hpp"
#include "bi/contract/digest.hpp"

namespace engine {

using demo::random_source;

// Pages of the KV cache. Each has a count of those who hold it and is free when nobody does; which free page is handed
// out is random.
class page_pool {
 public:
  page_pool(std::int64_t count, random_source& random);

  bool empty() const { return free_.empty(); }
  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
  std::int32_t take();  // held once
  void hold(std::int32_t page);
  void drop(std::int32_t page);
  std::int32_t holders(std::int32_t page) const { return holders_.at(static_cast<std::size_t>(page)); }

 private:
  random_source& random_;
  std::vector<std::int32_t> free_;
  std::vector<std::int32_t> holders_;
};

// Whole pages that may be used again by a view that would compute the same: the key says everything that their bytes
// depend on, which is contracts, weights, tokens, positions and the view that comes before. The cache holds its pages.
class prefix_cache {
 public:
  using key = bi::contract::request_digest;
  struct entry {
    std::int32_t page = 0;
    std::vector<std::uint64_t> kv;      // [layers] what the page's tokens add to their segment's digest
    std::vector<std::uint64_t> row_kv;  // [page size, layers], or empty
    std::uint64_t used = 0;
  };

  explicit prefix_cache(page_pool& pool) : pool_(pool) {}
  const entry* find(const key& k);  // null: not there
  void insert(const key& k, entry e);
  bool evict_some();               // of those that nobody else holds, the ones used longest ago; false: there is none
  void forget(std::int32_t page);  // its bytes are not to be trusted
  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }

 private:
  struct order {
    bool operator()(const key& a, const key& b) const { return std::pair(a.high, a.low) < std::pair(b.high, b.low); }
  };
  page_pool& pool_;
  std::map<key, entry, order> entries_;
  std::uint64_t clock_ = 0;
};

}  // namespace engine
