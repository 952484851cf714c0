// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "invariance.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include "bi/contract/arithmetic.hpp"
#include "random.hpp"

namespace demo {
namespace {

using bytes = std::vector<std::uint64_t>;  // a digest of the row, or the row itself

bf16 draw(random_source& r) {
  const std::uint64_t w = r.next();
  const auto sum = static_cast<std::int32_t>((w & 0xffff) + (w >> 16 & 0xffff) + (w >> 32 & 0xffff) + (w >> 48));
  return bi::cvt_rn<bf16>(bi::mul_rn(bi::float_from_int(sum - 131070), 0x1p-15f));
}
std::vector<bf16> draw(random_source& r, std::int64_t count) {
  std::vector<bf16> v(static_cast<std::size_t>(count));
  for (bf16& x : v) x = draw(r);
  return v;
}

// Row `at` is the subject's, the same every time. The others are anything, infinities and NaN too.
std::vector<bf16> rows_around(std::uint64_t own_seed, std::int64_t rows, std::int64_t at, std::int64_t width,
                              random_source& others) {
  random_source own(own_seed);
  std::vector<bf16> v;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::vector<bf16> row = draw(r == at ? own : others, width);
    if (r != at && others.chance(10)) row[static_cast<std::size_t>(others.between(0, width - 1))] = bf16{0x7f80};
    if (r != at && others.chance(10)) row[static_cast<std::size_t>(others.between(0, width - 1))] = bf16{0x7fff};
    v.insert(v.end(), row.begin(), row.end());
  }
  return v;
}

template <class T>
bytes row_of(const buffer<T>& b, std::int64_t at, std::int64_t width) {
  const std::vector<T> all = b.download();
  bytes out;
  for (std::int64_t i = at * width; i < (at + 1) * width; ++i) {
    if constexpr (sizeof(T) == 2) {
      out.push_back(all[static_cast<std::size_t>(i)].bits);
    } else {
      out.push_back(bi::bits_of(all[static_cast<std::size_t>(i)]));
    }
  }
  return out;
}

// Where the subject stands, and who stands around it. Alone, operations run one by one; in a batch, fused.
struct place {
  backend& on;
  std::int64_t rows, at;
  std::uint64_t own;  // seed of the subject and of the weights
  random_source& others;
  bool fused() const { return rows > 1; }
  buffer<bf16> input(std::uint64_t id, std::int64_t width) const {
    return {on, rows_around(own + id, rows, at, width, others)};
  }
  template <class T>
  buffer<T> output(std::int64_t width) const {
    return {on, static_cast<std::size_t>(rows * width)};
  }
  buffer<bf16> shared(std::uint64_t id, std::int64_t count) const {  // a weight
    random_source r(own + id);
    return {on, draw(r, count)};
  }
};

bytes rms_norm(const place& p, std::int64_t cols) {
  const auto x = p.input(1, cols), residual = p.input(2, cols), w = p.shared(3, cols);
  const auto out = p.output<bf16>(cols);
  bi::rms_norm_args<bf16> a;
  a.x = residual.data();
  a.weight = w.data();
  a.rows = p.rows;
  a.cols = cols;
  a.out = out.data();
  if (p.fused()) {
    a.x = x.data();
    a.residual = a.residual_out = residual.data();
  } else {
    bi::add_args<bf16> add;
    add.x = x.data();
    add.y = residual.data();
    add.out = residual.data();
    add.rows = p.rows;
    add.cols = cols;
    p.on.add(add);
  }
  p.on.rms_norm(a);
  return row_of(out, p.at, cols);
}

// fp32 outputs, as for logits: rounding to bf16 would hide most differences.
bytes gemm(const place& p, std::int64_t n, std::int64_t k) {
  const auto x = p.input(4, k), w = p.shared(5, n * k);
  const auto out = p.output<float>(n);
  gemm_f32_out_args g;
  g.a = x.data();
  g.b = w.data();
  g.d = out.data();
  g.m = p.rows;
  p.on.gemm_f32_out({.n = n, .k = k, .max_m = p.rows}, g);
  return row_of(out, p.at, n);
}

bytes gemm_silu_gate(const place& p, std::int64_t cols, std::int64_t k) {
  const auto x = p.input(6, k), w = p.shared(7, 2 * cols * k);
  const auto out = p.output<bf16>(cols), both = p.output<bf16>(2 * cols);
  const bi::gemm_limits limits{.n = 2 * cols, .k = k, .max_m = p.rows};
  if (p.fused()) {
    gemm_silu_gate_args g;
    g.a = x.data();
    g.b = w.data();
    g.d = out.data();
    g.m = p.rows;
    p.on.gemm_silu_gate(limits, g);
  } else {
    gemm_args g;
    g.a = x.data();
    g.b = w.data();
    g.d = both.data();
    g.m = p.rows;
    p.on.gemm(limits, g);
    bi::gate_mul_args<bf16> s;
    s.gate = both.data();
    s.up = both.data() + 1;
    s.column_step = 2;
    s.rows = p.rows;
    s.cols = cols;
    s.out = out.data();
    p.on.silu_mul(s);
  }
  return row_of(out, p.at, cols);
}

// K of the subject's token in the cache: normalised, rotated and appended.
bytes kv_append(const place& p, const model_config& c) {
  const std::int64_t width = c.heads_kv * c.head_dim, positions = 64;
  const auto k = p.input(8, width), v = p.input(9, width), norm = p.shared(10, c.head_dim);
  const auto k_cache = p.output<bf16>(width), v_cache = p.output<bf16>(width);
  std::vector<float> angles(static_cast<std::size_t>(positions * c.head_dim / 2), 0.75f);  // any table will do
  const buffer<float> cos(p.on, angles), sin(p.on, angles);
  std::vector<std::int64_t> slots(static_cast<std::size_t>(p.rows));
  std::iota(slots.begin(), slots.end(), 0);
  p.others.shuffle(slots);
  std::vector<std::int32_t> position(static_cast<std::size_t>(p.rows));
  for (std::int32_t& x : position) x = static_cast<std::int32_t>(p.others.between(0, positions - 1));
  position[static_cast<std::size_t>(p.at)] = 33;
  const buffer<std::int64_t> slot(p.on, slots);
  const buffer<std::int32_t> at_position(p.on, position);

  bi::kv_append_args<bf16> a;
  a.cache.k = k_cache.data();
  a.cache.v = v_cache.data();
  a.cache.num_pages = p.rows;
  a.cache.page_size = 1;
  a.cache.heads = c.heads_kv;
  a.cache.head_dim = c.head_dim;
  a.k = k.data();
  a.v = v.data();
  a.slot = slot.data();
  a.tokens = p.rows;
  const bi::rope_table table{cos.data(), sin.data(), positions, c.head_dim};
  if (p.fused()) {
    a.norm_weight = norm.data();
    a.position = at_position.data();
    a.table = table;
  } else {
    bi::qk_norm_args<bf16> n;
    n.x = n.out = k.data();
    n.weight = norm.data();
    n.tokens = p.rows;
    n.heads = c.heads_kv;
    n.head_dim = c.head_dim;
    p.on.qk_norm(n);
    bi::rope_args<bf16> r;
    r.x = r.out = k.data();
    r.position = at_position.data();
    r.table = table;
    r.tokens = p.rows;
    r.heads = c.heads_kv;
    r.head_dim = c.head_dim;
    p.on.rope(r);
  }
  p.on.kv_append(a);
  return row_of(k_cache, slots[static_cast<std::size_t>(p.at)], width);
}

// The subject's query is the last of its request, whose view has 300 tokens in shuffled pages. In a batch it is decoded
// among other decodes, or (chunk) ends a chunk of its own prefill; the rest of all pages holds NaN.
bytes attention(place p, const model_config& c, bool chunk) {
  const std::int64_t page_size = 16, view = 300, max_pages = 20, width = c.heads_q * c.head_dim;
  const std::int64_t kv_width = c.heads_kv * c.head_dim, requests = p.rows, own_rows = chunk && p.fused() ? 40 : 1;
  const std::int64_t pool = requests * max_pages;
  std::vector<std::int32_t> pages(static_cast<std::size_t>(pool)), len, q_start = {0};
  std::iota(pages.begin(), pages.end(), 0);
  p.others.shuffle(pages);
  std::vector<bf16> k(static_cast<std::size_t>(pool * page_size * kv_width), bf16{0x7fff}), v = k;
  for (std::int64_t r = 0; r < requests; ++r) {
    random_source subject(p.own + 11);
    random_source& source = r == p.at ? subject : p.others;
    len.push_back(static_cast<std::int32_t>(r == p.at ? view : p.others.between(1, view)));
    q_start.push_back(q_start.back() + static_cast<std::int32_t>(r == p.at ? own_rows : 1));
    for (std::int64_t j = 0; j < len.back(); ++j) {
      const std::int64_t page = pages[static_cast<std::size_t>(r * max_pages + j / page_size)];
      const auto token = static_cast<std::size_t>((page * page_size + j % page_size) * kv_width);
      for (std::size_t i = token; i < token + static_cast<std::size_t>(kv_width); ++i) {
        k[i] = draw(source);
        v[i] = draw(source);
      }
    }
  }
  const std::int64_t at = q_start[static_cast<std::size_t>(p.at) + 1] - 1;
  p.rows = q_start.back();
  p.at = at;
  const auto q = p.input(12, width);
  const auto out = p.output<bf16>(width);
  const auto lse = p.output<float>(c.heads_q);
  const buffer<bf16> k_cache(p.on, k), v_cache(p.on, v);
  const buffer<std::int32_t> d_pages(p.on, pages), d_len(p.on, len), d_start(p.on, q_start);
  bi::attention_args<bf16> a;
  a.q = q.data();
  a.cache.k = k_cache.data();
  a.cache.v = v_cache.data();
  a.cache.num_pages = pool;
  a.cache.page_size = page_size;
  a.cache.heads = c.heads_kv;
  a.cache.head_dim = c.head_dim;
  a.view = bi::page_table{d_pages.data(), max_pages};
  a.len = d_len.data();
  a.q_start = d_start.data();
  a.requests = requests;
  a.rows = p.rows;
  a.scale = 0.125f;
  a.limits.max_requests = requests;
  a.limits.max_rows = p.rows;
  a.limits.max_q_len = own_rows;
  a.limits.max_view = view;
  a.limits.heads_q = c.heads_q;
  a.limits.heads_kv = c.heads_kv;
  a.limits.head_dim = c.head_dim;
  a.out = out.data();
  a.lse = lse.data();
  p.on.attention(a);
  bytes result = row_of(out, at, width);
  for (const std::uint64_t x : row_of(lse, at, c.heads_q)) result.push_back(x);
  return result;
}

bytes sample(const place& p, const model_config& c) {
  std::vector<float> logits;
  for (const bf16 x : rows_around(p.own + 13, p.rows, p.at, c.vocab, p.others)) logits.push_back(bi::to_f32(x));
  std::vector<bi::sample_params> params(static_cast<std::size_t>(p.rows));
  for (bi::sample_params& s : params) {
    s.temperature = p.others.chance(30) ? 0.0f : 1.5f;
    s.top_k = static_cast<std::int32_t>(p.others.between(0, 60));
    s.seed = p.others.next();
  }
  bi::sample_params own;
  own.temperature = 1.0f;
  own.top_p = 0.95f;
  own.top_k = 50;
  own.seed = p.own;
  own.ordinal = 5;
  params[static_cast<std::size_t>(p.at)] = own;
  const buffer<float> x(p.on, logits);
  const buffer<bi::sample_params> d_params(p.on, params);
  const auto token = p.output<std::int32_t>(1);
  const auto logprob = p.output<float>(1);
  bi::sample_args<float> a;
  a.logits = x.data();
  a.rows = p.rows;
  a.vocab = c.vocab;
  a.params = d_params.data();
  a.token = token.data();
  a.logprob = logprob.data();
  p.on.sample(a);
  bytes out = row_of(logprob, p.at, 1);
  out.push_back(static_cast<std::uint32_t>(token.download()[static_cast<std::size_t>(p.at)]));
  return out;
}

}  // namespace

std::vector<invariance> check_operations(backend& b, backend* baseline, const model_config& c, std::uint64_t seed,
                                         std::int64_t batches) {
  struct operation {
    std::string name;
    bool has_baseline;
    std::int64_t most_rows;
    std::function<bytes(const place&)> run;
  };
  // Rounding to bf16 hides most differences of the baseline's fp32 sums: these are large enough to show some.
  constexpr std::int64_t wide = 16384, deep = 2048;
  const operation operations[] = {
      {"add, rms_norm | fused", true, 96, [&](const place& p) { return rms_norm(p, wide); }},
      {"gemm", true, 128, [&](const place& p) { return gemm(p, c.qkv_width(), c.hidden); }},
      {"gemm, silu_mul | fused", true, 64, [&](const place& p) { return gemm_silu_gate(p, c.mlp, deep); }},
      {"qk_norm, rope, kv_append | fused", false, 128, [&](const place& p) { return kv_append(p, c); }},
      {"attention, decode", true, 24, [&](const place& p) { return attention(p, c, false); }},
      {"attention, decode | prefill chunk", true, 24, [&](const place& p) { return attention(p, c, true); }},
      {"sample", false, 64, [&](const place& p) { return sample(p, c); }},
  };
  std::vector<invariance> out;
  for (const operation& o : operations) {
    const auto count_differing = [&](backend& on) {
      random_source others(seed);
      std::int64_t differs = 0;
      for (std::int64_t i = 0; i < batches; ++i) {
        const std::uint64_t own = others.next();
        const std::int64_t rows = others.between(2, o.most_rows), at = others.between(0, rows - 1);
        if (o.run({on, rows, at, own, others}) != o.run({on, 1, 0, own, others})) ++differs;
      }
      return differs;
    };
    invariance result{o.name, batches, count_differing(b), -1};
    if (baseline != nullptr && o.has_baseline) result.baseline_differs = count_differing(*baseline);
    out.push_back(result);
  }
  return out;
}

}  // namespace demo
