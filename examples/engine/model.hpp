// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend.hpp"
#include "config.hpp"

namespace engine {

// The model's tensors in a backend's memory, made there. Any backend of the same device may read them.
struct weights {
  struct layer {
    buffer<bf16> attention_norm, qkv, q_norm, k_norm, o, mlp_norm, gate_up, down;
  };
  weights(backend& b, const model_config& c, std::uint64_t seed);
  // Reads every tensor again: digest and identity are those of the bytes in memory.
  void measure();
  // For faults that are injected.
  void flip_bit(std::uint64_t place, int bit);

  model_config config;
  buffer<bf16> embedding, final_norm, head;
  std::vector<layer> layers;
  std::uint64_t digest = 0;    // of every tensor, and of what else the config says
  std::uint64_t identity = 0;  // of digest and contracts: equal ones promise equal results

 private:
  template <class F>
  void each(F f) const;

  backend& backend_;
};

// The most that one step may hold. Nothing in it may change a bit.
struct model_limits {
  std::int64_t rows = 256;     // tokens
  std::int64_t requests = 64;  // views, and also rows of logits
  std::int64_t pages = 256;    // of the KV cache
  std::int64_t page_size = 16;
  std::int64_t max_view = 1024;  // tokens
};

// One step: rows q_start[i] .. q_start[i + 1] - 1 are the newest tokens of view i. A view is a list of runs.
struct batch {
  std::vector<std::int32_t> token, position;  // [rows]
  std::vector<std::int64_t> slot;             // [rows] where in the cache K and V go
  std::vector<std::int32_t> run_index;        // [rows] for digests: the token's number in its segment
  std::vector<std::int32_t> q_start{0};       // [views + 1]
  std::vector<std::int32_t> len;              // [views] tokens, the new ones included
  std::vector<bi::kv_run> runs;               // of all views
  std::vector<std::int32_t> run_start{0};     // [views + 1]
  std::vector<std::int32_t> logits_row;       // rows whose logits are wanted, at most limits.requests
  std::vector<bi::sample_params> params;      // of each of them
  std::vector<std::int32_t> target;           // of each: its log-probability is wanted, no sample. Empty: sample
  // How, not what:
  std::int64_t pad_to = 0;  // > 0: a step of one row a view is filled up to so many rows, and recorded as a graph
  bool grouped = false;     // what views have in common is read once

  std::int64_t rows() const { return static_cast<std::int64_t>(token.size()); }
  std::int64_t views() const { return static_cast<std::int64_t>(len.size()); }
};

struct step_result {
  std::vector<std::int32_t> token;           // for each of logits_row
  std::vector<float> logprob;                // of token, or of target
  std::vector<std::uint64_t> logits_digest;  // for each of logits_row
  std::vector<std::uint64_t> kv_digest;      // [layers, rows] what each token adds to the digest of its segment

  std::uint64_t kv(std::int64_t layer, std::int64_t row, std::int64_t rows) const {
    return kv_digest[static_cast<std::size_t>(layer * rows + row)];
  }
};

class model {
 public:
  // The weights and the backend must outlive the model.
  model(backend& b, const weights& w, const model_limits& limits);
  ~model() { backend_.forget_runs(); }
  model(const model&) = delete;
  model& operator=(const model&) = delete;

  step_result forward(const batch& s);
  // The digests of each list of runs, one a layer, from the bytes in the cache.
  std::vector<std::vector<std::uint64_t>> digest_kv(const std::vector<std::vector<bi::kv_run>>& lists);
  // One element of the cache, for faults that are injected.
  void flip_bit(std::int64_t layer, std::int64_t slot, std::int64_t element, int bit);

  const model_config& config() const { return weights_.config; }
  const model_limits& limits() const { return limits_; }
  std::uint64_t identity() const { return weights_.identity; }

 private:
  template <class T>
  struct field {  // of one of the two blocks of memory that a step moves
    std::size_t offset = 0, count = 0;
  };
  struct shape {  // of the step with its padding
    std::int64_t rows, views, logits;
    bool decode, pages, grouped, scored;
  };
  struct layer_cache {
    buffer<bf16> k, v;
  };

  template <class T>
  field<T> place(std::size_t& end, std::int64_t count);
  template <class T>
  T* in(const field<T>& f) const {
    return reinterpret_cast<T*>(input_.data() + f.offset);
  }
  template <class T>
  T* out(const field<T>& f) const {
    return reinterpret_cast<T*>(output_.data() + f.offset);
  }
  template <class T>
  void put(const field<T>& f, const std::vector<T>& values, T padding, std::int64_t padded);
  template <class T>
  std::vector<T> get(const field<T>& f, std::size_t count) const;

  shape describe(const batch& s);
  bool put_pages(const batch& s, std::int64_t views);
  void put_groups(const batch& s);
  void enqueue(const shape& s);
  void linear(const bf16* x, const buffer<bf16>& weight, bf16* to, std::int64_t m, std::int64_t n, std::int64_t k);
  void norm(const bf16* x, const buffer<bf16>& weight, std::int64_t rows);
  void attend(std::size_t layer, const shape& s);
  void finish(const shape& s);
  template <class T>
  bi::paged_cache<T> cache(std::size_t layer) const;

  backend& backend_;
  const weights& weights_;
  const model_limits limits_;
  std::int64_t most_runs_;

  buffer<float> cos_, sin_;
  std::vector<layer_cache> cache_;
  buffer<bf16> residual_, normed_, qkv_, attended_, projected_, gated_, last_;  // one row a token
  buffer<float> logits_, log_softmax_;

  std::vector<std::byte> staged_;
  std::size_t used_ = 0;  // bytes of it that the step needs
  mutable std::vector<std::byte> fetched_;
  buffer<std::byte> input_, output_;
  field<std::int32_t> token_, position_, run_index_, q_start_, len_, run_start_, page_, page_start_, logits_row_,
      target_;
  field<std::int32_t> group_start_, group_member_, group_shared_;
  field<std::int64_t> slot_;
  field<bi::sample_params> params_;
  field<bi::kv_run> runs_;
  field<std::int32_t> sampled_;
  field<float> logprob_;
  field<std::uint64_t> logits_digest_, kv_digest_;
};

}  // namespace engine
