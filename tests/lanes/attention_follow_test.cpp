// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#define LANES_SHARED_AT_LAUNCH
#include "lanes/warps.hpp"
// The lanes' words come first.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bi/contract/attention.hpp"
#include "bi/schedule/attention.hpp"
#include "lanes/attention_partials.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
// The kernel as for Hopper, contracts as on the host.
#undef BI_DEVICE_CODE
#define BI_DEVICE_CODE 1
#define __CUDA_ARCH__ 900
#include "bi/kernel/attention_follow.cuh"

// The kernel that folds leaves while they are made, with made-up partial results, which come bit by bit whenever it looks for
// some: a block's leaves one after another, a leaf's columns warp after warp, blocks at any speed.

namespace {

using bi::bf16;
using contract_v1 = bi::contract::attention_v1<bf16>;
namespace k = bi::kernel;

struct follow_case {
  std::vector<std::int32_t> len, q_len;
  std::int64_t heads_kv, group, window;
  int blocks, followers;
  bool causal;
};

template <int HeadDim>
class follow_run {
  static constexpr int warps = k::attention_turns_record::warps, width = HeadDim / warps;

 public:
  explicit follow_run(const follow_case& c) : c_(c) {
    const auto requests = static_cast<std::int64_t>(c.len.size()), heads = c.heads_kv * c.group;
    for (const std::int32_t n : c.q_len) q_start_.push_back(q_start_.back() + n);
    p_.a.len = c_.len.data(), p_.a.batch.q_start = q_start_.data();
    p_.a.batch.requests = requests, p_.a.batch.rows = q_start_.back(), p_.a.batch.group = c.group;
    p_.a.batch.tile_rows = static_cast<std::int32_t>(*std::max_element(c.q_len.begin(), c.q_len.end()) * c.group);
    p_.a.batch.one_tile_each = true;
    p_.a.heads_kv = c.heads_kv, p_.a.window = c.window, p_.a.causal = c.causal, p_.a.out_aligned = true;
    p_.a.out_token_stride = heads * HeadDim, p_.a.out_head_stride = HeadDim, p_.a.lse_token_stride = heads;
    out_.assign(static_cast<std::size_t>(q_start_.back() * heads * HeadDim), bf16{0x7fff}), expected_ = out_;
    lse_.assign(static_cast<std::size_t>(q_start_.back() * heads), -77.0f), expected_lse_ = lse_;
    p_.a.out = out_.data(), p_.a.lse = lse_.data();
    std::int64_t leaves = 1;
    for (const std::int32_t n : c.len) leaves = std::max<std::int64_t>(leaves, contract_v1::end_leaf(n));
    const std::int64_t rows = p_.a.batch.tile_rows;
    const auto space = bi::schedule::attention_turns_carve(c.blocks, requests * c.heads_kv, leaves, rows, HeadDim,
                                                           sizeof(k::attention_turns_record));
    const std::int64_t places = c.blocks * space.places_a_block;
    ml_.assign(static_cast<std::size_t>(2 * places * rows), bi::nan_f32());
    o_.assign(static_cast<std::size_t>(places * rows * HeadDim + 32), bi::nan_f32());
    records_.assign(static_cast<std::size_t>(c.blocks), k::attention_turns_record{});
    p_.partials.o = reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(o_.data()) + 127) / 128 * 128);
    p_.partials.ml = ml_.data(), p_.partials.rows = rows, p_.partials.places.a_block = space.places_a_block;
    p_.records = records_.data(), p_.blocks = c.blocks;
    find_runs();
  }

  std::string operator()(test::generator& g) {
    lanes::shared_memory() = k::shared;
    std::memset(k::shared, 0x5a, sizeof k::shared);
    REQUIRE(k::attention_follow_warps * sizeof(k::attention_follow_memory<HeadDim>) <= sizeof k::shared);
    lanes::before_flags() = [&] {
      for (std::int64_t i = g.below(4); i > 0 && !coming_.empty(); --i)
        come(static_cast<std::size_t>(g.below(static_cast<std::int64_t>(coming_.size()))));
    };
    lanes::launch(c_.followers, k::attention_follow_threads, k::attention_follow_kernel<contract_v1, bf16, HeadDim>, p_,
                  g);
    lanes::before_flags() = {};
    if (!coming_.empty()) return "it ended before all had come";
    const std::string wrong = test::difference(out_, expected_);
    return wrong.empty() ? test::difference(lse_, expected_lse_) : "out: " + wrong;
  }
  int folded_rows() const { return folded_rows_; }

 private:
  // A block's leaf of an item that was cut.
  struct given {
    std::uint64_t item;
    std::int64_t leaf, place;  // of the view
    int rows;
    std::int32_t* done;
    std::int32_t number;
  };
  // What a warp of a block gives, one after another.
  struct giver {
    int warp;
    std::vector<given> all;
    std::size_t next = 0;
  };

  void find_runs() {
    const auto requests = static_cast<std::int64_t>(c_.len.size());
    std::vector<std::int64_t> leaves, first = {0};
    for (std::int64_t r = 0; r < requests; ++r) {
      const auto rows = bi::device::attention_request_rows(p_.a.batch, r);
      leaves.push_back(
          bi::device::make_attention_item<contract_v1>(rows, c_.len[static_cast<std::size_t>(r)], c_.causal, c_.window)
              .leaves);
      first.push_back(first.back() + leaves.back() * c_.heads_kv);
    }
    const bi::device::attention_shares shares(first.back(), c_.blocks);
    std::vector<std::vector<given>> of_block(static_cast<std::size_t>(c_.blocks));
    for (std::int64_t r = 0; r < requests; ++r) {
      for (std::int64_t head = 0; head < c_.heads_kv && leaves[static_cast<std::size_t>(r)] > 0; ++head) {
        const std::int64_t n = leaves[static_cast<std::size_t>(r)];
        add_item(r, head,
                 bi::device::make_attention_team(shares, first[static_cast<std::size_t>(r)] + head * n, n), of_block);
      }
    }
    for (const auto& all : of_block) {
      for (int w = 0; w < warps && !all.empty(); ++w) coming_.push_back({w, all});
    }
  }
  void add_item(std::int64_t request, std::int64_t head, const bi::device::attention_team& team,
                std::vector<std::vector<given>>& of_block) {
    if (team.members == 1) return;
    const auto len = c_.len[static_cast<std::size_t>(request)];
    const auto rows = bi::device::attention_request_rows(p_.a.batch, request);
    const std::int64_t first = bi::device::make_attention_item<contract_v1>(rows, len, c_.causal, c_.window).first_leaf;
    const auto item = static_cast<std::uint64_t>(request * 64 + head);
    const bi::device::attention_team_places places = {p_.partials.places.a_block};
    for (std::int32_t m = 0; m < team.members; ++m) {
      const auto block = static_cast<std::size_t>(team.block + m);
      for (std::int32_t i = 0; i < team.count(m); ++i) {
        of_block[block].push_back({item, first + team.leaf(m, i), places.leaf(team.block + m, m == 0, i), rows.rows,
                                   records_[block].done[m == 0 ? 0 : 1], i + 1});
      }
    }
    for (int row = 0; row < rows.rows; ++row) {
      const auto seen = contract_v1::visible(c_.causal, len, rows.q_len, rows.token(row), c_.window);
      test::folded_row<contract_v1, HeadDim> folded;
      for (std::int64_t leaf = contract_v1::first_leaf(seen.lo); seen.lo < seen.see && leaf < contract_v1::end_leaf(seen.see);
           ++leaf) {
        folded.add({item, leaf, row});
      }
      ++folded_rows_;
      const std::int64_t token = rows.first_row + rows.token(row), h = head * c_.group + rows.head(row);
      for (int column = 0; column < HeadDim; ++column) {
        expected_[static_cast<std::size_t>(token * p_.a.out_token_stride + h * HeadDim + column)] =
            contract_v1::finish<bf16>(folded.o[column], folded.l, contract_v1::inverse(folded.l));
      }
      expected_lse_[static_cast<std::size_t>(token * p_.a.lse_token_stride + h)] =
          contract_v1::lse(folded.m, folded.l);
    }
  }

  void come(std::size_t i) {
    giver& from = coming_[i];
    const given& x = from.all[from.next];
    for (int row = 0; row < x.rows; ++row) {
      const test::made_up_partial part(x.item, x.leaf, row);
      const std::int64_t at = x.place * p_.partials.rows + row;
      if (from.warp == 0) p_.partials.ml[2 * at] = part.m, p_.partials.ml[2 * at + 1] = part.l;
      for (int column = from.warp * width; column < (from.warp + 1) * width; ++column)
        p_.partials.o[at * HeadDim + column] = part.o(column);
    }
    x.done[from.warp] = x.number;
    if (++from.next < from.all.size()) return;
    coming_[i] = coming_.back();
    coming_.pop_back();
  }

  const follow_case c_;
  k::attention_follow_params<bf16> p_ = {};
  std::vector<std::int32_t> q_start_ = {0};
  std::vector<bf16> out_, expected_;
  std::vector<float> lse_, expected_lse_, ml_, o_;
  std::vector<k::attention_turns_record> records_;
  std::vector<giver> coming_;
  int folded_rows_ = 0;
};

template <int HeadDim>
int try_follow(const follow_case& c, std::uint64_t seed) {
  test::generator g(seed);
  follow_run<HeadDim> run(c);
  INFO(c.blocks << " blocks, " << c.followers << " followers, head_dim " << HeadDim << ", seed " << seed);
  REQUIRE(run(g) == "");
  return run.folded_rows();
}

}  // namespace

TEST_CASE("attention_follow: leaves are folded in order, as they come", "[lanes][attention]") {
  CHECK(try_follow<128>({{256 * 90 + 9, 256 * 40}, {1, 1}, 1, 3, 0, 7, 1, true}, 1) == 6);
  CHECK(try_follow<64>({{256 * 200}, {1}, 1, 1, 0, 40, 1, true}, 2) == 1);
  CHECK(try_follow<128>({{256 * 33, 70, 9000}, {3, 1, 2}, 4, 5, 0, 5, 1, true}, 3) > 30);  // more rows than warps
  CHECK(try_follow<64>({{900, 4000, 256 * 20, 3000}, {1, 2, 3, 0}, 2, 2, 1500, 9, 2, true}, 4) > 10);
  int rows = 0;
  test::generator g(5);
  for (int round = 0; round < 30; ++round) {
    follow_case c = {{}, {}, g.between(1, 3), g.between(1, 4), g.chance(30) ? g.between(1, 3000) : 0, 0, 0, g.chance(70)};
    c.blocks = static_cast<int>(g.between(2, 24));
    for (std::int64_t r = g.between(1, 5); r > 0; --r) {
      c.len.push_back(static_cast<std::int32_t>(g.below(g.chance(50) ? 256 * 30 : 700)));
      c.q_len.push_back(static_cast<std::int32_t>(g.chance(15) ? 0 : g.between(1, 4)));
    }
    if (*std::max_element(c.q_len.begin(), c.q_len.end()) == 0) c.q_len[0] = 1;
    c.followers = static_cast<int>(g.between(1, 3));
    rows += try_follow<64>(c, g.next());
  }
  CHECK(rows > 200);
}
