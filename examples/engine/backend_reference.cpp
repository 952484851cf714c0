// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Every operation is one call of bi::reference on the host's memory, but for those that shall follow the batch, which do
// what engines without batch invariance do: correct sums, whose order depends on what else is in the step. Nothing in
// them is random, and a run alone repeats bit by bit.
//
//   norm       a block of threads for each row, fewer of them when there are many rows
//   gemm       split-K: k is cut into as many parts as it takes to keep all SMs busy, and they are added in bf16
//   attention  split-KV: keys are cut into as many parts as it takes to keep all SMs busy

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "backend.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/reference/activation.hpp"
#include "bi/reference/attention.hpp"
#include "bi/reference/digest.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/kv_cache.hpp"
#include "bi/reference/parallel.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/sample.hpp"
#include "bi/reference/softmax.hpp"
#include "weights.hpp"

namespace engine {
namespace {

namespace reference = bi::reference;

constexpr std::int64_t busy_blocks = 132;  // thread blocks that fill the machine

// The slots of the first `count` tokens of a request's view.
std::vector<std::int64_t> slots_of(const bi::attention_args<bf16>& a, std::int64_t request, std::int64_t count) {
  std::vector<std::int64_t> slots;
  if (a.view.kind == bi::view_kind::page_csr) {
    for (std::int64_t j = 0; j < count; ++j) {
      const std::int64_t page = a.view.csr.pages[a.view.csr.start[request] + j / a.cache.page_size];
      slots.push_back(page * a.cache.page_size + j % a.cache.page_size);
    }
  } else if (a.view.kind == bi::view_kind::run_list) {
    const bi::run_list& l = a.view.runs;
    for (std::int32_t r = l.start[request]; r < l.start[request + 1]; ++r) {
      for (std::int32_t i = 0; i < l.runs[r].length; ++i) slots.push_back(l.runs[r].slot + i);
    }
  } else {
    throw std::logic_error("the baseline's attention knows page_csr and run_list");
  }
  return slots;
}

// One part of a row's attention: softmax numerators, not yet divided by their sum.
struct part {
  float max = -INFINITY, sum = 0;
  std::vector<float> out;

  void fold(const part& p) {
    const float most = std::max(max, p.max), keep = std::exp(max - most), weight = std::exp(p.max - most);
    max = most;
    sum = sum * keep + p.sum * weight;
    for (std::size_t d = 0; d < out.size(); ++d) out[d] = out[d] * keep + p.out[d] * weight;
  }
};

class reference_backend final : public backend {
 public:
  reference_backend(int threads, const batch_dependent& d) : threads_(threads), follows_(d) {}
  std::string name() const override { return arm_name(follows_); }
  std::string device() const override { return "CPU reference"; }

  void* allocate(std::size_t bytes) override {
    const std::size_t whole = (bytes + 255) / 256 * 256;
    void* p = std::aligned_alloc(256, whole == 0 ? 256 : whole);
    if (p == nullptr) throw std::bad_alloc();
    return std::memset(p, 0, whole);
  }
  void release(void* p) override { std::free(p); }
  void upload(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

  void random_weights(bf16* out, std::int64_t count, std::uint64_t seed, std::uint64_t tensor, float scale) override {
    reference::parallel_for(count, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        out[i] = random_weight(seed, tensor, static_cast<std::uint64_t>(i), scale);
      }
    });
  }
  void embedding(const bi::embedding_args<bf16>& a) override { require(reference::embedding(a, threads_)); }
  void rms_norm(const bi::rms_norm_args<bf16>& a) override {
    if (follows_.norm) return norm_by_rows(a);
    require(reference::rms_norm(a, threads_));
  }
  void gemm(const bi::gemm_limits& l, const gemm_args& a) override {
    if (follows_.gemm) return split_gemm(l, a);
    require(reference::gemm(l, a, threads_));
  }
  void gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) override {
    if (!follows_.gemm) return require(reference::gemm(l, a, threads_));
    std::vector<bf16> both(static_cast<std::size_t>(a.m * l.n));
    gemm_args g;
    g.a = a.a;
    g.b = a.b;
    g.d = both.data();
    g.m = a.m;
    split_gemm(l, g);
    bi::gate_mul_args<bf16> s;
    s.gate = both.data();
    s.up = s.gate + 1;
    s.column_step = 2;
    s.rows = a.m;
    s.cols = l.n / 2;
    s.out = a.d;
    require(reference::silu_mul(s, threads_));
  }
  void gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) override {
    require(reference::gemm(l, a, threads_));
  }
  void kv_append(const bi::kv_append_args<bf16>& a) override { require(reference::kv_append(a, threads_)); }
  void attention(const bi::attention_args<bf16>& a) override {
    if (follows_.attention) return split_attention(a);
    require(reference::attention(a, threads_));
  }
  void sample(const bi::sample_args<float>& a) override { require(reference::sample(a, threads_)); }
  void log_softmax(const bi::softmax_args<float>& a) override { require(reference::log_softmax(a, threads_)); }
  void pick(const pick_args& a) override {
    for (std::int64_t r = 0; r < a.rows; ++r) a.out[r] = a.data[r * a.cols + a.column[r]];
  }
  void digest_rows(const bi::digest_rows_args& a) override { require(reference::digest_rows(a, threads_)); }
  void digest_kv(const bi::digest_kv_args<bf16>& a) override { require(reference::digest_kv(a, threads_)); }

  void run(std::uint64_t, const std::function<void()>& calls) override { calls(); }
  void forget_runs() override {}

 private:
  void split_gemm(const bi::gemm_limits& l, const gemm_args& a) {
    const std::int64_t tiles = ((a.m + 15) / 16) * ((l.n + 63) / 64);
    std::int64_t parts = 1;
    while (parts < 8 && tiles * parts * 2 <= busy_blocks && l.k % (parts * 2 * 16) == 0) parts *= 2;
    std::vector<bf16> sum(static_cast<std::size_t>(a.m * l.n));
    for (std::int64_t p = 0; p < parts; ++p) {
      gemm_args g;
      g.a = a.a + p * (l.k / parts);
      g.b = a.b + p * (l.k / parts);
      g.lda = g.ldb = l.k;
      g.d = p == 0 ? a.d : sum.data();
      g.m = a.m;
      require(reference::gemm({.n = l.n, .k = l.k / parts, .max_m = a.m, .slices = 1}, g, threads_));
      for (std::size_t i = 0; p > 0 && i < sum.size(); ++i) {
        a.d[i] = bi::cvt_rn<bf16>(bi::to_f32(a.d[i]) + bi::to_f32(sum[i]));
      }
    }
  }

  // Rows are contiguous, as the model's are.
  void norm_by_rows(const bi::rms_norm_args<bf16>& a) {
    const std::size_t threads = a.rows <= 16 ? 256 : a.rows <= 64 ? 128 : 32;
    std::vector<float> x(static_cast<std::size_t>(a.cols)), share(threads);
    for (std::int64_t r = 0; r < a.rows; ++r) {
      std::fill(share.begin(), share.end(), 0.0f);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::int64_t at = r * a.cols + static_cast<std::int64_t>(i);
        x[i] = bi::to_f32(a.x[at]);
        if (a.residual != nullptr) {
          a.residual_out[at] = bi::cvt_rn<bf16>(x[i] + bi::to_f32(a.residual[at]));
          x[i] = bi::to_f32(a.residual_out[at]);
        }
        share[i % threads] += x[i] * x[i];
      }
      for (std::size_t half = threads / 2; half > 0; half /= 2) {
        for (std::size_t t = 0; t < half; ++t) share[t] += share[t + half];
      }
      const float scale = 1.0f / std::sqrt(share[0] / static_cast<float>(a.cols) + a.eps);
      for (std::size_t i = 0; i < x.size(); ++i) {
        a.out[r * a.cols + static_cast<std::int64_t>(i)] = bi::cvt_rn<bf16>(x[i] * scale * bi::to_f32(a.weight[i]));
      }
    }
  }

  void split_attention(const bi::attention_args<bf16>& a) {
    const std::int64_t dim = a.limits.head_dim, group = a.limits.heads_q / a.limits.heads_kv;
    const bi::attention_strides qs = bi::q_strides(a), os = bi::out_strides(a);
    for (std::int64_t r = 0; r < a.requests; ++r) {
      const std::vector<std::int64_t> slots = slots_of(a, r, a.len[r]);
      for (std::int64_t row = a.q_start[r]; row < a.q_start[r + 1]; ++row) {
        const std::int64_t see = a.len[r] - (a.q_start[r + 1] - row) + 1;
        const std::int64_t most = std::max<std::int64_t>(1, busy_blocks / (a.requests * a.limits.heads_kv));
        const std::int64_t splits = std::clamp<std::int64_t>(most, 1, std::max<std::int64_t>(1, see / 16));
        const std::int64_t share = std::max<std::int64_t>(1, (see + splits - 1) / splits);
        for (std::int64_t h = 0; h < a.limits.heads_q; ++h) {
          const bf16* q = a.q + row * qs.token + h * qs.head;
          bf16* out = a.out + row * os.token + h * os.head;
          part all = attend(a, q, h / group, slots, 0, std::min(share, see));
          for (std::int64_t begin = share; begin < see; begin += share) {
            all.fold(attend(a, q, h / group, slots, begin, std::min(begin + share, see)));
          }
          for (std::int64_t d = 0; d < dim; ++d) {
            out[d] = bi::cvt_rn<bf16>(see <= 0 ? 0.0f : all.out[static_cast<std::size_t>(d)] / all.sum);
          }
        }
      }
    }
  }

  static part attend(const bi::attention_args<bf16>& a, const bf16* q, std::int64_t kv_head,
                     const std::vector<std::int64_t>& slots, std::int64_t begin, std::int64_t end) {
    const std::int64_t size = a.cache.page_size;
    const bi::cache_strides ks = bi::k_strides(a.cache), vs = bi::v_strides(a.cache);
    part p;
    p.out.resize(static_cast<std::size_t>(a.limits.head_dim));
    for (std::int64_t j = begin; j < end; ++j) {
      const std::int64_t page = slots[static_cast<std::size_t>(j)] / size,
                         token = slots[static_cast<std::size_t>(j)] % size;
      const bf16* k = a.cache.k + page * ks.page + token * ks.token + kv_head * ks.head;
      const bf16* v = a.cache.v + page * vs.page + token * vs.token + kv_head * vs.head;
      part one;
      one.sum = 1;
      one.max = 0;
      for (std::size_t d = 0; d < p.out.size(); ++d) {
        one.max += bi::to_f32(q[d]) * bi::to_f32(k[d]);
        one.out.push_back(bi::to_f32(v[d]));
      }
      one.max *= a.scale;
      p.fold(one);
    }
    return p;
  }

  const int threads_;
  const batch_dependent follows_;
};

}  // namespace

std::unique_ptr<backend> make_reference(int threads, const batch_dependent& d) {
  return std::make_unique<reference_backend>(threads, d);
}

}  // namespace engine
