// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// What engines without batch invariance do, for comparison: correct sums, whose order follows the batch. Nothing here is
// random, and a run alone repeats bit by bit; it is the batch that differs from time to time.
//
//   rms_norm   a block of threads for each row, fewer of them when there are many rows
//   gemm       split-K: k is cut into as many parts as it takes to keep all SMs busy
//   attention  split-KV: a decode's keys are cut into as many parts as it takes to keep all SMs busy

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend_reference.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/parallel.hpp"
#include "split_k.hpp"

namespace demo {
namespace {

// Sum of squares by `threads` threads: each a strided share, then a tree.
float sum_of_squares(const float* x, std::int64_t n, std::int64_t threads) {
  std::vector<float> share(static_cast<std::size_t>(threads), 0.0f);
  for (std::int64_t i = 0; i < n; ++i) share[static_cast<std::size_t>(i % threads)] += x[i] * x[i];
  for (std::size_t half = share.size() / 2; half > 0; half /= 2) {
    for (std::size_t t = 0; t < half; ++t) share[t] += share[t + half];
  }
  return share[0];
}

// One part of a row's attention: softmax numerators over keys [begin, end), not yet divided by their sum.
struct part {
  float max, sum;
  std::vector<float> out;
};

class baseline_backend final : public reference_backend {
 public:
  using reference_backend::reference_backend;
  std::string name() const override { return baseline_name; }

  void gemm(const bi::gemm_limits& l, const gemm_args& a) override { split_gemm(l, a); }
  void gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) override { split_gemm(l, a); }
  void gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) override { split_gemm(l, a); }

  void rms_norm(const bi::rms_norm_args<bf16>& a) override {
    const std::int64_t threads = a.rows <= 16 ? 256 : a.rows <= 64 ? 128 : 32;
    const auto stride = [&](std::int64_t s) { return s == 0 ? a.cols : s; };
    bi::reference::parallel_for(a.rows, threads_, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> x(static_cast<std::size_t>(a.cols));
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t i = 0; i < a.cols; ++i) {
          float& v = x[static_cast<std::size_t>(i)];
          v = bi::to_f32(a.x[r * stride(a.x_stride) + i]);
          if (a.residual == nullptr) continue;
          const bf16 sum = bi::cvt_rn<bf16>(v + bi::to_f32(a.residual[r * stride(a.residual_stride) + i]));
          a.residual_out[r * stride(a.residual_out_stride) + i] = sum;
          v = bi::to_f32(sum);
        }
        const float mean = sum_of_squares(x.data(), a.cols, threads) / static_cast<float>(a.cols);
        const float scale = 1.0f / std::sqrt(mean + a.eps);
        for (std::int64_t i = 0; i < a.cols; ++i) {
          a.out[r * stride(a.out_stride) + i] =
              bi::cvt_rn<bf16>(x[static_cast<std::size_t>(i)] * scale * bi::to_f32(a.weight[i]));
        }
      }
    });
  }

  // Takes what the model uses: a page table, q_start, causal mask, contiguous heads.
  void attention(const bi::attention_args<bf16>& a) override {
    require(bi::check(a));
    bi::reference::parallel_for(a.requests, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = a.q_start[i], count = a.q_start[i + 1] - first;
        for (std::int64_t row = 0; row < count; ++row) {
          const std::int64_t see = a.len[i] - count + row + 1;
          for (std::int64_t head = 0; head < a.limits.heads_q; ++head) {
            attend(a, i, first + row, head, see, count == 1 ? split_kv(a, see) : 1);
          }
        }
      }
    });
  }

 private:
  template <class Args>
  void split_gemm(bi::gemm_limits l, const Args& a) {
    l.slices = split_k(a.m, l);
    require(bi::reference::gemm(l, a, threads_));
  }

  static std::int64_t split_kv(const bi::attention_args<bf16>& a, std::int64_t see) {
    const std::int64_t blocks = a.requests * a.limits.heads_kv;
    return std::clamp<std::int64_t>(busy_blocks / blocks, 1, (see + 15) / 16);
  }

  static part attend_part(const bi::attention_args<bf16>& a, std::int64_t request, const bf16* q, std::int64_t kv_head,
                          std::int64_t begin, std::int64_t end) {
    const std::int64_t dim = a.limits.head_dim, page_size = a.cache.page_size;
    const bi::cache_strides ks = bi::k_strides(a.cache), vs = bi::v_strides(a.cache);
    part p{-INFINITY, 0.0f, std::vector<float>(static_cast<std::size_t>(dim), 0.0f)};
    for (std::int64_t j = begin; j < end; ++j) {
      const std::int64_t page = a.view.table.pages[request * a.view.table.row_stride + j / page_size];
      const bf16* k = a.cache.k + page * ks.page + j % page_size * ks.token + kv_head * ks.head;
      const bf16* v = a.cache.v + page * vs.page + j % page_size * vs.token + kv_head * vs.head;
      float score = 0.0f;
      for (std::int64_t d = 0; d < dim; ++d) score += bi::to_f32(q[d]) * bi::to_f32(k[d]);
      score *= a.scale;
      const float max = std::max(p.max, score);
      const float keep = std::exp(p.max - max), weight = std::exp(score - max);
      p.max = max;
      p.sum = p.sum * keep + weight;
      for (std::int64_t d = 0; d < dim; ++d) {
        float& o = p.out[static_cast<std::size_t>(d)];
        o = o * keep + weight * bi::to_f32(v[d]);
      }
    }
    return p;
  }

  static void attend(const bi::attention_args<bf16>& a, std::int64_t request, std::int64_t row, std::int64_t head,
                     std::int64_t see, std::int64_t splits) {
    const std::int64_t dim = a.limits.head_dim, width = a.limits.heads_q * dim;
    const std::int64_t token_stride = a.q_token_stride == 0 ? width : a.q_token_stride;
    const std::int64_t kv_head = head / (a.limits.heads_q / a.limits.heads_kv);
    const bf16* q = a.q + row * token_stride + head * dim;
    const std::int64_t share = (see + splits - 1) / splits;
    part all = attend_part(a, request, q, kv_head, 0, std::min(share, see));
    for (std::int64_t begin = share; begin < see; begin += share) {
      const part p = attend_part(a, request, q, kv_head, begin, std::min(begin + share, see));
      const float max = std::max(all.max, p.max);
      const float keep = std::exp(all.max - max), weight = std::exp(p.max - max);
      all.max = max;
      all.sum = all.sum * keep + p.sum * weight;
      for (std::size_t d = 0; d < all.out.size(); ++d) all.out[d] = all.out[d] * keep + p.out[d] * weight;
    }
    bf16* out = a.out + row * width + head * dim;
    if (a.lse != nullptr) a.lse[row * a.limits.heads_q + head] = all.max + std::log(all.sum);
    for (std::int64_t d = 0; d < dim; ++d) out[d] = bi::cvt_rn<bf16>(all.out[static_cast<std::size_t>(d)] / all.sum);
  }
};

}  // namespace

std::unique_ptr<backend> make_baseline(int threads) { return std::make_unique<baseline_backend>(threads); }

}  // namespace demo
