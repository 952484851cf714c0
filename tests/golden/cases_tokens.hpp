// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/backend.hpp"
#include "support/ops_tokens.hpp"

namespace test {

// Whole buffers are returned, padding included: what an operation may not write must stay poisoned.

struct matrix_case {
  std::int64_t rows, cols;
  values kind = values::normal;
  std::int64_t pad = 0;     // added to every stride
  std::int64_t offset = 0;  // elements before every array, to misalign it
  std::int64_t step = 1;    // 2: gate and up interleaved
};
inline std::string to_string(const matrix_case& c) {
  return "rows=" + std::to_string(c.rows) + ",cols=" + std::to_string(c.cols) +
         ",values=" + std::to_string(static_cast<int>(c.kind)) + (c.pad != 0 ? ",pad=" + std::to_string(c.pad) : "") +
         (c.offset != 0 ? ",offset=" + std::to_string(c.offset) : "") + (c.step != 1 ? ",interleaved" : "");
}

template <class Op, class T, class Backend>
std::vector<T> run_gate_mul(Backend& b, const matrix_case& c, std::uint64_t seed = 1) {
  bi::gate_mul_args<T> a;
  a.rows = c.rows, a.cols = c.cols, a.column_step = c.step;
  a.gate_stride = a.up_stride = c.cols * c.step + c.pad;
  a.out_stride = c.cols + c.pad;
  const std::int64_t n = c.rows * a.gate_stride + c.offset;
  a.gate = b.input(random_vector<T>(n, c.kind, seed)) + c.offset;
  a.up = c.step == 1 ? b.input(random_vector<T>(n, c.kind, seed + 1)) + c.offset : a.gate + 1;
  T* out = b.template output<T>(c.rows * a.out_stride + c.offset);
  a.out = out + c.offset;
  b.run(Op{}, a);
  return b.read(out);
}

template <class T, class Backend>
std::vector<T> run_add(Backend& b, const matrix_case& c, std::uint64_t seed = 1) {
  bi::add_args<T> a;
  a.rows = c.rows, a.cols = c.cols;
  a.x_stride = a.y_stride = a.out_stride = c.cols + c.pad;
  const std::int64_t n = c.rows * a.x_stride + c.offset;
  a.x = b.input(random_vector<T>(n, c.kind, seed)) + c.offset;
  a.y = b.input(random_vector<T>(n, c.kind, seed + 1)) + c.offset;
  T* out = b.template output<T>(n);
  a.out = out + c.offset;
  b.run(add_op{}, a);
  return b.read(out);
}

template <class T, class Backend>
std::vector<T> run_embedding(Backend& b, const matrix_case& c, std::uint64_t seed = 1) {
  constexpr std::int64_t table_rows = 37;
  generator g(seed + 9);
  std::vector<std::int32_t> id;
  for (std::int64_t r = 0; r < c.rows; ++r) id.push_back(static_cast<std::int32_t>(g.between(-2, table_rows - 1)));
  bi::embedding_args<T> a;
  a.rows = c.rows, a.cols = c.cols, a.table_rows = table_rows;
  a.table_stride = a.out_stride = c.cols + c.pad;
  a.table = b.input(random_vector<T>(table_rows * a.table_stride + c.offset, c.kind, seed)) + c.offset;
  a.id = b.input(id);
  T* out = b.template output<T>(c.rows * a.out_stride + c.offset);
  a.out = out + c.offset;
  b.run(embedding_op{}, a);
  return b.read(out);
}

struct rope_case {
  std::int64_t tokens, heads, head_dim, rotary_dim;
  bi::rope_style style = bi::rope_style::half;
  values kind = values::normal;
  std::int64_t pad = 0;     // added to every stride
  std::int64_t offset = 0;  // elements before x, out and the table
};
inline std::string to_string(const rope_case& c) {
  return "tokens=" + std::to_string(c.tokens) + ",heads=" + std::to_string(c.heads) +
         ",dim=" + std::to_string(c.head_dim) + ",rotary=" + std::to_string(c.rotary_dim) +
         (c.style == bi::rope_style::half ? ",half" : ",interleaved") +
         ",values=" + std::to_string(static_cast<int>(c.kind)) + (c.pad != 0 ? ",pad=" + std::to_string(c.pad) : "") +
         (c.offset != 0 ? ",offset=" + std::to_string(c.offset) : "");
}

// Any numbers do for a table; the rotation doesn't ask whether they are a sine and a cosine.
template <class Backend>
bi::rope_table random_table(Backend& b, std::int64_t positions, std::int64_t rotary_dim, bi::rope_style style,
                            std::int64_t offset, std::uint64_t seed) {
  bi::rope_table t;
  const std::int64_t n = positions * rotary_dim / 2 + offset;
  t.cos = b.input(random_vector<float>(n, values::normal, seed)) + offset;
  t.sin = b.input(random_vector<float>(n, values::normal, seed + 1)) + offset;
  t.positions = positions, t.rotary_dim = rotary_dim, t.style = style;
  return t;
}

template <class T, class Backend>
std::vector<T> run_rope(Backend& b, const rope_case& c, std::uint64_t seed = 1) {
  constexpr std::int64_t positions = 61;
  generator g(seed + 9);
  std::vector<std::int32_t> position;
  for (std::int64_t t = 0; t < c.tokens; ++t)
    position.push_back(static_cast<std::int32_t>(g.between(-3, positions - 1)));
  bi::rope_args<T> a;
  a.tokens = c.tokens, a.heads = c.heads, a.head_dim = c.head_dim;
  a.x_head_stride = a.out_head_stride = c.head_dim + c.pad;
  a.x_token_stride = a.out_token_stride = c.heads * a.x_head_stride + c.pad;
  const std::int64_t n = c.tokens * a.x_token_stride + c.offset;
  a.x = b.input(random_vector<T>(n, c.kind, seed)) + c.offset;
  a.position = b.input(position);
  a.table = random_table(b, positions, c.rotary_dim, c.style, c.offset, seed + 1);
  T* out = b.template output<T>(n);
  a.out = out + c.offset;
  b.run(rope_op{}, a);
  return b.read(out);
}

struct kv_case {
  std::int64_t tokens, heads, head_dim, page_size;
  bool norm = true;
  std::int64_t rotary_dim = 0;  // 0: no table
  bi::rope_style style = bi::rope_style::half;
  values kind = values::normal;
  bool heads_first = false;  // in a page, heads before tokens
  std::int64_t pad = 0;
  std::int64_t offset = 0;
};
inline std::string to_string(const kv_case& c) {
  return "tokens=" + std::to_string(c.tokens) + ",heads=" + std::to_string(c.heads) +
         ",dim=" + std::to_string(c.head_dim) + ",page=" + std::to_string(c.page_size) + (c.norm ? ",norm" : "") +
         (c.rotary_dim != 0 ? ",rotary=" + std::to_string(c.rotary_dim) : "") +
         (c.style == bi::rope_style::half ? "" : ",interleaved") +
         ",values=" + std::to_string(static_cast<int>(c.kind)) + (c.heads_first ? ",heads_first" : "") +
         (c.pad != 0 ? ",pad=" + std::to_string(c.pad) : "") +
         (c.offset != 0 ? ",offset=" + std::to_string(c.offset) : "");
}
inline std::int64_t cache_pages(const kv_case& c) { return (c.tokens + c.tokens / 2) / c.page_size + 2; }

template <class T>
bi::paged_cache<T> cache_layout(const kv_case& c) {
  bi::paged_cache<T> p;
  p.num_pages = cache_pages(c), p.page_size = c.page_size, p.heads = c.heads, p.head_dim = c.head_dim;
  const std::int64_t d = c.head_dim + c.pad;
  p.k_token_stride = c.heads_first ? d : c.heads * d;
  p.k_head_stride = c.heads_first ? c.page_size * d : d;
  p.k_page_stride = c.page_size * c.heads * d + c.pad;
  return p;
}
template <class T>
std::int64_t cache_elements(const bi::paged_cache<T>& p) {
  return p.num_pages * p.k_page_stride;
}
// Some tokens are padding, the others have different slots in no order.
inline std::vector<std::int64_t> random_slots(const kv_case& c, std::uint64_t seed) {
  generator g(seed);
  std::vector<std::int64_t> all, slot;
  for (std::int64_t s = 0; s < cache_pages(c) * c.page_size; ++s) all.push_back(s);
  for (std::size_t i = all.size(); i > 1; --i) {
    std::swap(all[i - 1], all[static_cast<std::size_t>(g.below(static_cast<std::int64_t>(i)))]);
  }
  for (std::int64_t t = 0; t < c.tokens; ++t) slot.push_back(g.chance(15) ? -1 - t : all[static_cast<std::size_t>(t)]);
  return slot;
}

// K's buffer, then V's.
template <class Norm, class T, class Backend>
std::vector<T> run_kv_append(Backend& b, const kv_case& c, std::uint64_t seed = 1) {
  constexpr std::int64_t positions = 43;
  generator g(seed + 9);
  std::vector<std::int32_t> position;
  bi::kv_append_args<T> a;
  const auto slot = random_slots(c, seed + 8);
  for (const std::int64_t s : slot) position.push_back(s < 0 ? -7 : static_cast<std::int32_t>(g.below(positions)));
  a.cache = cache_layout<T>(c);
  a.tokens = c.tokens;
  a.k_head_stride = c.head_dim + c.pad;
  a.k_token_stride = c.heads * a.k_head_stride + c.pad;
  const std::int64_t n = c.tokens * a.k_token_stride + c.offset;
  a.k = b.input(random_vector<T>(n, c.kind, seed)) + c.offset;
  a.v = b.input(random_vector<T>(n, c.kind, seed + 1)) + c.offset;
  a.slot = b.input(slot);
  if (c.norm) a.norm_weight = b.input(random_vector<T>(c.head_dim, values::normal, seed + 2));
  if (c.rotary_dim > 0) {
    a.table = random_table(b, positions, c.rotary_dim, c.style, c.offset, seed + 3);
    a.position = b.input(position);
  }
  T* k = b.template output<T>(cache_elements(a.cache) + c.offset);
  T* v = b.template output<T>(cache_elements(a.cache) + c.offset);
  a.cache.k = k + c.offset;
  a.cache.v = v + c.offset;
  b.run(kv_append_op<Norm>{}, a);
  std::vector<T> out = b.read(k);
  const std::vector<T> second = b.read(v);
  out.insert(out.end(), second.begin(), second.end());
  return out;
}

// Every way to cut the candidates, alone and together; the last three are refused.
inline std::vector<bi::sample_params> sample_settings(std::int64_t rows, std::int64_t vocab, std::uint64_t seed) {
  const auto v = static_cast<std::int32_t>(vocab);
  struct setting {
    float temperature;
    std::int32_t top_k;
    float top_p, min_p;
  };
  const setting all[] = {
      {0.0f, 0, 1.0f, 0.0f},          {1.0f, 0, 1.0f, 0.0f},          {0.7f, 1, 1.0f, 0.0f},
      {0.7f, 7, 1.0f, 0.0f},          {1.0f, 50, 1.0f, 0.0f},         {1.3f, v - 1, 1.0f, 0.0f},
      {1.0f, v / 2, 1.0f, 0.0f},      {1.0f, 0, 0.9f, 0.0f},          {0.6f, 0, 0.5f, 0.0f},
      {1.0f, 0, 0.0f, 0.0f},          {2.0f, 0, 0.999999f, 0.0f},     {1.0f, 0, 1e-12f, 0.0f},
      {1.0f, 0, 1.0f, 0.1f},          {1.0f, 0, 1.0f, 2.0f},          {0.8f, 20, 0.95f, 0.05f},
      {5.0f, v / 3, 0.7f, 0.0f},      {0x1p-126f, 3, 0.9f, 0.0f},     {1e30f, v / 2, 0.5f, 0.5f},
      {1e-3f, 0, 0.99f, 0.0f},        {0.0f, 5, 0.5f, 0.9f},          {-1.0f, 0, 1.0f, 0.0f},
      {bi::inf_f32(), 0, 1.0f, 0.0f}, {1.0f, 0, bi::nan_f32(), 0.0f},
  };
  generator g(seed);
  std::vector<bi::sample_params> out(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < out.size(); ++r) {
    const setting& s = all[r % (sizeof all / sizeof all[0])];
    out[r].temperature = s.temperature, out[r].top_k = s.top_k, out[r].top_p = s.top_p, out[r].min_p = s.min_p;
    out[r].seed = g.next();
    out[r].branch = r % 3 == 0 ? 0 : g.next();
    out[r].sample_index = static_cast<std::uint32_t>(g.below(4));
    out[r].ordinal = static_cast<std::uint32_t>(g.next());
  }
  return out;
}

// Tokens, then log-probabilities, then flags, as bits.
template <class T, class Backend>
std::vector<std::uint32_t> run_sample(Backend& b, const matrix_case& c, std::uint64_t seed = 1) {
  bi::sample_args<T> a;
  a.rows = c.rows, a.vocab = c.cols, a.logits_stride = c.cols + c.pad;
  auto logits = random_vector<T>(c.rows * a.logits_stride + c.offset, c.kind, seed);
  if (c.kind == values::hostile) {
    constexpr std::uint32_t sign = 1u << (8 * sizeof(T) - 1), one = 1u << format_of<T>::fraction;
    constexpr std::uint32_t infinity = sign - one;
    const std::pair<std::int64_t, std::uint32_t> equal_rows[] = {
        {1, sign | infinity}, {4, infinity | 1u}, {7, infinity}};
    for (const auto& [row, bits] : equal_rows) {
      if (row >= c.rows) continue;
      std::fill_n(logits.begin() + c.offset + row * a.logits_stride, c.cols, from_bits<T>(bits));
    }
  }
  a.logits = b.input(logits) + c.offset;
  a.params = b.input(sample_settings(c.rows, c.cols, seed + 1));
  a.token = b.template output<std::int32_t>(c.rows);
  a.logprob = b.template output<float>(c.rows);
  a.flags = b.template output<std::uint32_t>(c.rows);
  b.run(sample_op{}, a);
  std::vector<std::uint32_t> out;
  for (const std::int32_t t : b.read(a.token)) out.push_back(static_cast<std::uint32_t>(t));
  for (const float x : b.read(a.logprob)) out.push_back(bi::bits_of(x));
  for (const std::uint32_t f : b.read(a.flags)) out.push_back(f);
  return out;
}

// Requests of speculative decoding over a case's rows, some of them without rows; rows before the first and after the last
// are nobody's. Most drafts are what sample draws there.
template <class T>
struct verify_data {
  std::vector<T> logits;
  std::vector<bi::sample_params> params;
  std::vector<std::int32_t> draft, start;
};
template <class T>
verify_data<T> make_verify_data(const matrix_case& c, std::int64_t requests, std::uint64_t seed) {
  verify_data<T> d;
  d.logits = random_vector<T>(c.rows * (c.cols + c.pad) + c.offset, c.kind, seed);
  d.params = sample_settings(c.rows, c.cols, seed + 1);
  d.draft.resize(static_cast<std::size_t>(c.rows));
  bi::sample_args<T> a;
  a.rows = c.rows, a.vocab = c.cols, a.logits_stride = c.cols + c.pad;
  a.logits = d.logits.data() + c.offset, a.params = d.params.data(), a.token = d.draft.data();
  if (const bi::status st = bi::reference::sample(a); !st) throw std::runtime_error(bi::describe(st));
  generator g(seed + 2);
  for (std::int32_t& t : d.draft) {
    if (const std::int64_t fate = g.below(20); fate < 3) t = fate == 0 ? -1 : fate == 1 ? t ^ 1 : -5;
  }
  for (std::int64_t i = 0; i <= requests; ++i) d.start.push_back(static_cast<std::int32_t>(g.below(c.rows + 1)));
  std::sort(d.start.begin(), d.start.end());
  return d;
}
template <class T, class Backend>
bi::verify_args<T> make_verify_args(Backend& b, const matrix_case& c, const verify_data<T>& d) {
  bi::verify_args<T> a;
  a.sample.rows = c.rows, a.sample.vocab = c.cols, a.sample.logits_stride = c.cols + c.pad;
  a.sample.logits = b.input(d.logits) + c.offset;
  a.sample.params = b.input(d.params);
  a.sample.token = b.template output<std::int32_t>(c.rows);
  a.sample.logprob = b.template output<float>(c.rows);
  a.sample.flags = b.template output<std::uint32_t>(c.rows);
  a.requests = static_cast<std::int64_t>(d.start.size()) - 1;
  a.draft = b.input(d.draft);
  a.start = b.input(d.start);
  a.accepted = b.template output<std::int32_t>(a.requests);
  return a;
}
// Tokens, log-probabilities and flags of rows, then what requests accept, as bits.
template <class T, class Backend>
std::vector<std::uint32_t> read_verify(Backend& b, const bi::verify_args<T>& a) {
  std::vector<std::uint32_t> out;
  for (const std::int32_t t : b.read(a.sample.token)) out.push_back(static_cast<std::uint32_t>(t));
  for (const float x : b.read(a.sample.logprob)) out.push_back(bi::bits_of(x));
  for (const std::uint32_t f : b.read(a.sample.flags)) out.push_back(f);
  for (const std::int32_t n : b.read(a.accepted)) out.push_back(static_cast<std::uint32_t>(n));
  return out;
}
template <class T, class Backend>
std::vector<std::uint32_t> run_verify(Backend& b, const matrix_case& c, std::int64_t requests, std::uint64_t seed = 1) {
  const auto a = make_verify_args<T>(b, c, make_verify_data<T>(c, requests, seed));
  b.run(verify_op{}, a);
  return read_verify(b, a);
}

struct bytes_case {
  std::int64_t rows, bytes;
  std::int64_t pad = 0;
  std::int64_t offset = 0;  // bytes
};
inline std::string to_string(const bytes_case& c) {
  return "rows=" + std::to_string(c.rows) + ",bytes=" + std::to_string(c.bytes) + ",pad=" + std::to_string(c.pad) +
         ",offset=" + std::to_string(c.offset);
}
template <class Backend>
std::vector<std::uint64_t> run_digest_rows(Backend& b, const bytes_case& c, std::uint64_t seed = 1) {
  generator g(seed);
  std::vector<unsigned char> data(static_cast<std::size_t>(c.rows * (c.bytes + c.pad) + c.offset));
  for (unsigned char& x : data) x = static_cast<unsigned char>(g.next());
  bi::digest_rows_args a;
  a.data = b.input(data) + c.offset;
  a.row_stride_bytes = c.bytes + c.pad;
  a.rows = c.rows, a.row_bytes = c.bytes;
  a.out = b.template output<std::uint64_t>(c.rows);
  b.run(digest_rows_op{}, a);
  return b.read(a.out);
}

// Views of `requests` requests over the pages of a cache, all three forms of the same tokens when the runs are pages.
struct view_data {
  std::vector<std::int32_t> pages, start;
  std::vector<std::int32_t> runs, run_start;  // slot and length in turn
  std::vector<std::int32_t> first, count;
  std::int64_t row_stride = 0;
};
inline view_data random_views(std::int64_t requests, std::int64_t num_pages, std::int64_t page_size, bool loose_runs,
                              std::uint64_t seed) {
  generator g(seed);
  view_data v;
  v.row_stride = 9;
  v.start = {0}, v.run_start = {0};
  for (std::int64_t r = 0; r < requests; ++r) {
    std::int64_t tokens = 0;
    for (std::int64_t i = 0; i < v.row_stride; ++i) {
      v.pages.push_back(static_cast<std::int32_t>(g.below(num_pages)));
      if (!loose_runs) {
        for (const std::int64_t x : {v.pages.back() * page_size, page_size})
          v.runs.push_back(static_cast<std::int32_t>(x));
        tokens += page_size;
      }
    }
    // Short runs anywhere, empty ones among them, and enough of them for several rounds of a warp.
    for (std::int64_t i = g.between(0, 150); loose_runs && i > 0; --i) {
      const std::int64_t slot = g.below(num_pages * page_size);
      const std::int64_t most = std::min<std::int64_t>(num_pages * page_size - slot, g.chance(25) ? 0 : 5);
      const std::int64_t length = g.between(0, most);
      for (const std::int64_t x : {slot, length}) v.runs.push_back(static_cast<std::int32_t>(x));
      tokens += length;
    }
    v.start.push_back(static_cast<std::int32_t>(v.pages.size()));
    v.run_start.push_back(static_cast<std::int32_t>(v.runs.size() / 2));
    v.first.push_back(static_cast<std::int32_t>(g.below(tokens + 1)));
    v.count.push_back(static_cast<std::int32_t>(r % 5 == 4 ? -1 : g.below(tokens - v.first.back() + 1)));
  }
  return v;
}
template <class Backend>
bi::kv_view make_view(Backend& b, const view_data& v, bi::view_kind kind) {
  if (kind == bi::view_kind::page_table) {
    bi::page_table t;
    t.pages = b.input(v.pages);
    t.row_stride = v.row_stride;
    return t;
  }
  if (kind == bi::view_kind::page_csr) {
    bi::page_csr t;
    t.pages = b.input(v.pages);
    t.start = b.input(v.start);
    return t;
  }
  bi::run_list t;
  t.runs = reinterpret_cast<const bi::kv_run*>(b.input(v.runs));
  t.start = b.input(v.run_start);
  return t;
}

struct digest_kv_case {
  std::int64_t requests;
  kv_case cache;  // its tokens give the number of pages
  bi::view_kind kind = bi::view_kind::page_table;
  bool loose_runs = false;
};
template <class T, class Backend>
std::vector<std::uint64_t> run_digest_kv(Backend& b, const digest_kv_case& c, std::uint64_t seed = 1) {
  const kv_case& k = c.cache;
  const auto layout = cache_layout<T>(k);
  bi::digest_kv_args<T> a;
  a.cache.num_pages = layout.num_pages, a.cache.page_size = layout.page_size;
  a.cache.heads = layout.heads, a.cache.head_dim = layout.head_dim;
  a.cache.k_page_stride = layout.k_page_stride, a.cache.k_token_stride = layout.k_token_stride;
  a.cache.k_head_stride = layout.k_head_stride;
  const std::int64_t n = cache_elements(layout) + k.offset;
  a.cache.k = b.input(random_vector<T>(n, k.kind, seed)) + k.offset;
  a.cache.v = b.input(random_vector<T>(n, k.kind, seed + 1)) + k.offset;
  const view_data v = random_views(c.requests, layout.num_pages, k.page_size, c.loose_runs, seed + 2);
  a.view = make_view(b, v, c.kind);
  a.first = b.input(v.first);
  a.count = b.input(v.count);
  a.requests = c.requests;
  a.out = b.template output<std::uint64_t>(c.requests);
  b.run(digest_kv_op{}, a);
  return b.read(a.out);
}

template <class T>
void golden_tokens_of(auto& b, auto&& emit) {
  using namespace bi::contract;
  const std::string type = bi::dtype_traits<T>::name;
  for (const values kind : all_values) {
    const matrix_case c{5, 203, kind, 3, 1};
    emit("silu_mul/" + type + "/" + to_string(c), activation_draft::id(), run_gate_mul<silu_mul_op, T>(b, c));
    emit("gelu_mul/" + type + "/" + to_string(c), activation_draft::id(), run_gate_mul<gelu_mul_op, T>(b, c));
    emit("gelu_tanh_mul/" + type + "/" + to_string(c), activation_draft::id(), run_gate_mul<gelu_tanh_mul_op, T>(b, c));
    emit("add/" + type + "/" + to_string(c), activation_draft::id(), run_add<T>(b, c));
    const matrix_case rows{23, 9001, kind, 5, 1};
    emit("sample/" + type + "/" + to_string(rows), sample_draft::id(), run_sample<T>(b, rows));
    emit("verify/" + type + "/" + to_string(rows), sample_draft::id(), run_verify<T>(b, rows, 9));
  }
  const matrix_case pairs{4, 96, values::normal, 0, 0, 2};
  emit("silu_mul/" + type + "/" + to_string(pairs), activation_draft::id(), run_gate_mul<silu_mul_op, T>(b, pairs));
  for (const values kind : {values::normal, values::subnormal, values::hostile}) {
    for (const bi::rope_style style : {bi::rope_style::half, bi::rope_style::interleaved}) {
      const rope_case r{9, 3, 80, 36, style, kind, 3, 1};
      emit("rope/" + type + "/" + to_string(r), rope_draft::id(), run_rope<T>(b, r));
      const kv_case k{9, 2, 128, 4, true, 128, style, kind};
      emit("kv_append/rms_norm/" + type + "/" + to_string(k), rms_norm_draft::id() ^ rope_draft::id(),
           run_kv_append<rms_norm_draft, T>(b, k));
      emit("kv_append/rms_norm_hf/" + type + "/" + to_string(k), rms_norm_hf_draft::id() ^ rope_draft::id(),
           run_kv_append<rms_norm_hf_draft, T>(b, k));
    }
  }
  const digest_kv_case d{6, {30, 2, 24, 4}, bi::view_kind::run_list, true};
  emit("digest_kv/" + type + "/runs", digest_words_draft::id(), run_digest_kv<T>(b, d));
}

template <class Backend, class Sink>
void golden_tokens(Backend& b, Sink&& sink) {
  const auto emit = [&](const std::string& name, std::uint64_t contract, const auto& out) {
    sink(golden_entry{name, contract, digest_of(out), static_cast<std::int64_t>(out.size())});
    b.clear();
  };
  golden_tokens_of<bi::bf16>(b, emit);
  golden_tokens_of<bi::fp16>(b, emit);
  golden_tokens_of<float>(b, emit);
  for (const bytes_case& c : {bytes_case{5, 1000}, bytes_case{3, 777, 6, 1}}) {
    emit("digest_rows/" + to_string(c), bi::contract::digest_words_draft::id(), run_digest_rows(b, c));
  }
}

}  // namespace test
