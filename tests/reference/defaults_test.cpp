// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <string>
#include <vector>

#include "bi/bi.hpp"
#include "bi/reference/activation.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/layer_norm.hpp"
#include "bi/reference/reduce.hpp"
#include "bi/reference/token_counts.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// Arguments that are left out: strides that are 0, arrays that may be null.

namespace ref = bi::reference;

namespace {

std::vector<float> numbers(std::int64_t n, std::uint64_t seed) {
  return test::random_vector<float>(n, test::values::normal, seed);
}

// The outputs of two calls that have to be equal, and were written.
template <class T>
void require_equal(const std::vector<T>& one, const std::vector<T>& other) {
  REQUIRE(test::difference(one, other) == "");
  REQUIRE(test::difference(one, test::poisoned<T>(static_cast<std::int64_t>(one.size()))) != "");
}

}  // namespace

TEST_CASE("defaults: a stride of 0 is that of rows which follow one another", "[reference]") {
  const auto x = numbers(6 * 10, 1), y = numbers(6 * 10, 2);
  {
    auto one = test::poisoned<float>(60), other = one;
    bi::layer_norm_args<float> a;
    a.x = x.data(), a.out = one.data(), a.rows = 6, a.cols = 10;
    REQUIRE(ref::layer_norm(a));
    a.x_stride = a.out_stride = 10, a.out = other.data();
    REQUIRE(ref::layer_norm(a));
    require_equal(one, other);
  }
  {
    auto one = test::poisoned<float>(60), other = one;
    bi::add_args<float> a;
    a.x = x.data(), a.y = y.data(), a.out = one.data(), a.rows = 6, a.cols = 10;
    REQUIRE(ref::add(a));
    a.x_stride = a.y_stride = a.out_stride = 10, a.out = other.data();
    REQUIRE(ref::add(a));
    require_equal(one, other);
  }
  {
    const std::vector<std::int32_t> id = {5, 0, 3};
    auto one = test::poisoned<float>(30), other = one;
    bi::embedding_args<float> a;
    a.table = x.data(), a.table_rows = 6, a.id = id.data(), a.out = one.data(), a.rows = 3, a.cols = 10;
    REQUIRE(ref::embedding(a));
    a.table_stride = a.out_stride = 10, a.out = other.data();
    REQUIRE(ref::embedding(a));
    require_equal(one, other);
  }
  {
    auto one = test::poisoned<float>(10), other = one;
    bi::reduce_columns_args<float> a;
    a.x = x.data(), a.out = one.data(), a.outer = 2, a.cols = 6, a.inner = 5;
    for (const auto op : {bi::reduction::sum, bi::reduction::mean, bi::reduction::max, bi::reduction::min}) {
      a.x_stride = 0, a.out = one.data();
      REQUIRE(ref::reduce_columns(a, op));
      a.x_stride = 5, a.out = other.data();
      REQUIRE(ref::reduce_columns(a, op));
      require_equal(one, other);
    }
    auto index = test::poisoned<std::int64_t>(10), again = index;
    bi::arg_reduce_columns_args<float> b;
    b.x = x.data(), b.index = index.data(), b.outer = 2, b.cols = 6, b.inner = 5;
    REQUIRE(ref::argmax_columns(b));
    b.x_stride = 5, b.index = again.data();
    REQUIRE(ref::argmax_columns(b));
    require_equal(index, again);
    for (const bool outer : {false, true}) {
      auto none = b;
      (outer ? none.outer : none.inner) = 0;
      none.x_stride = 0;
      REQUIRE(ref::argmin_columns(none));
    }
  }
  {
    // Two ranks' roots of 3 x 10.
    auto one = test::poisoned<bi::bf16>(30), other = one;
    bi::gemm_finish_args<bi::bf16> a;
    a.partial = x.data(), a.ranks = 2, a.m = 3, a.n = 10, a.d = one.data();
    REQUIRE(ref::gemm_finish(a));
    a.ldp = a.ldd = 10, a.partial_rank_stride = 30, a.d = other.data();
    REQUIRE(ref::gemm_finish(a));
    require_equal(one, other);
    a.m = -1;
    REQUIRE(bi::describe(ref::gemm_finish(a)) == "gemm_finish: m = -1 must be at least 0");
    a.m = 3, a.n = 0, a.ldp = a.ldd = 0;
    REQUIRE(ref::gemm_finish(a));
  }
  {
    auto one = test::poisoned<float>(9), other = one;
    bi::gemm_f32_args a;
    a.a = x.data(), a.b = y.data(), a.a_row_stride = a.b_row_stride = 10, a.m = a.n = 3, a.k = 10, a.d = one.data();
    REQUIRE(ref::gemm_f32(a));
    a.d_row_stride = 3, a.d = other.data();
    REQUIRE(ref::gemm_f32(a));
    require_equal(one, other);
    a.m = -1;
    REQUIRE_FALSE(ref::gemm_f32(a));
  }
}

TEST_CASE("defaults: counts without prompts, views from their first token", "[reference]") {
  std::vector<std::int32_t> count(2 * 40), before(2 * 40, 7);
  std::vector<std::uint32_t> output(2 * 2);
  bi::clear_counts_args clear;
  clear.counts.count = count.data();
  clear.counts.output = output.data();
  clear.counts.slots = 2;
  clear.counts.vocab = 40;
  const std::vector<std::int32_t> slot = {1, -1};
  clear.slot = slot.data();
  clear.requests = 2;
  count = before;
  clear.counts.count = count.data();
  REQUIRE(ref::clear_counts(clear));
  for (std::size_t i = 0; i < 80; ++i) REQUIRE(count[i] == (i < 40 ? 7 : 0));

  const std::vector<std::int32_t> token = {3, 5, 3, 39, 1, 1, 1, 1}, pages = {1, 0}, lengths = {6, 0};
  bi::count_view_args view;
  view.counts = clear.counts;
  view.view = bi::page_table{pages.data(), 2};
  view.num_pages = 2;
  view.page_size = 4;
  view.token = token.data();
  view.count = lengths.data();
  view.slot = slot.data();
  view.requests = 2;
  REQUIRE(ref::count_view(view));
  CHECK(count[40 + 1] == 4);  // the page of view indices 0..3
  CHECK(count[40 + 3] == 1);
  CHECK(count[40 + 5] == 1);
  const auto says = [&](std::vector<std::int32_t> first, const std::vector<std::int32_t>& n) {
    view.first = first.data();
    view.count = n.data();
    return bi::describe(ref::count_view(view));
  };
  CHECK(says({-1, 0}, {2, 0}) == "count_view: first[0] = -1 must be at least 0");
  CHECK(says({3, -9}, {2, 0}) == "ok");  // nothing is counted: first is not looked at
  CHECK(says({3, 0}, {6, 0}) == "count_view: first + count[0] = 9 must be at most view.row_stride * page_size = 8");
}

TEST_CASE("defaults: which shapes can be cut over ranks", "[reference]") {
  using namespace bi::contract;
  CHECK(row_parallel_slices(4096, 4096, 3) == 0);
  CHECK(row_parallel_slices(4096, 0, 2) == 0);
  CHECK(row_parallel_slices(4096, 4100, 2) == 0);
  CHECK(row_parallel_slices(4096, 4096, 8) == 8);
  CHECK(row_parallel_slices(512, 65536, 8) == 8);  // 4 slices a rank would be 32
  CHECK(bi::reduce_columns_workspace_bytes(0, 10000, 5) == 0);
  CHECK(bi::reduce_columns_workspace_bytes(5, 10000, 0) == 0);
  CHECK(bi::reduce_columns_workspace_bytes(5, 8192, 5) == 0);
  CHECK(bi::reduce_columns_workspace_bytes(5, 8193, 5) == 2 * 25 * sizeof(float));
  CHECK(request_digest{1, 2} != request_digest{1, 3});
  CHECK(request_digest{1, 2} != request_digest{3, 2});
  CHECK(request_digest{1, 2} == request_digest{1, 2});
}
