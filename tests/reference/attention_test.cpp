// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "bi/reference/attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "bi/reference/mma.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace {

constexpr std::int64_t contract_leaf = bi::contract::attention_order::leaf;

using bi::attention_mask;
using test::difference;
using test::generator;
using test::values;
using view = std::vector<std::int64_t>;  // token ids, in view order

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// ---- the same tree, written from its text and walked in another order

template <class T>
struct tokens {  // K or V of one head: [count][dim]
  const T* data;
  std::int64_t stride;
  const T* operator[](std::int64_t token) const { return data + token * stride; }
};

struct oracle_options {
  float scale = 0.125f;
  float cap = 0;
  std::int64_t lo = 0, see = 0;
  std::vector<std::int64_t> leaf_begins;               // empty: multiples of 256
  std::function<bool(std::int64_t)> hidden = nullptr;  // masks view indices, as a positive control
};

template <class T>
struct oracle_row {
  std::vector<T> out;
  float lse;
};

// Leaves are evaluated from the last to the first and folded afterwards; in a leaf all maxima and weights come first,
// then each element of o runs through all its tiles.
template <class T>
oracle_row<T> oracle(const T* q, tokens<T> k, tokens<T> v, const view& seen, std::int64_t dim,
                     const oracle_options& o) {
  const bi::reference::fp_environment environment;
  const float minus_inf = bi::neg_inf_f32();
  const bool capped = bi::greater(o.cap, 0.0f);
  const float c = capped ? 0x1.715476p+0f : bi::mul_rn(o.scale, 0x1.715476p+0f);
  const float inner = capped ? bi::div_rn(o.scale, o.cap) : 0.0f;
  const auto power = [](float d) { return bi::exp2_grid(bi::add_rn(d, 3072.0f)); };
  const auto visible = [&](std::int64_t j) { return j >= o.lo && j < o.see && !(o.hidden && o.hidden(j)); };
  std::vector<std::int64_t> begins = o.leaf_begins;
  if (begins.empty()) {
    for (std::int64_t b = o.lo / contract_leaf * contract_leaf; b < o.see; b += contract_leaf) begins.push_back(b);
  }
  struct partial {
    float m, l;
    std::vector<float> o;
  };
  std::vector<partial> parts(begins.size());
  for (std::size_t leaf = begins.size(); leaf-- > 0;) {
    const std::int64_t begin = begins[leaf], end = leaf + 1 < begins.size() ? begins[leaf + 1] : o.see;
    float m = minus_inf, l[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    struct tile_weights {
      std::int64_t first;
      float a;
      T p[64];
    };
    std::vector<tile_weights> tiles;
    for (std::int64_t first = begin; first < end; first += 64) {
      const std::int64_t stop = std::min(first + 64, end);
      float s[64], t = minus_inf;
      bool any = false;
      for (std::int64_t j = stop - 1; j >= first; --j) {
        if (!visible(j)) continue;
        const T* key = k[seen[at(j)]];
        float x = 0.0f;
        for (std::int64_t d = 0; d < dim; d += 16) x = bi::reference::mma_step_exact(x, q + d, key + d);
        if (capped) x = bi::mul_rn(o.cap, bi::tanh(bi::mul_rn(x, inner)));
        s[j - first] = x;
        t = any ? bi::max_nan(x, t) : x;
        any = true;
      }
      if (!any) continue;
      t = bi::mul_rn(t, c);
      const bool first_tile = tiles.empty();
      float next = m;
      if (first_tile || bi::greater(t, bi::add_rn(m, 8.0f))) next = bi::sub_rn(3072.0f, bi::sub_rn(3072.0f, t));
      if (bi::is_nan(t) || bi::is_nan(m)) next = bi::nan_f32();
      const float base = bi::bits_of(next) == bi::bits_of(minus_inf) ? 0.0f : next;
      tile_weights w{};
      w.first = first;
      w.a = bi::equal(next, m) ? 1.0f : power(bi::sub_rn(m, base));
      float p[64] = {};
      for (std::int64_t j = first; j < stop; ++j) {
        if (!visible(j)) continue;
        p[j - first] = bi::exp2_grid(bi::fma_rn(s[j - first], c, bi::sub_rn(3072.0f, base)));
      }
      for (int j = 0; j < 64; ++j) w.p[j] = bi::cvt_rn<T>(p[j]);
      float x[4];
      for (int i = 0; i < 4; ++i) {
        float half[2];
        for (int e = 0; e < 2; ++e) {
          float u[4];
          for (int g = 0; g < 4; ++g) u[g] = bi::add_rn(p[16 * g + 2 * i + e], p[16 * g + 8 + 2 * i + e]);
          half[e] = bi::add_rn(bi::add_rn(u[0], u[1]), bi::add_rn(u[2], u[3]));
        }
        x[i] = bi::add_rn(half[0], half[1]);
      }
      for (int i = 0; i < 4; ++i) l[i] = bi::fma_rn(l[i], w.a, x[i]);
      m = next;
      tiles.push_back(w);
    }
    partial& part = parts[leaf];
    part.m = m;
    part.l = bi::add_rn(bi::add_rn(l[0], l[1]), bi::add_rn(l[2], l[3]));
    part.o.assign(at(dim), 0.0f);
    for (std::int64_t d = dim; d-- > 0;) {
      float acc = 0.0f;
      for (const tile_weights& w : tiles) {
        acc = bi::mul_rn(acc, w.a);
        for (int g = 0; g < 64; g += 16) {
          T b[16] = {};
          for (int i = 0; i < 16; ++i) {
            const std::int64_t j = w.first + g + i;
            if (j < end && visible(j)) b[i] = v[seen[at(j)]][d];
          }
          acc = bi::reference::mma_step_exact(acc, w.p + g, b);
        }
      }
      part.o[at(d)] = acc;
    }
    if (bi::bits_of(m) == bi::bits_of(minus_inf)) {
      part.l = 0.0f;
      std::fill(part.o.begin(), part.o.end(), 0.0f);
    }
    if (bi::is_nan(m) || bi::bits_of(m) == bi::inf_bits) part.l = bi::nan_f32();
    if (tiles.empty()) part.m = bi::nan_f32();  // such a leaf is not in the tree, and must not be looked at
    if (tiles.empty()) part.o.clear();
  }
  partial acc{minus_inf, 0.0f, {}};
  for (const partial& next : parts) {
    if (next.o.empty()) continue;
    if (acc.o.empty()) {
      acc = next;
      continue;
    }
    const float m = bi::max_nan(acc.m, next.m), base = bi::bits_of(m) == bi::bits_of(minus_inf) ? 0.0f : m;
    const float a = power(bi::sub_rn(acc.m, base)), b = power(bi::sub_rn(next.m, base));
    acc.m = m;
    acc.l = bi::fma_rn(acc.l, a, bi::mul_rn(next.l, b));
    for (std::int64_t d = 0; d < dim; ++d) acc.o[at(d)] = bi::fma_rn(acc.o[at(d)], a, bi::mul_rn(next.o[at(d)], b));
  }
  oracle_row<T> row{std::vector<T>(at(dim), bi::cvt_rn<T>(0.0f)), minus_inf};
  if (acc.o.empty() || bi::equal(acc.l, 0.0f)) return row;
  const float inverse = bi::div_rn(1.0f, acc.l);
  for (std::int64_t d = 0; d < dim; ++d) row.out[at(d)] = bi::cvt_rn<T>(bi::mul_rn(acc.o[at(d)], inverse));
  row.lse = bi::mul_rn(bi::add_rn(acc.m, bi::log2(acc.l)), 0x1.62e430p-1f);
  return row;
}

// ---- problems and how their views are stored

template <class T>
struct pool {  // what tokens hold, before it is put into pages
  std::int64_t count, heads, dim;
  std::vector<T> k, v;

  pool(std::int64_t n, std::int64_t h, std::int64_t d, values kind, std::uint64_t seed)
      : count(n),
        heads(h),
        dim(d),
        k(test::random_vector<T>(n * h * d, kind, seed)),
        v(test::random_vector<T>(n * h * d, kind, seed + 1)) {}
  tokens<T> keys(std::int64_t head) const { return {k.data() + head * dim, heads * dim}; }
  tokens<T> values_of(std::int64_t head) const { return {v.data() + head * dim, heads * dim}; }
};

struct request {
  view tokens;
  std::vector<std::int64_t> q;  // rows of the pool of queries
};

struct storage {
  bi::view_kind kind = bi::view_kind::page_table;
  std::int64_t page_size = 16;
  std::uint64_t seed = 1;  // of page order, run cuts
  bool heads_first = false;
};

// A cache and a view of it. Slots that hold no token are NaN, entries of tables that no row needs are nonsense.
template <class T>
struct stored {
  bi::paged_cache<const T> cache;
  bi::kv_view kv;
  std::vector<T> k, v;
  std::vector<std::int32_t> pages, start, len;
  std::vector<bi::kv_run> runs;

  stored(const pool<T>& p, const std::vector<request>& requests, const storage& s) {
    generator g(s.seed);
    std::vector<std::vector<std::int64_t>> slots;  // of each request, by view index
    std::int64_t longest = 1, used_pages = 0, spare = 3;
    for (const request& r : requests) {
      len.push_back(static_cast<std::int32_t>(r.tokens.size()));
      longest = std::max(longest, static_cast<std::int64_t>(r.tokens.size()));
      used_pages += (static_cast<std::int64_t>(r.tokens.size()) + s.page_size - 1) / s.page_size;
    }
    const bool by_runs = s.kind == bi::view_kind::run_list;
    if (by_runs) used_pages = (2 * p.count + s.page_size - 1) / s.page_size;
    cache.num_pages = used_pages + spare;
    cache.page_size = s.page_size;
    cache.heads = p.heads;
    cache.head_dim = p.dim;
    if (s.heads_first) {
      cache.k_token_stride = p.dim + 8;
      cache.k_head_stride = s.page_size * cache.k_token_stride;
      cache.k_page_stride = p.heads * cache.k_head_stride + 24;
    }
    std::vector<std::int32_t> free_pages;
    for (std::int64_t i = 0; i < cache.num_pages; ++i) free_pages.push_back(static_cast<std::int32_t>(i));
    for (std::size_t i = free_pages.size(); i-- > 1;)
      std::swap(free_pages[i], free_pages[at(g.below(static_cast<std::int64_t>(i) + 1))]);

    std::vector<std::int64_t> token_slot;  // with runs each token is stored once, in stretches of random length
    if (by_runs) {
      std::int64_t slot = g.below(3);
      for (std::int64_t t = 0; t < p.count; ++t) {
        token_slot.push_back(slot);
        slot += slot + 2 * (p.count - t) < cache.num_pages * s.page_size && g.chance(10) ? 2 : 1;
      }
    }
    const std::int64_t stride = (longest + s.page_size - 1) / s.page_size + 2;
    std::int64_t next_page = 0;
    start.push_back(by_runs || s.kind == bi::view_kind::page_csr ? 1 : 0);
    if (s.kind == bi::view_kind::page_csr) pages.push_back(-7);
    if (by_runs) runs.push_back({-9, -9});
    for (const request& r : requests) {
      slots.emplace_back();
      const auto n = static_cast<std::int64_t>(r.tokens.size());
      if (by_runs) {
        for (std::int64_t j = 0; j < n;) {
          std::int64_t length = 1;
          const std::int64_t first = token_slot[at(r.tokens[at(j)])];
          while (j + length < n && token_slot[at(r.tokens[at(j + length)])] == first + length && !g.chance(4)) ++length;
          runs.push_back({static_cast<std::int32_t>(first), static_cast<std::int32_t>(length)});
          for (std::int64_t i = 0; i < length; ++i) slots.back().push_back(first + i);
          j += length;
          if (g.chance(10)) runs.push_back({-5, 0});
        }
        start.push_back(static_cast<std::int32_t>(runs.size()));
        continue;
      }
      const auto row_begin = pages.size();
      for (std::int64_t j = 0; j < n; ++j) {
        if (j % s.page_size == 0) pages.push_back(free_pages[at(next_page++)]);
        slots.back().push_back(pages.back() * s.page_size + j % s.page_size);
      }
      if (s.kind == bi::view_kind::page_table) pages.resize(row_begin + at(stride), 0x7fffffff);
      start.push_back(static_cast<std::int32_t>(pages.size()));
    }
    const bi::cache_strides ks = bi::k_strides(cache);
    k.assign(at(cache.num_pages * ks.page), test::from_bits<T>(0x7fff));
    v = k;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      for (std::size_t j = 0; j < slots[i].size(); ++j) {
        const std::int64_t slot = slots[i][j], token = requests[i].tokens[j];
        for (std::int64_t h = 0; h < p.heads; ++h) {
          const std::int64_t to = slot / s.page_size * ks.page + slot % s.page_size * ks.token + h * ks.head;
          std::memcpy(&k[at(to)], p.keys(h)[token], at(p.dim) * sizeof(T));
          std::memcpy(&v[at(to)], p.values_of(h)[token], at(p.dim) * sizeof(T));
        }
      }
    }
    cache.k = k.data();
    cache.v = v.data();
    if (s.kind == bi::view_kind::page_table) kv = bi::page_table{pages.data(), stride};
    if (s.kind == bi::view_kind::page_csr) kv = bi::page_csr{pages.data(), start.data()};
    if (by_runs) kv = bi::run_list{runs.data(), start.data()};
  }
  stored(const stored&) = delete;
  stored& operator=(const stored&) = delete;
};

struct options {
  attention_mask mask = attention_mask::causal;
  std::int64_t window = 0;
  float scale = 0.125f;
  float cap = 0;
  int threads = 1;
};

template <class T>
struct result {
  std::vector<T> out;      // [rows][heads_q][dim]
  std::vector<float> lse;  // [rows][heads_q]

  std::string differs(const result& expected) const {
    const std::string o = difference(out, expected.out), l = difference(lse, expected.lse);
    return o.empty() ? (l.empty() ? "" : "lse: " + l) : "out: " + o;
  }
  result row(std::int64_t i, std::int64_t heads_q) const {
    const std::int64_t dim = static_cast<std::int64_t>(out.size() / lse.size());
    const auto o = out.begin() + i * heads_q * dim;
    const auto l = lse.begin() + i * heads_q;
    return {std::vector<T>(o, o + heads_q * dim), std::vector<float>(l, l + heads_q)};
  }
};

template <class T>
struct problem {
  pool<T> kv;
  std::int64_t heads_q;
  std::vector<T> q;  // [queries][heads_q][dim]

  problem(std::int64_t tokens, std::int64_t queries, std::int64_t hq, std::int64_t hkv, std::int64_t dim, values kind,
          std::uint64_t seed)
      : kv(tokens, hkv, dim, kind, seed), heads_q(hq), q(test::random_vector<T>(queries * hq * dim, kind, seed + 2)) {}

  result<T> run(const std::vector<request>& requests, const storage& s = {}, const options& o = {}) const {
    const stored<T> st(kv, requests, s);
    std::vector<T> rows;
    std::vector<std::int32_t> q_start = {0};
    bi::attention_args<T> a;
    for (const request& r : requests) {
      for (const std::int64_t i : r.q) {
        rows.insert(rows.end(), q.begin() + i * heads_q * kv.dim, q.begin() + (i + 1) * heads_q * kv.dim);
      }
      q_start.push_back(q_start.back() + static_cast<std::int32_t>(r.q.size()));
      a.limits.max_q_len = std::max(a.limits.max_q_len, static_cast<std::int64_t>(r.q.size()));
      a.limits.max_view = std::max(a.limits.max_view, static_cast<std::int64_t>(r.tokens.size()));
    }
    result<T> out{test::poisoned<T>(q_start.back() * heads_q * kv.dim),
                  test::poisoned<float>(q_start.back() * heads_q)};
    a.q = rows.data();
    a.cache = st.cache;
    a.view = st.kv;
    a.len = st.len.data();
    a.q_start = q_start.data();
    a.requests = a.limits.max_requests = static_cast<std::int64_t>(requests.size());
    a.rows = a.limits.max_rows = q_start.back();
    a.limits.heads_q = heads_q;
    a.limits.heads_kv = kv.heads;
    a.limits.head_dim = kv.dim;
    a.mask = o.mask;
    a.window = o.window;
    a.scale = o.scale;
    a.soft_cap = o.cap;
    a.lse = out.lse.data();
    a.out = out.out.data();
    const bi::status status = bi::greater(o.cap, 0.0f)
                                  ? bi::reference::attention<bi::contract::attention_soft_cap_v1<T>>(a, o.threads)
                                  : bi::reference::attention(a, o.threads);
    INFO(bi::describe(status));
    REQUIRE(status);
    return out;
  }

  // The same rows by the oracle.
  result<T> expect(const std::vector<request>& requests, const options& o = {}) const {
    result<T> out;
    for (const request& r : requests) {
      const auto n = static_cast<std::int64_t>(r.tokens.size()), q_len = static_cast<std::int64_t>(r.q.size());
      for (std::int64_t i = 0; i < q_len; ++i) {
        oracle_options oo;
        oo.scale = o.scale;
        oo.cap = o.cap;
        oo.see = o.mask == attention_mask::full ? n : std::max<std::int64_t>(0, n - q_len + i + 1);
        oo.lo = o.window > 0 ? std::max<std::int64_t>(0, oo.see - o.window) : 0;
        for (std::int64_t h = 0; h < heads_q; ++h) add(out, r, i, h, oo);
      }
    }
    return out;
  }
  void add(result<T>& out, const request& r, std::int64_t i, std::int64_t h, const oracle_options& oo) const {
    const std::int64_t head = h / (heads_q / kv.heads);
    const oracle_row<T> row =
        oracle(q.data() + (r.q[at(i)] * heads_q + h) * kv.dim, kv.keys(head), kv.values_of(head), r.tokens, kv.dim, oo);
    out.out.insert(out.out.end(), row.out.begin(), row.out.end());
    out.lse.push_back(row.lse);
  }
};

view sequence(std::int64_t begin, std::int64_t end) {
  view v;
  for (std::int64_t i = begin; i < end; ++i) v.push_back(i);
  return v;
}
view operator+(view a, const view& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
// The last `q_len` of the first `len` tokens.
request chunk(std::int64_t len, std::int64_t q_len) { return {sequence(0, len), sequence(len - q_len, len)}; }

template <class T>
std::uint64_t digest(const result<T>& r) {
  std::uint64_t h = 0;
  for (const T x : r.out) h = bi::mix64(h + x.bits);
  for (const float x : r.lse) h = bi::mix64(h + bi::bits_of(x));
  return h;
}

}  // namespace

TEMPLATE_TEST_CASE("attention equals an independent walk of its tree", "[reference][attention]", bi::bf16, bi::fp16) {
  using T = TestType;
  struct shape {
    std::int64_t heads_q, heads_kv, dim;
  };
  const shape shapes[] = {{1, 1, 64}, {4, 1, 64}, {6, 1, 64}, {4, 2, 64}, {2, 2, 128}, {1, 1, 256}};
  std::uint64_t seed = 100;
  for (const shape& s : shapes) {
    for (const values kind : {values::normal, values::hostile}) {
      const problem<T> p(520, 8, s.heads_q, s.heads_kv, s.dim, kind, ++seed);
      const std::vector<request> requests = {
          {sequence(0, 257), {0, 1}}, {sequence(200, 263), {2}}, {sequence(256, 520), {3}}, {{7}, {4}}};
      INFO("heads " << s.heads_q << "/" << s.heads_kv << " dim " << s.dim << " values " << static_cast<int>(kind));
      CHECK(p.run(requests).differs(p.expect(requests)) == "");
    }
  }
  for (const values kind : test::finite_values) {
    const problem<T> p(700, 6, 1, 1, 64, kind, 200);
    const std::vector<request> requests = {
        {sequence(0, 513), {0}}, {sequence(5, 600), {1, 2}}, {sequence(0, 700), {3}}};
    INFO("values " << static_cast<int>(kind));
    for (const float scale : {0.125f, 1.0f, 0x1p20f}) {
      options o;
      o.scale = scale;
      CHECK(p.run(requests, {}, o).differs(p.expect(requests, o)) == "");
    }
  }
}

TEST_CASE("attention: windows, full rows and soft caps equal the independent walk", "[reference][attention]") {
  for (const values kind : {values::normal, values::hostile}) {
    const problem<bi::bf16> p(600, 8, 2, 1, 64, kind, 300);
    const std::vector<request> requests = {
        {sequence(0, 600), {0, 1, 2}}, {sequence(300, 520), {3}}, {sequence(0, 2), {4, 5, 6}}};
    for (const std::int64_t window : {0, 1, 5, 64, 100, 256, 300, 598, 600, 5000}) {
      for (const attention_mask mask : {attention_mask::causal, attention_mask::full}) {
        options o;
        o.window = window;
        o.mask = mask;
        o.cap = window % 5 == 0 ? 0.0f : 30.0f;
        INFO("window " << window << " mask " << static_cast<int>(mask));
        CHECK(p.run(requests, {}, o).differs(p.expect(requests, o)) == "");
      }
    }
  }
  // A cap that is never felt is not the plain contract: other roundings, close values.
  const problem<bi::bf16> p(300, 1, 4, 1, 64, values::normal, 301);
  options capped;
  capped.cap = 1000.0f;
  const auto plain = p.run({{sequence(0, 300), {0}}}), soft = p.run({{sequence(0, 300), {0}}}, {}, capped);
  CHECK(difference(plain.lse, soft.lse) != "");
  for (std::size_t i = 0; i < plain.lse.size(); ++i) CHECK(std::fabs(plain.lse[i] - soft.lse[i]) < 1e-3f);
}

TEST_CASE("attention does not depend on how a view is stored", "[reference][attention]") {
  const problem<bi::bf16> p(700, 12, 4, 2, 64, values::normal, 400);
  // The second and third share a prefix; the last one sees merged branches of tokens that others have too.
  const std::vector<request> requests = {
      {sequence(0, 1), {0}},
      {sequence(0, 300) + sequence(500, 530), {1, 2, 3}},
      {sequence(0, 300) + sequence(600, 601), {4}},
      {{}, {5}},
      {sequence(0, 257) + sequence(640, 700) + sequence(500, 530) + sequence(301, 480), {6, 7}}};
  const auto expected = p.run(requests);
  CHECK(expected.differs(p.expect(requests)) == "");
  for (const bi::view_kind kind : {bi::view_kind::page_table, bi::view_kind::page_csr, bi::view_kind::run_list}) {
    for (const std::int64_t page_size : {1, 8, 16, 24, 64, 1000}) {
      for (const bool heads_first : {false, true}) {
        const storage s{kind, page_size, static_cast<std::uint64_t>(page_size) + 17, heads_first};
        INFO("kind " << static_cast<int>(kind) << " page size " << page_size << " heads first " << heads_first);
        CHECK(p.run(requests, s).differs(expected) == "");
      }
    }
  }
}

TEST_CASE("attention: decode, prefill, chunks and verification give the same rows", "[reference][attention]") {
  const std::int64_t total = 600, heads = 2;
  const problem<bi::bf16> p(total, total, heads, 1, 64, values::normal, 500);
  for (const std::int64_t window : {0, 90}) {
    options o;
    o.window = window;
    const auto prefill = p.run({chunk(total, total)}, {}, o);
    generator g(501);
    std::vector<std::int64_t> lengths = {1,   2,   15,  16,  17,  63,  64,  65,  255, 256,
                                         257, 319, 320, 321, 511, 512, 513, 599, 600};
    for (int i = 0; i < 40; ++i) lengths.push_back(g.between(1, total));
    std::vector<request> decode;
    for (const std::int64_t n : lengths) decode.push_back(chunk(n, 1));
    const auto steps = p.run(decode, {bi::view_kind::run_list, 16, 3, false}, o);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      INFO("decode at length " << lengths[i] << " window " << window);
      CHECK(steps.row(static_cast<std::int64_t>(i), heads).differs(prefill.row(lengths[i] - 1, heads)) == "");
    }
    // Some of them by the oracle, the others follow.
    for (const std::int64_t n : {1, 64, 256, 257, 513, 600}) {
      CHECK(prefill.row(n - 1, heads).differs(p.expect({chunk(n, 1)}, o)) == "");
    }
    for (int round = 0; round < 3; ++round) {
      for (std::int64_t done = 0; done < total;) {
        const std::int64_t n = std::min(total - done, g.between(1, 250));
        done += n;
        const auto part = p.run({chunk(done, n)}, {}, o);
        for (std::int64_t i = 0; i < n; ++i) {
          REQUIRE(part.row(i, heads).differs(prefill.row(done - n + i, heads)) == "");
        }
      }
    }
    for (const std::int64_t n : {256, 258, 512, 515}) {  // verification of k drafted tokens
      for (const std::int64_t k : {2, 5, 8}) {
        const auto verify = p.run({chunk(n, k)}, {}, o);
        for (std::int64_t i = 0; i < k; ++i) CHECK(verify.row(i, heads).differs(prefill.row(n - k + i, heads)) == "");
      }
    }
  }
}

TEST_CASE("attention: a row does not depend on its batch", "[reference][attention]") {
  const problem<bi::fp16> clean(400, 40, 4, 2, 64, values::normal, 600);
  problem<bi::fp16> p = clean;
  // Tokens 300 .. 399 and queries 20 .. 39 are hostile.
  const auto dirt = test::random_vector<bi::fp16>(100 * 2 * 64 + 20 * 4 * 64, values::hostile, 601);
  std::copy_n(dirt.begin(), 100 * 2 * 64, p.kv.k.begin() + 300 * 2 * 64);
  std::copy_n(dirt.rbegin(), 100 * 2 * 64, p.kv.v.begin() + 300 * 2 * 64);
  std::copy_n(dirt.begin() + 100 * 2 * 64, 20 * 4 * 64, p.q.begin() + 20 * 4 * 64);
  const request needle{sequence(20, 290), {0, 1, 2}};
  const auto alone = p.run({needle});
  CHECK(alone.differs(clean.expect({needle})) == "");
  generator g(602);
  for (int round = 0; round < 12; ++round) {
    std::vector<request> batch;
    for (std::int64_t n = g.below(6); n > 0; --n) {
      const std::int64_t begin = g.between(250, 390), q_len = g.below(4);
      batch.push_back({sequence(begin, g.chance(20) ? begin : g.between(begin, 400)), sequence(30, 30 + q_len)});
    }
    const auto place = static_cast<std::size_t>(g.below(static_cast<std::int64_t>(batch.size()) + 1));
    batch.insert(batch.begin() + static_cast<std::ptrdiff_t>(place), needle);
    std::int64_t first = 0;
    for (std::size_t i = 0; i < place; ++i) first += static_cast<std::int64_t>(batch[i].q.size());
    options o;
    o.threads = static_cast<int>(g.between(0, 3));
    const auto all = p.run(batch, {bi::view_kind::page_csr, 8, 5, false}, o);
    for (std::int64_t i = 0; i < 3; ++i) CHECK(all.row(first + i, 4).differs(alone.row(i, 4)) == "");
  }
}

TEST_CASE("attention: a token that a row does not see cannot poison it", "[reference][attention]") {
  const std::int64_t total = 330, heads = 2;
  const problem<bi::bf16> clean(total, total, heads, 1, 64, values::normal, 700);
  const auto expected = clean.run({chunk(total, 120)});
  for (const std::uint32_t bad : {0x7f80u, 0xff80u, 0x7fffu, 0x7f81u}) {
    for (const std::int64_t token : {215, 255, 256, 257, 300, 329}) {
      problem<bi::bf16> p = clean;
      p.kv.v[at(token * 64 + 11)].bits = static_cast<std::uint16_t>(bad);
      const auto got = p.run({chunk(total, 120)});
      for (std::int64_t i = 0; i < 120; ++i) {
        const bool sees = total - 120 + i >= token;
        REQUIRE((got.row(i, heads).differs(expected.row(i, heads)) == "") == !sees);
        if (!sees) continue;
        const bi::bf16 x = got.out[at(i * heads * 64 + 11)];
        REQUIRE(!bi::is_finite(x));
        REQUIRE((bi::is_nan(x) || x.bits == bad));
      }
      // One row of them by the oracle, where the bad value has company.
      const auto last = clean.expect({chunk(token, 1)});
      if (token >= total - 120) CHECK(got.row(token - 1 - (total - 120), heads).differs(last) == "");
      CHECK(p.run({chunk(total, 2)}).differs(p.expect({chunk(total, 2)})) == "");

      p = clean;
      p.kv.k[at(token * 64 + 5)].bits = static_cast<std::uint16_t>(bad);
      const auto by_key = p.run({chunk(total, 120)});
      for (std::int64_t i = 0; i < token - (total - 120) && i < 120; ++i) {
        REQUIRE(by_key.row(i, heads).differs(expected.row(i, heads)) == "");
      }
    }
  }
}

TEST_CASE("attention: infinite and NaN scores", "[reference][attention]") {
  // Every q is 1 at element 0, so K's element 0 puts anything into the score.
  problem<bi::bf16> p(600, 1, 1, 1, 64, values::normal, 800);
  p.q[0].bits = 0x3f80;
  const auto set = [&](std::int64_t begin, std::int64_t end, unsigned bits) {
    for (std::int64_t j = begin; j < end; ++j) p.kv.k[at(j * 64)].bits = static_cast<std::uint16_t>(bits);
  };
  const std::vector<request> one = {{sequence(0, 600), {0}}};
  const auto check = [&] {
    const auto got = p.run(one);
    CHECK(got.differs(p.expect(one)) == "");
    return got;
  };
  const problem<bi::bf16> original = p;

  SECTION("all -Inf: zero, even where V is NaN") {
    set(0, 600, 0xff80);
    p.kv.v[at(70 * 64)].bits = 0x7fff;
    const auto got = check();
    for (const bi::bf16 x : got.out) CHECK(x.bits == 0);
    CHECK(bi::bits_of(got.lse[0]) == bi::bits_of(bi::neg_inf_f32()));
  }
  SECTION("-Inf for the first tile, leaf, or the rest: the others decide") {
    for (const auto& [begin, end] :
         {std::pair<std::int64_t, std::int64_t>{0, 64}, {0, 256}, {0, 300}, {64, 600}, {256, 600}, {1, 600}}) {
      p = original;
      set(begin, end, 0xff80);
      const auto got = check();
      CHECK(bi::is_finite(got.lse[0]));
      for (const bi::bf16 x : got.out) CHECK(bi::is_finite(x));
    }
  }
  SECTION("a leaf of -Inf does not count, even where its V is NaN") {
    for (const std::int64_t begin : {0, 256}) {
      p = original;
      set(begin, begin + 256, 0xff80);
      const auto expected = check();
      p.kv.v[at((begin + 70) * 64)].bits = 0x7fff;
      CHECK(check().differs(expected) == "");
      CHECK(bi::is_finite(expected.out[0]));
    }
  }
  SECTION("+Inf or NaN anywhere: NaN") {
    for (const unsigned bits : {0x7f80u, 0x7fffu, 0x7f81u}) {
      for (const std::int64_t j : {0, 63, 64, 255, 256, 400, 599}) {
        p = original;
        set(0, 100, 0xff80);
        set(j, j + 1, bits);
        const auto got = check();
        CHECK(bi::bits_of(got.lse[0]) == bi::nan_bits);
        for (const bi::bf16 x : got.out) CHECK(x.bits == bi::nan_bits16);
      }
    }
  }
}

TEST_CASE("attention: leaves split by count, restarted at a run or masked in the middle are other functions",
          "[reference][attention]") {
  constexpr std::int64_t n = contract_leaf + 245, holes = n + 10;
  problem<bi::bf16> p(n + 100, 8, 4, 1, 64, values::normal, 900), in_window = p;
  test::pair_tokens(p.kv.k, p.kv.v, 64, 0, n);
  test::pair_tokens(in_window.kv.k, in_window.kv.v, 64, n - 300, n);
  int rows = 0, by_count = 0, at_run = 0, masked = 0, window_moved = 0;
  for (std::int64_t i = 0; i < 8; ++i) {
    const request r{sequence(0, n), {i}};
    const auto expected = p.expect({r});
    REQUIRE(p.run({r}).differs(expected) == "");
    const auto other = [&](oracle_options o, const request& req) {
      result<bi::bf16> out;
      if (o.see == 0) o.see = n;
      for (std::int64_t h = 0; h < 4; ++h) p.add(out, req, 0, h, o);
      int differing = 0;
      for (std::int64_t h = 0; h < 4; ++h) {
        differing += std::memcmp(&out.out[at(h * 64)], &expected.out[at(h * 64)], 64 * sizeof(bi::bf16)) != 0 ? 1 : 0;
      }
      return differing;
    };
    rows += 4;
    oracle_options o;
    o.leaf_begins = {0, contract_leaf};
    CHECK(other(o, r) == 0);  // the control of the controls
    o.leaf_begins = {0, n / 2};
    by_count += other(o, r);
    o.leaf_begins = {0, 100, contract_leaf + 100};
    at_run += other(o, r);

    // The same tokens in order, with 40 others between them that are masked instead of left out.
    const request with_holes{sequence(0, 130) + sequence(holes, holes + 40) + sequence(130, n), {i}};
    o = {};
    o.see = n + 40;
    o.hidden = [](std::int64_t j) { return j >= 130 && j < 170; };
    masked += other(o, with_holes);

    // A window's first index is not index 0 of a new view.
    options window;
    window.window = 300;
    const request tail{sequence(n - 300, n), {i}};
    window_moved += in_window.run({r}, {}, window).differs(in_window.run({tail})) == "" ? 0 : 1;
  }
  INFO("rows " << rows << ", split by count " << by_count << ", restarted " << at_run << ", masked " << masked);
  CHECK(by_count > rows / 2);
  CHECK(at_run > rows / 2);
  CHECK(masked > rows / 2);
  CHECK(window_moved > 4);
}

TEST_CASE("attention: strides, rows in place, padding", "[reference][attention]") {
  const problem<bi::fp16> p(90, 6, 4, 2, 64, values::normal, 1000);
  const std::vector<request> requests = {
      {sequence(0, 70), {0, 1}}, {{}, {2}}, {sequence(10, 90), {3}}, {sequence(0, 1), {4, 5}}};
  const auto expected = p.run(requests);
  for (int h = 0; h < 4; ++h) {  // a request of length 0, and a row before its view begins
    for (const std::int64_t row : {2, 4}) {
      CHECK(bi::bits_of(expected.lse[at(row * 4 + h)]) == bi::bits_of(bi::neg_inf_f32()));
      for (int d = 0; d < 64; ++d) REQUIRE(expected.out[at((row * 4 + h) * 64 + d)].bits == 0);
    }
  }
  const stored<bi::fp16> st(p.kv, requests, {});
  const std::vector<std::int32_t> q_start = {1, 3, 4, 5, 7};  // row 0 and rows 7, 8 belong to nobody
  struct layout {
    std::int64_t token, head;
    bool in_place;
  };
  const layout layouts[] = {
      {0, 0, false}, {4 * 64 + 24, 0, true}, {4 * 72, 72, false}, {64, 9 * 64, true}, {70, 9 * 70 + 2, false}};
  for (const layout& y : layouts) {
    const bi::attention_strides s{y.token == 0 ? 256 : y.token, y.head == 0 ? 64 : y.head};
    const std::int64_t size = 8 * s.token + 3 * s.head + 64;
    auto q = test::poisoned<bi::fp16>(size), out = test::poisoned<bi::fp16>(size);
    for (std::int64_t r = 0; r < 6; ++r) {
      for (std::int64_t h = 0; h < 4; ++h) {
        std::memcpy(&q[at((r + 1) * s.token + h * s.head)], &p.q[at((r * 4 + h) * 64)], 128);
      }
    }
    if (y.in_place) out = q;
    const auto before = out;
    auto lse = test::poisoned<float>(9 * 5);
    const auto lse_before = lse;
    bi::attention_args<bi::fp16> a;
    a.out = out.data();
    a.q = y.in_place ? out.data() : q.data();
    a.q_token_stride = a.out_token_stride = y.token;
    a.q_head_stride = a.out_head_stride = y.head;
    a.cache = st.cache;
    a.view = st.kv;
    a.len = st.len.data();
    a.q_start = q_start.data();
    a.requests = 4;
    a.rows = 9;
    a.scale = 0.125f;
    a.limits = {4, 9, 2, 80, 4, 2, 64};
    a.lse = lse.data();
    a.lse_token_stride = 5;
    const bi::status status = bi::reference::attention(a, 2);
    INFO(bi::describe(status));
    REQUIRE(status);
    std::vector<bool> written(at(size));
    for (std::int64_t r = 0; r < 6; ++r) {
      for (std::int64_t h = 0; h < 4; ++h) {
        const std::int64_t to = (r + 1) * s.token + h * s.head;
        REQUIRE(difference(&out[at(to)], &expected.out[at((r * 4 + h) * 64)], 64) == "");
        REQUIRE(difference(&lse[at((r + 1) * 5 + h)], &expected.lse[at(r * 4 + h)], 1) == "");
        for (int d = 0; d < 64; ++d) written[at(to + d)] = true;
      }
      REQUIRE(difference(&lse[at((r + 1) * 5 + 4)], &lse_before[0], 1) == "");
    }
    for (std::int64_t i = 0; i < size; ++i) {
      if (!written[at(i)]) REQUIRE(out[at(i)].bits == before[at(i)].bits);
    }
    CHECK(difference(lse.data(), lse_before.data(), 5) == "");
    CHECK(difference(lse.data() + 7 * 5, lse_before.data() + 7 * 5, 10) == "");

    // No lse, one row a request without q_start.
    a.lse = nullptr;
    a.q_start = nullptr;
    a.requests = a.rows = 3;
    a.q = q.data() + s.token;
    out = before;
    a.out = out.data() + s.token;
    a.mask = attention_mask::full;
    REQUIRE(bi::reference::attention(a));
  }
}

TEMPLATE_TEST_CASE("attention: recorded digests", "[reference][attention]", bi::bf16, bi::fp16) {
  const problem<TestType> p(777, 40, 4, 2, 128, values::normal, 1100);
  const std::vector<request> requests = {
      {sequence(0, 700), sequence(0, 37)}, {sequence(600, 777), {38}}, {sequence(0, 1), {39}}};
  options capped;
  capped.cap = 20.0f;
  capped.window = 400;
  const bool is_bf16 = std::is_same_v<TestType, bi::bf16>;
  char text[64];
  std::snprintf(text, sizeof text, "0x%016llx 0x%016llx", static_cast<unsigned long long>(digest(p.run(requests))),
                static_cast<unsigned long long>(digest(p.run(requests, {}, capped))));
  // Frozen: other digests are another contract.
  CHECK(std::string(text) ==
        (is_bf16 ? "0xd2cf04d1a43f407d 0x0b931ae9f887788d" : "0xe35769119a541cfb 0x161d6a1b08204c3c"));
}

// ---- accuracy: relative error in the 2-norm against float64 from the stored q, K and V

namespace {
template <class T>
double error_of(std::int64_t tokens, std::uint64_t seed, double* lse_error = nullptr) {
  const std::int64_t dim = 128;
  const problem<T> p(tokens, 1, 4, 1, dim, values::normal, seed);
  options o;
  o.scale = 0x1.6a09e6p-4f;
  o.threads = 0;
  const auto got = p.run({{sequence(0, tokens), {0}}}, {}, o);
  double error = 0, norm = 0;
  for (std::int64_t h = 0; h < 4; ++h) {
    std::vector<double> weight(at(tokens)), out(at(dim));
    double largest = -1e300, sum = 0;
    for (std::int64_t j = 0; j < tokens; ++j) {
      double s = 0;
      for (std::int64_t d = 0; d < dim; ++d) {
        s += static_cast<double>(bi::to_f32(p.q[at(h * dim + d)])) *
             static_cast<double>(bi::to_f32(p.kv.k[at(j * dim + d)]));
      }
      weight[at(j)] = s * static_cast<double>(o.scale);
      largest = std::max(largest, weight[at(j)]);
    }
    for (std::int64_t j = 0; j < tokens; ++j) {
      const double w = std::exp(weight[at(j)] - largest);
      sum += w;
      for (std::int64_t d = 0; d < dim; ++d) out[at(d)] += w * static_cast<double>(bi::to_f32(p.kv.v[at(j * dim + d)]));
    }
    for (std::int64_t d = 0; d < dim; ++d) {
      const double exact = out[at(d)] / sum, e = static_cast<double>(bi::to_f32(got.out[at(h * dim + d)])) - exact;
      error += e * e;
      norm += exact * exact;
    }
    if (lse_error != nullptr) {
      *lse_error = std::max(*lse_error, std::fabs(static_cast<double>(got.lse[at(h)]) - largest - std::log(sum)));
    }
  }
  return std::sqrt(error / norm);
}
}  // namespace

TEST_CASE("attention: error against float64 at 1000 tokens", "[reference][attention]") {
  double lse = 0;
  const double bf16_error = error_of<bi::bf16>(1000, 1200, &lse), fp16_error = error_of<bi::fp16>(1000, 1200, &lse);
  INFO("bf16 " << bf16_error << " fp16 " << fp16_error << " lse " << lse);
  CHECK(bf16_error < 4e-3);
  CHECK(fp16_error < 5e-4);
  CHECK(lse < 1e-4);  // a weight may be wrong by 2^-13
}

TEST_CASE("attention: error against float64 at 16384 tokens", "[reference][attention][.slow]") {
  double lse = 0;
  const double bf16_error = error_of<bi::bf16>(16384, 1201, &lse), fp16_error = error_of<bi::fp16>(16384, 1201, &lse);
  INFO("bf16 " << bf16_error << " fp16 " << fp16_error << " lse " << lse);
  CHECK(bf16_error < 4e-3);
  CHECK(fp16_error < 5e-4);
  CHECK(lse < 2e-5);
}
