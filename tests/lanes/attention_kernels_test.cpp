// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#define LANES_SHARED_AT_LAUNCH
#include "lanes/warps.hpp"
// The lanes' words come first.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "bi/attention.hpp"
#include "bi/contract/attention.hpp"
#include "bi/reference/attention.hpp"
#include "bi/schedule/attention.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
// Kernels as for Hopper, contracts as on the host.
#undef BI_DEVICE_CODE
#undef BI_WGMMA_CODE
#define BI_DEVICE_CODE 1
#define BI_WGMMA_CODE 1
#define __CUDA_ARCH__ 900
#include "bi/kernel/attention_leaves.cuh"
#include "bi/kernel/attention_mma.cuh"
// That kernel's shared memory has a size of its own.
#undef __shared__
#define __shared__ static
#include "bi/kernel/attention_fold.cuh"

// Attention's kernels on the CPU: the one that takes every shape, and decode's, with the kernel that folds what was cut.
// Products by the model of the tensor core, barriers and copies by what the machine promises of them.

namespace {

using bi::bf16;
namespace k = bi::kernel;

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

  attention_case(const view_case& c, test::generator& g) : q_start_{0}, len_(c.len) {
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
    q_ = test::random_vector<T>(q_start_.back() * heads_q * HeadDim, test::values::normal, g.next());
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

  k::attention_params<T> params() {
    k::attention_params<T> p = {};
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
    lanes::shared_memory() = k::shared;
    std::memset(k::shared, 0x5a, sizeof k::shared);
    lanes::barriers().clear();
    return p;
  }

  void by_mma(int blocks, test::generator& g) {
    k::attention_params<T> p = params();
    p.batch.tile_rows = 64;
    lanes::launch(blocks, k::attention_mma_shape<HeadDim, 4>::threads, k::attention_mma_kernel<contract, T, HeadDim, 4>,
                  p, g);
    check("mma, " + std::to_string(blocks) + " blocks");
  }

  void by_leaves(int blocks, int slots, test::generator& g) {
    k::attention_split_params<T> p = {};
    p.a = params();
    const std::int64_t rows = a_.limits.max_q_len * p.a.batch.group,
                       leaves = std::max<std::int64_t>(1, contract::end_leaf(a_.limits.max_view));
    const std::int64_t total = leaves * a_.requests * p.a.heads_kv, items = a_.requests * p.a.heads_kv;
    p.a.batch.tile_rows = static_cast<std::int32_t>(rows), p.a.batch.one_tile_each = true;
    const auto space =
        bi::schedule::attention_split_carve(blocks, leaves, total, rows, HeadDim, sizeof(bi::device::attention_cut));
    std::vector<unsigned char> workspace(static_cast<std::size_t>(space.bytes) + 16, 0x5a);
    auto* const bytes =
        reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 15) / 16 * 16);
    p.partials.cuts = reinterpret_cast<bi::device::attention_cut*>(bytes);
    p.partials.ml = reinterpret_cast<float*>(bytes + space.records);
    p.partials.o = reinterpret_cast<float*>(bytes + space.records + space.ml);
    p.partials.places.a_block = space.places_a_block;
    p.partials.rows = rows, p.partials.by_item = items <= blocks, p.stages = slots;
    REQUIRE((k::attention_leaves_bytes<contract, HeadDim>(slots)) <= static_cast<int>(sizeof k::shared));
    lanes::launch(blocks, k::attention_leaves_threads, k::attention_leaves_kernel<contract, T, HeadDim>, p, g);
    const std::int64_t units = (p.partials.by_item ? items : blocks) * rows * (HeadDim / k::attention_fold_columns);
    const k::attention_fold_params<T> fold = {p.a, p.partials, blocks, units <= 3};
    lanes::launch(static_cast<int>(std::min<std::int64_t>(units, 3)), k::attention_fold_threads,
                  k::attention_fold_kernel<contract, T, HeadDim>, fold, g);
    check("leaves, " + std::to_string(blocks) + " blocks, " + std::to_string(slots) + " slots");
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

  void check(const std::string& what) const {
    INFO(what);
    REQUIRE(test::difference(out_, expected_) == "");
    REQUIRE(test::difference(lse_, expected_lse_) == "");
  }

  bi::attention_args<T> a_;
  std::vector<std::int32_t> q_start_, len_, pages_;
  std::vector<T> q_, k_, v_, out_, expected_;
  std::vector<float> lse_, expected_lse_;
};

}  // namespace

TEST_CASE("attention: the kernel for every shape has the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(1);
  attention_case<bf16, 64>({{70, 3, 300}, {5, 1, 30}, 1, 2, 0, true}, g).by_mma(3, g);
  attention_case<bi::fp16, 128>({{130, 90}, {1, 40}, 2, 3, 100, true}, g).by_mma(2, g);
}

TEST_CASE("attention: decode's kernels have the reference's bytes on the CPU", "[lanes][attention]") {
  test::generator g(2);
  attention_case<bf16, 128> few({{700, 0, 1, 300}, {1, 1, 1, 1}, 1, 4, 0, true}, g);
  few.by_leaves(1, 4, g);
  few.by_leaves(5, 5, g);
  attention_case<bf16, 128>({{2000, 80}, {1, 1}, 1, 8, 0, true}, g).by_leaves(6, 4, g);  // one item in several parts
  attention_case<bf16, 128>({{383, 127, 63}, {1, 1, 1}, 1, 2, 0, true}, g).by_leaves(3, 4, g);  // a tile lacks a key
  attention_case<bf16, 128>({{320, 64}, {2, 2}, 1, 8, 0, true, false, true}, g).by_leaves(3, 4, g);
  attention_case<bf16, 64>({{256 * 34 + 9}, {1}, 1, 1, 0, true, true}, g)
      .by_leaves(5, 4, g);  // sections of partial results
  attention_case<bf16, 64>({{1100, 513}, {3, 2}, 2, 2, 300, true}, g).by_leaves(7, 4, g);
  attention_case<bi::fp16, 128>({{257, 256, 65, 64, 900}, {2, 1, 4, 3, 2}, 1, 4, 0, false}, g).by_leaves(4, 6, g);
}
