// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "lanes/attention_hopper.hpp"
// Kernels come after those words.
#include "bi/kernel/attention_share.cuh"

// A call of attention for its kernels on the CPU, and what the reference makes of it. After the kernels.

namespace test {

struct view_case {
  std::vector<std::int32_t> len, q_len;
  std::int64_t heads_kv, group, window;
  bool causal;
  bool cancels = false;   // V of leaves is large and adds up to little, so that any other order of them shows
  bool bad_last = false;  // V of each view's last token is Inf
};

// q, and a cache with pages in any order; keys that are not there yet hold NaN.
template <class T, int HeadDim>
class attention_case {
 public:
  using contract = bi::contract::attention_v1<T>;

  attention_case(const view_case& c, generator& g) : q_start_{0}, len_(c.len) {
    for (const std::int32_t n : c.q_len) q_start_.push_back(q_start_.back() + n);
    const auto requests = static_cast<std::int64_t>(c.len.size());
    const std::int64_t most = *std::max_element(c.len.begin(), c.len.end()), row = (most + page - 1) / page + 1;
    std::vector<std::int32_t> all(static_cast<std::size_t>(requests * row));
    std::iota(all.begin(), all.end(), 0);
    for (std::size_t i = all.size(); i > 1; --i)
      std::swap(all[i - 1], all[static_cast<std::size_t>(g.below(static_cast<std::int64_t>(i)))]);
    pages_ = all;
    const std::int64_t heads_q = c.heads_kv * c.group, values = requests * row * page * c.heads_kv * HeadDim;
    // Where no token is there are NaNs, which nobody may see.
    k_.assign(static_cast<std::size_t>(values), bi::cvt_rn<T>(bi::nan_f32())), v_ = k_;
    for (std::int64_t r = 0; r < requests; ++r) {
      for (std::int64_t j = 0; j < c.len[static_cast<std::size_t>(r)]; ++j) {
        const std::int64_t at =
            (pages_[static_cast<std::size_t>(r * row + j / page)] * page + j % page) * c.heads_kv * HeadDim;
        for (std::int64_t i = at; i < at + c.heads_kv * HeadDim; ++i) {
          k_[static_cast<std::size_t>(i)] = bi::cvt_rn<T>(c.cancels ? 0.0f : g.normal());
          v_[static_cast<std::size_t>(i)] = bi::cvt_rn<T>(c.cancels ? large(j, i - at) : g.normal());
          if (c.bad_last && j + 1 == c.len[static_cast<std::size_t>(r)])
            v_[static_cast<std::size_t>(i)] = bi::cvt_rn<T>(bi::inf_f32());
        }
      }
    }
    q_ = random_vector<T>(q_start_.back() * heads_q * HeadDim, values::normal, g.next());
    out_.assign(q_.size(), T{0x7fff}), expected_ = out_;
    lse_.assign(static_cast<std::size_t>(q_start_.back() * heads_q), -77.0f), expected_lse_ = lse_;
    a_.q = q_.data();
    a_.cache.k = k_.data(), a_.cache.v = v_.data(), a_.cache.num_pages = requests * row;
    a_.cache.page_size = page, a_.cache.heads = c.heads_kv, a_.cache.head_dim = HeadDim;
    a_.view = bi::page_table{pages_.data(), row};
    a_.len = len_.data(), a_.q_start = q_start_.data(), a_.requests = requests, a_.rows = q_start_.back();
    a_.mask = c.causal ? bi::attention_mask::causal : bi::attention_mask::full;
    a_.window = c.window, a_.scale = 0.09f;
    a_.limits.max_requests = requests, a_.limits.max_rows = a_.rows, a_.limits.max_view = most;
    a_.limits.max_q_len = *std::max_element(c.q_len.begin(), c.q_len.end());
    a_.limits.heads_q = heads_q, a_.limits.heads_kv = c.heads_kv, a_.limits.head_dim = HeadDim;
    a_.out = expected_.data(), a_.lse = expected_lse_.data();
    const bi::status st = bi::reference::attention(a_, 1);
    REQUIRE(bi::describe(st) == "ok");
  }

  // Before each kernel: nothing is written yet.
  bi::kernel::attention_params<T> params() const {
    bi::kernel::attention_params<T> p = {};
    const auto kv = bi::k_strides(a_.cache);
    p.q = a_.q, p.k = a_.cache.k, p.v = a_.cache.v, p.out = out_.data(), p.lse = lse_.data(), p.len = a_.len;
    p.batch.q_start = a_.q_start, p.batch.requests = a_.requests, p.batch.rows = a_.rows;
    p.batch.group = a_.limits.heads_q / a_.limits.heads_kv;
    p.view = bi::device::make_view_source(a_.view, a_.cache);
    p.q_head_stride = p.out_head_stride = HeadDim, p.q_token_stride = p.out_token_stride = a_.limits.heads_q * HeadDim;
    p.lse_token_stride = a_.limits.heads_q;
    p.k_page_stride = p.v_page_stride = kv.page, p.k_token_stride = p.v_token_stride = kv.token;
    p.k_head_stride = p.v_head_stride = kv.head;
    p.heads_kv = a_.limits.heads_kv, p.window = a_.window, p.scale = a_.scale;
    p.causal = a_.mask == bi::attention_mask::causal;
    p.q_aligned = p.k_aligned = p.v_aligned = p.out_aligned = true;
    std::fill(out_.begin(), out_.end(), T{0x7fff});
    std::fill(lse_.begin(), lse_.end(), -77.0f);
    lanes::shared_memory() = bi::kernel::shared;
    std::memset(bi::kernel::shared, 0x5a, sizeof bi::kernel::shared);
    lanes::barriers().clear();
    return p;
  }

  // Of decode's kernels.
  bi::kernel::attention_split_params<T> split_params(int slots) const {
    bi::kernel::attention_split_params<T> p = {};
    p.a = params();
    p.a.batch.tile_rows = static_cast<std::int32_t>(a_.limits.max_q_len * p.a.batch.group);
    p.a.batch.one_tile_each = true;
    p.stages = slots;
    return p;
  }

  const bi::attention_args<T>& args() const { return a_; }
  std::int64_t leaves() const { return std::max<std::int64_t>(1, contract::end_leaf(a_.limits.max_view)); }

  void check(const std::string& what) const {
    INFO(what);
    REQUIRE(difference(out_, expected_) == "");
    REQUIRE(difference(lse_, expected_lse_) == "");
  }

 private:
  static constexpr std::int64_t page = 16;

  // Of leaf i and leaf i + 16 the sum is 0; of the last few it is not.
  static float large(std::int64_t token, std::int64_t value) {
    const std::int64_t leaf = token / contract::leaf, of = leaf % 16 * contract::leaf + token % contract::leaf;
    const std::uint64_t bits = bi::mix64(static_cast<std::uint64_t>(of * 1000 + value));
    const auto noise = static_cast<float>(static_cast<int>(bits % 255) - 127);
    if (leaf >= 32) return noise * 0x1p-7f;
    // Of many magnitudes, or sums would be exact.
    const float x =
        noise * bi::float_of(static_cast<std::uint32_t>(127 - 6 + static_cast<int>(bits >> 8 & 1023) % 24) << 23);
    return leaf < 16 ? x : -x;
  }

  bi::attention_args<T> a_;
  std::vector<std::int32_t> q_start_, len_, pages_;
  std::vector<T> q_, k_, v_, expected_;
  std::vector<float> expected_lse_;
  mutable std::vector<T> out_;  // what kernels write
  mutable std::vector<float> lse_;
};

// Where a case's partial results of so many blocks go; nobody has written there yet. records: of what is cut, and what lies behind
// those of the blocks.
class split_workspace {
 public:
  template <class T, int HeadDim>
  split_workspace(const attention_case<T, HeadDim>& c, bi::kernel::attention_split_params<T>& p, int blocks,
                  std::int64_t records = 0) {
    constexpr std::size_t aligned = 256;
    const std::int64_t rows = p.a.batch.tile_rows, total = c.leaves() * p.a.batch.requests * p.a.heads_kv;
    const auto space = bi::schedule::attention_split_carve(blocks, c.leaves(), total, rows, HeadDim,
                                                           sizeof(bi::device::attention_cut), records);
    bytes_.assign(static_cast<std::size_t>(space.bytes) + aligned, 0x5a);
    unsigned char* const bytes =
        bytes_.data() + (aligned - reinterpret_cast<std::uintptr_t>(bytes_.data()) % aligned) % aligned;
    p.partials.cuts = reinterpret_cast<bi::device::attention_cut*>(bytes);
    p.partials.ml = reinterpret_cast<float*>(bytes + space.records);
    p.partials.o = reinterpret_cast<float*>(bytes + space.records + space.ml);
    p.partials.places.a_block = space.places_a_block;
    p.partials.rows = rows;
  }

 private:
  std::vector<unsigned char> bytes_;
};

}  // namespace test
