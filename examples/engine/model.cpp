// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "model.hpp"

#include <algorithm>
#include <cstring>
#include <map>

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/digest.hpp"
#include "bi/contract/trig.hpp"
#include "weights.hpp"

namespace engine {
namespace {

std::uint64_t absorb(std::uint64_t digest, std::uint64_t word) { return bi::mix64(digest + bi::mix64(word + 1)); }

// Leading tokens that two views have in the same slots.
std::int64_t common_tokens(const bi::kv_run* a, const bi::kv_run* a_end, const bi::kv_run* b, const bi::kv_run* b_end) {
  std::int64_t tokens = 0;
  for (; a != a_end && b != b_end && a->slot == b->slot; ++a, ++b) {
    tokens += std::min(a->length, b->length);
    if (a->length != b->length) break;
  }
  return tokens;
}

}  // namespace

weights::weights(backend& b, const model_config& c, std::uint64_t seed) : config(c), backend_(b) {
  const float scale = weight_scale(c.deviation);
  std::uint64_t tensor = 0;
  const auto random = [&](std::int64_t count) {
    buffer<bf16> t(b, count);
    b.random_weights(t.data(), count, seed, tensor++, scale);
    return t;
  };
  const auto ones = [&](std::int64_t count) {
    buffer<bf16> t(b, count);
    t.upload(std::vector<bf16>(static_cast<std::size_t>(count), bi::cvt_rn<bf16>(1.0f)));
    return t;
  };
  embedding = random(c.vocab * c.hidden);
  for (std::int64_t i = 0; i < c.layers; ++i) {
    layer l;
    l.attention_norm = ones(c.hidden);
    l.qkv = random(c.qkv_width() * c.hidden);
    l.q_norm = ones(c.head_dim);
    l.k_norm = ones(c.head_dim);
    l.o = random(c.hidden * c.heads_q * c.head_dim);
    l.mlp_norm = ones(c.hidden);
    l.gate_up = random(2 * c.mlp * c.hidden);
    l.down = random(c.hidden * c.mlp);
    layers.push_back(std::move(l));
  }
  final_norm = ones(c.hidden);
  head = c.tied ? embedding : random(c.vocab * c.hidden);
  measure();
}

template <class F>
void weights::each(F f) const {
  f(embedding);
  for (const layer& l : layers) {
    for (const buffer<bf16>* t :
         {&l.attention_norm, &l.qkv, &l.q_norm, &l.k_norm, &l.o, &l.mlp_norm, &l.gate_up, &l.down}) {
      f(*t);
    }
  }
  f(final_norm);
  if (!config.tied) f(head);
}

void weights::measure() {
  const model_config& c = config;
  const buffer<std::uint64_t> sum(backend_, 1);
  digest = 0;
  each([&](const buffer<bf16>& t) {
    backend_.digest_rows({t.data(), 0, 1, static_cast<std::int64_t>(t.size() * sizeof(bf16)), sum.data()});
    digest = absorb(digest, sum.download(1)[0]);
  });
  for (const std::int64_t n : {c.heads_q, c.heads_kv, c.head_dim, c.vocab}) {
    digest = absorb(digest, static_cast<std::uint64_t>(n));
  }
  std::uint64_t theta = 0;
  std::memcpy(&theta, &c.rope_theta, sizeof theta);
  digest = absorb(absorb(digest, theta), bi::bits_of(c.norm_eps));
  identity = digest;
  for (const auto& [name, id] : contracts_of(c)) identity = absorb(identity, id);
}

void weights::flip_bit(std::uint64_t place, int bit) {
  std::uint64_t all = 0;
  each([&](const buffer<bf16>& t) { all += t.size(); });
  place %= all;
  each([&](const buffer<bf16>& t) {
    if (place < t.size()) {
      bf16 value{};
      backend_.download(&value, t.data() + place, sizeof value);
      value.bits = static_cast<std::uint16_t>(value.bits ^ (1u << bit));
      backend_.upload(t.data() + place, &value, sizeof value);
    }
    place -= t.size();  // wraps once it is found, and is then larger than any tensor
  });
}

template <class T>
model::field<T> model::place(std::size_t& end, std::int64_t count) {
  field<T> f{(end + 255) / 256 * 256, static_cast<std::size_t>(count)};
  end = f.offset + f.count * sizeof(T);
  return f;
}

model::model(backend& b, const weights& w, const model_limits& limits) : backend_(b), weights_(w), limits_(limits) {
  const model_config& c = w.config;
  const std::int64_t rows = limits.rows, views = limits.requests, pages = limits.max_view / limits.page_size + 1;
  if (limits.max_view > c.max_positions) {
    throw std::invalid_argument("views of " + std::to_string(limits.max_view) + " tokens exceed the model's " +
                                std::to_string(c.max_positions) + " positions");
  }
  most_runs_ = views * (pages + 64);  // segments end inside pages
  cos_ = buffer<float>(b, limits.max_view * c.head_dim / 2);
  sin_ = buffer<float>(b, limits.max_view * c.head_dim / 2);
  std::vector<float> cosine(cos_.size()), sine(sin_.size());
  require(bi::make_rope_table(c.rope_theta, c.head_dim, limits.max_view, cosine.data(), sine.data()));
  cos_.upload(cosine);
  sin_.upload(sine);
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::int64_t elements = limits.pages * limits.page_size * c.heads_kv * c.head_dim;
    cache_.push_back({buffer<bf16>(b, elements), buffer<bf16>(b, elements)});
  }
  residual_ = buffer<bf16>(b, rows * c.hidden);
  normed_ = buffer<bf16>(b, rows * c.hidden);
  qkv_ = buffer<bf16>(b, rows * c.qkv_width());
  attended_ = buffer<bf16>(b, rows * c.heads_q * c.head_dim);
  projected_ = buffer<bf16>(b, rows * c.hidden);
  gated_ = buffer<bf16>(b, rows * c.mlp);
  last_ = buffer<bf16>(b, views * c.hidden);
  logits_ = buffer<float>(b, views * c.vocab);

  std::size_t end = 0;
  token_ = place<std::int32_t>(end, rows);
  position_ = place<std::int32_t>(end, rows);
  run_index_ = place<std::int32_t>(end, rows);
  slot_ = place<std::int64_t>(end, rows);
  q_start_ = place<std::int32_t>(end, views + 1);
  len_ = place<std::int32_t>(end, views);
  run_start_ = place<std::int32_t>(end, views + 1);
  page_start_ = place<std::int32_t>(end, views + 1);
  logits_row_ = place<std::int32_t>(end, views);
  target_ = place<std::int32_t>(end, views);
  params_ = place<bi::sample_params>(end, views);
  group_start_ = place<std::int32_t>(end, views + 1);
  group_member_ = place<std::int32_t>(end, views);
  group_shared_ = place<std::int32_t>(end, views);
  page_ = place<std::int32_t>(end, most_runs_);
  runs_ = place<bi::kv_run>(end, most_runs_);
  staged_.resize(end);
  input_ = buffer<std::byte>(b, static_cast<std::int64_t>(end));
  end = 0;
  sampled_ = place<std::int32_t>(end, views);
  logprob_ = place<float>(end, views);
  logits_digest_ = place<std::uint64_t>(end, views);
  kv_digest_ = place<std::uint64_t>(end, std::max(c.layers * rows, views));
  fetched_.resize(end);
  output_ = buffer<std::byte>(b, static_cast<std::int64_t>(end));
}

// ---- what a step moves

template <class T>
void model::put(const field<T>& f, const std::vector<T>& values, T padding, std::int64_t padded) {
  const std::size_t count = std::max(values.size(), static_cast<std::size_t>(padded));
  if (count > f.count) throw std::logic_error("model: the step is larger than the limits say");
  used_ = std::max(used_, f.offset + count * sizeof(T));
  if (!values.empty()) std::memcpy(staged_.data() + f.offset, values.data(), values.size() * sizeof(T));
  for (std::size_t i = values.size(); i < count; ++i) {
    std::memcpy(staged_.data() + f.offset + i * sizeof(T), &padding, sizeof(T));
  }
}
template <class T>
std::vector<T> model::get(const field<T>& f, std::size_t count) const {
  std::vector<T> values(count);
  if (count > 0) std::memcpy(values.data(), fetched_.data() + f.offset, count * sizeof(T));
  return values;
}

// Views of whole pages, the last one of each apart, can be written as pages. True if all can.
bool model::put_pages(const batch& s, std::int64_t views) {
  std::vector<std::int32_t> pages, start{0};
  const auto size = static_cast<std::int32_t>(limits_.page_size);
  for (std::size_t v = 0; v < s.len.size(); ++v) {
    for (std::int32_t r = s.run_start[v]; r < s.run_start[v + 1]; ++r) {
      const bi::kv_run& run = s.runs[static_cast<std::size_t>(r)];
      std::int32_t page = run.slot / size, left = run.length;
      if (page * size != run.slot) return false;
      for (; left >= size; left -= size) pages.push_back(page++);
      if (left > 0 && r + 1 < s.run_start[v + 1]) return false;
      if (left > 0) pages.push_back(page);
    }
    start.push_back(static_cast<std::int32_t>(pages.size()));
  }
  put(page_, pages, 0, 0);
  put(page_start_, start, start.back(), views + 1);
  return true;
}

// Views that begin in the same slot have what follows in common too, as far as their runs are the same.
void model::put_groups(const batch& s) {
  std::map<std::int32_t, std::vector<std::int32_t>> by_slot;
  for (std::int32_t v = 0; v < static_cast<std::int32_t>(s.views()); ++v) {
    const auto r = static_cast<std::size_t>(s.run_start[static_cast<std::size_t>(v)]);
    by_slot[s.runs[r].slot].push_back(v);
  }
  std::vector<std::int32_t> start{0}, member, shared;
  const auto runs_of = [&](std::int32_t v, std::int32_t after) {
    return s.runs.data() + s.run_start[static_cast<std::size_t>(v + after)];
  };
  for (const auto& [slot, views] : by_slot) {
    if (views.size() < 2) continue;
    std::int64_t common = s.len[static_cast<std::size_t>(views[0])];
    for (const std::int32_t v : views) {
      common =
          std::min(common, common_tokens(runs_of(views[0], 0), runs_of(views[0], 1), runs_of(v, 0), runs_of(v, 1)));
    }
    member.insert(member.end(), views.begin(), views.end());
    start.push_back(static_cast<std::int32_t>(member.size()));
    shared.push_back(static_cast<std::int32_t>(common));
  }
  put(group_start_, start, start.back(), limits_.requests + 1);  // the groups after the last are empty
  put(group_member_, member, 0, 0);
  put(group_shared_, shared, 0, limits_.requests);
}

model::shape model::describe(const batch& s) {
  if (s.rows() == 0) throw std::logic_error("model: a step without rows");
  used_ = 0;
  shape h{};
  h.decode = s.rows() == s.views();
  const bool padded = s.pad_to > 0 && h.decode;
  h.rows = padded ? std::max(s.rows(), std::min({s.pad_to, limits_.rows, limits_.requests})) : s.rows();
  h.views = padded ? h.rows : s.views();
  h.logits = padded ? h.rows : static_cast<std::int64_t>(s.logits_row.size());
  h.grouped = s.grouped;
  h.scored = !s.target.empty();
  put(token_, s.token, -1, h.rows);
  put(position_, s.position, -1, h.rows);
  put(run_index_, s.run_index, 0, h.rows);
  put(slot_, s.slot, std::int64_t{-1}, h.rows);
  std::vector<std::int32_t> q_start = s.q_start;
  while (static_cast<std::int64_t>(q_start.size()) <= h.views) q_start.push_back(q_start.back() + 1);
  put(q_start_, q_start, 0, 0);
  put(len_, s.len, 0, h.views);
  h.pages = put_pages(s, h.views);
  if (!h.pages) {
    put(runs_, s.runs, {}, 0);
    put(run_start_, s.run_start, s.run_start.back(), h.views + 1);
  }
  put(logits_row_, s.logits_row, 0, h.logits);
  put(params_, s.params, {}, h.logits);
  put(target_, s.target, 0, h.logits);
  if (h.grouped) put_groups(s);
  return h;
}

step_result model::forward(const batch& s) {
  const shape h = describe(s);
  const model_config& c = config();
  if (h.scored && log_softmax_.size() == 0) log_softmax_ = buffer<float>(backend_, limits_.requests * c.vocab);
  backend_.upload(input_.data(), staged_.data(), used_);
  const bool graph = s.pad_to > 0 && h.decode;
  const std::uint64_t key =
      (static_cast<std::uint64_t>(h.rows) << 3) | (h.pages ? 4u : 0u) | (h.grouped ? 2u : 0u) | (h.scored ? 1u : 0u);
  backend_.run(graph ? key : 0, [&] { enqueue(h); });
  const auto digests = static_cast<std::size_t>(c.layers * h.rows);
  backend_.download(fetched_.data(), output_.data(), kv_digest_.offset + digests * sizeof(std::uint64_t));
  step_result r;
  const std::size_t count = s.logits_row.size();
  r.token = get(sampled_, count);
  r.logprob = get(logprob_, count);
  r.logits_digest = get(logits_digest_, count);
  const std::vector<std::uint64_t> all = get(kv_digest_, digests);
  for (std::int64_t l = 0; l < c.layers; ++l) {  // without those of padding
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(l * h.rows);
    r.kv_digest.insert(r.kv_digest.end(), first, first + static_cast<std::ptrdiff_t>(s.rows()));
  }
  return r;
}

// ---- what a step computes

void model::enqueue(const shape& s) {
  const model_config& c = config();
  bi::embedding_args<bf16> e;
  e.table = weights_.embedding.data();
  e.table_rows = c.vocab;
  e.id = in(token_);
  e.rows = s.rows;
  e.cols = c.hidden;
  e.out = residual_.data();
  backend_.embedding(e);
  const bf16* branch = nullptr;  // what the next norm adds to the residual stream
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    const weights::layer& l = weights_.layers[i];
    norm(branch, l.attention_norm, s.rows);
    linear(normed_.data(), l.qkv, qkv_.data(), s.rows, c.qkv_width(), c.hidden);
    attend(i, s);
    linear(attended_.data(), l.o, projected_.data(), s.rows, c.hidden, c.heads_q * c.head_dim);
    norm(projected_.data(), l.mlp_norm, s.rows);
    gemm_silu_gate_args g;  // rows 2j and 2j + 1 of the weight are gate j and up j
    g.a = normed_.data();
    g.b = l.gate_up.data();
    g.d = gated_.data();
    g.m = s.rows;
    g.b_is_constant = true;
    backend_.gemm_silu_gate({.n = 2 * c.mlp, .k = c.hidden, .max_m = limits_.rows}, g);
    linear(gated_.data(), l.down, projected_.data(), s.rows, c.hidden, c.mlp);
    branch = projected_.data();
  }
  norm(branch, weights_.final_norm, s.rows);
  if (s.logits > 0) finish(s);
}

void model::linear(const bf16* x, const buffer<bf16>& weight, bf16* to, std::int64_t m, std::int64_t n,
                   std::int64_t k) {
  gemm_args g;
  g.a = x;
  g.b = weight.data();
  g.d = to;
  g.m = m;
  g.b_is_constant = true;
  backend_.gemm({.n = n, .k = k, .max_m = limits_.rows}, g);
}

// residual += x, normed = rms_norm(residual).
void model::norm(const bf16* x, const buffer<bf16>& weight, std::int64_t rows) {
  bi::rms_norm_args<bf16> n;
  n.x = residual_.data();
  if (x != nullptr) {
    n.x = x;
    n.residual = n.residual_out = residual_.data();
  }
  n.weight = weight.data();
  n.eps = config().norm_eps;
  n.rows = rows;
  n.cols = config().hidden;
  n.out = normed_.data();
  backend_.rms_norm(n);
}

template <class T>
bi::paged_cache<T> model::cache(std::size_t layer) const {
  bi::paged_cache<T> c;
  c.k = cache_[layer].k.data();
  c.v = cache_[layer].v.data();
  c.num_pages = limits_.pages;
  c.page_size = limits_.page_size;
  c.heads = config().heads_kv;
  c.head_dim = config().head_dim;
  return c;
}

// q and k are normalised and rotated, k and v go to the cache, all in one call; then q attends to what the cache holds,
// which is the only place where attention finds K and V, new or old.
void model::attend(std::size_t layer, const shape& s) {
  const model_config& c = config();
  const weights::layer& l = weights_.layers[layer];
  bf16* const q = qkv_.data();
  bi::kv_append_args<bf16> append;
  append.cache = cache<bf16>(layer);
  append.q = append.q_out = q;
  append.k = q + c.heads_q * c.head_dim;
  append.v = append.k + c.heads_kv * c.head_dim;
  append.heads_q = c.heads_q;
  append.q_token_stride = append.q_out_token_stride = append.k_token_stride = append.v_token_stride = c.qkv_width();
  append.slot = in(slot_);
  append.tokens = s.rows;
  append.norm_weight = l.k_norm.data();
  append.q_norm_weight = l.q_norm.data();
  append.norm_eps = c.norm_eps;
  append.position = in(position_);
  append.table.cos = cos_.data();
  append.table.sin = sin_.data();
  append.table.positions = limits_.max_view;
  append.table.rotary_dim = c.head_dim;
  append.digest = out(kv_digest_) + static_cast<std::int64_t>(layer) * s.rows;
  append.run_index = in(run_index_);
  backend_.kv_append(append);

  bi::attention_args<bf16> a;
  a.q = q;
  a.q_token_stride = c.qkv_width();
  a.cache = cache<const bf16>(layer);
  if (s.pages) {
    a.view = bi::page_csr{in(page_), in(page_start_)};
  } else {
    a.view = bi::run_list{in(runs_), in(run_start_)};
  }
  a.len = in(len_);
  a.q_start = in(q_start_);
  a.requests = s.views;
  a.rows = s.rows;
  a.scale = bi::div_rn(1.0f, bi::sqrt_rn(bi::float_from_int64(c.head_dim)));
  a.limits.max_requests = limits_.requests;
  a.limits.max_rows = limits_.rows;
  a.limits.max_q_len = s.decode ? 1 : limits_.rows;
  a.limits.max_view = limits_.max_view;
  a.limits.heads_q = c.heads_q;
  a.limits.heads_kv = c.heads_kv;
  a.limits.head_dim = c.head_dim;
  if (s.grouped) {
    a.limits.max_groups = limits_.requests;
    a.sharing = {in(group_start_), in(group_member_), in(group_shared_), limits_.requests};
  }
  a.out = attended_.data();
  backend_.attention(a);
}

void model::finish(const shape& s) {
  const model_config& c = config();
  bi::embedding_args<bf16> e;
  e.table = normed_.data();
  e.table_rows = s.rows;
  e.id = in(logits_row_);
  e.rows = s.logits;
  e.cols = c.hidden;
  e.out = last_.data();
  backend_.embedding(e);
  gemm_f32_out_args g;
  g.a = last_.data();
  g.b = weights_.head.data();
  g.d = logits_.data();
  g.m = s.logits;
  g.b_is_constant = true;
  backend_.gemm_f32_out({.n = c.vocab, .k = c.hidden, .max_m = limits_.requests}, g);
  backend_.digest_rows(
      {logits_.data(), 0, s.logits, c.vocab * static_cast<std::int64_t>(sizeof(float)), out(logits_digest_)});
  if (s.scored) {
    bi::softmax_args<float> l;
    l.x = logits_.data();
    l.rows = s.logits;
    l.cols = c.vocab;
    l.out = log_softmax_.data();
    backend_.log_softmax(l);
    backend_.pick({log_softmax_.data(), s.logits, c.vocab, in(target_), out(logprob_)});
    return;
  }
  bi::sample_args<float> a;
  a.logits = logits_.data();
  a.rows = s.logits;
  a.vocab = c.vocab;
  a.params = in(params_);
  a.token = out(sampled_);
  a.logprob = out(logprob_);
  backend_.sample(a);
}

// ---- what is asked of the cache apart from steps

std::vector<std::vector<std::uint64_t>> model::digest_kv(const std::vector<std::vector<bi::kv_run>>& lists) {
  std::vector<std::vector<std::uint64_t>> digests(lists.size());
  const auto most = static_cast<std::size_t>(std::min(limits_.requests, limits_.rows));
  for (std::size_t begin = 0; begin < lists.size(); begin += most) {
    const std::size_t count = std::min(most, lists.size() - begin);
    std::vector<bi::kv_run> runs;
    std::vector<std::int32_t> start{0}, length;
    for (std::size_t i = 0; i < count; ++i) {
      length.push_back(0);
      for (const bi::kv_run& r : lists[begin + i]) length.back() += r.length;
      runs.insert(runs.end(), lists[begin + i].begin(), lists[begin + i].end());
      start.push_back(static_cast<std::int32_t>(runs.size()));
    }
    used_ = 0;
    put(runs_, runs, {}, 0);
    put(run_start_, start, 0, 0);
    put(len_, length, 0, 0);
    backend_.upload(input_.data(), staged_.data(), used_);
    for (std::size_t i = 0; i < cache_.size(); ++i) {
      bi::digest_kv_args<bf16> d;
      d.cache = cache<const bf16>(i);
      d.view = bi::run_list{in(runs_), in(run_start_)};
      d.count = in(len_);
      d.requests = static_cast<std::int64_t>(count);
      d.out = out(kv_digest_) + i * count;
      backend_.digest_kv(d);
    }
    const std::size_t words = cache_.size() * count;
    backend_.download(fetched_.data(), output_.data(), kv_digest_.offset + words * sizeof(std::uint64_t));
    const std::vector<std::uint64_t> all = get(kv_digest_, words);
    for (std::size_t i = 0; i < words; ++i) digests[begin + i % count].push_back(all[i]);
  }
  return digests;
}

void model::flip_bit(std::int64_t layer, std::int64_t slot, std::int64_t element, int bit) {
  const std::int64_t width = config().heads_kv * config().head_dim;
  bf16* p = cache_.at(static_cast<std::size_t>(layer)).k.data() + slot * width + element % width;
  bf16 value{};
  backend_.download(&value, p, sizeof value);
  value.bits = static_cast<std::uint16_t>(value.bits ^ (1u << bit));
  backend_.upload(p, &value, sizeof value);
}

}  // namespace engine
