// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backend.hpp"

namespace demo {

// A transformer of Qwen3's shape: rms_norm, grouped-query attention with normalised q and k, RoPE, silu gate.
struct model_config {
  std::int64_t hidden = 256;
  std::int64_t layers = 2;
  std::int64_t heads_q = 4;
  std::int64_t heads_kv = 2;
  std::int64_t head_dim = 64;
  std::int64_t mlp = 512;
  std::int64_t vocab = 2048;
  std::int64_t max_positions = 4096;
  std::uint64_t seed = 1;  // of the weights

  std::int64_t qkv_width() const { return (heads_q + 2 * heads_kv) * head_dim; }
};

// Every tensor of the model, from Philox(seed, tensor, element): the same on every machine, with no files.
struct weights {
  struct layer {
    std::vector<bf16> attention_norm, qkv, q_norm, k_norm, o, mlp_norm, gate_up, down;
  };
  model_config config;
  std::vector<bf16> embedding, final_norm, head;
  std::vector<float> cos, sin;  // RoPE, [max_positions, head_dim / 2]
  std::vector<layer> layers;
  std::int64_t parameters = 0;
  std::uint64_t digest = 0;  // of all of the above
};
weights make_weights(const model_config& config);

// The most that one step may hold.
struct model_limits {
  std::int64_t rows = 0;      // tokens
  std::int64_t requests = 0;  // also the most rows of logits
  std::int64_t pages = 0;     // of the KV cache
  std::int64_t page_size = 16;
};

// One step: rows q_start[i] .. q_start[i + 1] - 1 are the newest tokens of request i's view.
struct batch {
  std::vector<std::int32_t> token;               // [rows]
  std::vector<std::int32_t> position;            // [rows]
  std::vector<std::int64_t> slot;                // [rows] where in the cache its K and V go
  std::vector<std::int32_t> q_start;             // [requests + 1]
  std::vector<std::int32_t> len;                 // [requests] tokens in the view, the new ones included
  std::vector<std::vector<std::int32_t>> pages;  // [requests] the view's pages in order
  std::vector<std::int32_t> logits_row;          // rows whose logits are wanted, at most limits.requests
  std::vector<bi::sample_params> params;         // one for each of them
  bool fused = true;                             // fused operations or separate ones: the same bits
};

// For each of batch::logits_row.
struct step_result {
  std::vector<std::int32_t> token;
  std::vector<std::uint64_t> logits_digest;
};

class model {
 public:
  model(backend& b, const weights& w, const model_limits& limits);

  step_result forward(const batch& in);
  // Digest of all K and V of one view's first `count` tokens.
  std::uint64_t digest_kv(const std::vector<std::int32_t>& pages, std::int64_t count);

  const model_config& config() const { return config_; }
  const model_limits& limits() const { return limits_; }
  std::uint64_t identity() const { return identity_; }  // of the weights and the contracts

 private:
  struct layer {
    buffer<bf16> attention_norm, qkv, q_norm, k_norm, o, mlp_norm, gate_up, down;
    buffer<bf16> k_cache, v_cache;
  };

  template <class T>
  buffer<T> make(std::int64_t count) {
    return buffer<T>(backend_, static_cast<std::size_t>(count));
  }
  void upload(const batch& in);
  void add_norm(const bf16* x, const bf16* weight, std::int64_t rows, bool fused);
  void linear(const bf16* x, const buffer<bf16>& weight, bf16* out, std::int64_t m, std::int64_t n, std::int64_t k);
  void attend(const layer& l, const batch& in);
  void gate_up(const layer& l, std::int64_t rows, bool fused);
  template <class T>  // bf16 to write, const bf16 to read
  bi::paged_cache<T> cache(const layer& l) const;
  bi::rope_table rope() const;

  backend& backend_;
  model_config config_;
  model_limits limits_;
  std::int64_t max_pages_;  // of one view
  std::uint64_t identity_;

  buffer<bf16> embedding_, final_norm_, head_;
  buffer<float> cos_, sin_;
  std::vector<layer> layers_;

  // Activations, one row a token.
  buffer<bf16> residual_, normed_, qkv_, attended_, projected_, gated_, gate_up_, last_;
  buffer<float> logits_;
  // The step's description.
  buffer<std::int32_t> token_, position_, q_start_, len_, pages_, logits_row_, sampled_;
  buffer<std::int64_t> slot_;
  buffer<bi::sample_params> params_;
  buffer<std::uint64_t> digest_;
};

// The contracts that this model's results depend on, as [what for, id]: equal ids promise equal bits.
std::vector<std::pair<std::string, std::uint64_t>> contracts_of(const model_config& config);

}  // namespace demo
