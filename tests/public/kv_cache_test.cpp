// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/kv_cache.hpp"

#include <cstdint>
#include <type_traits>
#include <vector>

#include "bi/reference/kv_cache.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::error;
using test::bad_row;
using test::byte_after;
using test::require_complaints;
using T = bi::bf16;

namespace {

constexpr std::int64_t huge = std::int64_t{1} << 61;

static_assert(std::is_same_v<bi::status, decltype(bi::kv_append(bi::kv_append_args<T>{}, bi::cuda_stream{}))>);
static_assert(bi::kv_append_args<T>{.k = nullptr}.tokens == 0);  // no member without a default

}  // namespace

TEST_CASE("kv_append: bad input", "[public][kv_append]") {
  using args = bi::kv_append_args<T>;
  // One buffer: the cache's K and V of 3 pages of 4 tokens of 2 heads of 8 (192 each), then k and v of 3 tokens.
  std::vector<T> data = test::random_vector<T>(1024, test::values::normal, 1);
  T* memory = data.data();
  std::vector<std::int64_t> slot = {11, -1, 3};
  std::vector<std::int32_t> position = {4, 99, 0};
  const std::vector<float> table(64, 0.5f);
  const std::vector<T> weight(8, T{0x3f80});
  args good;
  good.cache.k = memory;
  good.cache.v = memory + 192;
  good.cache.num_pages = 3;
  good.cache.page_size = 4;
  good.cache.heads = 2;
  good.cache.head_dim = 8;
  good.k = memory + 400;
  good.v = memory + 500;
  good.k_head_stride = 10;
  good.k_token_stride = 30;
  good.slot = slot.data();
  good.tokens = 3;
  good.norm_weight = weight.data();
  good.position = position.data();
  good.table = {table.data(), table.data() + 20, 5, 8, bi::rope_style::half};
  good.q = memory + 600;
  good.heads_q = 3;
  good.q_norm_weight = weight.data();
  good.q_out = memory + 700;
  good.q_out_token_stride = 26;
  std::vector<std::uint64_t> digest(3);
  std::vector<std::int32_t> run_index = {0, -1, 2};
  const std::vector<std::int32_t> bad_index = {-1, 0, 0};
  good.digest = digest.data();
  good.run_index = run_index.data();
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.tokens = -1; }, {error::too_small, "tokens", -1}},
      {[](args& a) { a.tokens = huge; }, {error::overflow, "tokens", huge}},
      {[](args& a) { a.cache.num_pages = -1; }, {error::too_small, "cache.num_pages", -1}},
      {[](args& a) { a.cache.page_size = 0; }, {error::too_small, "cache.page_size", 0}},
      {[](args& a) { a.cache.heads = 0; }, {error::too_small, "cache.heads", 0}},
      {[](args& a) { a.cache.head_dim = 0; }, {error::too_small, "cache.head_dim", 0}},
      {[](args& a) { a.cache.k = nullptr; }, {error::null_pointer, "cache.k"}},
      {[](args& a) { a.cache.v = nullptr; }, {error::null_pointer, "cache.v"}},
      {[](args& a) { a.cache.v = byte_after(a.cache.v); }, {error::misaligned, "cache.v"}},
      {[](args& a) { a.cache.k_head_stride = 7; }, {error::too_small, "cache.k_head_stride", 7}},
      {[](args& a) { a.cache.v_token_stride = 1; }, {error::too_small, "cache.v_token_stride", 1}},
      {[](args& a) { a.k_head_stride = 7; }, {error::too_small, "k_head_stride", 7}},
      {[](args& a) { a.v_head_stride = -1; }, {error::too_small, "v_head_stride", -1}},
      {[](args& a) { a.k_head_stride = huge; }, {error::overflow, "k_head_stride", huge}},
      {[](args& a) { a.k_token_stride = 17; }, {error::too_small, "k_token_stride", 17}},
      {[](args& a) { a.v_token_stride = 16; }, {error::too_small, "v_token_stride", 16}},
      {[](args& a) { a.v_token_stride = huge; }, {error::overflow, "v_token_stride", huge}},
      {[](args& a) { a.k = nullptr; }, {error::null_pointer, "k"}},
      {[](args& a) { a.v = nullptr; }, {error::null_pointer, "v"}},
      {[](args& a) { a.slot = nullptr; }, {error::null_pointer, "slot"}},
      {[](args& a) { a.k = byte_after(a.k); }, {error::misaligned, "k"}},
      {[](args& a) { a.v = byte_after(a.v); }, {error::misaligned, "v"}},
      {[](args& a) { a.slot = byte_after(a.slot); }, {error::misaligned, "slot"}},
      {[](args& a) { a.norm_weight = byte_after(a.norm_weight); }, {error::misaligned, "norm_weight"}},
      {[](args& a) { a.norm_eps = -1.0f; }, {error::not_valid, "norm_eps"}},
      {[](args& a) { a.norm_eps = bi::nan_f32(); }, {error::not_valid, "norm_eps"}},
      {[](args& a) { a.position = nullptr; }, {error::null_pointer, "position"}},
      {[](args& a) { a.position = byte_after(a.position); }, {error::misaligned, "position"}},
      {[](args& a) { a.table.cos = nullptr; }, {error::null_pointer, "table.cos"}},
      {[](args& a) { a.table.sin = nullptr; }, {error::null_pointer, "table.sin"}},
      {[](args& a) { a.table.rotary_dim = 10; }, {error::too_large, "table.rotary_dim", 10}},
      {[](args& a) { a.table.rotary_dim = 5; }, {error::not_multiple, "table.rotary_dim", 5}},
      {[](args& a) { a.table.positions = 0; }, {error::too_small, "table.positions", 0}},
      {[&](args& a) { a.k = memory + 191; }, {error::overlap, "cache.k"}},
      {[&](args& a) { a.v = memory; }, {error::overlap, "cache.k"}},
      {[&](args& a) { a.k = memory + 383; }, {error::overlap, "cache.v"}},
      {[&](args& a) { a.v = memory + 193; }, {error::overlap, "cache.v"}},
      {[](args& a) { a.heads_q = 0; }, {error::too_small, "heads_q", 0}},
      {[](args& a) { a.heads_q = huge; }, {error::too_large, "heads_q", huge}},
      {[](args& a) { a.q = nullptr; }, {error::not_supported, "q_out", 1}},
      {[](args& a) { a.q = byte_after(a.q); }, {error::misaligned, "q"}},
      {[](args& a) { a.q_out = nullptr; }, {error::null_pointer, "q_out"}},
      {[](args& a) { a.q_out = byte_after(a.q_out); }, {error::misaligned, "q_out"}},
      {[](args& a) { a.q_head_stride = 7; }, {error::too_small, "q_head_stride", 7}},
      {[](args& a) { a.q_out_head_stride = 7; }, {error::too_small, "q_out_head_stride", 7}},
      {[](args& a) { a.q_token_stride = 23; }, {error::too_small, "q_token_stride", 23}},
      {[](args& a) { a.q_out_token_stride = 23; }, {error::too_small, "q_out_token_stride", 23}},
      {[](args& a) { a.q_norm_weight = byte_after(a.q_norm_weight); }, {error::misaligned, "q_norm_weight"}},
      {[](args& a) { a.digest = byte_after(a.digest); }, {error::misaligned, "digest"}},
      {[](args& a) { a.run_index = byte_after(a.run_index); }, {error::misaligned, "run_index"}},
      {[&](args& a) { a.q_out = memory + 600; }, {error::overlap, "q_out"}},  // not q's strides
      {[&](args& a) { a.q_out = memory + 500; }, {error::overlap, "q_out"}},
      {[&](args& a) { a.q = memory + 383; }, {error::overlap, "cache.v"}},
      {[&](args& a) { a.q_out = memory + 100; }, {error::overlap, "cache.k"}},
      {[&](args& a) { a.digest = reinterpret_cast<std::uint64_t*>(memory + 8); }, {error::overlap, "cache.k"}},
      {[&](args& a) { a.digest = reinterpret_cast<std::uint64_t*>(memory + 704); }, {error::overlap, "q_out"}},
      {[&](args& a) { a.digest = reinterpret_cast<std::uint64_t*>(memory + 404); }, {error::overlap, "digest"}},
      // q_out in the rows of k, between its heads: rows of one stride may take turns, these meet.
      {[&](args& a) { a.q_out = memory + 429, a.q_out_token_stride = 30; }, {error::overlap, "q_out"}},
      {[&](args& a) { a.run_index = bad_index.data(); }, {error::too_small, "run_index", -1}},
      {[](args& a) { a.cache.num_pages = 2; }, {error::index_out_of_range, "slot", 11}},
      {[](args& a) { a.cache.num_pages = 0; }, {error::index_out_of_range, "slot", 11}},
      {[](args& a) { a.table.positions = 4; }, {error::index_out_of_range, "position", 4}},
  };
  require_complaints(good, rows, data, [](const args& a) { return ref::kv_append(a); });
  args a = good;
  a.cache.num_pages = 2;
  REQUIRE(bi::describe(ref::kv_append(a)) ==
          "kv_append: slot[0] = 11 must be at least 0 and below the cache's slots = 8");
  const auto untouched = data;
  position[2] = -1;  // of a token that is not padding
  REQUIRE(bi::describe(ref::kv_append(good)) ==
          "kv_append: position[2] = -1 must be at least 0 and below table.positions = 5");
  position[2] = 0;
  slot = {7, 2, 7};
  REQUIRE(bi::describe(ref::kv_append(good)).find("kv_append: ") == 0);
  position[1] = run_index[1] = 1;
  const bi::status st = ref::kv_append(good);
  REQUIRE(bi::describe(st) == "kv_append: slot[2] overlaps another token's slot");
  REQUIRE(st.value == 7);
  REQUIRE(st.bound == 0);  // the other token
  REQUIRE(test::difference(data, untouched) == "");
  slot = {-1, -7, -1};  // nothing but padding
  REQUIRE(ref::kv_append(good));
  REQUIRE(test::difference(data, untouched) == "");
  // Not mistakes: no norm and no table; k right after the cache.
  a = good;
  a.norm_weight = nullptr;
  a.table = {};
  a.position = nullptr;
  a.k = memory + 384;
  REQUIRE(check(a));
}

TEST_CASE("kv_append: nothing to do", "[public][kv_append]") {
  REQUIRE(ref::kv_append(bi::kv_append_args<T>{}));
  REQUIRE(ref::kv_append(bi::kv_append_args<float>{}));
}
