// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace engine {

// The shape of a Qwen3 model, as a Hugging Face config.json states it.
struct model_config {
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t heads_q = 0;
  std::int64_t heads_kv = 0;
  std::int64_t head_dim = 0;
  std::int64_t mlp = 0;
  std::int64_t vocab = 0;
  std::int64_t max_positions = 0;
  double rope_theta = 0;
  float norm_eps = 0;
  float deviation = 0;  // of random weights: initializer_range
  bool tied = false;    // the head is the embedding

  std::int64_t qkv_width() const { return (heads_q + 2 * heads_kv) * head_dim; }
  std::int64_t kv_bytes() const { return layers * 2 * heads_kv * head_dim * 2; }  // of a token
  std::int64_t parameters() const;
};

// Throws std::invalid_argument with a sentence that begins with `name`.
model_config read_config(std::string_view text, const std::string& name);
model_config load_config(const std::string& file);

// The contracts that the model's results depend on, as [what for, id]: equal ids promise equal bits.
std::vector<std::pair<std::string, std::uint64_t>> contracts_of(const model_config& c);

}  // namespace engine
