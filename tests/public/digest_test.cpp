// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/digest.hpp"

#include <cstdint>
#include <type_traits>
#include <vector>

#include "bi/reference/digest.hpp"
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

static_assert(std::is_same_v<bi::status, decltype(bi::digest_rows(bi::digest_rows_args{}, bi::cuda_stream{}))>);
static_assert(std::is_same_v<bi::status, decltype(bi::digest_kv(bi::digest_kv_args<T>{}, bi::cuda_stream{}))>);
static_assert(bi::digest_kv_args<T>{.first = nullptr}.requests == 0);  // no member without a default

}  // namespace

TEST_CASE("digest_rows: bad input", "[public][digest]") {
  using args = bi::digest_rows_args;
  std::vector<std::uint64_t> data(64, 5);
  args good;
  good.data = data.data();
  good.rows = 3;
  good.row_bytes = 20;
  good.row_stride_bytes = 30;  // 80 bytes in all
  good.out = data.data() + 32;
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.row_bytes = -1; }, {error::too_small, "row_bytes", -1}},
      {[](args& a) { a.row_stride_bytes = 19; }, {error::too_small, "row_stride_bytes", 19}},
      {[](args& a) { a.row_stride_bytes = 2 * huge; }, {error::overflow, "row_stride_bytes", 2 * huge}},
      {[](args& a) { a.rows = huge, a.row_bytes = a.row_stride_bytes = 1; }, {error::overflow, "rows", huge}},
      {[](args& a) { a.data = nullptr; }, {error::null_pointer, "data"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = data.data() + 9; }, {error::overlap, "out"}},
      {[](args& a) { a.rows = 0, a.row_bytes = -5; }, {error::too_small, "row_bytes", -5}},
  };
  require_complaints(good, rows, data, [](const args& a) { return ref::digest_rows(a); });
  args a = good;
  a.data = reinterpret_cast<const char*>(data.data()) + 3;  // any alignment
  a.out = data.data() + 11;
  REQUIRE(check(a));
}

TEST_CASE("digest_kv: bad input", "[public][digest]") {
  using args = bi::digest_kv_args<T>;
  std::vector<T> data = test::random_vector<T>(512, test::values::normal, 1);
  T* memory = data.data();
  const std::vector<std::int32_t> pages(16, 0), first = {0, 1}, count = {1, 2}, start = {0, 2, 4};
  const std::vector<bi::kv_run> runs(4);
  args good;
  good.cache.k = memory;
  good.cache.v = memory + 96;
  good.cache.num_pages = 3;
  good.cache.page_size = 4;
  good.cache.heads = 2;
  good.cache.head_dim = 4;
  good.view = bi::page_table{pages.data(), 4};
  good.first = first.data();
  good.count = count.data();
  good.requests = 2;
  good.out = reinterpret_cast<std::uint64_t*>(memory + 400);
  REQUIRE(check(good));
  const auto odd = [](const std::int32_t* p) { return byte_after(p); };
  const bad_row<args> rows[] = {
      {[](args& a) { a.requests = -1; }, {error::too_small, "requests", -1}},
      {[](args& a) { a.requests = huge; }, {error::too_large, "requests", huge}},
      {[](args& a) { a.cache.page_size = 0; }, {error::too_small, "cache.page_size", 0}},
      {[](args& a) { a.cache.head_dim = -1; }, {error::too_small, "cache.head_dim", -1}},
      {[](args& a) { a.cache.k = nullptr; }, {error::null_pointer, "cache.k"}},
      {[](args& a) { a.view = {}; }, {error::not_supported, "view", 0}},
      {[](args& a) { a.view.table.pages = nullptr; }, {error::null_pointer, "view.pages"}},
      {[](args& a) { a.view.table.row_stride = -1; }, {error::too_small, "view.row_stride", -1}},
      {[&](args& a) {
         a.view = bi::page_csr{pages.data(), nullptr};
       },
       {error::null_pointer, "view.start"}},
      {[&](args& a) {
         a.view = bi::page_csr{nullptr, start.data()};
       },
       {error::null_pointer, "view.pages"}},
      {[&](args& a) {
         a.view = bi::run_list{nullptr, start.data()};
       },
       {error::null_pointer, "view.runs"}},
      {[&](args& a) {
         a.view = bi::run_list{runs.data(), odd(start.data())};
       },
       {error::misaligned, "view.start"}},
      {[&](args& a) { a.first = odd(a.first); }, {error::misaligned, "first"}},
      {[&](args& a) { a.count = odd(a.count); }, {error::misaligned, "count"}},
      {[](args& a) { a.count = nullptr; }, {error::null_pointer, "count"}},
      {[](args& a) { a.out = nullptr; }, {error::null_pointer, "out"}},
      {[](args& a) { a.out = byte_after(a.out); }, {error::misaligned, "out"}},
      {[&](args& a) { a.out = reinterpret_cast<std::uint64_t*>(memory + 92); }, {error::overlap, "out"}},
      {[&](args& a) { a.out = reinterpret_cast<std::uint64_t*>(memory + 188); }, {error::overlap, "out"}},
      {[](args& a) { a.first = reinterpret_cast<const std::int32_t*>(a.out) + 3; }, {error::overlap, "out"}},
      {[](args& a) { a.count = reinterpret_cast<const std::int32_t*>(a.out); }, {error::overlap, "out"}},
  };
  require_complaints(good, rows, data, [](const args& a) { return ref::digest_kv(a); });
  args a = good;
  a.first = nullptr;
  a.out = reinterpret_cast<std::uint64_t*>(memory + 192);  // right after the cache
  REQUIRE(check(a));
}

TEST_CASE("digest: nothing to do", "[public][digest]") {
  REQUIRE(ref::digest_rows(bi::digest_rows_args{}));
  REQUIRE(ref::digest_kv(bi::digest_kv_args<T>{}));
  std::vector<std::uint64_t> out = {9, 9};
  bi::digest_rows_args a;  // rows of no bytes have a digest
  a.rows = 2;
  a.out = out.data();
  REQUIRE(ref::digest_rows(a));
  REQUIRE(out == std::vector<std::uint64_t>{0, 0});
}
