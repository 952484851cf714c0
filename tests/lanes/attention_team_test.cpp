// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#define LANES_SHARED_AT_LAUNCH
#include "lanes/warps.hpp"
// The lanes' words come first.
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bi/kernel/attention_team.cuh"
#include "bi/kernel/attention_team_fold.cuh"
#include "bi/schedule/attention.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// What the thread blocks of teams leave for each other and fold: bi/kernel/attention_team.cuh itself, lane by lane, with made-up
// partial results. Blocks run at different speeds, some begin when others have ended, and every row must have its leaves folded in
// their order, once.

namespace {

using bi::bf16;
using contract_v1 = bi::contract::attention_v1<bf16>;
using bi::kernel::attention_leaves_run;

struct team_case {
  std::vector<std::int32_t> len, q_start = {0};
  std::int64_t heads_kv, group, max_q_len, window;
  int blocks;
  bool causal;
};

// A leaf's partial result of a row, from its number alone.
struct partial {
  std::uint64_t seed;

  std::uint64_t bits(const attention_leaves_run& run, std::int64_t leaf, int row, int what) const {
    const auto number = ((run.walk.run.request * 16 + run.walk.run.head) * 4096 + leaf) * 16384 + row * 512 + what;
    return bi::mix64(seed + static_cast<std::uint64_t>(number));
  }
  float m(const attention_leaves_run& run, std::int64_t leaf, int row) const {
    const std::uint64_t x = bits(run, leaf, row, 400);
    if (x % 37 == 0) return bi::neg_inf_f32();  // every score was -Inf
    return bi::mul_rn(bi::float_from_int(static_cast<int>(x % 40000) - 20000), 0x1p-12f);
  }
  float l(const attention_leaves_run& run, std::int64_t leaf, int row) const {
    if (bi::equal(m(run, leaf, row), bi::neg_inf_f32())) return 0.0f;
    return bi::fma_rn(bi::float_from_int(static_cast<int>(bits(run, leaf, row, 401) % 100000)), 0.001f, 1.0f);
  }
  float o(const attention_leaves_run& run, std::int64_t leaf, int row, int column) const {
    if (bi::equal(m(run, leaf, row), bi::neg_inf_f32())) return 0.0f;
    const std::uint64_t x = bits(run, leaf, row, column);
    return x % 11 == 0 ? -0.0f : bi::mul_rn(bi::float_from_int(static_cast<int>(x % 2000001) - 1000000), 0x1p-15f);
  }
};

bool sees(const bi::contract::attention_range& r, std::int64_t leaf) {
  return r.lo < r.see && leaf >= contract_v1::first_leaf(r.lo) && leaf < contract_v1::end_leaf(r.see);
}

struct seen_ways {
  std::int64_t rows = 0, went_on = 0, did_not = 0, late = 0;
  std::int32_t most_members = 0;
};

template <int HeadDim>
class team_run {
  using results = bi::kernel::attention_team_results<contract_v1, bf16, HeadDim>;
  using fold = bi::kernel::attention_team_fold<contract_v1, bf16, HeadDim>;
  using memory = bi::kernel::attention_teams_memory<HeadDim>;
  static constexpr int width = HeadDim / 4;

 public:
  team_run(const team_case& c, std::uint64_t seed) : c_(c), part_{seed} {
    p_.a.len = c.len.data();
    p_.a.batch.q_start = c.q_start.data();
    p_.a.batch.requests = static_cast<std::int64_t>(c.len.size());
    p_.a.batch.rows = c.q_start.back();
    p_.a.batch.group = c.group;
    p_.a.batch.tile_rows = static_cast<std::int32_t>(c.max_q_len * c.group);
    p_.a.batch.one_tile_each = true;
    p_.a.heads_kv = c.heads_kv, p_.a.window = c.window, p_.a.causal = c.causal, p_.a.out_aligned = true;
    const std::int64_t heads = c.heads_kv * c.group;
    p_.a.out_token_stride = heads * HeadDim, p_.a.out_head_stride = HeadDim, p_.a.lse_token_stride = heads;
    out_.assign(static_cast<std::size_t>(c.q_start.back() * heads * HeadDim + 1), bf16{0x7fff});
    lse_.assign(static_cast<std::size_t>(c.q_start.back() * heads + 1), bi::nan_f32());
    p_.a.out = out_.data(), p_.a.lse = lse_.data();
    find_runs();
  }

  // Says what is wrong.
  std::string operator()(test::generator& g, seen_ways& ways) {
    if (items_.empty()) return "";
    lanes::where.grid.x = static_cast<unsigned>(c_.blocks);
    std::vector<std::unique_ptr<memory>> memories;
    std::vector<std::unique_ptr<lanes::warp>> warps;
    std::vector<int> speed;
    std::vector<std::int64_t> begin;
    const bool some_late = g.chance(30);
    for (int b = 0; b < c_.blocks; ++b) {
      memories.push_back(std::make_unique<memory>());
      memory& mine = *memories.back();
      std::memset(static_cast<void*>(&mine), 0x5a, sizeof mine);
      for (int thread = 0; thread < 4; ++thread) mine.init(thread);
      const auto& runs = runs_[static_cast<std::size_t>(b)];
      if (runs.empty()) continue;
      const int percent = static_cast<int>(g.chance(30) ? g.between(6, 14) : g.between(30, 90));
      const std::int64_t first = some_late && g.chance(30) ? g.between(60000, 160000) : 0;
      ways.late += first > 0 ? 1 : 0;
      for (int w = 0; w < 4; ++w) {
        warps.push_back(
            std::make_unique<lanes::warp>(b, 256 + 32 * w, [&, w](int lane) { add_up(runs, mine, w, lane, g, ways); }));
        warps.push_back(
            std::make_unique<lanes::warp>(b, 384 + 32 * w, [&, w](int lane) { copy(runs, mine, w, lane, g); }));
        for (int i = 0; i < 2; ++i) speed.push_back(percent), begin.push_back(first);
      }
    }
    std::vector<bool> ended(warps.size());
    std::size_t left = warps.size();
    for (std::int64_t turn = 0; left > 0; ++turn) {
      if (turn == 100000000) return "nobody comes to an end";
      const auto i = static_cast<std::size_t>(g.below(static_cast<std::int64_t>(warps.size())));
      if (ended[i] || turn < begin[i] || !g.chance(speed[i]) || warps[i]->run()) continue;
      ended[i] = true;
      --left;
    }
    return check(ways);
  }

 private:
  void find_runs() {
    const auto requests = p_.a.batch.requests;
    std::vector<std::int64_t> leaves, first;
    std::int64_t total = 0, most = 1;
    for (std::int64_t r = 0; r < requests; ++r) {
      const auto rows = bi::device::attention_request_rows(p_.a.batch, r);
      leaves.push_back(
          bi::device::make_attention_item<contract_v1>(rows, c_.len[static_cast<std::size_t>(r)], c_.causal, c_.window)
              .leaves);
      first.push_back(total);
      total += leaves.back() * c_.heads_kv;
      most = std::max(most, leaves.back());
    }
    runs_.resize(static_cast<std::size_t>(c_.blocks));
    if (total == 0) return;
    const auto space = bi::schedule::attention_split_carve(c_.blocks, most, total, p_.a.batch.tile_rows, HeadDim);
    p_.teams.places.a_block = space.places_a_block;
    p_.teams.rows = p_.a.batch.tile_rows, p_.teams.blocks = c_.blocks;
    const auto places = static_cast<std::size_t>(c_.blocks * space.places_a_block * p_.teams.rows);
    ml_.assign(places * 4, {bi::nan_f32(), bi::nan_f32()});
    o_.assign(places * HeadDim, bi::nan_f32());
    records_.resize(static_cast<std::size_t>(c_.blocks));
    for (auto& r : records_) {
      std::memset(&r, 0x5a, sizeof r);
      std::memset(r.done, 0, sizeof r.done);
      std::memset(r.through, 0, sizeof r.through);
    }
    p_.teams.ml = ml_.data(), p_.teams.o = o_.data(), p_.teams.records = records_.data();
    const auto leaves_of = [&](std::int64_t r) { return leaves[static_cast<std::size_t>(r)]; };
    const bi::device::attention_shares shares(total, c_.blocks);
    for (int b = 0; b < c_.blocks; ++b) {
      const std::int64_t begin = shares.begin(b), end = shares.begin(b + 1);
      if (begin == end) continue;
      std::int64_t request = 0;
      while (request + 1 < requests && first[static_cast<std::size_t>(request) + 1] <= begin) ++request;
      while (leaves_of(request) == 0) --request;
      attention_leaves_run run;
      run.walk.total = total;
      run.walk.start(begin, end, request, first[static_cast<std::size_t>(request)], leaves_of(request), false,
                     c_.heads_kv, leaves_of);
      for (;; run.walk.next(c_.heads_kv, leaves_of, false)) {
        const auto r = static_cast<std::size_t>(run.walk.run.request);
        run.team = bi::device::make_attention_team(run.walk, c_.blocks);
        run.enter<contract_v1>(p_.a, bi::kernel::attention_lengths{c_.q_start[r], c_.q_start[r + 1], c_.len[r]});
        if (run.team.members > 1) {
          runs_[static_cast<std::size_t>(b)].push_back(run);
          items_[{run.walk.run.request, run.walk.run.head}] = run;
        }
        if (!run.walk.more()) break;
      }
    }
  }

  bi::contract::attention_range range(const attention_leaves_run& run, int row) const {
    return bi::kernel::attention_row_range<contract_v1>(p_.a, run.rows, run.len, row);
  }
  static void wait(test::generator& g) {
    for (std::int64_t i = g.below(4); i > 0; --i) lanes::warp::pass();
  }

  // A warp that adds up V, without V.
  void add_up(const std::vector<attention_leaves_run>& runs, memory& mine, int w, int lane, test::generator& g,
              seen_ways& ways) {
    results to(p_, mine.goes_on, w);
    for (const attention_leaves_run& run : runs) {
      float m[2] = {bi::neg_inf_f32(), bi::neg_inf_f32()}, l[2] = {0.0f, 0.0f}, o[4 * width / 8] = {};
      to.start(run, lane, m, l, o);
      if (w == 0 && lane == 0 && run.team.is_in_turn() && run.member() == 0)
        ++(to.folds(run) ? ways.went_on : ways.did_not);
      const auto column = [&](int k) { return w * width + 8 * (k / 2) + lane % 4 * 2 + k % 2; };
      const auto each_row = [&](const auto& of) {
        for (int h = 0; h < 2; ++h) {
          if (8 * h + lane / 4 < run.rows.rows) of(h, 8 * h + lane / 4);
        }
      };
      for (int i = 0; i < run.walk.run.count; ++i) {
        wait(g);
        const std::int64_t leaf = run.leaf(i);
        if (!to.folds(run)) {
          to.tell_done(run, i, lane);
          each_row([&](int, int row) {
            to.leaf(run, i, row, w * width, lane, part_.m(run, leaf, row), part_.l(run, leaf, row),
                    [&](int k) { return part_.o(run, leaf, row, column(k)); });
          });
          continue;
        }
        each_row([&](int h, int row) {
          if (!sees(range(run, row), leaf)) return;
          const bool first = range(run, row).lo >= leaf * contract_v1::leaf;
          const auto f = contract_v1::fold(m[h], part_.m(run, leaf, row));
          for (int k = 0; k < width / 4; ++k) {
            float& x = o[k / 2 * 4 + 2 * h + k % 2];
            const float right = part_.o(run, leaf, row, column(k));
            x = first ? right : contract_v1::fold_value(f, x, right);
          }
          const float right = part_.l(run, leaf, row);
          l[h] = first ? right : contract_v1::fold_value(f, l[h], right);
          m[h] = first ? part_.m(run, leaf, row) : f.m;
        });
      }
      if (to.folds(run)) {
        each_row([&](int h, int row) {
          to.folded(run, row, w * width, lane, m[h], l[h], [&](int k) { return o[k / 2 * 4 + 2 * h + k % 2]; });
        });
      }
      to.tell_done(run, static_cast<std::int32_t>(run.walk.run.count), lane);
    }
  }
  // A warp that copies, without tiles to copy.
  void copy(const std::vector<attention_leaves_run>& runs, memory& mine, int w, int lane, test::generator& g) {
    fold f(p_, mine.of_warp[w], w, lane);
    for (const attention_leaves_run& run : runs) {
      f.start(run);
      for (std::int64_t i = 0; i < run.walk.run.count; ++i) {
        wait(g);
        f.go_on(run, false, true);
      }
    }
    for (std::size_t i = runs.size(); i-- > 0;) f.go_on(runs[i], true, i + 1 == runs.size());
  }

  std::string check(seen_ways& ways) const {
    const std::int64_t heads = c_.heads_kv * c_.group;
    for (const auto& [item, run] : items_) {
      ways.most_members = std::max(ways.most_members, run.team.members);
      for (int row = 0; row < run.rows.rows; ++row) {
        const auto seen = range(run, row);
        const std::int64_t token = run.rows.first_row + run.rows.token(row),
                           head = item.second * c_.group + run.rows.head(row);
        for (int column = 0; column < HeadDim; ++column) {
          float m = bi::neg_inf_f32(), l = 0.0f, o = 0.0f;
          bool first = true;
          for (std::int64_t leaf = run.item.first_leaf; leaf < run.item.first_leaf + run.item.leaves; ++leaf) {
            if (!sees(seen, leaf)) continue;
            const float right_m = part_.m(run, leaf, row);
            const auto f = contract_v1::fold(m, right_m);
            l = first ? part_.l(run, leaf, row) : contract_v1::fold_value(f, l, part_.l(run, leaf, row));
            o = first ? part_.o(run, leaf, row, column)
                      : contract_v1::fold_value(f, o, part_.o(run, leaf, row, column));
            m = first ? right_m : f.m;
            first = false;
          }
          const auto expected = contract_v1::finish<bf16>(o, l, contract_v1::inverse(l));
          const auto got = out_[static_cast<std::size_t>(token * p_.a.out_token_stride + head * HeadDim + column)];
          const bool lse_is_right =
              bi::bits_of(lse_[static_cast<std::size_t>(token * heads + head)]) == bi::bits_of(contract_v1::lse(m, l));
          if (got.bits != expected.bits || !lse_is_right) {
            return "request " + std::to_string(item.first) + ", head " + std::to_string(item.second) + ", row " +
                   std::to_string(row) + ", column " + std::to_string(column) + " of " +
                   std::to_string(run.team.members) + " members, " + std::to_string(run.team.leaves) + " leaves";
          }
        }
        ++ways.rows;
      }
    }
    return "";
  }

  const team_case c_;
  const partial part_;
  bi::kernel::attention_split_params<bf16> p_ = {};
  std::vector<bf16> out_;
  std::vector<float> lse_, o_;
  std::vector<float2> ml_;
  std::vector<bi::kernel::attention_team_record> records_;
  std::vector<std::vector<attention_leaves_run>> runs_;  // of teams, of each block
  std::map<std::pair<std::int64_t, std::int64_t>, attention_leaves_run> items_;
};

template <int HeadDim>
seen_ways try_teams(int rounds, std::uint64_t seed) {
  test::generator g(seed);
  seen_ways ways;
  for (int round = 0; round < rounds; ++round) {
    team_case c;
    c.blocks = static_cast<int>(round % 20 == 10 ? g.between(60, 90) : g.between(1, 12));
    c.heads_kv = g.between(1, 2);
    c.group = g.between(1, round % 3 == 0 ? 16 : 4);
    c.max_q_len = std::max<std::int64_t>(1, std::min<std::int64_t>(16 / c.group, g.between(1, 4)));
    c.window = g.chance(25) ? g.between(1, 3000) : 0;
    c.causal = g.chance(75);
    for (std::int64_t r = g.between(1, round % 2 == 0 ? 4 : 14); r > 0; --r) {
      c.len.push_back(
          static_cast<std::int32_t>(g.chance(20) ? g.below(3) : g.below(g.chance(50) ? 256 * 40 : 256 * 6)));
      c.q_start.push_back(c.q_start.back() + static_cast<std::int32_t>(g.chance(15) ? 0 : g.between(1, c.max_q_len)));
    }
    INFO("round " << round << " of " << seed);
    REQUIRE(team_run<HeadDim>(c, g.next())(g, ways) == "");
  }
  return ways;
}

}  // namespace

TEST_CASE("attention_team: every row's leaves are folded in order, at whatever speeds blocks run",
          "[lanes][attention]") {
  const seen_ways ways = try_teams<128>(60, 1);
  CHECK(ways.rows > 500);
  CHECK(ways.went_on > 5);
  CHECK(ways.did_not > 5);
  CHECK(ways.late > 5);
  CHECK(ways.most_members > bi::device::attention_team::most_members);
  CHECK(try_teams<64>(18, 2).rows > 100);
}
