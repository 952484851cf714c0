// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/contract/gemm.hpp"

#include <cstdint>
#include <set>
#include <type_traits>
#include <utility>
#include <vector>

#include "bi/contract/gemm_f32.hpp"
#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace c = bi::contract;

namespace {

template <bool Bias, bool Residual>
struct steps {
  static constexpr bool has_bias = Bias, has_residual = Residual;
};

// Numbers of the contract: a change here is a change of results.
static_assert(c::default_slices(2048, 4096) == 1 && c::default_slices(2047, 4096) == 2);
static_assert(c::default_slices(768, 4096) == 2 && c::default_slices(767, 4096) == 4);
static_assert(c::default_slices(1, 4096) == 4 && c::default_slices(1, 4095) == 1 && c::default_slices(0, 0) == 1);
static_assert(c::slice_length(4096, 8) == 512 && c::slice_length(4097, 8) == 576 && c::slice_length(1, 8) == 64);
static_assert(c::slice_length(0, 4) == 0 && c::slice_begin(0, 4, 3) == 0 && c::slice_end(0, 4, 3) == 0);
static_assert(c::slice_begin(4097, 8, 7) == 4032 && c::slice_end(4097, 8, 7) == 4097);
static_assert(c::slice_begin(100, 8, 1) == 64 && c::slice_end(100, 8, 1) == 100 && c::slice_begin(100, 8, 5) == 100);
static_assert(c::row_parallel_slices(4096, 4096, 8) == 8 && c::row_parallel_slices(4096, 4096, 2) == 2);
static_assert(c::row_parallel_slices(1024, 8192, 2) == 4 && c::row_parallel_slices(256, 32768, 4) == 8);
static_assert(c::row_parallel_slices(4096, 4096 + 64, 8) == 0 && c::row_parallel_slices(4096, 1000, 2) == 0);
static_assert(c::row_parallel_slices(4096, 4096, 3) == 0 && c::row_parallel_slices(4096, 0, 2) == 0);
static_assert(c::column_parallel_slices(4096, 4096, 4) == 2 && c::column_parallel_slices(4096, 4096, 1) == 1);
static_assert(c::gemm_f32_draft::slice == 1024);
static_assert(std::is_trivially_copyable_v<c::gemm_v1<bi::bf16>>);

TEST_CASE("gemm contract ids differ by type and slices", "[gemm]") {
  std::set<std::uint64_t> ids = {c::gemm_f32_draft::id()};
  for (const int s : {1, 2, 4, 8}) {
    ids.insert(c::gemm_v1<bi::bf16>{s}.id());
    ids.insert(c::gemm_v1<bi::fp16>{s}.id());
  }
  CHECK(ids.size() == 9);
}

TEST_CASE("slices cover k once, in order, in whole 64s", "[gemm]") {
  for (std::int64_t k = 0; k <= 5000; k += k < 700 ? 1 : 37) {
    for (const int s : {1, 2, 4, 8}) {
      std::int64_t at = 0;
      const std::int64_t length = c::slice_length(k, s);
      for (int i = 0; i < s; ++i) {
        const std::int64_t begin = c::slice_begin(k, s, i), end = c::slice_end(k, s, i);
        REQUIRE(begin == at);
        REQUIRE(begin <= end);
        REQUIRE((begin % 64 == 0 || begin == k));
        REQUIRE((end - begin == length || end == k));
        at = end;
      }
      REQUIRE(at == k);
    }
  }
  CHECK(c::slice_end(INT64_MAX, 8, 7) == INT64_MAX);
}

TEST_CASE("default_slices never leaves a slice of less than 1024, and falls as n grows", "[gemm]") {
  for (std::int64_t k = 0; k < 20000; k += 61) {
    int last = 8;
    for (std::int64_t n = 0; n < 3000; n += 13) {
      const int s = c::default_slices(n, k);
      REQUIRE(c::slices_valid(s));
      REQUIRE(s <= last);
      REQUIRE((s == 1 || k / s >= 1024));
      last = s;
    }
  }
}

TEST_CASE("a rank's slices are a subtree over its own part of k", "[gemm]") {
  for (const std::int64_t k : {512, 4096, 11008 * 2, 28672}) {
    for (const int max_ranks : {1, 2, 4, 8}) {
      const int s = c::row_parallel_slices(1024, k, max_ranks);
      if (s == 0) continue;
      for (int ranks = 1; ranks <= max_ranks; ranks *= 2) {
        for (int rank = 0; rank < ranks; ++rank) {
          const c::slice_range r = c::rank_slices(s, ranks, rank);
          REQUIRE(c::slices_valid(r.count));
          REQUIRE(r.first % r.count == 0);
          REQUIRE(c::slice_begin(k, s, r.first) == k / ranks * rank);
          // The shard cuts itself where the whole does.
          for (int i = 0; i <= r.count; ++i) {
            REQUIRE(c::slice_begin(k, s, r.first + i) == k / ranks * rank + c::slice_begin(k / ranks, r.count, i));
          }
        }
      }
    }
  }
}

// The tree walked level by level, in place.
float by_levels(std::vector<float> p) {
  for (std::size_t distance = 1; distance < p.size(); distance *= 2) {
    for (std::size_t i = 0; i < p.size(); i += 2 * distance) p[i] = bi::add_rn(p[i], p[i + distance]);
  }
  return p[0];
}

TEST_CASE("slices combine as a balanced tree", "[gemm]") {
  const bi::reference::fp_environment environment;
  int left_fold_differs = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto p = test::random_vector<float>(8, test::values::wide, seed);
    for (const int s : {1, 2, 4, 8}) {
      const std::vector<float> first(p.begin(), p.begin() + s);
      CHECK(bi::bits_of(c::combine_slices(p.data(), s)) == bi::bits_of(by_levels(first)));
    }
    const float all[8] = {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
    CHECK(bi::bits_of(c::combine_slices(all)) == bi::bits_of(by_levels(p)));
    // Roots of subtrees combine to the same.
    const float halves[2] = {c::combine_slices<4>(p.data()), c::combine_slices<4>(p.data() + 4)};
    CHECK(bi::bits_of(c::combine_slices(halves)) == bi::bits_of(by_levels(p)));
    float fold = p[0];
    for (std::size_t i = 1; i < 8; ++i) fold = bi::add_rn(fold, p[i]);
    left_fold_differs += bi::bits_of(fold) != bi::bits_of(by_levels(p)) ? 1 : 0;
  }
  CHECK(left_fold_differs > 0);  // the control
}

TEST_CASE("absent epilogue steps are skipped", "[gemm]") {
  const bi::reference::fp_environment environment;
  const float minus_zero = bi::float_of(0x80000000u);
  CHECK(bi::bits_of(c::gemm_output<float>(minus_zero, 1.0f)) == 0x80000000u);
  CHECK(bi::bits_of(c::gemm_output<float>(minus_zero, 1.0f, bi::bf16{0})) == 0);
  CHECK(bi::bits_of(c::gemm_output<float>(minus_zero, 1.0f, bi::bf16{0x8000})) == 0x80000000u);
  CHECK(bi::bits_of(c::gemm_output<float>(2.0f, -0.5f)) == bi::bits_of(-1.0f));
  CHECK(bi::bits_of(c::gemm_output<float>(0x1p-149f, 0.5f)) == 0);
  // gemm with bias rounds once.
  CHECK(c::gemm_output<bi::bf16>(0x1.01p0f, 1.0f, bi::bf16{0x3780}).bits == 0x3f81);  // + 2^-16
  CHECK(c::gemm_output<bi::bf16>(0x1.01p0f, 1.0f).bits == 0x3f80);
  // A residual is added to the rounded value, and rounds again.
  CHECK(c::gemm_add_residual(c::gemm_output<bi::bf16>(0x1.01p0f, 1.0f), bi::bf16{0x3780}).bits == 0x3f80);
  CHECK(bi::bits_of(c::gemm_add_residual(0x1.01p0f, bi::bf16{0x3780})) == bi::bits_of(0x1.0101p0f));

  // The whole sequence skips what is not there.
  const bi::bf16 *none = nullptr, small{0x3780}, one{0x3f80};
  const auto outputs = [](float acc, float alpha, const bi::bf16* bias, const bi::bf16* residual) {
    return std::pair(c::gemm_epilogue<bi::bf16>(acc, alpha, bias, residual).bits,
                     bi::bits_of(c::gemm_epilogue<float>(acc, alpha, bias, residual)));
  };
  CHECK(outputs(minus_zero, 1.0f, none, none) == std::pair(std::uint16_t{0x8000}, 0x80000000u));
  CHECK(outputs(0x1.01p1f, 0.5f, &small, none) == std::pair(std::uint16_t{0x3f81}, bi::bits_of(0x1.0101p0f)));
  CHECK(outputs(0x1.01p1f, 0.5f, none, &small) == std::pair(std::uint16_t{0x3f80}, bi::bits_of(0x1.0101p0f)));
  CHECK(outputs(0x1.01p1f, 0.5f, &small, &one) == std::pair(std::uint16_t{0x4000}, bi::bits_of(0x1.00808p1f)));
}

}  // namespace
