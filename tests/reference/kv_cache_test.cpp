// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/kv_cache.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

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

// The three operations one after another, the append by hand.
template <class Norm, class T>
void apart(bi::kv_append_args<T> a, pages<T>& to) {
  const std::int64_t dim = a.cache.head_dim;
  std::vector<T> k(at(tokens * heads * dim));
  const bi::cache_strides ks = k_source_strides(a), vs = v_source_strides(a);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t i = 0; i < heads * dim; ++i)
      k[at(t * heads * dim + i)] = a.k[t * ks.token + i / dim * ks.head + i % dim];
  }
  if (a.norm_weight != nullptr) {
    bi::qk_norm_args<T> n;
    n.x = n.out = k.data();
    n.weight = a.norm_weight;
    n.eps = a.norm_eps;
    n.tokens = tokens;
    n.heads = heads;
    n.head_dim = dim;
    REQUIRE(ref::qk_norm<Norm>(n));
  }
  if (a.table.cos != nullptr) {
    bi::rope_args<T> r;
    r.x = r.out = k.data();
    std::vector<std::int32_t> position(at(tokens));
    for (std::int64_t t = 0; t < tokens; ++t) position[at(t)] = a.slot[t] < 0 ? -1 : a.position[t];
    r.position = position.data();
    r.table = a.table;
    r.tokens = tokens;
    r.heads = heads;
    r.head_dim = dim;
    REQUIRE(ref::rope(r));
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; a.slot[t] >= 0 && h < heads; ++h) {
      for (std::int64_t d = 0; d < dim; ++d) {
        to.place(true, a.slot[t], h)[d] = k[at((t * heads + h) * dim + d)];
        to.place(false, a.slot[t], h)[d] = a.v[t * vs.token + h * vs.head + d];
      }
    }
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
  const bi::status st = ref::kv_append<Norm>(a, 2);
  INFO(bi::describe(st));
  REQUIRE(st);
  apart<Norm>(a, separate);
  INFO("layout " << static_cast<int>(l) << ", page size " << page_size << ", head_dim " << dim);
  REQUIRE(test::difference(fused.memory, separate.memory) == "");
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
