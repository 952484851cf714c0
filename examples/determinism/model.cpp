// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "model.hpp"

#include <algorithm>

#include "bi/contract/activation.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/contract/attention.hpp"
#include "bi/contract/digest.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/philox.hpp"
#include "bi/contract/rope.hpp"
#include "bi/contract/sample.hpp"
#include "bi/contract/trig.hpp"

namespace demo {
namespace {

constexpr float norm_eps = 1e-6f;
constexpr double rope_theta = 1e6;

// Near normal: eight uniforms of 16 bits, added up exactly.
std::vector<bf16> random_tensor(const model_config& c, std::uint64_t tensor, std::int64_t count) {
  // 0.02 at Qwen3-8B's width of 4096; a narrower model gets larger weights, so that logits spread as widely.
  const float deviation = bi::mul_rn(0.02f, bi::sqrt_rn(bi::div_rn(4096.0f, bi::float_from_int64(c.hidden))));
  const float sum_deviation = bi::mul_rn(65536.0f, bi::sqrt_rn(bi::div_rn(8.0f, 12.0f)));
  const float scale = bi::div_rn(deviation, sum_deviation);
  std::vector<bf16> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const bi::contract::philox_block r = bi::contract::philox4x32_10(
        {{static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), static_cast<std::uint32_t>(tensor), 0}},
        static_cast<std::uint32_t>(c.seed), static_cast<std::uint32_t>(c.seed >> 32));
    std::int32_t sum = -4 * 65535;
    for (const std::uint32_t w : r.word) sum += static_cast<std::int32_t>((w & 0xffffu) + (w >> 16));
    out[i] = bi::cvt_rn<bf16>(bi::mul_rn(bi::float_from_int(sum), scale));
  }
  return out;
}

}  // namespace

weights make_weights(const model_config& c) {
  weights w;
  w.config = c;
  std::uint64_t tensor = 0;
  const auto account = [&](const void* data, std::size_t bytes) {
    w.digest = bi::mix64(w.digest + bi::contract::digest_terms(data, bytes));
  };
  const auto random = [&](std::int64_t count) {
    std::vector<bf16> t = random_tensor(c, tensor++, count);
    w.parameters += count;
    account(t.data(), t.size() * sizeof(bf16));
    return t;
  };
  const auto ones = [&](std::int64_t count) {
    w.parameters += count;
    return std::vector<bf16>(static_cast<std::size_t>(count), bi::cvt_rn<bf16>(1.0f));
  };
  w.embedding = random(c.vocab * c.hidden);
  for (std::int64_t i = 0; i < c.layers; ++i) {
    weights::layer l;
    l.attention_norm = ones(c.hidden);
    l.qkv = random(c.qkv_width() * c.hidden);
    l.q_norm = ones(c.head_dim);
    l.k_norm = ones(c.head_dim);
    l.o = random(c.hidden * c.heads_q * c.head_dim);
    l.mlp_norm = ones(c.hidden);
    l.gate_up = random(2 * c.mlp * c.hidden);
    l.down = random(c.hidden * c.mlp);
    w.layers.push_back(std::move(l));
  }
  w.final_norm = ones(c.hidden);
  w.head = random(c.vocab * c.hidden);
  const auto angles = static_cast<std::size_t>(c.max_positions * c.head_dim / 2);
  w.cos.resize(angles);
  w.sin.resize(angles);
  require(bi::make_rope_table(rope_theta, c.head_dim, c.max_positions, w.cos.data(), w.sin.data()));
  account(w.cos.data(), angles * sizeof(float));
  account(w.sin.data(), angles * sizeof(float));
  return w;
}

std::vector<std::pair<std::string, std::uint64_t>> contracts_of(const model_config& c) {
  namespace k = bi::contract;
  const auto gemm = [](std::int64_t n, std::int64_t depth) {
    return k::gemm_v1<bf16>{k::default_slices(n, depth)}.id();
  };
  return {{"gemm_qkv", gemm(c.qkv_width(), c.hidden)},
          {"gemm_o", gemm(c.hidden, c.heads_q * c.head_dim)},
          {"gemm_gate_up", gemm(2 * c.mlp, c.hidden)},
          {"gemm_down", gemm(c.hidden, c.mlp)},
          {"gemm_head", gemm(c.vocab, c.hidden)},
          {"attention", k::attention_v1<bf16>::id()},
          {"rms_norm", k::rms_norm_draft::id()},
          {"rope", k::rope_draft::id()},
          {"activation", k::activation_draft::id()},
          {"sample", k::sample_draft::id()},
          {"digest", k::digest_words_draft::id()}};
}

model::model(backend& b, const weights& w, const model_limits& limits)
    : backend_(b),
      config_(w.config),
      limits_(limits),
      max_pages_((config_.max_positions - 1) / limits.page_size + 1),
      identity_(w.digest),
      embedding_(b, w.embedding),
      final_norm_(b, w.final_norm),
      head_(b, w.head),
      cos_(b, w.cos),
      sin_(b, w.sin) {
  const model_config& c = config_;
  for (const auto& [name, id] : contracts_of(c)) identity_ = bi::mix64(identity_ + id);
  for (const weights::layer& l : w.layers) {
    const std::int64_t cache = limits_.pages * limits_.page_size * c.heads_kv * c.head_dim;
    layers_.push_back({{b, l.attention_norm},
                       {b, l.qkv},
                       {b, l.q_norm},
                       {b, l.k_norm},
                       {b, l.o},
                       {b, l.mlp_norm},
                       {b, l.gate_up},
                       {b, l.down},
                       make<bf16>(cache),
                       make<bf16>(cache)});
  }
  const std::int64_t rows = limits_.rows, requests = limits_.requests;
  residual_ = make<bf16>(rows * c.hidden);
  normed_ = make<bf16>(rows * c.hidden);
  qkv_ = make<bf16>(rows * c.qkv_width());
  attended_ = make<bf16>(rows * c.heads_q * c.head_dim);
  projected_ = make<bf16>(rows * c.hidden);
  gate_up_ = make<bf16>(rows * 2 * c.mlp);
  gated_ = make<bf16>(rows * c.mlp);
  last_ = make<bf16>(requests * c.hidden);
  logits_ = make<float>(requests * c.vocab);
  token_ = make<std::int32_t>(rows);
  position_ = make<std::int32_t>(rows);
  slot_ = make<std::int64_t>(rows);
  q_start_ = make<std::int32_t>(requests + 1);
  len_ = make<std::int32_t>(requests);
  pages_ = make<std::int32_t>(requests * max_pages_);
  logits_row_ = make<std::int32_t>(requests);
  params_ = make<bi::sample_params>(requests);
  sampled_ = make<std::int32_t>(requests);
  digest_ = make<std::uint64_t>(requests);
}

template <class T>
bi::paged_cache<T> model::cache(const layer& l) const {
  bi::paged_cache<T> c;
  c.k = l.k_cache.data();
  c.v = l.v_cache.data();
  c.num_pages = limits_.pages;
  c.page_size = limits_.page_size;
  c.heads = config_.heads_kv;
  c.head_dim = config_.head_dim;
  return c;
}

bi::rope_table model::rope() const {
  bi::rope_table t;
  t.cos = cos_.data();
  t.sin = sin_.data();
  t.positions = config_.max_positions;
  t.rotary_dim = config_.head_dim;
  return t;
}

void model::upload(const batch& in) {
  token_.upload(in.token);
  position_.upload(in.position);
  slot_.upload(in.slot);
  q_start_.upload(in.q_start);
  len_.upload(in.len);
  std::vector<std::int32_t> table(in.pages.size() * static_cast<std::size_t>(max_pages_), 0);
  for (std::size_t i = 0; i < in.pages.size(); ++i) {
    std::copy(in.pages[i].begin(), in.pages[i].end(), table.begin() + static_cast<std::ptrdiff_t>(i) * max_pages_);
  }
  pages_.upload(table);
  logits_row_.upload(in.logits_row);
  params_.upload(in.params);
}

// residual += x, normed = rms_norm(residual).
void model::add_norm(const bf16* x, const bf16* weight, std::int64_t rows, bool fused) {
  bi::rms_norm_args<bf16> norm;
  norm.weight = weight;
  norm.eps = norm_eps;
  norm.rows = rows;
  norm.cols = config_.hidden;
  norm.out = normed_.data();
  norm.x = residual_.data();
  if (x != nullptr && fused) {
    norm.x = x;
    norm.residual = norm.residual_out = residual_.data();
  } else if (x != nullptr) {
    bi::add_args<bf16> add;
    add.x = x;
    add.y = residual_.data();
    add.rows = rows;
    add.cols = config_.hidden;
    add.out = residual_.data();
    backend_.add(add);
  }
  backend_.rms_norm(norm);
}

void model::linear(const bf16* x, const buffer<bf16>& weight, bf16* out, std::int64_t m, std::int64_t n,
                   std::int64_t k) {
  gemm_args g;
  g.a = x;
  g.b = weight.data();
  g.d = out;
  g.m = m;
  g.b_is_constant = true;
  backend_.gemm({.n = n, .k = k, .max_m = limits_.rows}, g);
}

// q and k are normalised and rotated, k and v go to the cache, and q attends to what the cache holds.
void model::attend(const layer& l, const batch& in) {
  const model_config& c = config_;
  const auto rows = static_cast<std::int64_t>(in.token.size());
  bf16* const q = qkv_.data();
  bf16* const k = q + c.heads_q * c.head_dim;
  bf16* const v = k + c.heads_kv * c.head_dim;

  const auto norm_and_rotate = [&](bf16* x, std::int64_t heads, const buffer<bf16>& weight) {
    bi::qk_norm_args<bf16> norm;
    norm.x = norm.out = x;
    norm.x_token_stride = norm.out_token_stride = c.qkv_width();
    norm.weight = weight.data();
    norm.eps = norm_eps;
    norm.tokens = rows;
    norm.heads = heads;
    norm.head_dim = c.head_dim;
    backend_.qk_norm(norm);
    bi::rope_args<bf16> turn;
    turn.x = turn.out = x;
    turn.x_token_stride = turn.out_token_stride = c.qkv_width();
    turn.position = position_.data();
    turn.table = rope();
    turn.tokens = rows;
    turn.heads = heads;
    turn.head_dim = c.head_dim;
    backend_.rope(turn);
  };
  norm_and_rotate(q, c.heads_q, l.q_norm);
  if (!in.fused) norm_and_rotate(k, c.heads_kv, l.k_norm);

  bi::kv_append_args<bf16> append;
  append.cache = cache<bf16>(l);
  append.k = k;
  append.v = v;
  append.k_token_stride = c.qkv_width();
  append.slot = slot_.data();
  append.tokens = rows;
  if (in.fused) {
    append.norm_weight = l.k_norm.data();
    append.norm_eps = norm_eps;
    append.position = position_.data();
    append.table = rope();
  }
  backend_.kv_append(append);

  bi::attention_args<bf16> a;
  a.q = q;
  a.q_token_stride = c.qkv_width();
  a.cache = cache<const bf16>(l);
  a.view = bi::page_table{pages_.data(), max_pages_};
  a.len = len_.data();
  a.q_start = q_start_.data();
  a.requests = static_cast<std::int64_t>(in.len.size());
  a.rows = rows;
  a.scale = bi::div_rn(1.0f, bi::sqrt_rn(bi::float_from_int64(c.head_dim)));
  a.limits.max_requests = limits_.requests;
  a.limits.max_rows = limits_.rows;
  a.limits.max_q_len = limits_.rows;
  a.limits.max_view = c.max_positions;
  a.limits.heads_q = c.heads_q;
  a.limits.heads_kv = c.heads_kv;
  a.limits.head_dim = c.head_dim;
  a.out = attended_.data();
  backend_.attention(a);
}

// gated = silu(gate) * up. Row 2j of the weight is gate j, row 2j + 1 is up j.
void model::gate_up(const layer& l, std::int64_t rows, bool fused) {
  const model_config& c = config_;
  if (fused) {
    gemm_silu_gate_args g;
    g.a = normed_.data();
    g.b = l.gate_up.data();
    g.d = gated_.data();
    g.m = rows;
    g.b_is_constant = true;
    backend_.gemm_silu_gate({.n = 2 * c.mlp, .k = c.hidden, .max_m = limits_.rows}, g);
    return;
  }
  linear(normed_.data(), l.gate_up, gate_up_.data(), rows, 2 * c.mlp, c.hidden);
  bi::gate_mul_args<bf16> s;
  s.gate = gate_up_.data();
  s.up = gate_up_.data() + 1;
  s.column_step = 2;
  s.rows = rows;
  s.cols = c.mlp;
  s.out = gated_.data();
  backend_.silu_mul(s);
}

step_result model::forward(const batch& in) {
  const model_config& c = config_;
  const auto rows = static_cast<std::int64_t>(in.token.size());
  upload(in);

  backend_.gather({embedding_.data(), c.vocab, token_.data(), rows, c.hidden, residual_.data()});
  const bf16* x = nullptr;  // what the residual stream has yet to take in
  for (const layer& l : layers_) {
    add_norm(x, l.attention_norm.data(), rows, in.fused);
    linear(normed_.data(), l.qkv, qkv_.data(), rows, c.qkv_width(), c.hidden);
    attend(l, in);
    linear(attended_.data(), l.o, projected_.data(), rows, c.hidden, c.heads_q * c.head_dim);
    add_norm(projected_.data(), l.mlp_norm.data(), rows, in.fused);
    gate_up(l, rows, in.fused);
    linear(gated_.data(), l.down, projected_.data(), rows, c.hidden, c.mlp);
    x = projected_.data();
  }
  add_norm(x, final_norm_.data(), rows, in.fused);

  const std::size_t count = in.logits_row.size();
  const auto wanted = static_cast<std::int64_t>(count);
  if (count == 0) return {};
  backend_.gather({normed_.data(), rows, logits_row_.data(), wanted, c.hidden, last_.data()});
  gemm_f32_out_args head;
  head.a = last_.data();
  head.b = head_.data();
  head.d = logits_.data();
  head.m = wanted;
  head.b_is_constant = true;
  backend_.gemm_f32_out({.n = c.vocab, .k = c.hidden, .max_m = limits_.requests}, head);

  bi::sample_args<float> s;
  s.logits = logits_.data();
  s.rows = wanted;
  s.vocab = c.vocab;
  s.params = params_.data();
  s.token = sampled_.data();
  backend_.sample(s);
  backend_.digest_rows({logits_.data(), 0, wanted, c.vocab * static_cast<std::int64_t>(sizeof(float)), digest_.data()});
  return {sampled_.download(count), digest_.download(count)};
}

std::uint64_t model::digest_kv(const std::vector<std::int32_t>& pages, std::int64_t count) {
  pages_.upload(pages);
  len_.upload({static_cast<std::int32_t>(count)});
  std::uint64_t all = 0;
  for (const layer& l : layers_) {
    bi::digest_kv_args<bf16> d;
    d.cache = cache<const bf16>(l);
    d.view = bi::page_table{pages_.data(), max_pages_};
    d.count = len_.data();
    d.requests = 1;
    d.out = digest_.data();
    backend_.digest_kv(d);
    all = bi::mix64(all + digest_.download(1)[0]);
  }
  return all;
}

}  // namespace demo
