// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/kv_cache.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bi/reference/digest.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::bf16;
using bi::fp16;
using namespace bi::contract;

namespace {

template <class I>
std::size_t at(I i) {
  return static_cast<std::size_t>(i);
}

constexpr std::int64_t tokens = 23, heads = 3, positions = 50;

enum class layout { nhd, hnd, interleaved, padded };
constexpr layout layouts[] = {layout::nhd, layout::hnd, layout::interleaved, layout::padded};

// K and V pages in one allocation.
template <class T>
struct pages {
  bi::paged_cache<T> cache;
  std::vector<T> memory;

  pages(layout l, std::int64_t page_size, std::int64_t num_pages, std::int64_t dim) {
    cache.num_pages = num_pages;
    cache.page_size = page_size;
    cache.heads = heads;
    cache.head_dim = dim;
    std::int64_t v = num_pages * page_size * heads * dim;
    if (l == layout::hnd) {
      cache.k_token_stride = dim;
      cache.k_head_stride = page_size * dim;
      cache.k_page_stride = page_size * heads * dim;
    } else if (l == layout::interleaved) {  // a page's K, then its V
      v = page_size * heads * dim;
      cache.k_page_stride = 2 * v;
    } else if (l == layout::padded) {
      cache.k_head_stride = dim + 1;
      cache.k_token_stride = heads * (dim + 1) + 2;
      v = num_pages * page_size * cache.k_token_stride;
      cache.v_head_stride = dim + 3;
      cache.v_token_stride = heads * (dim + 3);
      cache.v_page_stride = page_size * cache.v_token_stride + 5;
    }
    memory = test::poisoned<T>(2 * num_pages * (page_size * (heads * (dim + 3) + 2) + 5));
    cache.k = memory.data();
    cache.v = memory.data() + v;
  }
  T* place(bool is_k, std::int64_t slot, std::int64_t head) {
    const bi::cache_strides s = is_k ? k_strides(cache) : v_strides(cache);
    return (is_k ? cache.k : cache.v) + slot / cache.page_size * s.page + slot % cache.page_size * s.token +
           head * s.head;
  }
};

std::vector<std::int64_t> random_slots(std::int64_t slots, std::uint64_t seed) {
  test::generator g(seed);
  std::vector<std::int64_t> all;
  for (std::int64_t s = 0; s < slots; ++s) all.push_back(s);
  for (std::size_t i = all.size() - 1; i > 0; --i)
    std::swap(all[i], all[at(g.below(static_cast<std::int64_t>(i) + 1))]);
  all.resize(at(tokens));
  all[3] = -1;  // padding
  all[11] = -5000000000;
  return all;
}

struct table {
  std::vector<float> cos, sin;
  table(std::int64_t rotary_dim) {
    test::generator g(9);
    for (std::int64_t i = 0; i < positions * rotary_dim / 2; ++i) {
      cos.push_back(g.normal());
      sin.push_back(g.normal());
    }
  }
};

// qk_norm and rope of [tokens, heads, dim], packed.
template <class Norm, class T>
std::vector<T> normed_and_rotated(const bi::kv_append_args<T>& a, const T* from, const bi::cache_strides& s,
                                  std::int64_t n_heads, const T* weight) {
  const std::int64_t dim = a.cache.head_dim;
  std::vector<T> x(at(tokens * n_heads * dim));
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t i = 0; i < n_heads * dim; ++i)
      x[at(t * n_heads * dim + i)] = from[t * s.token + i / dim * s.head + i % dim];
  }
  if (weight != nullptr) {
    bi::qk_norm_args<T> n;
    n.x = n.out = x.data();
    n.weight = weight;
    n.eps = a.norm_eps;
    n.tokens = tokens;
    n.heads = n_heads;
    n.head_dim = dim;
    REQUIRE(ref::qk_norm<Norm>(n));
  }
  if (a.table.cos != nullptr) {
    bi::rope_args<T> r;
    r.x = r.out = x.data();
    std::vector<std::int32_t> position(at(tokens));
    for (std::int64_t t = 0; t < tokens; ++t) position[at(t)] = a.slot[t] < 0 ? -1 : a.position[t];
    r.position = position.data();
    r.table = a.table;
    r.tokens = tokens;
    r.heads = n_heads;
    r.head_dim = dim;
    REQUIRE(ref::rope(r));
  }
  return x;
}

// The three operations one after another, the append by hand; q_out, packed, of what is not padding.
template <class Norm, class T>
void apart(const bi::kv_append_args<T>& a, pages<T>& to, std::vector<T>& q_out) {
  const std::int64_t dim = a.cache.head_dim;
  const bi::cache_strides vs = v_source_strides(a);
  const auto k = normed_and_rotated<Norm>(a, a.k, k_source_strides(a), heads, a.norm_weight);
  const auto q = normed_and_rotated<Norm>(a, a.q, q_source_strides(a), a.heads_q, a.q_norm_weight);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; a.slot[t] >= 0 && h < heads; ++h) {
      for (std::int64_t d = 0; d < dim; ++d) {
        to.place(true, a.slot[t], h)[d] = k[at((t * heads + h) * dim + d)];
        to.place(false, a.slot[t], h)[d] = a.v[t * vs.token + h * vs.head + d];
      }
    }
    const std::int64_t width = a.heads_q * dim;
    if (a.slot[t] >= 0) std::copy_n(q.begin() + t * width, width, q_out.begin() + t * width);
  }
}

template <class Norm, class T>
void compare(layout l, std::int64_t page_size, std::int64_t dim, std::int64_t rotary_dim, bool norm,
             test::values kind) {
  const std::int64_t num_pages = 60 / page_size + 2;
  pages<T> fused(l, page_size, num_pages, dim), separate(l, page_size, num_pages, dim);
  const bool gaps = l == layout::padded;  // of the sources too
  const std::int64_t k_head = dim + (gaps ? 2 : 0), k_token = heads * k_head + (gaps ? 7 : 0);
  auto k = test::random_vector<T>(tokens * k_token, kind, 1), v = test::random_vector<T>(tokens * k_token, kind, 2);
  const auto weight = test::random_vector<T>(dim, test::values::normal, 3);
  const auto q_weight = test::random_vector<T>(dim, test::values::normal, 13);
  const auto slot = random_slots(num_pages * page_size, 4);
  test::generator g(5);
  std::vector<std::int32_t> position;
  for (std::int64_t t = 0; t < tokens; ++t) position.push_back(static_cast<std::int32_t>(g.below(positions)));
  position[3] = 1000000;  // of a padding token: anything
  position[11] = -7;
  const table angles(rotary_dim);
  bi::kv_append_args<T> a;
  a.cache = fused.cache;
  a.k = k.data();
  a.v = v.data();
  if (gaps) {
    a.k_head_stride = k_head;
    a.k_token_stride = k_token;
  }
  a.slot = slot.data();
  a.tokens = tokens;
  a.norm_weight = norm ? weight.data() : nullptr;
  if (rotary_dim > 0) {
    a.position = position.data();
    a.table = {angles.cos.data(), angles.sin.data(), positions, rotary_dim,
               dim % 3 == 0 ? bi::rope_style::interleaved : bi::rope_style::half};
  }
  constexpr std::int64_t heads_q = 5;
  a.heads_q = heads_q;
  a.q_head_stride = dim + (gaps ? 1 : 0);
  a.q_token_stride = heads_q * a.q_head_stride + (gaps ? 3 : 0);
  const auto q = test::random_vector<T>(tokens * a.q_token_stride, kind, 14);
  auto q_out = test::poisoned<T>(tokens * heads_q * dim), expected_q = q_out;
  a.q = q.data();
  a.q_out = q_out.data();
  a.q_norm_weight = norm && page_size != 3 ? q_weight.data() : nullptr;
  const bi::status st = ref::kv_append<Norm>(a, 2);
  INFO(bi::describe(st));
  REQUIRE(st);
  apart<Norm>(a, separate, expected_q);
  INFO("layout " << static_cast<int>(l) << ", page size " << page_size << ", head_dim " << dim);
  REQUIRE(test::difference(fused.memory, separate.memory) == "");
  REQUIRE(test::difference(q_out, expected_q) == "");

  pages<T> without_q(l, page_size, num_pages, dim);
  a.cache = without_q.cache;
  a.q = nullptr, a.q_out = nullptr;
  REQUIRE(ref::kv_append<Norm>(a));
  REQUIRE(test::difference(without_q.memory, fused.memory) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("kv_append: the bytes of qk_norm, rope and a plain append", "[reference][kv_append]", bf16, fp16,
                   float) {
  using T = TestType;
  for (const layout l : layouts) {
    for (const std::int64_t page_size : {1, 3, 16, 64}) {
      for (const test::values kind : {test::values::normal, test::values::hostile, test::values::subnormal}) {
        compare<rms_norm_draft, T>(l, page_size, 64, 64, true, kind);
        compare<rms_norm_draft, T>(l, page_size, 12, 8, true, kind);
        compare<rms_norm_draft, T>(l, page_size, 5, 0, true, kind);
        compare<rms_norm_draft, T>(l, page_size, 7, 6, false, kind);
        compare<rms_norm_draft, T>(l, page_size, 8, 0, false, kind);
      }
    }
  }
  compare<rms_norm_hf_draft, T>(layout::nhd, 16, 64, 64, true, test::values::normal);
  compare<rms_norm_one_plus_draft, T>(layout::hnd, 16, 64, 64, true, test::values::normal);
}

TEST_CASE("kv_append: bytes of a token depend neither on its place nor on its neighbours", "[reference][kv_append]") {
  const std::int64_t dim = 16;
  const auto k = test::random_vector<bf16>(tokens * heads * dim, test::values::hostile, 6);
  const auto weight = test::random_vector<bf16>(dim, test::values::normal, 7);
  const table angles(dim);
  const std::vector<std::int32_t> position(at(tokens), 3);
  // All tokens in one call against one call a token, in other slots, pages and layouts.
  const auto filled = [&](layout l, std::int64_t page_size, const std::vector<std::int64_t>& slot, bool one_call) {
    pages<bf16> p(l, page_size, 100 / page_size + 1, dim);
    bi::kv_append_args<bf16> a;
    a.cache = p.cache;
    a.norm_weight = weight.data();
    a.position = position.data();
    a.table = {angles.cos.data(), angles.sin.data(), positions, dim, bi::rope_style::half};
    for (std::int64_t t = 0; t < (one_call ? 1 : tokens); ++t) {
      a.k = a.v = k.data() + t * heads * dim;
      a.slot = slot.data() + t;
      a.tokens = one_call ? tokens : 1;
      REQUIRE(ref::kv_append(a));
    }
    std::vector<bf16> out;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (const bool is_k : {true, false}) {
        for (std::int64_t h = 0; slot[at(t)] >= 0 && h < heads; ++h) {
          const bf16* x = p.place(is_k, slot[at(t)], h);
          out.insert(out.end(), x, x + dim);
        }
      }
    }
    return out;
  };
  const auto base = filled(layout::nhd, 16, random_slots(100, 8), true);
  REQUIRE(test::difference(filled(layout::nhd, 16, random_slots(100, 8), false), base) == "");
  REQUIRE(test::difference(filled(layout::hnd, 7, random_slots(100, 9), true), base) == "");
  REQUIRE(test::difference(filled(layout::padded, 1, random_slots(100, 10), false), base) == "");
}

TEST_CASE("kv_append: steps are rounded one by one", "[reference][kv_append]") {
  // The positive control: one rounding at the end, not one a step, gives other bytes.
  const std::int64_t dim = 64;
  const auto k = test::random_vector<bf16>(heads * dim, test::values::normal, 11);
  const auto weight = test::random_vector<bf16>(dim, test::values::normal, 12);
  std::vector<float> wide(k.size()), wide_weight(weight.size());
  for (std::size_t i = 0; i < k.size(); ++i) wide[i] = bi::to_f32(k[i]);
  for (std::size_t i = 0; i < weight.size(); ++i) wide_weight[i] = bi::to_f32(weight[i]);
  const table angles(dim);
  const std::int32_t position = 7;
  const std::int64_t slot = 0;
  const auto append = [&](const auto& keys, const auto& weights) {
    using T = std::decay_t<decltype(keys[0])>;
    pages<T> p(layout::nhd, 1, 1, dim);
    bi::kv_append_args<T> a;
    a.cache = p.cache;
    a.k = a.v = keys.data();
    a.slot = &slot;
    a.tokens = 1;
    a.norm_weight = weights.data();
    a.position = &position;
    a.table = {angles.cos.data(), angles.sin.data(), positions, dim, bi::rope_style::half};
    REQUIRE(ref::kv_append(a));
    return std::vector<T>(p.cache.k, p.cache.k + heads * dim);
  };
  const auto stepwise = append(k, weight);
  std::vector<bf16> at_once;
  for (const float x : append(wide, wide_weight)) at_once.push_back(bi::cvt_rn<bf16>(x));
  REQUIRE(test::difference(stepwise, at_once) != "");
}

TEST_CASE("kv_append: q, k and v of one projection, q in place", "[reference][kv_append]") {
  constexpr std::int64_t heads_q = 5, dim = 16, width = (heads_q + 2 * heads) * dim;
  const auto qkv = test::random_vector<bf16>(tokens * width, test::values::normal, 21);
  const auto weight = test::random_vector<bf16>(dim, test::values::normal, 22);
  const table angles(dim);
  const std::vector<std::int32_t> position(at(tokens), 3);
  const auto slot = random_slots(64, 23);
  const auto run = [&](bool in_place) {
    pages<bf16> p(layout::nhd, 16, 4, dim);
    std::vector<bf16> all = qkv, out = in_place ? qkv : test::poisoned<bf16>(tokens * width);
    bi::kv_append_args<bf16> a;
    a.cache = p.cache;
    bf16* rows = in_place ? out.data() : all.data();
    a.q = rows, a.k = rows + heads_q * dim, a.v = rows + (heads_q + heads) * dim;
    a.q_token_stride = a.k_token_stride = a.v_token_stride = a.q_out_token_stride = width;
    a.q_out = out.data();
    a.heads_q = heads_q;
    a.slot = slot.data();
    a.tokens = tokens;
    a.norm_weight = a.q_norm_weight = weight.data();
    a.position = position.data();
    a.table = {angles.cos.data(), angles.sin.data(), positions, dim, bi::rope_style::half};
    const bi::status st = ref::kv_append(a);
    INFO(bi::describe(st));
    REQUIRE(st);
    if (in_place) REQUIRE(check(a));
    std::vector<bf16> result = p.memory;
    for (std::int64_t t = 0; t < tokens; ++t) {
      if (slot[at(t)] >= 0)
        result.insert(result.end(), out.begin() + t * width, out.begin() + t * width + heads_q * dim);
    }
    return result;
  };
  REQUIRE(test::difference(run(true), run(false)) == "");
}

TEMPLATE_TEST_CASE("kv_append: digests add up to those of runs", "[reference][kv_append][digest]", bf16, float) {
  using T = TestType;
  constexpr std::int64_t n = 40, page_size = 7, num_pages = 6;
  for (const std::int64_t dim : {5, 16}) {
    const auto x = test::random_vector<T>(2 * n * heads * dim, test::values::hostile, 31);
    const auto weight = test::random_vector<T>(dim, test::values::normal, 32);
    pages<T> p(layout::padded, page_size, num_pages, dim);
    const std::vector<std::int32_t> table = {4, 1, 0, 5, 2, 3};  // pages of the view
    std::vector<std::int64_t> slot;
    std::vector<std::int32_t> index;
    for (std::int64_t j = 0; j < n; ++j) {
      slot.push_back(table[at(j / page_size)] * page_size + j % page_size);
      index.push_back(static_cast<std::int32_t>(j));
    }
    auto digest = test::poisoned<std::uint64_t>(n), alone = digest;
    bi::kv_append_args<T> a;
    a.cache = p.cache;
    a.norm_weight = weight.data();
    test::generator g(33);
    for (std::int64_t done = 0; done < n; done += a.tokens) {
      a.tokens = std::min(n - done, g.between(1, 9));
      a.k = x.data() + done * heads * dim;
      a.v = a.k + n * heads * dim;
      a.slot = slot.data() + done;
      a.digest = alone.data() + done, a.run_index = nullptr;
      REQUIRE(ref::kv_append(a));
      a.digest = digest.data() + done, a.run_index = index.data() + done;
      REQUIRE(ref::kv_append(a));
    }
    const std::uint64_t token_bytes = kv_token_bytes(heads, dim, sizeof(T));
    const auto of_run = [&](std::int32_t first, std::int32_t count) {
      std::uint64_t out = 0;
      bi::digest_kv_args<T> d;
      d.cache = {p.cache.k, p.cache.v, num_pages, page_size, heads, dim};
      d.cache.k_page_stride = p.cache.k_page_stride, d.cache.v_page_stride = p.cache.v_page_stride;
      d.cache.k_token_stride = p.cache.k_token_stride, d.cache.v_token_stride = p.cache.v_token_stride;
      d.cache.k_head_stride = p.cache.k_head_stride, d.cache.v_head_stride = p.cache.v_head_stride;
      d.view = bi::page_table{table.data(), num_pages};
      d.first = &first, d.count = &count, d.requests = 1, d.out = &out;
      REQUIRE(ref::digest_kv(d));
      return out;
    };
    std::uint64_t sum = 0;
    for (std::int32_t j = 0; j < n; ++j) {
      sum += digest[at(j)];
      REQUIRE(digest_length_term(static_cast<std::uint64_t>(j + 1) * token_bytes) + sum == of_run(0, j + 1));
      REQUIRE(digest_length_term(token_bytes) + alone[at(j)] == of_run(j, 1));
      REQUIRE((digest[at(j)] == alone[at(j)]) == (j == 0));  // control: the index counts
    }
    // Padding adds nothing.
    slot[0] = -1;
    a.k = x.data(), a.v = a.k + n * heads * dim, a.slot = slot.data(), a.tokens = 2;
    a.digest = alone.data(), a.run_index = nullptr;
    const std::uint64_t second = alone[1];
    REQUIRE(ref::kv_append(a));
    REQUIRE(alone[0] == 0);
    REQUIRE(alone[1] == second);
  }
}
