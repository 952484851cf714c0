// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/attention_hopper.hpp"
// Words of lanes and of Hopper come first.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bi/kernel/attention_mma.cuh"
// That kernel's shared memory has a size of its own.
#undef __shared__
#define __shared__ static
#include "bi/kernel/attention_fold.cuh"

// The kernel that folds what decode's blocks have left, with made-up partial results: every row of an item that was cut has its
// leaves folded in their order, whatever the records say before the kernel may rely on them, and other rows stay as they are.

namespace {

using bi::bf16;
using contract_v1 = bi::contract::attention_v1<bf16>;
namespace k = bi::kernel;

struct fold_case {
  std::vector<std::int32_t> len, q_len;
  std::int64_t heads_kv, group, window;
  int blocks;
  bool causal;
};

// A leaf's partial result of a row, from its number alone.
struct partial {
  float m, l;

  partial(std::uint64_t item, std::int64_t leaf, int row)
      : seed_(((item << 24) + static_cast<std::uint64_t>(leaf)) << 8) {
    seed_ = bi::mix64(seed_ + static_cast<std::uint64_t>(row));
    const std::uint64_t x = bi::mix64(seed_ + 400);
    none_ = x % 37 == 0;  // every score was -Inf
    m = none_ ? bi::neg_inf_f32() : bi::mul_rn(bi::float_from_int(static_cast<int>(x >> 20) % 40000 - 20000), 0x1p-12f);
    l = none_ ? 0.0f : bi::fma_rn(bi::float_from_int(static_cast<int>(bi::mix64(seed_ + 401) % 100000)), 0.001f, 1.0f);
  }
  float o(int column) const {
    const std::uint64_t x = bi::mix64(seed_ + static_cast<std::uint64_t>(column));
    if (none_) return 0.0f;
    return x % 11 == 0 ? -0.0f
                       : bi::mul_rn(bi::float_from_int(static_cast<int>(x >> 20) % 2000001 - 1000000), 0x1p-15f);
  }

 private:
  std::uint64_t seed_;
  bool none_;
};

// Of a row, columns and leaves in order.
template <int HeadDim>
struct folded_row {
  float m = bi::neg_inf_f32(), l = 0.0f, o[HeadDim] = {};
  bool first = true;

  void add(const partial& right) {
    const auto f = contract_v1::fold(m, right.m);
    l = first ? right.l : contract_v1::fold_value(f, l, right.l);
    for (int c = 0; c < HeadDim; ++c) o[c] = first ? right.o(c) : contract_v1::fold_value(f, o[c], right.o(c));
    m = first ? right.m : f.m;
    first = false;
  }
};

template <int HeadDim>
class fold_run {
 public:
  // `before`: what the memory holds until the kernels ahead of the fold have ended.
  fold_run(const fold_case& c, const fold_case& before) : c_(c), before_(before) {
    const auto requests = static_cast<std::int64_t>(c.len.size()), heads = c.heads_kv * c.group;
    for (const std::int32_t n : c.q_len) q_start_.push_back(q_start_.back() + n);
    for (const std::int32_t n : before.q_len) old_start_.push_back(old_start_.back() + n);
    const std::int64_t rows = std::max(q_start_.back(), old_start_.back());
    p_.a.batch.requests = requests, p_.a.batch.rows = rows, p_.a.batch.group = c.group;
    p_.a.batch.tile_rows =
        static_cast<std::int32_t>(std::max(*std::max_element(c.q_len.begin(), c.q_len.end()),
                                           *std::max_element(before.q_len.begin(), before.q_len.end())) *
                                  c.group);
    p_.a.batch.one_tile_each = true;
    p_.a.heads_kv = c.heads_kv, p_.a.window = c.window, p_.a.causal = c.causal, p_.a.out_aligned = true;
    p_.a.out_token_stride = heads * HeadDim, p_.a.out_head_stride = HeadDim, p_.a.lse_token_stride = heads;
    out_.assign(static_cast<std::size_t>(rows * heads * HeadDim), bf16{0x7fff}), expected_ = out_;
    lse_.assign(static_cast<std::size_t>(rows * heads), -77.0f), expected_lse_ = lse_;
    p_.a.out = out_.data(), p_.a.lse = lse_.data();
    std::int64_t leaves = 1;
    for (const fold_case* f : {&c, &before}) {
      for (const std::int32_t n : f->len) leaves = std::max<std::int64_t>(leaves, contract_v1::end_leaf(n));
    }
    const std::int64_t items = requests * c.heads_kv;
    const auto space = bi::schedule::attention_split_carve(c.blocks, leaves, leaves * items, p_.a.batch.tile_rows,
                                                           HeadDim, sizeof(bi::device::attention_cut));
    places_ = c.blocks * space.places_a_block;
    ml_.assign(static_cast<std::size_t>(2 * places_ * p_.a.batch.tile_rows), bi::nan_f32());
    o_.assign(ml_.size() / 2 * HeadDim + 4, bi::nan_f32());
    cuts_.assign(static_cast<std::size_t>(std::max<std::int64_t>(items, c.blocks)), bi::device::attention_cut{});
    auto address = reinterpret_cast<std::uintptr_t>(o_.data());
    p_.partials.o = reinterpret_cast<float*>((address + 15) / 16 * 16);
    p_.partials.ml = ml_.data(), p_.partials.cuts = cuts_.data();
    p_.partials.places.a_block = space.places_a_block, p_.partials.rows = p_.a.batch.tile_rows;
    p_.partials.by_item = items <= c.blocks;
    p_.blocks = c.blocks;
  }

  std::string operator()(int blocks, test::generator& g) {
    std::vector<std::int32_t> len = before_.len, starts = old_start_;
    p_.a.len = len.data(), p_.a.batch.q_start = starts.data();
    leave(before_, starts, false);
    bool done = false;
    lanes::before_dependencies() = [&] {
      if (done) return;
      done = true;
      std::copy(c_.len.begin(), c_.len.end(), len.begin());
      std::copy(q_start_.begin(), q_start_.end(), starts.begin());
      leave(c_, starts, true);
    };
    const std::int64_t units = (p_.partials.by_item ? p_.a.batch.requests * c_.heads_kv : c_.blocks) *
                               p_.partials.rows * (HeadDim / k::attention_fold_columns);
    p_.one_each = units <= blocks;
    lanes::launch(blocks, k::attention_fold_threads, k::attention_fold_kernel<contract_v1, bf16, HeadDim>, p_, g);
    lanes::before_dependencies() = {};
    const std::string wrong = test::difference(out_, expected_);
    return wrong.empty() ? test::difference(lse_, expected_lse_) : "out: " + wrong;
  }
  int folded_rows() const { return folded_rows_; }

 private:
  // What the kernel before leaves: records, and partial results of the items that were cut. `now`: their rows are expected.
  void leave(const fold_case& c, const std::vector<std::int32_t>& starts, bool now) {
    const auto requests = static_cast<std::int64_t>(c.len.size());
    std::vector<std::int64_t> leaves;
    std::int64_t total = 0;
    for (std::int64_t r = 0; r < requests; ++r) {
      const auto i = static_cast<std::size_t>(r);
      const auto rows = bi::device::attention_request_rows(p_.a.batch, r, starts[i], starts[i + 1]);
      leaves.push_back(bi::device::make_attention_item<contract_v1>(rows, c.len[i], c.causal, c.window).leaves);
      total += leaves.back() * c.heads_kv;
    }
    const auto leaves_of = [&](std::int64_t r) { return leaves[static_cast<std::size_t>(r)]; };
    const bi::device::attention_shares shares(total, p_.blocks);
    std::int64_t request = 0, first = 0;
    for (int b = 0; b < p_.blocks; ++b) {
      const std::int64_t begin = shares.begin(b), end = shares.begin(b + 1);
      if (!p_.partials.by_item) cuts_[static_cast<std::size_t>(b)].request = -1;
      if (begin == end) continue;
      while (first + leaves_of(request) * c.heads_kv <= begin) first += leaves_of(request++) * c.heads_kv;
      bi::device::attention_walk walk;
      walk.start(begin, end, request, first, leaves_of(request), false, c.heads_kv, leaves_of);
      for (;; walk.next(c.heads_kv, leaves_of, false)) {
        leave_run(c, starts, walk, b, end, total, now);
        if (!walk.more()) break;
      }
    }
  }
  void leave_run(const fold_case& c, const std::vector<std::int32_t>& starts, const bi::device::attention_walk& walk,
                 int b, std::int64_t end, std::int64_t total, bool now) {
    const bi::device::attention_run& run = walk.run;
    const auto r = static_cast<std::size_t>(run.request);
    if (p_.partials.by_item ? run.is_first() : !walk.more()) {
      const std::int64_t at = p_.partials.by_item ? run.request * c.heads_kv + run.head : b;
      cuts_[static_cast<std::size_t>(at)] =
          bi::device::make_attention_cut(run, b, end, total, starts[r], starts[r + 1], c.len[r]);
    }
    if (run.is_whole()) return;
    const auto rows = bi::device::attention_request_rows(p_.a.batch, run.request, starts[r], starts[r + 1]);
    const std::int64_t first =
        bi::device::make_attention_item<contract_v1>(rows, c.len[r], c.causal, c.window).first_leaf;
    const std::uint64_t item =
        (static_cast<std::uint64_t>(run.request) * 64 + static_cast<std::uint64_t>(run.head)) * 2 + now;
    for (int row = 0; row < rows.rows; ++row) {
      const auto seen = contract_v1::visible(c.causal, c.len[r], rows.q_len, rows.token(row), c.window);
      const auto sees = [&](std::int64_t leaf) {
        return seen.lo < seen.see && leaf >= contract_v1::first_leaf(seen.lo) && leaf < contract_v1::end_leaf(seen.see);
      };
      folded_row<HeadDim> folded;
      for (std::int64_t i = 0; i < run.count; ++i) {
        const std::int64_t leaf = first + run.begin + i;
        const partial part(item, leaf, row);
        if (!run.is_first()) {
          put(p_.partials.places.leaf(b, i), row, part.m, part.l, [&](int column) { return part.o(column); });
        } else if (sees(leaf)) {
          folded.add(part);
        }
      }
      if (!run.is_first()) continue;
      put(p_.partials.places.folded(b), row, folded.m, folded.l, [&](int column) { return folded.o[column]; });
      if (!now) continue;
      ++folded_rows_;
      for (std::int64_t leaf = first + run.count; leaf < first + run.leaves; ++leaf) {
        if (sees(leaf)) folded.add(partial(item, leaf, row));
      }
      const std::int64_t token = rows.first_row + rows.token(row), head = run.head * c.group + rows.head(row);
      for (int column = 0; column < HeadDim; ++column) {
        expected_[static_cast<std::size_t>(token * p_.a.out_token_stride + head * HeadDim + column)] =
            contract_v1::finish<bf16>(folded.o[column], folded.l, contract_v1::inverse(folded.l));
      }
      expected_lse_[static_cast<std::size_t>(token * p_.a.lse_token_stride + head)] =
          contract_v1::lse(folded.m, folded.l);
    }
  }
  template <class Value>
  void put(std::int64_t place, int row, float m, float l, const Value& o) {
    const std::int64_t at = place * p_.partials.rows + row;
    p_.partials.ml[2 * at] = m, p_.partials.ml[2 * at + 1] = l;
    for (int column = 0; column < HeadDim; ++column) p_.partials.o[at * HeadDim + column] = o(column);
  }

  const fold_case c_, before_;
  k::attention_fold_params<bf16> p_ = {};
  std::vector<std::int32_t> q_start_ = {0}, old_start_ = {0};
  std::vector<bf16> out_, expected_;
  std::vector<float> lse_, expected_lse_, ml_, o_;
  std::vector<bi::device::attention_cut> cuts_;
  std::int64_t places_ = 0;
  int folded_rows_ = 0;
};

template <int HeadDim>
int try_fold(const fold_case& c, const fold_case& before, int blocks, std::uint64_t seed) {
  test::generator g(seed);
  fold_run<HeadDim> run(c, before);
  INFO(c.blocks << " blocks, then " << blocks << ", head_dim " << HeadDim << ", seed " << seed);
  REQUIRE(run(blocks, g) == "");
  return run.folded_rows();
}

}  // namespace

TEST_CASE("attention_fold: leaves are folded in order, whatever was there before the wait", "[lanes][attention]") {
  // A few items in many blocks: more partial results than a round, and than its groups.
  const fold_case few = {{256 * 560 + 9, 256 * 40}, {1, 1}, 1, 3, 0, 7, true};
  const fold_case other = {{256 * 90, 256 * 300 + 1}, {1, 1}, 1, 3, 0, 7, true};
  CHECK(try_fold<128>(few, few, 5, 1) == 3);
  CHECK(try_fold<128>(few, other, 5, 2) == 3);
  CHECK(try_fold<64>(other, few, 40, 3) == 6);
  CHECK(try_fold<256>(other, other, 1, 4) == 6);
  // Windows, chunks, and more items than blocks: records by block.
  const fold_case many = {{9000, 0, 513, 70, 256 * 33, 5000}, {3, 1, 0, 2, 1, 3}, 2, 2, 0, 5, true};
  const fold_case windows = {{900, 4000, 256 * 20, 3000, 1, 256 * 50}, {1, 2, 3, 0, 1, 2}, 2, 2, 1500, 5, true};
  CHECK(try_fold<64>(many, many, 3, 5) > 6);
  CHECK(try_fold<64>(many, windows, 2, 6) > 6);
  CHECK(try_fold<64>(windows, many, 4, 7) > 6);
  // More records than words are looked at at once; those of the call before differ in the last ones alone.
  fold_case records = {{}, {}, 2, 1, 0, 120, true};
  records.len.assign(70, 256 * 3), records.q_len.assign(70, 1);
  records.len[68] = 256 * 2, records.len[69] = 256 * 5;
  fold_case others = records;
  std::swap(others.len[68], others.len[69]);
  CHECK(try_fold<64>(records, others, 4, 9) > 30);
  int rows = 0;
  test::generator g(8);
  for (int round = 0; round < 40; ++round) {
    fold_case c = {{}, {}, g.between(1, 3), g.between(1, 4), g.chance(30) ? g.between(1, 3000) : 0, 0, g.chance(70)};
    c.blocks = static_cast<int>(g.between(2, 24));
    fold_case before = c;
    for (std::int64_t r = g.between(1, 9); r > 0; --r) {
      for (fold_case* f : {&c, &before}) {
        f->len.push_back(static_cast<std::int32_t>(g.below(g.chance(50) ? 256 * 60 : 700)));
        f->q_len.push_back(static_cast<std::int32_t>(g.chance(15) ? 0 : g.between(1, 4)));
      }
    }
    if (round % 3 == 0) before = c;
    if (*std::max_element(c.q_len.begin(), c.q_len.end()) == 0) c.q_len[0] = 1;
    if (*std::max_element(before.q_len.begin(), before.q_len.end()) == 0) before.q_len[0] = 1;
    rows += try_fold<64>(c, before, static_cast<int>(g.between(1, 9)), g.next());
  }
  CHECK(rows > 200);
}
