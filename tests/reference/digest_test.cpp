// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/digest.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using namespace bi::contract;
using bi::bf16;
using bi::error;

namespace {

template <class I>
std::size_t at(I i) {
  return static_cast<std::size_t>(i);
}

std::uint64_t term(std::uint64_t word, std::uint64_t index) {
  const std::uint64_t top = std::uint64_t{1} << 32, seed = (index + 1) * 0x9E3779B9u % top;
  const std::uint64_t low = seed * (seed ^ 0x5851F42Cu) / top, high = low * seed % top;
  return (top + (word % top + low) % top) * (top + (word / top + high) % top);
}
// The digest of bytes, word by word from the last.
std::uint64_t plain(const std::vector<unsigned char>& b) {
  std::uint64_t sum = 0;
  for (std::size_t w = digest_words(b.size()); w-- > 0;) {
    std::uint64_t word = 0;
    std::memcpy(&word, b.data() + 8 * w, std::min<std::size_t>(8, b.size() - 8 * w));
    sum += term(word, w);
  }
  return sum + bi::mix64(b.size());
}

// A cache whose token `index` of a sequence has values that depend on nothing else, and its page table.
template <class T>
struct filled_cache {
  std::int64_t length, page_size, heads, dim;
  std::vector<T> memory;
  std::vector<std::int32_t> table;  // page of each page-full of view tokens
  bi::paged_cache<const T> cache;

  static T value(std::int64_t token, int kv, std::int64_t h, std::int64_t d) {
    const auto bits = static_cast<std::uint32_t>(token * 1000 + kv * 500 + h * 100 + d * 7);
    return test::from_bits<T>(sizeof(T) == 2 ? bits & 0xffff : bits);
  }

  filled_cache(std::int64_t n, std::int64_t page, std::int64_t num_heads, std::int64_t head_dim, bool hnd,
               std::uint64_t seed)
      : length(n), page_size(page), heads(num_heads), dim(head_dim) {
    const std::int64_t used = (n + page - 1) / page, pages = used + 3, page_elements = page * heads * dim;
    memory = test::poisoned<T>(2 * pages * page_elements);
    for (std::int64_t p = 0; p < pages; ++p) table.push_back(static_cast<std::int32_t>(p));
    test::generator g(seed);
    for (std::size_t i = table.size() - 1; i > 0; --i)
      std::swap(table[i], table[at(g.below(static_cast<std::int64_t>(i) + 1))]);
    table.resize(at(used));
    cache.k = memory.data();
    cache.v = memory.data() + pages * page_elements;
    cache.num_pages = pages;
    cache.page_size = page;
    cache.heads = heads;
    cache.head_dim = dim;
    if (hnd) {
      cache.k_head_stride = page * dim;
      cache.k_token_stride = dim;
      cache.k_page_stride = page_elements;
    }
    const bi::cache_strides s = k_strides(cache);
    for (std::int64_t t = 0; t < n; ++t) {
      for (int kv = 0; kv < 2; ++kv) {
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t d = 0; d < dim; ++d) {
            memory[at(kv * pages * page_elements + slot(t) / page * s.page + slot(t) % page * s.token + h * s.head +
                      d)] = value(t, kv, h, d);
          }
        }
      }
    }
  }
  std::int64_t slot(std::int64_t t) const { return table[at(t / page_size)] * page_size + t % page_size; }

  std::uint64_t expected(std::int64_t first, std::int64_t count) const {
    const std::uint64_t token_bytes = static_cast<std::uint64_t>(2 * heads * dim) * sizeof(T);
    std::uint64_t sum = bi::mix64(static_cast<std::uint64_t>(count) * token_bytes);
    for (std::int64_t t = 0; t < count; ++t) {
      std::vector<T> token;
      for (int kv = 0; kv < 2; ++kv) {
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t d = 0; d < dim; ++d) token.push_back(value(first + t, kv, h, d));
        }
      }
      token.resize((token_bytes + 7) / 8 * 8 / sizeof(T), T{});
      for (std::size_t w = 0; w < (token_bytes + 7) / 8; ++w) {
        std::uint64_t word = 0;
        std::memcpy(&word, reinterpret_cast<const unsigned char*>(token.data()) + 8 * w, 8);
        const std::uint64_t index = static_cast<std::uint64_t>(t) * ((token_bytes + 7) / 8) + w;
        sum += term(word, index);
      }
    }
    return sum;
  }

  bi::digest_kv_args<T> args() const {
    bi::digest_kv_args<T> a;
    a.cache = cache;
    return a;
  }
  std::uint64_t digest(std::int32_t first, std::int32_t count) const {
    std::uint64_t out = 0;
    auto a = args();
    a.view = bi::page_table{table.data(), static_cast<std::int64_t>(table.size())};
    a.first = &first;
    a.count = &count;
    a.requests = 1;
    a.out = &out;
    REQUIRE(ref::digest_kv(a));
    return out;
  }
};

}  // namespace

TEST_CASE("digest_rows: every row by itself, at any alignment", "[reference][digest]") {
  test::generator g(1);
  for (const std::int64_t bytes : {0, 1, 7, 8, 9, 64, 1001, 8192}) {
    const std::int64_t rows = 13, stride = bytes + 5;
    std::vector<unsigned char> data(at(rows * stride + 8));
    for (auto& x : data) x = static_cast<unsigned char>(g.next());
    std::vector<std::uint64_t> expected;
    for (std::int64_t r = 0; r < rows; ++r) {
      expected.push_back(plain({data.begin() + 3 + r * stride, data.begin() + 3 + r * stride + bytes}));
    }
    for (const int threads : {1, 3}) {
      auto out = test::poisoned<std::uint64_t>(rows);
      bi::digest_rows_args a;
      a.data = data.data() + 3;
      a.row_stride_bytes = stride;
      a.rows = rows;
      a.row_bytes = bytes;
      a.out = out.data();
      REQUIRE(ref::digest_rows(a, threads));
      REQUIRE(out == expected);
    }
    if (bytes == 0) continue;
    data[at(3 + 4 * stride + bytes / 2)] ^= 1;  // one bit of row 4
    bi::digest_rows_args a;
    a.data = data.data() + 3;
    a.row_stride_bytes = stride;
    a.rows = rows;
    a.row_bytes = bytes;
    std::vector<std::uint64_t> out(at(rows));
    a.out = out.data();
    REQUIRE(ref::digest_rows(a));
    for (std::int64_t r = 0; r < rows; ++r) REQUIRE((out[at(r)] == expected[at(r)]) == (r != 4));
  }
}

TEST_CASE("digest_kv: a golden value", "[reference][digest]") {
  const filled_cache<bf16> c(3, 2, 2, 3, false, 1);
  REQUIRE(c.digest(0, 3) == 0xdc1ba3f673a3a8ceu);
}

TEMPLATE_TEST_CASE("digest_kv: pages, layouts and views don't show", "[reference][digest]", bf16, float) {
  using T = TestType;
  const struct {
    std::int64_t heads, dim;
  } shapes[] = {{2, 16}, {1, 1}, {3, 5}};  // tokens of 128, 4 and 60 bytes with two-byte elements
  for (const auto& shape : shapes) {
    const std::int64_t n = 70;
    for (const std::int64_t page_size : {1, 7, 16, 100}) {
      for (const bool hnd : {false, true}) {
        const filled_cache<T> c(n, page_size, shape.heads, shape.dim, hnd, 2);
        // Several requests in one call: runs of one sequence, given in three ways.
        const std::vector<std::int32_t> first = {0, 0, 13, 69, 16, 5}, count = {70, 1, 40, 1, 0, -3};
        const auto requests = static_cast<std::int64_t>(first.size());
        std::vector<std::int32_t> pages, csr, csr_start = {0}, run_start = {0};
        std::vector<bi::kv_run> runs;
        const auto row = static_cast<std::int64_t>(c.table.size()) + 2;
        for (std::int64_t i = 0; i < requests; ++i) {
          pages.insert(pages.end(), c.table.begin(), c.table.end());
          pages.insert(pages.end(), 2, -77);  // not part of any view
          csr.insert(csr.end(), c.table.begin(), c.table.end());
          csr_start.push_back(static_cast<std::int32_t>(csr.size()));
          // Each slot a run; neighbours joined at random, empty runs in between.
          test::generator g(3);
          for (std::int64_t t = 0; t < n; ++t) {
            const auto slot = static_cast<std::int32_t>(c.slot(t));
            if (t > 0 && runs.back().length > 0 && runs.back().slot + runs.back().length == slot && g.chance(70)) {
              ++runs.back().length;
            } else {
              if (g.chance(10)) runs.push_back({12345678, 0});
              runs.push_back({slot, 1});
            }
          }
          run_start.push_back(static_cast<std::int32_t>(runs.size()));
        }
        const bi::kv_view views[] = {bi::page_table{pages.data(), row}, bi::page_csr{csr.data(), csr_start.data()},
                                     bi::run_list{runs.data(), run_start.data()}};
        for (const bi::kv_view& view : views) {
          auto out = test::poisoned<std::uint64_t>(requests);
          auto a = c.args();
          a.view = view;
          a.first = first.data();
          a.count = count.data();
          a.requests = requests;
          a.out = out.data();
          const bi::status st = ref::digest_kv(a, 2);
          INFO(bi::describe(st));
          REQUIRE(st);
          for (std::int64_t i = 0; i < requests; ++i) {
            REQUIRE(out[at(i)] == c.expected(first[at(i)], std::max(count[at(i)], 0)));
          }
          a.first = nullptr;
          a.requests = 1;
          REQUIRE(ref::digest_kv(a));
          REQUIRE(out[0] == c.expected(0, 70));
        }
      }
    }
  }
}

TEST_CASE("digest_kv: a run is the sum of its parts", "[reference][digest]") {
  const filled_cache<bf16> c(100, 16, 3, 5, false, 4);
  const std::uint64_t token_bytes = kv_token_bytes(3, 5, 2);
  // The terms of tokens [20, 50) in the run that starts at 7, from the digest of a run of their own: the same bytes at
  // other words, so terms are recomputed, not shifted.
  const auto terms = [&](std::int64_t first, std::int64_t count, std::int64_t start) {
    std::uint64_t sum = 0;
    for (std::int64_t t = first; t < first + count; ++t) {
      std::vector<bf16> token;
      for (int kv = 0; kv < 2; ++kv) {
        for (std::int64_t h = 0; h < 3; ++h) {
          for (std::int64_t d = 0; d < 5; ++d) token.push_back(filled_cache<bf16>::value(t, kv, h, d));
        }
      }
      sum += digest_terms(token.data(), token_bytes, kv_token_word(static_cast<std::uint64_t>(t - start), token_bytes));
    }
    return sum;
  };
  REQUIRE(c.digest(7, 80) ==
          digest_length_term(80 * token_bytes) + terms(50, 37, 7) + terms(7, 13, 7) + terms(20, 30, 7));
  REQUIRE(c.digest(7, 80) !=
          digest_length_term(80 * token_bytes) + terms(50, 37, 8) + terms(7, 13, 7) + terms(20, 30, 7));
}

TEST_CASE("digest_kv: every bit and the order of tokens show", "[reference][digest]") {
  filled_cache<bf16> c(10, 4, 2, 4, false, 5);
  const std::uint64_t base = c.digest(0, 10);
  std::size_t changed = 0;
  for (auto& x : c.memory) {
    x.bits = static_cast<std::uint16_t>(x.bits ^ 0x10);
    changed += c.digest(0, 10) != base;
    x.bits = static_cast<std::uint16_t>(x.bits ^ 0x10);
  }
  REQUIRE(changed == 2 * 10 * 2 * 4);  // each element of the view, none of the other slots
  std::swap(c.table[0], c.table[1]);
  REQUIRE(c.digest(0, 10) != base);
  std::swap(c.table[0], c.table[1]);
  REQUIRE(c.digest(0, 10) == base);
  REQUIRE(c.digest(0, 9) != base);
  std::swap(c.cache.k, c.cache.v);
  REQUIRE(c.digest(0, 10) != base);
}

TEST_CASE("digest_kv: views that don't hold the run are refused", "[reference][digest]") {
  const filled_cache<bf16> c(20, 4, 1, 4, false, 6);
  const auto refused = [&](const bi::kv_view& view, std::int32_t first, std::int32_t count, error code,
                           const char* argument, std::int64_t value, std::int64_t bound, std::int64_t position) {
    const std::vector<std::int32_t> firsts = {0, first}, counts = {1, count};
    std::vector<std::uint64_t> out = {7, 7};
    auto a = c.args();
    a.view = view;
    a.first = firsts.data();
    a.count = counts.data();
    a.requests = 2;
    a.out = out.data();
    const bi::status st = ref::digest_kv(a);
    INFO(bi::describe(st));
    REQUIRE(st.code == code);
    REQUIRE(std::string(st.operation) == "digest_kv");
    REQUIRE(std::string(st.argument) == argument);
    REQUIRE(st.value == value);
    REQUIRE(st.bound == bound);
    REQUIRE(st.position == position);
    REQUIRE(out == std::vector<std::uint64_t>{7, 7});
  };
  const error small = error::too_small, large = error::too_large, outside = error::index_out_of_range;
  const std::int64_t num_pages = c.cache.num_pages, slots = num_pages * c.cache.page_size;  // 8 and 32
  const std::vector<std::int32_t> pages = {0, 1, 2, 0, 8, -1}, start = {0, 3, 6};
  for (const bool csr : {false, true}) {
    const bi::kv_view view =
        csr ? bi::kv_view(bi::page_csr{pages.data(), start.data()}) : bi::kv_view(bi::page_table{pages.data(), 3});
    refused(view, -1, 2, small, "first", -1, 0, 1);
    refused(view, 0, 13, large, "first + count", 13, 12, 1);
    refused(view, 2147483647, 2147483647, large, "first + count", 4294967294, 12, 1);
    refused(view, 4, 1, outside, "view.pages", 8, num_pages, 4);
    refused(view, 8, 1, outside, "view.pages", -1, num_pages, 5);
  }
  const std::vector<std::int32_t> negative = {-1, 3, 6}, falling = {0, 6, 3};
  refused(bi::page_csr{pages.data(), negative.data()}, 0, 1, small, "view.start", -1, 0, 0);
  refused(bi::page_csr{pages.data(), falling.data()}, 0, 0, small, "view.start", 3, 6, 2);

  const std::vector<bi::kv_run> runs = {{0, 5}, {3, 2}, {30, 3}, {-1, 1}, {2, -1}};
  const std::vector<std::int32_t> run_start = {0, 1, 5};
  const bi::run_list list{runs.data(), run_start.data()};
  refused(list, -5, 2, small, "first", -5, 0, 1);
  refused(list, 2, 3, outside, "view.runs.slot", 32, slots, 2);  // slots 30, 31, 32 of 32
  refused(list, 5, 1, outside, "view.runs.slot", -1, slots, 3);
  refused(list, 6, 1, small, "view.runs.length", -1, 0, 4);
  const std::vector<std::int32_t> shorter = {0, 1, 3};
  refused(bi::run_list{runs.data(), shorter.data()}, 2, 4, outside, "view.runs.slot", 32, slots, 2);
  const std::vector<std::int32_t> two = {0, 1, 2}, back = {1, 0, 2};
  refused(bi::run_list{runs.data(), two.data()}, 1, 2, large, "first + count", 3, 2, 1);
  refused(bi::run_list{runs.data(), back.data()}, 0, 1, small, "view.start", 0, 1, 1);

  auto nothing = c.args();  // no request: no array is read
  nothing.view = bi::page_csr{};
  REQUIRE(ref::digest_kv(nothing));
}
