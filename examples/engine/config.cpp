// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "config.hpp"

#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "bi/contract/activation.hpp"
#include "bi/contract/attention.hpp"
#include "bi/contract/digest.hpp"
#include "bi/contract/gemm.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/contract/sample.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/dtype.hpp"
#include "json.hpp"

namespace engine {
namespace {

// Members of one object, with errors as sentences.
class reader {
 public:
  reader(const json& object, std::string name) : object_(object), name_(std::move(name)) {}

  [[noreturn]] void fail(const std::string& what) const { throw std::invalid_argument(name_ + ": " + what); }
  const json& member(const char* key) const {
    const json* j = object_.find(key);
    if (j == nullptr) fail(std::string(key) + " is missing");
    return *j;
  }
  bool has(const char* key) const {
    const json* j = object_.find(key);
    return j != nullptr && !j->is_null();
  }
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const {
    return value(key, [&](const json& j) {
      const std::int64_t v = j.integer();
      if (v < low || v > high) {
        throw std::invalid_argument("= " + std::to_string(v) + " must lie between " + std::to_string(low) + " and " +
                                    std::to_string(high));
      }
      return v;
    });
  }
  double positive(const char* key) const {
    return value(key, [](const json& j) {
      if (!(j.real() > 0) || j.real() > std::numeric_limits<float>::max()) {
        throw std::invalid_argument("= " + j.dump() + " must be greater than 0 and a float");
      }
      return j.real();
    });
  }
  bool boolean(const char* key, bool absent) const {
    return has(key) ? value(key, [](const json& j) { return j.boolean(); }) : absent;
  }
  // The engine knows one value, which is also what is meant when the member is absent.
  template <class T>
  void only(const char* key, const T& known) const {
    if (!has(key) || member(key).dump() == json(known).dump()) return;
    fail(std::string(key) + " = " + member(key).dump() + " is not supported; supported: " + json(known).dump());
  }

 private:
  template <class F>
  auto value(const char* key, F get) const -> decltype(get(std::declval<const json&>())) {
    try {
      return get(member(key));
    } catch (const std::invalid_argument& e) {
      const std::string what = e.what();
      if (what.rfind(name_, 0) == 0) throw;
      fail(std::string(key) + " " + what);
    }
  }

  const json& object_;
  std::string name_;
};

}  // namespace

std::int64_t model_config::parameters() const {
  const std::int64_t layer = (qkv_width() + heads_q * head_dim + 3 * mlp) * hidden + 2 * hidden + 2 * head_dim;
  return layers * layer + hidden + vocab * hidden * (tied ? 1 : 2);
}

model_config read_config(std::string_view text, const std::string& name) {
  const json document = parse_json(text, name);
  if (document.type() != json::kind::object) throw std::invalid_argument(name + ": must hold an object");
  const reader r(document, name);
  r.only("model_type", "qwen3");
  r.only("hidden_act", "silu");
  r.only("attention_bias", false);
  r.only("use_sliding_window", false);
  if (r.has("rope_scaling")) r.fail("rope_scaling must be null: scaled positions are not supported");
  model_config c;
  constexpr std::int64_t wide = 1 << 20;
  c.hidden = r.integer("hidden_size", 8, wide);
  c.layers = r.integer("num_hidden_layers", 1, 1000);
  c.heads_q = r.integer("num_attention_heads", 1, 1024);
  c.heads_kv = r.integer("num_key_value_heads", 1, 1024);
  c.head_dim = r.integer("head_dim", 64, 256);
  c.mlp = r.integer("intermediate_size", 8, wide);
  c.vocab = r.integer("vocab_size", 2, wide);
  c.max_positions = r.integer("max_position_embeddings", 1, std::int64_t{1} << 24);
  c.norm_eps = static_cast<float>(r.positive("rms_norm_eps"));
  c.deviation = r.has("initializer_range") ? static_cast<float>(r.positive("initializer_range")) : 0.02f;
  c.tied = r.boolean("tie_word_embeddings", false);
  if (!r.has("rope_theta") && r.has("rope_parameters")) {  // where newer files have it
    const reader rope(r.member("rope_parameters"), name + ": rope_parameters");
    rope.only("rope_type", "default");
    c.rope_theta = rope.positive("rope_theta");
  } else {
    c.rope_theta = r.positive("rope_theta");
  }
  if (c.heads_q % c.heads_kv != 0) {
    r.fail("num_attention_heads = " + std::to_string(c.heads_q) +
           " must be a multiple of num_key_value_heads = " + std::to_string(c.heads_kv));
  }
  if (c.head_dim != 64 && c.head_dim != 128 && c.head_dim != 256) {
    r.fail("head_dim = " + std::to_string(c.head_dim) + " is not supported; supported: 64, 128, 256");
  }
  return c;
}

model_config load_config(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::invalid_argument("can't read " + file);
  std::ostringstream text;
  text << in.rdbuf();
  return read_config(text.str(), file);
}

std::vector<std::pair<std::string, std::uint64_t>> contracts_of(const model_config& c) {
  namespace k = bi::contract;
  const auto gemm = [](std::int64_t n, std::int64_t depth) {
    return k::gemm_v1<bi::bf16>{k::default_slices(n, depth)}.id();
  };
  return {{"gemm_qkv", gemm(c.qkv_width(), c.hidden)},
          {"gemm_o", gemm(c.hidden, c.heads_q * c.head_dim)},
          {"gemm_gate_up", gemm(2 * c.mlp, c.hidden)},
          {"gemm_down", gemm(c.hidden, c.mlp)},
          {"gemm_head", gemm(c.vocab, c.hidden)},
          {"attention", k::attention_v1<bi::bf16>::id()},
          {"rms_norm", k::rms_norm_draft::id()},
          {"rope", k::rope_draft::id()},
          {"activation", k::activation_draft::id()},
          {"sample", k::sample_draft::id()},
          {"digest", k::digest_words_draft::id()}};
}

}  // namespace engine
