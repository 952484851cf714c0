// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/digest.hpp"

#include <cstdint>
#include <vector>

#include "bi/schedule/rows.hpp"
#include "golden/cases_tokens.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "gpu/support/late_copy.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

// Digests that thread blocks share; tokens_test.cpp has the others.

using bi::bf16;
using test::values;

namespace {

constexpr std::int64_t most = 140;  // rows: from 133 on a row has a thread block of its own

std::vector<unsigned char> random_bytes(std::int64_t n, std::uint64_t seed) {
  test::generator g(seed);
  std::vector<unsigned char> out(static_cast<std::size_t>(n));
  for (unsigned char& x : out) x = static_cast<unsigned char>(g.next());
  return out;
}

}  // namespace

TEST_CASE("digest_rows: how many thread blocks share a row does not show", "[gpu][digest]") {
  CHECK(bi::schedule::pick_digest_schedule(1, 16384, true).parts > 1);
  CHECK(bi::schedule::pick_digest_schedule(most, 1 << 20, true).parts == 1);
  for (const std::int64_t bytes : {16384, 40003, 70000}) {
    for (const std::int64_t offset : {0, 4}) {
      const std::int64_t stride = (bytes + 15) / 16 * 16 + offset;
      const auto data = random_bytes(offset + most * stride, static_cast<std::uint64_t>(bytes));
      std::vector<std::uint64_t> expected(static_cast<std::size_t>(most));
      bi::digest_rows_args a;
      a.data = data.data() + offset, a.row_stride_bytes = stride, a.rows = most, a.row_bytes = bytes;
      a.out = expected.data();
      REQUIRE(bi::reference::digest_rows(a));
      test::gpu_backend gpu;
      const unsigned char* const on_device = gpu.input(data) + offset;
      a.out = gpu.output<std::uint64_t>(most);
      for (a.rows = 1; a.rows <= most; ++a.rows) {
        for (const std::int64_t first : {std::int64_t{0}, (most - a.rows) / 2, most - a.rows}) {
          a.data = on_device + first * stride;
          gpu.poison(a.out, most);
          for (int again = 0; again < 2; ++again)
            gpu.run(test::digest_rows_op{}, a);  // and what is there doesn't count
          INFO(a.rows << " rows of " << bytes << " bytes from row " << first);
          REQUIRE(test::difference(gpu.read(a.out, a.rows).data(), expected.data() + first, a.rows) == "");
        }
      }
      // Control: one bit anywhere shows.
      auto changed = data;
      changed[static_cast<std::size_t>(offset + 3 * stride + bytes - 1)] ^= 1;
      a.data = gpu.input(changed) + offset, a.rows = 5;
      gpu.run(test::digest_rows_op{}, a);
      const auto got = gpu.read(a.out, a.rows);
      CHECK(got[3] != expected[3]);
      CHECK(got[4] == expected[4]);
    }
  }
}

TEMPLATE_TEST_CASE("digest_kv: few long runs, shared by thread blocks", "[gpu][digest]", bf16, bi::fp16, float) {
  using T = TestType;
  constexpr std::int64_t page_size = 16, pages = 320, heads = 2, dim = 40;
  constexpr std::int64_t n = pages * page_size * heads * dim;
  const auto k = test::random_vector<T>(n, values::hostile, 1), v = test::random_vector<T>(n, values::hostile, 2);
  std::vector<std::int32_t> table;
  for (std::int64_t i = 0; i < pages; ++i) table.push_back(static_cast<std::int32_t>(i * 77 % pages));
  const std::vector<std::int32_t> counts[] = {{5000},    {0},           {-3},
                                              {5120, 1}, {17, 4000, 0}, {1, 2, 3, 1000, 16, 15, 256, 257, 5000}};
  for (const auto& count : counts) {
    const auto requests = static_cast<std::int64_t>(count.size());
    std::vector<std::int32_t> pages_of_all, first;
    for (std::int64_t r = 0; r < requests; ++r) {
      pages_of_all.insert(pages_of_all.end(), table.begin(), table.end());
      first.push_back(count[static_cast<std::size_t>(r)] <= 5000 ? static_cast<std::int32_t>(r * 13 % 120) : 0);
    }
    const auto run = [&](auto& b) {
      bi::digest_kv_args<T> a;
      a.cache.k = b.input(k), a.cache.v = b.input(v);
      a.cache.num_pages = pages, a.cache.page_size = page_size, a.cache.heads = heads, a.cache.head_dim = dim;
      a.view = bi::page_table{b.input(pages_of_all), pages};
      a.first = b.input(first), a.count = b.input(count), a.requests = requests;
      a.out = b.template output<std::uint64_t>(requests);
      for (int again = 0; again < 2; ++again) b.run(test::digest_kv_op{}, a);
      return b.read(a.out);
    };
    test::host_backend host;
    test::gpu_backend gpu;
    INFO(requests << " requests, the first of " << count[0]);
    REQUIRE(test::difference(run(gpu), run(host)) == "");
    gpu.clear();
  }
}

// A programmatic launch may begin before the kernel ahead of it has written what it reads. A kernel's first launch would
// not: loading it takes longer.
TEST_CASE("digests wait for the kernel before them", "[gpu][digest]") {
  constexpr std::int64_t words = 50000;
  test::generator g(4);
  std::vector<std::int32_t> data(static_cast<std::size_t>(words)), counts(1);
  for (std::int32_t& x : data) x = static_cast<std::int32_t>(g.next());
  test::gpu_backend gpu;
  std::int32_t *now = gpu.output<std::int32_t>(words), *later = gpu.input(data);
  bi::digest_rows_args a;
  a.data = now, a.rows = 1, a.row_bytes = words * 4;
  a.out = gpu.output<std::uint64_t>(1);
  test::require_ok(bi::digest_rows(a, gpu.stream()));
  gpu.sync();
  test::require_ok(test::copy_late({now, later, words, 50}, gpu.stream()));
  test::require_ok(bi::digest_rows(a, gpu.stream()));
  CHECK(gpu.read(a.out)[0] == bi::contract::digest_length_term(words * 4) +
                                  bi::contract::digest_terms(data.data(), static_cast<std::uint64_t>(words) * 4));

  bi::digest_kv_args<bf16> d;
  d.cache.k = reinterpret_cast<bf16*>(now), d.cache.v = d.cache.k + words;
  d.cache.num_pages = 1, d.cache.page_size = words / 50, d.cache.heads = 1, d.cache.head_dim = 50;
  std::int32_t *pages = gpu.input(std::vector<std::int32_t>{0}), *count = gpu.input(std::vector<std::int32_t>{0});
  d.view = bi::page_table{pages, 1};
  d.count = count, d.requests = 1, d.out = a.out;
  test::require_ok(bi::digest_kv(d, gpu.stream()));
  gpu.sync();
  test::require_ok(test::copy_late({count, gpu.input(std::vector<std::int32_t>{words / 50}), 1, 50}, gpu.stream()));
  test::require_ok(bi::digest_kv(d, gpu.stream()));
  auto host = d;
  const std::int32_t page = 0, all = words / 50;
  std::uint64_t expected = 0;
  host.cache.k = reinterpret_cast<const bf16*>(data.data()), host.cache.v = host.cache.k + words;
  host.view = bi::page_table{&page, 1}, host.count = &all, host.out = &expected;
  REQUIRE(bi::reference::digest_kv(host));
  CHECK(gpu.read(a.out)[0] == expected);
  gpu.clear();
}
